// SPDX-License-Identifier: GPL-2.0

//! A top above the top: trees that get more levels while they are in use.
//!
//! The new table has the old top in its first entry, so that it translates all that the old one
//! does. The hardware gets the new top first; after that the word that walks begin with changes. In
//! between, the hardware walks one table more than software does, with the same result: what only
//! the new top covers cannot be mapped yet. A walk that finds the new top in the word can rely on
//! the hardware to have it, without a lock; and the old top can be unlinked, by an unmap of all
//! that it covers, only through the new one.
//!
//! The caller tells the hardware, under the lock that protects the devices which are attached to
//! the tree and the top that they have: see [`Gather::change_top`](super::Gather::change_top).

use super::{
    addr::Level,
    format::Format,
    gather::Gather,
    table::{
        read_once,
        Table,
        TableMem, //
    },
    top::{
        Fate,
        NewTop, //
    },
    tree::{
        top_word,
        Top,
        Tree, //
    }, //
};
use core::ptr::NonNull;
use kernel::error::{
    code::*,
    Result, //
};

impl<F: Format, M: TableMem> Tree<'_, F, M> {
    /// Puts a table above `top`, which has `level`; or finds that another map has done so.
    ///
    /// # Errors
    ///
    /// `ERANGE` if there is no higher level, those of [`TableMem::alloc`], `EIO` if the hardware
    /// was not given the new top.
    #[cold]
    pub(super) fn grow(
        &self,
        top: NonNull<Table>,
        level: Level,
        flags: M::Flags,
        gather: &mut impl Gather<M>,
    ) -> Result {
        let above = level.above(self.limits.top_level).ok_or(ERANGE)?;
        let tables = self.tables();
        let table = tables.alloc::<F>(flags)?;
        let old = top_word(top, level);
        let mut fate = Fate::Unknown;

        // SAFETY: The table was just allocated and no other code has it yet.
        unsafe { table.as_ref() }.store(0, F::table(self.mem.phys(top), above));
        // SAFETY: The table is one of this memory.
        unsafe { tables.flush(table, 0, 0) }
        gather.change_top(NewTop {
            word: self.top,
            old,
            new: top_word(table, above),
            top: Top {
                phys: self.mem.phys(table),
                levels: above.number() + 1,
            },
            fate: &mut fate,
        });
        match fate {
            Fate::Published => return Ok(()),
            // SAFETY: No walk has seen the table, and without its address the hardware
            // cannot have been told.
            Fate::Unknown => unsafe { tables.free(table) },
            // The hardware may have it.
            Fate::Shown => (),
        }
        // No other map was faster either: to try again would not end.
        if read_once(self.top) == old {
            return Err(EIO);
        }
        Ok(())
    }
}
