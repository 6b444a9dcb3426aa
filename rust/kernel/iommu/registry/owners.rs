// SPDX-License-Identifier: GPL-2.0

//! What prevents a release: claims and owners of devices. Early drivers do not.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    super::{
        attach::InUse,
        ffi,
        ops::Driver, //
    },
    Endpoint,
    Inner,
    State, //
};

impl<D: Driver> Inner<D> {
    /// Calls `look` for each device, up to the first error. Needs no memory.
    ///
    /// The caller does not hold the attach lock, and neither is it held during the calls: they take
    /// outer locks.
    pub(super) fn each_device(&self, mut look: impl FnMut(&Endpoint<D>) -> Result) -> Result {
        let mut next = self.state.lock().endpoints.len();
        // One at a time, since a list would need memory. From the end: if a device is removed in
        // between, only those behind it move, and they were looked at before.
        while let Some(index) = next.checked_sub(1) {
            next = index;
            let known: Option<Arc<_>> = self.state.lock().endpoints.get(index).cloned();
            if let Some(endpoint) = known {
                look(&endpoint)?;
            }
        }
        Ok(())
    }

    /// Counts the drivers that were bound before.
    ///
    /// Context: may sleep; takes the locks of devices.
    pub(super) fn count_early_drivers(&self) {
        // `look` returns no error.
        let _ = self.each_device(|endpoint| {
            endpoint.early.count(&endpoint.dev);
            Ok(())
        });
    }

    /// Takes [`Self::count_early_drivers`] back. No user can claim a group in between.
    ///
    /// Context: may sleep; takes the locks of devices.
    pub(super) fn uncount_early_drivers(&self) {
        // `look` returns no error.
        let _ = self.each_device(|endpoint| {
            endpoint.early.uncount(&endpoint.dev);
            Ok(())
        });
    }

    /// Whether such a driver is counted: its group looks like one that was claimed.
    pub(super) fn counts_early_drivers(&self) -> bool {
        let state = self.state.lock();
        let mut endpoints = state.endpoints.iter();
        endpoints.any(|endpoint| endpoint.early.is_counted())
    }

    /// Says which device has a driver or a user that claimed the DMA of its group. Needs no memory.
    ///
    /// The core expects no claim to be left when a group goes. The caller does not hold the attach
    /// lock: this takes that of the group, which is outer.
    pub(super) fn find_claim(&self) -> Result {
        self.each_device(|endpoint| {
            let dev = &endpoint.dev;
            if ffi::is_claimed(dev) {
                dev_warn!(
                    dev,
                    "unbind the driver of the device or of another one in its group first\n"
                );
                return Err(EBUSY);
            }
            Ok(())
        })
    }

    /// Says which device is in the way of a release, and why.
    pub(super) fn find_owner(&self, state: &State<D>) -> Result {
        for endpoint in &state.endpoints {
            let dev = &endpoint.dev;
            match endpoint.slots.in_use() {
                InUse::No => {}
                InUse::DmaApi => {
                    // SAFETY: The device is valid. Whether a driver is bound is read without its
                    // lock: a hint, for a person who is asked to unbind first.
                    let driver = unsafe { (&raw const (*dev.as_raw()).driver).read_volatile() };
                    if !driver.is_null() {
                        dev_warn!(
                            dev,
                            "unbind the device's driver first: it uses DMA mappings\n"
                        );
                        return Err(EBUSY);
                    }
                }
                InUse::Owner => {
                    dev_warn!(
                        dev,
                        "close the device's user first: it has attached a domain\n"
                    );
                    return Err(EBUSY);
                }
            }
        }
        Ok(())
    }
}
