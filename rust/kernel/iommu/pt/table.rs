// SPDX-License-Identifier: GPL-2.0

//! The memory of tables: words that the processor and the hardware both change.
//!
//! The `unsafe` code of the page tables is here; in `tables.rs`, which allocates and frees tables;
//! in `node.rs`, which follows an entry to the table that it names; in `tree.rs`, `page_table.rs`
//! and `grow.rs`, which have the top table; and in `walks.rs`, where tables wait to be freed.
//! Besides, `claim.rs` and the formats make `unsafe` promises.

use super::{
    addr::{
        PhysAddr,
        TABLE_ENTRIES, //
    },
    format::Format, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::{
        code::*,
        Result, //
    },
    sync::atomic::{
        Atomic,
        Relaxed,
        Release, //
    }, //
};

/// `READ_ONCE()` of the kernel's memory model: what is done with the value is ordered after it as
/// far as it depends on it.
///
/// A walk reads an entry and then the table whose address was in it: an address dependency, which
/// is ordered on every architecture that Rust is built for (only Alpha does not order them by
/// itself, and there `READ_ONCE()` of C has a barrier). The compiler keeps it: it knows nothing of
/// the value of a volatile read, and from there to the address of the table there is arithmetic
/// only, no comparison with an address that it knows (`Documentation/RCU/rcu_dereference.rst`).
///
/// `Atomic::load` would be a call of a C helper in most kernels, which costs several times the
/// read; a walk over a table must not pay that 512 times.
#[inline(always)]
pub(super) fn read_once(word: &Atomic<u64>) -> u64 {
    // SAFETY: The pointer is that of an aligned `u64` which lives as long as the reference. A
    // volatile read of that size is what the memory model takes for a relaxed atomic one.
    unsafe { word.as_ptr().read_volatile() }
}

/// `WRITE_ONCE()` of the kernel's memory model.
#[inline(always)]
fn write_once(word: &Atomic<u64>, value: u64) {
    // SAFETY: As in `read_once()`: a volatile write is what the memory model takes for a relaxed
    // atomic one.
    unsafe { word.as_ptr().write_volatile(value) }
}

/// Number of entries that share a cache line.
pub(super) const LINE_ENTRIES: usize = 8;

/// How many entries ahead of a write the cache line is prefetched.
const WRITE_AHEAD: usize = 4 * LINE_ENTRIES;

/// Size of a table in bytes.
pub const TABLE_BYTES: usize = TABLE_ENTRIES * size_of::<u64>();

/// One table: 512 entries, of which each is read and written as a whole.
///
/// The hardware reads the entries whenever it likes and sets accessed and dirty bits in them by
/// locked read-modify-write cycles, so a table is never borrowed mutably once it is linked.
#[repr(C, align(4096))]
pub struct Table {
    words: [Atomic<u64>; TABLE_ENTRIES],
}

impl Table {
    /// Reads an entry.
    #[inline(always)]
    pub(super) fn load(&self, slot: usize) -> u64 {
        read_once(&self.words[slot % TABLE_ENTRIES])
    }

    /// Writes an entry.
    #[inline(always)]
    pub(super) fn store(&self, slot: usize, value: u64) {
        write_once(&self.words[slot % TABLE_ENTRIES], value);
    }

    /// Writes `new` to an entry that is still `old`. Whether it was written.
    ///
    /// Release: a walk that finds the new word, by [`Table::load`], and follows the address in it,
    /// sees what was written to the table that it names before this call, and what the writer had
    /// seen of others by then. That needs no acquire on the other side: see [`read_once`]. A call
    /// that fails orders nothing. A map that lost the race to link a table has to load the entry to
    /// find that of the winner, and is ordered like any walk.
    pub(super) fn replace(&self, slot: usize, old: u64, new: u64) -> bool {
        self.words[slot % TABLE_ENTRIES]
            .cmpxchg(old, new, Release)
            .is_ok()
    }

    /// Writes `new` to an entry that is still `old`, for a word that names no table; or returns
    /// what it is.
    ///
    /// Relaxed: nothing is published. The atomicity is all that counts.
    #[inline(always)]
    pub(super) fn exchange(&self, slot: usize, old: u64, new: u64) -> Result<u64, u64> {
        self.words[slot % TABLE_ENTRIES].cmpxchg(old, new, Relaxed)
    }

