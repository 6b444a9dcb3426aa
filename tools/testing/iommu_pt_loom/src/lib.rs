// SPDX-License-Identifier: GPL-2.0

//! The kernel's I/O page tables (`rust/kernel/iommu/pt`) on loom's atomics: a test runs once for
//! each order in which a few threads can meet, and for each value that the memory model lets a read
//! have.
//!
//! The files are compiled where they are, as in `iommu_pt_host`, whose stand-in for the kernel's
//! errors this crate shares.

extern crate self as kernel;

#[path = "../../../../rust/kernel/iommu/pt/mod.rs"]
pub mod pt;

#[path = "../../iommu_pt_host/src/error.rs"]
pub mod error;
pub mod memory;
pub mod sync;

/// The place of the page tables in the `kernel` crate.
pub mod iommu {
    pub use crate::pt;
}
