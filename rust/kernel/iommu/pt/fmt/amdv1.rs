// SPDX-License-Identifier: GPL-2.0

//! AMD v1 tables: host translations of AMD-Vi.
//!
//! AMD I/O Virtualization Technology (IOMMU) Specification, section 2.2.3 "I/O Page Tables for Host
//! Translations". Levels count from 1 there; level 0 here is the specification's level 1.
//!
//! # Next level
//!
//! Each entry names the level of what it points to (bits 11:9): 1 to 6 for a table, 0 for a leaf of
//! the size of the entry, 7 for a leaf whose size is coded in its address.
//!
//! A table may be several levels below the entry, which then translates addresses with zeros in the
//! bits of the levels between. This code makes no such entry, as in C: it would save a table only
//! where a tree grows by more than one level at once, until the first mapping in between, and every
//! walk would have to check for it. A walk that comes across one, or across a next level that is
//! not below, takes it for a word that this code did not write: nothing is mapped, and a map that
//! needs a table there fails with `EIO`.
//!
//! # Size-coded leaves
//!
//! With next level 7 a leaf can have any power of two between the sizes of two levels. It takes a
//! row of entries with the same word in each. The size is the number of ones at the low end of the
//! address field, whose bits the alignment of the leaf leaves free: none for twice the smallest
//! page, each one more doubles it (table "Example Page Size Encodings").
//!
//! The hardware walks to whichever entry of the row an access falls on, and sets A and D in that
//! one alone. A leaf is dirty if any of its entries is, and clean only when all of them are.
//!
//! 512 GiB is left out: hardware is known to mistranslate such leaves.
//!
//! The entries of a row can become leaves of the size of an entry, one by one: in between, some of
//! them are for the whole row and others for their own part, and each translates alike.
//!
//! # Accessed and dirty
//!
//! The hardware maintains A and D only where the device table entry asks for it (HAD).

use super::super::{
    addr::{
        low_mask,
        Level,
        PhysAddr,
        TABLE_LG2, //
    },
    format::{
        Attrs,
        Entry,
        Format,
        Prot, //
    }, //
};
use super::shared::ADDRESS;
use kernel::error::{
    code::*,
    Result, //
};

/// PR: the entry is present.
const PR: u64 = 1 << 0;

/// A: the entry was used.
const A: u64 = 1 << 5;

/// D: a write went through this entry of a leaf.
const D: u64 = 1 << 6;

/// Bits 4:1, which are ignored in every entry.
const PART: u64 = 0xf << 1;

/// Next Level: what the entry points to.
const NEXT_LEVEL: u64 = 7 << NEXT_LEVEL_SHIFT;

const NEXT_LEVEL_SHIFT: u32 = 9;

/// The next level of a leaf whose size is coded in its address: all bits of the field.
const SIZE_CODED: u64 = NEXT_LEVEL;

/// FC: accesses snoop the processor's caches.
const FC: u64 = 1 << 60;

/// IR: reads are allowed.
const IR: u64 = 1 << 61;

/// IW: writes are allowed.
const IW: u64 = 1 << 62;

/// The lowest bit of the address field.
const ADDRESS_SHIFT: u32 = 12;

/// AMD v1 tables with pages of `1 << PAGE_LG2` bytes at level 0, and at most `LEVELS` levels.
pub enum AmdV1Pages<const PAGE_LG2: u32, const LEVELS: u8> {}

/// The tables that the hardware walks.
pub type AmdV1 = AmdV1Pages<12, 6>;

/// The tables of iommufd's selftest: like those of the hardware, with pages of 2 KiB, so that pages
/// smaller than the processor's are tested. The address field counts pages.
pub type AmdV1Mock = AmdV1Pages<11, 5>;

impl<const PAGE_LG2: u32, const LEVELS: u8> AmdV1Pages<PAGE_LG2, LEVELS> {
    /// The address field for `phys`.
    #[inline(always)]
    fn field(phys: PhysAddr) -> u64 {
        ((phys >> PAGE_LG2) << ADDRESS_SHIFT) & ADDRESS
    }

    /// The address in an address field.
    #[inline(always)]
    fn address(word: u64) -> PhysAddr {
        ((word & ADDRESS) >> ADDRESS_SHIFT) << PAGE_LG2
    }

    /// The leaf of a word whose size is coded, if it is one of those between this level and the
    /// next.
    #[inline(always)]
    fn size_coded(word: u64, level: Level) -> Entry {
        let ones = ((word & ADDRESS) >> ADDRESS_SHIFT).trailing_ones();
        let lg2 = PAGE_LG2 + ones + 1;

        if lg2.wrapping_sub(level.item_lg2(PAGE_LG2)) >= TABLE_LG2 {
            return Entry::Empty;
        }
        Entry::Leaf {
            phys: Self::address(word) & !low_mask(lg2),
            lg2,
        }
    }

