// SPDX-License-Identifier: GPL-2.0

//! Unmapping: whole leaves, and the tables that become unused.

use super::{
    addr::{
        low_mask,
        Level,
        Range, //
    },
    claim::{
        Claim,
        Exclusive, //
    },
    format::{
        Entry,
        Format, //
    },
    gather::Gather,
    node::{
        Node,
        Slot, //
    },
    table::TableMem,
    tree::Tree, //
};

/// The result of an unmap.
struct Progress {
    /// Bytes removed, from the start of the range on.
    removed: u64,
    /// Whether something in the way ended it.
    stopped: bool,
}

impl Progress {
    /// Adds leaves that took `entries` entries of `1 << item_lg2` bytes each.
    #[inline(always)]
    fn leaves(&mut self, entries: usize, item_lg2: u32) {
        // CAST: A number of entries fits any width.
        self.removed += (entries as u64) << item_lg2;
    }
}

impl<F: Format, M: TableMem> Tree<'_, F, M> {
    /// Unmaps the claimed range and returns how many bytes were removed, from its start on.
    ///
    /// Removes whole leaves only, as the IOMMU API has it:
    ///
    /// - A range that begins inside a large leaf removes nothing.
    /// - A range that ends inside a large leaf removes all of it: more bytes than asked for.
    /// - The first hole ends it.
    /// - With a claim that is about another tree there is nothing to remove.
    ///
    /// Tables whose addresses are all claimed go to `gather`, after the range, and so must live
    /// until the caller has flushed. Never fails, allocates, sleeps or takes a lock.
    pub fn unmap(&self, claim: &mut Exclusive, gather: &mut impl Gather<M>) -> u64 {
        let claim = &*claim;
        let mut progress = Progress {
            removed: 0,
            stopped: false,
        };
        let range = claim.range();
        let mut first = true;
        // An error is that of a claim for what this tree does not have.
        let _ = self.each_root(claim, |root| {
            if first {
                gather.add_range(range);
                first = false;
            }
            root.narrow().unmap(claim, gather, &mut progress);
            !progress.stopped
        });

        if progress.removed > range.size() {
            // The tail of the last leaf. It touches what was added, so no gather flushes here.
            if let Ok(removed) = Range::new(range.first(), progress.removed) {
                gather.add_range(removed);
            }
        }
        progress.removed
    }
}

impl<F: Format, M: TableMem> Node<'_, F, M> {
    /// Unmaps the claimed part of what the table covers.
    #[inline(always)]
    fn unmap(self, claim: &Exclusive, gather: &mut impl Gather<M>, progress: &mut Progress) {
        let first = self.first_slot();

        // Only the first leaf of a table can begin before the range does.
        if let Entry::Leaf { lg2, .. } = F::decode(self.word(first), self.level()) {
            if self.first() & low_mask(lg2) != 0 {
                progress.stopped = true;
                return;
            }
        }
        // Level 0 is where the time goes, and it has nothing but leaves.
        if self.level() == Level::LEAF {
            let end = self.last_slot() + 1;
            let next = self.clear_rows(first, end, Level::LEAF);

            progress.leaves(next - first, F::PAGE_LG2);
            progress.stopped = next < end;
            if next > first {
                self.flush(first, next - 1);
            }
        } else {
            self.unmap_any(claim, gather, progress);
        }
    }

    /// In a table that may link others.
    fn unmap_any(self, claim: &Exclusive, gather: &mut impl Gather<M>, progress: &mut Progress) {
        let (first, last) = (self.first_slot(), self.last_slot());
        let mut slot = first;
        let mut changed = false;

        while slot <= last && !progress.stopped {
            match self.get(slot) {
                Slot::Empty => progress.stopped = true,
                Slot::Leaf { .. } => {
                    let next = self.clear_rows(slot, last + 1, self.level());

                    progress.leaves(next - slot, self.item_lg2());
                    changed = true;
                    slot = next;
                }
                Slot::Table(child) => {
                    child.unmap(claim, gather, progress);
                    if progress.stopped {
                        break;
                    }
                    if let Some(table) = self.detach(slot, claim) {
                        changed = true;
                        gather.queue_free(table);
                    }
                    slot += 1;
                }
            }
        }

        if changed {
            self.flush(first, slot - 1);
        }
    }

    /// Empties the leaves that begin in the entries from `slot` to before `end`, up to the first
    /// entry that is none; returns the entry behind them, which is beyond `end` if the last one is.
    #[inline(always)]
    fn clear_rows(self, mut slot: usize, end: usize, level: Level) -> usize {
        if level > Level::LEAF && self.splits() {
            return self.take_leaves(slot, end);
        }
        loop {
            slot = self.clear_leaves(slot, end, level);
            if F::CONTIGUOUS == 0 || slot >= end {
                return slot;
            }

            let Entry::Leaf { lg2, .. } = F::decode(self.word(slot), level) else {
                return slot;
            };

            // Where rows are split, those before may have been leaves by themselves already.
            let behind = (slot | ((1usize << (lg2 - level.item_lg2(F::PAGE_LG2))) - 1)) + 1;

            while slot < behind {
                self.clear(slot);
                slot += 1;
            }
        }
    }

    /// The same where a harvest may split leaves meanwhile: entry by entry. Comes back with the
    /// first that holds no leaf, if it is a table by now.
    #[cold]
    fn take_leaves(self, mut slot: usize, end: usize) -> usize {
        let mut until = end;

        while slot < until {
            let Some(lg2) = self.take(slot) else {
                break;
            };

            until = until.max(self.row(slot, lg2).end);
            slot += 1;
        }
        slot
    }
}
