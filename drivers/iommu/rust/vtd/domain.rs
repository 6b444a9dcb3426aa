// SPDX-License-Identifier: GPL-2.0

//! Paging domains: tables of one stage, and the units that have cached their translations.
//!
//! Each domain has its own id in every unit that it is attached to, on both stages. The
//! specification allows first-stage domains to share one, since units cache their translations by
//! PASID as well (6.2.5); but requests without PASID use PASID 0 on every device, and two domains
//! must not share a tag.
//!
//! Lock order: the lock of a domain's ids is taken under the attach lock of the registry; under it
//! only the locks of a unit are taken. Its holder may sleep.

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
            KernelWalk, //
        },
        ops::PagingDomain,
        pt::{
            fmt::{
                VtdSs,
                X86_64, //
            },
            Config,
            Exclusive,
            PageTable,
            PhysAddr,
            Prot,
            Range,
            Stable,
            Top, //
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
    sync::Arc, //
};

use crate::{
    caps::{
        Caps,
        Shape,
        Stage, //
    },
    driver::Vtd,
    endpoint::{
        self,
        Endpoint, //
    },
    iotlb::{
        Block,
        Tag as CacheTag, //
    },
    pasid::{
        entry::{
            Common,
            Entry, //
        },
        writer, //
    },
    unit::Unit, //
};

/// Bits of an output address that the tables can hold.
const OUTPUT_WIDTH: u32 = 52;

/// The tables of a domain.
enum Table {
    /// x86-64 tables.
    First(PageTable<X86_64, KernelTables>),
    /// VT-d's own tables.
    Second(PageTable<VtdSs, KernelTables>),
}

impl Table {
    /// Tables that map nothing. May sleep.
    fn new(stage: Stage, shape: Shape, coherent: bool, node: Option<u32>) -> Result<Self> {
        let config = Config {
            levels: shape.levels,
            max_levels: shape.levels,
            page_sizes: shape.page_sizes,
            input_lg2: u32::from(shape.width),
            output_lg2: OUTPUT_WIDTH,
            coherent,
        };
        let memory = KernelTables::new(node);
        Ok(match stage {
            Stage::First => Self::First(PageTable::new(memory, config, Gfp::KERNEL)?),
            Stage::Second => Self::Second(PageTable::new(memory, config, Gfp::KERNEL)?),
        })
    }
}

/// Calls the same method of the tables of either stage.
macro_rules! either {
    ($table:expr, $inner:ident => $call:expr) => {
        match $table {
            Table::First($inner) => $call,
            Table::Second($inner) => $call,
        }
    };
}

/// A paging domain.
#[pin_data]
pub(crate) struct Domain {
    table: Table,
    shape: Shape,
    /// Whether the units' walks snoop, so that the driver need not flush tables from the caches.
    coherent: bool,
    /// Whether it was allocated to track dirty pages.
    dirty: bool,
    /// Whether the driver invalidates new mappings, for units that cache absent ones or buffer
    /// writes.
    sync_map: bool,
    /// Whether every access snoops, whatever the device asks for: always, if the unit that the
    /// domain was allocated for can enforce it.
    snoop: bool,
    /// What all leaves have in common.
    leaf_flags: Prot,
    #[pin]
    ids: DomainIds<Unit>,
}

/// The state of a device in a domain: the domain's id in the unit of the device.
pub(crate) struct Attachment {
    id: Arc<DomainId<Unit>>,
    pasid: u32,
}

/// The target of a flush of the domain.
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

/// Whether a unit needs an invalidation for new mappings of `stage`.
///
/// A unit with caching mode caches absent second-stage entries, never absent first-stage ones
/// (VT-d specification, 6.1).
fn needs_sync_map(caps: &Caps, stage: Stage) -> bool {
    caps.write_buffer() || (stage == Stage::Second && caps.caching_mode())
}

/// The common bits of all leaves of a domain.
fn leaf_flags(stage: Stage, coherent: bool, snoop: bool) -> Prot {
    let mut flags = Prot::NONE;
    // In the first stage the PASID entry enforces snooping.
    if snoop && stage == Stage::Second {
        flags |= Prot::SNOOP;
    }
    // A unit whose walks are not coherent cannot set A and D of a first-stage leaf, and refuses an
    // access that needs it (reason 90h, 7.1.3). In the second stage it is not asked to (SSADE).
    if !coherent && stage == Stage::First {
        flags |= Prot::USED;
    }
    flags
}

