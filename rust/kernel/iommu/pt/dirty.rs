// SPDX-License-Identifier: GPL-2.0

//! Harvesting dirty bits: which pages a device has written.
//!
//! What is reported is clipped to the query. Of a leaf that reaches beyond the query, the harvest
//! reports the part inside and leaves the leaf dirty, because another query has to find the rest: a
//! page that is reported twice costs a copy, a page that is lost corrupts the guest. Only the first
//! and the last leaf of a query can reach beyond it, so in each table that the query enters or
//! leaves in the middle the harvest looks at these two one by one, and everything between them
//! needs no clipping.
//!
//! A harvest may hold only a [`Walk`](super::Walk): other callers map and unmap the range at the
//! same time. Whether an entry is a table or a leaf, and of which size, is decided on one read. Its
//! dirty bit, and those of the other entries of the leaf, are read after that, and once more where
//! the leaf is made clean: another word may be there by then. The rules for leaves that are mapped
//! or unmapped during a harvest:
//!
//! - What was mapped before the harvest began, and is mapped when it has ended, is reported if it
//!   was dirty. What is mapped or unmapped during the harvest may be reported or not.
//! - The harvest goes forward only. A leaf that begins in what it has reported is treated like one
//!   that the query cuts: the rest of it is reported, and it stays dirty.
//! - What becomes clean was reported: see `Node::clean`.
//!
//! Most pages are clean, and most entries are in tables of level 0: `leaves.rs` is the fast path.

mod leaves;
mod split;
mod writable;

use super::{
    addr::{
        Iova,
        Level,
        Range,
        TABLE_ENTRIES, //
    },
    claim::Claim,
    format::Format,
    gather::DirtySink,
    node::{
        Node,
        Slot, //
    },
    split::Splitting,
    table::{
        TableMem,
        LINE_ENTRIES, //
    },
    tree::Tree, //
};
use kernel::error::{
    code::*,
    Result, //
};

/// How many tables ahead of the one that is harvested memory is prefetched. One of leaves is
/// harvested in 60 ns if all of it is clean, and memory takes a few times as long to answer.
const AHEAD: usize = 3;

/// A harvest under way; `A` says how it allocates tables.
struct Harvest<'s, S, A> {
    query: Range,
    clear: bool,
    sink: &'s mut S,
    /// Dirty addresses in a row that the sink does not know yet: the first of them, and the one
    /// behind the last, which is the same if there are none.
    run: (Iova, Iova),
    /// From the first to the last leaf that was made clean; the first is above the last before
    /// that.
    cleared: (Iova, Iova),
    /// What it splits, if it does.
    splitting: Option<Splitting<A>>,
    /// Whether the sink has given up.
    ended: bool,
}

impl<'s, S: DirtySink, A> Harvest<'s, S, A> {
    /// A harvest that has found nothing yet.
    fn new(query: Range, clear: bool, sink: &'s mut S) -> Self {
        Self {
            query,
            clear,
            sink,
            run: (0, 0),
            cleared: (Iova::MAX, 0),
            splitting: None,
            ended: false,
        }
    }

    /// Whether the sink has given up, which is asked on the way to tables of level 1 and above.
    #[inline]
    fn ends(&mut self, level: Level) -> bool {
        if !self.ended && level.number() >= 2 {
            self.ended = self.sink.gives_up();
        }
        self.ended
    }

    /// Takes note of a dirty leaf that may reach beyond the query, and back into what was reported,
    /// since it was mapped after that; returns whether to make it clean.
    #[inline]
    fn add(&mut self, leaf: Range) -> bool {
        let clear = self.report(leaf) && self.clear;

        if clear {
            self.add_cleared(leaf);
        }
        clear
    }

