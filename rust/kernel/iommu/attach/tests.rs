// SPDX-License-Identifier: GPL-2.0

//! Attaching and dirty tracking on a driver without hardware, which writes down what it is told.

use super::*;
use kernel::sync::atomic::Relaxed;

mod fake;
mod harvest;
mod registration;
mod removal;

use fake::{
    Event,
    FakeDevice,
    FakeDomain,
    Log, //
};

/// The domains 1 and 2, attached nowhere, the device 4, and the log of all three.
fn scene() -> Result<(Arc<Log>, [FakeDomain; 2], FakeDevice)> {
    let log = Log::new()?;
    let domains = [
        FakeDomain::new(1, log.clone())?,
        FakeDomain::new(2, log.clone())?,
    ];
    Ok((log, domains, FakeDevice::new(4)?))
}

#[kunit_tests(rust_iommu_attach)]
mod suite {
    use super::*;

    #[test]
    fn flushes_reach_a_device_before_it_uses_the_tables() -> Result {
        let log = Log::new()?;
        let domain = FakeDomain::new(1, log.clone())?;
        let device = FakeDevice::new(4)?;

        device.attach(&domain, DeviceSlot::Rid)?;
        assert_eq!(
            &log.take()[..],
            &[Event::Install {
                endpoint: 4,
                domain: 1,
                tracking: false,
                flushed: true
            }]
        );
        assert!(!domain.attachments.is_empty());
        device.slots.put(DeviceSlot::Rid, Held::Blocked);
        assert!(domain.attachments.is_empty());
        assert!(domain.tags()?.is_empty());
        Ok(())
    }

    #[test]
    fn a_refusal_changes_nothing() -> Result {
        let (log, [old, new], device) = scene()?;

        device.attach(&old, DeviceSlot::Rid)?;
        let _ = log.take();
        device.endpoint.refuses.store(true, Relaxed);
        assert_eq!(device.attach(&new, DeviceSlot::Rid).err(), Some(EINVAL));
        assert!(log.take().is_empty());
        assert!(new.attachments.is_empty());
        assert!(new.tags()?.is_empty());
        assert_eq!(&old.tags()?[..], &[0, 104]);
        Ok(())
    }

    #[test]
    fn a_preparation_that_is_dropped_is_undone() -> Result {
        let log = Log::new()?;
        let domain = FakeDomain::new(1, log.clone())?;
        let device = FakeDevice::new(4)?;

        let prepared = device.prepare(&domain, DeviceSlot::Rid, true)?;
        assert_eq!(&domain.tags()?[..], &[0, 104]);
        drop(prepared);
        assert!(domain.tags()?.is_empty());
        assert!(domain.attachments.is_empty());
        assert_eq!(device.slots.in_use(), InUse::No);
        assert_eq!(
            &log.take()[..],
            &[Event::Dropped {
                endpoint: 4,
                domain: 1
            }]
        );
        Ok(())
    }

    #[test]
    fn the_old_domain_goes_after_the_new_one_is_in_place() -> Result {
        let (log, [old, new], device) = scene()?;

        device.attach(&old, DeviceSlot::Rid)?;
        let _ = log.take();
        device.attach(&new, DeviceSlot::Rid)?;
        assert_eq!(
            &log.take()[..],
            &[
                Event::Install {
                    endpoint: 4,
                    domain: 2,
                    tracking: false,
                    flushed: true
                },
                Event::Dropped {
                    endpoint: 4,
                    domain: 1
                }
            ]
        );
        assert!(old.attachments.is_empty());
        assert!(old.tags()?.is_empty());
        assert_eq!(&new.tags()?[..], &[0, 104]);
        Ok(())
    }

    /// Hardware may use either domain then: both keep their ids and their tags.
    #[test]
    fn a_unit_that_does_not_confirm_keeps_both_domains() -> Result {
        let (log, [old, new], device) = scene()?;

        device.attach(&old, DeviceSlot::Rid)?;
        device.endpoint.is_silent.store(true, Relaxed);
        let _ = log.take();
        assert_eq!(device.attach(&new, DeviceSlot::Rid).err(), Some(EIO));
        // The core believes that the device still has the old one.
        assert_eq!(device.slots.in_use(), InUse::Owner);
        assert!(new.attachments.is_lost() && !old.attachments.is_lost());
        assert_eq!(&new.tags()?[..], &[0, 104]);
        assert_eq!(&old.tags()?[..], &[0, 104]);

        // It takes the device out of that as well, which cannot be confirmed either.
        device.slots.lose(DeviceSlot::Rid);
        assert!(old.attachments.is_lost());
        assert!(!old.attachments.is_empty() && !new.attachments.is_empty());
        assert_eq!(&old.tags()?[..], &[0, 104]);
        assert_eq!(device.slots.in_use(), InUse::No);
        let gone = |event: &Event| matches!(event, Event::Dropped { .. });
        assert!(!log.take().iter().any(gone));
        Ok(())
    }

