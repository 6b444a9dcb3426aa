// SPDX-License-Identifier: GPL-2.0

//! Unmapping: whole leaves, and the tables that nobody can need any more.

use super::{
    addr::{
        low_mask,
        Level, //
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
    tree::Tree,
    Range, //
};

/// What an unmap has come to.
struct Progress {
    /// Bytes removed, from the start of the range on.
    removed: u64,
    /// Whether something in the way ended it.
    stopped: bool,
}

impl<F: Format, M: TableMem> Tree<'_, F, M> {
    /// Unmaps the claimed range and returns how many bytes were removed, from its start on.
    ///
    /// Removes whole leaves only, as the IOMMU API has it:
    ///
    /// - A range that begins inside a large leaf removes nothing.
    /// - A range that ends inside a large leaf removes all of it: more bytes than asked for.
    /// - The first hole ends it.
    ///
    /// Tables whose addresses are all claimed go to `gather`, after the range, and so must live
    /// until the caller has flushed. Never fails, allocates, sleeps or takes a lock.
    pub fn unmap(&self, claim: &mut Exclusive, gather: &mut impl Gather<M>) -> u64 {
        let claim = &*claim;
        let mut progress = Progress {
            removed: 0,
            stopped: false,
        };
        let Ok(Some(root)) = self.root(claim) else {
            return 0;
        };
        let range = claim.range();

        gather.add_range(range);
        root.narrow().unmap(claim, gather, &mut progress);

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
        if self.level() == Level::LEAF {
            self.unmap_leaves(progress);
        } else {
            self.unmap_any(claim, gather, progress);
        }
    }

    /// In a table of level 0.
    #[inline(always)]
    fn unmap_leaves(self, progress: &mut Progress) {
        let (first, last) = (self.first_slot(), self.last_slot());
        let mut slot = first;

        while slot <= last {
            let Entry::Leaf { lg2, .. } = F::decode(self.word(slot), Level::LEAF) else {
                progress.stopped = true;
                break;
            };

            match self.unmap_leaf(slot, first, lg2) {
                Some(next) => slot = next,
                None => {
                    progress.stopped = true;
                    break;
                }
            }
        }
        // CAST: An index fits any width.
        progress.removed += ((slot - first) as u64) << F::PAGE_LG2;
        if slot > first {
            self.flush(first, slot - 1);
        }
    }

    /// In a table that may link others.
    fn unmap_any(self, claim: &Exclusive, gather: &mut impl Gather<M>, progress: &mut Progress) {
        let (first, last) = (self.first_slot(), self.last_slot());
        let mut slot = first;
        let mut changed = false;

        while slot <= last {
            match self.get(slot) {
                Slot::Empty => progress.stopped = true,
                Slot::Leaf { lg2, .. } => match self.unmap_leaf(slot, first, lg2) {
                    Some(next) => {
                        changed = true;
                        progress.removed += 1 << lg2;
                        slot = next;
                    }
                    None => progress.stopped = true,
                },
                Slot::Table(child) => {
                    child.unmap(claim, gather, progress);
                    if !progress.stopped {
                        if let Some(table) = self.detach(slot, claim) {
                            changed = true;
                            gather.queue_free(table);
                        }
                        slot += 1;
                    }
                }
            }
            if progress.stopped {
                break;
            }
        }

        if changed {
            self.flush(first, slot - 1);
        }
    }

    /// Empties the entries of the leaf at `slot` and returns the entry behind them; `None` if the
    /// leaf begins before the range, which only one in the `first` entry can.
    #[inline(always)]
    fn unmap_leaf(self, slot: usize, first: usize, lg2: u32) -> Option<usize> {
        if slot == first && self.first() & low_mask(lg2) != 0 {
            return None;
        }

        let next = slot + (1 << (lg2 - self.item_lg2()));

        for slot in slot..next {
            self.clear(slot);
        }
        Some(next)
    }
}
