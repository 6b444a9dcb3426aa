// SPDX-License-Identifier: GPL-2.0

//! What a driver and a unit share: registers, rings of commands, memory that the unit walks, and
//! the CPU that the unit is a part of.

pub mod cpu;
#[cfg(CONFIG_X86)]
pub mod dmar;
#[cfg(CONFIG_HAS_IOMEM)]
pub mod mmio;
pub mod pages;
pub mod ring;