    /// Lets the table, which is not linked, lead to the next one in limbo: see `walks.rs`.
    pub(super) fn link(&self, next: u64) {
        self.store(0, next);
    }

    /// The table behind this one in limbo.
    pub(super) fn next(&self) -> u64 {
        self.load(0)
    }

    /// The first entry from `slot` to before `end` whose cache line has a dirty leaf, in whichever
    /// of its entries; `end` if there is none.
    ///
    /// The same lines of `ahead`, which will be looked at soon, are asked for on the way: large
    /// trees do not fit the caches, and the processor by itself does not look beyond a page.
    ///
    /// The cost of a clean page is the cost of this function, which is not inlined, so that nothing
    /// else gets into the loop.
    #[inline(never)]
    pub(super) fn find_dirty<F: Format>(&self, slot: usize, end: usize, ahead: &Self) -> usize {
        // Nothing here overflows for entries of a table, and there are no other entries.
        let first = slot & !(LINE_ENTRIES - 1);
        let last = end.wrapping_add(LINE_ENTRIES - 1) & !(LINE_ENTRIES - 1);
        let Some(entries) = self.words.get(first..last) else {
            return end;
        };
        let mut at = first;
        // Opaque: if the compiler knows that the bit is one of the lower 32, it makes the ORs as
        // narrow, and then each entry needs a load beside its OR: 24 instructions a line, not 17.
        let dirty = core::hint::black_box(F::DIRTY);

        for line in entries.chunks_exact(LINE_ENTRIES) {
            ahead.prefetch(at);
            let any = line
                .iter()
                .fold(0, |any, word| any | F::dirt(read_once(word)));

            if any & dirty != 0 {
                return at.max(slot);
            }
            at = at.wrapping_add(LINE_ENTRIES);
        }
        end
    }

    /// Asks for the cache line of the entry `slot`, which will be read soon.
    #[inline(always)]
    pub(super) fn prefetch(&self, slot: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            // SAFETY: Changes no register and no memory, and does not fault, whatever the address.
            unsafe {
                core::arch::asm!(
                    "prefetcht0 [{table} + 8 * {slot}]",
                    table = in(reg) self,
                    slot = in(reg) slot,
                    options(readonly, nostack, preserves_flags)
                )
            };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = slot;
    }

    /// Empties entries from `slot` on, up to the first whose word is not `wanted` or to before
    /// `end`; returns that one.
    ///
    /// Whole cache lines at once, as long as all of a line is wanted: no read waits for a write
    /// then, and there is one branch for eight entries. A few lines ahead are asked for on the way.
    #[inline(always)]
    pub(super) fn clear_while(
        &self,
        slot: usize,
        end: usize,
        wanted: impl Fn(u64) -> bool,
    ) -> usize {
        let mut next = slot;

        while next < end {
            if next % LINE_ENTRIES == 0 && end - next >= LINE_ENTRIES {
                self.prefetch(next + WRITE_AHEAD);
                if (0..LINE_ENTRIES).fold(true, |all, entry| all & wanted(self.load(next + entry)))
                {
                    (0..LINE_ENTRIES).for_each(|entry| self.store(next + entry, 0));
                    next += LINE_ENTRIES;
                    continue;
                }
            }
            if !wanted(self.load(next)) {
                break;
            }
            self.store(next, 0);
            next += 1;
        }
        next
    }

    /// Writes words to entries from `slot` on, up to the first that is not 0 or to before `end`;
    /// returns that one. Takes whole cache lines at once, as [`Table::clear_while`] does.
    #[inline(always)]
    pub(super) fn fill_empty(&self, slot: usize, end: usize, word: impl Fn(usize) -> u64) -> usize {
        let mut next = slot;

        while next < end {
            if next % LINE_ENTRIES == 0 && end - next >= LINE_ENTRIES {
                self.prefetch(next + WRITE_AHEAD);
                if (0..LINE_ENTRIES).fold(0, |any, entry| any | self.load(next + entry)) == 0 {
                    (0..LINE_ENTRIES)
                        .for_each(|entry| self.store(next + entry, word(next + entry - slot)));
                    next += LINE_ENTRIES;
                    continue;
                }
            }
            if self.load(next) != 0 {
                break;
            }
            self.store(next, word(next - slot));
            next += 1;
        }
        next
    }

