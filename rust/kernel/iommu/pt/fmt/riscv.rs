// SPDX-License-Identifier: GPL-2.0

//! RISC-V tables, as the RISC-V IOMMU walks them in both stages.
//!
//! - The RISC-V Instruction Set Manual, Volume II: Privileged Architecture, sections "Sv39", "Sv48"
//!   and "Sv57" of the chapter on the supervisor level, "Sv39x4", "Sv48x4" and "Sv57x4" of that on
//!   the hypervisor extension, and the chapter "Svnapot".
//! - RISC-V IOMMU Architecture Specification, chapters "Data Structures", "In-memory queue
//!   interface" and "Software guidelines".
//!
//! The manual counts levels as here, and calls every entry a PTE:
//!
//! | level | leaf    |
//! |-------|---------|
//! | 0     | 4 KiB   |
//! | 1     | 2 MiB   |
//! | 2     | 1 GiB   |
//! | 3     | 512 GiB |
//! | 4     | 256 TiB |
//!
//! A PTE with none of R, W and X links a table. A, D and U are reserved in it.
//!
//! # Stages
//!
//! First-stage addresses are sign-extended. Second-stage addresses (guest-physical ones) are
//! zero-extended and have two bits more: the top has 2048 entries in 16 KiB and is aligned to that.
//! U is set in both: a device sends user requests, and the second stage takes every access for one.
//!
//! # Rows
//!
//! With N ("Svnapot") sixteen entries of level 0 hold the same word and are one leaf of 64 KiB. The
//! four lowest bits of its page number are 0b1000.
//!
//! # Accessed and dirty
//!
//! With GADE (second stage) or SADE (first stage) in the device context the hardware sets A and D.
//! Without them, it faults where A is clear, and at a write where D is clear: leaves for such a
//! context are made with `Prot::USED`, and nothing can be tracked.

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
use kernel::error::{
    code::*,
    Result, //
};

/// V: the entry is valid.
const V: u64 = 1 << 0;

/// R: reads are allowed.
const R: u64 = 1 << 1;

/// W: writes are allowed. Reserved without R.
const W: u64 = 1 << 2;

/// X: the entry is a leaf from which instructions may be fetched. Devices don't.
const X: u64 = 1 << 3;

/// U: accesses of user privilege are allowed.
const U: u64 = 1 << 4;

/// A: the leaf was used.
const A: u64 = 1 << 6;

/// D: a write went through this entry of a leaf.
const D: u64 = 1 << 7;

/// RSW: bits for software, in every entry.
const RSW: u64 = 3 << 8;

/// PPN: the number of a page of 4 KiB.
const PPN: u64 = ((1 << 44) - 1) << PPN_SHIFT;

const PPN_SHIFT: u32 = 10;

/// N: the leaf has as many entries as the page number says.
const N: u64 = 1 << 63;

/// Binary logarithm of the one size that a leaf with N has.
const NAPOT_LG2: u32 = 16;

/// The lowest bits of the page number with N, and what they are for that size.
const NAPOT_FIELD: u64 = 0xf << PPN_SHIFT;
const NAPOT_64K: u64 = 0x8 << PPN_SHIFT;

/// RISC-V tables, of the second stage if `X4` is true.
pub enum RiscvPages<const X4: bool> {}

/// First-stage tables: Sv39, Sv48, Sv57.
pub type Riscv = RiscvPages<false>;

/// Second-stage tables: Sv39x4, Sv48x4, Sv57x4.
pub type RiscvX4 = RiscvPages<true>;

/// The page number for `phys`, in its place.
#[inline(always)]
fn ppn(phys: PhysAddr) -> u64 {
    (phys >> 12 << PPN_SHIFT) & PPN
}

/// The address in a page number.
#[inline(always)]
fn address(word: u64) -> PhysAddr {
    (word & PPN) >> PPN_SHIFT << 12
}

