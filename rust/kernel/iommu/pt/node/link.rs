// SPDX-License-Identifier: GPL-2.0

//! Entries that lead past levels, and tables that come between later.
//!
//! A tree that grows by several levels at once has an entry in its new top that leads to the old
//! one, levels below. It translates the addresses of the old top; those between there and the end
//! of the entry have no table yet. The first map that needs one puts it between the two: it makes a
//! table whose first entry leads where the entry leads, and exchanges the entry.
//!
//! What was translated before is translated as before, whether the hardware walks by the old word
//! or by the new one. But hardware may have cached the old word, and find nothing by it where
//! something is mapped from now on. So the map that exchanges the entry has the hardware drop its
//! copies before it maps anything. Another may come by in the meantime, find the entry exchanged,
//! map an address beside it and return, too early. That is what the new word says: it is
//! **unsettled**, in a bit that the hardware ignores, until its copies are dropped. A map that has
//! to pass an unsettled entry to make something settles it first; none waits for another. So all
//! that there is below an unsettled entry is what the old word leads to as well, and an operation
//! that finds all tables there need not care.
//!
//! An entry is exchanged by an operation that claims an address of it, and emptied only by one that
//! claims all of them, so the two never meet; and between two exchanges of one entry it never says
//! the same again. That a compare-and-exchange succeeds says that nothing has changed since the
//! word was read, but for bits of the hardware.

use super::{
    super::{
        addr::Level,
        format::{
            Format,
            Link, //
        },
        gather::Gather,
        table::TableMem, //
    },
    Node,
    Range, //
};
use kernel::error::Result;

impl<F: Format, M: TableMem> Node<'_, F, M> {
    /// Brings the entry on the chosen way, which was found to hold `word`, `link` in words, a step
    /// closer to where a map that needs a table of `level` can pass it. The caller looks at it again.
    ///
    /// # Errors
    ///
    /// Those of [`TableMem::alloc`]; the entry is as it was.
    pub(super) fn pass(
        self,
        word: u64,
        link: Link,
        level: Level,
        flags: M::Flags,
        gather: &mut impl Gather<M>,
    ) -> Result {
        // First, so that no table is put between on top of one that was, which the hardware may not
        // know of.
        if !link.settled {
            self.settle(word, link, gather);
            return Ok(());
        }
        // Another may have been here since it was found to be in the way.
        if self.leads_to(link) && link.level >= level {
            return Ok(());
        }
        self.put_between(word, link, level, flags)
    }

    /// Has the hardware drop what it knows of the entry, and marks it as settled.
    fn settle(self, word: u64, link: Link, gather: &mut impl Gather<M>) {
        let slot = self.slot();
        let settled = Link {
            settled: true,
            ..link
        };

        // The new word first: what is dropped is read again from there.
        self.flush(slot, slot);
        gather.forget_tables(self.item(slot));
        // If it fails, another was faster, or the hardware has set A. The caller looks again.
        let _ = self.table.replace(slot, word, F::link(settled, self.level));
    }

    /// Puts a table between the entry and the one that it leads to, which is not on the chosen way or
    /// below `level`: the lowest that is on that way, and of `level` at least.
    fn put_between(self, word: u64, link: Link, level: Level, flags: M::Flags) -> Result {
        let slot = self.slot();
        // Seen from there, both tables begin at address 0.
        let offset = self.at & self.level.item_mask(F::PAGE_LG2);
        let between = Level::to_reach(F::PAGE_LG2, offset).max(level);
        let table = self
            .tables
            .alloc_above::<F>(F::link(link, between), flags)?;
        let unsettled = Link {
            phys: self.tables.mem.phys(table),
            level: between,
            settled: false,
        };

        if !self
            .table
            .replace(slot, word, F::link(unsettled, self.level))
        {
            // SAFETY: The table was allocated above and never linked.
            unsafe { self.tables.free(table) }
        }
        Ok(())
    }

    /// Whether `link`, of the entry on the chosen way, leads to a table on that way.
    #[inline(always)]
    pub(super) fn leads_to(self, link: Link) -> bool {
        self.reach(self.slot(), link.level)
            .covers(&Range::at(self.at))
    }
}
