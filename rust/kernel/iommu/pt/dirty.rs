// SPDX-License-Identifier: GPL-2.0

//! Harvesting dirty bits: which pages has a device written?
//!
//! What is reported is clipped to the query. A leaf that reaches beyond the query is reported for
//! its part of it and stays dirty, because the rest of it is for another query to find: to report
//! a page twice costs a copy, to forget it costs the guest its memory. Only the first and the last
//! leaf of a query can be such ones, so each table that the query enters or leaves in the middle
//! has these two looked at one by one, and everything between them needs no clipping.
//!
//! Most pages are clean, and most entries are in tables of level 0: `leaves.rs` is the fast path.

mod leaves;
mod writable;

use super::{
    addr::{
        Iova,
        TABLE_ENTRIES, //
    },
    claim::{
        Claim,
        Stable, //
    },
    format::{
        Entry,
        Format, //
    },
    gather::DirtySink,
    node::{
        Node,
        Slot, //
    },
    table::{
        TableMem,
        LINE_ENTRIES, //
    },
    tree::Tree,
    Range, //
};
use kernel::error::{
    code::*,
    Result, //
};

/// How many tables of leaves ahead of the one that is harvested memory is asked for. One is harvested
/// in 60 ns if all of it is clean, and memory takes a few times as long to answer.
const AHEAD: usize = 3;

/// A harvest under way.
struct Harvest<'s, S> {
    query: Range,
    clear: bool,
    sink: &'s mut S,
    /// Dirty addresses in a row that the sink does not know yet: the first of them, and the one behind
    /// the last, which is the same if there are none.
    run: (Iova, Iova),
    /// From the first to the last leaf that was made clean; the first is above the last before that.
    cleared: (Iova, Iova),
}

impl<'s, S: DirtySink> Harvest<'s, S> {
    /// A harvest that has found nothing yet.
    fn new(query: Range, clear: bool, sink: &'s mut S) -> Self {
        Self {
            query,
            clear,
            sink,
            run: (0, 0),
            cleared: (Iova::MAX, 0),
        }
    }

    /// Takes note of a dirty leaf that may reach beyond the query; returns whether to make it clean.
    #[inline]
    fn add(&mut self, leaf: Range) -> bool {
        let dirty = leaf.clip(&self.query);
        let clear = self.clear && dirty == leaf;

        self.add_to_run(dirty);
        if clear {
            self.add_cleared(leaf);
        }
        clear
    }

    /// Takes note of dirty addresses in the query, behind all those before.
    #[inline(always)]
    fn add_to_run(&mut self, dirty: Range) {
        let (mut first, behind) = self.run;
        let next = dirty.last().wrapping_add(1);

        // All addresses that there are in one run would look like none.
        if behind != dirty.first() || next == first {
            self.record_run();
            first = dirty.first();
        }
        self.run = (first, next);
    }

    /// Tells the sink of the addresses in a row, if there are any.
    #[inline(always)]
    fn record_run(&mut self) {
        let (first, behind) = self.run;

        if first != behind {
            if let Ok(run) = Range::inclusive(first, behind.wrapping_sub(1)) {
                self.sink.record(run);
            }
        }
    }

    /// Takes note of leaves that are made clean, behind all those before.
    #[inline(always)]
    fn add_cleared(&mut self, leaves: Range) {
        self.cleared = (self.cleared.0.min(leaves.first()), leaves.last());
    }

    /// Tells the sink what is left.
    fn finish(mut self) {
        self.record_run();
        if let Ok(cleared) = Range::inclusive(self.cleared.0, self.cleared.1) {
            self.sink.cleared(cleared);
        }
    }
}

