// SPDX-License-Identifier: GPL-2.0

//! Addresses, levels and inclusive ranges.
//!
//! A range is written with its *last* address, never with its end: the end of a range that reaches
//! the top of the address space does not exist as a number.

use kernel::error::{
    code::*,
    Result, //
};

/// An I/O virtual address: what the device puts on the bus.
pub type Iova = u64;

/// An output address: what the page table turns an [`Iova`] into.
pub type PhysAddr = u64;

/// Binary logarithm of the number of entries of one table.
pub const TABLE_LG2: u32 = 9;

/// Number of entries of one table.
pub const TABLE_ENTRIES: usize = 1 << TABLE_LG2;

/// Distance of a table from the leaves: level 0 holds the smallest pages.
///
/// Specifications count from different ends and from 0 or 1; this counts like the kernel's generic
/// page tables do. A table with four levels has its top at level 3.
///
/// How many bytes an entry covers depends on the format's smallest page, so the methods that tell
/// it take the binary logarithm of that: [`Format::PAGE_LG2`](super::Format::PAGE_LG2), a constant
/// wherever it matters.
///
/// # Invariants
///
/// At most that of [`Level::MAX`], so that every shift by [`Level::item_lg2`] is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(u32);

impl Level {
    /// The level whose entries are the smallest pages.
    pub const LEAF: Level = Level(0);

    /// The highest level that any format has: the sixth.
    pub const MAX: Level = Level::new(5);

    /// The level with that number; of a number that no level has, the highest.
    #[inline(always)]
    pub(super) const fn new(number: u8) -> Self {
        // INVARIANT: Cut to the highest.
        // CAST: Widens.
        Level(if number > 5 { 5 } else { number as u32 })
    }

    /// The level of the top table of a tree of `levels` levels.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `levels` is zero or more than six.
    pub fn top_of(levels: u8) -> Result<Self> {
        match levels.checked_sub(1) {
            Some(number) if number <= Self::MAX.number() => Ok(Level::new(number)),
            _ => Err(EINVAL),
        }
    }

    /// The level with that number.
    ///
    /// # Safety
    ///
    /// There is one.
    #[inline(always)]
    pub(super) unsafe fn new_unchecked(number: u32) -> Self {
        // INVARIANT: By this function's contract.
        Level(number)
    }

    /// The level whose entries can hold a leaf of `1 << lg2` bytes.
    ///
    /// Sizes between two levels belong to the lower one, where a format may spread one leaf over
    /// several contiguous entries.
    #[inline(always)]
    pub(super) fn of_size(page_lg2: u32, lg2: u32) -> Self {
        // CAST: At most 64 / 9.
        Level::new((lg2.saturating_sub(page_lg2) / TABLE_LG2) as u8)
    }

    /// The number of the level.
    #[inline(always)]
    pub fn number(self) -> u8 {
        // CAST: By the type invariant, five at most.
        self.0 as u8
    }

    /// Binary logarithm of the bytes that one entry of this level covers.
    #[inline(always)]
    pub fn item_lg2(self, page_lg2: u32) -> u32 {
        // At most 12 + 9 * 5 = 57 by the type invariant and the contract of `Format`. Every step of
        // every walk shifts by it: nothing here is checked at run time.
        page_lg2.wrapping_add(TABLE_LG2.wrapping_mul(self.0))
    }

    /// The bits of an address below the entry: the offset into what one entry covers.
    #[inline(always)]
    pub(super) fn item_mask(self, page_lg2: u32) -> u64 {
        // Never 64 bits, see `item_lg2()`.
        !u64::MAX.wrapping_shl(self.item_lg2(page_lg2))
    }

    /// The bits of an address below the table: the offset into what one table covers.
    #[inline(always)]
    pub(super) fn table_mask(self, page_lg2: u32) -> u64 {
        // The mask of the item, and the bits above it that an index takes: the highest level covers
        // more bits than a shift may have.
        (self.item_mask(page_lg2) << TABLE_LG2) | low_mask(TABLE_LG2)
    }

    /// The index of the entry for `iova` in a table of this level.
    #[inline(always)]
    pub(super) fn slot(self, page_lg2: u32, iova: Iova) -> usize {
        // CAST: Masked to nine bits.
        (iova.wrapping_shr(self.item_lg2(page_lg2)) & (TABLE_ENTRIES as u64 - 1)) as usize
    }

