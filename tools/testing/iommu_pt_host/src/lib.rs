// SPDX-License-Identifier: GPL-2.0

//! The kernel's I/O page tables (`rust/kernel/iommu/pt`) as a user-space crate.
//!
//! The crate compiles the files in place, without copies. They name the kernel's error and atomic
//! types by `kernel::…` paths, so this crate answers to the name `kernel` and has stand-ins at the
//! same places.

extern crate self as kernel;

#[path = "../../../../rust/kernel/iommu/pt/mod.rs"]
pub mod pt;

pub mod alloc;
pub mod device;
pub mod error;
pub mod memory;
pub mod model;
pub mod reader;
pub mod sequence;
pub mod spec;
pub mod stale;
pub mod sync;
pub mod table;

/// The module of the page tables in the `kernel` crate.
pub mod iommu {
    pub use crate::pt;
}

/// Stand-in for the kernel's message of level "error".
#[macro_export]
macro_rules! pr_err {
    ($($args:tt)*) => { std::eprint!($($args)*) };
}
