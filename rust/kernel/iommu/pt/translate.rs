// SPDX-License-Identifier: GPL-2.0

//! Translating one address, as the hardware would.

use super::{
    addr::{
        low_mask,
        Level,
        PhysAddr, //
    },
    claim::{
        Claim,
        Stable, //
    },
    format::Format,
    node::Slot,
    table::TableMem,
    tree::Tree, //
};

impl<F: Format, M: TableMem> Tree<'_, F, M> {
    /// The output address of the first claimed address, `None` if it isn't mapped.
    ///
    /// Takes no lock, does not sleep.
    pub fn iova_to_phys(&self, claim: &Stable) -> Option<PhysAddr> {
        let iova = claim.range().first();
        let (_, found) = self.root(claim).ok()??.descend(Level::LEAF);

        match found {
            Slot::Leaf { phys, lg2 } => Some(phys | (iova & low_mask(lg2))),
            Slot::Empty | Slot::Table(_) => None,
        }
    }
}
