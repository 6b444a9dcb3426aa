// SPDX-License-Identifier: GPL-2.0

//! Entries that change under devices that use them: a leaf becomes a link to its parts, parts
//! become a leaf again, and an unmap comes in between.
//!
//! Each change is one compare-and-exchange, and the format has to say that hardware may find either
//! word ([`Format::may_replace_live`]). The caller ensures that the new word maps what the old one
//! did.

use super::{
    super::{
        claim::{
            Claim,
            Exclusive, //
        },
        format::{
            Entry,
            Format, //
        },
        table::{
            DetachedTable,
            TableMem, //
        },
        tables::Unlinked, //
    },
    Node,
    TRIES, //
};
use kernel::error::Result;

impl<'t, F: Format, M: TableMem> Node<'t, F, M> {
    /// Allocates a table that [`Node::link`] may link.
    ///
    /// # Errors
    ///
    /// The errors of [`TableMem::alloc`].
    pub(in super::super) fn unlinked(self, flags: M::Flags) -> Result<Unlinked<'t, M>> {
        self.tables.unlinked::<F>(flags)
    }

    /// Links `table`, which maps what the leaf `old` does, into the entry `slot` if that still
    /// holds `old`. Notes in the link what the leaf was a part of.
    ///
    /// Release: a walk that follows the link finds the table filled.
    ///
    /// # Errors
    ///
    /// The table, if the entry has changed, or may not change like that.
    pub(in super::super) fn link(
        self,
        slot: usize,
        old: u64,
        table: Unlinked<'t, M>,
    ) -> Result<(), Unlinked<'t, M>> {
        let link = F::table(table.phys(), self.level) | old & F::PART;

        if F::may_replace_live(old, link, self.level) && self.table.replace(slot, old, link) {
            table.into_linked();
            Ok(())
        } else {
            Err(table)
        }
    }

    /// Writes `new`, which names no other table and maps the same, to the entry `slot` if that
    /// still holds `old`.
    ///
    /// # Errors
    ///
    /// What the entry holds, if it has changed, or may not change like that.
    pub(in super::super) fn exchange(self, slot: usize, old: u64, new: u64) -> Result<(), u64> {
        if !F::may_replace_live(old, new, self.level) {
            return Err(old);
        }
        self.table.exchange(slot, old, new).map(|_| ())
    }

    /// Puts `leaf`, which maps what the table in the entry `slot` does, in the place of the table.
    ///
    /// Returns `None`, and changes nothing, if there is no table, if the claim is not for all
    /// addresses of the entry, or if the entry may not change like that.
    pub(in super::super) fn unlink(
        self,
        slot: usize,
        leaf: u64,
        claim: &Exclusive,
    ) -> Option<DetachedTable<M>> {
        if !claim.range().covers(&self.item(slot)) {
            return None;
        }

        let mut link = self.word(slot);

        for _ in 0..TRIES {
            let Entry::Table(phys) = F::decode(link, self.level) else {
                return None;
            };

            match self.exchange(slot, link, leaf | link & F::PART) {
                Ok(()) => {
                    // SAFETY: As in `child`: the entry named a table of this memory, and nothing
                    // frees it, because all of its addresses are claimed.
                    let table = unsafe { self.tables.mem.virt(phys) };

                    // SAFETY: The only entry that named the table holds a leaf now, and everything
                    // that the table can map is claimed by the caller, as exclusive.
                    return Some(unsafe { DetachedTable::new(table) });
                }
                Err(now) => link = now,
            }
        }
        None
    }

    /// Whether others may split leaves while this walk looks at them.
    #[inline(always)]
    pub(in super::super) fn splits(self) -> bool {
        self.tables.splits
    }

    /// Empties the entry `slot`, which is claimed for changes, if it holds a leaf, even if a
    /// harvest splits the leaf at the same time; returns the binary logarithm of the size of the
    /// leaf.
    ///
    /// Retries only if the hardware or a harvest has changed the word in between: see [`TRIES`].
    pub(in super::super) fn take(self, slot: usize) -> Option<u32> {
        let mut word = self.word(slot);

        loop {
            let Entry::Leaf { lg2, .. } = F::decode(word, self.level) else {
                return None;
            };

            match self.table.exchange(slot, word, 0) {
                Ok(_) => return Some(lg2),
                Err(now) => word = now,
            }
        }
    }
}
