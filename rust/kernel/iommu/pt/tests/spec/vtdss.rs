// SPDX-License-Identifier: GPL-2.0

//! VT-d second stage, from sections 3.7 and 9.8 of the VT-d specification, revision 4.1.

use super::super::super::{
    fmt,
    PhysAddr,
    Prot, //
};
use super::{
    read_page_size,
    Spec,
    Word,
    Words, //
};

/// VT-d second stage.
pub enum VtdSs {}

const R: u64 = 1 << 0;
const W: u64 = 1 << 1;
const SNP: u64 = 1 << 11;

impl Spec for VtdSs {
    type F = fmt::VtdSs;

    const WORDS: Words = Words {
        leaves: [
            [0x12_4567_8001, 0x12_4567_8003, 0x12_4567_8303],
            [0x12_4560_0081, 0x12_4560_0083, 0x12_4560_0383],
            [0x12_4000_0081, 0x12_4000_0083, 0x12_4000_0383],
        ],
        links: [0x12_4567_8003, 0x12_4567_8003],
    };

    // 3-level, 4-level and 5-level tables: 39, 48 and 57 bits of address (section 3.7).
    const LEVELS: (u8, u8) = (3, 5);
    const SIZES: &'static [u32] = &[12, 21, 30];
    const HAS_USED: bool = false;
    const ACCESSED: u64 = 1 << 8;
    const DIRTY: u64 = 1 << 9;
    // Bits 9 of a link and 61:52 of any entry are ignored.
    const LATE_DIRT: Option<u64> = Some(1 << 9);
    const PART: u64 = 1 << 52;

    fn input_lg2(levels: u8) -> u32 {
        match levels {
            3 => 39,
            4 => 48,
            _ => 57,
        }
    }

    /// Without R and W an entry is not present, whatever A and the ignored bits are.
    fn no_link(phys: PhysAddr, number: usize) -> Option<u64> {
        let bits = [0, Self::ACCESSED, 1 << 2 | 1 << 10].get(number)?;

        Some(phys | bits)
    }

    fn prot(prot: Prot) -> Option<Prot> {
        (prot.contains(Prot::READ) || prot.contains(Prot::WRITE)).then_some(prot)
    }

    fn read(word: u64, level: u32) -> Result<Word, &'static str> {
        let rest = word & !(Self::ACCESSED | Self::DIRTY | Self::PART);

        if word & (R | W) == 0 {
            return match word {
                0 => Ok(Word::Empty),
                _ => Err("an entry that is not present holds something"),
            };
        }
        // Tables leave the permissions to the leaves.
        read_page_size(rest, level, R | W, |bits| {
            let mut prot = Prot::NONE;

            for (bit, allowed) in [(R, Prot::READ), (W, Prot::WRITE), (SNP, Prot::SNOOP)] {
                if bits & bit != 0 {
                    prot |= allowed;
                }
            }
            (bits & !(R | W | SNP) == 0).then_some(prot)
        })
    }
}
