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
        block::Block,
        domain_id::{
            DomainId,
            DomainIds,
            Tag, //
        },
        gather::IotlbGather,
        hw::pages::{
            Gfp,
            KernelTables, //
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
    sync::Arc, //
};

use crate::{
    caps::{
        Caps,
        Stage, //
    },
    endpoint::Endpoint,
    iotlb::Tag as CacheTag,
    machine::Vtd,
    pasid::{
        entry::{
            Common,
            Entry, //
        },
        writer, //
    },
    unit::Unit, //
};

/// x86-64 tables of the first stage, or VT-d's own of the second.
type StageTables = Either<PageTable<X86_64, KernelTables>, PageTable<VtdSs, KernelTables>>;

/// A paging domain.
#[pin_data]
pub(crate) struct Domain {
    config: Config,
    tables: StageTables,
    /// Whether it was allocated to track dirty pages.
    dirty: bool,
    /// How it splits large leaves while it tracks.
    splits: Splits,
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
        splits: Splits,
    ) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let caps = &unit.caps;
            let splits = splits.of_domain(flags);
            let config = Config {
                splits: splits != Splits::Off,
                ..caps.shape(stage).ok_or(EOPNOTSUPP)?
            };
            // Nested translation is not offered, so neither are its parents.
            if flags.nest_parent || (flags.dirty_tracking && caps.dirty(stage).is_err()) {
                return Err(EOPNOTSUPP);
            }
            let sync_map = needs_sync_map(caps, stage);
            let snoop = caps.snoop_control();
            let leaf_flags = leaf_flags(stage, config.coherent, snoop);
            let memory = KernelTables::new(unit.node);
            let tables = match stage {
                Stage::First => Either::Left(PageTable::new(memory, config, Gfp::KERNEL)?),
                Stage::Second => Either::Right(PageTable::new(memory, config, Gfp::KERNEL)?),
            };
            Ok(try_pin_init!(Self {
                config,
                tables,
                dirty: flags.dirty_tracking,
                splits,
                sync_map,
                snoop,
                leaf_flags,
                ids <- DomainIds::new(),
            }? Error))
        })
    }

    /// The stage that the tables are of.
    fn stage(&self) -> Stage {
        match self.tables {
            Either::Left(_) => Stage::First,
            Either::Right(_) => Stage::Second,
        }
    }

    /// Whether devices of a unit with `caps` can use the tables as they are.
    fn suits(&self, caps: &Caps) -> bool {
        let Some(config) = caps.shape(self.stage()) else {
            return false;
        };
        config.levels == self.config.levels
            && config.input_lg2 >= self.config.input_lg2
            && self.config.page_sizes & !config.page_sizes == 0
            && (!self.config.coherent || config.coherent)
            && (!self.dirty || caps.dirty(self.stage()).is_ok())
            && (self.sync_map || !needs_sync_map(caps, self.stage()))
            // The bit is reserved on a unit that cannot enforce snooping.
            && (!self.snoop || caps.snoop_control())
    }

    /// The PASID entry that leads to the tables.
    fn entry(&self, attachment: &Attachment, tracking: bool) -> Entry {
        let top = self.tables.top();
        let caps = &attachment.id.unit.caps;
        let common = Common {
            domain: attachment.id.id,
            walk_snoop: self.config.coherent,
            // In second-stage tables every leaf enforces snooping.
            page_snoop: self.stage() == Stage::First && self.snoop,
        };
        match self.stage() {
            Stage::First => Entry::first_stage(top.phys, top.levels, caps.widest(), common),
            Stage::Second => Entry::second_stage(top.phys, top.levels, tracking, common),
        }
    }
}

impl PagingDomain for Domain {
    type Driver = Vtd;
    type Attachment = Attachment;
    type Tag = Tag<Unit, CacheTag>;
    type Tables = StageTables;

    fn tables(&self) -> &StageTables {
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
        if endpoint.needs_cache || !self.suits(&endpoint.unit.caps) {
            return Err(EINVAL);
        }
        if endpoint.unit.is_dead() {
            return Err(EIO);
        }
        let pasid = slot.pasid();
        endpoint.table.prepare(pasid)?;
        Ok(Attachment {
            id: self.ids.of(&endpoint.unit)?,
            pasid,
        })
    }

    fn tags(&self, attachment: &Attachment) -> Result<KVec<Self::Tag>> {
        let pasid = match self.stage() {
            Stage::First => attachment.pasid,
            // Second-stage translations are cached by domain alone: one flush for all PASIDs.
            Stage::Second => 0,
        };
        let tag = Tag {
            unit: attachment.id.unit.clone(),
            cached: CacheTag {
                stage: self.stage(),
                domain: attachment.id.id,
                pasid,
            },
        };
        Ok(KVec::from_elem(tag, 1, GFP_KERNEL)?)
    }

    fn install(
        &self,
        endpoint: &Arc<Endpoint>,
        _slot: DeviceSlot,
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
        _slot: DeviceSlot,
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
        self.tables.map(claim, phys, prot, gfp, gather)
    }

    fn sync(&self, flush: Flush, tags: &Tags<Self::Tag>) -> Result {
        tags.flush_each(|tag| {
            let caps = &tag.unit.caps;
            let descriptor = match flush {
                Flush::All => tag.cached.all(caps),
                Flush::Range { range, tables } => {
                    tag.cached.pages(caps, Block::around(range), !tables)
                }
            };
            tag.unit.submit(&[descriptor])
        })
    }

    fn sync_map(&self, range: Range, tags: &Tags<Self::Tag>) -> Result {
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
            let block = Block::around(range);
            tag.unit.submit(&[tag.cached.pages(caps, block, false)])
        })
    }

    /// Changes nothing: the domain enforces snooping from the first mapping and the first
    /// attachment on. So all existing mappings snoop, also for a container of VFIO, which asks
    /// after it has attached.
    fn enforce_cache_coherency(&self) -> bool {
        self.snoop
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
