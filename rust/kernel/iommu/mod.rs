// SPDX-License-Identifier: GPL-2.0

//! Rust support related to IOMMU.
//!
//! Two things are here: [`pgtable`] uses page tables that C code manages (`io-pgtable`), and the
//! rest is for drivers of remapping units.
//!
//! # Drivers of remapping units
//!
//! These modules need a 64-bit kernel whose 64-bit atomics are the processor's, in little endian:
//! `CONFIG_RUST_IOMMU`. On any other they are not compiled.
//!
//! A driver implements [`ops::Driver`] and [`ops::PagingDomain`], and registers its units with a
//! [`registry::Registry`]; the core then calls it. All of that is safe code: what is unsafe about
//! it is in these modules, and what is left to the driver is to tell hardware the right addresses.
//!
//! | module | what it stands for |
//! | --- | --- |
//! | [`ops`] | `struct iommu_ops`, `iommu_domain_ops`, `iommu_dirty_ops`; the order of the locks |
//! | [`registry`] | `struct iommu_device`: registration, release |
//! | `registry::isolate` | no more requests from devices whose unit does not answer |
//! | [`lifecycle`] | a driver's module: loading, release, unloading |
//! | [`device`] | what a driver says about a device: capabilities, group, default domain |
//! | [`domain`] | `struct iommu_domain` of the paging kind |
//! | [`attach`] | prepare, install, commit; what has to be flushed; dirty tracking of all devices |
//! | [`gather`] | `struct iommu_iotlb_gather`: pending flushes, tables to be freed after them |
//! | [`dirty`] | `struct iommu_dirty_bitmap`: where dirty pages are reported |
//! | `domain::unflushed` | what hardware may write unseen since a flush has failed |
//! | [`resv`] | `struct iommu_resv_region` |
//! | [`pt`] | I/O page tables in Rust, for several formats |
//! | [`hw::pages`], [`hw::ring`] | memory that hardware walks or fetches: tables, rings of commands |
//! | [`hw::mmio`] | registers at a physical address |
//! | [`firmware`] | firmware tables, which are not to be trusted |
//! | [`pci::function`], [`pci::source_ids`] | where a function is, and the requester IDs that it uses |
//! | [`pci::pasid`] | the switch of a function's PASIDs |
//! | [`pci::unit`], [`pci::msi`] | a unit that is a PCI function itself, and its interrupt |
//! | [`domain_id`], [`ids`] | what units cache the translations of a domain under; free numbers |
//! | [`locked_vec`], [`ratelimit`] | vectors under a spinlock; a limit for messages |
//!
//! A dirty page on its way: the core calls `read_and_clear_dirty`; the driver's domain hands the
//! claimed range and the [`dirty::DirtyBitmap`] to [`pt::PageTable::read_and_clear_dirty`]; that
//! records runs, makes leaves clean, and has the cleared ranges gathered; the core flushes the
//! gather ([`ops::PagingDomain::sync`]), and from then on the next write marks the page again.

pub mod pgtable;

#[cfg(CONFIG_RUST_IOMMU)]
pub mod pt;

#[cfg(CONFIG_RUST_IOMMU)]
mod ffi;
#[cfg(CONFIG_RUST_IOMMU)]
mod lock_class;
#[cfg(CONFIG_RUST_IOMMU)]
mod prot;

#[cfg(CONFIG_RUST_IOMMU)]
pub mod attach;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod device;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod dirty;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod domain;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod domain_id;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod firmware;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod gather;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod hw;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod ids;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod lifecycle;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod locked_vec;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod ops;
#[cfg(all(CONFIG_RUST_IOMMU, CONFIG_PCI))]
pub mod pci;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod ratelimit;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod registry;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod resv;
#[cfg(CONFIG_RUST_IOMMU)]
mod vtable;