    #[test]
    fn a_lost_pasid_leaves_the_device_alone() -> Result {
        let (log, [rid, pasid], device) = scene()?;

        assert!(device.slots.is_fresh());
        device.attach(&rid, DeviceSlot::Rid)?;
        device.attach(&pasid, DeviceSlot::Pasid(9))?;
        let _ = log.take();
        device.slots.lose(DeviceSlot::Pasid(9));
        assert_eq!(device.slots.any_pasid(), None);
        assert!(pasid.attachments.is_lost() && !rid.attachments.is_lost());
        assert_eq!(&pasid.tags()?[..], &[0, 9004]);
        assert!(log.take().is_empty());
        // One that is not attached.
        device.slots.lose(DeviceSlot::Pasid(8));
        assert!(!device.slots.is_fresh());
        Ok(())
    }

    #[test]
    fn a_device_attached_while_tracking_is_on_has_it_on() -> Result {
        let log = Log::new()?;
        let domain = FakeDomain::new(1, log.clone())?;
        let (first, second) = (FakeDevice::new(2)?, FakeDevice::new(4)?);

        first.attach(&domain, DeviceSlot::Rid)?;
        let _ = log.take();
        domain.attachments.set_tracking(&domain, true)?;
        // Again: nothing to do.
        domain.attachments.set_tracking(&domain, true)?;
        second.attach(&domain, DeviceSlot::Rid)?;
        assert_eq!(
            &log.take()[..],
            &[
                Event::Set {
                    endpoint: 2,
                    on: true
                },
                Event::Install {
                    endpoint: 4,
                    domain: 1,
                    tracking: true,
                    flushed: true
                }
            ]
        );
        assert_eq!(&domain.tags()?[..], &[0, 102, 104]);
        Ok(())
    }

    #[test]
    fn one_that_refuses_tracking_puts_all_back() -> Result {
        let log = Log::new()?;
        let domain = FakeDomain::new(1, log.clone())?;
        let devices = [
            FakeDevice::new(1)?,
            FakeDevice::new(2)?,
            FakeDevice::new(3)?,
            FakeDevice::new(4)?,
        ];

        for device in devices.iter().take(3) {
            device.attach(&domain, DeviceSlot::Rid)?;
        }
        devices[1].endpoint.refuses.store(true, Relaxed);
        let _ = log.take();
        assert_eq!(
            domain.attachments.set_tracking(&domain, true).err(),
            Some(EIO)
        );
        let set = |endpoint, on| Event::Set { endpoint, on };
        assert_eq!(
            &log.take()[..],
            &[set(1, true), set(2, true), set(1, false), set(2, false)]
        );
        // Tracking is off for a device that comes later, too.
        devices[3].attach(&domain, DeviceSlot::Rid)?;
        assert!(log.take().iter().any(|event| matches!(
            event,
            Event::Install {
                tracking: false,
                ..
            }
        )));
        Ok(())
    }

    /// What is lost is told nothing, neither on the way nor on the way back, and hinders nothing:
    /// an attachment that was not confirmed, and one whose device was taken out without an answer.
    #[test]
    fn a_lost_device_does_not_hinder_tracking() -> Result {
        let log = Log::new()?;
        let domain = FakeDomain::new(1, log.clone())?;
        let (silent, gone) = (FakeDevice::new(1)?, FakeDevice::new(2)?);
        let (first, second) = (FakeDevice::new(3)?, FakeDevice::new(4)?);

        silent.endpoint.is_silent.store(true, Relaxed);
        assert!(silent.attach(&domain, DeviceSlot::Rid).is_err());
        first.attach(&domain, DeviceSlot::Rid)?;
        gone.attach(&domain, DeviceSlot::Rid)?;
        gone.slots.lose(DeviceSlot::Rid);
        second.attach(&domain, DeviceSlot::Rid)?;
        for lost in [&silent, &gone] {
            lost.endpoint.refuses.store(true, Relaxed);
        }

        let set = |endpoint, on| Event::Set { endpoint, on };
        let _ = log.take();
        domain.attachments.set_tracking(&domain, true)?;
        domain.attachments.set_tracking(&domain, false)?;
        assert_eq!(
            &log.take()[..],
            &[set(3, true), set(4, true), set(3, false), set(4, false)]
        );
        second.endpoint.refuses.store(true, Relaxed);
        assert_eq!(domain.attachments.set_tracking(&domain, true), Err(EIO));
        assert_eq!(
            &log.take()[..],
            &[set(3, true), set(4, true), set(3, false), set(4, false)]
        );
        Ok(())
    }

