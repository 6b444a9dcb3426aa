// SPDX-License-Identifier: GPL-2.0

//! VT-d second stage, from sections 3.7 and 9.8 of the VT-d specification, revision 4.1.

use super::super::super::{
    fmt,
    Prot, //
};
use super::{
    read_page_size,
    Spec,
    Word, //
};

/// VT-d second stage.
pub enum VtdSs {}

const R: u64 = 1 << 0;
const W: u64 = 1 << 1;
const SNP: u64 = 1 << 11;

impl Spec for VtdSs {
    type F = fmt::VtdSs;

    // 3-level, 4-level and 5-level tables: 39, 48 and 57 bits of address (section 3.7).
    const LEVELS: (u8, u8) = (3, 5);
    const SIZES: &'static [u32] = &[12, 21, 30];
    const HAS_USED: bool = false;
    const ACCESSED: u64 = 1 << 8;
    const DIRTY: u64 = 1 << 9;

    fn input_lg2(levels: u8) -> u32 {
        match levels {
            3 => 39,
            4 => 48,
            _ => 57,
        }
    }

    fn prot(prot: Prot) -> Option<Prot> {
        (prot.contains(Prot::READ) || prot.contains(Prot::WRITE)).then_some(prot)
    }

    fn read(word: u64, level: u32) -> Result<Word, &'static str> {
        let rest = word & !(Self::ACCESSED | Self::DIRTY);

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
