// SPDX-License-Identifier: GPL-2.0

//! Paging domains: tables of one kind, and the units that have cached their translations.
//!
//! Each domain has its own id in every unit that it is attached to. Guest tables hang below a
//! GCR3 table with one entry, that of PASID 0, which requests without PASID use. Devices that have
//! PASIDs have their own GCR3 table and their own id instead: see [`crate::pasids`].
//!
//! Lock order: the lock of a domain's ids is taken under the attach lock of the registry, and may
//! be slept under. The lock of its [`users`] has none of the domain's above or below it.

mod flush;
mod users;

use kernel::{
    iommu::{
        dirty::DirtyBitmap,
        domain_id::{
            DomainId,
            DomainIds, //
        },
        gather::IotlbGather,
        hw::pages::{
            Gfp,
            KernelTables,
            KernelWalk,
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
            Range,
            Stable, //
        },
        tags::Tags,
        values::{
            AllocFlags,
            Flush,
            Geometry,
            Slot, //
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
        Shape,
        Tables, //
    },
    driver::AmdVi,
    dte::{
        entry::Entry,
        writer, //
    },
    endpoint::Endpoint,
    iotlb::{
        Block,
        Tag as CacheTag, //
    },
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

/// Bits of an output address that the tables can hold.
const OUTPUT_WIDTH: u32 = 52;

/// Flag of an entry of a GCR3 table: it is present (2.2.6.3).
const GCR3_VALID: u64 = 1 << 0;

/// The tables of a domain.
enum Table {
    /// AMD's own tables.
    Host(PageTable<AmdV1, KernelTables>),
    /// x86-64 tables, and the GCR3 table that names them.
    Guest(PageTable<X86_64, KernelTables>, TablePages),
}

impl Table {
    /// Tables that map nothing, near the NUMA node `node`. May sleep.
    fn new(tables: Tables, shape: Shape, node: Option<u32>) -> Result<Self> {
        let config = Config {
            levels: shape.levels,
            max_levels: shape.max_levels,
            page_sizes: shape.page_sizes,
            input_lg2: u32::from(shape.width),
            output_lg2: OUTPUT_WIDTH,
            coherent: true,
        };
        let memory = KernelTables::new(node);
        Ok(match tables {
            Tables::Host => Self::Host(PageTable::new(memory, config, Gfp::KERNEL)?),
            Tables::Guest => {
                let table: PageTable<X86_64, _> = PageTable::new(memory, config, Gfp::KERNEL)?;
                let directory = TablePages::new(SZ_4K, Gfp::KERNEL, node)?;
                directory
                    .word(0)?
                    .store(table.top().phys | GCR3_VALID, Release);
                Self::Guest(table, directory)
            }
        })
    }
}

/// Calls the same method of the tables of either kind.
macro_rules! either {
    ($table:expr, $inner:ident => $call:expr) => {
        match $table {
            Table::Host($inner) => $call,
            Table::Guest($inner, _) => $call,
        }
    };
}

/// A paging domain.
#[pin_data]
pub(crate) struct Domain {
    table: Table,
    shape: Shape,
    /// Whether it was allocated to track dirty pages.
    dirty: bool,
    /// Whether new mappings are made known to units that cache absent ones.
    sync_map: bool,
    users: Arc<Users>,
    #[pin]
    ids: DomainIds<Unit>,
}

/// What a device in a domain holds: the id that its translations are cached under, and of a host
/// table a place among its users.
pub(crate) struct Attachment {
    id: Arc<DomainId<Unit>>,
    /// Of guest translations.
    pasid: Option<u32>,
    _place: Option<Place>,
}

/// A place among the users of a domain.
struct Place {
    users: Arc<Users>,
    endpoint: Arc<Endpoint>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.users.remove(&self.endpoint);
    }
}

/// What a flush of the domain addresses.
#[derive(Clone)]
pub(crate) struct Tag {
    unit: Arc<Unit>,
    cached: CacheTag,
}

impl PartialEq for Tag {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.unit, &other.unit) && self.cached == other.cached
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
        tables: Tables,
        flags: AllocFlags,
    ) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let caps = &unit.caps;
            let shape = caps.shape(tables).ok_or(EOPNOTSUPP)?;
            // Nested translation is not offered, so neither are its parents.
            if flags.nest_parent || (flags.dirty_tracking && caps.dirty(tables).is_err()) {
                return Err(EOPNOTSUPP);
            }
            let sync_map = caps.cache_absent();
            let table = Table::new(tables, shape, unit.node)?;
            let users = Users::new()?;
            Ok(try_pin_init!(Self {
                table,
                shape,
                dirty: flags.dirty_tracking,
                sync_map,
                users,
                ids <- DomainIds::new(),
            }? Error))
        })
    }

    fn tables(&self) -> Tables {
        match self.table {
            Table::Host(_) => Tables::Host,
            Table::Guest(..) => Tables::Guest,
        }
    }

    /// Whether devices of a unit with `caps` can use the tables as they are, and as they may grow.
    fn suits(&self, caps: &Caps) -> bool {
        let tables = self.tables();
        let Some(shape) = caps.shape(tables) else {
            return false;
        };
        shape.max_levels >= self.shape.max_levels
            && shape.width >= self.shape.width
            && self.shape.page_sizes & !shape.page_sizes == 0
            && (!self.dirty || caps.dirty(tables).is_ok())
            && (self.sync_map || !caps.cache_absent())
    }

    /// The device entry that leads to the tables as they are now.
    fn entry(&self, attachment: &Attachment, tracking: bool) -> Entry {
        let domain = attachment.id.id;
        match &self.table {
            Table::Host(table) => {
                let top = table.top();
                Entry::host(top.phys, top.levels, tracking, domain)
            }
            Table::Guest(_, directory) => Entry::guest(directory.phys(), domain),
        }
    }
}

