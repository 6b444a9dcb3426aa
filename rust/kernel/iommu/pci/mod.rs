// SPDX-License-Identifier: GPL-2.0

//! PCI, as remapping units see it.

mod aliases;
pub mod function;
pub mod isolation;
#[cfg(CONFIG_PCI_MSI)]
pub mod msi;
#[cfg(CONFIG_PCI_PASID)]
pub mod pasid;
pub mod source_ids;
pub mod unit;
