// SPDX-License-Identifier: GPL-2.0

//! RISC-V tables, from the RISC-V Privileged Architecture: sections "Sv39" to "Sv57" of the chapter
//! on the supervisor level, "Sv39x4" to "Sv57x4" of that on the hypervisor extension, "Svnapot";
//! and from the chapter "Software guidelines" of the RISC-V IOMMU specification.

use super::{
    super::super::{
        fmt,
        Format,
        PhysAddr,
        Prot, //
    },
    mask,
    Spec,
    Word,
    Words, //
};

/// RISC-V tables whose top resolves `MORE` bits more than other tables.
pub struct RiscvPages<F, const MORE: u32>(core::marker::PhantomData<F>);

/// The first stage: Sv39, Sv48, Sv57.
pub type Riscv = RiscvPages<fmt::Riscv, 0>;

/// The second stage: Sv39x4, Sv48x4, Sv57x4.
pub type RiscvX4 = RiscvPages<fmt::RiscvX4, 2>;

// The fields of a PTE, from the lowest bit on.
const VALID: u32 = 0;
const READ: u32 = 1;
const WRITE: u32 = 2;
const EXECUTE: u32 = 3;
const USER: u32 = 4;
const GLOBAL: u32 = 5;
const ACCESSED: u32 = 6;
const DIRTY: u32 = 7;
const NUMBER: u32 = 10;
const NUMBER_BITS: u32 = 44;
const NAPOT: u32 = 63;

fn has(word: u64, bit: u32) -> bool {
    word >> bit & 1 != 0
}

impl<F: Format, const MORE: u32> Spec for RiscvPages<F, MORE> {
    type F = F;

    const WORDS: Words = Words {
        leaves: [
            [0x4_9159_e013, 0x4_9159_e017, 0x4_9159_e0d7],
            [0x4_9158_0013, 0x4_9158_0017, 0x4_9158_00d7],
            [0x4_9000_0013, 0x4_9000_0017, 0x4_9000_00d7],
        ],
        links: [0x4_9159_e001, 0x4_9159_e001],
    };

    const LEVELS: (u8, u8) = (3, 5);
    const SIZES: &'static [u32] = &[12, 16, 21, 30, 39, 48];
    const ACCESSED: u64 = 1 << ACCESSED;
    // A is reserved in a PTE that is no leaf.
    const ACCESSED_LINK: u64 = 0;
    const DIRTY: u64 = 1 << DIRTY;
    // The PTE is compared with what the walk has read, atomically with its update ("Virtual Address
    // Translation Process", step 9).
    const LATE_DIRT: Option<u64> = Some(0);
    const PART: u64 = 3 << 8;
    // With GADE or SADE 0, a store where D is clear is a page fault (IOMMU specification,
    // "Translation control (tc)").
    const CLEAN_REFUSES: bool = true;
    // Of a valid PTE only A, D and the size change (IOMMU specification, "Guidelines for
    // invalidations"): original and new have identical permissions.
    const GAINS_LIVE: bool = false;
    const TOP_LG2: u32 = 9 + MORE;
    const SIGNED: bool = MORE == 0;
    const OUTPUT_LG2: u32 = 56;

    fn input_lg2(levels: u8) -> u32 {
        MORE + match levels {
            3 => 39,
            4 => 48,
            _ => 57,
        }
    }

    /// A writable page must be readable as well, and a PTE does not state snooping.
    fn prot(prot: Prot) -> Option<Prot> {
        if prot.contains(Prot::WRITE) {
            Some(Prot::READ | Prot::WRITE)
        } else {
            prot.contains(Prot::READ).then_some(Prot::READ)
        }
    }

    fn read(word: u64, level: u32) -> Result<Word, &'static str> {
        let number = word >> NUMBER & mask(NUMBER_BITS);
        let rights = [READ, WRITE, EXECUTE].map(|bit| has(word, bit));
        // 60:54 are reserved, PBMT is for Svpbmt. RSW, 9:8, is for software.
        let others = word >> 54 & mask(9) | u64::from(has(word, GLOBAL));

        if !has(word, VALID) {
            return match word {
                0 => Ok(Word::Empty),
                _ => Err("a PTE that is not valid holds something"),
            };
        }
        if others != 0 {
            return Err("a reserved bit is set, or one that nothing here uses");
        }

        let prot = match rights {
            [false, false, false] if level == 0 => return Err("a PTE of level 0 links a table"),
            [false, false, false] => {
                return if [USER, ACCESSED, DIRTY, NAPOT]
                    .iter()
                    .any(|bit| has(word, *bit))
                {
                    Err("U, A, D and N are reserved in a link to a table")
                } else {
                    Ok(Word::Table(number << 12))
                };
            }
            [false, true, _] => return Err("W without R is reserved"),
            [_, _, true] => return Err("nothing here may be executed"),
            [_, write, _] if write => Prot::READ | Prot::WRITE,
            _ => Prot::READ,
        };

        if !has(word, USER) {
            return Err("a device's request is one of a user");
        }

        let (lg2, number) = match (has(word, NAPOT), level) {
            (false, _) => (Self::item_lg2(level), number),
            // Sixteen pages: the lowest bit that is set tells.
            (true, 0) if number.trailing_zeros() == 3 => (16, number & !8),
            (true, _) => return Err("there is no leaf of this size"),
        };

        if number << 12 & mask(lg2) != 0 {
            return Err("a superpage is misaligned");
        }
        Ok(Word::Leaf {
            phys: number << 12,
            lg2,
            prot,
        })
    }

    /// W without R is reserved, with X or without.
    fn no_link(phys: PhysAddr, number: usize) -> Option<u64> {
        let bits = [1 << WRITE, 1 << WRITE | 1 << EXECUTE].get(number)?;

        Some(phys >> 12 << NUMBER | 1 << VALID | 1 << USER | bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the manual: a page, a superpage, a row of sixteen, a pointer.
    #[test]
    fn words_of_the_manual() {
        let leaf = |phys, lg2| {
            Ok(Word::Leaf {
                phys,
                lg2,
                prot: Prot::READ,
            })
        };

        assert_eq!(Riscv::read(0x5 << 10 | 0x13, 0), leaf(0x5000, 12));
        assert_eq!(Riscv::read(0x200 << 10 | 0x13, 1), leaf(0x20_0000, 21));
        assert_eq!(
            Riscv::read(1 << 63 | 0x18 << 10 | 0x13, 0),
            leaf(0x1_0000, 16)
        );
        assert_eq!(RiscvX4::read(0x5 << 10 | 1, 2), Ok(Word::Table(0x5000)));
        assert!(Riscv::read(0x1 << 10 | 0x13, 1).is_err());
        assert!(Riscv::read(1 << 63 | 0x14 << 10 | 0x13, 0).is_err());
        assert!(Riscv::read(1 << 63 | 0x200 << 10 | 0x13, 1).is_err());
        assert!(Riscv::read(0x5 << 10 | 0x41, 1).is_err());
        assert!(Riscv::read(0x5 << 10 | 0x15, 0).is_err());
        assert!(Riscv::read(0x5 << 10 | 1, 0).is_err());
    }
}
