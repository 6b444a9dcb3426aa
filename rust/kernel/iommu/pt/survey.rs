// SPDX-License-Identifier: GPL-2.0

//! What a tree shows to an operator: the way to an address, and how many leaves there are.
//!
//! It changes nothing, while the hardware and other operations continue. So the tree as a whole may
//! never have been as shown, but each entry was.

use super::{
    addr::Iova,
    claim::Claim,
    format::{
        Entry,
        Format, //
    },
    node::{
        Node,
        Slot, //
    },
    table::TableMem,
    tree::Tree, //
};
use kernel::error::Result;

/// The most tables that one call of [`Tree::survey`] looks at, more than there are levels. A table
/// takes about a microsecond.
const PIECE: usize = 64;

/// One entry on the way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The level of its table, 0 for that of the smallest pages.
    pub level: u8,
    /// Its place in the table.
    pub slot: usize,
    /// Its word, as hardware reads it.
    pub word: u64,
    /// The meaning of the word.
    pub entry: Entry,
    /// Whether a device may write through it, if it is a leaf.
    pub writable: bool,
    /// Whether it belongs to a leaf that is dirty, in whichever of its entries.
    pub dirty: bool,
}

/// The number of leaves of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaves {
    /// All leaves.
    pub all: u64,
    /// Those that are dirty.
    pub dirty: u64,
}

/// The number of leaves of each size, and of tables.
pub struct Survey {
    leaves: [Leaves; u64::BITS as usize],
    /// Tables, the top included.
    pub tables: u64,
}

impl Default for Survey {
    fn default() -> Self {
        Self {
            leaves: [Leaves::default(); u64::BITS as usize],
            tables: 0,
        }
    }
}

impl Survey {
    /// The sizes that there are leaves of, as binary logarithms, the smallest first.
    pub fn sizes(&self) -> impl Iterator<Item = (u32, Leaves)> + '_ {
        (0..).zip(self.leaves).filter(|(_, leaves)| leaves.all != 0)
    }

    fn add(&mut self, lg2: u32, dirty: bool) {
        // CAST: Widening.
        if let Some(leaves) = self.leaves.get_mut(lg2 as usize) {
            leaves.all += 1;
            leaves.dirty += u64::from(dirty);
        }
    }
}

/// A survey of a part under way.
struct Piece<'s> {
    survey: &'s mut Survey,
    tables: usize,
    /// Where to go on, if there were too many tables.
    rest: Option<Iova>,
}

impl<F: Format, M: TableMem> Tree<'_, F, M> {
    /// Calls `step` for each entry on the way to the first claimed address, from the top down; for
    /// none if it lies beyond the top.
    ///
    /// Takes no lock, does not sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the claim is about another tree, `ERANGE` beyond the aperture.
    pub fn steps(&self, claim: &impl Claim, mut step: impl FnMut(Step)) -> Result {
        let mut next = self.root(claim)?;

        while let Slot::Table(node) = next {
            let slot = node.slot();
            let word = node.word(slot);
            let entry = F::decode(word, node.level());

            step(Step {
                level: node.level().number(),
                slot,
                word,
                entry,
                writable: word & F::WRITABLE != 0,
                dirty: match entry {
                    Entry::Leaf { lg2, .. } => node.is_dirty(slot, lg2),
                    _ => false,
                },
            });
            next = node.read(slot, word);
        }
        Ok(())
    }

    /// Adds the leaves that begin in the claimed range to `survey`, and the tables on the way that
    /// the range is the first to reach. Returns where to go on if there is more than one call
    /// should look at.
    ///
    /// Takes no lock, does not sleep.
    ///
    /// # Errors
    ///
    /// The errors of [`Tree::steps`].
    pub fn survey(&self, claim: &impl Claim, survey: &mut Survey) -> Result<Option<Iova>> {
        let mut piece = Piece {
            survey,
            tables: 0,
            rest: None,
        };

        self.each_root(claim, |root| {
            root.survey(&mut piece);
            piece.rest.is_none()
        })?;
        Ok(piece.rest)
    }
}

impl<F: Format, M: TableMem> Node<'_, F, M> {
    /// Whether the leaf of `1 << lg2` bytes that the entry `slot` belongs to is dirty.
    fn is_dirty(self, slot: usize, lg2: u32) -> bool {
        self.row(slot, lg2)
            .any(|slot| F::dirt(self.word(slot)) & F::DIRTY != 0)
    }

    /// Adds what the table has of the claimed range.
    fn survey(self, piece: &mut Piece<'_>) {
        let mut slot = self.first_slot();
        let end = self.last_slot() + 1;

        piece.tables += 1;
        // A piece that begins inside the table has it from the piece before.
        piece.survey.tables += u64::from(!self.begins_inside());
        while slot < end {
            match self.get(slot) {
                Slot::Empty => slot += 1,
                Slot::Table(_) if piece.tables == PIECE => {
                    piece.rest = Some(self.item(slot).first().max(self.first()));
                    return;
                }
                Slot::Table(child) => {
                    child.survey(piece);
                    if piece.rest.is_some() {
                        return;
                    }
                    slot += 1;
                }
                Slot::Leaf { lg2, .. } => {
                    if self.leaf(slot, lg2).first() >= self.first() {
                        piece.survey.add(lg2, self.is_dirty(slot, lg2));
                    }
                    slot = self.row(slot, lg2).end;
                }
            }
        }
    }
}
