// SPDX-License-Identifier: GPL-2.0

//! Attaching and dirty tracking on a driver without hardware, which writes down what it is told.

use super::{
    super::{
        device::{
            Capability,
            DefaultDomain,
            HwInfo,
            Probed, //
        },
        dirty::DirtyBitmap,
        domain::{
            AllocFlags,
            Flush,
            Geometry, //
        },
        gather::IotlbGather,
        ops::Driver,
        pages::Gfp,
        pt::{
            Exclusive,
            PhysAddr,
            Prot,
            Stable, //
        },
        registry::Registry,
        resv::ReservedRegions, //
    },
    *,
};
use kernel::{
    device::Device,
    new_mutex,
    sync::atomic::{
        AtomicFlag,
        Relaxed, //
    }, //
};

/// What the driver was told: the endpoint, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Install {
        endpoint: u32,
        domain: u32,
        tracking: bool,
        flushed: bool,
    },
    Set {
        endpoint: u32,
        on: bool,
    },
    Dropped {
        endpoint: u32,
        domain: u32,
    },
}

#[pin_data]
struct Log {
    #[pin]
    events: Mutex<KVec<Event>>,
}

impl Log {
    fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self { events <- new_mutex!(KVec::new()) }),
            GFP_KERNEL,
        )
    }

    fn add(&self, event: Event) {
        // An event that is missing fails the test.
        let _ = self.events.lock().push(event, GFP_KERNEL);
    }

    fn take(&self) -> KVec<Event> {
        core::mem::take(&mut *self.events.lock())
    }
}

struct Fake;

struct FakeEndpoint {
    id: u32,
    /// Refuses what can be refused.
    refuses: AtomicFlag,
}

struct FakeDomain {
    id: u32,
    log: Arc<Log>,
    attachments: Attachments<FakeDomain>,
}

struct FakeAttachment {
    endpoint: u32,
    domain: u32,
    log: Arc<Log>,
}

impl Drop for FakeAttachment {
    fn drop(&mut self) {
        self.log.add(Event::Dropped {
            endpoint: self.endpoint,
            domain: self.domain,
        });
    }
}

static REGISTRY: Registry<Fake> = Registry::new();

impl Driver for Fake {
    type Endpoint = FakeEndpoint;
    type Domain = FakeDomain;

    fn registry() -> &'static Registry<Self> {
        &REGISTRY
    }

    fn probe_device(&self, _dev: &Device) -> Result<Probed<FakeEndpoint>> {
        Err(ENODEV)
    }

    fn capable(&self, _endpoint: &FakeEndpoint, _capability: Capability) -> bool {
        false
    }

    fn hw_info(&self, _endpoint: &FakeEndpoint) -> Result<HwInfo> {
        Err(EOPNOTSUPP)
    }

    fn reserved_regions(
        &self,
        _endpoint: &FakeEndpoint,
        _regions: &mut ReservedRegions<'_>,
    ) -> Result {
        Ok(())
    }

    fn default_domain(&self, _endpoint: &FakeEndpoint) -> DefaultDomain {
        DefaultDomain::Any
    }

    fn alloc_paging(
        &self,
        _endpoint: &FakeEndpoint,
        _flags: AllocFlags,
    ) -> impl PinInit<FakeDomain, Error> {
        Log::new().and_then(|log| FakeDomain::new(0, log))
    }

    fn attach_identity(&self, _endpoint: &Arc<FakeEndpoint>, _slot: Slot) -> Result {
        Ok(())
    }

    fn attach_blocked(&self, _endpoint: &Arc<FakeEndpoint>, _slot: Slot) {}

    fn shutdown(&self) {}
}

impl FakeDomain {
    fn new(id: u32, log: Arc<Log>) -> Result<Self> {
        Ok(Self {
            id,
            log,
            attachments: Attachments::new()?,
        })
    }

    fn tags(&self) -> Result<KVec<u32>> {
        self.attachments.with_tags(|tags| {
            let mut copy = KVec::new();
            copy.extend_from_slice(tags, GFP_ATOMIC)?;
            Ok(copy)
        })
    }
}

impl PagingDomain for FakeDomain {
    type Driver = Fake;
    type Attachment = FakeAttachment;
    type Tag = u32;

