// SPDX-License-Identifier: GPL-2.0

//! The memory of tables, and one table seen from inside a walk.
//!
//! Reading and writing words that the hardware changes at the same time, and following an entry to
//! the table that it names: what is `unsafe` in the page tables is here, but for the promises that
//! `claim.rs` and the formats stand for, and for the top table in `page_table.rs`.

use super::{
    addr::{
        Level,
        PhysAddr,
        Range,
        PAGE_LG2,
        TABLE_ENTRIES, //
    },
    claim::{
        Claim,
        Exclusive, //
    },
    format::{
        Entry,
        Format, //
    }, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::Result,
    sync::atomic::{
        Atomic,
        Release, //
    }, //
};

/// Number of entries that share a cache line.
pub(super) const LINE_ENTRIES: usize = 8;

/// Size of a table in bytes.
pub const TABLE_BYTES: usize = 1 << PAGE_LG2;

/// One table: 512 entries, of which each is read and written as a whole.
///
/// The hardware reads the entries whenever it likes and sets accessed and dirty bits in them by
/// locked read-modify-write cycles, so a table is never borrowed mutably once it is linked.
#[repr(C, align(4096))]
pub struct Table {
    words: [Atomic<u64>; TABLE_ENTRIES],
}

impl Table {
    /// Reads an entry; `READ_ONCE()` of the kernel's memory model.
    #[inline(always)]
    fn load(&self, slot: usize) -> u64 {
        let word = self.words[slot % TABLE_ENTRIES].as_ptr();

        // `Atomic::load` would be a call of a C helper in most kernels, which costs several times
        // the read; a walk over a table must not pay that 512 times.
        //
        // SAFETY: `word` points to an aligned `u64` inside `self`. A volatile read of that size is
        // what the memory model takes for a relaxed atomic one.
        unsafe { word.read_volatile() }
    }

    /// Writes an entry; `WRITE_ONCE()` of the kernel's memory model.
    #[inline(always)]
    fn store(&self, slot: usize, value: u64) {
        let word = self.words[slot % TABLE_ENTRIES].as_ptr();

        // SAFETY: As in `load`.
        unsafe { word.write_volatile(value) }
    }

    /// Reads a cache line of entries and returns the OR and the AND of the words.
    #[inline(always)]
    fn line(&self, line: usize) -> (u64, u64) {
        let first = line * LINE_ENTRIES;
        let mut any = 0;
        let mut all = u64::MAX;

        for slot in first..first + LINE_ENTRIES {
            let word = self.load(slot);

            any |= word;
            all &= word;
        }
        (any, all)
    }
}

/// Where tables live.
///
/// # Safety
///
/// - A pointer from [`TableMem::alloc`] must stay valid for reads and writes of a whole [`Table`],
///   by the processor and by the hardware, until it is passed to [`TableMem::free`].
/// - [`TableMem::virt`] must return that very pointer for what [`TableMem::phys`] returned for it.
/// - A physical address must be aligned to the size of a table.
pub unsafe trait TableMem: Send + Sync {
    /// How to allocate: in the kernel, GFP flags. Says whether the allocation may sleep.
    type Flags: Copy;

    /// Allocates a table of zeroes.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; in that case nothing was allocated.
    fn alloc(&self, flags: Self::Flags) -> Result<NonNull<Table>>;

    /// Gives a table back. Does not sleep.
    ///
    /// # Safety
    ///
    /// `table` came from [`TableMem::alloc`] of `self`, and neither the processor nor the hardware
    /// uses it any more.
    unsafe fn free(&self, table: NonNull<Table>);

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
/// The table is one of the memory, of the type `M`, of a page table. No entry names it, and no claim
/// but that of the operation which detached it passes through it.
#[must_use = "the table leaks unless it is freed after the flush"]
#[derive(Debug)]
pub struct DetachedTable<M: TableMem> {
    table: NonNull<Table>,
    memory: PhantomData<M>,
}

impl<M: TableMem> DetachedTable<M> {
    /// The table, to be handed to [`TableMem::free`] or its like after the flush.
    pub fn into_raw(self) -> NonNull<Table> {
        self.table
    }