    /// Each PASID has its own domain, and the device itself another; one that goes leaves the rest.
    #[test]
    fn pasids_come_and_go_by_themselves() -> Result {
        let (log, [rid, first], device) = scene()?;
        let second = FakeDomain::new(3, log.clone())?;

        device.attach(&rid, DeviceSlot::Rid)?;
        device.attach(&first, DeviceSlot::Pasid(8))?;
        device.attach(&first, DeviceSlot::Pasid(9))?;
        assert_eq!(&rid.tags()?[..], &[0, 104]);
        assert_eq!(&first.tags()?[..], &[0, 8004, 9004]);

        // Another domain for one of the two.
        let _ = log.take();
        device.attach(&second, DeviceSlot::Pasid(9))?;
        assert_eq!(
            &log.take()[..],
            &[
                Event::InstallPasid {
                    endpoint: 4,
                    pasid: 9,
                    domain: 3,
                    tracking: false,
                    flushed: true
                },
                Event::Dropped {
                    endpoint: 4,
                    domain: 2
                }
            ]
        );
        assert_eq!(&first.tags()?[..], &[0, 8004]);
        assert_eq!(&second.tags()?[..], &[0, 9004]);

        device.slots.remove(DeviceSlot::Pasid(8));
        assert!(first.attachments.is_empty());
        device.slots.put(DeviceSlot::Rid, Held::Blocked);
        assert!(rid.attachments.is_empty());
        assert_eq!(device.slots.any_pasid(), Some(DeviceSlot::Pasid(9)));
        assert_eq!(&second.tags()?[..], &[0, 9004]);
        // One that is not attached.
        device.slots.remove(DeviceSlot::Pasid(8));
        device.slots.remove(DeviceSlot::Pasid(9));
        assert_eq!(device.slots.any_pasid(), None);
        Ok(())
    }

    #[test]
    fn tracking_is_that_of_pasids_too() -> Result {
        let log = Log::new()?;
        let domain = FakeDomain::new(1, log.clone())?;
        let (first, second) = (FakeDevice::new(2)?, FakeDevice::new(4)?);

        first.attach(&domain, DeviceSlot::Rid)?;
        first.attach(&domain, DeviceSlot::Pasid(7))?;
        second.attach(&domain, DeviceSlot::Pasid(7))?;
        let _ = log.take();
        domain.attachments.set_tracking(&domain, true)?;
        second.attach(&domain, DeviceSlot::Pasid(8))?;
        let set = |endpoint, on| Event::SetPasid {
            endpoint,
            pasid: 7,
            on,
        };
        assert_eq!(
            &log.take()[..],
            &[
                Event::Set {
                    endpoint: 2,
                    on: true
                },
                set(2, true),
                set(4, true),
                Event::InstallPasid {
                    endpoint: 4,
                    pasid: 8,
                    domain: 1,
                    tracking: true,
                    flushed: true
                }
            ]
        );

        // One PASID that refuses puts back the device itself as well.
        domain.attachments.set_tracking(&domain, false)?;
        second.endpoint.refuses.store(true, Relaxed);
        let _ = log.take();
        assert_eq!(
            domain.attachments.set_tracking(&domain, true).err(),
            Some(EIO)
        );
        assert_eq!(
            &log.take()[..],
            &[
                Event::Set {
                    endpoint: 2,
                    on: true
                },
                set(2, true),
                set(4, true),
                Event::Set {
                    endpoint: 2,
                    on: false
                },
                set(2, false),
                set(4, false)
            ]
        );
        Ok(())
    }

    #[test]
    fn every_unit_is_told_of_a_flush() -> Result {
        let domain = FakeDomain::new(1, Log::new()?)?;
        let tags = domain.attachments.tags();
        assert_eq!(tags.flush_each(|_| Err(EIO)), Ok(()));
        let devices = [FakeDevice::new(1)?, FakeDevice::new(2)?];
        for device in &devices {
            device.attach(&domain, DeviceSlot::Rid)?;
        }

        let mut told = KVec::new();
        let flushed = tags.flush_each(|tag| {
            told.push(*tag, GFP_ATOMIC)?;
            match *tag {
                1 => Err(EIO),
                101 => Err(ETIMEDOUT),
                _ => Ok(()),
            }
        });
        assert_eq!(&told[..], &[1, 101, 0, 102]);
        assert_eq!(flushed, Err(ETIMEDOUT));
        assert_eq!(tags.flush_each(|_| Ok(())), Ok(()));
        Ok(())
    }

    #[test]
    fn who_is_in_the_way_of_a_release() -> Result {
        let log = Log::new()?;
        let domain = FakeDomain::new(1, log)?;
        let device = FakeDevice::new(4)?;

        assert_eq!(device.slots.in_use(), InUse::No);
        device.slots.put(DeviceSlot::Rid, Held::Identity);
        assert_eq!(device.slots.in_use(), InUse::No);
        device
            .prepare(&domain, DeviceSlot::Rid, false)?
            .install(&domain)?
            .commit();
        assert_eq!(device.slots.in_use(), InUse::DmaApi);
        device.attach(&domain, DeviceSlot::Rid)?;
        assert_eq!(device.slots.in_use(), InUse::Owner);
        device.slots.put(DeviceSlot::Rid, Held::Blocked);
        assert_eq!(device.slots.in_use(), InUse::Owner);

        device.slots.put(DeviceSlot::Rid, Held::Identity);
        device.attach(&domain, DeviceSlot::Pasid(9))?;
        assert_eq!(device.slots.in_use(), InUse::Owner);
        assert_eq!(device.slots.any_pasid(), Some(DeviceSlot::Pasid(9)));
        device.slots.remove(DeviceSlot::Pasid(9));
        assert_eq!(device.slots.in_use(), InUse::No);
        assert!(domain.attachments.is_empty());
        Ok(())
    }
}
