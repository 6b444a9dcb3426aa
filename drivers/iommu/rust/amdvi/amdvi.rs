// SPDX-License-Identifier: GPL-2.0

//! Driver of AMD-Vi remapping units (IOMMUs).
//!
//! The modules, outermost first:
//!
//! - [`module`]: loading, release, unloading; [`policy`]: the module parameters;
//! - [`driver`]: the callbacks of the IOMMU core; [`domain`], [`endpoint`]: its domains and
//!   devices; [`machine`]: all units;
//! - [`interrupts`]: which devices have their interrupts remapped; [`interrupt_table`], [`irte`]:
//!   the tables for that, and their entries;
//! - [`unit`]: a unit's registers; [`dte`]: the device table that it reads; [`cmd`], [`iotlb`]:
//!   invalidation;
//! - [`acpi`]: which unit serves which device; [`quirks`]: errata;
//! - [`regs`], [`caps`], [`event`]: the specification's registers and what they mean.
//!
//! Section numbers refer to AMD's "I/O Virtualization Technology (IOMMU) Specification", document
//! 48882.

mod acpi;
mod caps;
mod cmd;
mod domain;
mod driver;
mod dte;
mod endpoint;
mod event;
mod gcr3;
mod interrupt_table;
mod interrupts;
mod iotlb;
mod irte;
mod machine;
mod module;
mod pasids;
mod policy;
mod quirks;
mod regs;
mod unit;
mod view;

kernel::prelude::module! {
    type: module::Module,
    name: "rust_amdvi",
    authors: ["The Rust IOMMU authors"],
    description: "AMD-Vi remapping units, with dirty tracking",
    license: "GPL",
    params: {
        tables: u32 {
            default: 0,
            description: "Tables of paging domains: 0 automatic, 1 host (v1), 2 guest (v2)",
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