    /// The same for a leaf that stays dirty; returns whether it was reported as a whole.
    #[inline]
    fn report(&mut self, leaf: Range) -> bool {
        let dirty = leaf.from(self.run.1).clip(&self.query);

        self.add_to_run(dirty);
        dirty == leaf
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
    fn finish(mut self) -> Result {
        self.record_run();
        if let Ok(cleared) = Range::inclusive(self.cleared.0, self.cleared.1) {
            self.sink.cleared(cleared);
        }
        if let Some(split) = self.splitting.and_then(Splitting::range) {
            self.sink.split(split);
        }
        if self.ended {
            Err(EINTR)
        } else {
            Ok(())
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
    /// Takes no lock. May run next to itself and to the hardware, to changes of other ranges, and,
    /// with a [`Walk`](super::Walk), to changes of this one.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` unless [`Tree::can_track_dirty`], `EINVAL` if the claim is about another tree,
    /// `ERANGE` if the range reaches beyond the aperture. Nothing was reported or changed then.
    ///
    /// `EINTR` if the sink [gives up](DirtySink::gives_up). What was not reported stays dirty, and
    /// the caller flushes what the sink was told, as always.
    pub fn read_and_clear_dirty(
        &self,
        claim: &impl Claim,
        clear: bool,
        sink: &mut impl DirtySink,
    ) -> Result {
        if !self.can_track_dirty() {
            return Err(EOPNOTSUPP);
        }
        self.harvest(claim, Harvest::new(claim.range(), clear, sink))
    }

    /// Runs `harvest` on the claimed range.
    #[inline(always)]
    fn harvest<S: DirtySink>(
        &self,
        claim: &impl Claim,
        mut harvest: Harvest<'_, S, M::Flags>,
    ) -> Result {
        self.each_root(claim, |root| {
            // Where leaves are split, the links on the way have something to say.
            let node = if root.splits() { root } else { root.narrow() };

            node.harvest(node, &mut harvest);
            true
        })?;
        harvest.finish()
    }

    /// Makes the leaf of the first claimed address dirty, as the hardware does when a device
    /// writes.
    ///
    /// For tests: iommufd's has no hardware.
    ///
    /// # Errors
    ///
    /// `ENOENT` if nothing is mapped there, `EAGAIN` if the entry changed meanwhile, `EOPNOTSUPP`
    /// if the format has no dirty bits, `ERANGE` beyond the aperture, `EINVAL` if the claim is
    /// about another tree.
    pub fn set_dirty(&self, claim: &impl Claim) -> Result {
        if F::DIRTY == 0 {
            return Err(EOPNOTSUPP);
        }

        let Slot::Table(mut node) = self.root(claim)? else {
            return Err(ENOENT);
        };

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
    /// Harvests the claimed part of what the table covers. `ahead` is asked for on the way: a table
    /// that comes later, anything where there is none.
    fn harvest<S: DirtySink>(self, ahead: Self, harvest: &mut Harvest<'_, S, M::Flags>) {
        let (mut slot, mut end) = (self.first_slot(), self.last_slot() + 1);

        // The hardware may have marked an entry that the query does not reach for a write to a page
        // that it does, if both are of one leaf.
        if self.begins_inside() {
            slot = self.harvest_entry(slot, harvest);
        }

        // The entry that the query ends in, or the first of its row.
        let last = end;

        if self.ends_inside() {
            end -= 1;
            if let Slot::Leaf { lg2, .. } = self.get(end) {
                end = self.row(end, lg2).start;
            }
        }
        slot = match self.of_leaves() {
            Some(leaves) => leaves.harvest_leaves(slot, end, ahead, harvest),
            None => self.harvest_any(slot, end, ahead, harvest),
        };
        while slot < last {
            slot = self.harvest_entry(slot, harvest);
        }
    }

    /// In a table that may link others: the entries from `slot` to before `end`; returns the one
    /// behind them, or behind a leaf that reaches further.
    fn harvest_any<S: DirtySink>(
        self,
        mut slot: usize,
        end: usize,
        ahead: Self,
        harvest: &mut Harvest<'_, S, M::Flags>,
    ) -> usize {
        while slot < end {
            let next = end.min((slot / LINE_ENTRIES + 1) * LINE_ENTRIES);

            ahead.prefetch(slot);
            let line = self.line(slot / LINE_ENTRIES);

            if line.is_clean::<F>() && F::has_no_table(line.any, line.all, self.level()) {
                slot = next;
            }
            while slot < next {
                slot = self.harvest_entry(slot, harvest);
            }
        }
        slot
    }

    /// The table that the entry [`AHEAD`] of `slot` links, if there is one and it is claimed. Where
    /// this is another table's entry it is not looked for.
    #[inline]
    fn table_ahead(self, slot: usize) -> Option<Self> {
        let next = Some(slot + AHEAD).filter(|next| *next < TABLE_ENTRIES)?;

        match self.get(next) {
            Slot::Table(next) => Some(next),
            _ => None,
        }
    }

    /// Looks at one entry; returns which one comes next.
    fn harvest_entry<S: DirtySink>(
        self,
        slot: usize,
        harvest: &mut Harvest<'_, S, M::Flags>,
    ) -> usize {
        let word = self.word(slot);

        match self.read(slot, word) {
            Slot::Empty => slot + 1,
            Slot::Table(_) if harvest.ends(self.level()) => slot + 1,
            Slot::Table(child) => {
                // Where nothing is split, the bit means nothing.
                let is_late = word & F::LATE_DIRT.unwrap_or(0) != 0 && self.splits();

                if !is_late || self.harvest_late(slot, child, harvest) {
                    child.harvest(self.table_ahead(slot).unwrap_or(child), harvest);
                }
                slot + 1
            }
            Slot::Leaf { lg2, .. } => {
                // Dirty if any of its entries is, clean only if all of them are.
                let slots = self.row(slot, lg2);
                let behind = slots.end;

                if !slots
                    .clone()
                    .any(|slot| F::dirt(self.word(slot)) & F::DIRTY != 0)
                {
                    return behind;
                }

                // Level 0 is where the time goes, and it has nothing to split but rows.
                let splits = harvest.splitting.is_some() && lg2 > F::PAGE_LG2;

                if splits && self.split_cut(slot, lg2, harvest) {
                    return self.harvest_entry(slot, harvest);
                }
                if harvest.add(self.leaf(slot, lg2))
                    && !(splits && self.split_reported(slot, lg2, harvest))
                {
                    slots.for_each(|slot| self.clean(slot, lg2));
                }
                behind
            }
        }
    }
}
