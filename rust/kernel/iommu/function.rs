// SPDX-License-Identifier: GPL-2.0

//! A PCI function that a driver has found by its address: a unit that is one itself.

use core::ptr::NonNull;

use kernel::{
    bindings,
    device::Device,
    error::to_result,
    prelude::*,
    sync::aref::ARef, //
};

use super::ffi;

/// Vendor, family and model of the processor that units are a part of, as `VFM_MAKE()` of
/// `asm/cpu_device_id.h` makes them one number; 0 where there is no such number.
pub fn processor() -> u32 {
    ffi::processor()
}

/// A PCI function, and a reference to it.
///
/// No driver is bound by this: the function is looked at, and its interrupt is used, as the part of
/// the unit that it is.
///
/// # Invariants
///
/// `raw` is a valid PCI function, and the reference to it is owned.
pub struct UnitFunction {
    raw: NonNull<bindings::pci_dev>,
}

// SAFETY: References to PCI functions are counted for all threads, and what is done with one here
// the PCI core guards by its own locks.
unsafe impl Send for UnitFunction {}
// SAFETY: As above.
unsafe impl Sync for UnitFunction {}

impl UnitFunction {
    /// Finds the function with the requester ID `source` in `segment`.
    ///
    /// Context: may sleep.
    pub fn find(segment: u16, source: u16) -> Option<Self> {
        // SAFETY: The function takes any numbers; what it returns is ours to put.
        let raw = unsafe {
            bindings::pci_get_domain_bus_and_slot(
                i32::from(segment),
                u32::from(source >> 8),
                u32::from(source & 0xff),
            )
        };
        // INVARIANT: Valid if not null, with a reference of its own.
        Some(Self {
            raw: NonNull::new(raw)?,
        })
    }

    /// The function as C knows it.
    #[inline]
    pub(super) fn as_raw(&self) -> *mut bindings::pci_dev {
        self.raw.as_ptr()
    }

    /// The device, such as [`UnitInfo::parent`](super::device::UnitInfo::parent) wants it.
    pub fn device(&self) -> ARef<Device> {
        // SAFETY: By the type invariants; the device is embedded in the function.
        unsafe { Device::get_device(&raw mut (*self.as_raw()).dev) }
    }

    /// The NUMA node that it is near, [`None`] if it is near none.
    pub fn node(&self) -> Option<u32> {
        #[cfg(CONFIG_NUMA)]
        // SAFETY: By the type invariants; the device is embedded in the function.
        let node = unsafe { (*self.as_raw()).dev.numa_node };
        #[cfg(not(CONFIG_NUMA))]
        let node = bindings::NUMA_NO_NODE;

        // Negative for none.
        u32::try_from(node).ok()
    }

    /// Reads 32 bits of the configuration space at `offset`.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an offset that is not a multiple of four or beyond the space, what the PCI core
    /// says if the function does not answer.
    pub fn read_config(&self, offset: u16) -> Result<u32> {
        if offset % 4 != 0 || offset >= 4096 {
            return Err(EINVAL);
        }
        let mut value = 0;
        // SAFETY: By the type invariants; `value` is a place for the result.
        to_result(unsafe {
            bindings::pci_read_config_dword(self.as_raw(), i32::from(offset), &mut value)
        })?;
        Ok(value)
    }
}

impl Drop for UnitFunction {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference is ours.
        unsafe { bindings::pci_dev_put(self.as_raw()) };
    }
}
