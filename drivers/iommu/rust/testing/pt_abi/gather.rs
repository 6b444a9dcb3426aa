// SPDX-License-Identifier: GPL-2.0

//! Gathers what an operation leaves to flush, as C does; and changes a top.

use kernel::{
    bindings,
    iommu::{
        gather::IotlbGather,
        pt::{
            DetachedTable,
            Gather,
            NewTop,
            Range, //
        }, //
    }, //
};

use super::{
    format::{
        CFormat,
        Features, //
    },
    memory::DomainTables,
    table::Table, //
};

/// Puts a table on the free list of `gather`.
fn queue(gather: &IotlbGather<'_>, table: DetachedTable<DomainTables>) {
    // SAFETY:
    // - The list of a gather is initialised, and only its borrower uses it.
    // - `DomainTables` gets its tables from the allocator of table pages; a detached one has no
    //   other owner and is on no list.
    unsafe {
        bindings::iommu_pages_list_add(
            &raw mut (*gather.as_ptr()).freelist,
            table.into_raw().as_ptr().cast(),
        );
    }
}

/// Adds `range` to what `gather` holds. If there is a gap between the two, and the table must flush
/// only what was changed, this flushes `gather` first.
fn add<C: CFormat>(table: &Table<'_, C>, gather: &mut IotlbGather<'_>, range: Range) {
    if table.features().has(Features::FLUSH_RANGE_NO_GAPS) && is_disjoint(gather, &range) {
        sync(table, gather);
    }
    gather.add(range);
}

/// `iommu_iotlb_gather_is_disjoint()`.
fn is_disjoint(gather: &IotlbGather<'_>, range: &Range) -> bool {
    // SAFETY: A gather is valid, and only its borrower uses it.
    // CAST: `unsigned long` has 64 bits here.
    let (start, end) = unsafe {
        let raw = gather.as_ptr();

        ((*raw).start as u64, (*raw).end as u64)
    };

    end != 0 && (range.last().saturating_add(1) < start || range.first() > end.saturating_add(1))
}

/// Has the driver flush, and free the tables that wait for it. The gather is empty then.
fn sync<C: CFormat>(table: &Table<'_, C>, gather: &mut IotlbGather<'_>) {
    let raw = gather.as_ptr();

    // SAFETY: A gather is valid, and only its borrower uses it; its list has tables of this page
    // table only.
    unsafe { table.memory().stop_incoherent(&raw mut (*raw).freelist) }
    // SAFETY: The domain is that of the table, and the gather is initialised.
    unsafe { bindings::iommu_iotlb_sync(table.domain(), raw) }
}

/// What an unmap leaves: tables.
///
/// The range is known only after the unmap. A flush before that would free tables that were
/// detached and not flushed, so they wait on a separate list.
pub(super) struct UnmapGather<'g> {
    local: IotlbGather<'g>,
}

impl<'g> UnmapGather<'g> {
    /// Collects in `local`, which is empty.
    pub(super) fn new(local: IotlbGather<'g>) -> Self {
        Self { local }
    }

    /// Hands the tables over to the caller's `gather`, with the range that was unmapped, if any.
    pub(super) fn finish<C: CFormat>(
        self,
        table: &Table<'_, C>,
        unmapped: Option<Range>,
        gather: &mut IotlbGather<'_>,
    ) {
        let (from, to) = (self.local.as_ptr(), gather.as_ptr());

        // A flush of everything follows where one is queued: no range is needed.
        if let (Some(range), false) = (unmapped, gather.is_queued()) {
            add(table, gather, range);
        }
        if self.local.has_tables() {
            // SAFETY: Both gathers are initialised, only this function uses them, and the list has
            // tables of this page table only. The emptied list is not used again.
            unsafe {
                let list = &raw mut (*from).freelist;

                table.memory().stop_incoherent(list);
                bindings::iommu_pages_list_splice(list, &raw mut (*to).freelist);
            }
        }
        if table.features().has(Features::DETAILED_GATHER) {
            self.levels(table, unmapped.is_some(), to);
        }
    }

    /// Records which levels have changed: all that may have.
    ///
    /// Kernels for debugging have this for every format; no driver of a format here asks for it.
    fn levels<C: CFormat>(
        &self,
        table: &Table<'_, C>,
        any: bool,
        to: *mut bindings::iommu_iotlb_gather,
    ) {
        // CAST: A level has three bits, and there are six.
        let all = (1u32 << (table.top_level() + 1)).wrapping_sub(1) as u8;

        // SAFETY: The gather is the one that `finish()` was given.
        let pt = unsafe { &mut (*to).__bindgen_anon_1.pt };
        if any {
            pt.leaf_levels_bitmap |= all;
        }
        if self.local.has_tables() {
            pt.table_levels_bitmap |= all & !1;
        }
    }
}

impl Gather<DomainTables> for UnmapGather<'_> {
    /// `finish()` gets the exact range.
    #[inline]
    fn add_range(&mut self, _range: Range) {}

    #[inline]
    fn queue_free(&mut self, table: DetachedTable<DomainTables>) {
        queue(&self.local, table);
    }
}

/// What a map leaves, where leaves took the place of tables.
pub(super) struct MapGather<'g, 't, C: CFormat> {
    local: IotlbGather<'g>,
    table: &'t Table<'t, C>,
}

impl<'g, 't, C: CFormat> MapGather<'g, 't, C> {
    /// Collects in `local`, which is empty.
    pub(super) fn new(local: IotlbGather<'g>, table: &'t Table<'t, C>) -> Self {
        Self { local, table }
    }

    /// Flushes, if the hardware may have cached tables that were replaced.
    pub(super) fn finish(mut self) {
        if self.local.has_tables() {
            sync(self.table, &mut self.local);
        }
    }
}

impl<C: CFormat> Gather<DomainTables> for MapGather<'_, '_, C> {
    fn add_range(&mut self, range: Range) {
        add(self.table, &mut self.local, range);
    }

    fn queue_free(&mut self, table: DetachedTable<DomainTables>) {
        queue(&self.local, table);
    }

    /// The hardware first, then the tree, under the lock that attaching takes.
    fn change_top(&mut self, mut new: NewTop<'_>) {
        let iommu = self.table.iommu();
        let Some((get_top_lock, change_top)) = self
            .table
            .driver_ops()
            .and_then(|ops| Some((ops.get_top_lock?, ops.change_top?)))
        else {
            return;
        };

        // SAFETY: The driver's functions take the struct that it embeds, which is valid; the lock
        // is initialised, and lives as long. When `change_top()` of a driver returns, its hardware
        // has the new top: C publishes it then as well.
        unsafe {
            let lock = get_top_lock(iommu);

            bindings::spin_lock_irq_disable(lock);
            if new.is_current() {
                let top = new.top();

                // A top has at least one level.
                change_top(iommu, top.phys, u32::from(top.levels).saturating_sub(1));
                new.publish();
            }
            bindings::spin_unlock_irq_enable(lock);
        }
    }
}
