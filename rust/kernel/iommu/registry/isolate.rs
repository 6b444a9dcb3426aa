// SPDX-License-Identifier: GPL-2.0

//! Cutting devices off from memory when their unit does not answer any more.
//!
//! Such a unit may hold translations that cannot be invalidated any more, of memory that was reused
//! since. So the requests have to be stopped: each device behind the unit loses the right to make
//! any (Bus Master Enable of the Command register, PCI specification).
//!
//! User space that has a device can restore this right: VFIO lets it write the register. So a
//! bridge loses the right to forward requests as well, if all known devices below it are behind the
//! same unit.
//!
//! # Locks
//!
//! The lock of [`Members`] is innermost: under it there is only the PCI core's access to the
//! configuration space. It is taken in any context, also under raw spinlocks, and is one itself.

use kernel::{
    bindings,
    device::Device,
    prelude::*,
    sync::aref::ARef, //
};

use super::super::{
    lock_class,
    locked_vec,
    raw_lock::RawSpinLock, //
};

#[cfg(CONFIG_PCI)]
use super::super::pci::function::Function;

/// A device, and the index of the unit that translates for it.
struct Member {
    dev: ARef<Device>,
    #[cfg_attr(
        not(CONFIG_PCI),
        expect(dead_code, reason = "no device can be isolated")
    )]
    unit: usize,
}

/// All devices under the control of a driver.
#[pin_data]
pub(in super::super) struct Members {
    #[pin]
    list: RawSpinLock<KVec<Member>>,
}

impl Members {
    /// Creates an empty list.
    pub(in super::super) fn new() -> impl PinInit<Self> {
        let (name, key) = lock_class::isolate_members();
        pin_init!(Self {
            list <- RawSpinLock::new(KVec::new(), name, key),
        })
    }

    /// Adds a device behind `unit`.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(in super::super) fn add(&self, dev: &Device, unit: usize) -> Result {
        let dev = dev.into();
        locked_vec::push(&self.list, Member { dev, unit })
    }

    /// Removes a device, if it is there.
    ///
    /// Context: may sleep.
    pub(in super::super) fn remove(&self, dev: &Device) {
        let mut list = self.list.lock();
        let index = list
            .iter()
            .position(|member| core::ptr::eq(member.dev.as_raw(), dev.as_raw()));
        let gone = index.and_then(|index| list.remove(index).ok());
        drop(list);
        // May be the last reference, which is not put under a spinlock.
        drop(gone);
    }

    /// Whether one of the devices is in `group`.
    ///
    /// Context: any.
    pub(in super::super) fn has_group(&self, group: *mut bindings::iommu_group) -> bool {
        let list = self.list.lock();
        // SAFETY: The devices are valid. The pointer is compared, and not followed.
        let of = |member: &Member| unsafe {
            (&raw const (*member.dev.as_raw()).iommu_group).read_volatile()
        };
        list.iter().any(|member| of(member) == group)
    }

    /// Takes the right to make requests from all devices behind `unit`, and returns how many had
    /// it.
    ///
    /// Context: any.
    #[cfg(CONFIG_PCI)]
    pub(in super::super) fn isolate(&self, unit: usize) -> usize {
        let list = self.list.lock();
        let mut stopped = 0;
        for member in list.iter().filter(|member| member.unit == unit) {
            let Some(function) = Function::of(&member.dev) else {
                continue;
            };
            let is_shared = || {
                let mut others = list.iter().filter(|member| member.unit != unit);
                others.any(|other| {
                    Function::of(&other.dev).is_some_and(|other| other.is_below(&function))
                })
            };
            if function.is_bridge() && is_shared() {
                continue;
            }
            if function.stop_requests() {
                stopped += 1;
            }
        }
        stopped
    }

    /// Without PCI there is nothing to take away.
    #[cfg(not(CONFIG_PCI))]
    pub(in super::super) fn isolate(&self, _unit: usize) -> usize {
        0
    }
}
