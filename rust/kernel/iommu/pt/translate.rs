// SPDX-License-Identifier: GPL-2.0

//! Translating one address, as the hardware would.

use super::{
    addr::{
        low_mask,
        PhysAddr, //
    },
    claim::Claim,
    format::Format,
    node::Slot,
    table::TableMem,
    tree::Tree, //
};

impl<F: Format, M: TableMem> Tree<'_, F, M> {
    /// The output address of the first claimed address, `None` if it isn't mapped.
    ///
    /// Takes no lock, does not sleep. Any claim will do; that of a [`Stable`](super::Stable) costs
    /// nothing, and where the IOMMU core asks, it promises as much.
    pub fn iova_to_phys(&self, claim: &impl Claim) -> Option<PhysAddr> {
        self.translate(claim, |phys| phys)
    }

    /// What `found` makes of the output address of the first claimed address, `None` if it isn't
    /// mapped.
    ///
    /// For callers that say "not mapped" in another way: `found` is compiled into the walk once a
    /// level.
    #[inline(always)]
    pub fn translate<R>(&self, claim: &impl Claim, found: impl Fn(Option<PhysAddr>) -> R) -> R {
        let iova = claim.range().first();
        let Ok(Slot::Table(root)) = self.root(claim) else {
            return found(None);
        };

        root.descend_to_end(|slot| match slot {
            Slot::Leaf { phys, lg2 } => found(Some(phys | (iova & low_mask(lg2)))),
            Slot::Empty | Slot::Table(_) => found(None),
        })
    }
}