    fn geometry(&self) -> Geometry {
        Geometry {
            first: 0,
            last: u64::MAX,
            page_sizes: 1 << 12,
        }
    }

    fn prepare(
        &self,
        endpoint: &Arc<FakeEndpoint>,
        _slot: Slot,
        _tracking: bool,
    ) -> Result<FakeAttachment> {
        if endpoint.refuses.load(Relaxed) {
            return Err(EINVAL);
        }
        Ok(FakeAttachment {
            endpoint: endpoint.id,
            domain: self.id,
            log: self.log.clone(),
        })
    }

    fn tags(&self, attachment: &FakeAttachment) -> Result<KVec<u32>> {
        let mut tags = KVec::new();
        // Even endpoints share a unit.
        tags.push(attachment.endpoint % 2, GFP_KERNEL)?;
        tags.push(100 + attachment.endpoint, GFP_KERNEL)?;
        Ok(tags)
    }

    fn install(
        &self,
        endpoint: &Arc<FakeEndpoint>,
        _slot: Slot,
        _attachment: &FakeAttachment,
        tracking: bool,
    ) {
        let flushed = self
            .attachments
            .with_tags(|tags| tags.contains(&(100 + endpoint.id)));
        self.log.add(Event::Install {
            endpoint: endpoint.id,
            domain: self.id,
            tracking,
            flushed,
        });
    }

    fn set_tracking(
        &self,
        endpoint: &Arc<FakeEndpoint>,
        _slot: Slot,
        _attachment: &FakeAttachment,
        on: bool,
    ) -> Result {
        self.log.add(Event::Set {
            endpoint: endpoint.id,
            on,
        });
        if on && endpoint.refuses.load(Relaxed) {
            return Err(EIO);
        }
        Ok(())
    }

    fn map(
        &self,
        _claim: &mut Exclusive,
        _phys: PhysAddr,
        _prot: Prot,
        _gfp: Gfp,
        _gather: &mut IotlbGather<'_>,
    ) -> (u64, Result) {
        (0, Err(EINVAL))
    }

    fn unmap(&self, _claim: &mut Exclusive, _gather: &mut IotlbGather<'_>) -> u64 {
        0
    }

    fn iova_to_phys(&self, _claim: &Stable) -> Option<PhysAddr> {
        None
    }

    fn sync(&self, _flush: Flush, _attachments: &Attachments<Self>) -> Result {
        Ok(())
    }

    fn read_and_clear_dirty(
        &self,
        _claim: &Stable,
        _clear: bool,
        _dirty: &mut DirtyBitmap<'_>,
    ) -> Result {
        Err(EOPNOTSUPP)
    }
}

/// A device: its endpoint and its slots.
struct FakeDevice {
    endpoint: Arc<FakeEndpoint>,
    slots: Pin<KBox<Slots<FakeDomain>>>,
}

impl FakeDevice {
    fn new(id: u32) -> Result<Self> {
        Ok(Self {
            endpoint: Arc::new(
                FakeEndpoint {
                    id,
                    refuses: AtomicFlag::new(false),
                },
                GFP_KERNEL,
            )?,
            slots: KBox::try_pin_init(Slots::new(), GFP_KERNEL)?,
        })
    }

    fn prepare<'a>(
        &'a self,
        domain: &'a FakeDomain,
        slot: Slot,
        user: bool,
    ) -> Result<Prepared<'a, FakeDomain>> {
        Prepared::new(
            domain,
            &domain.attachments,
            &self.endpoint,
            &self.slots,
            slot,
            user,
        )
    }

    fn attach(&self, domain: &FakeDomain, slot: Slot) -> Result {
        self.prepare(domain, slot, true)?.install(domain).commit();
        Ok(())
    }
}

#[kunit_tests(rust_iommu_attach)]
mod suite {
    use super::*;

    #[test]
    fn flushes_reach_a_device_before_it_uses_the_tables() -> Result {
        let log = Log::new()?;
        let domain = FakeDomain::new(1, log.clone())?;
        let device = FakeDevice::new(4)?;

        device.attach(&domain, Slot::Rid)?;
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
        device.slots.put(Slot::Rid, Held::Blocked);
        assert!(domain.attachments.is_empty());
        assert!(domain.tags()?.is_empty());
        Ok(())
    }

