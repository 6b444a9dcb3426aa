// SPDX-License-Identifier: GPL-2.0

//! Registration of remapping units with the IOMMU core.
//!
//! The core finds the operations of a device by its firmware node, which PCI devices on x86 do not
//! have: all units of a machine share one `struct iommu_ops`, and the first that registers takes
//! all devices that are not taken. So one [`Registry`] stands for all units of a driver.
//!
//! Locks: see [`ops`](super::ops); the attach lock is `Inner::state`.

use core::ptr::NonNull;

use kernel::{
    bindings,
    device::Device,
    error::to_result,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            AtomicFlag,
            Full,
            Relaxed,
            Release, //
        },
        rcu,
        Arc,
        ArcBorrow,
        Mutex, //
    },
    types::Opaque,
    ThisModule, //
};

use super::{
    attach::{
        Held,
        InUse,
        Slots, //
    },
    device::UnitInfo,
    ffi,
    files::{
        Directory,
        Files, //
    },
    lock_class,
    ops::{
        Driver,
        PagingDomain, //
    },
    values::DeviceSlot, //
};

pub(super) mod early;
#[cfg(CONFIG_PCI)]
mod groups;
pub(super) mod isolate;
mod owners;
mod view;

use early::EarlyDriver;
use isolate::Members;

/// Where the callbacks of a driver find it: a `static` of the driver's module.
///
/// # Invariants
///
/// `inner` is null, or points into the [`Arc`] of the one [`Registration`] that exists. The
/// registration keeps that until an RCU grace period after the pointer was set to null.
pub struct Registry<D: Driver> {
    inner: Atomic<*mut Inner<D>>,
}

impl<D: Driver> Registry<D> {
    /// Nothing is registered yet.
    #[expect(clippy::new_without_default)]
    pub const fn new() -> Self {
        // INVARIANT: Null.
        Self {
            inner: Atomic::new(core::ptr::null_mut()),
        }
    }

    /// Registers the units of `driver` with the callbacks for it.
    ///
    /// Context: may sleep; takes the locks of the IOMMU core.
    ///
    /// # Safety
    ///
    /// All `callbacks` are for devices under the control of `D` and find it in this registry.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the driver is registered already, otherwise what the core says. The registration
    /// is dropped then (see [`Registration`]), except that [`Driver::shutdown`] is not called:
    /// nothing was handed over.
    pub(super) unsafe fn register_with(
        &'static self,
        module: &'static ThisModule,
        driver: Arc<D>,
        units: KVec<UnitInfo>,
        callbacks: DriverCallbacks,
        directory: Option<Directory>,
    ) -> Result<Registration<D>> {
        let inner = Inner::new(module, driver, units, callbacks, directory)?;
        let target = Arc::as_ptr(&inner);

        if self
            .inner
            .cmpxchg(core::ptr::null_mut(), target.cast_mut(), Full)
            .is_err()
        {
            return Err(EBUSY);
        }
        // INVARIANT: `inner` is published. From here on, dropping the registration takes it back.
        let mut registration = Registration {
            registry: self,
            inner,
            is_handed_over: false,
        };
        registration.inner.register_units()?;
        registration.is_handed_over = true;
        registration.inner.count_early_drivers();
        Ok(registration)
    }

    /// Stops all requests of the devices behind a unit that does not answer any more; `unit` is the
    /// index of what was registered. Devices that are found later are refused with `EIO`.
    ///
    /// Returns how many devices were stopped, those that had Bus Master Enable; [`None`] if the
    /// unit was isolated before. Nothing happens, and 0 is returned, while nothing is registered.
    ///
    /// Context: any; takes a spinlock under which no other lock of a driver is taken.
    pub fn isolate(&self, unit: usize) -> Option<usize> {
        let _guard = rcu::read_lock();
        // SAFETY: By the type invariants, the pointer is null or stays valid under the guard.
        let inner = unsafe { self.inner.load(Acquire).as_ref() };
        inner.map_or(Some(0), |inner| inner.isolate(unit))
    }

