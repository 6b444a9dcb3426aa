// SPDX-License-Identifier: GPL-2.0

//! AMD v1 host tables, from section 2.2.3 of the AMD IOMMU specification.
//!
//! The specification counts levels from 1; here they start at 0. An entry names the level of the
//! table that it leads to ("Next Level"), 0 for a leaf of the size that the level has by itself,
//! 7 for a leaf whose size is coded in its address: as many ones from bit 12 on, with a zero above
//! them, as the size has bits more than 13. A leaf larger than one entry is in each of the entries
//! that it covers, with the same word except the bits that the hardware sets: it sets A and D in
//! the entry that it read.

use super::super::super::{
    fmt,
    Format,
    PhysAddr,
    Prot, //
};
use super::{
    mask,
    Spec,
    Word,
    Words,
    ADDRESS, //
};

/// AMD v1 with smallest leaves of `1 << PAGE_LG2` bytes, in which the address field counts.
pub struct AmdV1Pages<F, const PAGE_LG2: u32, const LEVELS: u8>(core::marker::PhantomData<F>);

/// AMD v1.
pub type AmdV1 = AmdV1Pages<fmt::AmdV1, 12, 6>;

/// AMD v1 of iommufd's selftest, which no hardware uses: pages of 2 KiB, five levels.
pub type AmdV1Mock = AmdV1Pages<fmt::AmdV1Mock, 11, 5>;

const PR: u64 = 1 << 0;
const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const NEXT_LEVEL: u32 = 9;
const FC: u64 = 1 << 60;
const IR: u64 = 1 << 61;
const IW: u64 = 1 << 62;

/// Every power of two from 2 KiB to 2 PiB but 512 GiB, which hardware gets wrong (erratum).
const SIZES: [u32; 40] = {
    let mut sizes = [0; 40];
    let mut at = 0;

    while at < 40 {
        sizes[at] = at as u32 + if at < 28 { 11 } else { 12 };
        at += 1;
    }
    sizes
};

fn prot_of(word: u64) -> Prot {
    let mut prot = Prot::NONE;

    for (bit, allowed) in [(IR, Prot::READ), (IW, Prot::WRITE), (FC, Prot::SNOOP)] {
        if word & bit != 0 {
            prot |= allowed;
        }
    }
    prot
}

impl<F: Format, const PAGE_LG2: u32, const LEVELS: u8> Spec for AmdV1Pages<F, PAGE_LG2, LEVELS> {
    type F = F;

    const WORDS: Words = Words {
        leaves: [
            [
                0x2000_0012_4567_8001,
                0x6000_0012_4567_8001,
                0x6000_0012_4567_8061,
            ],
            [
                0x2000_0012_4560_0001,
                0x6000_0012_4560_0001,
                0x6000_0012_4560_0061,
            ],
            [
                0x2000_0012_4000_0001,
                0x6000_0012_4000_0001,
                0x6000_0012_4000_0061,
            ],
        ],
        links: [0x6000_0012_4567_8201, 0x6000_0012_4567_8401],
    };

