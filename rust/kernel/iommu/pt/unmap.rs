// SPDX-License-Identifier: GPL-2.0

//! Unmapping: whole leaves, and the tables that nobody can need any more.

use super::{
    claim::{
        Claim,
        Exclusive, //
    },
    format::Format,
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
    fn unmap(&self, claim: &Exclusive, gather: &mut impl Gather<M>, progress: &mut Progress) {
        let (first, last) = (self.first_slot(), self.last_slot());
        let mut slot = first;
        let mut changed = false;

        while slot <= last {
            match self.get(slot) {
                Slot::Empty => progress.stopped = true,
                Slot::Leaf { lg2, .. } => {
                    let item_lg2 = self.item_lg2();
                    let leaf = Range::block(self.item(slot).first(), lg2);

                    if leaf.first() < claim.range().first() {
                        progress.stopped = true;
                        break;
                    }

                    let entries = 1usize << (lg2 - item_lg2);

                    for slot in slot..slot + entries {
                        self.clear(slot);
                    }
                    changed = true;
                    progress.removed += leaf.size();
                    slot += entries;
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
            if progress.stopped {
                break;
            }
        }

        if changed {
            self.flush(first, slot - 1);
        }
    }
}