impl<F: Format, M: TableMem> Tree<'_, F, M> {
    /// Reports which pages of the claimed range a device has written, and makes them clean.
    ///
    /// Reports every page that was written since it was last clean and flushed, and no address
    /// outside the range. With `clear` false nothing changes and the sink is not asked to flush.
    /// With it true, the leaves that lie wholly in the range become clean; the caller flushes what
    /// the sink was told by [`DirtySink::cleared`] before it copies the pages.
    ///
    /// Takes no lock. May run next to itself, to the hardware, and to changes of other ranges.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` unless [`Tree::can_track_dirty`], `ERANGE` if the range reaches beyond the
    /// aperture. Nothing was reported or changed then.
    pub fn read_and_clear_dirty(
        &self,
        claim: &Stable,
        clear: bool,
        sink: &mut impl DirtySink,
    ) -> Result {
        if !self.can_track_dirty() {
            return Err(EOPNOTSUPP);
        }

        let mut harvest = Harvest::new(claim.range(), clear, sink);

        if let Some(root) = self.root(claim)? {
            let node = root.narrow();

            node.harvest(node, &mut harvest);
            harvest.finish();
        }
        Ok(())
    }

    /// Makes the leaf of the first claimed address dirty, as the hardware does when a device writes.
    ///
    /// For tests: iommufd's has no hardware.
    ///
    /// # Errors
    ///
    /// `ENOENT` if nothing is mapped there, `EAGAIN` if the entry changed meanwhile, `EOPNOTSUPP` if
    /// the format has no dirty bits, `ERANGE` beyond the aperture.
    pub fn set_dirty(&self, claim: &Stable) -> Result {
        if F::DIRTY == 0 {
            return Err(EOPNOTSUPP);
        }

        let mut node = self.root(claim)?.ok_or(ENOENT)?;

        loop {
            match node.get_on_way() {
                Slot::Empty => return Err(ENOENT),
                Slot::Table(child) => node = child,
                Slot::Leaf { .. } if node.mark() => return Ok(()),
                Slot::Leaf { .. } => return Err(EAGAIN),
            }
        }
    }
}

impl<F: Format, M: TableMem> Node<'_, F, M> {
    /// Harvests the claimed part of what the table covers. `ahead` is asked for on the way: a table of
    /// leaves that comes later, anything where there is none.
    fn harvest<S: DirtySink>(self, ahead: Self, harvest: &mut Harvest<'_, S>) {
        let (mut slot, mut end) = (self.first_slot(), self.last_slot() + 1);

        // The hardware may have marked an entry that the query does not reach for a write to a page
        // that it does, if both are of one leaf.
        if self.begins_inside() {
            slot = self.harvest_entry(slot, harvest);
        }

        let tail = self.ends_inside().then(|| self.row(end - 1).start);

        if let Some(tail) = tail {
            end = tail;
        }
        match self.of_leaves() {
            Some(leaves) => leaves.harvest_leaves(slot, end, ahead, harvest),
            None => self.harvest_any(slot, end, harvest),
        }
        if let Some(tail) = tail.filter(|tail| *tail >= slot) {
            self.harvest_entry(tail, harvest);
        }
    }

    /// In a table that may link others: the entries from `slot` to before `end`.
    fn harvest_any<S: DirtySink>(self, mut slot: usize, end: usize, harvest: &mut Harvest<'_, S>) {
        while slot < end {
            let next = (slot / LINE_ENTRIES + 1) * LINE_ENTRIES;
            let (any, all) = self.line(slot / LINE_ENTRIES);

            if F::is_quiet(any, all, self.level()) {
                slot = next;
            }
            while slot < next && slot < end {
                slot = self.harvest_entry(slot, harvest);
            }
        }
    }

    /// The entries of the leaf that `slot` belongs to, that one alone if it is not a row's.
    #[inline]
    fn row(self, slot: usize) -> core::ops::Range<usize> {
        match F::decode(self.word(slot), self.level()) {
            Entry::Leaf { lg2, .. } => {
                let entries = 1usize << (lg2 - self.item_lg2());
                let head = slot & !(entries - 1);

                head..head + entries
            }
            _ => slot..slot + 1,
        }
    }

    /// The table of leaves that the entry [`AHEAD`] of `slot` links, if there is one and it is claimed.
    /// Where this is another table's entry it is not looked for.
    #[inline]
    fn leaves_ahead(self, slot: usize) -> Option<Self> {
        let next = Some(slot + AHEAD).filter(|next| *next < TABLE_ENTRIES)?;

        match self.get(next) {
            Slot::Table(next) => next.of_leaves(),
            _ => None,
        }
    }

    /// Looks at one entry; returns which one comes next.
    fn harvest_entry<S: DirtySink>(self, slot: usize, harvest: &mut Harvest<'_, S>) -> usize {
        match self.get(slot) {
            Slot::Empty => slot + 1,
            Slot::Table(child) => {
                child.harvest(self.leaves_ahead(slot).unwrap_or(child), harvest);
                slot + 1
            }
            Slot::Leaf { lg2, .. } => {
                // Dirty if any of its entries is, clean only if all of them are.
                let slots = self.row(slot);

                if slots.clone().any(|slot| self.word(slot) & F::DIRTY != 0)
                    && harvest.add(Range::block(self.item(slot).first(), lg2))
                {
                    slots.clone().for_each(|slot| self.clean(slot));
                }
                slots.end
            }
        }
    }
}
