// SPDX-License-Identifier: GPL-2.0

//! From a range of addresses to invalidation descriptors (VT-d specification, 6.5.2 and 6.5.3).
//!
//! A page-selective invalidation covers a [`Block`] of 2^AM pages; a block larger than the unit's
//! MAMV becomes an invalidation of the whole domain. Pure.

use kernel::iommu::block::Block;

use crate::{
    caps::{
        Caps,
        Stage, //
    },
    qi::desc::Descriptor,
};

/// The logarithm of a page, which masks count.
const PAGE_LG2: u8 = 12;

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
        let mask = block.lg2.saturating_sub(PAGE_LG2);
        match (self.stage, caps.address_mask(self.stage)) {
            (Stage::First, Some(largest)) if mask <= largest => {
                Descriptor::pasid_iotlb_pages(self.domain, self.pasid, block.first, mask, leaf_only)
            }
            (Stage::Second, Some(largest)) if mask <= largest => {
                Descriptor::iotlb_pages(self.domain, caps.drain(), block.first, mask, leaf_only)
            }
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

    fn block(first: u64, mask: u8) -> Block {
        Block {
            first,
            lg2: PAGE_LG2 + mask,
        }
    }

    fn caps(largest: u64, selective: bool) -> Caps {
        Caps::new(
            CAP::from_raw(largest << 48 | u64::from(selective) << 39),
            ECAP::from_raw(0),
        )
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
