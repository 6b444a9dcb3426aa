// SPDX-License-Identifier: GPL-2.0

//! The requester IDs that the requests of a PCI function carry.
//!
//! A unit knows the source of a request by its requester ID. Bridges to conventional PCI replace
//! the ID of the device by their own, and some devices use the ID of another.
//! `pci_for_each_dma_alias()` has the rules, but is not exported to modules.
//! [`Function::for_each_alias`] follows the same rules. Requests of a device behind a Volume
//! Management Device carry the ID of the latter: call it on [`Function::real_dma`] of such a
//! device.

use kernel::{
    bindings,
    prelude::*, //
};

use super::function::Function;

/// The number of devices and functions on a bus.
const DEVFNS: u16 = 256;

impl Function<'_> {
    /// Calls `each` with every requester ID that requests of the function may carry when they reach
    /// the root bus, the function's own first. `each` may get an ID more than once.
    ///
    /// # Errors
    ///
    /// The first error of `each`; it is not called again then.
    pub fn for_each_alias(&self, mut each: impl FnMut(u16) -> Result) -> Result {
        each(self.requester())?;

        // SAFETY: A `pci::Device` is a valid function. The mask is made before the
        // function gets a driver.
        let mask = unsafe { (&raw const (*self.as_raw()).dma_alias_mask).read_volatile() };
        if !mask.is_null() {
            for devfn in 0..DEVFNS {
                let (word, bit) = (
                    usize::from(devfn) / usize::BITS as usize,
                    usize::from(devfn) % usize::BITS as usize,
                );
                // SAFETY: The mask has a bit for every devfn, and lives as long as the function.
                if unsafe { mask.add(word).read_volatile() } >> bit & 1 != 0 {
                    each(u16::from(self.bus()) << 8 | devfn)?;
                }
            }
        }

        for bus in self.buses() {
            // SAFETY: `buses()` yields valid buses with valid bridges.
            let Some(bridge) = (unsafe { self.related((*bus).self_) }) else {
                continue;
            };
            if bridge.has_flag(bindings::pci_dev_flags_PCI_DEV_FLAGS_BRIDGE_XLATE_ROOT) {
                // The unit is at this bridge.
                return Ok(());
            }
            if let Some(alias) = bridge.alias(bus) {
                each(alias)?;
            }
        }
        Ok(())
    }

    fn has_flag(&self, flag: bindings::pci_dev_flags) -> bool {
        // SAFETY: A `pci::Device` is a valid function. Its flags are set while it is set up, and by
        // quirks.
        let flags = unsafe { (&raw const (*self.as_raw()).dev_flags).read_volatile() };
        u32::from(flags) & flag != 0
    }

    /// The requester ID that a bridge gives to requests from `bus` below it, `None` if it keeps
    /// theirs.
    fn alias(&self, bus: *mut bindings::pci_bus) -> Option<u16> {
        // SAFETY: The caller's bus is valid.
        let below = u16::from(unsafe { (*bus).number }) << 8;

        // SAFETY: A `pci::Device` is a valid function.
        if !unsafe { bindings::pci_is_pcie(self.as_raw()) } {
            return Some(
                if self.has_flag(bindings::pci_dev_flags_PCI_DEV_FLAG_PCIE_BRIDGE_ALIAS) {
                    below
                } else {
                    self.requester()
                },
            );
        }
        // SAFETY: A `pci::Device` is a valid function, and it has a PCI Express capability.
        let kind = unsafe { bindings::pci_pcie_type(self.as_raw()) };
        match u32::try_from(kind).ok()? {
            // From PCI Express to PCI: requests get the number of the bus below.
            bindings::PCI_EXP_TYPE_PCI_BRIDGE => (!self
                .has_flag(bindings::pci_dev_flags_PCI_DEV_FLAGS_PCI_BRIDGE_NO_ALIAS))
            .then_some(below),
            // From PCI to PCI Express: requests get the ID of the bridge.
            bindings::PCI_EXP_TYPE_PCIE_BRIDGE => Some(self.requester()),
            // Ports forward requests with their ID.
            _ => None,
        }
    }
}
