// SPDX-License-Identifier: GPL-2.0

//! One query of a domain: what it has found, and where it is reported.

use core::cell::Cell;

use kernel::{
    error::Result,
    time::{
        Instant,
        Monotonic, //
    }, //
};

use super::super::{
    counters::DomainCounters,
    pt::{
        Iova,
        Range, //
    },
    trace, //
};

/// The result of a query so far, over all of its parts.
pub(in super::super) struct Tally {
    /// The bytes that were reported as dirty.
    dirty: Cell<u64>,
    /// From the first to the last address that is to be flushed; the first is above the last before
    /// there is one.
    cleared: Cell<(Iova, Iova)>,
}

impl Tally {
    /// Creates an empty result.
    pub(in super::super) fn new() -> Self {
        Self {
            dirty: Cell::new(0),
            cleared: Cell::new((Iova::MAX, 0)),
        }
    }

    /// Takes note of dirty addresses that were reported.
    #[inline]
    pub(super) fn add_dirty(&self, range: Range) {
        // The core asks about ranges of one domain, which together have no more addresses.
        self.dirty
            .set(self.dirty.get().saturating_add(range.size()));
    }

    /// Takes note of a range of which leaves were made clean.
    #[inline]
    pub(super) fn add_cleared(&self, range: Range) {
        let (first, last) = self.cleared.get();

        self.cleared
            .set((first.min(range.first()), last.max(range.last())));
    }

    /// The bytes that were reported as dirty.
    pub(in super::super) fn dirty(&self) -> u64 {
        self.dirty.get()
    }

    /// From the first to the last leaf that was made clean.
    pub(in super::super) fn cleared(&self) -> Option<Range> {
        let (first, last) = self.cleared.get();

        Range::inclusive(first, last).ok()
    }
}

/// A query under way.
pub(in super::super) struct Query {
    /// The number of the domain.
    domain: u64,
    range: Range,
    clear: bool,
    begun: Instant<Monotonic>,
    /// What it has found.
    pub(in super::super) tally: Tally,
}

impl Query {
    /// Begins a query of `range` in the domain with the number `domain`.
    #[inline(never)]
    pub(in super::super) fn begin(domain: u64, range: Range, clear: bool) -> Self {
        Self {
            domain,
            range,
            clear,
            begun: Instant::now(),
            tally: Tally::new(),
        }
    }

    /// Ends it: counts it, and tells whom it concerns.
    #[inline(never)]
    pub(in super::super) fn end(self, counters: &DomainCounters, result: &Result) {
        let time = self.begun.elapsed();

        counters.count_query(self.clear, self.tally.dirty(), time, result);
        trace::harvest(
            &trace::Harvest {
                domain: self.domain,
                query: self.range,
                clear: self.clear,
                dirty: self.tally.dirty(),
                cleared: self.tally.cleared(),
                time,
            },
            result,
        );
    }
}
