// SPDX-License-Identifier: GPL-2.0

//! The contract of a page-table format.
//!
//! A format is a type without values that turns table entries into [`Entry`] values and back. It
//! holds no memory, takes no lock and knows nothing of walking: a new format is one file under
//! `fmt/`, and the operations stay as they are.
//!
//! The formats share a shape: tables of 4 KiB with 512 entries of 64 bits, nine address bits a
//! level, an all-zero word for an entry that maps nothing. The top may be several such tables side
//! by side: see [`Format::TOP_LG2`].
//!
//! # Dirty leaves
//!
//! Some hardware records a write by setting a bit of the leaf, other hardware by clearing one. A
//! walk does not know which. It asks [`Format::dirt`], whose result has the bit [`Format::DIRTY`]
//! if the leaf is dirty, and can be ORed and ANDed over a cache line of entries. Where the hardware
//! sets a bit, `dirt` is the word itself and costs nothing. [`Format::clean`] and [`Format::mark`]
//! change a word as far as that.
//!
//! # Parts of leaves
//!
//! A leaf can give way to leaves that translate as it does: see `split.rs`. Two things about that
//! depend on the format: where a dirty bit lands that the hardware sets late
//! ([`Format::LATE_DIRT`]), and where to record that leaves were one leaf ([`Format::PART`]).

use super::addr::{
    Level,
    PhysAddr,
    TABLE_ENTRIES,
    TABLE_LG2, //
};
use kernel::error::Result;

/// The meaning of one table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing is mapped here.
    Empty,

    /// The address of a table of the level below.
    Table(PhysAddr),

    /// A translation.
    Leaf {
        /// Output address of the first byte of the leaf, aligned to its size.
        phys: PhysAddr,

        /// Binary logarithm of the size of the leaf: that of one entry, or more for a leaf which
        /// the format spreads over contiguous entries.
        lg2: u32,
    },
}

/// The permissions of a mapping, independent of any format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prot(u8);

impl Prot {
    /// Nothing at all.
    pub const NONE: Prot = Prot(0);

    /// The device may read.
    pub const READ: Prot = Prot(1 << 0);

    /// The device may write.
    pub const WRITE: Prot = Prot(1 << 1);

    /// Accesses snoop the processor's caches even when the device asks for them not to.
    ///
    /// Formats that state this elsewhere ignore it: for VT-d first-stage tables it is a bit of the
    /// PASID entry.
    pub const SNOOP: Prot = Prot(1 << 2);

    /// The leaf is made as if it had been used, and written through if it may be: accessed, and
    /// dirty. For hardware that walks tables without snooping, and refuses an access for which it
    /// would have to set such a flag. Nothing can be tracked with such leaves.
    ///
    /// Formats with flags that the hardware need not set ignore it.
    pub const USED: Prot = Prot(1 << 3);

    /// What either allows; `|` for constants.
    pub const fn with(self, other: Prot) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all that `other` allows is allowed.
    pub const fn contains(self, other: Prot) -> bool {
        self.0 & other.0 == other.0
    }
}

impl core::ops::BitOr for Prot {
    type Output = Self;

    fn bitor(self, rhs: Self) -> Self {
        self.with(rhs)
    }
}

impl core::ops::BitOrAssign for Prot {
    fn bitor_assign(&mut self, rhs: Self) {
        *self = *self | rhs;
    }
}

/// The bits of a leaf that come from its [`Prot`], computed once for a whole mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attrs(pub(super) u64);

