// SPDX-License-Identifier: GPL-2.0

//! The block of addresses that an invalidation names. Pure.
//!
//! Units invalidate naturally aligned blocks of a power of two of pages. A range becomes the
//! smallest such block that holds it.

use super::pt::Range;

/// The logarithm of the smallest block, a page.
const PAGE_LG2: u8 = 12;

/// A naturally aligned block of 2^`lg2` addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its first address.
    pub first: u64,
    /// The logarithm of its size: 12 to 64.
    pub lg2: u8,
}

impl Block {
    /// All addresses.
    pub const ALL: Self = Self { first: 0, lg2: 64 };

    /// The smallest block that holds `range`.
    #[inline]
    pub fn around(range: Range) -> Self {
        // The bits from the highest one in which the two ends differ are free inside the block.
        // CAST: At most 64.
        let free = (u64::BITS - (range.first() ^ range.last()).leading_zeros()) as u8;
        let lg2 = free.max(PAGE_LG2);
        let inside = 1u64
            .checked_shl(lg2.into())
            .map_or(u64::MAX, |size| size - 1);
        Self {
            first: range.first() & !inside,
            lg2,
        }
    }
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kernel::prelude::kunit_tests(rust_iommu_block)]
mod tests {
    use super::*;
    use kernel::prelude::*;

    fn around(first: u64, last: u64) -> Result<Block> {
        Ok(Block::around(Range::inclusive(first, last)?))
    }

    #[test]
    fn smallest_block() -> Result {
        let block = |first, lg2| Block { first, lg2 };
        assert_eq!(around(0x1000, 0x1fff)?, block(0x1000, 12));
        assert_eq!(around(0x1234, 0x1235)?, block(0x1000, 12));
        assert_eq!(around(0x2000, 0x3fff)?, block(0x2000, 13));
        // Two pages that are not a pair need four.
        assert_eq!(around(0x1000, 0x2fff)?, block(0, 14));
        assert_eq!(around(0x20_0000, 0x3f_ffff)?, block(0x20_0000, 21));
        // Two pages on both sides of a power of two need all that is below the next one.
        assert_eq!(around(0x7fff_f000, 0x8000_0fff)?, block(0, 32));
        assert_eq!(around(0, u64::MAX >> 1)?, block(0, 63));
        assert_eq!(around(0, u64::MAX)?, Block::ALL);
        Ok(())
    }

    /// Every block holds its range, and the next smaller one would not.
    #[test]
    fn blocks_hold_their_range() -> Result {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..1000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let first = seed >> (1 + (seed & 0x1f));
            let last = first + (seed >> (20 + (seed >> 8 & 0x1f)));
            let found = around(first, last)?;
            let end = found.first + ((1u64 << found.lg2) - 1);
            assert!(found.first <= first && last <= end);
            if found.lg2 > PAGE_LG2 {
                let half = (1u64 << (found.lg2 - 1)) - 1;
                assert!(last > (first & !half) + half);
            }
        }
        Ok(())
    }
}