    /// Reads a cache line of entries.
    #[inline(always)]
    pub(super) fn line<F: Format>(&self, line: usize) -> Line {
        let first = line * LINE_ENTRIES;
        let mut read = Line {
            any: 0,
            all: u64::MAX,
            any_dirt: 0,
            all_dirt: u64::MAX,
        };

        for slot in first..first + LINE_ENTRIES {
            let word = self.load(slot);

            read.any |= word;
            read.all &= word;
            read.any_dirt |= F::dirt(word);
            read.all_dirt &= F::dirt(word);
        }
        read
    }

    /// Reads a cache line of entries and returns the OR of the words, and a mask of the dirty
    /// entries, the lowest bit for the first.
    #[inline(always)]
    pub(super) fn line_mask<F: Format>(&self, line: usize) -> (u64, u64) {
        let first = line * LINE_ENTRIES;
        let mut any = 0;
        let mut mask = 0u64;

        // From the last entry on, each shifts those behind it: one step an entry.
        for entry in (0..LINE_ENTRIES).rev() {
            let word = self.load(first + entry);

            any |= word;
            // A sum of what has no bit in common: twice one and the other is one instruction.
            mask = mask
                .wrapping_add(mask)
                .wrapping_add(F::dirt(word) & F::DIRTY);
        }
        (any, mask.wrapping_shr(F::DIRTY.trailing_zeros()))
    }
}

/// What the eight entries of a cache line have in common.
pub(super) struct Line {
    /// The OR of the words.
    pub(super) any: u64,
    /// The AND of the words.
    pub(super) all: u64,
    /// The OR of what [`Format::dirt`] makes of them.
    any_dirt: u64,
    /// The AND of that.
    all_dirt: u64,
}

impl Line {
    /// Whether no entry is dirty.
    #[inline(always)]
    pub(super) fn is_clean<F: Format>(&self) -> bool {
        self.any_dirt & F::DIRTY == 0
    }

    /// Whether every entry is dirty.
    #[inline(always)]
    pub(super) fn is_dirty<F: Format>(&self) -> bool {
        self.all_dirt & F::DIRTY != 0
    }
}

/// The memory that tables live in.
///
/// # Safety
///
/// - A pointer from [`TableMem::alloc`] must be that of a table of zeroes which no other code has.
///   It must stay valid for reads and writes of a whole [`Table`], by the processor and by the
///   hardware, until it is passed to [`TableMem::free`] of this memory or its like.
/// - A pointer from [`TableMem::alloc_top`] must be that of as many such tables side by side, which
///   stay valid together until [`TableMem::free_top`]. Their physical addresses must follow each
///   other in the same order, the first aligned to the size of them all.
/// - [`TableMem::virt`] must return that very pointer for what [`TableMem::phys`] returned for it.
/// - A physical address must be aligned to the size of a table. Whether an entry has room for it is
///   checked where tables are allocated.
pub unsafe trait TableMem: Send + Sync {
    /// How to allocate: in the kernel, GFP flags. Says whether the allocation may sleep.
    type Flags: Copy;

    /// Allocates a table, all of whose words are 0.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; in that case nothing was allocated.
    fn alloc(&self, flags: Self::Flags) -> Result<NonNull<Table>>;

    /// Gives a table back. Does not sleep.
    ///
    /// # Safety
    ///
    /// `table` came from [`TableMem::alloc`] of `self` or its like, and neither the processor nor
    /// the hardware uses it any more.
    unsafe fn free(&self, table: NonNull<Table>);