/// A page-table format.
///
/// # Safety
///
/// The operations follow the addresses that [`Format::decode`] reads out of entries, so:
///
/// - for a word made by [`Format::table`] for a level, whatever accessed and dirty bits the
///   hardware adds to it, `decode` must return, at that level, [`Entry::Table`] with the address
///   that the word was made from;
/// - for a word made by [`Format::leaf`] for a size of [`Format::PAGE_SIZES`] at
///   the level of that size, changed likewise or by [`Format::clean`] or [`Format::mark`], `decode`
///   must never return [`Entry::Table`];
/// - whatever the word, an [`Entry::Leaf`] that it returns must be as large as an entry of the
///   level that it was asked for, or smaller than one of the level above;
/// - for a word whose 12 lowest bits are 0 it must return [`Entry::Empty`], and [`Format::dirt`] a
///   word without [`Format::DIRTY`]: 0 is such a word, and the address of a table in limbo (see
///   `walks.rs`).
///
/// The bits of [`Format::LATE_DIRT`] and [`Format::PART`] count as such bits: whichever of them are
/// set, `decode` returns the same.
///
/// Of the constants:
///
/// - [`Format::PAGE_LG2`] is at most 12;
/// - [`Format::TOP_LG2`] is from [`TABLE_LG2`] to four more, and no more than [`TABLE_LG2`] if
///   [`Format::GROWS`] or [`Format::SIGN_EXTENDS`]: both are checked when the code is compiled;
/// - the top has an entry for each address: with `levels` levels, [`Format::input_lg2`] is at most
///   `PAGE_LG2 + 9 * (levels - 1) + TOP_LG2`, or one less with [`Format::SIGN_EXTENDS`];
/// - [`Format::DIRTY`] is 0 or one of the 57 lowest bits, which is checked likewise.
pub unsafe trait Format: Send + Sync + 'static {
    /// A short name for messages and tests.
    const NAME: &'static str;

    /// Binary logarithm of the smallest page, that of level 0.
    const PAGE_LG2: u32 = 12;

    /// The fewest levels that a tree may have.
    const MIN_LEVELS: u8;

    /// The most levels that a tree may have.
    const MAX_LEVELS: u8;

    /// The leaf sizes that the format can hold, a bit for each power of two.
    ///
    /// The lowest is that of level 0; hardware may support fewer than these.
    const PAGE_SIZES: u64;

    /// Binary logarithm of the output addresses that an entry can hold.
    const OUTPUT_LG2: u32;

    /// Binary logarithm of the number of entries of the top: [`TABLE_LG2`], or up to four more for
    /// a top of several tables side by side, which is aligned to its size. Such a tree neither
    /// grows nor sign-extends.
    const TOP_LG2: u32 = TABLE_LG2;

    /// The bit by which [`Format::dirt`] tells dirty leaves, 0 if the hardware notes no writes. One
    /// of the 57 lowest bits.
    ///
    /// The dirty contract, which every format accepts with this constant: a leaf is made clean by
    /// exchanging its word for what [`Format::clean`] makes of it. A write whose translation was
    /// cached before may not make the leaf dirty again until the caller has flushed that
    /// translation; from the end of the flush on, every write finds the leaf clean and marks it.
    /// The hardware marks a leaf as [`Format::mark`] does, by an atomic change of the word.
    const DIRTY: u64;

    /// Whether hardware that does not set the dirty flag itself refuses a write through a clean
    /// leaf.
    ///
    /// To make a leaf clean would take the permission to write then. So dirty tracking needs
    /// hardware that [marks](super::Config::marks) leaves; for other hardware leaves are made with
    /// [`Prot::USED`].
    const DIRTY_PERMITS: bool = false;

    /// The bit of a leaf through which a device may write.
    const WRITABLE: u64;

    /// What tells a leaf that is spread over several contiguous entries: a leaf of level 0 that has
    /// none of these bits has one entry. 0 if there are no such leaves.
    ///
    /// The hardware may set its dirty bits in any of the entries.
    const CONTIGUOUS: u64 = 0;

    /// The bit that a late write may leave in a link; `None` if leaves cannot be split.
    ///
    /// Where a leaf has given way to a link, hardware that has cached the leaf as clean may, until
    /// it is flushed, note a write by setting the dirty bit of the entry that it remembers. This is
    /// that bit, if the hardware ignores it in a link. 0 if the hardware compares the entry with
    /// what it has cached and walks again where they differ. `None` is for hardware of which
    /// neither is known, or which may not see a leaf change its size at all.
    const LATE_DIRT: Option<u64> = None;

    /// Adjacent bits that the hardware ignores in leaves and in links, and that no other code uses:
    /// they note that an entry is a part of what was one leaf, see [`part_lg2`]. One bit or, for a
    /// format whose rows of entries can be split, four. 0 if leaves cannot be split.
    const PART: u64 = 0;

    /// Whether the hardware can be given a top with more levels while it uses the tree.
    const GROWS: bool = false;

    /// Whether input addresses are sign-extended, so that there is an upper half as well.
    const SIGN_EXTENDS: bool = false;

    /// Binary logarithm of the number of input addresses of a tree with `levels` levels.
    ///
    /// Counted from address 0: of a sign-extended space this is the lower half.
    fn input_lg2(levels: u8) -> u32;

    /// What `word` at `level` says.
    fn decode(word: u64, level: Level) -> Entry;

    /// The bits that `prot` amounts to.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the format can't express it; a leaf that allows nothing is always refused.
    fn attrs(prot: Prot) -> Result<Attrs>;

    /// The word for a leaf of `1 << lg2` bytes, placed in a table of `level`.
    ///
    /// The word is clean, unless `attrs` has [`Prot::USED`]: the hardware has accessed and written
    /// nothing through it. For a leaf larger than one entry of `level`, `phys` is the output
    /// address of the part that this entry stands for; else it is that of the leaf.
    fn leaf(phys: PhysAddr, lg2: u32, level: Level, attrs: Attrs) -> u64;

    /// The bits of the leaf `word` of `level` that come from its [`Prot`], with those that the
    /// hardware has changed: another leaf of them allows the same, and is accessed and dirty if
    /// this one is.
    fn leaf_attrs(word: u64, level: Level) -> Attrs;

    /// The word for the table at `phys`, in an entry of `level`; the table is of the level below.
    fn table(phys: PhysAddr, level: Level) -> u64;

    /// Whether none of the entries of a cache line links a table, so that a harvest can pass by the
    /// line if none is dirty either.
    ///
    /// `any` has every bit that is set in any of the words, `all` those that are set in each. May
    /// answer `true` only if none of the words can be a table.
    fn has_no_table(any: u64, all: u64, level: Level) -> bool;

    /// A word that has the bit [`Format::DIRTY`] if `word` is that of a dirty leaf, and lacks it if
    /// `word` is anything else. Its other bits mean nothing.
    #[inline(always)]
    fn dirt(word: u64) -> u64 {
        word
    }

    /// The word of a dirty leaf, made clean.
    #[inline(always)]
    fn clean(word: u64) -> u64 {
        word & !Self::DIRTY
    }

    /// The word of a leaf, made dirty as the hardware does: [`Format::dirt`] of it has
    /// [`Format::DIRTY`], and [`Format::clean`] takes that back. Size, address and permissions
    /// stay. A leaf that may not be written to stays one: it may be dirty after this, or as it was.
    #[inline(always)]
    fn mark(word: u64) -> u64 {
        word | Self::DIRTY
    }

    /// Whether the entry of `level` that holds `old`, which devices may use at any moment, may be
    /// exchanged for `new` by one store, without an empty entry and a flush in between, so that no
    /// access fails or goes elsewhere than `old` or `new` say.
    ///
    /// Each format names the section of its specification that says so. Neither word is
    /// [`Entry::Empty`]. Where one is a table and the other a leaf, the caller answers for what is
    /// in the table.
    fn may_replace_live(old: u64, new: u64, level: Level) -> bool;
}