    /// Whether `part` is a leaf of one entry of `level`, for what an entry of the row that `row` is
    /// in stands for.
    fn is_part(row: u64, part: u64, level: Level) -> bool {
        let kept = !(A | D | PART | NEXT_LEVEL | ADDRESS);

        match (Self::decode(row, level), Self::decode(part, level)) {
            (Entry::Leaf { phys, lg2 }, Entry::Leaf { phys: of, lg2: one }) => {
                one == level.item_lg2(PAGE_LG2)
                    && lg2 > one
                    && of & !low_mask(lg2) == phys
                    && (row ^ part) & kept == 0
            }
            _ => false,
        }
    }

    /// The leaf sizes: each power of two up to the largest that an address can be aligned to in a
    /// table below the highest, which has no leaves; but for 512 GiB.
    const fn page_sizes() -> u64 {
        let above = PAGE_LG2 + 9 * (LEVELS as u32 - 1);
        let last = if above < 52 { above } else { 52 };

        low_mask(last) & !low_mask(PAGE_LG2) & !(1 << 39)
    }
}

// SAFETY: `table()` sets PR and a next level of 1 to 5, since no table is made at level 0, and the
// bits that hardware adds (A and D, 5 and 6), and bits 4:1, are none of those that `decode` tells
// tables and addresses by; it takes no size that is not between that of the level and the next.
// `leaf()` sets next level 0 or 7. PR, D and the next level are among the 12 lowest bits, and a
// word without PR is empty. The address field holds whole pages of at most 4 KiB, so the address of
// a table, which is aligned to 4 KiB, reads back.
unsafe impl<const PAGE_LG2: u32, const LEVELS: u8> Format for AmdV1Pages<PAGE_LG2, LEVELS> {
    const NAME: &'static str = "amdv1";
    const PAGE_LG2: u32 = PAGE_LG2;
    const MIN_LEVELS: u8 = 1;
    const MAX_LEVELS: u8 = LEVELS;
    const PAGE_SIZES: u64 = Self::page_sizes();
    const OUTPUT_LG2: u32 = 40 + PAGE_LG2;
    const DIRTY: u64 = D;
    const WRITABLE: u64 = IW;
    const CONTIGUOUS: u64 = NEXT_LEVEL;
    // Ignored in entries that are not leaves, where bits 8:6 are.
    const LATE_DIRT: Option<u64> = Some(D);
    const PART: u64 = PART;
    const GROWS: bool = true;

    /// Six levels resolve more bits than an address has.
    #[inline]
    fn input_lg2(levels: u8) -> u32 {
        (PAGE_LG2 + 9 * u32::from(levels)).min(u64::BITS)
    }

    #[inline(always)]
    fn decode(word: u64, level: Level) -> Entry {
        if word & PR == 0 {
            return Entry::Empty;
        }
        match word & NEXT_LEVEL {
            0 => Entry::Leaf {
                phys: Self::address(word) & !level.item_mask(PAGE_LG2),
                lg2: level.item_lg2(PAGE_LG2),
            },
            SIZE_CODED => Self::size_coded(word, level),
            // The specification's number of the level below is ours of this one.
            next if next == u64::from(level.number()) << NEXT_LEVEL_SHIFT => {
                Entry::Table(Self::address(word))
            }
            _ => Entry::Empty,
        }
    }

    fn attrs(prot: Prot) -> Result<Attrs> {
        let mut word = 0;

        if prot.contains(Prot::READ) {
            word |= IR;
        }
        if prot.contains(Prot::WRITE) {
            word |= IW;
        }
        if word == 0 {
            return Err(EINVAL);
        }
        if prot.contains(Prot::SNOOP) {
            word |= FC;
        }
        Ok(Attrs(word | PR))
    }

    #[inline(always)]
    fn leaf(phys: PhysAddr, lg2: u32, level: Level, attrs: Attrs) -> u64 {
        let word = Self::field(phys & !low_mask(lg2)) | attrs.0;

        if lg2 == level.item_lg2(PAGE_LG2) {
            word
        } else {
            // OVERFLOW: A size between two levels is at least twice the smallest page.
            word | SIZE_CODED | low_mask(lg2 - PAGE_LG2 - 1) << ADDRESS_SHIFT
        }
    }

    #[inline]
    fn leaf_attrs(word: u64, _level: Level) -> Attrs {
        Attrs(word & (PR | A | D | FC | IR | IW))
    }

    /// Tables allow everything: the leaf decides, since the hardware takes the AND of all levels.
    #[inline]
    fn table(phys: PhysAddr, level: Level) -> u64 {
        Self::field(phys) | u64::from(level.number()) << NEXT_LEVEL_SHIFT | IR | IW | PR
    }

    /// Above level 0, a line without a next level has no tables, and neither has one in which every
    /// entry is size-coded; any other mixture costs it a closer look.
    #[inline(always)]
    fn has_no_table(any: u64, all: u64, level: Level) -> bool {
        level == Level::LEAF || any & NEXT_LEVEL == 0 || all & NEXT_LEVEL == SIZE_CODED
    }

    /// Section 2.4.3 "INVALIDATE_IOMMU_PAGES": until that command has completed, the IOMMU may use
    /// the old entry or the new one.
    #[inline]
    fn may_replace_live(old: u64, new: u64, level: Level) -> bool {
        super::shared::may_coexist::<Self>(old, new, level, A | D, IR | IW)
            || Self::is_part(old, new, level)
            || Self::is_part(new, old, level)
    }
}