    /// Frees the table.
    ///
    /// # Safety
    ///
    /// `mem` is the memory of the page table that the table was detached from, and the hardware's
    /// caches of translations and of table entries were flushed after it was detached.
    pub unsafe fn free(self, mem: &M) {
        // SAFETY: By the type invariant nothing links the table, by the caller's promise the
        // hardware has forgotten it; both and `mem` make the contract of `free`.
        unsafe { mem.free(self.table) }
    }
}

/// What a walk needs of its page table.
pub(super) struct Tables<M> {
    pub(super) mem: M,

    /// Whether the hardware's walks snoop the processor's caches.
    pub(super) coherent: bool,
}

impl<M: TableMem> Tables<M> {
    /// Allocates a table that the hardware sees as zeroes.
    pub(super) fn alloc(&self, flags: M::Flags) -> Result<NonNull<Table>> {
        let table = self.mem.alloc(flags)?;

        if !self.coherent {
            // SAFETY: These are the bytes of the table just allocated.
            unsafe { self.mem.flush(table.cast(), TABLE_BYTES) }
        }
        Ok(table)
    }

    /// Frees a table that was never linked, or whose links and users are gone for good.
    ///
    /// # Safety
    ///
    /// `table` is one of this memory and nobody uses it, the hardware included.
    unsafe fn free(&self, table: NonNull<Table>) {
        // SAFETY: The caller promises the same.
        unsafe { self.mem.free(table) }
    }

    /// Frees `top`, a table of `level`, and every table below.
    ///
    /// # Safety
    ///
    /// `top` is a table of this memory whose entries were written through [`Node`]s of the format
    /// `F`; nobody uses it or a table below, the hardware included.
    pub(super) unsafe fn free_tree<F: Format>(&self, top: NonNull<Table>, level: Level) {
        if let Some(below) = level.below() {
            for slot in 0..TABLE_ENTRIES {
                // SAFETY: A table of this memory is valid until freed, which is below.
                let word = unsafe { top.as_ref() }.load(slot);

                if let Entry::Table(phys) = F::decode(word, level) {
                    // SAFETY: Entries of the format `F` name tables of this memory, see
                    // `Node::install`; nobody uses them, and each is named by one entry only.
                    unsafe { self.free_tree::<F>(self.mem.virt(phys), below) }
                }
            }
        }
        // SAFETY: Nobody uses the table, and the tables that it names are gone.
        unsafe { self.free(top) }
    }
}

/// What an entry holds, seen from a walk.
pub(super) enum Slot<'t, F, M> {
    /// Nothing is mapped.
    Empty,

    /// A table of the level below.
    Table(Node<'t, F, M>),

    /// A leaf: its output address and its size.
    Leaf {
        /// Output address of the first byte.
        phys: PhysAddr,
        /// Binary logarithm of the size.
        lg2: u32,
    },
}

/// A table on the way to claimed addresses.
///
/// # Invariants
///
/// - `table` belongs to `tables.mem`, has `level`, and is the one that the walk for the addresses
///   of `range` passes through; `range` lies within what the table covers.
/// - All of `range` is claimed for `'t`, so that the table is not freed during `'t`.
pub(super) struct Node<'t, F, M> {
    tables: &'t Tables<M>,
    table: &'t Table,
    level: Level,
    range: Range,
    format: PhantomData<F>,
}

impl<F, M> Clone for Node<'_, F, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F, M> Copy for Node<'_, F, M> {}

impl<'t, F: Format, M: TableMem> Node<'t, F, M> {
    /// The top table of a tree, for the addresses that `claim` is for.
    ///
    /// # Safety
    ///
    /// `top` is the top table, of `level`, of the tree in `tables` that `claim` is about, its
    /// entries are written through [`Node`]s of the format `F` only, and it lives for `'t`. The
    /// range of the claim lies within what it covers.
    pub(super) unsafe fn top(
        tables: &'t Tables<M>,
        top: NonNull<Table>,
        level: Level,
        claim: &'t impl Claim,
    ) -> Self {
        // INVARIANT: The caller's promise; the borrow of the claim keeps its range claimed.
        Self {
            tables,
            // SAFETY: The table lives for `'t`, and its words are only accessed as atomics.
            table: unsafe { top.as_ref() },
            level,
            range: claim.range(),
            format: PhantomData,
        }
    }

