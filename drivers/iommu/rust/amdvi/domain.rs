// SPDX-License-Identifier: GPL-2.0

//! Paging domains: tables of one kind, and the units that have cached their translations.
//!
//! Each domain has its own id in every unit that it is attached to. Guest tables hang below a
//! GCR3 table with one entry, that of PASID 0, which requests without PASID use. Devices that have
//! PASIDs have their own GCR3 table and their own id instead: see [`crate::pasids`].
//!
//! Lock order: the lock of a domain's ids is taken under the attach lock of the registry; its
//! holder may sleep. The lock of its [`users`] is never held together with another lock of the
//! domain.

mod flush;
mod users;

use kernel::{
    iommu::{
        block::Block,
        domain_id::{
            DomainId,
            DomainIds,
            Tag, //
        },
        gather::IotlbGather,
        hw::pages::{
            Gfp,
            KernelTables,
            TablePages, //
        },
        ops::PagingDomain,
        pt::{
            fmt::{
                AmdV1,
                X86_64, //
            },
            Config,
            Exclusive,
            PageTable,
            PhysAddr,
            Prot,
            Range, //
        },
        tables::{
            Either,
            Tables, //
        },
        tags::Tags,
        values::{
            AllocFlags,
            DeviceSlot,
            Flush,
            Splits, //
        }, //
    },
    prelude::*,
    sizes::SZ_4K,
    sync::{
        atomic::Release,
        Arc, //
    }, //
};

use crate::{
    caps::{
        Caps,
        TableKind, //
    },
    dte::{
        entry::Entry,
        writer, //
    },
    endpoint::Endpoint,
    iotlb::Tag as CacheTag,
    machine::AmdVi,
    pasids::{
        compatibility,
        sequence::Untagged, //
    },
    unit::Unit, //
};

use flush::flush_all;
use users::{
    Growing,
    User,
    Users, //
};

/// Flag of an entry of a GCR3 table: it is present (2.2.6.3).
const GCR3_VALID: u64 = 1 << 0;

/// AMD's own tables, or x86-64 tables.
type HostOrGuest = Either<PageTable<AmdV1, KernelTables>, PageTable<X86_64, KernelTables>>;

/// A paging domain.
#[pin_data]
pub(crate) struct Domain {
    config: Config,
    tables: HostOrGuest,
    /// The GCR3 table that names guest tables.
    directory: Option<TablePages>,
    /// Whether it was allocated to track dirty pages.
    dirty: bool,
    /// How it splits large leaves while it tracks.
    splits: Splits,
    /// Whether the driver invalidates new mappings, for units that cache absent ones.
    sync_map: bool,
    users: Arc<Users>,
    #[pin]
    ids: DomainIds<Unit>,
}

/// What a device in a domain holds: the id that its translations are cached under, and a membership
/// among the users of a host table.
pub(crate) struct Attachment {
    id: Arc<DomainId<Unit>>,
    /// Of guest translations.
    pasid: Option<u32>,
    _user: Option<Membership>,
}

/// Keeps an endpoint among the users of a domain.
struct Membership {
    users: Arc<Users>,
    endpoint: Arc<Endpoint>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.users.remove(&self.endpoint);
    }
}

impl Domain {
    /// Makes a domain with tables of a kind that devices of `unit` can be attached to.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the unit cannot do what is asked for, `ENOMEM`.
    pub(crate) fn new(
        unit: Arc<Unit>,
        kind: TableKind,
        flags: AllocFlags,
        splits: Splits,
    ) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let caps = &unit.caps;
            let splits = splits.of_domain(flags);
            let config = Config {
                splits: splits != Splits::Off,
                ..caps.shape(kind).ok_or(EOPNOTSUPP)?
            };
            // Nested translation is not offered, so neither are its parents.
            if flags.nest_parent || (flags.dirty_tracking && caps.dirty(kind).is_err()) {
                return Err(EOPNOTSUPP);
            }
            let sync_map = caps.cache_absent();
            let memory = KernelTables::new(unit.node);
            let (tables, directory) = match kind {
                TableKind::Host => {
                    let host = PageTable::new(memory, config, Gfp::KERNEL)?;
                    (Either::Left(host), None)
                }
                TableKind::Guest => {
                    let guest: PageTable<X86_64, _> = PageTable::new(memory, config, Gfp::KERNEL)?;
                    let directory = TablePages::new(SZ_4K, Gfp::KERNEL, unit.node)?;
                    let root = guest.top().phys;
                    directory.word(0)?.store(root | GCR3_VALID, Release);
                    (Either::Right(guest), Some(directory))
                }
            };
            let users = Users::new()?;
            Ok(try_pin_init!(Self {
                config,
                tables,
                directory,
                dirty: flags.dirty_tracking,
                splits,
                sync_map,
                users,
                ids <- DomainIds::new(),
            }? Error))
        })
    }

    /// The kind of the tables.
    fn kind(&self) -> TableKind {
        match self.tables {
            Either::Left(_) => TableKind::Host,
            Either::Right(_) => TableKind::Guest,
        }
    }

    /// Whether devices of a unit with `caps` can use the tables as they are, and as they may grow.
    fn suits(&self, caps: &Caps) -> bool {
        let Some(config) = caps.shape(self.kind()) else {
            return false;
        };
        config.max_levels >= self.config.max_levels
            && config.input_lg2 >= self.config.input_lg2
            && self.config.page_sizes & !config.page_sizes == 0
            && (!self.dirty || caps.dirty(self.kind()).is_ok())
            && (self.sync_map || !caps.cache_absent())
    }

    /// The device entry that leads to the tables as they are now.
    fn entry(&self, attachment: &Attachment, tracking: bool) -> Entry {
        let domain = attachment.id.id;
        match &self.directory {
            Some(directory) => Entry::guest(directory.phys(), domain),
            None => {
                let top = self.tables.top();
                Entry::host(top.phys, top.levels, tracking, domain)
            }
        }
    }
}