    /// The driver that is registered, for tests that use the units which it drives.
    #[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
    pub fn driver(&self) -> Option<Arc<D>> {
        self.get().map(|inner| inner.driver.clone())
    }

    /// What is registered.
    pub(super) fn get(&self) -> Option<Arc<Inner<D>>> {
        let _guard = rcu::read_lock();
        let inner = NonNull::new(self.inner.load(Acquire))?;
        // SAFETY: By the type invariants, the pointer is that of an `Arc` which stays under the
        // guard.
        Some(unsafe { ArcBorrow::from_raw(inner.as_ptr()) }.into())
    }
}

/// A driver that can be registered.
///
/// # Safety
///
/// [`Self::registry`] returns the same registry at each call.
pub unsafe trait Registered: Driver {
    /// The registry of the driver: a `static` of its module.
    ///
    /// The core passes only the device to `probe_device`, so the callbacks find the driver's object
    /// through this.
    fn registry() -> &'static Registry<Self>;
}

/// The tables of callbacks that C calls for a driver.
pub(super) struct DriverCallbacks {
    /// Makes the table for devices, with its owner and its static domains.
    pub(super) ops: fn(
        owner: *mut bindings::module,
        identity: *mut bindings::iommu_domain,
        blocked: *mut bindings::iommu_domain,
    ) -> bindings::iommu_ops,
    /// A domain that is the identity.
    pub(super) identity: bindings::iommu_domain,
    /// A domain that blocks everything.
    pub(super) blocked: bindings::iommu_domain,
}

/// The state of a registration.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Devices come and go.
    Live,
    /// New devices and new owners are refused. If there is an owner, the next state is `Live`.
    Closing,
    /// As `Closing`, and the devices that are left are given up.
    Leaving,
    /// All units are unregistered.
    Released,
}

/// What the attach lock protects.
pub(super) struct State<D: Driver> {
    phase: Phase,
    endpoints: KVec<Arc<Endpoint<D>>>,
    /// The files that show them, in any order.
    files: KVec<(Arc<Endpoint<D>>, Files)>,
}

impl<D: Driver> State<D> {
    /// Whether the driver is about to give all devices up.
    pub(super) fn is_closing(&self) -> bool {
        self.phase != Phase::Live
    }

    /// Whether it gives them up now.
    pub(super) fn is_leaving(&self) -> bool {
        self.phase == Phase::Leaving
    }
}

/// The data of a device: `dev_iommu_priv_get()`.
#[pin_data]
pub(super) struct Endpoint<D: Driver> {
    pub(super) dev: ARef<Device>,
    pub(super) data: Arc<D::Endpoint>,
    pub(super) early: EarlyDriver,
    #[pin]
    pub(super) slots: Slots<D::Domain>,
}

impl<D: Driver> Endpoint<D> {
    /// Lets `slot` reach nothing because the core wants it. The caller holds the attach lock.
    ///
    /// While the driver is being released, a device in the identity keeps it: its driver goes on
    /// using it, and the unit is going to be switched off.
    ///
    /// # Errors
    ///
    /// `EBUSY` while the driver is being released, for the claim of a device that nothing had
    /// claimed: it would come too late. The core does not look when it gives a device up.
    pub(super) fn block_for_core(&self, state: &State<D>, driver: &D, slot: DeviceSlot) -> Result {
        let is_rid = slot == DeviceSlot::Rid;
        let late = is_rid && state.is_closing() && self.slots.in_use() != InUse::Owner;
        let keeps = is_rid && state.is_closing() && self.slots.is_identity();
        if !keeps && (!late || state.is_leaving()) {
            self.block(driver, slot);
        }
        if late {
            return Err(EBUSY);
        }
        Ok(())
    }