impl Domain {
    /// Makes a domain with tables of `stage` that devices of `unit` can be attached to.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the unit cannot do what is asked for, `ENOMEM`.
    pub(crate) fn new(
        unit: Arc<Unit>,
        stage: Stage,
        flags: AllocFlags,
    ) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let caps = &unit.caps;
            let shape = caps.shape(stage).ok_or(EOPNOTSUPP)?;
            // Nested translation is not offered, so neither are its parents.
            if flags.nest_parent || (flags.dirty_tracking && caps.dirty(stage).is_err()) {
                return Err(EOPNOTSUPP);
            }
            let coherent = caps.coherent_walk();
            let sync_map = needs_sync_map(caps, stage);
            let snoop = caps.snoop_control();
            let leaf_flags = leaf_flags(stage, coherent, snoop);
            let table = Table::new(stage, shape, coherent, unit.node)?;
            Ok(try_pin_init!(Self {
                table,
                shape,
                coherent,
                dirty: flags.dirty_tracking,
                sync_map,
                snoop,
                leaf_flags,
                ids <- DomainIds::new(),
            }? Error))
        })
    }

    fn stage(&self) -> Stage {
        match self.table {
            Table::First(_) => Stage::First,
            Table::Second(_) => Stage::Second,
        }
    }

    fn top(&self) -> Top {
        either!(&self.table, table => table.top())
    }

    /// Whether devices of a unit with `caps` can use the tables as they are.
    fn suits(&self, caps: &Caps) -> bool {
        let stage = self.stage();
        let Some(shape) = caps.shape(stage) else {
            return false;
        };
        shape.levels == self.shape.levels
            && shape.width >= self.shape.width
            && self.shape.page_sizes & !shape.page_sizes == 0
            && (!self.coherent || caps.coherent_walk())
            && (!self.dirty || caps.dirty(stage).is_ok())
            && (self.sync_map || !needs_sync_map(caps, stage))
            // The bit is reserved on a unit that cannot enforce snooping.
            && (!self.snoop || caps.snoop_control())
    }

    /// The PASID entry that leads to the tables.
    fn entry(&self, attachment: &Attachment, tracking: bool) -> Entry {
        let top = self.top();
        let caps = &attachment.id.unit.caps;
        let stage = self.stage();
        let common = Common {
            domain: attachment.id.id,
            walk_snoop: self.coherent,
            // In second-stage tables every leaf enforces snooping.
            page_snoop: stage == Stage::First && self.snoop,
        };
        match stage {
            Stage::First => Entry::first_stage(top.phys, top.levels, caps.widest(), common),
            Stage::Second => Entry::second_stage(top.phys, top.levels, tracking, common),
        }
    }
}

impl PagingDomain for Domain {
    type Driver = Vtd;
    type Attachment = Attachment;
    type Tag = Tag;

    fn geometry(&self) -> Geometry {
        Geometry {
            first: 0,
            last: either!(&self.table, table => table.aperture_last()),
            page_sizes: either!(&self.table, table => table.pgsize_bitmap()),
        }
    }

    fn prepare(&self, endpoint: &Arc<Endpoint>, slot: Slot, _tracking: bool) -> Result<Attachment> {
        if endpoint.needs_cache || !self.suits(&endpoint.unit.caps) {
            return Err(EINVAL);
        }
        if endpoint.unit.is_dead() {
            return Err(EIO);
        }
        let pasid = endpoint::pasid_of(slot);
        endpoint.table.prepare(pasid)?;
        Ok(Attachment {
            id: self.ids.of(&endpoint.unit)?,
            pasid,
        })
    }

    fn tags(&self, attachment: &Attachment) -> Result<KVec<Tag>> {
        let mut tags = KVec::with_capacity(1, GFP_KERNEL)?;
        let pasid = match self.stage() {
            Stage::First => attachment.pasid,
            // Second-stage translations are cached by domain alone: one flush for all PASIDs.
            Stage::Second => 0,
        };
        tags.push(
            Tag {
                unit: attachment.id.unit.clone(),
                cached: CacheTag {
                    stage: self.stage(),
                    domain: attachment.id.id,
                    pasid,
                },
            },
            GFP_KERNEL,
        )?;
        Ok(tags)
    }

