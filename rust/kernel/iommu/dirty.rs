// SPDX-License-Identifier: GPL-2.0

//! The dirty bitmap: where a query records dirty pages.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

use kernel::bindings;

use super::{
    ffi,
    gather::IotlbGather,
    pt::{
        DirtySink,
        Range, //
    }, //
};

pub(super) mod query;

use query::Tally;

/// A `struct iommu_dirty_bitmap` of the core, for one query.
///
/// - The bitmap may be absent: the core enables tracking by a query that only clears.
/// - Bits are set in the user's memory, a window of which is pinned at a time. Setting one may
///   sleep, and a step back to lower addresses pins a window again: so the walk reports ascending
///   runs.
/// - A query that does not clear has nothing to flush. The core passes a gather nevertheless, and
///   discards it.
///
/// Only pages of the query are recorded, whatever the walk reports.
///
/// # Invariants
///
/// - `raw` points to a valid dirty bitmap that this object has for itself during `'a`.
/// - Its `bitmap` is null, or valid and covers `query`. Its `gather` is null or initialised. This
///   object has both for itself too.
pub struct DirtyBitmap<'a> {
    raw: NonNull<bindings::iommu_dirty_bitmap>,
    query: Range,
    tally: Option<&'a Tally>,
    lifetime: PhantomData<&'a mut bindings::iommu_dirty_bitmap>,
}

impl<'a> DirtyBitmap<'a> {
    /// Borrows what the core passed to `read_and_clear_dirty`.
    ///
    /// # Safety
    ///
    /// `raw` points to a valid dirty bitmap. Its `bitmap` is null, or valid and covers `query`; its
    /// `gather` is null or initialised. The caller has all three for itself during `'a`.
    #[inline]
    pub unsafe fn from_raw(raw: NonNull<bindings::iommu_dirty_bitmap>, query: Range) -> Self {
        // INVARIANT: `raw` and what it points to are as the type asks, and the caller has them for
        // itself during `'a` (contract).
        Self {
            raw,
            query,
            tally: None,
            lifetime: PhantomData,
        }
    }

    /// Lets `tally` take note of all that is reported.
    pub(super) fn with_tally(self, tally: &'a Tally) -> Self {
        Self {
            tally: Some(tally),
            ..self
        }
    }

    /// Whether anything is recorded: there is no bitmap when the core only clears.
    pub(super) fn records(&self) -> bool {
        // SAFETY: By the type invariants, `raw` points to a valid dirty bitmap.
        !unsafe { (*self.raw.as_ptr()).bitmap }.is_null()
    }

    /// Whether something is flushed after the query.
    pub(super) fn flushes(&self) -> bool {
        // SAFETY: By the type invariants, `raw` points to a valid dirty bitmap.
        !unsafe { (*self.raw.as_ptr()).gather }.is_null()
    }

    /// The addresses that are recorded.
    #[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
    pub(super) fn query(&self) -> Range {
        self.query
    }
}

impl DirtySink for DirtyBitmap<'_> {
    fn record(&mut self, range: Range) {
        // `iova_bitmap_set()` checks neither end: it drops a whole run that begins below the
        // bitmap, and past the end it sets bits in the pinned pages.
        let first = range.first().max(self.query.first());
        let last = range.last().min(self.query.last());
        let Ok(range) = Range::inclusive(first, last) else {
            return;
        };
        // SAFETY: By the type invariants, `raw` points to a valid dirty bitmap.
        let bitmap = unsafe { (*self.raw.as_ptr()).bitmap };
        if bitmap.is_null() {
            return;
        }
        if let Some(tally) = self.tally {
            tally.add_dirty(range);
        }
        // SAFETY: By the type invariants, `bitmap` is valid, covers the query, and only this object
        // uses it. The range lies within the query.
        // CAST: The query came in `unsigned long`, and the range lies within.
        unsafe { ffi::iova_bitmap_set(bitmap, range.first() as usize, range.size() as usize) };
    }

    #[inline]
    fn cleared(&mut self, range: Range) {
        if let Some(tally) = self.tally {
            tally.add_cleared(range);
        }
        // SAFETY: By the type invariants, `raw` points to a valid dirty bitmap.
        let gather = unsafe { (*self.raw.as_ptr()).gather };
        if let Some(gather) = NonNull::new(gather) {
            // SAFETY: By the type invariants, `gather` is initialised, and only this object uses
            // it.
            unsafe { IotlbGather::from_raw(gather) }.add(range);
        }
    }

    fn split(&mut self, range: Range) {
        if let Some(tally) = self.tally {
            tally.add_cleared(range);
        }
        // SAFETY: By the type invariants, `raw` points to a valid dirty bitmap.
        let gather = unsafe { (*self.raw.as_ptr()).gather };
        if let Some(gather) = NonNull::new(gather) {
            // SAFETY: By the type invariants, `gather` is initialised, and only this object uses
            // it.
            unsafe { IotlbGather::from_raw(gather) }.add_with_links(range);
        }
    }

    /// A process that is killed must not wait for the end of a long query.
    fn gives_up(&mut self) -> bool {
        ffi::is_killed()
    }
}
