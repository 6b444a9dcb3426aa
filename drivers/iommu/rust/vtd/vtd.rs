// SPDX-License-Identifier: GPL-2.0

//! Driver of Intel VT-d remapping units, in scalable mode.
//!
//! The modules, outermost first:
//!
//! - [`module`]: loading, release, unloading; [`policy`]: the module parameters;
//! - [`driver`]: the callbacks of the IOMMU core; [`domain`], [`endpoint`]: its domains and
//!   devices; [`machine`]: all units;
//! - [`unit`]: a unit's registers and commands; [`root`], [`pasid`]: the tables that it reads;
//!   [`qi`], [`iotlb`]: invalidation;
//! - [`acpi`], [`topology`]: which unit serves which device;
//! - [`regs`], [`caps`], [`fault`]: the specification's registers and what they mean.
//!
//! Section numbers refer to Intel's "Virtualization Technology for Directed I/O", revision 4.1.

mod acpi;
mod caps;
mod domain;
mod driver;
mod endpoint;
mod fault;
mod iotlb;
mod machine;
mod module;
mod pasid;
mod policy;
mod qi;
mod regs;
mod root;
mod topology;
mod unit;
mod view;

kernel::prelude::module! {
    type: module::Module,
    name: "rust_vtd",
    authors: ["The Rust IOMMU authors"],
    description: "Intel VT-d remapping units, with dirty tracking",
    license: "GPL",
    params: {
        stage: u32 {
            default: 0,
            description: "Stage of paging domains: 0 automatic, 1 first, 2 second",
        },
        default_domain: u32 {
            default: 0,
            description: "Default domains: 0 identity, 1 DMA API, 2 as the kernel was booted",
        },
        split: u32 {
            default: 0,
            description: "Large leaves while tracking: 0 stay, 1 split if dirty, 4096 split all",
        },
    },
}
