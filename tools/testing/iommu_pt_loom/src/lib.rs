// SPDX-License-Identifier: GPL-2.0

//! The kernel's I/O page tables (`rust/kernel/iommu/pt`) on loom's atomics: a test runs once for
//! each interleaving of a few threads, and for each value that the memory model allows a read to
//! return.
//!
//! The crate compiles the files in place, like `iommu_pt_host`, and shares its stand-in for the
//! kernel's errors.

extern crate self as kernel;

#[path = "../../../../rust/kernel/iommu/pt/mod.rs"]
pub mod pt;

#[path = "../../iommu_pt_host/src/error.rs"]
pub mod error;
pub mod memory;
pub mod sync;

/// The module of the page tables in the `kernel` crate.
pub mod iommu {
    pub use crate::pt;
}
