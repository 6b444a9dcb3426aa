// SPDX-License-Identifier: GPL-2.0

//! A top above the top: trees that get more levels while they are in use.
//!
//! The new table has the old top in its first entry, so that it translates all that the old one
//! does: by a link that skips levels, if they are far apart and the owner wants that. The hardware is
//! told first, and the word that walks begin with is changed after that. In
//! between, the hardware walks one more table than we do and comes to the same: nobody can have
//! mapped what only the new top covers. Whoever finds the new top in the word can rely on the
//! hardware to have it, without a lock; and the old top can be unlinked, by an unmap of all that it
//! covers, only through the new one.
//!
//! Telling the hardware is for the caller, under the lock that keeps the devices which are attached
//! to the tree together with the top that they were given: see
//! [`Gather::change_top`](super::Gather::change_top).

use super::{
    addr::Level,
    format::{
        Format,
        Link, //
    },
    gather::Gather,
    table::{
        read_once,
        Table,
        TableMem, //
    },
    tree::{
        top_word,
        Top,
        Tree, //
    }, //
};
use core::ptr::NonNull;
use kernel::{
    error::{
        code::*,
        Result, //
    },
    sync::atomic::{
        Atomic,
        Release, //
    }, //
};

/// A top that a tree can have in place of the one that it has.
pub struct NewTop<'t> {
    word: &'t Atomic<u64>,
    old: u64,
    new: u64,
    top: Top,
    published: &'t mut bool,
}

impl NewTop<'_> {
    /// Whether the tree still has the top that this one was made for. If not, there is nothing to do:
    /// somebody else was faster.
    ///
    /// Under a lock that all callers of [`NewTop::publish`] hold, the answer stays true.
    pub fn is_current(&self) -> bool {
        read_once(self.word) == self.old
    }

    /// What to tell the hardware.
    pub fn top(&self) -> Top {
        self.top
    }

    /// Gives the tree the new top, unless somebody was faster. The hardware has it by now.
    pub fn publish(self) {
        // Release: who walks from the new top finds the old one linked.
        *self.published = self.word.cmpxchg(self.old, self.new, Release).is_ok();
    }
}

impl<F: Format, M: TableMem> Tree<'_, F, M> {
    /// Puts a table above `top`, which has `level`: on the way to a top of the level `needed`, or such a
    /// one at once where levels are skipped. Or finds that somebody else has done so.
    ///
    /// # Errors
    ///
    /// `ERANGE` if there is no such level, those of [`TableMem::alloc`], `EIO` if whoever drives the
    /// hardware did not give it the new top.
    #[cold]
    pub(super) fn grow(
        &self,
        top: NonNull<Table>,
        level: Level,
        needed: Level,
        flags: M::Flags,
        gather: &mut impl Gather<M>,
    ) -> Result {
        if needed <= level || needed > self.limits.top_level {
            return Err(ERANGE);
        }

        let tables = self.tables();
        let phys = self.mem.phys(top);
        let (above, first) = if F::SKIPS && self.limits.skip_levels {
            let link = Link {
                phys,
                level,
                settled: true,
            };

            (needed, F::link(link, needed))
        } else {
            (level.above(), F::table(phys, level.above()))
        };
        let table = tables.alloc_above(first, flags)?;
        let old = top_word(top, level);
        let mut published = false;

        gather.change_top(NewTop {
            word: self.top,
            old,
            new: top_word(table, above),
            top: Top {
                phys: self.mem.phys(table),
                levels: above.number() + 1,
            },
            published: &mut published,
        });
        if !published {
            // SAFETY: No walk has seen the table, and by the contract of `change_top()` the hardware
            // has not been told of a top that was not published then.
            unsafe { tables.free(table) }
            // Nobody was faster either: to try again would not end.
            if read_once(self.top) == old {
                return Err(EIO);
            }
        }
        Ok(())
    }
}
