// SPDX-License-Identifier: GPL-2.0

//! From a range of addresses to invalidation descriptors (VT-d specification, 6.5.2 and 6.5.3).
//!
//! A page-selective invalidation covers 2^AM pages, naturally aligned. A range becomes the
//! smallest such block that holds it; a block larger than the unit's MAMV becomes an invalidation
//! of the whole domain. Pure.

use crate::{
    caps::{
        Caps,
        Stage, //
    },
    qi::desc::Descriptor,
};

/// The address mask of a block that holds every address.
const WHOLE: u8 = 52;

/// A naturally aligned block of 2^`mask` pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Its first address.
    pub(crate) address: u64,
    /// Its size: 2^`mask` pages of 4 KiB.
    pub(crate) mask: u8,
}

impl Block {
    /// All addresses.
    pub(crate) const ALL: Self = Self {
        address: 0,
        mask: WHOLE,
    };

    /// The smallest block that holds `first` to `last`, both included.
    pub(crate) fn around(first: u64, last: u64) -> Self {
        // The bits from the highest one in which the two ends differ are free inside the block.
        let free = u64::BITS - (first ^ last).leading_zeros();
        // CAST: at most 64.
        match free as u8 {
            free if free <= 12 => Self {
                address: first & !0xfff,
                mask: 0,
            },
            64 => Self::ALL,
            free => Self {
                address: first & !((1 << free) - 1),
                mask: free - 12,
            },
        }
    }
}

/// The tag of cached translations in one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// The stage of the tables.
    pub(crate) stage: Stage,
    /// The domain id.
    pub(crate) domain: u16,
    /// The PASID; requests without one use PASID 0.
    pub(crate) pasid: u32,
}

impl Tag {
    /// The descriptor that drops what is cached under the tag in `block`.
    ///
    /// First-stage translations are cached by domain and PASID, second-stage ones by domain.
    pub(crate) fn pages(self, caps: &Caps, block: Block, leaf_only: bool) -> Descriptor {
        match (self.stage, caps.address_mask(self.stage)) {
            (Stage::First, Some(largest)) if block.mask <= largest => {
                Descriptor::pasid_iotlb_pages(
                    self.domain,
                    self.pasid,
                    block.address,
                    block.mask,
                    leaf_only,
                )
            }
            (Stage::Second, Some(largest)) if block.mask <= largest => Descriptor::iotlb_pages(
                self.domain,
                caps.drain(),
                block.address,
                block.mask,
                leaf_only,
            ),
            _ => self.all(caps),
        }
    }

    /// The descriptor that drops everything cached under the tag.
    pub(crate) fn all(self, caps: &Caps) -> Descriptor {
        match self.stage {
            Stage::First => Descriptor::pasid_iotlb_all(self.domain, self.pasid),
            Stage::Second => Descriptor::iotlb_domain(self.domain, caps.drain()),
        }
    }
}

#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
#[kernel::prelude::kunit_tests(rust_vtd_iotlb)]
mod tests {
    use super::*;
    use crate::regs::cap::{
        CAP,
        ECAP, //
    };

    fn block(address: u64, mask: u8) -> Block {
        Block { address, mask }
    }

    fn caps(largest: u64, selective: bool) -> Caps {
        Caps::new(
            CAP::from_raw(largest << 48 | u64::from(selective) << 39),
            ECAP::from_raw(0),
        )
    }

    #[test]
    fn smallest_block() {
        assert_eq!(Block::around(0x1000, 0x1fff), block(0x1000, 0));
        assert_eq!(Block::around(0x1234, 0x1235), block(0x1000, 0));
        assert_eq!(Block::around(0x1000, 0x2fff), block(0, 2));
        assert_eq!(Block::around(0x20_0000, 0x3f_ffff), block(0x20_0000, 9));
        // Two pages on both sides of a power of two need all that is below the next one.
        assert_eq!(Block::around(0x7fff_f000, 0x8000_0fff), block(0, 20));
        assert_eq!(Block::around(0, u64::MAX), Block::ALL);
        assert_eq!(Block::around(0, u64::MAX >> 1), block(0, 51));
    }

    /// Every block holds its range, and the next smaller one would not.
    #[test]
    fn blocks_hold_their_range() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..1000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let first = seed >> (1 + (seed & 0x1f));
            let last = first + (seed >> (20 + (seed >> 8 & 0x1f)));
            let found = Block::around(first, last);
            let end = found.address + ((1u64 << (found.mask + 12)) - 1);
            assert!(found.address <= first && last <= end);
            if found.mask > 0 {
                let half = (1u64 << (found.mask + 11)) - 1;
                let smaller = first & !half;
                assert!(last > smaller + half);
            }
        }
    }

    #[test]
    fn second_stage_falls_back_to_the_domain() {
        let tag = Tag {
            stage: Stage::Second,
            domain: 5,
            pasid: 0,
        };
        let whole = Descriptor::iotlb_domain(5, (false, false));
        let caps9 = caps(9, true);
        assert_ne!(tag.pages(&caps9, block(0, 9), false), whole);
        assert_eq!(tag.pages(&caps9, block(0, 10), false), whole);
        assert_eq!(tag.pages(&caps(63, false), block(0, 0), false), whole);
    }

    #[test]
    fn first_stage_falls_back_to_the_pasid() {
        let tag = Tag {
            stage: Stage::First,
            domain: 5,
            pasid: 3,
        };
        let caps9 = caps(9, false);
        assert_eq!(
            tag.pages(&caps9, block(0x4000, 2), true),
            Descriptor::pasid_iotlb_pages(5, 3, 0x4000, 2, true)
        );
        assert_eq!(
            tag.pages(&caps9, Block::ALL, true),
            Descriptor::pasid_iotlb_all(5, 3)
        );
    }
}
