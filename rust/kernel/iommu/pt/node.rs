// SPDX-License-Identifier: GPL-2.0

//! One table seen from inside a walk: following entries, linking and unlinking tables.
//!
//! The operations are written on [`Node`] and need no `unsafe`: that a table which an entry names
//! is still there is shown here, once, from what the walk claims.

mod reshape;

use super::{
    addr::{
        Iova,
        Level,
        PhysAddr,
        Range, //
    },
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
        Line,
        Table,
        TableMem, //
    },
    tables::Tables, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::error::{
    code::*,
    Result, //
};

/// How often an exchange is tried, because the hardware may change the entry at the same time.
///
/// It sets A once, and D once for each time that a leaf is made clean.
pub(super) const TRIES: usize = 4;

/// The contents of an entry, seen from a walk.
///
/// The tag has a separate byte. Without `repr(u8)` the compiler encodes it in spare values of a
/// flag of the node, and each step of a walk loads and compares that flag.
#[repr(u8)]
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
/// - `table` belongs to the memory `tables.mem`, has `level`, and is the one that the walk for `at`
///   passes through. Its entries are written through nodes of the format `F`.
/// - `at` is an address of `range`. All of `range` is claimed for `'t`, in one way or another, so
///   that the table is not freed during `'t`; the table may cover a part of it only.
pub(super) struct Node<'t, F, M> {
    tables: Tables<'t, M>,
    table: &'t Table,
    level: Level,
    at: Iova,
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
    /// The top table of a tree, for `range`, which is a part of what `claim` is for.
    ///
    /// # Safety
    ///
    /// `top` is the top table, of `level`, of the tree in `tables` that `claim` is about, its
    /// entries are written through [`Node`]s of the format `F` only, and it lives for `'t`. `range`
    /// lies within the claim's, and within what the table covers.
    #[inline(always)]
    pub(super) unsafe fn top(
        tables: Tables<'t, M>,
        top: NonNull<Table>,
        level: Level,
        range: Range,
        _claim: &'t impl Claim,
    ) -> Self {
        // INVARIANT: The caller's promise; the borrow of the claim keeps its range claimed.
        Self {
            tables,
            // SAFETY: The table lives for `'t`, and its words are only accessed as atomics.
            table: unsafe { top.as_ref() },
            level,
            at: range.first(),
            range,
            format: PhantomData,
        }
    }

    /// The level of the table.
    #[inline(always)]
    pub(super) fn level(self) -> Level {
        self.level
    }

    /// The same node if it is one of level 0, with a level that the compiler knows.
    #[inline(always)]
    pub(super) fn of_leaves(self) -> Option<Self> {
        (self.level == Level::LEAF).then_some(Self {
            // INVARIANT: Just checked.
            level: Level::LEAF,
            ..self
        })
    }

    /// Binary logarithm of the bytes that one entry stands for.
    #[inline(always)]
    pub(super) fn item_lg2(self) -> u32 {
        self.level.item_lg2(F::PAGE_LG2)
    }

    /// The first address that the table covers.
    #[inline(always)]
    fn base(self) -> Iova {
        self.at & !self.level.table_mask(F::PAGE_LG2)
    }

    /// The first claimed address that the table covers.
    #[inline(always)]
    pub(super) fn first(self) -> Iova {
        self.range.first().max(self.base())
    }

    /// The last of the claimed addresses that the node is for.
    #[inline(always)]
    pub(super) fn last(self) -> Iova {
        self.range.last()
    }

    /// Whether the claimed addresses begin in the middle of what the table covers.
    #[inline(always)]
    pub(super) fn begins_inside(self) -> bool {
        self.range.first() > self.base()
    }

    /// Whether the claimed addresses end in the middle of what the table covers.
    #[inline(always)]
    pub(super) fn ends_inside(self) -> bool {
        self.range.last() < self.at | self.level.table_mask(F::PAGE_LG2)
    }

    /// Index of the first entry that claimed addresses use.
    #[inline(always)]
    pub(super) fn first_slot(self) -> usize {
        self.level.slot(F::PAGE_LG2, self.first())
    }

    /// Index of the last entry that claimed addresses use.
    #[inline(always)]
    pub(super) fn last_slot(self) -> usize {
        let last = self.at | self.level.table_mask(F::PAGE_LG2);

        self.level.slot(F::PAGE_LG2, self.range.last().min(last))
    }

    /// Index of the entry on the way that was chosen: see [`Node::toward`].
    #[inline(always)]
    pub(super) fn slot(self) -> usize {
        self.level.slot(F::PAGE_LG2, self.at)
    }

    /// The node with the way to `iova` chosen, instead of that to the first claimed address; unless
    /// `iova` is not claimed, or lies beyond the table.
    #[inline(always)]
    pub(super) fn toward(mut self, iova: Iova) -> Self {
        if self.range.covers(&Range::at(iova))
            && (iova ^ self.at) & !self.level.table_mask(F::PAGE_LG2) == 0
        {
            // INVARIANT: The address is claimed, and on the same table.
            self.at = iova;
        }
        self
    }

    /// All addresses that the entry `slot` stands for, claimed or not.
    #[inline(always)]
    pub(super) fn item(self, slot: usize) -> Range {
        // CAST: An index below 512 fits any width.
        let first = self.base() | (slot as u64).wrapping_shl(self.item_lg2());

        Range::with_mask(first, self.level.item_mask(F::PAGE_LG2))
    }

    /// All addresses that the entries from `slot` to before `end`, at least one, stand for.
    #[inline(always)]
    pub(super) fn items(self, slot: usize, end: usize) -> Range {
        self.item(slot).until(self.item(end - 1).last())
    }

    /// The entries of a leaf of `1 << lg2` bytes that `slot` belongs to.
    #[inline]
    pub(super) fn row(self, slot: usize, lg2: u32) -> core::ops::Range<usize> {
        let entries = 1usize << (lg2 - self.item_lg2());
        let head = slot & !(entries - 1);

        head..head + entries
    }

    /// The addresses of a leaf of `1 << lg2` bytes that `slot` belongs to.
    #[inline]
    pub(super) fn leaf(self, slot: usize, lg2: u32) -> Range {
        Range::block(self.item(slot).first(), lg2)
    }

    /// The first entry from `slot` to before `end` whose cache line has a dirty entry, or `end`.
    /// Asks for the same lines of `ahead` on the way.
    #[inline(always)]
    pub(super) fn find_dirty(self, slot: usize, end: usize, ahead: Self) -> usize {
        self.table.find_dirty::<F>(slot, end, ahead.table)
    }

    /// Asks for the cache line of the entry `slot`, which will be looked at soon.
    #[inline(always)]
    pub(super) fn prefetch(self, slot: usize) {
        self.table.prefetch(slot);
    }

    /// What the eight entries of a cache line have in common.
    ///
    /// Reads entries of other claims as well: they say nothing, but they don't hurt.
    #[inline(always)]
    pub(super) fn line(self, line: usize) -> Line {
        self.table.line::<F>(line)
    }

    /// The OR of the eight entries of a cache line, and a mask of the dirty ones.
    #[inline(always)]
    pub(super) fn line_mask(self, line: usize) -> (u64, u64) {
        self.table.line_mask::<F>(line)
    }

    /// The word of the entry `slot`, for a look at its bits.
    #[inline(always)]
    pub(super) fn word(self, slot: usize) -> u64 {
        self.table.load(slot)
    }

    /// What the entry `slot` holds.
    ///
    /// In entries that no claimed address uses, tables read as empty: they may be freed at any
    /// time.
    #[inline(always)]
    pub(super) fn get(self, slot: usize) -> Slot<'t, F, M> {
        self.read(slot, self.word(slot))
    }

    /// What the entry `slot` holds if its word is `word`, which was read from it.
    #[inline(always)]
    pub(super) fn read(self, slot: usize, word: u64) -> Slot<'t, F, M> {
        match F::decode(word, self.level) {
            Entry::Empty => Slot::Empty,
            Entry::Leaf { phys, lg2 } => Slot::Leaf { phys, lg2 },
            Entry::Table(phys) => {
                let item = self.item(slot);
                let at = self.range.first().max(item.first());

                if at <= item.last() && at <= self.range.last() {
                    // It was just checked that the entry is for `at`, and that `at` is claimed.
                    self.child(phys, at)
                } else {
                    Slot::Empty
                }
            }
        }
    }

    /// What the entry on the chosen way holds; a table of it has the same way chosen.
    #[inline(always)]
    pub(super) fn get_on_way(self) -> Slot<'t, F, M> {
        match F::decode(self.table.load(self.slot()), self.level) {
            Entry::Empty => Slot::Empty,
            Entry::Leaf { phys, lg2 } => Slot::Leaf { phys, lg2 },
            Entry::Table(phys) => self.child(phys, self.at),
        }
    }

    /// The table at `phys`, which was read from the entry for `at`, a claimed address.
    #[inline(always)]
    fn child(self, phys: PhysAddr, at: Iova) -> Slot<'t, F, M> {
        let Some(level) = self.level.below() else {
            return Slot::Empty;
        };
        // SAFETY:
        // - `phys` was read from an entry that only `install`, `link` and `Tree::grow` make a table
        //   of, by the contract of `Format`; there it came from `phys()` of the same memory.
        // - The entry lies on the way to an address that is claimed for `'t`. If it is claimed as
        //   exclusive or stable, no other operation has the claim that it takes to unlink the
        //   table. If it is claimed for a walk, the table was not unlinked when the walk began, so
        //   it is not freed before the walk ends: see `walks.rs`. So the table lives for `'t`.
        // - Its words are only accessed as atomics. They were zeroed before the release that linked
        //   it, and the address dependency orders our reads after it: see `read_once()`.
        let table = unsafe { self.tables.mem.virt(phys).as_ref() };

        // INVARIANT: The entry leads the walk for `at` to this table.
        Slot::Table(Self {
            tables: self.tables,
            table,
            level,
            at,
            range: self.range,
            format: PhantomData,
        })
    }

    /// Descends while there is only one way: past the tables that all claimed addresses pass
    /// through and whose entry they do not cover.
    ///
    /// Most ranges are small, and this is cheaper than the recursion of an operation.
    #[inline(always)]
    pub(super) fn narrow(self) -> Self {
        let (first, last) = (self.range.first(), self.range.last());
        let differ = first ^ last;
        // Above this level first and last use the same entry.
        let mut stop = Level::of_size(F::PAGE_LG2, differ.checked_ilog2().unwrap_or(0));

        // A range that is all of an entry, no more and no less, ends at that entry.
        if differ.trailing_ones() + differ.leading_zeros() == u64::BITS && first & differ == 0 {
            stop = Level::of_size(F::PAGE_LG2, differ.trailing_ones());
        }

        self.descend(stop, |node, _| node)
    }

    /// Follows the chosen way down to the table of level `stop`, or to the first whose entry on the
    /// way is not a table; returns what `end` makes of that table and that entry.
    ///
    /// The loop is over numbers that are known when it is compiled, and a walk enters it at the
    /// level that it is at. So each step is compiled for its level: shifts and masks are constants,
    /// and what a format asks of a level is decided. That halves the instructions of a step.
    #[inline(always)]
    pub(super) fn descend<R>(self, stop: Level, end: impl Fn(Self, Slot<'t, F, M>) -> R) -> R {
        let mut node = self;

        for number in (0..F::MAX_LEVELS).rev() {
            if node.level == Level::new(number) {
                match node.get_on_way() {
                    Slot::Table(child) if node.level > stop => node = child,
                    slot => return end(node, slot),
                }
            }
        }
        // Not reached: level 0, the last of the loop, has no tables in it.
        end(node, Slot::Empty)
    }

    /// What `end` makes of the entry on the chosen way that is not a table.
    ///
    /// As [`Node::descend`], but `end` is compiled for each level as well, and finds the size of a
    /// leaf decided: a loop would leave through one `end` for all levels.
    #[inline(always)]
    pub(super) fn descend_to_end<R>(self, end: impl Fn(Slot<'t, F, M>) -> R) -> R {
        let mut node = self;

        node.step_at(5, &end)
            .or_else(|| node.step_at(4, &end))
            .or_else(|| node.step_at(3, &end))
            .or_else(|| node.step_at(2, &end))
            .or_else(|| node.step_at(1, &end))
            .or_else(|| node.step_at(0, &end))
            // Not reached: level 0 has no tables in it.
            .unwrap_or_else(|| end(Slot::Empty))
    }

    /// A step of [`Node::descend_to_end`], if the walk is at the level with that number: down the
    /// chosen way, or what `end` makes of what is there instead.
    #[inline(always)]
    fn step_at<R>(&mut self, number: u8, end: &impl Fn(Slot<'t, F, M>) -> R) -> Option<R> {
        if number >= F::MAX_LEVELS || self.level != Level::new(number) {
            return None;
        }
        match self.get_on_way() {
            Slot::Table(child) => {
                *self = child;
                None
            }
            slot => Some(end(slot)),
        }
    }

    /// Links a fresh table into the entry on the chosen way if that is still empty. Hardware that
    /// does not snoop sees it after a [`Node::flush`].
    ///
    /// Others may do the same for their part of the item; the one that comes second uses the first
    /// one's table. The entry is not empty after that.
    ///
    /// # Errors
    ///
    /// The errors of [`TableMem::alloc`], `EIO` if other code has written to the table; the entry
    /// is as it was.
    #[cold]
    pub(super) fn install(self, flags: M::Flags) -> Result {
        let slot = self.slot();
        let table = self.tables.unlinked::<F>(flags)?;

        // A walk that follows the entry finds the table zeroed.
        if self
            .table
            .replace(slot, 0, F::table(table.phys(), self.level))
        {
            table.into_linked();
        } else if F::decode(self.table.load(slot), self.level) == Entry::Empty {
            // This code did not write a word that is neither 0 nor maps anything: to try again
            // would not end.
            return Err(EIO);
        }
        Ok(())
    }

    /// Whether `word` may take the place of what is in the entry `slot` while devices use it: an
    /// empty entry is used by none.
    fn may_set(self, slot: usize, word: u64) -> bool {
        let old = self.table.load(slot);

        F::decode(old, self.level) == Entry::Empty || F::may_replace_live(old, word, self.level)
    }

    /// Writes the leaf `word` to the entry `slot`, which is empty and claimed for changes. Hardware
    /// that does not snoop sees it after a [`Node::flush`].
    #[inline(always)]
    pub(super) fn set_leaf(self, slot: usize, word: u64) {
        debug_assert!(!matches!(F::decode(word, self.level), Entry::Table(_)));
        debug_assert!(self.may_set(slot, word));
        self.table.store(slot, word);
    }

    /// Writes leaves of one entry each to the entries from `slot` on, all of which are claimed for
    /// changes, up to the first that is not empty or to before `end`; returns that one. `word`
    /// makes the leaf that goes that many entries behind `slot`.
    #[inline(always)]
    pub(super) fn set_leaves(self, slot: usize, end: usize, word: impl Fn(usize) -> u64) -> usize {
        self.table.fill_empty(slot, end, word)
    }

    /// Empties the entry `slot`, which is claimed for changes and holds a leaf.
    #[inline(always)]
    pub(super) fn clear(self, slot: usize) {
        self.table.store(slot, 0);
    }

    /// Empties leaves of one entry each from the entry `slot` on, all of which are claimed for
    /// changes, up to the first entry that holds something else or to before `end`; returns that
    /// one.
    #[inline(always)]
    pub(super) fn clear_leaves(self, slot: usize, end: usize, level: Level) -> usize {
        let lg2 = level.item_lg2(F::PAGE_LG2);

        self.table.clear_while(
            slot,
            end,
            |word| matches!(F::decode(word, level), Entry::Leaf { lg2: found, .. } if found == lg2),
        )
    }

    /// Makes the entry `slot` of a leaf of `1 << lg2` bytes, which was found dirty, clean.
    ///
    /// By a compare-and-exchange that gives up when the word is not that of a dirty leaf of that
    /// size: another may have unmapped the leaf, or put a table in its place. Whatever leaf of that
    /// size is in the entry has the addresses that the caller reports, so it does not matter
    /// whether it is the one that was found.
    ///
    /// When the exchange fails the hardware has set A, which it does once, or another harvest has
    /// made the leaf clean and the hardware has set D again. It is tried a few times. A leaf that
    /// stays dirty is reported again, no more than that.
    ///
    /// A write that the hardware makes while this goes on is not lost: see
    /// `Documentation/driver-api/rust-iommu/dirty.rst`.
    #[inline(always)]
    pub(super) fn clean(self, slot: usize, lg2: u32) {
        let mut word = self.table.load(slot);

        for _ in 0..TRIES {
            let is_dirty = F::dirt(word) & F::DIRTY != 0
                && matches!(
                    F::decode(word, self.level),
                    Entry::Leaf { lg2: found, .. } if found == lg2
                );

            if !is_dirty {
                return;
            }

            let clean = F::clean(word);

            debug_assert!(F::may_replace_live(word, clean, self.level));
            match self.table.exchange(slot, word, clean) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Makes the leaf in the entry on the chosen way dirty, as the hardware would. Whether the
    /// entry was still as it was read for that.
    pub(super) fn mark(self) -> bool {
        let slot = self.slot();
        let word = self.table.load(slot);

        if !matches!(F::decode(word, self.level), Entry::Leaf { .. }) {
            return false;
        }

        let marked = F::mark(word);

        debug_assert!(F::may_replace_live(word, marked, self.level));
        self.table.replace(slot, word, marked)
    }

    /// Shows the entries from `first` to `last` to hardware that does not snoop.
    #[inline]
    pub(super) fn flush(self, first: usize, last: usize) {
        // SAFETY: By the type invariant, the table is one of this memory.
        unsafe { self.tables.flush(NonNull::from(self.table), first, last) }
    }

    /// Takes the table out of the entry `slot`, which is claimed for changes by `claim`.
    ///
    /// Returns `None`, and changes nothing, if there is no table, or if the claim is not for all
    /// addresses of the entry: others may pass through the table then. Walks may do so in any case.
    pub(super) fn detach(self, slot: usize, claim: &Exclusive) -> Option<DetachedTable<M>> {
        let Entry::Table(phys) = F::decode(self.table.load(slot), self.level) else {
            return None;
        };

        if !claim.range().covers(&self.item(slot)) {
            return None;
        }
        self.clear(slot);
        // SAFETY: As in `child`: the entry named a table of this memory, and nothing frees it,
        // because all of its addresses are claimed.
        let table = unsafe { self.tables.mem.virt(phys) };

        // SAFETY: The only entry that named the table was just emptied, and everything that it can
        // map is claimed by the caller, as exclusive.
        Some(unsafe { DetachedTable::new(table) })
    }
}
