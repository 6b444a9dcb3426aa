// SPDX-License-Identifier: GPL-2.0

//! A driver without hardware, which writes down what it is told.

use super::super::{
    super::{
        device::{
            Capability,
            DefaultDomain,
            HwInfo,
            Probed, //
        },
        dirty::DirtyBitmap,
        gather::IotlbGather,
        hw::pages::{
            Gfp,
            KernelTables,
            KernelWalk, //
        },
        ops::{
            Confirms,
            Driver, //
        },
        pt::{
            fmt::VtdSs,
            Claim,
            Config,
            DetachedTable,
            Exclusive,
            Gather,
            PageTable,
            Range,
            TableMem, //
        },
        registry::{
            Registered,
            Registry, //
        },
        resv::ReservedRegions,
        values::{
            AllocFlags,
            Flush,
            Splits, //
        }, //
    },
    *,
};
use kernel::{
    device::Device,
    fmt,
    new_mutex,
    sync::atomic::{
        AtomicFlag,
        Relaxed, //
    }, //
};

/// What the driver was told: the endpoint, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Install {
        endpoint: u32,
        domain: u32,
        tracking: bool,
        flushed: bool,
    },
    InstallPasid {
        endpoint: u32,
        pasid: u32,
        domain: u32,
        tracking: bool,
        flushed: bool,
    },
    Set {
        endpoint: u32,
        on: bool,
    },
    SetPasid {
        endpoint: u32,
        pasid: u32,
        on: bool,
    },
    Dropped {
        endpoint: u32,
        domain: u32,
    },
    Harvest {
        range: Range,
        clear: bool,
    },
    Report(Range),
    Flush(Flush),
    Freed {
        domain: u32,
    },
}

#[pin_data]
pub(super) struct Log {
    #[pin]
    events: Mutex<KVec<Event>>,
}

impl Log {
    pub(super) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self { events <- new_mutex!(KVec::new()) }),
            GFP_KERNEL,
        )
    }

    fn add(&self, event: Event) {
        // An event that is missing fails the test.
        let _ = self.events.lock().push(event, GFP_KERNEL);
    }

    pub(super) fn take(&self) -> KVec<Event> {
        core::mem::take(&mut *self.events.lock())
    }
}

pub(super) struct Fake;

pub(super) struct FakeEndpoint {
    id: u32,
    /// Refuses what can be refused.
    pub(super) refuses: AtomicFlag,
    /// Does not confirm that it uses a domain.
    pub(super) is_silent: AtomicFlag,
    /// Is behind a unit that can track dirty pages.
    pub(super) tracks: AtomicFlag,
}

impl FakeEndpoint {
    pub(super) fn new(id: u32) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                id,
                refuses: AtomicFlag::new(false),
                is_silent: AtomicFlag::new(false),
                tracks: AtomicFlag::new(false),
            },
            GFP_KERNEL,
        )?)
    }
}

pub(super) struct FakeDomain {
    id: u32,
    log: Arc<Log>,
    pub(super) table: PageTable<VtdSs, KernelTables>,
    splits: Splits,
    /// Fails flushes.
    pub(super) fails: AtomicFlag,
    /// Unmaps all that it is asked for, and detaches a table with it.
    pub(super) detaches: AtomicFlag,
    pub(super) attachments: Attachments<FakeDomain>,
}

pub(super) struct FakeAttachment {
    endpoint: u32,
    slot: DeviceSlot,
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

// SAFETY: There is no hardware, so that there is nothing to forget.
unsafe impl Confirms for Fake {}

// SAFETY: It is one static.
unsafe impl Registered for Fake {
    fn registry() -> &'static Registry<Self> {
        &REGISTRY
    }
}

impl Driver for Fake {
    type Endpoint = FakeEndpoint;
    type Domain = FakeDomain;

    fn probe_device(&self, _dev: &Device) -> Result<Probed<FakeEndpoint>> {
        Err(ENODEV)
    }

    fn capable(&self, endpoint: &FakeEndpoint, capability: Capability) -> bool {
        capability == Capability::DirtyTracking && endpoint.tracks.load(Relaxed)
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

    fn attach_identity(&self, _endpoint: &Arc<FakeEndpoint>, _slot: DeviceSlot) -> Result {
        Ok(())
    }

    fn attach_blocked(&self, _endpoint: &Arc<FakeEndpoint>, _slot: DeviceSlot) -> Result {
        Ok(())
    }

    fn show_endpoint(_endpoint: &FakeEndpoint, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }

    fn show_entries(_endpoint: &FakeEndpoint, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }

    fn shutdown(&self) {}
}

impl Drop for FakeDomain {
    fn drop(&mut self) {
        self.log.add(Event::Freed { domain: self.id });
    }
}

impl FakeDomain {
    pub(super) fn new(id: u32, log: Arc<Log>) -> Result<Self> {
        Self::splitting(id, log, Splits::Off)
    }

    /// A domain with leaves of two sizes, of which the larger ones are split.
    pub(super) fn splitting(id: u32, log: Arc<Log>, splits: Splits) -> Result<Self> {
        let config = Config {
            levels: 4,
            max_levels: 4,
            page_sizes: 1 << 12 | 1 << 21,
            input_lg2: 48,
            output_lg2: 52,
            coherent: true,
            marks: true,
            splits: splits != Splits::Off,
        };
        Ok(Self {
            id,
            log,
            splits,
            table: PageTable::new(KernelTables::new(None), config, Gfp::KERNEL)?,
            fails: AtomicFlag::new(false),
            detaches: AtomicFlag::new(false),
            attachments: Attachments::new(0)?,
        })
    }

