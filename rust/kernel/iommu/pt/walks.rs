// SPDX-License-Identifier: GPL-2.0

//! Walks beside removals: a table outlives the walks that may be in it.
//!
//! A harvest may run while the very range is unmapped. iommufd unmaps a dma-buf that is revoked
//! under `pages->mutex`, and harvests under `iova_rwsem`, held for reading: neither keeps the other
//! out. The unmap must not wait either, since a harvest sleeps to fault the user's bitmap in, and
//! the exporter of the dma-buf holds locks that such a fault may need.
//!
//! So walks are counted. The caller that has unlinked a table, and flushed the hardware,
//! [retires](Walks::retire) it: with no walk under way it is freed at once, else it waits **in
//! limbo** for the last walk that is under way to leave, which frees all that is there.
//!
//! # One word
//!
//! The count and the first table in limbo are one word, which is changed by compare-and-exchange
//! only. With two words, the last walk to leave could free a table that was unlinked later, while a
//! walk that entered later reads it. With one:
//!
//! - The exchange that retires a table finds the count. If it is not 0, the same exchange puts the
//!   table into limbo, so that one of the walks that are counted will find it there.
//! - The exchange that takes the count to 0 empties the limbo. There is no walk at that moment, and
//!   each table in it was unlinked before.
//! - The limbo is empty while the count is 0.
//!
//! # Order
//!
//! The unlinking is a plain store to an entry, entering is an exchange of the word, and both sides
//! go on to read what the other has written: without more, each could miss the other (store
//! buffering). But `retire` exchanges the word as well, even where it finds the count 0 and changes
//! nothing, and exchanges of one word have an order:
//!
//! - If the walk enters *after* that, its exchange reads what `retire` has written, or a later
//!   value. Both are fully ordered, so the walk sees the entry empty and does not come to the
//!   table.
//! - If it enters *before*, `retire` finds it counted.
//!
//! The exchanges by which walks leave are fully ordered as well. The last one comes after all
//! others: what walks have read and written in a table happened before the table is freed.
//!
//! # In limbo
//!
//! Tables in limbo form a list: the first word of each holds the address of the next. A walk that
//! stands in such a table reads that word as an entry, and finds it empty: the address of a table
//! has no bits below [`TABLE_BYTES`], and what makes an entry present, or dirty, is among these in
//! every format (see [`Format`](super::Format)). Walks write to leaves only, by
//! compare-and-exchange.
//!
//! # Pauses
//!
//! All of that is for tables that an unmap has removed, which are empty. Where parts are joined,
//! their table still maps what the leaf does. A walk in it would miss the page whose entry becomes
//! the address of the next table, or split a part and lose the new table. So a join needs a
//! [`Pause`]: no walk is under way or begins while it lasts. Tables that are retired during a pause
//! wait in limbo for its end.

use super::{
    addr::Range,
    claim::{
        private::Sealed,
        Claim,
        Owner, //
    },
    table::{
        read_once,
        DetachedTable,
        Table,
        TableMem,
        TABLE_BYTES, //
    }, //
};
use core::ptr::NonNull;
use kernel::sync::atomic::{
    Atomic,
    Full, //
};

/// The bits of the word that count: those that the address of a table leaves free.
const COUNT: u64 = TABLE_BYTES as u64 - 1;

/// The walks under way in the page tables of one owner, and the tables that wait for them.
///
/// # Invariants
///
/// - `state` has the number of [`Walk`]s in the bits of [`COUNT`], all of them while there is a
///   [`Pause`], and in the others the address of a table, or 0 if there is none, or neither walk
///   nor pause. The first word of each such table is the address of the next, or 0.
/// - These tables came from `mem` or its like, no entry names them, the hardware has forgotten
///   them, and nothing uses them but walks that are counted.
pub struct Walks<M: TableMem> {
    state: Atomic<u64>,
    mem: M,
}

impl<M: TableMem> Walks<M> {
    /// No walks; tables are given back to `mem`.
    pub fn new(mem: M) -> Self {
        // INVARIANT: There are neither walks nor tables.
        Self {
            state: Atomic::new(0),
            mem,
        }
    }

    /// Begins a walk to the addresses of `range` in the page tables that are a part of `owner`.
    /// Does not sleep.
    ///
    /// `None` if there are as many walks as can be counted, 4095, or if there is a [`Pause`]: the
    /// caller has to do without.
    ///
    /// # Safety
    ///
    /// While there is a walk, a table that was detached from a page table in `owner` is freed by
    /// [`Walks::retire`] of `self` only, or after [`Walks::is_idle`] of `self` has said so since.
    pub unsafe fn enter<T>(&self, range: Range, owner: *const T) -> Option<Walk<'_, M>> {
        // INVARIANT: One more walk, which is made below.
        let before = self.update(|state| state + u64::from(state & COUNT != COUNT));

