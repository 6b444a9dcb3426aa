// SPDX-License-Identifier: GPL-2.0

//! The parsers of DMAR and IVRS tables as a user-space crate.
//!
//! The crate compiles the files in place, without copies. They name the kernel's types by
//! `kernel::…` paths, so this crate answers to the name `kernel` and has stand-ins at the same
//! places.

extern crate self as kernel;

// Tests need not read all fields that a driver reads.
#[allow(dead_code)]
#[path = "../../../../drivers/iommu/rust/vtd"]
mod vtd {
    pub(crate) mod acpi;
}
#[allow(dead_code)]
#[path = "../../../../drivers/iommu/rust/amdvi"]
mod amdvi {
    pub(crate) mod acpi;
}
#[path = "../../../../rust/kernel/iommu/firmware/reader.rs"]
pub mod reader;

pub mod alloc;
pub mod check;
pub mod error;

#[cfg(test)]
mod dmar_tests;
#[cfg(test)]
mod ivrs_tests;

pub use std::fmt;

/// The module of the reader in the `kernel` crate.
pub mod iommu {
    pub mod firmware {
        pub use crate::reader;
    }
}

/// The parts of the kernel's prelude that the parsers use.
pub mod prelude {
    pub use crate::{
        alloc::{
            KVec,
            GFP_KERNEL, //
        },
        error::{
            code::*,
            Error,
            Result, //
        },
    };
}
