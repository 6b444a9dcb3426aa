// SPDX-License-Identifier: GPL-2.0

//! Harvests that split what they find dirty, so that the next one finds less.
//!
//! A large leaf that lies wholly in the query is reported as usual, and its parts begin clean: one
//! level each time that it is dirty. So tables are added only where devices write.
//!
//! A leaf that reaches beyond the query stays dirty for the rest of it, and a caller that asks in
//! pieces which are smaller than a leaf would never see it clean. Its parts begin dirty, those in
//! the query become clean, and one that the query cuts is split in turn.

use super::{
    super::{
        addr::TABLE_ENTRIES,
        claim::Claim,
        format::{
            Entry,
            Format, //
        },
        gather::DirtySink,
        node::{
            Node,
            TRIES, //
        },
        split::{
            Splitting,
            Writes, //
        },
        table::TableMem,
        tree::Tree, //
    },
    Harvest, //
};
use kernel::error::{
    code::*,
    Result, //
};

impl<F: Format, M: TableMem> Tree<'_, F, M> {
    /// As [`Tree::read_and_clear_dirty`], clearing; and splits the leaves that it finds dirty, by
    /// one level. Those that the range cuts are split down to the smallest size there.
    ///
    /// The caller flushes what the sink was told by [`DirtySink::split`], beside what it was told
    /// by [`DirtySink::cleared`], before it copies the pages.
    ///
    /// If there is no memory for a table, the leaf is made clean as usual.
    ///
    /// The caller lets no two of these calls, and no other call that makes leaves clean, run at the
    /// same time on one tree, if the format has rows of entries: the entries of a row are split one
    /// by one, and until the last one the hardware may cache the row as a dirty leaf, and would
    /// note no write to a part that another call has made clean.
    ///
    /// May sleep if `flags` allow it.
    ///
    /// # Errors
    ///
    /// The errors of [`Tree::read_and_clear_dirty`]; `EOPNOTSUPP` unless [`Tree::can_split`].
    pub fn read_and_split_dirty(
        &self,
        claim: &impl Claim,
        flags: M::Flags,
        sink: &mut impl DirtySink,
    ) -> Result {
        if !self.can_split() {
            return Err(EOPNOTSUPP);
        }

        let mut harvest = Harvest::new(claim.range(), true, sink);

        harvest.splitting = Some(Splitting::new(flags, &self.limits));
        self.harvest(claim, harvest)
    }
}

impl<F: Format, M: TableMem> Node<'_, F, M> {
    /// Splits the dirty leaf of `1 << lg2` bytes that the entry `slot` belongs to if the query cuts
    /// it. Whether its parts are there now, to be harvested.
    #[cold]
    pub(super) fn split_cut<S: DirtySink>(
        self,
        slot: usize,
        lg2: u32,
        harvest: &mut Harvest<'_, S, M::Flags>,
    ) -> bool {
        let leaf = self.leaf(slot, lg2);
        let query = harvest.query;
        let Some(splitting) = &mut harvest.splitting else {
            return false;
        };

        if query.covers(&leaf) || self.split(slot, lg2, Writes::Kept, splitting).is_err() {
            return false;
        }
        splitting.spare(leaf);
        true
    }

    /// Splits the dirty leaf of `1 << lg2` bytes that the entry `slot` belongs to, which was
    /// reported as a whole. If not, it is still to be made clean.
    #[cold]
    pub(super) fn split_reported<S: DirtySink>(
        self,
        slot: usize,
        lg2: u32,
        harvest: &mut Harvest<'_, S, M::Flags>,
    ) -> bool {
        let leaf = self.leaf(slot, lg2);
        let Some(splitting) = &mut harvest.splitting else {
            return false;
        };

        !splitting.spares(leaf) && self.split(slot, lg2, Writes::Reported, splitting).is_ok()
    }

    /// Takes note of the late write that the link to `child` in the entry `slot` tells of.
    ///
    /// It may have gone to any address below. A harvest that splits makes all below dirty, takes
    /// the bit away after that, and goes on: this works for a query of any size. Another one
    /// reports its part, and leaves the bit.
    ///
    /// Whether `child` is still to be harvested.
    #[cold]
    pub(super) fn harvest_late<S: DirtySink>(
        self,
        slot: usize,
        child: Self,
        harvest: &mut Harvest<'_, S, M::Flags>,
    ) -> bool {
        let Some(splitting) = &mut harvest.splitting else {
            child.report_writable(harvest);
            return false;
        };
        let item = self.item(slot);

        // The hardware has the leaf cached as dirty now, unless the flush has come that follows the
        // split: for that one this harvest cannot rely on another.
        splitting.add(item);
        splitting.spare(item);
        if child.mark_all() {
            let late = F::LATE_DIRT.unwrap_or(0);
            let mut word = self.word(slot);

            // What is left of it is seen by the next harvest.
            for _ in 0..TRIES {
                let is_link = matches!(F::decode(word, self.level()), Entry::Table(_));

                if !is_link || word & late == 0 {
                    break;
                }
                match self.exchange(slot, word, word & !late) {
                    Ok(()) => break,
                    Err(now) => word = now,
                }
            }
        }
        true
    }

    /// Makes every leaf of the table dirty that may be written to, and has links say the same.
    /// Whether all are.
    fn mark_all(self) -> bool {
        (0..TABLE_ENTRIES).all(|slot| {
            let mut word = self.word(slot);

            for _ in 0..TRIES {
                let marked = match F::decode(word, self.level()) {
                    Entry::Empty => return true,
                    Entry::Table(_) => word | F::LATE_DIRT.unwrap_or(0),
                    Entry::Leaf { .. } if word & F::WRITABLE == 0 => return true,
                    Entry::Leaf { .. } => F::mark(word),
                };

                if marked == word {
                    return true;
                }
                match self.exchange(slot, word, marked) {
                    Ok(()) => return true,
                    Err(now) => word = now,
                }
            }
            false
        })
    }
}
