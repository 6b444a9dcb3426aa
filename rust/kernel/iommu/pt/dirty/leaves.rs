// SPDX-License-Identifier: GPL-2.0

//! The fast path of a harvest: a table of level 0, of which every leaf lies wholly in the query.
//!
//! A cache line of eight entries at a time:
//!
//! 1. The OR of the words. Without a dirty bit in it the line is done, and this is all that a clean
//!    page costs (`Table::find`).
//! 2. The AND of them. With a dirty bit in it all eight are dirty, as where a device has filled a
//!    buffer; such lines are made clean as they come, and what is behind each other is one run.
//! 3. Else a mask with a bit for each entry, of up to eight lines. The branches depend on the pattern
//!    then, and if every other page is dirty nobody can predict it: one loop over the bits to clean
//!    and one over the runs, of 64 entries each, are wrong once each, not once a run.
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

/// The entries of a mask.
const WINDOW: usize = 64;

impl<F: Format, M: TableMem> Node<'_, F, M> {
    /// Harvests the entries from `slot` to before `end` of a table of level 0; `ahead` comes next.
    #[inline(always)]
    pub(super) fn harvest_leaves<S: DirtySink>(
        self,
        mut slot: usize,
        end: usize,
        ahead: Self,
        harvest: &mut Harvest<'_, S>,
    ) {
        loop {
            slot = self.find_dirty(slot, end, ahead);
            if slot >= end {
                break;
            }

            let next = (slot / LINE_ENTRIES + 1) * LINE_ENTRIES;
            let (any, all) = self.line(slot / LINE_ENTRIES);

            if any & F::CONTIGUOUS != 0 {
                while slot < next && slot < end {
                    slot = self.harvest_entry(slot, harvest);
                }
            } else if all & F::DIRTY != 0 && slot % LINE_ENTRIES == 0 && next <= end {
                slot = self.harvest_whole_lines(slot, end, harvest);
            } else {
                slot = self.harvest_window(slot, end, harvest);
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

    /// Takes the dirty leaves of the lines from that of `slot` on, as far as a mask reaches; returns
    /// the entry behind them.
    #[inline(always)]
    fn harvest_window<S: DirtySink>(
        self,
        slot: usize,
        end: usize,
        harvest: &mut Harvest<'_, S>,
    ) -> usize {
        let base = slot & !(LINE_ENTRIES - 1);
        let (mask, lines_end) = self.dirty_mask(base, end.min(base + WINDOW));
        let behind = lines_end.min(end);
        // The lines may begin before the first entry that counts, and end behind the last.
        // CAST: Numbers of entries of a window.
        let low = u64::MAX.wrapping_shl((slot - base) as u32);
        let high = u64::MAX.wrapping_shr((WINDOW - (behind - base)) as u32);
        let mut runs = mask & low & high;

        if harvest.clear {
            let mut left = runs;

            while left != 0 {
                // CAST: Numbers of entries fit any width.
                self.clean(base + left.trailing_zeros() as usize);
                left &= left - 1;
            }
        }
        while runs != 0 {
            let start = runs.trailing_zeros();
            let first = base + start as usize;
            let entries = runs.wrapping_shr(start).trailing_ones() as usize;

            harvest.add_to_run(self.items(first, first + entries), harvest.clear);
            // Adding the lowest bit carries through the run and leaves the bits above it.
            runs &= runs.wrapping_add(1u64.wrapping_shl(start));
        }
        behind
    }

    /// A mask of the dirty entries from `base`, where a line begins, to at least before `end`; and
    /// where the lines end that are in it: those that have contiguous entries are not.
    #[inline(always)]
    fn dirty_mask(self, base: usize, end: usize) -> (u64, usize) {
        let shift = F::DIRTY.trailing_zeros();
        let mut mask = 0u64;
        let mut line = base;

        while line < end {
            let (any, _) = self.line(line / LINE_ENTRIES);

            if any & F::CONTIGUOUS != 0 {
                break;
            }
            if any & F::DIRTY != 0 {
                let mut dirty = 0u64;

                for entry in 0..LINE_ENTRIES {
                    dirty |= ((self.word(line + entry) >> shift) & 1) << entry;
                }
                mask |= dirty << (line - base);
            }
            line += LINE_ENTRIES;
        }
        (mask, line)
    }
}
