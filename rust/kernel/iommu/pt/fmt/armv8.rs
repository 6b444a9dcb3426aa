// SPDX-License-Identifier: GPL-2.0

//! Arm VMSAv8-64 tables with a granule of 4 KiB, stages 1 and 2, as SMMUv3 walks them.
//!
//! - Arm Architecture Reference Manual for A-profile architecture (DDI 0487), "VMSAv8-64
//!   translation table format descriptors".
//! - Arm System Memory Management Unit Architecture Specification, SMMU architecture version 3 (IHI
//!   0070), sections 3.13 "Translation tables and Access flag/Dirty state" and 3.21.1 "Translation
//!   tables and TLB invalidation completion behavior".
//!
//! The manual counts levels from the top, so that its level 3 is our level 0:
//!
//! | level | manual | leaf              |
//! |-------|--------|-------------------|
//! | 0     | 3      | page of 4 KiB     |
//! | 1     | 2      | block of 2 MiB    |
//! | 2     | 1      | block of 1 GiB    |
//! | 3     | 0      | none              |
//!
//! Trees have three levels (39 bits of input address) or four (48 bits). Not here: 52-bit addresses
//! (LPA2), and a top of several tables for stage 2 ("concatenated translation tables"), which some
//! sizes of output address require.
//!
//! # Accessed and dirty
//!
//! The hardware updates descriptors where the context descriptor (HA and HD) or the stream table
//! entry (S2HA and S2HD) asks for it. DBM says that a leaf is meant to be writable; a write makes
//! it so. In stage 1 it *clears* AP\[2\], in stage 2 it *sets* S2AP\[1\]. So a clean leaf is one
//! that cannot be written without the update, and where HD is off leaves are made with
//! `Prot::USED`, and nothing can be tracked. Hardware ignores DBM in those.
//!
//! An update is sure to be seen only after a CMD_SYNC that is submitted after the access (section
//! 3.13.4).
//!
//! # Contiguous
//!
//! With the Contiguous bit sixteen entries, aligned to sixteen, are one leaf to the TLB. Each has
//! its own output address, and the hardware may update any of them.
//!
//! # Memory attributes
//!
//! Leaves are write-back and inner shareable. In stage 1 they name attribute 1 of the MAIR, as the
//! kernel's C tables do for cacheable memory. `Prot::SNOOP` is a matter of the stream table entry.
//! In stage 2 MemAttr means write-back only without S2FWB, which gives it another encoding: a
//! driver leaves S2FWB clear in the stream table entry.

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
use kernel::error::{
    code::*,
    Result, //
};

/// Bit 0: the descriptor is valid.
const VALID: u64 = 1 << 0;

/// Bit 1: it is that of a table or of a page, not that of a block.
const TABLE_OR_PAGE: u64 = 1 << 1;

/// AttrIndx\[2:0\]: the attribute of the MAIR, stage 1.
const ATTR_INDX_1: u64 = 1 << 2;

/// MemAttr\[3:0\]: write-back, stage 2 without S2FWB.
const MEM_ATTR_WRITE_BACK: u64 = 0xf << 2;

/// AP\[1\]: accesses without privilege are allowed, stage 1.
const AP_1: u64 = 1 << 6;

/// AP\[2\]: writes are not allowed, stage 1.
const AP_2: u64 = 1 << 7;

/// S2AP\[0\]: reads are allowed, stage 2.
const S2AP_0: u64 = 1 << 6;

/// S2AP\[1\]: writes are allowed, stage 2.
const S2AP_1: u64 = 1 << 7;

/// SH\[1:0\]: inner shareable.
const SH_INNER: u64 = 3 << 8;

/// AF: the leaf was used.
const AF: u64 = 1 << 10;

/// nG: the translation is of one ASID, stage 1.
const NG: u64 = 1 << 11;

/// Bits 47:12: the output address or the address of the next table.
const ADDRESS: u64 = low_mask(48) & !low_mask(12);

/// DBM: a write makes the leaf writable.
const DBM: u64 = 1 << DBM_SHIFT;

const DBM_SHIFT: u32 = 51;

/// How far AP\[2\] is below DBM.
const AP_2_TO_DBM: u32 = DBM_SHIFT - 7;

/// Contiguous: the entry is one of sixteen that are one leaf.
const CONTIGUOUS: u64 = 1 << 52;

/// Binary logarithm of that number.
const ROW_LG2: u32 = 4;

/// PXN and UXN of stage 1: no instructions are fetched.
const PXN_UXN: u64 = 3 << 53;

/// XN\[1:0\] of stage 2: no instructions are fetched.
const XN: u64 = 2 << 53;

/// VMSAv8-64 tables of stage 2 if `STAGE2` is true, else of stage 1.
pub enum Armv8<const STAGE2: bool> {}

/// Stage 1.
pub type Armv8S1 = Armv8<false>;

/// Stage 2.
pub type Armv8S2 = Armv8<true>;

/// What leaves of both stages have.
const LEAF: u64 = VALID | SH_INNER;

/// Stage 1: AP\[1\], and AP\[2\] until a write clears it.
const LEAF_S1: u64 = LEAF | ATTR_INDX_1 | AP_1 | AP_2 | NG | PXN_UXN;

/// Stage 2: no access.
const LEAF_S2: u64 = LEAF | MEM_ATTR_WRITE_BACK | XN;

