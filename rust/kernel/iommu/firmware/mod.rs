// SPDX-License-Identifier: GPL-2.0

//! What firmware says about remapping units.

#[cfg(CONFIG_ACPI)]
pub mod acpi;
pub mod reader;
