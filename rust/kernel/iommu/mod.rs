// SPDX-License-Identifier: GPL-2.0

//! Rust support related to IOMMU.
//!
//! Two things are here: [`pgtable`] uses page tables that C code manages (`io-pgtable`), and the
//! rest is for drivers of remapping units.
//!
//! # Drivers of remapping units
//!
//! These modules need a little-endian 64-bit kernel with native 64-bit atomics
//! (`CONFIG_RUST_IOMMU`), and are not compiled for any other.
//!
//! A driver implements [`ops::Driver`], [`ops::PagingDomain`], [`registry::Registered`] and
//! [`lifecycle::Lifecycle`]; the core then calls it. Its unsafe code is two promises:
//! [`ops::Confirms`], that hardware has done what the driver reports, and that
//! [`registry::Registered`] names one registry; and, if its tables grow, it publishes the new top.
//! The rest is in these modules.
//!
//! Each layer names only those below it. From the top:
//!
//! | module | what it stands for |
//! | --- | --- |
//! | [`lifecycle`] | a driver's module: loading, release, unloading |
//! | [`split_parameter`] | its parameter that can be changed while it is loaded |
//! | [`units`] | the units of a driver: switched on together, and off together |
//! | `syscore` | `struct syscore`: what is called around a sleep of the machine |
//! | `vtable` | the callbacks that C calls; it hands a driver's units to the core |
//! | [`registry`] | `struct iommu_device`: registration, release; isolation of devices |
//! | `domain` | `struct iommu_domain` of the paging kind; ranges whose flush has failed |
//! | [`attach`] | prepare, install, commit; dirty tracking of all devices |
//! | [`ops`] | the traits that a driver implements; the order of the locks |
//! | [`tables`] | the page tables of a domain, in one of two formats |
//! | [`tags`] | what a flush of a domain addresses |
//! | [`gather`] | `struct iommu_iotlb_gather`: pending flushes, tables to be freed after them |
//! | [`dirty`] | `struct iommu_dirty_bitmap`: where dirty pages are reported |
//! | [`device`] | what a driver says about a device: capabilities, group, default domain |
//! | [`resv`] | `struct iommu_resv_region` |
//! | [`values`] | flags, geometries, protection bits, flushes, the slots of a device |
//!
//! Beside them are what drivers use directly:
//!
//! | module | what it stands for |
//! | --- | --- |
//! | [`pt`] | I/O page tables in Rust, for several formats |
//! | [`irq`] | interrupts that a table of each device remaps; when devices change over to one |
//! | [`hw`] | registers, rings of commands, memory that the unit walks; the CPU |
//! | [`firmware`] | firmware tables, which are not to be trusted |
//! | [`pci`] | functions and the requester IDs that they use; PASIDs; units that are functions |
//! | [`domain_id`] | what units cache the translations of a domain under |
//! | [`block`] | the aligned block that an invalidation names |
//! | [`locked_vec`], [`raw_lock`] | vectors under a spinlock; spinlocks that never sleep |
//! | [`ratelimit`] | a limit for messages |
//! | [`files`], [`counters`] | the files in debugfs, and what is counted |
//! | [`trace`] | the tracepoints |
//! | `kunit` | tests that need what not every machine has |
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
pub mod attach;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod block;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod counters;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod device;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod dirty;
#[cfg(CONFIG_RUST_IOMMU)]
mod domain;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod domain_id;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod files;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod firmware;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod gather;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod hw;
#[cfg(all(CONFIG_RUST_IOMMU, CONFIG_X86, CONFIG_PCI_MSI))]
pub mod irq;
#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
pub mod kunit;
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
pub mod raw_lock;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod registry;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod resv;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod split_parameter;
#[cfg(CONFIG_RUST_IOMMU)]
mod syscore;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod tables;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod tags;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod trace;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod units;
#[cfg(CONFIG_RUST_IOMMU)]
pub mod values;
#[cfg(CONFIG_RUST_IOMMU)]
mod vtable;