    /// The level of the table.
    #[inline(always)]
    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// Index of the first entry that claimed addresses use.
    #[inline(always)]
    pub(super) fn first_slot(&self) -> usize {
        self.level.slot(self.range.first())
    }

    /// Index of the last entry that claimed addresses use.
    #[inline(always)]
    pub(super) fn last_slot(&self) -> usize {
        self.level.slot(self.range.last())
    }

    /// All addresses that the entry `slot` stands for, claimed or not.
    #[inline(always)]
    pub(super) fn item(&self, slot: usize) -> Range {
        let base = self.range.first() & !self.level.table_mask();
        // CAST: An index below 512 fits any width.
        let offset = (slot as u64) << self.level.item_lg2();

        Range::block(base | offset, self.level.item_lg2())
    }

    /// The OR and the AND of the eight entries of a cache line.
    ///
    /// Reads entries of other claims as well: they say nothing, but they don't hurt.
    #[inline(always)]
    pub(super) fn line(&self, line: usize) -> (u64, u64) {
        self.table.line(line)
    }

    /// The word of the entry `slot`, for a look at its dirty bits.
    #[inline(always)]
    pub(super) fn word(&self, slot: usize) -> u64 {
        self.table.load(slot)
    }

    /// What the entry `slot` holds.
    ///
    /// Of entries that no claimed address uses, tables read as empty: they may vanish meanwhile.
    #[inline(always)]
    pub(super) fn get(&self, slot: usize) -> Slot<'t, F, M> {
        match F::decode(self.table.load(slot), self.level) {
            Entry::Empty => Slot::Empty,
            Entry::Leaf { phys, lg2 } => Slot::Leaf { phys, lg2 },
            Entry::Table(phys) => match self.level.below() {
                Some(below) if self.first_slot() <= slot && slot <= self.last_slot() => {
                    Slot::Table(self.child(slot, phys, below))
                }
                _ => Slot::Empty,
            },
        }
    }

    #[inline(always)]
    fn child(&self, slot: usize, phys: PhysAddr, below: Level) -> Self {
        // SAFETY:
        // - `phys` was read from an entry that only `install` makes a table of, by the contract of
        //   `Format`; there it came from `phys()` of the same memory.
        // - The entry lies on the way to addresses that are claimed for `'t`, and a table is freed
        //   only by who claims all addresses below it. So the table lives for `'t`.
        // - Its words are only accessed as atomics. They were zeroed before the release in
        //   `install`, and the address dependency orders our reads after it.
        let table = unsafe { self.tables.mem.virt(phys).as_ref() };

        // INVARIANT: The entry leads the addresses of its item to this table; clipped to them, the
        // range lies within the table, and it is a part of what is claimed.
        Self {
            tables: self.tables,
            table,
            level: below,
            range: self.item(slot).clip(&self.range),
            format: PhantomData,
        }
    }

    /// Goes down while there is only one way: past the tables that all claimed addresses pass through
    /// and whose entry they don't use up.
    ///
    /// Most ranges are small, and this is cheaper than the recursion of an operation.
    #[inline(always)]
    pub(super) fn narrow(mut self) -> Self {
        loop {
            let slot = self.first_slot();

            if slot != self.last_slot() || self.range.covers(&self.item(slot)) {
                return self;
            }
            match self.get(slot) {
                Slot::Table(child) => self = child,
                _ => return self,
            }
        }
    }

    /// Links a fresh table into the entry `slot` if that is still empty.
    ///
    /// Others may do the same for their part of the item; who comes second uses the first one's
    /// table. Returns what the entry then holds.
    ///
    /// # Errors
    ///
    /// Those of [`TableMem::alloc`]; the entry is as it was.
    pub(super) fn install(&self, slot: usize, flags: M::Flags) -> Result<Slot<'t, F, M>> {
        let table = self.tables.alloc(flags)?;
        let word = F::table(self.tables.mem.phys(table));

        // Release: who follows the entry finds the table zeroed.
        if self.table.words[slot % TABLE_ENTRIES]
            .cmpxchg(0, word, Release)
            .is_err()
        {
            // SAFETY: The table was allocated above and never linked.
            unsafe { self.tables.free(table) }
        }
        // Also when another linked the table: he may not have come to his flush yet, and this walk
        // is going to promise that the hardware can follow it.
        self.flush(slot, slot);
        Ok(self.get(slot))
    }

    /// Stores a word that is not a table. Hardware that does not snoop sees it after a
    /// [`Node::flush`].
    #[inline(always)]
    fn set(&self, slot: usize, word: u64) {
        self.table.store(slot, word);
    }

    /// Writes the leaf `word` to the entry `slot`, which is empty and claimed for changes.
    #[inline(always)]
    pub(super) fn set_leaf(&self, slot: usize, word: u64) {
        debug_assert!(!matches!(F::decode(word, self.level), Entry::Table(_)));
        self.set(slot, word);
    }

    /// Empties the entry `slot`, which is claimed for changes and holds a leaf.
    #[inline(always)]
    pub(super) fn clear(&self, slot: usize) {
        self.set(slot, 0);
    }

    /// Makes the leaf in the entry `slot`, which was found dirty, clean.
    ///
    /// A load and a store, no locked cycle. Between the two the hardware may set D, and the store
    /// takes it back. That loses nothing:
    ///
    /// - The caller found D set, so this very call reports the page. The write that set D again is
    ///   in memory, at the latest, when the caller's flush is done, and the caller copies the page
    ///   only after that.
    /// - A write after the flush has to walk again, finds D clear, and sets it for the next report.
    /// - Two harvests of one leaf at the same time are no different: each that takes D away reports
    ///   the page, and copies it after its own flush.
    /// - An accessed bit that is lost in the same way is one that nobody reads.
    /// - No other software writes the word meanwhile: the range is claimed as stable.
    ///
    /// All of it hangs on D having been seen set. To store a clean word where D was not seen would
    /// lose the write that sets it in between.
    #[inline(always)]
    pub(super) fn clean(&self, slot: usize) {
        self.set(slot, self.table.load(slot) & !F::DIRTY);
    }

    /// Shows the entries from `first` to `last` to hardware that does not snoop.
    #[inline]
    pub(super) fn flush(&self, first: usize, last: usize) {
        if self.tables.coherent {
            return;
        }

        let first = first % TABLE_ENTRIES;
        let last = last % TABLE_ENTRIES;
        let start = NonNull::from(&self.table.words[first]).cast();
        let bytes = (last - first + 1) * size_of::<u64>();

        // SAFETY: The bytes from entry `first` to entry `last` of one table.
        unsafe { self.tables.mem.flush(start, bytes) }
    }

    /// Takes the table out of the entry `slot`, which is claimed for changes by `claim`.
    ///
    /// Returns `None`, and changes nothing, if there is no table, or if the claim is not for all
    /// addresses of the entry: others may pass through the table then.
    pub(super) fn detach(&self, slot: usize, claim: &Exclusive) -> Option<DetachedTable<M>> {
        let Entry::Table(phys) = F::decode(self.table.load(slot), self.level) else {
            return None;
        };

        if !claim.range().covers(&self.item(slot)) {
            return None;
        }
        self.clear(slot);
        // INVARIANT: The only entry that named the table was just emptied, and everything that it
        // can map is claimed by the caller.
        Some(DetachedTable {
            // SAFETY: As in `child`: the entry named a table of this memory, and nobody frees it,
            // because all of its addresses are claimed.
            table: unsafe { self.tables.mem.virt(phys) },
            memory: PhantomData,
        })
    }
}
