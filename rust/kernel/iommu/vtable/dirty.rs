// SPDX-License-Identifier: GPL-2.0

//! `struct iommu_dirty_ops` for a [`PagingDomain`]. Only domains that were allocated for it have
//! them.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

use kernel::{
    bindings,
    error::from_result,
    ffi::{
        c_int,
        c_ulong, //
    },
    prelude::*, //
};

use super::{
    super::{
        dirty::{
            query::{
                Query,
                Tally, //
            },
            DirtyBitmap, //
        },
        domain::Domain,
        ops::PagingDomain,
        pt::{
            DirtySink,
            Range, //
        },
        registry::Registered,
        tables::Tables,
        trace, //
    },
    lookup::{
        inner,
        range, //
    }, //
};

/// The C table of a kind of paging domains.
pub(in super::super) struct DirtyTable<P: PagingDomain>(PhantomData<P>);

impl<P: PagingDomain> DirtyTable<P>
where
    P::Driver: Registered,
{
    const TABLE: bindings::iommu_dirty_ops = bindings::iommu_dirty_ops {
        set_dirty_tracking: Some(Self::set_dirty_tracking_callback),
        read_and_clear_dirty: Some(Self::read_and_clear_dirty_callback),
    };

    /// The table.
    pub(super) fn table() -> &'static bindings::iommu_dirty_ops {
        &Self::TABLE
    }

    /// `set_dirty_tracking`: switches tracking of all devices of the domain, or of none.
    ///
    /// The core has made the domain clean before it switches on. Large leaves are split before that
    /// if the driver is to, and what was split is joined after tracking has ended.
    ///
    /// # Safety
    ///
    /// `domain` is a live domain of type `P`.
    unsafe extern "C" fn set_dirty_tracking_callback(
        domain: *mut bindings::iommu_domain,
        enabled: bool,
    ) -> c_int {
        from_result(|| {
            let inner = inner::<P::Driver>().ok_or(ENODEV)?;
            // SAFETY: `domain` is a live domain of type `P` (contract).
            let domain = unsafe { Domain::<P>::from_raw(domain) };
            let _switching = domain.lock_switching();
            if enabled {
                domain.split();
            }
            let switched = {
                let _state = inner.state.lock();
                domain.attachments.set_tracking(&domain.data, enabled)
            };
            if !enabled || switched.is_err() {
                domain.join();
            }
            domain.counters.switches.add(u64::from(switched.is_ok()));
            trace::tracking(domain.number, enabled, &switched);
            switched.map(|()| 0)
        })
    }

    /// `read_and_clear_dirty`: records the dirty pages of a range.
    ///
    /// # Safety
    ///
    /// `domain` is a live domain of type `P`. `dirty` is null, or a valid dirty bitmap. Its
    /// `bitmap` is null, or valid and covers the range; its `gather` is null or initialised. The
    /// caller has all three for itself.
    unsafe extern "C" fn read_and_clear_dirty_callback(
        domain: *mut bindings::iommu_domain,
        iova: c_ulong,
        size: usize,
        flags: c_ulong,
        dirty: *mut bindings::iommu_dirty_bitmap,
    ) -> c_int {
        // CAST: One low bit.
        const NO_CLEAR: c_ulong = bindings::IOMMU_DIRTY_NO_CLEAR as c_ulong;

        from_result(|| {
            if flags & !NO_CLEAR != 0 {
                return Err(EOPNOTSUPP);
            }
            let range = range(iova, size, 1).ok_or(EINVAL)?;
            let dirty = NonNull::new(dirty).ok_or(EINVAL)?;
            // SAFETY: `domain` is a live domain of type `P` (contract).
            let domain = unsafe { Domain::<P>::from_raw(domain) };
            let clear = flags & NO_CLEAR == 0;
            let query = Query::begin(domain.number, range, clear);
            // SAFETY: `dirty` is not null, so it is a valid dirty bitmap for the range (contract).
            let result = unsafe { Self::harvest(domain, range, clear, dirty, &query.tally) };
            query.end(&domain.counters, &result);
            result.map(|()| 0)
        })
    }

    /// Records the dirty pages of a range, and makes them clean if `clear`.
    ///
    /// Where a flush has failed, all writable pages are recorded, none is made clean, and the range
    /// is flushed again. The records ascend over all parts, since the core's bitmap is slow in
    /// descending order.
    ///
    /// # Safety
    ///
    /// `raw` is a dirty bitmap as [`Self::read_and_clear_dirty_callback`] asks for it.
    pub(in super::super) unsafe fn harvest(
        domain: &Domain<P>,
        range: Range,
        clear: bool,
        raw: NonNull<bindings::iommu_dirty_bitmap>,
        tally: &Tally,
    ) -> Result {
        let can_split = domain.data.tables().can_split();
        let _harvesting = domain.lock_harvesting();
        let harvest = |part: Range, is_marked: bool| {
            // SAFETY: `raw` is valid, its bitmap covers the range and with it `part`, and the
            // caller has it for itself (contract). The object of the last part is gone.
            let mut dirty = unsafe { DirtyBitmap::from_raw(raw, part) }.with_tally(tally);
            // iommufd holds its lock of the address space for reading, which keeps out its own maps
            // and unmaps, but not the unmaps of a dma-buf that is revoked (`iopt_revoke_notify()`).
            let Some(walk) = domain.walk(part) else {
                // There are thousands of harvests at the same time. Report too much, so that no
                // page is lost.
                dirty.record(part);
                return Ok(());
            };
            // Without a bitmap the core clears before tracking begins, and user space copies
            // everything after that. What is split while tracking is off would stay so.
            let splits = clear
                && can_split
                && dirty.records()
                && dirty.flushes()
                && domain.attachments.is_tracking();
            let harvested = if is_marked {
                domain.data.report_writable(&walk, &mut dirty)
            } else if splits {
                domain.data.read_and_split_dirty(&walk, &mut dirty)
            } else {
                domain.data.read_and_clear_dirty(&walk, clear, &mut dirty)
            };
            if harvested == Err(EINTR) {
                // The task is killed. What was not reported stays dirty.
                return harvested;
            }
            if harvested.is_err() {
                // iommufd ignores the error of a query. Report too much, so that no page is lost.
                dirty.record(part);
                return harvested;
            }
            if is_marked && clear {
                // The flush that failed may have been that of a leaf that was split.
                if can_split {
                    dirty.split(part);
                } else {
                    dirty.cleared(part);
                }
            }
            Ok(())
        };

        if domain.attachments.is_lost() {
            return harvest(range, true);
        }
        let Some(marks) = domain.unflushed.marks(range) else {
            return harvest(range, false);
        };
        for (part, is_marked) in marks.cut(range) {
            harvest(part, is_marked)?;
        }
        // No flush follows a query that leaves pages dirty.
        if clear {
            domain.unflushed.reported(&marks);
        }
        Ok(())
    }
}
