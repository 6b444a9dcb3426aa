// SPDX-License-Identifier: GPL-2.0

//! Harvesting dirty bits: which pages has a device written?
//!
//! Most pages are clean, so what a clean page costs is what counts. The walk reads a cache line of
//! eight entries and looks at the OR of the words: without a dirty bit in it, and without a table
//! to descend into, the line is done. Only a line that has something is looked at entry by entry.
//! Addresses are computed for dirty leaves only, and what is dirty in a row is reported as one run.
//!
//! What is reported is clipped to the query. A leaf that reaches beyond the query is reported for
//! its part of it and stays dirty, because the rest of it is for another query to find: to report
//! a page twice costs a copy, to forget it costs the guest its memory.

use super::{
    claim::{
        Claim,
        Stable, //
    },
    format::Format,
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

/// A harvest under way.
struct Harvest<'s, S> {
    query: Range,
    clear: bool,
    sink: &'s mut S,
    /// Dirty addresses in a row that the sink does not know yet.
    run: Option<Range>,
    /// The part of them that was made clean. Leaves that stay dirty lie at the ends of the query,
    /// so this is one range, too.
    cleared: Option<Range>,
}

/// `run` with `next` at its end, if `next` begins where it stops.
#[inline(always)]
fn extend(run: Option<Range>, next: Range) -> Option<Range> {
    match run {
        Some(run) if run.last().wrapping_add(1) == next.first() => Some(run.until(next.last())),
        _ => None,
    }
}

impl<S: DirtySink> Harvest<'_, S> {
    /// Takes note of a dirty leaf, or of several in a row that lie in the query; returns whether to
    /// make them clean.
    #[inline(always)]
    fn add(&mut self, leaves: Range) -> bool {
        let dirty = leaves.clip(&self.query);
        let clear = self.clear && dirty == leaves;

        match extend(self.run, dirty) {
            Some(run) => self.run = Some(run),
            None => {
                self.report();
                self.run = Some(dirty);
            }
        }
        if clear {
            self.cleared = extend(self.cleared, dirty).or(Some(dirty));
        }
        clear
    }

    /// Tells the sink what was put together.
    fn report(&mut self) {
        if let Some(run) = self.run.take() {
            self.sink.record(run);
        }
        if let Some(cleared) = self.cleared.take() {
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

        let mut harvest = Harvest {
            query: claim.range(),
            clear,
            sink,
            run: None,
            cleared: None,
        };

        if let Some(root) = self.root(claim)? {
            root.narrow().harvest(&mut harvest);
            harvest.report();
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
            let slot = node.first_slot();

            match node.get(slot) {
                Slot::Empty => return Err(ENOENT),
                Slot::Table(child) => node = child,
                Slot::Leaf { .. } if node.mark(slot) => return Ok(()),
                Slot::Leaf { .. } => return Err(EAGAIN),
            }
        }
    }
}

impl<F: Format, M: TableMem> Node<'_, F, M> {
    fn harvest<S: DirtySink>(&self, harvest: &mut Harvest<'_, S>) {
        // Level 0 is where the time goes. Telling it apart once a table spares the test for tables
        // in each line, and makes the shifts constants.
        if self.level().below().is_none() {
            self.harvest_lines::<S, true>(harvest);
        } else {
            self.harvest_lines::<S, false>(harvest);
        }
    }

    /// Goes through the table.
    ///
    /// `LEAVES` says that nothing but leaves can be in it.
    #[inline(always)]
    fn harvest_lines<S: DirtySink, const LEAVES: bool>(&self, harvest: &mut Harvest<'_, S>) {
        let (mut slot, mut end) = (self.first_slot(), self.last_slot() + 1);

        if F::CONTIGUOUS == 0 {
            return self.harvest_slots::<S, LEAVES>(slot..end, harvest);
        }

        // A row of entries that the query cuts is looked at as a whole: the hardware may have marked
        // an entry that the query does not reach for a write to a page that it does.
        if self.row(slot).start < slot {
            slot = self.harvest_entry(slot, harvest);
        }

        let cut = self.row(end - 1);

        if cut.end > end {
            end = cut.start;
        }
        self.harvest_slots::<S, LEAVES>(slot..end, harvest);
        if cut.end > end && cut.start >= slot {
            self.harvest_entry(cut.start, harvest);
        }
    }

    /// The entries of the leaf that `slot` belongs to, that one alone if it is not a row's.
    #[inline]
    fn row(&self, slot: usize) -> core::ops::Range<usize> {
        match self.get(slot) {
            Slot::Leaf { lg2, .. } => {
                let entries = 1usize << (lg2 - self.item_lg2());
                let head = slot & !(entries - 1);

                head..head + entries
            }
            _ => slot..slot + 1,
        }
    }

    /// Goes through some of the entries, line by line; rows of contiguous ones are not cut.
    #[inline(always)]
    fn harvest_slots<S: DirtySink, const LEAVES: bool>(
        &self,
        slots: core::ops::Range<usize>,
        harvest: &mut Harvest<'_, S>,
    ) {
        let mut slot = slots.start;

        while slot < slots.end {
            let line = slot / LINE_ENTRIES;
            let (any, all) = self.line(line);
            let next = (line + 1) * LINE_ENTRIES;

            if !F::is_quiet(any, all, self.level()) {
                if LEAVES && any & F::CONTIGUOUS == 0 {
                    self.harvest_runs(line, slot, slots.end.min(next) - 1, harvest);
                } else {
                    while slot < next && slot < slots.end {
                        slot = self.harvest_entry(slot, harvest);
                    }
                }
            }
            slot = slot.max(next);
        }
    }

    /// Takes the dirty leaves of a line, of the entries from `first` to `last`, run by run.
    ///
    /// The dirty bits are gathered into a mask first: a branch for each run costs less than one for
    /// each entry, which nobody can predict if every other page is dirty.
    #[inline(always)]
    fn harvest_runs<S: DirtySink>(
        &self,
        line: usize,
        first: usize,
        last: usize,
        harvest: &mut Harvest<'_, S>,
    ) {
        let base = line * LINE_ENTRIES;
        let mut dirty = 0u32;

        for entry in 0..LINE_ENTRIES {
            dirty |= u32::from(self.word(base + entry) & F::DIRTY != 0) << entry;
        }
        dirty &= (u32::MAX << (first - base)) & (u32::MAX >> (31 - (last - base)));
        while dirty != 0 {
            // CAST: Numbers below 32 fit any width.
            let start = base + dirty.trailing_zeros() as usize;
            let entries = (dirty >> dirty.trailing_zeros()).trailing_ones() as usize;
            let end = start + entries - 1;
            let run = self.item(start).until(self.item(end).last());

            if harvest.query.covers(&run) {
                if harvest.add(run) {
                    for slot in start..=end {
                        self.clean(slot);
                    }
                }
            } else {
                // The query ends inside a leaf of the run: that one must not become clean.
                for slot in start..=end {
                    if harvest.add(self.item(slot)) {
                        self.clean(slot);
                    }
                }
            }
            // Adding the lowest bit carries through the run and leaves the bits above it.
            dirty &= dirty + (1 << (start - base));
        }
    }

    /// Looks at one entry; returns which one comes next.
    fn harvest_entry<S: DirtySink>(&self, slot: usize, harvest: &mut Harvest<'_, S>) -> usize {
        match self.get(slot) {
            Slot::Empty => slot + 1,
            Slot::Table(child) => {
                child.harvest(harvest);
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
