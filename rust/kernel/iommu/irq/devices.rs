// SPDX-License-Identifier: GPL-2.0

//! When the interrupts of a device start being remapped, and when they stop.
//!
//! A device changes over while it has no MSIs, because the meaning of its messages changes. From
//! the moment at which it may be assigned to user space, its interrupts must be remapped. So the
//! change is made
//!
//! - for a device without a driver when it comes under control and the units translate;
//! - when an earlier driver goes, since that driver's interrupts go with it;
//! - else at the next time that a driver is about to be bound to it.
//!
//! The driver core says so before the driver is called ([`Listener`]). Devices that had a driver
//! before keep interrupts that are not remapped until that driver is unbound, and are not isolated:
//! iommufd refuses them, and their group.
//!
//! Devices whose interrupts a unit cannot tell apart have one table. As long as one of them has
//! interrupts that are not remapped, the others keep such interrupts as well.
//!
//! A bus, and a device that is found on it, inherit the domain of the bridge above. Here that
//! domain belongs to one device, so both get the vector domain back at once ([`Devices::found`]),
//! and a bus when its bridge gives its domain back.
//!
//! # Locks
//!
//! The state is under one mutex. It is taken under the lock of a device, under the notifier list of
//! the bus, under `iommu_probe_device_lock` and under `group->mutex`. Under it are those of
//! interrupt domains (`irq_domain_mutex`), and those of the driver. [`Devices::close`] takes the
//! PCI core's lock for rescans and removals before it.
//!
//! A device gets a driver only after [`Listener::binds`], which takes the mutex: while a CPU holds
//! it, a device without a driver has no MSIs and gets none.

use kernel::{
    bindings,
    device::Device,
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    }, //
};

use super::{
    super::lock_class,
    binding::{
        self,
        Listener, //
    },
    parent::{
        self,
        Parent,
        Table, //
    },
    sharers::{
        common,
        Obstacle, //
    }, //
};

/// A device whose interrupts can be remapped, as its driver knows it.
pub trait Remapped: Send + Sync + 'static {
    /// The tables of the driver.
    type Table: Table;

    /// Why its interrupts are not remapped, now or ever: a clause for the log.
    fn obstacle(&self) -> Option<&'static str>;

    /// Whether a unit cannot tell its interrupts from those of `other`.
    fn shares_with(&self, other: &Self) -> bool;

    /// The name of its domain.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn name(&self) -> Result<CString>;

    /// A table for it and those that it shares with.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn new_table(&self) -> Result<Arc<Self::Table>>;

    /// Makes the unit remap the device's interrupts by `table`. The device has no MSIs, and there
    /// is no [obstacle](Self::obstacle).
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// All is as before then, except with `EIO`, if the unit does not answer: the table must stay.
    fn enter(&self, table: &Arc<Self::Table>) -> Result;

    /// Makes the unit pass the device's interrupts as they are again, except those that it shares
    /// with `others`, which are all that keep the table. This ends no MSIs.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `EIO` if the unit does not answer: the table must stay.
    fn leave<'a>(
        &self,
        table: &Arc<Self::Table>,
        others: impl Iterator<Item = &'a Self> + Clone,
    ) -> Result
    where
        Self: 'a;
}

/// A device under control.
struct Member<R: Remapped> {
    dev: ARef<Device>,
    data: R,
    /// What remaps its interrupts.
    parent: Option<Arc<Parent<R::Table>>>,
}

/// What happens to devices.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The units do not translate yet: interrupts stay as they are.
    Early,
    /// Interrupts are remapped as soon as they can be.
    Open,
    /// They stay as they are again.
    Closed,
}

struct State<R: Remapped> {
    phase: Phase,
    members: KVec<Member<R>>,
}

/// Whether a driver has the device, or is about to get it.
fn is_bound(dev: &Device) -> bool {
    // SAFETY: The device is valid. The pointer is compared, and not followed.
    let driver = unsafe { (&raw const (*dev.as_raw()).driver).read_volatile() };
    !driver.is_null()
}