    #[test]
    fn a_refusal_changes_nothing() -> Result {
        let log = Log::new()?;
        let (old, new) = (
            FakeDomain::new(1, log.clone())?,
            FakeDomain::new(2, log.clone())?,
        );
        let device = FakeDevice::new(4)?;

        device.attach(&old, Slot::Rid)?;
        let _ = log.take();
        device.endpoint.refuses.store(true, Relaxed);
        assert_eq!(device.attach(&new, Slot::Rid).err(), Some(EINVAL));
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

        let prepared = device.prepare(&domain, Slot::Rid, true)?;
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
        let log = Log::new()?;
        let (old, new) = (
            FakeDomain::new(1, log.clone())?,
            FakeDomain::new(2, log.clone())?,
        );
        let device = FakeDevice::new(4)?;

        device.attach(&old, Slot::Rid)?;
        let _ = log.take();
        device.attach(&new, Slot::Rid)?;
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

    #[test]
    fn a_device_attached_while_tracking_is_on_has_it_on() -> Result {
        let log = Log::new()?;
        let domain = FakeDomain::new(1, log.clone())?;
        let (first, second) = (FakeDevice::new(2)?, FakeDevice::new(4)?);

        first.attach(&domain, Slot::Rid)?;
        let _ = log.take();
        domain.attachments.set_tracking(&domain, true)?;
        // Again: nothing to do.
        domain.attachments.set_tracking(&domain, true)?;
        second.attach(&domain, Slot::Rid)?;
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
            device.attach(&domain, Slot::Rid)?;
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
        // Tracking is off for who comes later, too.
        devices[3].attach(&domain, Slot::Rid)?;
        assert!(log.take().iter().any(|event| matches!(
            event,
            Event::Install {
                tracking: false,
                ..
            }
        )));
        Ok(())
    }

    #[test]
    fn every_unit_is_told_of_a_flush() -> Result {
        let domain = FakeDomain::new(1, Log::new()?)?;
        let attachments = &domain.attachments;
        assert_eq!(attachments.flush_each(|_| Err(EIO)), Ok(()));
        let devices = [FakeDevice::new(1)?, FakeDevice::new(2)?];
        for device in &devices {
            device.attach(&domain, Slot::Rid)?;
        }

        let mut told = KVec::new();
        let flushed = attachments.flush_each(|tag| {
            told.push(*tag, GFP_ATOMIC)?;
            match *tag {
                1 => Err(EIO),
                101 => Err(ETIMEDOUT),
                _ => Ok(()),
            }
        });
        assert_eq!(&told[..], &[1, 101, 0, 102]);
        assert_eq!(flushed, Err(ETIMEDOUT));
        assert_eq!(attachments.flush_each(|_| Ok(())), Ok(()));
        Ok(())
    }

    #[test]
    fn who_is_in_the_way_of_a_release() -> Result {
        let log = Log::new()?;
        let domain = FakeDomain::new(1, log)?;
        let device = FakeDevice::new(4)?;

        assert_eq!(device.slots.in_use(), InUse::No);
        device.slots.put(Slot::Rid, Held::Identity);
        assert_eq!(device.slots.in_use(), InUse::No);
        device
            .prepare(&domain, Slot::Rid, false)?
            .install(&domain)
            .commit();
        assert_eq!(device.slots.in_use(), InUse::DmaApi);
        device.attach(&domain, Slot::Rid)?;
        assert_eq!(device.slots.in_use(), InUse::Owner);
        device.slots.put(Slot::Rid, Held::Blocked);
        assert_eq!(device.slots.in_use(), InUse::Owner);

        device.slots.put(Slot::Rid, Held::Identity);
        device.attach(&domain, Slot::Pasid(9))?;
        assert_eq!(device.slots.in_use(), InUse::Owner);
        assert_eq!(device.slots.any_pasid(), Some(Slot::Pasid(9)));
        device.slots.remove(Slot::Pasid(9));
        assert_eq!(device.slots.in_use(), InUse::No);
        assert!(domain.attachments.is_empty());
        Ok(())
    }
}