    /// Lets `slot` reach nothing. The caller holds the attach lock.
    pub(super) fn block(&self, driver: &D, slot: DeviceSlot) {
        match (driver.attach_blocked(&self.data, slot), slot) {
            (Ok(()), DeviceSlot::Rid) => self.slots.put(slot, Held::Blocked),
            (Ok(()), DeviceSlot::Pasid(_)) => self.slots.remove(slot),
            (Err(_), _) => self.slots.lose(slot),
        }
    }

    /// Decides what the core is told when it falls back to the identity or to a domain of the DMA
    /// API, and that fails with `error`.
    ///
    /// The core does so in order to take what it frees next from a device, and takes no error for
    /// an answer. If the unit does not answer, the device has nothing to use from now on, which the
    /// driver has said, and what it had is never freed. A device that was just found has nothing
    /// yet, and is refused.
    ///
    /// The caller holds the attach lock.
    pub(super) fn fall_back(&self, slot: DeviceSlot, error: Error) -> Result {
        let is_silent = error == EIO || error == ETIMEDOUT;
        if slot != DeviceSlot::Rid || !is_silent || self.slots.is_fresh() {
            return Err(error);
        }
        self.slots.lose(slot);
        Ok(())
    }
}

/// A unit, as the core knows it.
struct Unit {
    raw: KBox<Opaque<bindings::iommu_device>>,
    info: UnitInfo,
    /// Whether it has an entry in sysfs.
    added: AtomicFlag,
    /// Whether it is registered, or about to be: devices may be probed for it.
    active: AtomicFlag,
    /// Whether it does not answer any more.
    isolated: AtomicFlag,
}

// SAFETY: The core guards its structure by its own locks.
unsafe impl Send for Unit {}
// SAFETY: As above.
unsafe impl Sync for Unit {}

/// All that is registered.
#[pin_data]
pub(super) struct Inner<D: Driver> {
    pub(super) driver: Arc<D>,
    pub(super) module: *mut bindings::module,
    #[pin]
    pub(super) state: Mutex<State<D>>,
    #[pin]
    pub(super) members: Members,
    /// Where domains and devices are shown.
    pub(super) directory: Option<Directory>,
    units: KVec<Unit>,
    ops: KBox<Opaque<bindings::iommu_ops>>,
    _identity: KBox<Opaque<bindings::iommu_domain>>,
    _blocked: KBox<Opaque<bindings::iommu_domain>>,
}

// SAFETY: The driver is `Send` and `Sync`, the C parts are guarded by the core's locks or constant.
unsafe impl<D: Driver> Send for Inner<D> {}
// SAFETY: As above.
unsafe impl<D: Driver> Sync for Inner<D> {}

impl<D: Driver> Inner<D> {
    fn new(
        module: &'static ThisModule,
        driver: Arc<D>,
        infos: KVec<UnitInfo>,
        callbacks: DriverCallbacks,
        directory: Option<Directory>,
    ) -> Result<Arc<Self>> {
        let module = module.as_ptr();
        let identity = KBox::new(Opaque::new(callbacks.identity), GFP_KERNEL)?;
        let blocked = KBox::new(Opaque::new(callbacks.blocked), GFP_KERNEL)?;
        let ops = (callbacks.ops)(module, identity.get(), blocked.get());
        let ops = KBox::new(Opaque::new(ops), GFP_KERNEL)?;

        let mut units = KVec::with_capacity(infos.len(), GFP_KERNEL)?;
        for info in infos {
            let mut raw: bindings::iommu_device = pin_init::zeroed();
            if D::Domain::PASIDS {
                raw.max_pasids = info.max_pasids;
            }
            units.push(
                Unit {
                    raw: KBox::new(Opaque::new(raw), GFP_KERNEL)?,
                    info,
                    added: AtomicFlag::new(false),
                    active: AtomicFlag::new(false),
                    isolated: AtomicFlag::new(false),
                },
                GFP_KERNEL,
            )?;
        }

        let (name, key) = lock_class::registry_state();
        let live = State {
            phase: Phase::Live,
            endpoints: KVec::new(),
            files: KVec::new(),
        };

        Arc::pin_init(
            pin_init!(Self {
                driver,
                module,
                state <- Mutex::new(live, name, key),
                members <- Members::new(),
                directory,
                units,
                ops,
                _identity: identity,
                _blocked: blocked,
            }),
            GFP_KERNEL,
        )
    }