impl PagingDomain for Domain {
    type Driver = AmdVi;
    type Attachment = Attachment;
    type Tag = Tag;

    const PASIDS: bool = true;

    fn geometry(&self) -> Geometry {
        Geometry {
            first: 0,
            last: either!(&self.table, table => table.aperture_last()),
            page_sizes: either!(&self.table, table => table.pgsize_bitmap()),
        }
    }

    fn prepare(&self, endpoint: &Arc<Endpoint>, slot: Slot, _tracking: bool) -> Result<Attachment> {
        endpoint.unit.check()?;
        if !self.suits(&endpoint.unit.caps) {
            return Err(EINVAL);
        }
        let device = endpoint.pasids.as_ref().map(|pasids| pasids.device());
        if let Some(why) = compatibility::find(slot, self.tables(), device) {
            endpoint.explain_refusal(why);
            return Err(EINVAL);
        }
        if self.tables() == Tables::Guest {
            let pasid = match slot {
                Slot::Rid => 0,
                Slot::Pasid(pasid) => pasid,
            };
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
                _place: None,
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
            _place: Some(Place {
                users: self.users.clone(),
                endpoint: endpoint.clone(),
            }),
        })
    }

    fn tags(&self, attachment: &Attachment) -> Result<KVec<Tag>> {
        let mut tags = KVec::with_capacity(1, GFP_KERNEL)?;
        tags.push(
            Tag {
                unit: attachment.id.unit.clone(),
                cached: CacheTag {
                    domain: attachment.id.id,
                    pasid: attachment.pasid,
                },
            },
            GFP_KERNEL,
        )?;
        Ok(tags)
    }

    fn install(
        &self,
        endpoint: &Arc<Endpoint>,
        slot: Slot,
        attachment: &Attachment,
        tracking: bool,
    ) -> Result {
        // No CPU changes the top between the look at it and the entry.
        let replace = || {
            self.users.hold(|| {
                let entry = self.entry(attachment, tracking);
                endpoint.change(|live| writer::replace(live, entry))
            })
        };
        // A unit that does not answer has been reported.
        match (slot, &endpoint.pasids, &self.table) {
            (Slot::Rid, Some(pasids), Table::Guest(table, _)) => {
                let tables = Untagged::Guest(table.top().phys);
                pasids.set_untagged(endpoint, tables, &replace)
            }
            (Slot::Rid, Some(pasids), Table::Host(_)) => {
                pasids.set_untagged(endpoint, Untagged::Host, &replace)
            }
            (Slot::Rid, None, _) => replace(),
            (Slot::Pasid(pasid), Some(pasids), Table::Guest(table, _)) => {
                pasids.attach(endpoint, pasid, table.top().phys)
            }
            // Refused when it was prepared.
            (Slot::Pasid(_), ..) => Err(EINVAL),
        }
    }

    /// Entries with host tables have a switch (HAD). The dirty flags of guest tables are always
    /// live: the core has made the tables clean before this call, and there is nothing to change.
    fn set_tracking(
        &self,
        endpoint: &Arc<Endpoint>,
        _slot: Slot,
        _attachment: &Attachment,
        on: bool,
    ) -> Result {
        match self.tables() {
            Tables::Host => endpoint.change(|live| writer::set_dirty(live, on)),
            Tables::Guest => Ok(()),
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
        match &self.table {
            Table::Host(table) => {
                let mut growing = Growing {
                    gather,
                    users: &self.users,
                    noticed: Ok(()),
                };
                // Host tables always make accesses snoop, like those of the C driver.
                let prot = prot | Prot::SNOOP;
                let (mapped, result) = table.map(claim, phys, prot, gfp, &mut growing);
                // What a unit has not noticed is not mapped for the devices behind it.
                (mapped, result.and(growing.noticed))
            }
            Table::Guest(table, _) => table.map(claim, phys, prot, gfp, gather),
        }
    }

    fn unmap(&self, claim: &mut Exclusive, gather: &mut IotlbGather<'_>) -> u64 {
        either!(&self.table, table => table.unmap(claim, gather))
    }

    fn iova_to_phys(&self, claim: &Stable) -> Option<PhysAddr> {
        either!(&self.table, table => table.iova_to_phys(claim))
    }

    fn sync(&self, flush: Flush, tags: &Tags<Tag>) -> Result {
        flush_all(tags, |tag| {
            Some(match flush {
                Flush::All => tag.cached.all(),
                Flush::Range { range, tables } => tag
                    .cached
                    .pages(Block::around(range.first(), range.last()), tables),
            })
        })
    }

    fn sync_map(&self, range: Range, tags: &Tags<Tag>) -> Result {
        if !self.sync_map {
            return Ok(());
        }
        let block = Block::around(range.first(), range.last());
        flush_all(tags, |tag| {
            let caches = tag.unit.caps.cache_absent();
            caches.then(|| tag.cached.pages(block, true))
        })
    }

    fn enforce_cache_coherency(&self) -> bool {
        self.tables() == Tables::Host
    }

    fn read_and_clear_dirty(
        &self,
        walk: &KernelWalk<'_>,
        clear: bool,
        dirty: &mut DirtyBitmap<'_>,
    ) -> Result {
        either!(&self.table, table => table.read_and_clear_dirty(walk, clear, dirty))
    }

    fn report_writable(&self, walk: &KernelWalk<'_>, dirty: &mut DirtyBitmap<'_>) -> Result {
        either!(&self.table, table => table.report_writable(walk, dirty))
    }
}
