// SPDX-License-Identifier: GPL-2.0

//! x86-64 tables as IOMMUs walk them: VT-d first stage, AMD v2.
//!
//! - Intel Virtualization Technology for Directed I/O, sections 3.6 "First-Stage Translation" and
//!   9.7 "First-Stage Paging Entries".
//! - Intel Software Developer's Manual volume 3, section 4.5 "4-Level Paging and 5-Level Paging".
//! - AMD I/O Virtualization Technology (IOMMU) Specification, section 2.2.6 "I/O Page Tables for
//!   Guest Translations".
//!
//! The specifications' names by level:
//!
//! | level | entry  | leaf  |
//! |-------|--------|-------|
//! | 0     | PTE    | 4 KiB |
//! | 1     | PDE    | 2 MiB |
//! | 2     | PDPTE  | 1 GiB |
//! | 3     | PML4E  | none  |
//! | 4     | PML5E  | none  |
//!
//! # Accessed and dirty
//!
//! There is no switch: the hardware sets A in every entry that it uses and D in each leaf that it
//! writes through, always. A leaf therefore starts with both clear. D preset would report pages
//! that no device wrote; A preset buys nothing once D is left to the hardware, because the first
//! write updates the entry anyway. With `Prot::USED` both are preset, for a unit of VT-d whose
//! walks do not snoop: it faults where it would have to set one.
//!
//! Entries that link tables have A preset. Nothing reads it there, and it saves the hardware one
//! locked update for each table.
//!
//! # Addresses
//!
//! The input space is sign-extended and has a hole in the middle. Each half is a range without a
//! hole. The lower one is always there, and it is all there is where the hardware does not
//! sign-extend; the upper one is for owners that ask for it (`Limits::sign_extend`).

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

/// P: the entry is present. Readable as well, there is no bit to refuse that.
const P: u64 = 1 << 0;

/// R/W: writes are allowed.
const RW: u64 = 1 << 1;

/// U/S: requests without supervisor privilege are allowed, which is what devices send.
const US: u64 = 1 << 2;

/// A: the entry was used.
const A: u64 = 1 << 5;

/// D: a write went through this leaf.
const D: u64 = 1 << 6;

/// One of the bits 58:52, which are ignored in every entry.
const PART: u64 = 1 << 52;

/// x86-64 tables as VT-d first stage and AMD v2 walk them.
pub enum X86_64 {}

// SAFETY: `table()` sets P and leaves PS clear, at level 0 no table is made, and the bits that
// hardware adds (A and D, 5 and 6), and bit 52, are none of those that `decode` tells tables and
// addresses by; `leaf()` sets PS above level 0, where alone `decode` can answer `Table`, and
// `PAGE_SIZES` ends at level 2. P and D are among the 12 lowest bits; a word without P is empty.
unsafe impl Format for X86_64 {
    const NAME: &'static str = "x86_64";
    const MIN_LEVELS: u8 = 4;
    const MAX_LEVELS: u8 = 5;
    const PAGE_SIZES: u64 = super::shared::PAGE_SIZES;
    const OUTPUT_LG2: u32 = 52;
    const DIRTY: u64 = D;
    const WRITABLE: u64 = RW;
    // Ignored in entries that are not leaves.
    const LATE_DIRT: Option<u64> = Some(D);
    const PART: u64 = PART;
    const SIGN_EXTENDS: bool = true;

    /// One bit less than the levels resolve: the lower half of a sign-extended space.
    #[inline]
    fn input_lg2(levels: u8) -> u32 {
        12 + 9 * u32::from(levels) - 1
    }

    #[inline(always)]
    fn decode(word: u64, level: Level) -> Entry {
        if word & P == 0 {
            Entry::Empty
        } else if super::shared::is_leaf(word, level) {
            // The address bits below a leaf's size are reserved, but for PAT; `leaf()` leaves all
            // clear.
            Entry::Leaf {
                phys: word & ADDRESS,
                lg2: level.item_lg2(Self::PAGE_LG2),
            }
        } else {
            Entry::Table(word & ADDRESS)
        }
    }

    /// A leaf that may be written may be read too; snooping is stated in the PASID entry.
    fn attrs(prot: Prot) -> Result<Attrs> {
        let (read, written) = if prot.contains(Prot::USED) {
            (A, A | D)
        } else {
            (0, 0)
        };
        if prot.contains(Prot::WRITE) {
            Ok(Attrs(P | US | RW | written))
        } else if prot.contains(Prot::READ) {
            Ok(Attrs(P | US | read))
        } else {
            Err(EINVAL)
        }
    }

    #[inline(always)]
    fn leaf(phys: PhysAddr, lg2: u32, level: Level, attrs: Attrs) -> u64 {
        (phys & ADDRESS & !low_mask(lg2)) | super::shared::page_size_bit(level) | attrs.0
    }

    #[inline]
    fn leaf_attrs(word: u64, _level: Level) -> Attrs {
        Attrs(word & (P | RW | US | A | D))
    }

    /// Tables allow everything: the leaf decides, since the hardware takes the AND of all levels.
    #[inline]
    fn table(phys: PhysAddr, _level: Level) -> u64 {
        (phys & ADDRESS) | P | RW | US | A
    }

    #[inline(always)]
    fn has_no_table(any: u64, all: u64, level: Level) -> bool {
        super::shared::has_no_table(any, all, level)
    }

    /// Volume 3 of the SDM, "Details of TLB Use" in the chapter on paging: until the invalidation,
    /// an access may use the old entry or the new one, and a change of the page size together with
    /// any other is undefined. VT-d says the same in section 6.2 "Address Translation Caches".
    #[inline]
    fn may_replace_live(old: u64, new: u64, level: Level) -> bool {
        super::shared::may_coexist::<Self>(old, new, level, A | D, RW)
    }
}