impl PagingDomain for Domain {
    type Driver = AmdVi;
    type Attachment = Attachment;
    type Tag = Tag<Unit, CacheTag>;
    type Tables = HostOrGuest;

    const PASIDS: bool = true;

    fn tables(&self) -> &HostOrGuest {
        &self.tables
    }

    fn splits(&self) -> Splits {
        self.splits
    }

    fn prepare(
        &self,
        endpoint: &Arc<Endpoint>,
        slot: DeviceSlot,
        _tracking: bool,
    ) -> Result<Attachment> {
        endpoint.unit.check()?;
        if !self.suits(&endpoint.unit.caps) {
            return Err(EINVAL);
        }
        let device = endpoint.pasids.as_ref().map(|pasids| pasids.device());
        if let Some(why) = compatibility::find(slot, self.kind(), device) {
            endpoint.explain_refusal(why);
            return Err(EINVAL);
        }
        if self.kind() == TableKind::Guest {
            let pasid = slot.pasid();
            let id = match &endpoint.pasids {
                Some(pasids) => {
                    pasids.prepare(pasid)?;
                    pasids.id().clone()
                }
                None => self.ids.of(&endpoint.unit)?,
            };
            return Ok(Attachment {
                id,
                pasid: Some(pasid),
                _user: None,
            });
        }

        let id = self.ids.of(&endpoint.unit)?;
        self.users.add(User {
            endpoint: endpoint.clone(),
            id: id.id,
        })?;
        Ok(Attachment {
            id,
            pasid: None,
            _user: Some(Membership {
                users: self.users.clone(),
                endpoint: endpoint.clone(),
            }),
        })
    }

    fn tags(&self, attachment: &Attachment) -> Result<KVec<Self::Tag>> {
        let tag = Tag {
            unit: attachment.id.unit.clone(),
            cached: CacheTag {
                domain: attachment.id.id,
                pasid: attachment.pasid,
            },
        };
        Ok(KVec::from_elem(tag, 1, GFP_KERNEL)?)
    }

    fn install(
        &self,
        endpoint: &Arc<Endpoint>,
        slot: DeviceSlot,
        attachment: &Attachment,
        tracking: bool,
    ) -> Result {
        // Under the lock of the users the top does not change before the entry has it.
        let replace = || {
            self.users.hold(|| {
                let entry = self.entry(attachment, tracking);
                endpoint.change(|live| writer::replace(live, entry))
            })
        };
        // The log names a unit that does not answer.
        match (slot, &endpoint.pasids, self.kind()) {
            (DeviceSlot::Rid, None, _) => replace(),
            (DeviceSlot::Rid, Some(pasids), kind) => {
                let tables = match kind {
                    TableKind::Host => Untagged::Host,
                    TableKind::Guest => Untagged::Guest(self.tables.top().phys),
                };
                pasids.set_untagged(&**endpoint, tables, &replace)
            }
            (DeviceSlot::Pasid(pasid), Some(pasids), TableKind::Guest) => {
                pasids.attach(&**endpoint, pasid, self.tables.top().phys)
            }
            // `prepare()` has refused it.
            (DeviceSlot::Pasid(_), ..) => Err(EINVAL),
        }
    }

    /// Entries with host tables have a switch (HAD). The dirty flags of guest tables are always
    /// active: the core has made the tables clean before this call, and no entry changes.
    fn set_tracking(
        &self,
        endpoint: &Arc<Endpoint>,
        _slot: DeviceSlot,
        _attachment: &Attachment,
        on: bool,
    ) -> Result {
        match self.kind() {
            TableKind::Host => endpoint.change(|live| writer::set_dirty(live, on)),
            TableKind::Guest => Ok(()),
        }
    }

    fn map(
        &self,
        claim: &mut Exclusive,
        phys: PhysAddr,
        prot: Prot,
        gfp: Gfp,
        gather: &mut IotlbGather<'_>,
    ) -> (u64, Result) {
        match &self.tables {
            Either::Left(host) => {
                let mut growing = Growing {
                    gather,
                    users: &self.users,
                    noticed: Ok(()),
                };
                // Host tables always make accesses snoop, like those of the C driver.
                let prot = prot | Prot::SNOOP;
                let (mapped, result) = host.map(claim, phys, prot, gfp, &mut growing);
                // If a unit still has the old top, the devices behind it cannot use the mapping.
                (mapped, result.and(growing.noticed))
            }
            Either::Right(guest) => guest.map(claim, phys, prot, gfp, gather),
        }
    }

    fn sync(&self, flush: Flush, tags: &Tags<Self::Tag>) -> Result {
        flush_all(tags, |tag| {
            Some(match flush {
                Flush::All => tag.cached.all(),
                Flush::Range { range, tables } => tag.cached.pages(Block::around(range), tables),
            })
        })
    }

    fn sync_map(&self, range: Range, tags: &Tags<Self::Tag>) -> Result {
        if !self.sync_map {
            return Ok(());
        }
        let block = Block::around(range);
        flush_all(tags, |tag| {
            let caches = tag.unit.caps.cache_absent();
            caches.then(|| tag.cached.pages(block, true))
        })
    }

    fn enforce_cache_coherency(&self) -> bool {
        self.kind() == TableKind::Host
    }
}