/// Whether the device has MSIs or a domain for them.
// Not inlined into modules: like the others in this folder.
#[inline(never)]
fn has_msis(dev: &Device) -> bool {
    // SAFETY: The device is valid. The pointer is compared, and not followed.
    unsafe { bindings::rust_irq_has_msis(dev.as_raw()) }
}

/// Whether the device would get its MSIs from the vector domain itself.
#[inline(never)]
fn has_vector_parent(dev: &Device) -> bool {
    // SAFETY: The device is valid.
    unsafe { bindings::rust_irq_has_vector_parent(dev.as_raw()) }
}

/// Whether the device would get its MSIs from a domain of [`parent`].
#[inline(never)]
fn has_own_parent(dev: &Device) -> bool {
    // SAFETY: The device is valid, and so is its domain: no device and no bus has one that was
    // removed (contract of `Parent::give_to()`).
    unsafe { bindings::rust_irq_has_parent(dev.as_raw()) }
}

/// The lock of a device, while this exists.
struct Locked<'a>(&'a Device);

impl<'a> Locked<'a> {
    /// Takes the lock if it is free.
    fn try_new(dev: &'a Device) -> Option<Self> {
        // SAFETY: The device is valid.
        let locked = unsafe { bindings::rust_iommu_device_trylock(dev.as_raw()) };
        locked.then_some(Self(dev))
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // SAFETY: The device is valid, and this value holds its lock.
        unsafe { bindings::rust_iommu_device_unlock(self.0.as_raw()) };
    }
}

impl<R: Remapped> Member<R> {
    /// Whether it has interrupts that are not remapped, or may have by its driver.
    fn is_busy(&self) -> bool {
        self.parent.is_none() && (is_bound(&self.dev) || has_msis(&self.dev))
    }
}

impl<R: Remapped> State<R> {
    fn find(&self, dev: &Device) -> Option<usize> {
        let is_it = |member: &Member<R>| core::ptr::eq(member.dev.as_raw(), dev.as_raw());
        self.members.iter().position(is_it)
    }

    /// Starts remapping the interrupts of the device at `index`.
    ///
    /// The device has no driver; or its driver was not called yet, and the caller holds its lock;
    /// or its driver is one that manages the DMA of its devices itself, has not claimed that of
    /// this one, and so asks for no MSIs.
    fn remap(&mut self, index: usize) -> Result<(), Obstacle> {
        let Some(member) = self.members.get(index) else {
            return Ok(());
        };
        let (dev, data) = (&member.dev, &member.data);
        if let Some(why) = data.obstacle() {
            return Err(Obstacle::Always(why));
        }
        if has_msis(dev) || !has_vector_parent(dev) {
            return Err(Obstacle::Always(
                "its interrupts do not come from the vector domain",
            ));
        }
        let others = self.members.iter().enumerate();
        let sharers = others
            .filter(|(other, member)| *other != index && data.shares_with(&member.data))
            .map(|(_, member)| (member.dev.clone(), member.is_busy(), member.parent.clone()));
        let parent = match common(sharers) {
            Ok(Some(parent)) => parent,
            Ok(None) => Self::new_parent(data).map_err(Obstacle::Failed)?,
            Err(Some(sharer)) => return Err(Obstacle::Sharer(sharer)),
            Err(None) => return Err(Obstacle::Between),
        };
        if let Err(error) = data.enter(&parent) {
            if error == EIO {
                // The unit may read the table.
                core::mem::forget(parent);
            }
            return Err(Obstacle::Failed(error));
        }
        // SAFETY: The device has no MSIs, as was just seen, and gets none meanwhile: a driver that
        // comes is called after the mutex was released, and one that is there asks for none (see
        // above). The member keeps the reference until `give_back()` or `remove()`, whose callers
        // have seen that there are no MSIs.
        unsafe { parent.give_to(dev) };
        if let Some(member) = self.members.get_mut(index) {
            member.parent = Some(parent);
        }
        Ok(())
    }