// SAFETY: `table()` sets V and none of R, W and X; hardware adds no bit to it; at level 0 no table
// is made; `decode` does not look at RSW. `leaf()` sets R, and neither hardware nor `clean()` takes
// it out, so `decode` never finds a table in it. V and D are among the 12 lowest bits; a word
// without V is empty. A leaf has the size of its level, or 64 KiB at level 0. The page number holds
// every address of 56 bits that is aligned to 4 KiB.
unsafe impl<const X4: bool> Format for RiscvPages<X4> {
    const NAME: &'static str = if X4 { "riscv_x4" } else { "riscv" };
    const MIN_LEVELS: u8 = 3;
    const MAX_LEVELS: u8 = 5;
    const PAGE_SIZES: u64 = 1 << 12 | 1 << NAPOT_LG2 | 1 << 21 | 1 << 30 | 1 << 39 | 1 << 48;
    const OUTPUT_LG2: u32 = 56;
    const TOP_LG2: u32 = if X4 { TABLE_LG2 + 2 } else { TABLE_LG2 };
    const DIRTY: u64 = D;
    // Without GADE or SADE a write faults where D is clear.
    const DIRTY_PERMITS: bool = true;
    const WRITABLE: u64 = W;
    const CONTIGUOUS: u64 = N;
    // D is reserved in a link. The hardware compares a PTE before it sets A or D: the manual's
    // "Virtual Address Translation Process".
    const LATE_DIRT: Option<u64> = Some(0);
    const PART: u64 = RSW;
    const SIGN_EXTENDS: bool = !X4;

    /// Two bits more than the levels resolve in the second stage, one less in the first: the lower
    /// half of a sign-extended space.
    #[inline]
    fn input_lg2(levels: u8) -> u32 {
        let resolved = 12 + 9 * u32::from(levels);

        if X4 {
            resolved + 2
        } else {
            resolved - 1
        }
    }

    #[inline(always)]
    fn decode(word: u64, level: Level) -> Entry {
        if word & V == 0 {
            return Entry::Empty;
        }
        match word & (R | W | X) {
            0 if level == Level::LEAF => Entry::Empty,
            0 => Entry::Table(address(word)),
            // Reserved.
            rights if rights & (R | W) == W => Entry::Empty,
            _ if word & N == 0 => Entry::Leaf {
                phys: address(word) & !level.item_mask(Self::PAGE_LG2),
                lg2: level.item_lg2(Self::PAGE_LG2),
            },
            _ if level == Level::LEAF && word & NAPOT_FIELD == NAPOT_64K => Entry::Leaf {
                phys: address(word) & !low_mask(NAPOT_LG2),
                lg2: NAPOT_LG2,
            },
            _ => Entry::Empty,
        }
    }

    /// A leaf that may be written may be read too. Snooping is not stated here: with Svpbmt it is a
    /// matter of the kind of memory.
    fn attrs(prot: Prot) -> Result<Attrs> {
        let (read, written) = if prot.contains(Prot::USED) {
            (A, A | D)
        } else {
            (0, 0)
        };

        if prot.contains(Prot::WRITE) {
            Ok(Attrs(V | R | W | U | written))
        } else if prot.contains(Prot::READ) {
            Ok(Attrs(V | R | U | read))
        } else {
            Err(EINVAL)
        }
    }

    #[inline(always)]
    fn leaf(phys: PhysAddr, lg2: u32, _level: Level, attrs: Attrs) -> u64 {
        let word = ppn(phys & !low_mask(lg2)) | attrs.0;

        if lg2 == NAPOT_LG2 {
            word | N | NAPOT_64K
        } else {
            word
        }
    }

    #[inline]
    fn leaf_attrs(word: u64, _level: Level) -> Attrs {
        Attrs(word & (V | R | W | X | U | A | D))
    }

    #[inline]
    fn table(phys: PhysAddr, _level: Level) -> u64 {
        ppn(phys) | V
    }

    /// Above level 0 a line has no tables if every entry of it may be read; an empty entry costs it
    /// a closer look.
    #[inline(always)]
    fn has_no_table(any: u64, all: u64, level: Level) -> bool {
        level == Level::LEAF || any & V == 0 || all & R != 0
    }

    /// IOMMU Architecture, "Accessed (A)/Dirty (D) bit updates and page promotions" in the chapter
    /// "Software guidelines": beside A and D, a PTE that is valid changes only its size, and
    /// permissions, memory type and translation stay. For any other change V must be clear first,
    /// and an IOTINVAL be done. So no permission may come either.
    #[inline]
    fn may_replace_live(old: u64, new: u64, level: Level) -> bool {
        super::shared::may_coexist::<Self>(old, new, level, A | D, 0)
    }
}