/// Binary logarithm of the number of entries that were one leaf together, of which `word` is one;
/// 0 if it is none of such: a leaf that was mapped, or a table that was needed.
#[inline]
pub(super) fn part_lg2<F: Format>(word: u64) -> u32 {
    match word & F::PART {
        0 => 0,
        part if part == F::PART => TABLE_LG2,
        // CAST: Four bits.
        part => (part >> F::PART.trailing_zeros()) as u32,
    }
}

/// The words that `make` makes for the entries of a table: faster than that, where the number of
/// the entry comes to one field of the word.
pub(super) struct Words<M> {
    make: M,
    first: u64,
    step: Option<u64>,
}

impl<M: Fn(usize) -> u64> Words<M> {
    /// `make` puts the bits of a number anywhere in the word, and otherwise makes the same.
    #[inline]
    pub(super) fn new(make: M) -> Self {
        const LAST: usize = TABLE_ENTRIES - 1;
        let first = make(0);
        let step = make(1).wrapping_sub(first);
        // CAST: A number of entries fits any width.
        let last = first.wrapping_add(step.wrapping_mul(LAST as u64));
        let is_field = make(LAST) == last;

        Self {
            make,
            first,
            step: is_field.then_some(step),
        }
    }

    /// The word for the entry with that number.
    #[inline]
    pub(super) fn word(&self, number: usize) -> u64 {
        match self.step {
            // CAST: A number of entries fits any width.
            Some(step) => self.first.wrapping_add(step.wrapping_mul(number as u64)),
            None => (self.make)(number),
        }
    }
}

/// What [`part_lg2`] reads as `lg2`: from 1 to [`TABLE_LG2`], no less than that if the format has
/// one bit for it.
#[inline]
pub(super) fn part_bits<F: Format>(lg2: u32) -> u64 {
    const { assert!(matches!(F::PART.count_ones(), 0..=2 | 4)) };
    if lg2 == TABLE_LG2 {
        F::PART
    } else {
        (u64::from(lg2) << (F::PART.trailing_zeros() % u64::BITS)) & F::PART
    }
}