    fn new_parent(data: &R) -> Result<Arc<Parent<R::Table>>> {
        let name = data.name()?;
        Ok(Arc::new(
            Parent::new(&name, data.new_table()?)?,
            GFP_KERNEL,
        )?)
    }

    /// Remaps the interrupts of all devices for which that can start now.
    fn remap_idle(&mut self) {
        if self.phase != Phase::Open {
            return;
        }
        for index in 0..self.members.len() {
            let is_idle = |member: &Member<R>| member.parent.is_none() && !member.is_busy();
            if self.members.get(index).is_some_and(is_idle) {
                // If it matters the log says so when a driver is bound to it.
                let _ = self.remap(index);
            }
        }
    }

    /// Stops remapping the interrupts of the device at `index`.
    ///
    /// The device has no MSIs, and gets none during the call. If it is a bridge, nothing is found
    /// below it meanwhile.
    fn give_back(&mut self, index: usize) {
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        let Some(parent) = member.parent.take() else {
            return;
        };
        // SAFETY: The device has no MSIs, gets none meanwhile, and no bus is made below it (see
        // above).
        unsafe { parent::give_vectors_to(&member.dev) };
        let Some(member) = self.members.get(index) else {
            return;
        };
        let others = self.members.iter().filter(|other| {
            let theirs = other.parent.as_ref();
            theirs.is_some_and(|theirs| Arc::ptr_eq(theirs, &parent))
        });
        let others = others.map(|other| &other.data);
        if member.data.leave(&parent, others).is_err() {
            // The unit may read the table.
            core::mem::forget(parent);
        }
    }
}

/// All devices of a driver whose interrupts it can remap.
#[pin_data]
pub struct Devices<R: Remapped> {
    #[pin]
    state: Mutex<State<R>>,
}

/// Nothing is found on PCI buses, and nothing removed, while this exists.
struct NoRescan;

impl NoRescan {
    fn new() -> Self {
        // SAFETY: Takes a mutex of the PCI core. The caller may sleep.
        unsafe { bindings::pci_lock_rescan_remove() };
        Self
    }
}

impl Drop for NoRescan {
    fn drop(&mut self) {
        // SAFETY: This value holds the mutex.
        unsafe { bindings::pci_unlock_rescan_remove() };
    }
}

impl<R: Remapped> Devices<R> {
    /// Creates an empty list.
    fn new() -> impl PinInit<Self> {
        let (name, key) = lock_class::irq_devices();
        let state = State {
            phase: Phase::Early,
            members: KVec::new(),
        };
        pin_init!(Self {
            state <- Mutex::new(state, name, key),
        })
    }

    /// A device was found: takes from it, and from the bus that it is on, the domain that they
    /// have inherited from a bridge, as if nothing were remapped.
    ///
    /// To be called before all that can fail: the device looks isolated until then.
    ///
    /// Context: any; not for a device that was [added](Self::add).
    pub fn found(dev: &Device) {
        parent::disinherit(dev);
    }

