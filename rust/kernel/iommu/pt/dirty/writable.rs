// SPDX-License-Identifier: GPL-2.0

//! What a device may write to: all that can be dirty.
//!
//! Where the dirty bits cannot be believed, because a flush has failed and the hardware may write
//! through translations that it has cached as dirty, every page that is mapped and writable counts
//! as written.

use super::{
    super::{
        claim::Claim,
        format::Format,
        gather::DirtySink,
        node::{
            Node,
            Slot, //
        },
        table::TableMem,
        tree::Tree, //
    },
    Harvest, //
};
use kernel::error::Result;

impl<F: Format, M: TableMem> Tree<'_, F, M> {
    /// Reports every page of the claimed range that is mapped and that a device may write to,
    /// whether it has or not. Changes nothing, and asks for no flush.
    ///
    /// Works without dirty bits, too.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the claim is about another tree, `ERANGE` if the range reaches beyond the
    /// aperture. Nothing was reported then. `EINTR` if the sink [gives up](DirtySink::gives_up).
    pub fn report_writable(&self, claim: &impl Claim, sink: &mut impl DirtySink) -> Result {
        let mut harvest = Harvest::<_, M::Flags>::new(claim.range(), false, sink);

        self.each_root(claim, |root| {
            root.narrow().report_writable(&mut harvest);
            true
        })?;
        harvest.finish()
    }
}

impl<F: Format, M: TableMem> Node<'_, F, M> {
    /// Reports the claimed part of what the table covers.
    pub(super) fn report_writable<S: DirtySink>(self, harvest: &mut Harvest<'_, S, M::Flags>) {
        let (mut slot, last) = (self.first_slot(), self.last_slot());

        while slot <= last {
            let word = self.word(slot);

            match self.read(slot, word) {
                Slot::Empty => slot += 1,
                Slot::Table(_) if harvest.ends(self.level()) => slot += 1,
                Slot::Table(child) => {
                    child.report_writable(harvest);
                    slot += 1;
                }
                Slot::Leaf { lg2, .. } => {
                    if word & F::WRITABLE != 0 {
                        harvest.report(self.leaf(slot, lg2));
                    }
                    slot = self.row(slot, lg2).end;
                }
            }
        }
    }
}