    /// Allocates `1 << lg2` tables side by side, aligned to the size of them all, for the top of a
    /// format that needs more than one ([`Format::TOP_LG2`]); `lg2` is from 1 to 4. Each is a table
    /// as from [`TableMem::alloc`], all of whose words are 0, at the address by its place behind
    /// the first, but is freed with the others by [`TableMem::free_top`]. May sleep if `flags`
    /// allow it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EOPNOTSUPP` for memory that has no such tops; in either case nothing was
    /// allocated.
    fn alloc_top(&self, lg2: u32, flags: Self::Flags) -> Result<NonNull<Table>> {
        let _ = (lg2, flags);
        Err(EOPNOTSUPP)
    }

    /// Gives back what [`TableMem::alloc_top`] has allocated. Does not sleep.
    ///
    /// # Safety
    ///
    /// `top` came from [`TableMem::alloc_top`] of `self` or its like for the same `lg2`, and
    /// neither the processor nor the hardware uses it any more.
    unsafe fn free_top(&self, top: NonNull<Table>, lg2: u32) {
        let _ = (top, lg2);
    }

    /// The address by which the hardware knows `table`, which is one of this memory.
    fn phys(&self, table: NonNull<Table>) -> PhysAddr;

    /// The table at `phys`. On the path of every walk: should compile to an addition.
    ///
    /// # Safety
    ///
    /// `phys` came from [`TableMem::phys`] of `self` for a table that was not freed since.
    unsafe fn virt(&self, phys: PhysAddr) -> NonNull<Table>;

    /// Makes what the processor wrote to `bytes` bytes from `start` on visible to hardware that
    /// does not snoop. Only called for tables whose configuration says so. Does not sleep.
    ///
    /// # Safety
    ///
    /// The bytes lie in one table of this memory.
    unsafe fn flush(&self, start: NonNull<u8>, bytes: usize);
}

/// A table that nothing links any more, but that the hardware may still have cached.
///
/// # Invariants
///
/// The table is one of the memory, of the type `M`, of a page table. No entry names it, and none of
/// an [`Exclusive`](super::Exclusive) or [`Stable`](super::Stable) passes through it but that of
/// the operation which detached it. A [`Walk`](super::Walk) may stand in it.
///
/// # Threads
///
/// It is not `Send`, on purpose: it cannot be kept in an object that threads share, such as a
/// domain, to be freed by a later operation. That could be one on another tree, with a flush and
/// with [`Walks`](super::Walks) that say nothing of this table.
#[must_use = "the table leaks unless it is freed after the flush"]
#[derive(Debug)]
pub struct DetachedTable<M: TableMem> {
    table: NonNull<Table>,
    memory: PhantomData<M>,
    /// Neither `Send` nor `Sync`, whatever the other fields are.
    not_send: PhantomData<*const ()>,
}

impl<M: TableMem> DetachedTable<M> {
    /// Takes note of a table that was detached.
    ///
    /// # Safety
    ///
    /// The type invariant holds for `table`.
    pub(super) unsafe fn new(table: NonNull<Table>) -> Self {
        // INVARIANT: By this function's contract.
        Self {
            table,
            memory: PhantomData,
            not_send: PhantomData,
        }
    }

    /// Takes a table back from a list that tables wait on.
    ///
    /// # Safety
    ///
    /// `table` came from [`DetachedTable::into_raw`] of the same type, and was not freed since.
    pub unsafe fn from_raw(table: NonNull<Table>) -> Self {
        // SAFETY: By this function's contract.
        unsafe { Self::new(table) }
    }

    /// The table, to be handed to [`DetachedTable::from_raw`] or [`TableMem::free`] after the
    /// flush.
    pub fn into_raw(self) -> NonNull<Table> {
        self.table
    }

    /// Frees the table.
    ///
    /// # Safety
    ///
    /// - `mem` is the memory of the page table that the table was detached from.
    /// - The hardware's caches of translations and of table entries were flushed after it was
    ///   detached.
    /// - There is no [`Walk`](super::Walk) of its tree, or
    ///   [`Walks::is_idle`](super::Walks::is_idle) has said so since.
    pub unsafe fn free(self, mem: &M) {
        // SAFETY: By the type invariant nothing links the table and no claim leads to it, by the
        // caller's promise the hardware has forgotten it and no walk is in it; all that and `mem`
        // make the contract of `free`.
        unsafe { mem.free(self.table) }
    }
}
