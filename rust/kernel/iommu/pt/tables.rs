// SPDX-License-Identifier: GPL-2.0

//! The tables of one tree: allocated, shown to the hardware, freed.

use super::{
    addr::{
        low_mask,
        Level,
        PhysAddr,
        TABLE_ENTRIES,
        TABLE_LG2, //
    },
    format::{
        Entry,
        Format, //
    },
    table::{
        Table,
        TableMem, //
    }, //
};
use core::ptr::NonNull;
use kernel::error::{
    code::*,
    Result, //
};

/// Binary logarithm of the number of tables that the top of a tree of `F` has side by side.
#[inline(always)]
pub(super) const fn parts_lg2<F: Format>() -> u32 {
    const { assert!(F::TOP_LG2 == TABLE_LG2 || !F::GROWS && !F::SIGN_EXTENDS) };
    const { assert!(F::TOP_LG2 >= TABLE_LG2 && F::TOP_LG2 <= TABLE_LG2 + 4) };
    F::TOP_LG2 - TABLE_LG2
}

/// The tables of a top, ascending.
#[inline(always)]
fn parts<F: Format>(top: NonNull<Table>) -> impl Iterator<Item = NonNull<Table>> {
    (0..1usize << parts_lg2::<F>()).filter_map(move |part| part_of(top, part))
}

/// The table with that number of a top.
#[inline(always)]
pub(super) fn part_of(top: NonNull<Table>, part: usize) -> Option<NonNull<Table>> {
    NonNull::new(top.as_ptr().wrapping_add(part))
}

/// The memory of one tree, and how its hardware sees it.
pub(super) struct Tables<'t, M> {
    pub(super) mem: &'t M,

    /// Whether the hardware's walks snoop the processor's caches.
    pub(super) coherent: bool,

    /// Whether leaves may become tables while others look at them.
    pub(super) splits: bool,
}

impl<M> Clone for Tables<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Tables<'_, M> {}

/// A table that no entry names yet: the operation that has allocated it has it for itself.
///
/// # Invariants
///
/// `table` came from [`Tables::alloc`] of `tables`, and nothing else knows of it.
pub(super) struct Unlinked<'t, M: TableMem> {
    tables: Tables<'t, M>,
    table: NonNull<Table>,
}

impl<M: TableMem> Unlinked<'_, M> {
    /// The address by which the hardware will know it.
    pub(super) fn phys(&self) -> PhysAddr {
        self.tables.mem.phys(self.table)
    }

    /// Writes every entry; `word` makes what goes to an entry. Not for hardware that does not
    /// snoop.
    pub(super) fn fill(&mut self, word: impl Fn(usize) -> u64) {
        // SAFETY: By the type invariants the table is there, and its words are only accessed as
        // atomics.
        let table = unsafe { self.table.as_ref() };

        for slot in 0..TABLE_ENTRIES {
            table.store(slot, word(slot));
        }
    }

    /// Gives the table to the entry that names it now.
    pub(super) fn into_linked(self) {
        core::mem::forget(self);
    }
}

impl<M: TableMem> Drop for Unlinked<'_, M> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants nothing uses the table.
        unsafe { self.tables.free(self.table) }
    }
}

