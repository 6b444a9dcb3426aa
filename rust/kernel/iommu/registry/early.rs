// SPDX-License-Identifier: GPL-2.0

//! Drivers that were bound before their device got a group.
//!
//! The kernel counts a driver that does DMA through the DMA API in the group of its device when it
//! binds (`iommu_device_use_default_domain()`), and then no user can claim the group. If a module
//! registers later, the device had no group then, and the kernel counted nothing. A user who has
//! another device of the group could claim the group, and the driver's DMA would end; and when the
//! driver unbinds, the kernel would drop a count that does not exist, and warn. So each such driver
//! is counted as soon as its device has a group.
//!
//! A release drops these counts, because the core does not release a claimed group. Devices with
//! the identity keep working as they did before the driver was loaded.
//!
//! # Locks
//!
//! Drivers bind and unbind under the lock of their device. It is outermost: that of the group comes
//! under it, and the attach lock under that.

use kernel::{
    device::Device,
    prelude::*,
    sync::atomic::{
        AtomicFlag,
        Full,
        Relaxed, //
    }, //
};

use super::super::ffi;

/// The driver that a device had when it was found.
pub(in super::super) struct EarlyDriver {
    /// There was one that counts, as far as is known, and no release has found it gone.
    is_there: AtomicFlag,
    /// It is counted in the group.
    counted: AtomicFlag,
}

impl EarlyDriver {
    /// Looks whether `dev` has a driver. It has no group yet, so that driver was not counted.
    ///
    /// A driver that is binding at this moment does not count as one: it may find the group, and be
    /// counted by the kernel.
    pub(in super::super) fn of(dev: &Device) -> Self {
        Self {
            is_there: AtomicFlag::new(ffi::has_driver(dev)),
            counted: AtomicFlag::new(false),
        }
    }

    /// Counts the driver of `dev`, the device of this.
    ///
    /// Context: may sleep; takes the lock of the device.
    pub(super) fn count(&self, dev: &Device) {
        if !self.is_there.load(Relaxed) {
            return;
        }
        let counted = ffi::count_driver(dev).unwrap_or_else(|error| {
            dev_err!(
                dev,
                "a user has claimed its IOMMU group, so its driver reaches no memory: {error:?}; \
                 unbind that driver\n"
            );
            false
        });
        self.counted.store(counted, Relaxed);
        self.is_there.store(counted, Relaxed);
    }

    /// Takes [`Self::count`] back.
    ///
    /// Context: as for that.
    pub(super) fn uncount(&self, dev: &Device) {
        if !self.counted.xchg(false, Full) {
            return;
        }
        // The kernel has counted a driver that was bound since, and that count is as good.
        self.is_there.store(ffi::uncount_driver(dev), Relaxed);
    }

    /// Whether it is counted.
    pub(super) fn is_counted(&self) -> bool {
        self.counted.load(Relaxed)
    }
}
