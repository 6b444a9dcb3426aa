// SPDX-License-Identifier: GPL-2.0

//! The PASIDs of a PCI function: the switch in its configuration space.
//!
//! A function sends requests with PASID only while its PASID capability is enabled. The driver of
//! the remapping units enables it, as in C (`pci_enable_pasid()`): no other code knows whether such
//! requests are translated. The core offers PASIDs of a device by its capability and by what the
//! unit states ([`UnitInfo::max_pasids`]), enabled or not; a driver refuses those that it could not
//! enable when a domain is [prepared](super::super::ops::PagingDomain::prepare).
//!
//! [`UnitInfo::max_pasids`]: super::super::device::UnitInfo::max_pasids

use kernel::{
    bindings,
    device::Device,
    error::to_result,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            AtomicFlag,
            Relaxed, //
        }, //
    }, //
};

use super::function::Function;

/// The PASIDs of a function, enabled until [`Self::disable`] or the drop.
///
/// # Invariants
///
/// `dev` is a PCI function. While `on` is set, its PASID capability was enabled by this object, or
/// it is a virtual function, which follows its physical one.
pub struct Pasids {
    dev: ARef<Device>,
    count: u32,
    on: AtomicFlag,
}

impl Pasids {
    /// How many PASIDs a function can tell apart, 0 if it has no PASIDs.
    ///
    /// Context: may sleep.
    pub fn count_of(function: &Function<'_>) -> u32 {
        // SAFETY: The function is valid.
        let count = unsafe { bindings::pci_max_pasids(function.as_raw()) };
        // Negative without the capability.
        count.try_into().unwrap_or(0)
    }

    /// Lets the function `dev` send requests with PASID; neither with the permission to execute nor
    /// with privilege.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it is no function with PASIDs, `EBUSY` if other code has enabled them,
    /// `EINVAL` if a bridge above it does not pass PASIDs on, or could pass requests to
    /// another device, past the units.
    pub fn enable(dev: &Device) -> Result<Self> {
        let function = Function::of(dev).ok_or(ENODEV)?;
        let count = Self::count_of(&function);
        if count == 0 {
            return Err(ENODEV);
        }
        if function.has_pasids_enabled() {
            return Err(EBUSY);
        }
        // SAFETY: The function is valid.
        to_result(unsafe { bindings::pci_enable_pasid(function.as_raw(), 0) })?;
        // INVARIANT: It was enabled here.
        Ok(Self {
            dev: dev.into(),
            count,
            on: AtomicFlag::new(true),
        })
    }

    /// How many PASIDs the function can tell apart; those below that number are its.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Ends requests with PASID. Does nothing the second time.
    ///
    /// Context: may sleep.
    pub fn disable(&self) {
        // INVARIANT: Cleared before the capability is disabled, which happens once.
        if !self.on.xchg(false, Relaxed) {
            return;
        }
        if let Some(function) = Function::of(&self.dev) {
            // SAFETY: The function is valid, and by the type invariants its PASIDs are enabled.
            unsafe { bindings::pci_disable_pasid(function.as_raw()) };
        }
    }
}

impl Drop for Pasids {
    fn drop(&mut self) {
        self.disable();
    }
}
