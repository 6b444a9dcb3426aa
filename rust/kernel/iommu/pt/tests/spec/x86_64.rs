// SPDX-License-Identifier: GPL-2.0

//! x86-64 tables, from sections 3.6 and 9.7 of the VT-d specification and the SDM, volume 3, 4.5.

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

/// x86-64: VT-d first stage, AMD v2.
pub enum X86_64 {}

const P: u64 = 1 << 0;
const RW: u64 = 1 << 1;
const US: u64 = 1 << 2;

impl Spec for X86_64 {
    type F = fmt::X86_64;

    const WORDS: Words = Words {
        leaves: [
            [0x12_4567_8005, 0x12_4567_8007, 0x12_4567_8067],
            [0x12_4560_0085, 0x12_4560_0087, 0x12_4560_00e7],
            [0x12_4000_0085, 0x12_4000_0087, 0x12_4000_00e7],
        ],
        links: [0x12_4567_8027, 0x12_4567_8027],
    };

    const LEVELS: (u8, u8) = (4, 5);
    const SIZES: &'static [u32] = &[12, 21, 30];
    const ACCESSED: u64 = 1 << 5;
    const DIRTY: u64 = 1 << 6;
    // Bits 6 of a link and 58:52 of any entry are ignored.
    const LATE_DIRT: Option<u64> = Some(1 << 6);
    const PART: u64 = 1 << 52;
    const SIGNED: bool = true;

    fn input_lg2(levels: u8) -> u32 {
        match levels {
            4 => 48,
            _ => 57,
        }
    }

    /// Without P the other bits are ignored.
    fn no_link(phys: PhysAddr, number: usize) -> Option<u64> {
        let bits = [RW | US, RW | US | Self::ACCESSED].get(number)?;

        Some(phys | bits)
    }

    /// A writable leaf is also readable, and an entry does not state snooping.
    fn prot(prot: Prot) -> Option<Prot> {
        if prot.contains(Prot::WRITE) {
            Some(Prot::READ | Prot::WRITE)
        } else {
            prot.contains(Prot::READ).then_some(Prot::READ)
        }
    }

    fn read(word: u64, level: u32) -> Result<Word, &'static str> {
        let rest = word & !(Self::ACCESSED | Self::DIRTY | Self::PART);

        if word & P == 0 {
            return match word {
                0 => Ok(Word::Empty),
                _ => Err("an entry that is not present holds something"),
            };
        }
        read_page_size(rest, level, P | RW | US, |bits| match bits {
            // Requests of devices are user requests: without U/S they fault.
            bits if bits == P | US => Some(Prot::READ),
            bits if bits == P | US | RW => Some(Prot::READ | Prot::WRITE),
            _ => None,
        })
    }
}
