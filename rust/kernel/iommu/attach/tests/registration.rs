// SPDX-License-Identifier: GPL-2.0

//! A driver that registers with the real core, which offers it devices that it does not take.

#[cfg(all(CONFIG_PCI, not(CONFIG_UML)))]
use super::super::super::pci::{
    function::Function,
    unit::{
        reached,
        UnitFunction, //
    }, //
};
use super::{
    super::super::{
        device::UnitInfo,
        domain::Domain,
        registry::{
            early::EarlyDriver,
            Endpoint,
            Registered,
            Registration, //
        },
        values::AllocFlags,
        vtable::domain::{
            new_domain,
            DomainTable, //
        }, //
    },
    fake::{
        Fake,
        FakeEndpoint, //
    },
    *,
};
#[cfg(all(CONFIG_PCI, not(CONFIG_UML)))]
use kernel::bindings;
use kernel::{
    device::{
        Bound,
        Device, //
    },
    faux,
    str::CString,
    ThisModule, //
};

/// The crate that the tests are built into.
// SAFETY: It is no module.
static BUILT_IN: ThisModule = unsafe { ThisModule::from_ptr(core::ptr::null_mut()) };

fn register() -> Result<Registration<Fake>> {
    let mut units = KVec::new();
    for name in [c"rust-fake0", c"rust-fake1"] {
        units.push(
            UnitInfo {
                name: CString::try_from(name)?,
                max_pasids: 0,
                parent: None,
            },
            GFP_KERNEL,
        )?;
    }
    Registration::new(&BUILT_IN, Arc::new(Fake, GFP_KERNEL)?, units, None)
}

/// A device of the driver, which is on no bus.
fn endpoint(id: u32) -> Result<Arc<Endpoint<Fake>>> {
    let faux = faux::Registration::new(c"rust_iommu_fake", None)?;
    let device: &faux::Device<Bound> = faux.as_ref();
    let device: &Device<Bound> = device.as_ref();
    let device: &Device = device;
    let data = FakeEndpoint::new(id)?;
    Arc::pin_init(
        try_pin_init!(Endpoint {
            dev: device.into(),
            data,
            early: EarlyDriver::of(device),
            slots <- Slots::new(),
        }),
        GFP_KERNEL,
    )
}

/// A PCI function of the machine that no driver uses. It is left without the right to make
/// requests.
#[cfg(all(CONFIG_PCI, not(CONFIG_UML)))]
struct Idle(UnitFunction);

// CAST: An offset of the first 64 bytes.
#[cfg(all(CONFIG_PCI, not(CONFIG_UML)))]
const COMMAND: i32 = bindings::PCI_COMMAND as i32;

/// The Command register.
#[cfg(all(CONFIG_PCI, not(CONFIG_UML)))]
fn command(function: &UnitFunction) -> Result<u16> {
    let mut command = 0;
    // SAFETY: The function is valid; `command` is a place for the result.
    let status =
        unsafe { bindings::pci_read_config_word(function.as_raw(), COMMAND, &mut command) };
    reached(status)?;
    Ok(command)
}

#[cfg(all(CONFIG_PCI, not(CONFIG_UML)))]
impl Idle {
    // CAST: A bit of a register of 16.
    const MASTER: u16 = bindings::PCI_COMMAND_MASTER as u16;

    /// Finds one on the first bus.
    fn find() -> Result<Self> {
        for source in 0..=0xff {
            let Some(found) = UnitFunction::find(0, source) else {
                continue;
            };
            let device = found.device();
            let function = Function::of(&device).ok_or(EINVAL)?;
            // SAFETY: The device is valid. No driver is bound while the tests run.
            let driver = unsafe { (&raw const (*device.as_raw()).driver).read_volatile() };
            let is_host = function.class() >> 8 == bindings::PCI_CLASS_BRIDGE_HOST;
            let is_idle = command(&found)? & Self::MASTER == 0;
            if driver.is_null() && !function.is_bridge() && !is_host && is_idle {
                return Ok(Self(found));
            }
        }
        pr_err!("iommu: the test needs a PCI function on bus 0 that no driver uses\n");
        Err(ENODEV)
    }

    fn may_request(&self) -> Result<bool> {
        Ok(command(&self.0)? & Self::MASTER != 0)
    }

    fn let_request(&self, may: bool) -> Result {
        let others = command(&self.0)? & !Self::MASTER;
        let master = if may { Self::MASTER } else { 0 };
        // SAFETY: The function is valid, and no driver uses it.
        let status =
            unsafe { bindings::pci_write_config_word(self.0.as_raw(), COMMAND, others | master) };
        reached(status)
    }
}

#[cfg(all(CONFIG_PCI, not(CONFIG_UML)))]
impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.let_request(false);
    }
}

#[kunit_tests(rust_iommu_registration)]
mod suite {
    use super::*;

