// SPDX-License-Identifier: GPL-2.0

//! A tree of tables, whatever owns it.
//!
//! The operations work on a [`Tree`], which borrows what it needs and can be made whenever it is
//! needed: [`PageTable`](super::PageTable) owns what a Rust driver's domain needs, and a C
//! structure can own the same.

use super::{
    addr::{
        low_mask,
        Iova,
        Level,
        PhysAddr,
        TABLE_LG2, //
    },
    claim::Claim,
    format::Format,
    limits::Limits,
    node::{
        Node,
        Slot, //
    },
    table::{
        read_once,
        Table,
        TableMem, //
    },
    tables::{
        part_of,
        parts_lg2,
        Tables, //
    }, //
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
    sync::atomic::Atomic, //
};

/// What to tell the hardware about the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Top {
    /// Address of the top table.
    pub phys: PhysAddr,

    /// Number of levels, the top included.
    pub levels: u8,
}

/// The bits of the word of the top that hold its level: its alignment leaves them free.
const LEVEL_BITS: u64 = 0x7;

/// A top table and its level in one word, so that a reader sees an address and the level that
/// belongs to it even while a format adds a top above the top.
pub(super) fn top_word(table: NonNull<Table>, level: Level) -> u64 {
    // CAST: An address has at most 64 bits.
    table.as_ptr() as usize as u64 | u64::from(level.number())
}

/// A tree in the format `F`, in tables from `M`.
///
/// Many threads may use one at the same time, in any context, as long as they keep to the ranges
/// that they claim: see [`claim`](super::claim).
///
/// # Invariants
///
/// - `top` holds the address of a table of the memory `mem`, with its level in the bits that its
///   alignment leaves free. The tree below is written by walks of `F` only.
/// - The tables are unlinked only by operations that claim them, but for the top, which lives for
///   `'t`.
/// - `limits` suit the format: its page sizes are among [`Format::PAGE_SIZES`], and its addresses
///   use entries of a top of `limits.top_level` only, which is the level of the top if the format
///   does not grow.
pub struct Tree<'t, F, M> {
    pub(super) mem: &'t M,
    pub(super) top: &'t Atomic<u64>,
    pub(super) limits: Limits,
    format: PhantomData<F>,
}

impl<F, M> Clone for Tree<'_, F, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F, M> Copy for Tree<'_, F, M> {}

impl<F: Format, M: TableMem> Tree<'_, F, M> {
    /// Makes the word for the `top` of a tree that maps nothing, with `levels` levels.
    ///
    /// May sleep if `flags` allow it. The caller frees the tree with [`Tree::free`].
    ///
    /// # Errors
    ///
    /// `EINVAL` for an impossible number of levels, `ENOMEM`.
    pub fn new_top(mem: &M, coherent: bool, levels: u8, flags: M::Flags) -> Result<u64> {
        let level = Level::top_of(levels)?;

        let tables = Tables {
            mem,
            coherent,
            splits: false,
        };

        Ok(top_word(tables.alloc_top::<F>(flags)?, level))
    }
}

impl<'t, F: Format, M: TableMem> Tree<'t, F, M> {
    /// The tree whose top is in `top`.
    ///
    /// # Safety
    ///
    /// - `top` holds a word of [`Tree::new_top`] for memory that is the same as `mem`, or what an
    ///   operation on the same tree made of it.
    /// - `limits.page_sizes` are among [`Format::PAGE_SIZES`] and smaller than a tree whose top is
    ///   of `limits.top_level`, and such a tree covers `limits.aperture_last`; with
    ///   `limits.sign_extend` it covers one bit more. If the format does not grow,
    ///   `limits.top_level` is that of the top.
    /// - [`Tree::free`] is not called for the tree during `'t`.
    #[inline(always)]
    pub unsafe fn from_parts(mem: &'t M, top: &'t Atomic<u64>, limits: Limits) -> Self {
        // INVARIANT: By this function's contract.
        Self {
            mem,
            top,
            limits,
            format: PhantomData,
        }
    }

