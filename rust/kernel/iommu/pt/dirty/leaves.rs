// SPDX-License-Identifier: GPL-2.0

//! The fast path of a harvest: a table of level 0, of which every leaf lies wholly in the query.
//!
//! A cache line of eight entries at a time:
//!
//! 1. The OR of the words. Without a dirty bit in it the line is done, and this is all that a clean
//!    page costs.
//! 2. The AND of them. With a dirty bit in it all eight are dirty, as where a device has filled a
//!    buffer; such lines are made clean as they come, and what is behind each other is one run.
//! 3. Else a mask with a bit for each entry. A branch for each run of ones costs less than one for
//!    each entry, which nobody can predict if every other page is dirty.
//!
//! Addresses are computed for runs only. A line with a row of contiguous entries, of which one may
//! speak for all, is looked at leaf by leaf.

use super::{
    super::{
        format::Format,
        gather::DirtySink,
        node::Node,
        table::{
            TableMem,
            LINE_ENTRIES, //
        }, //
    },
    Harvest, //
};

impl<F: Format, M: TableMem> Node<'_, F, M> {
    /// Harvests the entries from `slot` to before `end` of a table of level 0.
    #[inline(always)]
    pub(super) fn harvest_leaves<S: DirtySink>(
        self,
        mut slot: usize,
        end: usize,
        harvest: &mut Harvest<'_, S>,
    ) {
        loop {
            slot = self.find_dirty(slot, end);
            if slot >= end {
                break;
            }

            let line = slot / LINE_ENTRIES;
            let next = (line + 1) * LINE_ENTRIES;
            let (any, all) = self.line(line);

            if any & F::CONTIGUOUS != 0 {
                while slot < next && slot < end {
                    slot = self.harvest_entry(slot, harvest);
                }
            } else if all & F::DIRTY != 0 && slot % LINE_ENTRIES == 0 && next <= end {
                slot = self.harvest_whole_lines(slot, end, harvest);
            } else {
                self.harvest_runs(slot, end.min(next), harvest);
                slot = next;
            }
        }
    }

    /// Takes the line that begins at `slot`, of which every entry is a dirty leaf, and those of the
    /// same kind behind it; returns the entry behind them all.
    #[inline(always)]
    fn harvest_whole_lines<S: DirtySink>(
        self,
        slot: usize,
        end: usize,
        harvest: &mut Harvest<'_, S>,
    ) -> usize {
        let mut next = slot;

        loop {
            if harvest.clear {
                for entry in 0..LINE_ENTRIES {
                    self.clean(next + entry);
                }
            }
            next += LINE_ENTRIES;
            if next + LINE_ENTRIES > end {
                break;
            }

            let (any, all) = self.line(next / LINE_ENTRIES);

            if all & F::DIRTY == 0 || any & F::CONTIGUOUS != 0 {
                break;
            }
        }
        harvest.add_to_run(self.items(slot, next), harvest.clear);
        next
    }

    /// Takes the dirty leaves of the entries from `slot` to before `end`, which share a line, run by
    /// run.
    #[inline(always)]
    fn harvest_runs<S: DirtySink>(self, slot: usize, end: usize, harvest: &mut Harvest<'_, S>) {
        let base = slot & !(LINE_ENTRIES - 1);
        let shift = F::DIRTY.trailing_zeros();
        let mut dirty = 0u64;

        for entry in 0..LINE_ENTRIES {
            dirty |= ((self.word(base + entry) >> shift) & 1) << entry;
        }
        dirty &= (u64::MAX << (slot - base)) & !(u64::MAX << (end - base));
        while dirty != 0 {
            let start = dirty.trailing_zeros();
            let entries = (dirty >> start).trailing_ones();
            // CAST: Numbers of entries fit any width.
            let first = base + start as usize;
            let behind = first + entries as usize;

            if harvest.add_to_run(self.items(first, behind), harvest.clear) {
                let mut entry = first;

                while entry < behind {
                    self.clean(entry);
                    entry += 1;
                }
            }
            // Adding the lowest bit carries through the run and leaves the bits above it.
            dirty &= dirty + (1 << start);
        }
    }
}