// SAFETY: `table()` sets the two lowest bits; hardware adds nothing to it; at level 0, where these
// bits make a page, no table is made. Above level 0, where alone `decode` can answer `Table`,
// `leaf()` leaves bit 1 clear, and neither the hardware nor `clean()` sets it; `PAGE_SIZES` ends at
// level 2. The size is that of the level, or sixteen times that, which is less than that of the
// next. A word without bit 0 is empty, and `dirt()` has DBM of a word with bit 0 only, or is the
// word itself with S2AP[1], one of the 12 lowest bits. The address field holds every address of 48
// bits that is aligned to 4 KiB.
unsafe impl<const STAGE2: bool> Format for Armv8<STAGE2> {
    const NAME: &'static str = if STAGE2 { "armv8_s2" } else { "armv8_s1" };
    const MIN_LEVELS: u8 = 3;
    const MAX_LEVELS: u8 = 4;
    const PAGE_SIZES: u64 = super::shared::PAGE_SIZES | super::shared::PAGE_SIZES << ROW_LG2;
    const OUTPUT_LG2: u32 = 48;
    const DIRTY: u64 = if STAGE2 { S2AP_1 } else { DBM };
    // Without HD or S2HD the hardware takes AP[2] or S2AP[1] for the permission.
    const DIRTY_PERMITS: bool = true;
    const WRITABLE: u64 = DBM;
    const CONTIGUOUS: u64 = CONTIGUOUS;

    #[inline]
    fn input_lg2(levels: u8) -> u32 {
        12 + 9 * u32::from(levels)
    }

    #[inline(always)]
    fn decode(word: u64, level: Level) -> Entry {
        let is_table = level > Level::LEAF && word & TABLE_OR_PAGE != 0;
        let is_page = level == Level::LEAF && word & TABLE_OR_PAGE != 0;
        let is_block = level > Level::LEAF && super::shared::can_be_leaf(level);

        if word & VALID == 0 {
            Entry::Empty
        } else if is_table {
            Entry::Table(word & ADDRESS)
        } else if is_page || is_block {
            let row = if word & CONTIGUOUS != 0 { ROW_LG2 } else { 0 };
            let lg2 = level.item_lg2(Self::PAGE_LG2) + row;

            Entry::Leaf {
                phys: word & ADDRESS & !low_mask(lg2),
                lg2,
            }
        } else {
            Entry::Empty
        }
    }

    /// In stage 1 a leaf that may be written may be read too.
    fn attrs(prot: Prot) -> Result<Attrs> {
        let (read, write) = (prot.contains(Prot::READ), prot.contains(Prot::WRITE));
        let mut word = if STAGE2 { LEAF_S2 } else { LEAF_S1 };

        if !read && !write {
            return Err(EINVAL);
        }
        if STAGE2 && read {
            word |= S2AP_0;
        }
        if write {
            word |= DBM;
        }
        if prot.contains(Prot::USED) {
            word |= AF;
            if write {
                word = Self::mark(word);
            }
        }
        Ok(Attrs(word))
    }

    #[inline(always)]
    fn leaf(phys: PhysAddr, lg2: u32, level: Level, attrs: Attrs) -> u64 {
        let mut word = (phys & ADDRESS & !level.item_mask(Self::PAGE_LG2)) | attrs.0;

        if level == Level::LEAF {
            word |= TABLE_OR_PAGE;
        }
        if lg2 != level.item_lg2(Self::PAGE_LG2) {
            word |= CONTIGUOUS;
        }
        word
    }

    #[inline]
    fn leaf_attrs(word: u64, level: Level) -> Attrs {
        let page = if level == Level::LEAF {
            TABLE_OR_PAGE
        } else {
            0
        };

        Attrs(word & !(ADDRESS | CONTIGUOUS | page))
    }

    /// Tables allow everything: APTable and the like only take away.
    #[inline]
    fn table(phys: PhysAddr, _level: Level) -> u64 {
        (phys & ADDRESS) | TABLE_OR_PAGE | VALID
    }

    #[inline(always)]
    fn has_no_table(any: u64, _all: u64, level: Level) -> bool {
        level == Level::LEAF || any & TABLE_OR_PAGE == 0
    }

    /// Stage 1: DBM if AP\[2\] is clear and the descriptor valid.
    #[inline(always)]
    fn dirt(word: u64) -> u64 {
        if STAGE2 {
            word
        } else {
            word & !(word << AP_2_TO_DBM) & (word << DBM_SHIFT)
        }
    }

    #[inline(always)]
    fn clean(word: u64) -> u64 {
        if STAGE2 {
            word & !S2AP_1
        } else {
            word | AP_2
        }
    }

    #[inline(always)]
    fn mark(word: u64) -> u64 {
        if word & DBM == 0 {
            word
        } else if STAGE2 {
            word | S2AP_1
        } else {
            word & !AP_2
        }
    }

    /// SMMUv3, section 3.21.1.1 "Translation tables update procedure": a change of the output
    /// address, of the memory attributes or of the block or page size takes a break-before-make.
    /// What the hardware itself updates and a permission may change without. SMMU_IDR3.BBML tells
    /// of hardware that can do more; a format does not know the hardware.
    #[inline]
    fn may_replace_live(old: u64, new: u64, level: Level) -> bool {
        let is_table = |word| matches!(Self::decode(word, level), Entry::Table(_));
        let rights = if STAGE2 { S2AP_0 | DBM } else { DBM };

        is_table(old) == is_table(new)
            && super::shared::may_coexist::<Self>(old, new, level, AF | AP_2, rights)
    }
}

// AP[2] of stage 1 and S2AP[1] of stage 2, either of which the hardware changes, are the same bit.
const _: () = assert!(AP_2 == S2AP_1);