    /// Adds a device that comes under control.
    ///
    /// Context: may sleep; under `iommu_probe_device_lock`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn add(&self, dev: &Device, data: R) -> Result {
        let mut state = self.state.lock();
        state.members.push(
            Member {
                dev: dev.into(),
                data,
                parent: None,
            },
            GFP_KERNEL,
        )?;
        state.remap_idle();
        Ok(())
    }

    /// Removes a device, if it is there.
    ///
    /// Context: may sleep.
    pub fn remove(&self, dev: &Device) {
        let mut state = self.state.lock();
        let Some(index) = state.find(dev) else {
            return;
        };
        // The core frees MSIs before it says that a device goes (`device_del()`). If it did not,
        // only a module that stays could serve them.
        if has_msis(dev) {
            let member = state.members.get_mut(index);
            if let Some(parent) = member.and_then(|member| member.parent.take()) {
                dev_err!(dev, "it still has interrupts: their table is leaked\n");
                core::mem::forget(parent);
            }
        } else {
            state.give_back(index);
        }
        let gone = state.members.remove(index);
        drop(state);
        // May be the last reference.
        drop(gone);
    }

    /// Starts: the units translate. Returns the number of devices that nothing but an earlier
    /// driver keeps from being remapped.
    ///
    /// Context: may sleep.
    pub fn open(&self) -> usize {
        let mut state = self.state.lock();
        state.phase = Phase::Open;
        state.remap_idle();
        let waits = |member: &&Member<R>| member.is_busy() && member.data.obstacle().is_none();
        state.members.iter().filter(waits).count()
    }

    /// Stops, for good: all devices have interrupts that are not remapped.
    ///
    /// No driver but one that manages the DMA of its devices itself may be bound to a device that
    /// is remapped, and none of these has claimed that.
    ///
    /// Context: may sleep; not while the PCI core looks for devices.
    ///
    /// # Errors
    ///
    /// `EBUSY` if a device has interrupts, whose name the log has; `ENOMEM`. All is as before then.
    pub fn close(&self) -> Result {
        let _no_rescan = NoRescan::new();
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut given_back = KVec::with_capacity(state.members.len(), GFP_KERNEL)?;
        for index in 0..state.members.len() {
            let Some(member) = state.members.get(index) else {
                continue;
            };
            // One without a table that has the domain of another device must not be left with it.
            if member.parent.is_none() && !has_own_parent(&member.dev) {
                continue;
            }
            let is_remapped = member.parent.is_some();
            let dev = member.dev.clone();
            // A driver that is there gets interrupts in `probe()`, under the lock, or once it has
            // claimed the DMA of the device.
            let locked = Locked::try_new(&dev);
            if is_remapped && (locked.is_some() || !is_bound(&dev)) && !has_msis(&dev) {
                state.give_back(index);
                // Fits.
                let _ = given_back.push_within_capacity(index);
                continue;
            }
            dev_warn!(
                dev,
                "unbind the driver of the device first: it has interrupts\n"
            );
            for index in given_back {
                // If this fails the device has interrupts that are not remapped, as its next user
                // finds out.
                let _ = state.remap(index);
            }
            return Err(EBUSY);
        }
        state.phase = Phase::Closed;
        Ok(())
    }
}

impl<R: Remapped> Listener for Devices<R> {
    fn binds(&self, dev: &Device) {
        let mut state = self.state.lock();
        let Some(index) = state.find(dev) else {
            return;
        };
        let has_parent = |member: &Member<R>| member.parent.is_some();
        if state.phase != Phase::Open || state.members.get(index).is_some_and(has_parent) {
            return;
        }
        if let Err(why) = state.remap(index) {
            dev_info!(
                dev,
                "its interrupts are not remapped, so it cannot be assigned safely: {}\n",
                why
            );
        }
        // Others may have lost a driver since: `unbound()` can come before that.
        state.remap_idle();
    }

    fn unbound(&self, _dev: &Device) {
        // Others may have waited for it.
        self.state.lock().remap_idle();
    }
}

/// [`Devices`] that hear of drivers.
///
/// Dropping it changes no device: see [`Devices::close`].
#[pin_data]
pub struct Watched<R: Remapped> {
    devices: Arc<Devices<R>>,
    #[pin]
    _registration: binding::Registration<Devices<R>>,
}

impl<R: Remapped> Watched<R> {
    /// Creates an empty list.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and those of the driver core.
    pub fn new() -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let devices = Arc::pin_init(Devices::new(), GFP_KERNEL)?;
            Ok(try_pin_init!(Self {
                _registration <- binding::Registration::new(devices.clone()),
                devices,
            }? Error))
        })
    }
}

impl<R: Remapped> core::ops::Deref for Watched<R> {
    type Target = Devices<R>;

    fn deref(&self) -> &Devices<R> {
        &self.devices
    }
}
