// SPDX-License-Identifier: GPL-2.0

//! VT-d second-stage tables.
//!
//! Intel Virtualization Technology for Directed I/O, sections 3.7 "Second-Stage Translation" and
//! 9.8 "Second-Stage Paging Entries". The specification's names by level:
//!
//! | level | entry     | leaf  |
//! |-------|-----------|-------|
//! | 0     | SS-PTE    | 4 KiB |
//! | 1     | SS-PDE    | 2 MiB |
//! | 2     | SS-PDPE   | 1 GiB |
//! | 3     | SS-PML4E  | none  |
//! | 4     | SS-PML5E  | none  |
//!
//! The hardware maintains the accessed and dirty bits only while second-stage access/dirty
//! (SSADE) is on in the PASID entry; otherwise it ignores them.

use super::super::{
    addr::{
        low_mask,
        Level,
        PhysAddr, //
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

/// R: reads are allowed. An entry with neither R nor W is not present.
const R: u64 = 1 << 0;

/// W: writes are allowed.
const W: u64 = 1 << 1;

/// A: the entry was used.
const A: u64 = 1 << 8;

/// D: a write went through this leaf.
const D: u64 = 1 << 9;

/// SNP: accesses through this leaf snoop. Reserved in entries that are not leaves.
const SNP: u64 = 1 << 11;

/// One of the bits 61:52, which are ignored in every entry.
const PART: u64 = 1 << 52;

/// VT-d second-stage tables.
pub enum VtdSs {}

// SAFETY: `table()` sets R and W and leaves PS clear, at level 0 no table is made, and the bits
// that hardware adds (A and D, 8 and 9), and bit 52, are none of those that `decode` tells tables
// and addresses by; `leaf()` sets PS above level 0, where alone `decode` can answer `Table`, and
// `PAGE_SIZES` ends at level 2. R, W and D are among the 12 lowest bits; a word with neither R nor
// W is empty.
unsafe impl Format for VtdSs {
    const NAME: &'static str = "vtdss";
    const MIN_LEVELS: u8 = 3;
    const MAX_LEVELS: u8 = 5;
    const PAGE_SIZES: u64 = super::shared::PAGE_SIZES;
    const OUTPUT_LG2: u32 = 52;
    const DIRTY: u64 = D;
    const WRITABLE: u64 = W;
    // Ignored in entries that are not leaves.
    const LATE_DIRT: Option<u64> = Some(D);
    const PART: u64 = PART;

    /// Second-stage input addresses are guest-physical: zero-extended.
    #[inline]
    fn input_lg2(levels: u8) -> u32 {
        12 + 9 * u32::from(levels)
    }

    #[inline(always)]
    fn decode(word: u64, level: Level) -> Entry {
        if word & (R | W) == 0 {
            Entry::Empty
        } else if super::shared::is_leaf(word, level) {
            // The address bits below a leaf's size are reserved, and `leaf()` leaves them clear.
            Entry::Leaf {
                phys: word & ADDRESS,
                lg2: level.item_lg2(Self::PAGE_LG2),
            }
        } else {
            Entry::Table(word & ADDRESS)
        }
    }

    fn attrs(prot: Prot) -> Result<Attrs> {
        let mut word = 0;

        if prot.contains(Prot::READ) {
            word |= R;
        }
        if prot.contains(Prot::WRITE) {
            word |= W;
        }
        if word == 0 {
            return Err(EINVAL);
        }
        if prot.contains(Prot::SNOOP) {
            word |= SNP;
        }
        Ok(Attrs(word))
    }

    #[inline(always)]
    fn leaf(phys: PhysAddr, lg2: u32, level: Level, attrs: Attrs) -> u64 {
        (phys & ADDRESS & !low_mask(lg2)) | super::shared::page_size_bit(level) | attrs.0
    }

    #[inline]
    fn leaf_attrs(word: u64, _level: Level) -> Attrs {
        Attrs(word & (R | W | A | D | SNP))
    }

    /// Tables allow everything: the leaf decides, since the hardware takes the AND of all levels.
    #[inline]
    fn table(phys: PhysAddr, _level: Level) -> u64 {
        (phys & ADDRESS) | R | W
    }

    #[inline(always)]
    fn has_no_table(any: u64, all: u64, level: Level) -> bool {
        super::shared::has_no_table(any, all, level)
    }

    /// Section 6.2 "Address Translation Caches": until the invalidation, an access may use the old
    /// entry or the new one.
    #[inline]
    fn may_replace_live(old: u64, new: u64, level: Level) -> bool {
        super::shared::may_coexist::<Self>(old, new, level, A | D, R | W)
    }
}