        (before & COUNT != COUNT).then(|| Walk {
            walks: self,
            range,
            owner: Owner::of(owner),
        })
    }

    /// Keeps walks out of the page tables that are a part of `owner`. Does not sleep.
    ///
    /// `None` if there is a walk, or another pause.
    ///
    /// # Safety
    ///
    /// As for [`Walks::enter`]; and no walk of the page tables in `owner` is begun by another
    /// object than `self`.
    pub unsafe fn pause<T>(&self, owner: *const T) -> Option<Pause<'_, M>> {
        // INVARIANT: As many as can be counted, on behalf of the pause that is made below.
        let before = self.update(|state| if state == 0 { COUNT } else { state });

        (before == 0).then(|| Pause {
            walks: self,
            owner: Owner::of(owner),
        })
    }

    /// Whether there is no walk that may stand in a table which was unlinked before this call:
    /// later walks do not find it.
    pub fn is_idle(&self) -> bool {
        // An exchange, though nothing changes: see "Order".
        self.update(|state| state) & COUNT == 0
    }

    /// Frees a table, now or when the walks have left that may stand in it. Does not sleep.
    ///
    /// # Safety
    ///
    /// - `table` was detached from a page table that is a part of an owner, all of whose walks are
    ///   counted by `self`: none was begun by [`Walks::enter`] of another object, and nothing but a
    ///   [`Walk`] or the operation that detached the table stood in it.
    /// - It came from the memory of this object or its like.
    /// - The hardware's caches of translations and of table entries were flushed after it was
    ///   detached.
    pub unsafe fn retire(&self, table: DetachedTable<M>) {
        let table = table.into_raw();
        // INVARIANT: By the invariant of `DetachedTable` and this function's contract: what else
        // may be in the table is counted here.
        let before = self.update(|state| {
            if state & COUNT == 0 {
                return state;
            }
            // SAFETY: Nothing frees the table before it is in limbo, and its words are atomics.
            unsafe { table.as_ref() }.link(state & !COUNT);
            // CAST: An address has at most 64 bits.
            table.as_ptr() as usize as u64 | (state & COUNT)
        });

        if before & COUNT == 0 {
            // SAFETY: Nothing links the table, the hardware has forgotten it, and no walk is in it.
            unsafe { self.mem.free(table) }
        }
    }

    /// Ends what was counted as so many walks, and frees what waited for the last one.
    fn leave(&self, count: u64) {
        // INVARIANT: So many walks less, and no table if they were the last.
        let before = self.update(|state| {
            if state & COUNT == count {
                0
            } else {
                state - count
            }
        });

        if before & COUNT != count {
            return;
        }

        let mut next = before & !COUNT;

        // CAST: An address that `retire()` made a number of.
        while let Some(table) = NonNull::new(next as usize as *mut Table) {
            // SAFETY: By the type invariants the table was in limbo, and it is ours since the
            // exchange.
            next = unsafe { table.as_ref() }.next();
            // SAFETY: By the type invariants nothing used the table but walks, and these have left.
            unsafe { self.mem.free(table) }
        }
    }

    /// Replaces the word by what `to` makes of it; returns what it was.
    ///
    /// Fully ordered. Goes round again only when another has changed the word in between.
    fn update(&self, to: impl Fn(u64) -> u64) -> u64 {
        let mut state = read_once(&self.state);

        loop {
            match self.state.cmpxchg(state, to(state), Full) {
                Ok(before) => return before,
                Err(now) => state = now,
            }
        }
    }
}

/// A walk under way: a claim on a range that may change at any time.
///
/// # Invariants
///
/// It is counted by `walks`, with the promise of [`Walks::enter`] for `owner`.
#[must_use]
pub struct Walk<'w, M: TableMem> {
    walks: &'w Walks<M>,
    range: Range,
    owner: Owner,
}

impl<M: TableMem> Sealed for Walk<'_, M> {
    #[inline(always)]
    fn owner(&self) -> Owner {
        self.owner
    }
}

impl<M: TableMem> Claim for Walk<'_, M> {
    #[inline(always)]
    fn range(&self) -> Range {
        self.range
    }
}

impl<M: TableMem> Drop for Walk<'_, M> {
    fn drop(&mut self) {
        self.walks.leave(1);
    }
}

/// A time without walks.
///
/// # Invariants
///
/// While the value exists, there is no [`Walk`] of a page table that is a part of `owner`.
#[must_use]
pub struct Pause<'w, M: TableMem> {
    walks: &'w Walks<M>,
    owner: Owner,
}

impl<M: TableMem> Pause<'_, M> {
    /// Whether it is about the object that `part` is a part of.
    pub(super) fn is_about<T>(&self, part: &T) -> bool {
        self.owner.has(part)
    }
}

impl<M: TableMem> Drop for Pause<'_, M> {
    fn drop(&mut self) {
        self.walks.leave(COUNT);
    }
}
