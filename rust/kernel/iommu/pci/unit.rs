// SPDX-License-Identifier: GPL-2.0

//! A unit that is a PCI function: a driver finds the function by its address.

use core::ptr::NonNull;

use kernel::{
    bindings,
    device::Device,
    ffi::c_int,
    pci,
    prelude::*,
    sync::aref::ARef, //
};

/// A PCI function that is a unit, or that a unit belongs to.
///
/// This binds no driver: the configuration space and the interrupt of the function are used as
/// parts of the unit.
pub struct UnitFunction(ARef<pci::Device>);

impl UnitFunction {
    /// Finds the function with the requester ID `source` in `segment`.
    ///
    /// Context: may sleep.
    pub fn find(segment: u16, source: u16) -> Option<Self> {
        // SAFETY: The function takes any numbers.
        let raw = unsafe {
            bindings::pci_get_domain_bus_and_slot(
                i32::from(segment),
                u32::from(source >> 8),
                u32::from(source & 0xff),
            )
        };
        let device = NonNull::new(raw)?.cast::<pci::Device>();
        // SAFETY: The function returned a reference, which the new object owns.
        Some(Self(unsafe { ARef::from_raw(device) }))
    }

    /// The function as C knows it.
    #[inline]
    pub(in super::super) fn as_raw(&self) -> *mut bindings::pci_dev {
        // CAST: `pci::Device` is a transparent wrapper.
        core::ptr::from_ref(&*self.0).cast_mut().cast()
    }

    /// The device, such as [`UnitInfo::parent`](super::super::device::UnitInfo::parent) wants it.
    pub fn device(&self) -> ARef<Device> {
        let device: &Device = (*self.0).as_ref();
        device.into()
    }

    /// The NUMA node that it is near, [`None`] if it is near none.
    pub fn node(&self) -> Option<u32> {
        #[cfg(CONFIG_NUMA)]
        // SAFETY: A `pci::Device` is a valid function. User space may write the field through
        // sysfs, so the read is volatile, like that of C (`dev_to_node()`), which takes no lock.
        let node = unsafe { (&raw const (*self.as_raw()).dev.numa_node).read_volatile() };
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
    /// `EINVAL` for an offset that is not a multiple of four or beyond the space, `EIO` if the PCI
    /// core cannot reach the function.
    pub fn read_config(&self, offset: u16) -> Result<u32> {
        if offset % 4 != 0 || offset >= 4096 {
            return Err(EINVAL);
        }
        let mut value = 0;
        // SAFETY: A `pci::Device` is a valid function; `value` is a place for the result.
        let status = unsafe {
            bindings::pci_read_config_dword(self.as_raw(), i32::from(offset), &mut value)
        };
        reached(status)?;
        Ok(value)
    }

    /// Writes 32 bits of the configuration space at `offset`.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As for [`Self::read_config`].
    pub fn write_config(&self, offset: u16, value: u32) -> Result {
        if offset % 4 != 0 || offset >= 4096 {
            return Err(EINVAL);
        }
        // SAFETY: A `pci::Device` is a valid function.
        let status =
            unsafe { bindings::pci_write_config_dword(self.as_raw(), i32::from(offset), value) };
        reached(status)
    }
}

/// The result of an access to the configuration space that returned `status`. The codes of errors
/// are positive (`PCIBIOS_DEVICE_NOT_FOUND` and others).
pub(in super::super) fn reached(status: c_int) -> Result {
    if status != 0 {
        return Err(EIO);
    }
    Ok(())
}
