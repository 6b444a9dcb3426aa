// SPDX-License-Identifier: GPL-2.0

//! Interrupts of devices, remapped by tables of a driver.
//!
//! A message-signalled interrupt (MSI) is a write that names a vector of a CPU, and a device can
//! write any vector. A unit that remaps interrupts takes the message for the index of an entry in a
//! table instead, and the entry names the vector. Where each device has its own table, it can raise
//! only the interrupts that were allocated for it: its MSIs are isolated. iommufd requires this
//! before it assigns a device.
//!
//! - [`parent`]: `struct irq_domain`, from which devices get their MSIs;
//! - [`devices`]: when a device changes over to such a domain, and back;
//! - `sharers`: devices that share one table;
//! - `binding`: `struct notifier_block`: when drivers of devices come and go.
//!
//! The domains are those of x86, whose vector domain they are children of.

mod binding;
pub mod devices;
pub mod parent;
mod sharers;