    fn install(
        &self,
        endpoint: &Arc<Endpoint>,
        _slot: Slot,
        attachment: &Attachment,
        tracking: bool,
    ) -> Result {
        let entry = self.entry(attachment, tracking);
        endpoint
            .change(attachment.pasid, |live| writer::replace(live, entry))
            .inspect_err(|error| {
                endpoint.report("is blocked: the unit did not take its new domain", *error);
            })
    }

    /// Second-stage entries have a switch (SSADE). First-stage dirty flags are always active: the
    /// core has made the tables clean before this call, and no entry changes.
    fn set_tracking(
        &self,
        endpoint: &Arc<Endpoint>,
        _slot: Slot,
        attachment: &Attachment,
        on: bool,
    ) -> Result {
        match self.stage() {
            Stage::First => Ok(()),
            Stage::Second => endpoint.change(attachment.pasid, |live| writer::set_dirty(live, on)),
        }
    }

    fn map(
        &self,
        claim: &mut Exclusive,
        phys: PhysAddr,
        mut prot: Prot,
        gfp: Gfp,
        gather: &mut IotlbGather<'_>,
    ) -> (u64, Result) {
        prot |= self.leaf_flags;
        either!(&self.table, table => table.map(claim, phys, prot, gfp, gather))
    }

    fn unmap(&self, claim: &mut Exclusive, gather: &mut IotlbGather<'_>) -> u64 {
        either!(&self.table, table => table.unmap(claim, gather))
    }

    fn iova_to_phys(&self, claim: &Stable) -> Option<PhysAddr> {
        either!(&self.table, table => table.iova_to_phys(claim))
    }

    fn sync(&self, flush: Flush, tags: &Tags<Tag>) -> Result {
        tags.flush_each(|tag| {
            let caps = &tag.unit.caps;
            let descriptor = match flush {
                Flush::All => tag.cached.all(caps),
                Flush::Range { range, tables } => {
                    tag.cached
                        .pages(caps, Block::around(range.first(), range.last()), !tables)
                }
            };
            tag.unit.submit(&[descriptor])
        })
    }

    fn sync_map(&self, range: Range, tags: &Tags<Tag>) -> Result {
        if !self.sync_map {
            return Ok(());
        }
        tags.flush_each(|tag| {
            let caps = &tag.unit.caps;
            if caps.write_buffer() {
                tag.unit.flush_write_buffer()?;
            }
            if !(caps.caching_mode() && tag.cached.stage == Stage::Second) {
                return Ok(());
            }
            let block = Block::around(range.first(), range.last());
            tag.unit.submit(&[tag.cached.pages(caps, block, false)])
        })
    }

    /// Changes nothing: the domain enforces snooping from the first mapping and the first
    /// attachment on. So all existing mappings snoop, also for a container of VFIO, which asks
    /// after it has attached.
    fn enforce_cache_coherency(&self) -> bool {
        self.snoop
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

#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
#[kunit_tests(rust_vtd_domain)]
mod tests {
    use super::*;

    #[test]
    fn snooping_holds_from_the_first_mapping_on() {
        for coherent in [false, true] {
            assert!(leaf_flags(Stage::Second, coherent, true).contains(Prot::SNOOP));
            assert!(!leaf_flags(Stage::Second, coherent, false).contains(Prot::SNOOP));
            // Here it is a bit of the PASID entry, from the first attachment on.
            assert!(!leaf_flags(Stage::First, coherent, true).contains(Prot::SNOOP));
        }
    }

    #[test]
    fn a_unit_that_does_not_snoop_sets_no_flags() {
        assert!(leaf_flags(Stage::First, false, false).contains(Prot::USED));
        // Dirty tracking reads these.
        assert_eq!(leaf_flags(Stage::First, true, false), Prot::NONE);
        assert_eq!(leaf_flags(Stage::Second, true, false), Prot::NONE);
        // Here the unit is not asked to.
        assert_eq!(leaf_flags(Stage::Second, false, false), Prot::NONE);
    }
}