    pub(super) fn tags(&self) -> Result<KVec<u32>> {
        self.attachments.tags().with_all(|tags| {
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
    type Tables = PageTable<VtdSs, KernelTables>;

    fn tables(&self) -> &Self::Tables {
        &self.table
    }

    fn splits(&self) -> Splits {
        self.splits
    }

    fn prepare(
        &self,
        endpoint: &Arc<FakeEndpoint>,
        slot: DeviceSlot,
        _tracking: bool,
    ) -> Result<FakeAttachment> {
        if endpoint.refuses.load(Relaxed) {
            return Err(EINVAL);
        }
        Ok(FakeAttachment {
            endpoint: endpoint.id,
            slot,
            domain: self.id,
            log: self.log.clone(),
        })
    }

    fn tags(&self, attachment: &FakeAttachment) -> Result<KVec<u32>> {
        let mut tags = KVec::new();
        // Even endpoints share a unit.
        tags.push(attachment.endpoint % 2, GFP_KERNEL)?;
        tags.push(own_tag(attachment.endpoint, attachment.slot), GFP_KERNEL)?;
        Ok(tags)
    }

    fn install(
        &self,
        endpoint: &Arc<FakeEndpoint>,
        slot: DeviceSlot,
        _attachment: &FakeAttachment,
        tracking: bool,
    ) -> Result {
        let flushed = self
            .attachments
            .tags()
            .with_all(|tags| tags.contains(&own_tag(endpoint.id, slot)));
        self.log.add(match slot {
            DeviceSlot::Rid => Event::Install {
                endpoint: endpoint.id,
                domain: self.id,
                tracking,
                flushed,
            },
            DeviceSlot::Pasid(pasid) => Event::InstallPasid {
                endpoint: endpoint.id,
                pasid,
                domain: self.id,
                tracking,
                flushed,
            },
        });
        if endpoint.is_silent.load(Relaxed) {
            return Err(EIO);
        }
        Ok(())
    }

    fn set_tracking(
        &self,
        endpoint: &Arc<FakeEndpoint>,
        slot: DeviceSlot,
        _attachment: &FakeAttachment,
        on: bool,
    ) -> Result {
        self.log.add(match slot {
            DeviceSlot::Rid => Event::Set {
                endpoint: endpoint.id,
                on,
            },
            DeviceSlot::Pasid(pasid) => Event::SetPasid {
                endpoint: endpoint.id,
                pasid,
                on,
            },
        });
        if on && endpoint.refuses.load(Relaxed) {
            return Err(EIO);
        }
        Ok(())
    }

    fn unmap(&self, claim: &mut Exclusive, gather: &mut IotlbGather<'_>) -> u64 {
        let range = claim.range();
        gather.add(range);
        if self.detaches.load(Relaxed) {
            let Ok(table) = KernelTables::new(None).alloc(Gfp::ATOMIC) else {
                return 0;
            };
            // SAFETY: Nothing names the table, and it is of the memory of all domains.
            gather.queue_free(unsafe { DetachedTable::from_raw(table) });
        }
        range.size()
    }

    fn sync(&self, flush: Flush, _tags: &Tags<u32>) -> Result {
        self.log.add(Event::Flush(flush));
        if self.fails.load(Relaxed) {
            return Err(EIO);
        }
        Ok(())
    }

    fn read_and_clear_dirty(
        &self,
        _walk: &KernelWalk<'_>,
        clear: bool,
        dirty: &mut DirtyBitmap<'_>,
    ) -> Result {
        let range = dirty.query();
        self.log.add(Event::Harvest { range, clear });
        Ok(())
    }

    fn report_writable(&self, _walk: &KernelWalk<'_>, dirty: &mut DirtyBitmap<'_>) -> Result {
        self.log.add(Event::Report(dirty.query()));
        Ok(())
    }
}

/// The tag of what one slot of an endpoint has cached.
fn own_tag(endpoint: u32, slot: DeviceSlot) -> u32 {
    match slot {
        DeviceSlot::Rid => 100 + endpoint,
        DeviceSlot::Pasid(pasid) => 1000 * pasid + endpoint,
    }
}

/// A device: its endpoint and its slots.
pub(super) struct FakeDevice {
    pub(super) endpoint: Arc<FakeEndpoint>,
    pub(super) slots: Pin<KBox<Slots<FakeDomain>>>,
}

impl FakeDevice {
    pub(super) fn new(id: u32) -> Result<Self> {
        Ok(Self {
            endpoint: FakeEndpoint::new(id)?,
            slots: KBox::try_pin_init(Slots::new(), GFP_KERNEL)?,
        })
    }

    pub(super) fn prepare<'a>(
        &'a self,
        domain: &'a FakeDomain,
        slot: DeviceSlot,
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

    pub(super) fn attach(&self, domain: &FakeDomain, slot: DeviceSlot) -> Result {
        self.prepare(domain, slot, true)?.install(domain)?.commit();
        Ok(())
    }
}
