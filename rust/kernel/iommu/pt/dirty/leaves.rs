// SPDX-License-Identifier: GPL-2.0

//! The fast path of a harvest: a table of level 0, of which every leaf lies wholly in the query.
//!
//! A cache line of eight entries at a time:
//!
//! 1. The OR of the words. Without a dirty bit in it the line is done, and this is all that a clean
//!    page costs (`Table::find_dirty`).
//! 2. Else a mask with a bit for each entry. If one is dirty, as in most dirty lines where few
//!    pages are, it is made clean and that is all. If all eight are, as where a device has filled a
//!    buffer, such lines are made clean as they come, and what is behind each other is one run.
//! 3. Else the masks of up to eight lines, as long as each has a dirty entry, are put together. The
//!    branches depend on the pattern then, and if every other page is dirty no processor can
//!    predict it: one loop over the bits to clean and one over the runs, of 64 entries each, are
//!    wrong once each, not once a run.
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

/// The mask of a line of which every entry is dirty.
const WHOLE_LINE: u64 = 0xff;

impl<F: Format, M: TableMem> Node<'_, F, M> {
    /// Harvests the entries from `slot` to before `end` of a table of level 0; `ahead` comes later.
    /// Returns the entry behind them, or behind a leaf that reaches further.
    #[inline(always)]
    pub(super) fn harvest_leaves<S: DirtySink>(
        self,
        mut slot: usize,
        end: usize,
        ahead: Self,
        harvest: &mut Harvest<'_, S, M::Flags>,
    ) -> usize {
        while slot < end {
            slot = self.find_dirty(slot, end, ahead);
            if slot >= end {
                break;
            }

            let next = (slot / LINE_ENTRIES + 1) * LINE_ENTRIES;
            let (any, dirty) = self.line_mask(slot / LINE_ENTRIES);

            if any & F::CONTIGUOUS != 0 {
                while slot < next && slot < end {
                    slot = self.harvest_entry(slot, harvest);
                }
            } else if dirty & dirty.wrapping_sub(1) == 0 {
                self.harvest_one(slot, end.min(next), dirty, harvest);
                slot = end.min(next);
            } else if dirty == WHOLE_LINE && slot % LINE_ENTRIES == 0 && next <= end {
                slot = self.harvest_whole_lines(slot, end, ahead, harvest);
            } else {
                slot = self.harvest_window(slot, end, dirty, harvest);
            }
        }
        slot
    }

    /// Takes the one dirty leaf that `line` is the mask of, if it is among the entries from `slot`
    /// to before `end`, which are of one line.
    #[inline(always)]
    fn harvest_one<S: DirtySink>(
        self,
        slot: usize,
        end: usize,
        line: u64,
        harvest: &mut Harvest<'_, S, M::Flags>,
    ) {
        // Another harvest may have made the leaf clean since the line was found: then the mask is
        // 0, and the sum, unlike an OR, is beyond `end` wherever the line is.
        // CAST: The number of an entry fits any width.
        let entry = (slot & !(LINE_ENTRIES - 1)).wrapping_add(line.trailing_zeros() as usize);

        if (slot..end).contains(&entry) {
            if harvest.clear {
                self.clean(entry, F::PAGE_LG2);
                harvest.add_cleared(self.item(entry));
            }
            harvest.add_to_run(self.item(entry));
        }
    }

    /// Takes the line that begins at `slot`, of which every entry is a dirty leaf, and those of the
    /// same kind behind it; returns the entry behind them all. Asks for the same lines of `ahead`
    /// on the way: what is made clean has to be read first, and written back, so memory is slower
    /// still.
    #[inline(always)]
    fn harvest_whole_lines<S: DirtySink>(
        self,
        slot: usize,
        end: usize,
        ahead: Self,
        harvest: &mut Harvest<'_, S, M::Flags>,
    ) -> usize {
        let mut next = slot;

        loop {
            ahead.prefetch(next);
            if harvest.clear {
                for entry in 0..LINE_ENTRIES {
                    self.clean(next + entry, F::PAGE_LG2);
                }
            }
            next += LINE_ENTRIES;
            if next + LINE_ENTRIES > end {
                break;
            }

            let line = self.line(next / LINE_ENTRIES);

            if !line.is_dirty::<F>() || line.any & F::CONTIGUOUS != 0 {
                break;
            }
        }
        harvest.add_to_run(self.items(slot, next));
        if harvest.clear {
            harvest.add_cleared(self.items(slot, next));
        }
        next
    }

    /// Takes the dirty leaves of the lines from that of `slot` on, as far as a mask reaches;
    /// returns the entry behind them.
    #[inline(always)]
    fn harvest_window<S: DirtySink>(
        self,
        slot: usize,
        end: usize,
        first_line: u64,
        harvest: &mut Harvest<'_, S, M::Flags>,
    ) -> usize {
        let base = slot & !(LINE_ENTRIES - 1);
        let (mask, lines_end) = self.dirty_mask(base, end.min(base + WINDOW), first_line);
        let behind = lines_end.min(end);
        // The lines may begin before the first entry that counts, and end behind the last.
        // CAST: Numbers of entries of a window.
        let low = u64::MAX.wrapping_shl((slot - base) as u32);
        let high = u64::MAX.wrapping_shr((WINDOW - (behind - base)) as u32);
        let runs = mask & low & high;

        if harvest.clear && runs != 0 {
            let mut left = runs;

            while left != 0 {
                // CAST: Numbers of entries fit any width.
                self.clean(base + left.trailing_zeros() as usize, F::PAGE_LG2);
                left &= left - 1;
            }
            harvest.add_cleared(self.items(
                base + runs.trailing_zeros() as usize,
                base + WINDOW - runs.leading_zeros() as usize,
            ));
        }
        // The first and the last entry of each run: as many of the one as of the other.
        let (mut firsts, mut lasts) = (runs & !(runs << 1), runs & !(runs >> 1));

        while firsts != 0 {
            // CAST: Numbers of entries of a window.
            let first = base + firsts.trailing_zeros() as usize;
            let last = base + lasts.trailing_zeros() as usize;

            harvest.add_to_run(self.items(first, last + 1));
            firsts &= firsts.wrapping_sub(1);
            lasts &= lasts.wrapping_sub(1);
        }
        behind
    }

    /// A mask of the dirty entries from `base` on, which begins the line with the mask
    /// `first_line`, to at least before `end`, or to behind the first line that has none; and where
    /// the lines end that are in it. Lines with contiguous entries are not.
    #[inline(always)]
    fn dirty_mask(self, base: usize, end: usize, first_line: u64) -> (u64, usize) {
        let mut mask = first_line;
        let mut dirty = first_line;
        let mut line = base + LINE_ENTRIES;

        while line < end && dirty != 0 {
            let any;

            (any, dirty) = self.line_mask(line / LINE_ENTRIES);
            if any & F::CONTIGUOUS != 0 {
                break;
            }
            mask |= dirty.wrapping_shl((line - base) as u32);
            line += LINE_ENTRIES;
        }
        (mask, line)
    }
}