    const PAGE_LG2: u32 = PAGE_LG2;
    const LEVELS: (u8, u8) = (1, LEVELS);
    // The highest table has no leaves: with five levels and 2 KiB these end at 64 TiB.
    const SIZES: &'static [u32] = if PAGE_LG2 == 11 {
        SIZES.split_at(35).0
    } else {
        SIZES.split_at(1).1
    };
    const HAS_USED: bool = false;
    const ACCESSED: u64 = A;
    const DIRTY: u64 = D;
    // Bits 8:6 of a link and 4:1 of any entry are ignored.
    const LATE_DIRT: Option<u64> = Some(D);
    const PART: u64 = 0xf << 1;
    const SPLITS_ROWS: bool = true;
    const GROWS: bool = true;
    const OUTPUT_LG2: u32 = 40 + PAGE_LG2;

    /// An address has no more bits than 64, whatever six levels could resolve.
    fn input_lg2(levels: u8) -> u32 {
        (PAGE_LG2 + 9 * u32::from(levels)).min(64)
    }

    fn prot(prot: Prot) -> Option<Prot> {
        (prot.contains(Prot::READ) || prot.contains(Prot::WRITE)).then_some(prot)
    }

    fn read(word: u64, level: u32) -> Result<Word, &'static str> {
        let next = ((word >> NEXT_LEVEL) & 7) as u32;
        let address = (word & ADDRESS) >> 12 << PAGE_LG2;
        let prot = prot_of(word);

        if word & PR == 0 {
            return match word {
                0 => Ok(Word::Empty),
                _ => Err("an entry that is not present holds something"),
            };
        }
        if word & !(PR | Self::PART | A | D | 7 << NEXT_LEVEL | ADDRESS | FC | IR | IW) != 0 {
            return Err("a reserved bit is set");
        }
        match next {
            0 | 7 => {
                let lg2 = match next {
                    0 => Self::item_lg2(level),
                    _ => PAGE_LG2 + 1 + (word >> 12).trailing_ones(),
                };
                let coded = if next == 0 { 0 } else { mask(lg2 - 1) };

                if !Self::SIZES.contains(&lg2) {
                    Err("there is no leaf of this size")
                } else if lg2 < Self::item_lg2(level) + next.min(1)
                    || lg2 >= Self::item_lg2(level + 1)
                {
                    Err("the size does not belong to this level")
                } else if address & !coded & mask(lg2) != 0 {
                    Err("address bits below the size of the leaf are reserved")
                } else {
                    Ok(Word::Leaf {
                        phys: address & !mask(lg2),
                        lg2,
                        prot,
                    })
                }
            }
            // Hardware follows it to any level below, but nothing here makes such an entry.
            next if next != level => Err("the next level is not the one below"),
            // Every access passes: the leaf decides.
            _ if prot != Prot::READ | Prot::WRITE => Err("a link to a table restricts"),
            _ => Ok(Word::Table(address)),
        }
    }

    /// 2 would be the level below that of an entry for 1 GiB.
    fn no_link(phys: PhysAddr, number: usize) -> Option<u64> {
        let next: &u64 = [1, 3, 4, 5, 6].get(number)?;

        Some(phys | PR | IR | IW | next << NEXT_LEVEL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the specification's table of page size encodings.
    #[test]
    fn sizes_are_coded_in_the_address() {
        let leaf =
            |address: u64, next: u64, level| AmdV1::read(address | next << 9 | IR | PR, level);
        let is = |phys, lg2| {
            Ok(Word::Leaf {
                phys,
                lg2,
                prot: Prot::READ,
            })
        };

        assert_eq!(leaf(0x5000, 0, 0), is(0x5000, 12));
        assert_eq!(leaf(0x4000, 7, 0), is(0x4000, 13));
        assert_eq!(leaf(0x5000, 7, 0), is(0x4000, 14));
        assert_eq!(leaf(0x7_f000, 7, 0), is(0, 20));
        assert_eq!(leaf(0x20_0000, 0, 1), is(0x20_0000, 21));
        assert_eq!(leaf(0x1f_f000, 7, 1), is(0, 22));
        assert!(leaf(0x1f_f000, 7, 0).is_err());
        assert!(leaf(0x4000, 7, 1).is_err());
        assert!(leaf(0x1000, 0, 1).is_err());
        assert!(leaf(0, 2, 1).is_err());
        assert!(AmdV1::read(1 << 9 | PR | IR | IW, 1) == Ok(Word::Table(0)));
        assert!(AmdV1::read(1 << 9 | PR | IR | IW, 2).is_err());
        assert!(AmdV1::read(1 << 9 | PR | IR, 1).is_err());
        assert!(AmdV1::read(1 << 7 | PR | IR, 0).is_err());
    }
}
