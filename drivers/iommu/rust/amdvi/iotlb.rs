// SPDX-License-Identifier: GPL-2.0

//! From a range of addresses to invalidation commands (specification, 2.4.3 and 2.2.3).
//!
//! A command covers one naturally aligned block, any power of two of pages. Its size is coded in
//! the address, as in a leaf: the bits below the highest one that the block leaves free are ones.
//! A range becomes the smallest block that holds it. Pure.

use crate::cmd::desc::Command;

/// The logarithm of the smallest block.
const PAGE_LG2: u8 = 12;

/// The logarithm of the largest block that the address can code.
const LARGEST_LG2: u8 = 52;

/// The address that stands for all of them.
const EVERYTHING: u64 = 0x7fff_ffff_ffff_f000;

/// A naturally aligned block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    first: u64,
    /// The logarithm of its size; more than [`LARGEST_LG2`] for all addresses.
    lg2: u8,
}

impl Block {
    /// All addresses.
    pub(crate) const ALL: Self = Self { first: 0, lg2: 64 };

    /// The smallest block that holds `first` to `last`, both included.
    pub(crate) fn around(first: u64, last: u64) -> Self {
        // The bits from the highest one in which the two ends differ are free inside the block.
        // CAST: At most 64.
        let lg2 = (u64::BITS - (first ^ last).leading_zeros()) as u8;
        if lg2 > LARGEST_LG2 {
            return Self::ALL;
        }
        let lg2 = lg2.max(PAGE_LG2);
        Self {
            first: first & !((1 << lg2) - 1),
            lg2,
        }
    }

    /// The address field of a command.
    pub(crate) fn address(self) -> u64 {
        if self.lg2 > LARGEST_LG2 {
            return EVERYTHING;
        }
        // One free bit is left zero and ends the ones below: none for two pages.
        let ones = (1u64 << self.lg2.saturating_sub(1)) - 1;
        self.first | (ones & !((1 << PAGE_LG2) - 1))
    }

    /// Whether the address field codes a size (S).
    pub(crate) fn is_sized(self) -> bool {
        self.lg2 > PAGE_LG2
    }
}

/// What translations are cached under in one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// The domain id.
    pub(crate) domain: u16,
    /// The PASID of guest translations, 0 for requests without one; [`None`] for host ones.
    pub(crate) pasid: Option<u32>,
}

impl Tag {
    /// The command that drops what is cached under the tag in `block`.
    pub(crate) fn pages(self, block: Block, tables: bool) -> Command {
        Command::pages(self.domain, self.pasid, block, tables)
    }

    /// The command that drops everything cached under the tag.
    pub(crate) fn all(self) -> Command {
        self.pages(Block::ALL, true)
    }
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
#[kernel::prelude::kunit_tests(rust_amdvi_iotlb)]
mod tests {
    use super::*;

    #[test]
    fn smallest_block() {
        let coded = |first, last| {
            let block = Block::around(first, last);
            (block.address(), block.is_sized())
        };
        assert_eq!(coded(0x1000, 0x1fff), (0x1000, false));
        assert_eq!(coded(0x1234, 0x1235), (0x1000, false));
        assert_eq!(coded(0x2000, 0x3fff), (0x2000, true));
        // Two pages that are not a pair need four.
        assert_eq!(coded(0x1000, 0x2fff), (0x1000, true));
        assert_eq!(coded(0x20_0000, 0x3f_ffff), (0x2f_f000, true));
        assert_eq!(coded(0, (1 << 52) - 1), (0x7_ffff_ffff_f000, true));
        assert_eq!(coded(0, 1 << 52), (EVERYTHING, true));
        assert_eq!(coded(0, u64::MAX), (EVERYTHING, true));
    }

    /// Reading an address field as the hardware does gives a block that holds the range.
    #[test]
    fn blocks_hold_their_range() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..1000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let first = seed >> (13 + (seed & 0x1f));
            let last = first + (seed >> (20 + (seed >> 8 & 0x1f)));
            let block = Block::around(first, last);
            let field = block.address();
            let lg2 = if block.is_sized() {
                13 + (field >> 12).trailing_ones()
            } else {
                12
            };
            let start = field & !((1 << lg2) - 1);
            assert!(start <= first && last <= start + ((1 << lg2) - 1));
            if lg2 > 12 {
                let half = (1u64 << (lg2 - 1)) - 1;
                assert!(last > (first & !half) + half);
            }
        }
    }
}