    #[inline(always)]
    pub(super) fn tables(&self) -> Tables<'t, M> {
        Tables {
            mem: self.mem,
            coherent: self.limits.coherent,
            splits: self.limits.splits,
        }
    }

    /// The top table, as the hardware is told.
    pub fn top(&self) -> Top {
        let (table, level) = self.top_table();

        Top {
            phys: self.mem.phys(table),
            levels: level.number() + 1,
        }
    }

    /// Whether [`Tree::read_and_clear_dirty`] can work.
    ///
    /// Not if the format has no dirty bits, and not if the hardware walks incoherently: what it
    /// writes to an entry in memory and what we flush out of the cache overwrite each other. Nor if
    /// a clean leaf would refuse writes, see [`Format::DIRTY_PERMITS`].
    pub fn can_track_dirty(&self) -> bool {
        const { assert!(F::DIRTY.count_ones() <= 1 && F::DIRTY >> 57 == 0) };
        F::DIRTY != 0 && self.limits.coherent && (self.limits.marks || !F::DIRTY_PERMITS)
    }

    /// Whether [`Tree::read_and_split_dirty`] and [`Tree::split`] can work: they are for trees that
    /// were made for it, and whose format says where a late dirty bit lands.
    pub fn can_split(&self) -> bool {
        self.limits.splits && F::LATE_DIRT.is_some() && F::PART != 0 && self.can_track_dirty()
    }

    /// The top table and its level, as they are now.
    #[inline(always)]
    pub(super) fn top_table(&self) -> (NonNull<Table>, Level) {
        let word = read_once(self.top);
        // SAFETY: By the type invariants these bits are the number of a level.
        // CAST: Three bits.
        let level = unsafe { Level::new_unchecked((word & LEVEL_BITS) as u32) };
        // CAST: An address that `top_word()` made a number of.
        let table = (word & !LEVEL_BITS) as usize as *mut Table;

        // SAFETY: By the type invariants this is the address of a table, so it is not null.
        (unsafe { NonNull::new_unchecked(table) }, level)
    }

    /// Whether `claim` is about this tree, and not about another domain's: see
    /// [`claim`](super::claim).
    #[inline(always)]
    pub(super) fn is_claimed_by(&self, claim: &impl Claim) -> bool {
        claim.is_about(self.top)
    }

    /// The top table, for a walk to the claimed addresses; empty if they all lie beyond what it
    /// covers, so that nothing is mapped there.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the claim is about another tree, `ERANGE` if it reaches beyond the aperture.
    #[inline(always)]
    pub(super) fn root<'c>(&self, claim: &'c impl Claim) -> Result<Slot<'c, F, M>>
    where
        't: 'c,
    {
        self.root_from(claim, claim.range().first())
    }

    /// The table of the top for the claimed addresses from `first` on, as far as it covers them;
    /// empty as for [`Tree::root`].
    ///
    /// # Errors
    ///
    /// The errors of [`Tree::root`].
    #[inline(always)]
    pub(super) fn root_from<'c>(&self, claim: &'c impl Claim, first: Iova) -> Result<Slot<'c, F, M>>
    where
        't: 'c,
    {
        let mut range = claim.range();

        if !self.is_claimed_by(claim) {
            return Err(EINVAL);
        }
        if !self.limits.hold(&range) {
            return Err(ERANGE);
        }

        let (mut top, level) = self.top_table();

        if F::GROWS {
            let last = low_mask(level.item_lg2(F::PAGE_LG2) + TABLE_LG2);

            if range.first() > last {
                return Ok(Slot::Empty);
            }
            range = range.until(range.last().min(last));
        }
        if parts_lg2::<F>() != 0 {
            let lg2 = level.item_lg2(F::PAGE_LG2) + TABLE_LG2;

            range = range.from(first);
            // CAST: Masked to the number of tables of a top.
            let part = (range.first().wrapping_shr(lg2) & low_mask(parts_lg2::<F>())) as usize;

            range = range.until(range.last().min(range.first() | low_mask(lg2)));
            top = part_of(top, part).ok_or(ERANGE)?;
        }
        // SAFETY: By the type invariants this is the top table of this tree or, of a top of
        // several, one of them, with its level, and it lives for `'t`. The claim is about this
        // tree. The range was cut to what the table covers, or the limits hold it, and the table
        // covers them.
        Ok(Slot::Table(unsafe {
            Node::top(self.tables(), top, level, range, claim)
        }))
    }

    /// Calls `work` for each table of the top that claimed addresses pass through, in ascending
    /// order, until it returns `false`: for the one table that the top of most formats is. Not for
    /// what is beyond the top.
    ///
    /// # Errors
    ///
    /// The errors of [`Tree::root`].
    #[inline(always)]
    pub(super) fn each_root<'c>(
        &self,
        claim: &'c impl Claim,
        mut work: impl FnMut(Node<'c, F, M>) -> bool,
    ) -> Result
    where
        't: 'c,
    {
        let mut first = claim.range().first();

        while let Slot::Table(root) = self.root_from(claim, first)? {
            let go_on = work(root);

            if parts_lg2::<F>() == 0 || !go_on || root.last() == claim.range().last() {
                break;
            }
            first = root.last() + 1;
        }
        Ok(())
    }

    /// Frees all tables.
    ///
    /// # Safety
    ///
    /// Nothing uses the tree, now or later, the hardware and its caches included.
    pub unsafe fn free(self) {
        let (top, level) = self.top_table();

        // SAFETY: By the type invariants the top is a table of this memory, written by walks of
        // `F`; the rest is the caller's promise.
        unsafe { self.tables().free_tree::<F>(top, level) }
    }
}