    /// The level that tables linked from this one have, if there is one.
    #[inline(always)]
    pub(super) fn below(self) -> Option<Self> {
        // INVARIANT: Smaller than one that satisfies the invariant.
        self.0.checked_sub(1).map(Level)
    }

    /// The level that tables which link to this one have, if it is at most `highest`.
    #[inline]
    pub(super) fn above(self, highest: Self) -> Option<Self> {
        (self < highest).then_some(Level::new(self.number() + 1))
    }
}

/// A mask of the `lg2` lowest bits; all bits from 64 on.
#[inline(always)]
pub(super) const fn low_mask(lg2: u32) -> u64 {
    if lg2 >= u64::BITS {
        u64::MAX
    } else {
        (1 << lg2) - 1
    }
}

/// A range of I/O virtual addresses that includes its last byte.
///
/// # Invariants
///
/// `first <= last`: a range is never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: Iova,
    last: Iova,
}

impl Range {
    /// All addresses.
    // INVARIANT: Zero is not above any.
    pub const ALL: Self = Self {
        first: 0,
        last: Iova::MAX,
    };

    /// The `len` bytes from `iova` on.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `len` is zero, `EOVERFLOW` if the range does not fit 64 bits.
    pub fn new(iova: Iova, len: u64) -> Result<Self> {
        let less_one = len.checked_sub(1).ok_or(EINVAL)?;
        let last = iova.checked_add(less_one).ok_or(EOVERFLOW)?;

        // INVARIANT: The sum did not wrap.
        Ok(Self { first: iova, last })
    }

    /// The bytes from `first` to `last`, both included.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `last` is below `first`.
    pub fn inclusive(first: Iova, last: Iova) -> Result<Self> {
        if last < first {
            return Err(EINVAL);
        }
        // INVARIANT: Just checked.
        Ok(Self { first, last })
    }

    /// The one byte at `iova`.
    pub fn at(iova: Iova) -> Self {
        // INVARIANT: Both are the same address.
        Self {
            first: iova,
            last: iova,
        }
    }

    /// The naturally aligned block of `1 << lg2` bytes around `iova`.
    #[inline(always)]
    pub(super) fn block(iova: Iova, lg2: u32) -> Self {
        let mask = low_mask(lg2);

        Self::with_mask(iova & !mask, mask)
    }

    /// The addresses from `first` to `first` with all bits of `mask` set.
    #[inline(always)]
    pub(super) fn with_mask(first: Iova, mask: u64) -> Self {
        // INVARIANT: The last address has all bits of the first and more.
        Self {
            first,
            last: first | mask,
        }
    }

    /// The first address.
    #[inline(always)]
    pub fn first(&self) -> Iova {
        self.first
    }

    /// The last address; it belongs to the range.
    #[inline(always)]
    pub fn last(&self) -> Iova {
        self.last
    }

    /// The number of bytes, `u64::MAX` for the one range that has more.
    #[inline(always)]
    pub fn size(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    /// Whether every byte of `other` is in `self`.
    #[inline(always)]
    pub fn covers(&self, other: &Range) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// The part of `self` that is in `other` as well; the nearest single byte of `self` if they
    /// have nothing in common.
    #[inline(always)]
    pub(super) fn clip(&self, other: &Range) -> Self {
        let first = self.first.max(other.first).min(self.last);

        // INVARIANT: `max(first)` keeps the order whatever `other` is.
        Self {
            first,
            last: self.last.min(other.last).max(first),
        }
    }

    /// `self` without what lies before `first`; its last byte if that is all.
    #[inline(always)]
    pub(super) fn from(&self, first: Iova) -> Self {
        // INVARIANT: `min(last)` keeps the order.
        Self {
            first: self.first.max(first).min(self.last),
            last: self.last,
        }
    }

    /// `self` with its last address replaced.
    #[inline(always)]
    pub(super) fn until(&self, last: Iova) -> Self {
        // INVARIANT: `max(first)` keeps the order.
        Self {
            first: self.first,
            last: last.max(self.first),
        }
    }
}