impl<'t, M: TableMem> Tables<'t, M> {
    /// Allocates a table for an entry to name.
    ///
    /// # Errors
    ///
    /// The errors of [`Tables::alloc`].
    pub(super) fn unlinked<F: Format>(&self, flags: M::Flags) -> Result<Unlinked<'t, M>> {
        // INVARIANT: Just allocated.
        Ok(Unlinked {
            tables: *self,
            table: self.alloc::<F>(flags)?,
        })
    }

    /// Allocates a table that the hardware sees as zeroes.
    ///
    /// # Errors
    ///
    /// The errors of [`TableMem::alloc`], `ERANGE` if it lies where no entry of the format can lead
    /// to.
    pub(super) fn alloc<F: Format>(&self, flags: M::Flags) -> Result<NonNull<Table>> {
        let table = self.mem.alloc(flags)?;

        if self.mem.phys(table) & !low_mask(F::OUTPUT_LG2) != 0 {
            // SAFETY: The table was just allocated, and never linked.
            unsafe { self.free(table) }
            return Err(ERANGE);
        }
        // SAFETY: The table was just allocated.
        unsafe { self.flush(table, 0, TABLE_ENTRIES - 1) }
        Ok(table)
    }

    /// Allocates the first top of a tree, as [`Tables::alloc`] does a table.
    ///
    /// # Errors
    ///
    /// The errors of [`TableMem::alloc`], [`TableMem::alloc_top`] and [`Tables::alloc`].
    pub(super) fn alloc_top<F: Format>(&self, flags: M::Flags) -> Result<NonNull<Table>> {
        let lg2 = parts_lg2::<F>();

        if lg2 == 0 {
            return self.alloc::<F>(flags);
        }

        let top = self.mem.alloc_top(lg2, flags)?;

        if self.mem.phys(top) & !low_mask(F::OUTPUT_LG2) != 0 {
            // SAFETY: The top was just allocated, and is unknown to the hardware.
            unsafe { self.mem.free_top(top, lg2) }
            return Err(ERANGE);
        }
        for part in parts::<F>(top) {
            // SAFETY: One of the tables that were just allocated.
            unsafe { self.flush(part, 0, TABLE_ENTRIES - 1) }
        }
        Ok(top)
    }

    /// Shows the entries from `first` to `last` to hardware that does not snoop.
    ///
    /// # Safety
    ///
    /// `table` is one of this memory.
    #[inline]
    pub(super) unsafe fn flush(&self, table: NonNull<Table>, first: usize, last: usize) {
        if self.coherent {
            return;
        }

        let first = first % TABLE_ENTRIES;
        let last = last % TABLE_ENTRIES;
        let start = table.cast::<u64>().as_ptr().wrapping_add(first).cast();
        let bytes = (last - first + 1) * size_of::<u64>();

        if let Some(start) = NonNull::new(start) {
            // SAFETY: The bytes from entry `first` to entry `last` of one table of this memory.
            unsafe { self.mem.flush(start, bytes) }
        }
    }

    /// Frees a table that was never linked, or whose links and users are gone for good.
    ///
    /// # Safety
    ///
    /// `table` is one of this memory and nothing uses it, the hardware included.
    pub(super) unsafe fn free(&self, table: NonNull<Table>) {
        // SAFETY: The caller promises the same.
        unsafe { self.mem.free(table) }
    }

    /// Frees `top`, of `level`, and every table below.
    ///
    /// # Safety
    ///
    /// `top` came from [`Tables::alloc_top`], or from [`Tables::alloc`] if the format grows. Its
    /// entries were written by walks of the format `F`; nothing uses it or a table below, the
    /// hardware included.
    pub(super) unsafe fn free_tree<F: Format>(&self, top: NonNull<Table>, level: Level) {
        let lg2 = parts_lg2::<F>();

        for part in parts::<F>(top) {
            // SAFETY: A table of the top; the rest is the caller's promise.
            unsafe { self.free_below::<F>(part, level) }
        }
        if lg2 == 0 {
            // SAFETY: Nothing uses the table, and the tables that it names are gone.
            unsafe { self.free(top) }
        } else {
            // SAFETY: As above; `alloc_top()` has got it from the memory with the same number.
            unsafe { self.mem.free_top(top, lg2) }
        }
    }

    /// Frees every table below `table`, which has `level`.
    ///
    /// # Safety
    ///
    /// `table` is a table of this memory whose entries were written by walks of the format `F`;
    /// nothing uses it or a table below, the hardware included.
    unsafe fn free_below<F: Format>(&self, table: NonNull<Table>, level: Level) {
        let Some(below) = level.below() else {
            return;
        };

        for slot in 0..TABLE_ENTRIES {
            // SAFETY: A table of this memory is valid until freed, and the caller frees it later.
            let word = unsafe { table.as_ref() }.load(slot);

            if let Entry::Table(phys) = F::decode(word, level) {
                // SAFETY: Entries of the format `F` name tables of this memory, see
                // `Node::install`.
                let child = unsafe { self.mem.virt(phys) };

                // SAFETY: As above; nothing uses the tables below, and each is named by one entry
                // only.
                unsafe { self.free_below::<F>(child, below) }
                // SAFETY: Nothing uses the table, and the tables that it names are gone.
                unsafe { self.free(child) }
            }
        }
    }
}