    #[test]
    fn one_comes_and_goes() -> Result {
        let registry = Fake::registry();
        assert!(registry.get().is_none());
        assert_eq!(registry.isolate(0), Some(0));

        let registration = register()?;
        assert_eq!(register().err(), Some(EBUSY));
        // A callback that is under way.
        let inner = registry.get().ok_or(ENODEV)?;
        assert!(inner.unit(1)?.is_some());
        assert_eq!(inner.unit(2).err(), Some(EINVAL));
        registration.release()?;
        assert_eq!(registration.release(), Err(ENODEV));
        assert!(inner.unit(1)?.is_none());
        assert!(registry.get().is_some());
        drop(registration);
        assert!(registry.get().is_none());
        // It has what it needs as long as it takes.
        assert!(inner.unit(1)?.is_none());
        drop(inner);

        // Again, and dropped without a release.
        drop(register()?);
        assert!(registry.get().is_none());
        Ok(())
    }

    /// Its unit may use what nothing can make it forget: a device that comes late gets nothing.
    #[test]
    fn no_device_comes_behind_a_unit_that_is_isolated() -> Result {
        let registration = register()?;
        let inner = Fake::registry().get().ok_or(ENODEV)?;
        let faux = faux::Registration::new(c"rust_iommu_fake", None)?;
        let device: &faux::Device<Bound> = faux.as_ref();
        let device: &Device<Bound> = device.as_ref();

        inner.enter(device, 0)?;
        inner.leave(device);
        assert_eq!(Fake::registry().isolate(0), Some(0));
        assert_eq!(inner.enter(device, 0), Err(EIO));
        inner.enter(device, 1)?;
        inner.leave(device);
        drop(registration);
        Ok(())
    }

    /// The devices of the other unit go on. A device that is on no PCI bus has nothing to stop.
    #[test]
    #[cfg(all(CONFIG_PCI, not(CONFIG_UML)))]
    fn a_unit_that_is_isolated_has_its_devices_stopped() -> Result {
        let registration = register()?;
        let inner = Fake::registry().get().ok_or(ENODEV)?;
        let faux = faux::Registration::new(c"rust_iommu_fake", None)?;
        let nowhere: &faux::Device<Bound> = faux.as_ref();
        let nowhere: &Device<Bound> = nowhere.as_ref();
        let idle = Idle::find()?;
        let device = idle.0.device();

        inner.enter(nowhere, 0)?;
        inner.enter(&device, 1)?;
        idle.let_request(true)?;
        assert_eq!(Fake::registry().isolate(0), Some(0));
        assert!(idle.may_request()?);
        assert_eq!(Fake::registry().isolate(1), Some(1));
        assert!(!idle.may_request()?);
        // The second time there is nothing to say, and a device that is gone is not stopped.
        assert_eq!(Fake::registry().isolate(1), None);
        idle.let_request(true)?;
        inner.leave(&device);
        assert_eq!(Fake::registry().isolate(1), None);
        assert!(idle.may_request()?);
        inner.leave(nowhere);
        drop(registration);
        Ok(())
    }

    /// Units that disagree on whether they can track (HDSup): a domain that was allocated to track
    /// goes to devices of one that can, and another domain goes to all.
    #[test]
    fn a_domain_that_tracks_keeps_to_units_that_can() -> Result {
        let registration = register()?;
        let inner = Fake::registry().get().ok_or(ENODEV)?;
        let log = Log::new()?;
        let domain = |id, dirty_tracking| {
            let flags = AllocFlags {
                dirty_tracking,
                ..AllocFlags::default()
            };
            new_domain(FakeDomain::new(id, log.clone()), flags)
        };
        let (tracks, other) = (domain(1, true)?, domain(2, false)?);
        let (can, cannot) = (endpoint(4)?, endpoint(5)?);
        let attach = |endpoint: &Endpoint<Fake>, domain: &Domain<FakeDomain>| {
            DomainTable::<FakeDomain>::attach_to(&inner, endpoint, domain, DeviceSlot::Rid)
        };

        can.data.tracks.store(true, Relaxed);
        attach(&can, &tracks)?;
        attach(&cannot, &other)?;
        let _ = log.take();
        // The core tries another domain then. Nothing has changed.
        assert_eq!(attach(&cannot, &tracks), Err(EINVAL));
        tracks.attachments.set_tracking(&tracks.data, true)?;
        assert_eq!(attach(&cannot, &tracks), Err(EINVAL));
        let on = Event::Set {
            endpoint: 4,
            on: true,
        };
        assert_eq!(&log.take()[..], &[on]);
        assert_eq!(cannot.slots.in_use(), InUse::Owner);
        // What cannot track can be left for what can, and has it on at once.
        attach(&can, &other)?;
        attach(&can, &tracks)?;
        assert!(log.take().contains(&Event::Install {
            endpoint: 4,
            domain: 1,
            tracking: true,
            flushed: false
        }));
        drop(registration);
        Ok(())
    }
}