    /// The core's structure of a unit, `None` while devices cannot be linked to it.
    pub(super) fn unit(&self, index: usize) -> Result<Option<*mut bindings::iommu_device>> {
        let unit = self.units.get(index).ok_or(EINVAL)?;
        Ok(unit.active.load(Acquire).then(|| unit.raw.get()))
    }

    /// Makes a device known as one behind the unit with the index `unit`.
    ///
    /// # Errors
    ///
    /// `EIO` if the unit does not answer any more, `ENOMEM`.
    pub(super) fn enter(&self, dev: &Device, unit: usize) -> Result {
        let isolated = &self.units.get(unit).ok_or(EINVAL)?.isolated;
        self.members.add(dev, unit)?;
        // Pairs with `isolate()`: either this sees the flag, or that sees the device.
        if isolated.load(Relaxed) {
            self.members.isolate(unit);
            self.leave(dev);
            return Err(EIO);
        }
        Ok(())
    }

    /// Takes back [`Self::enter`].
    pub(super) fn leave(&self, dev: &Device) {
        self.members.remove(dev);
    }

    /// Stops the devices behind a unit, and those that come later. Returns how many, or [`None`] if
    /// it was done before.
    fn isolate(&self, unit: usize) -> Option<usize> {
        let Some(found) = self.units.get(unit) else {
            return Some(0);
        };
        // The lock of the members orders this.
        let again = found.isolated.xchg(true, Relaxed);
        let stopped = self.members.isolate(unit);
        (!again).then_some(stopped)
    }

    /// Enters all units into sysfs, then registers them, one after the other. The first walks all
    /// devices; those of later units are left alone until their own unit's turn.
    fn register_units(&self) -> Result {
        for unit in &self.units {
            let parent = unit
                .info
                .parent
                .as_ref()
                .map_or(core::ptr::null_mut(), |parent| parent.as_raw());
            // SAFETY: The structure is pinned in its box and zeroed; format and argument match;
            // the name is copied.
            to_result(unsafe {
                bindings::iommu_device_sysfs_add(
                    unit.raw.get(),
                    parent,
                    core::ptr::null_mut(),
                    c"%s".as_char_ptr(),
                    unit.info.name.as_char_ptr(),
                )
            })?;
            unit.added.store(true, Relaxed);
        }
        for unit in &self.units {
            unit.active.store(true, Release);
            // SAFETY: The unit is in sysfs, and lives in this object until it is unregistered; the
            // operations are complete, have an owner, and live as long.
            let result = to_result(unsafe {
                bindings::iommu_device_register(
                    unit.raw.get(),
                    self.ops.get(),
                    core::ptr::null_mut(),
                )
            });
            if result.is_err() {
                // The core has unregistered it.
                unit.active.store(false, Relaxed);
                return result;
            }
        }
        Ok(())
    }

    /// Takes back what [`Self::register_units`] did. The core uses nothing of it after that.
    fn unregister_units(&self) {
        for unit in self.units.iter().rev() {
            if unit.active.load(Relaxed) {
                // SAFETY: The unit is registered.
                unsafe { bindings::iommu_device_unregister(unit.raw.get()) };
                unit.active.store(false, Relaxed);
            }
        }
        // A probe may have looked the operations up before.
        ffi::wait_for_probes();
        for unit in self.units.iter().rev() {
            if unit.added.load(Relaxed) {
                // SAFETY: The unit is in sysfs, and no device links to it any more.
                unsafe { bindings::iommu_device_sysfs_remove(unit.raw.get()) };
                unit.added.store(false, Relaxed);
            }
        }
    }

    /// Gives all devices up and unregisters all units, if `is_free` and no device is claimed.
    ///
    /// From [`Phase::Closing`] on no claim that attaches a domain is let in. That of a driver which
    /// binds (`iommu_device_use_default_domain()`) calls nothing here: a late one is not noticed.
    ///
    /// # Errors
    ///
    /// `EBUSY` if a device is claimed, or that of `is_free` or [`Driver::withdraw`]: all is as
    /// before. `ENODEV` if all was given up before.
    fn close(&self, is_free: impl FnOnce(&State<D>) -> Result) -> Result {
        {
            let mut state = self.state.lock();
            match state.phase {
                Phase::Live => {}
                Phase::Closing | Phase::Leaving => return Err(EBUSY),
                Phase::Released => return Err(ENODEV),
            }
            is_free(&state)?;
            state.phase = Phase::Closing;
        }
        // Devices that were let in before are in their groups after this.
        ffi::wait_for_probes();
        self.uncount_early_drivers();
        let claimed = self.find_claim().and_then(|()| self.driver.withdraw());
        if claimed.is_err() {
            self.count_early_drivers();
        }
        self.state.lock().phase = match claimed {
            Ok(()) => Phase::Leaving,
            Err(_) => Phase::Live,
        };
        claimed?;
        self.unregister_units();
        self.state.lock().phase = Phase::Released;
        Ok(())
    }
}

/// The registered units of a driver.
///
/// Each device holds a reference to the module, which is not unloaded before [`Self::release`].
///
/// Dropping gives up everything, owned or not. If a device is claimed the core cannot: then all
/// devices are stopped, and everything stays.
pub struct Registration<D: Driver> {
    registry: &'static Registry<D>,
    inner: Arc<Inner<D>>,
    /// Whether all units were registered.
    is_handed_over: bool,
}

impl<D: Driver> Registration<D> {
    /// The driver.
    pub fn driver(&self) -> &Arc<D> {
        &self.inner.driver
    }

    /// Gives all devices up, unregisters all units and leaves hardware as it was found. After
    /// that the module can be unloaded.
    ///
    /// A device whose default domain is the identity keeps working: it is passed through until the
    /// driver's [`Driver::shutdown`] has switched the unit off.
    ///
    /// No device driver may be bound or unbound during the call, and the core does not report one
    /// that is. It would warn, and that driver would lose its DMA mappings. A driver that was bound
    /// before the device was registered may stay, unless the DMA API serves it.
    ///
    /// Context: may sleep; takes the locks of the IOMMU core.
    ///
    /// # Errors
    ///
    /// `EBUSY` if a device is in use: a driver was bound to it after it was registered, its user
    /// has attached a domain, or the DMA API serves a driver. The device and what to do are logged.
    /// `ENODEV` if it was released before.
    pub fn release(&self) -> Result {
        // The counts of early drivers look like claims, until they are taken back.
        if !self.inner.counts_early_drivers() {
            self.inner.find_claim()?;
        }
        self.inner.close(|state| self.inner.find_owner(state))?;
        self.inner.driver.shutdown();
        Ok(())
    }
}

impl<D: Driver> Drop for Registration<D> {
    fn drop(&mut self) {
        match self.inner.close(|_| Ok(())) {
            Ok(()) if self.is_handed_over => self.inner.driver.shutdown(),
            // Released before.
            Ok(()) | Err(ENODEV) => {}
            Err(_) => {
                for unit in 0..self.inner.units.len() {
                    self.inner.isolate(unit);
                }
                pr_err!(
                    "iommu: a device is in use and cannot be released: all devices are stopped, \
                     and the driver stays loaded; end the user of the device, and reboot\n"
                );
                // The devices hold the module, and the core may call.
                core::mem::forget(self.inner.clone());
                return;
            }
        }
        // INVARIANT: Null. No callback runs any more: no unit is registered, no device is left.
        self.registry.inner.store(core::ptr::null_mut(), Release);
        // The pointer may have been read before.
        rcu::synchronize_rcu();
    }
}
