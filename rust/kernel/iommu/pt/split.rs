// SPDX-License-Identifier: GPL-2.0

//! Splitting leaves while devices use them, so that a dirty bit stands for fewer bytes.
//!
//! A leaf gives way to a table of 512 leaves of the level below, its *parts*. A leaf that takes a
//! row of entries gives way to leaves of one entry each, which needs no memory. The rules, which
//! `Documentation/driver-api/rust-iommu/dirty.rst` has the reasons for:
//!
//! - The table is filled before it is linked. The parts have the address, the permissions and the
//!   accessed bit of the leaf. They are clean if the caller reports the leaf as a whole, else as
//!   dirty as the leaf is.
//! - The link replaces exactly the word that the parts were made from. If the hardware sets D in
//!   between, the exchange fails, and the parts are made again.
//! - The caller flushes all addresses of the leaf and the hardware's copies of links. Until then
//!   the hardware may use the leaf or the parts.
//! - Until then, it may also set D in the entry that was the leaf. In a link, this says that all
//!   that is below may have been written to: see [`Format::LATE_DIRT`]. The entries of a row have
//!   no such place. They start as dirty unless the row is reported.
//! - Without memory the leaf stays.
//!
//! Each part records how large the leaf was ([`Format::PART`]), so that the parts can be joined.

use super::{
    addr::{
        low_mask,
        Range,
        TABLE_LG2, //
    },
    claim::Claim,
    format::{
        part_bits,
        Entry,
        Format,
        Words, //
    },
    limits::Limits,
    node::{
        Node,
        Slot,
        TRIES, //
    },
    table::TableMem,
    tree::Tree, //
};
use kernel::error::{
    code::*,
    Result, //
};

/// How the writes to a leaf that is split are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    /// The caller reports all of the leaf: its parts are clean.
    Reported,
    /// The parts are as dirty as the leaf.
    Kept,
}

impl Writes {
    /// The word of a part that is as dirty as its leaf, as it begins.
    fn of<F: Format>(self, part: u64) -> u64 {
        if self == Writes::Reported && F::dirt(part) & F::DIRTY != 0 {
            F::clean(part)
        } else {
            part
        }
    }
}

/// An operation that splits leaves; `A` says how it allocates tables.
pub(super) struct Splitting<A> {
    flags: A,
    /// The leaf sizes that can be used.
    page_sizes: u64,
    /// From the first to the last address that is to be flushed with links.
    hull: Option<Range>,
    /// The range that was made dirty as a whole, although most of it was not written.
    spared: Option<Range>,
}

impl<A> Splitting<A> {
    /// Creates the state before anything is split.
    pub(super) fn new(flags: A, limits: &Limits) -> Self {
        Self {
            flags,
            page_sizes: limits.page_sizes,
            hull: None,
            spared: None,
        }
    }

    /// Takes note of a leaf that was split, or an entry of it; or that has to be flushed like one.
    pub(super) fn add(&mut self, leaf: Range) {
        let hull = self.hull.unwrap_or(leaf);
        let first = hull.first().min(leaf.first());

        self.hull = Range::inclusive(first, hull.last().max(leaf.last())).ok();
    }

    /// From the first to the last address that is to be flushed with links.
    pub(super) fn range(self) -> Option<Range> {
        self.hull
    }

    /// Whether `leaf` is a part of what was made dirty as a whole: it is not to be split as well,
    /// unless the query cuts it.
    pub(super) fn spares(&self, leaf: Range) -> bool {
        self.spared.is_some_and(|spared| spared.covers(&leaf))
    }

    /// Takes note that all of `range` was made dirty, unless that is known of more.
    pub(super) fn spare(&mut self, range: Range) {
        if !self.spares(range) {
            self.spared = Some(range);
        }
    }
}

impl<F: Format, M: TableMem> Tree<'_, F, M> {
    /// Splits the leaves of the claimed range that are larger than `1 << lg2` bytes, those that
    /// reach beyond it included, down to the largest size that is not.
    ///
    /// Returns the addresses that the caller has to flush, with the hardware's copies of links,
    /// also after an error. Leaves stay as dirty as they are; those that take rows of entries
    /// become dirty.
    ///
    /// May sleep if `flags` allow it, takes no lock. With a [`Walk`](super::Walk), the range may be
    /// mapped and unmapped meanwhile. `go_on` is asked before each table that a GiB or so is below.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` unless [`Tree::can_split`], `EINVAL` if the claim is about another tree,
    /// `ERANGE` if the range reaches beyond the aperture; `ENOMEM` if there was no memory for a
    /// table, `EINTR` if it was not to go on: what was not split stays as it is.
    pub fn split(
        &self,
        claim: &impl Claim,
        lg2: u32,
        flags: M::Flags,
        mut go_on: impl FnMut() -> bool,
    ) -> (Option<Range>, Result) {
        let mut splitting = Splitting::new(flags, &self.limits);

        if !self.can_split() {
            return (None, Err(EOPNOTSUPP));
        }

        let mut result = Ok(());
        let walked = self.each_root(claim, |root| {
            result = root.split_all(lg2, &mut splitting, &mut go_on);
            result.is_ok()
        });

        (splitting.range(), result.and(walked))
    }
}

impl<F: Format, M: TableMem> Node<'_, F, M> {
    /// Splits the leaves of the claimed part of what the table covers.
    fn split_all(
        self,
        to: u32,
        splitting: &mut Splitting<M::Flags>,
        go_on: &mut impl FnMut() -> bool,
    ) -> Result {
        for slot in self.first_slot()..=self.last_slot() {
            // Whether the parts of a leaf are here, and no rows.
            let mut has_parts = false;

            // First a row, if there is one, then what is in its place.
            for _ in 0..2 {
                if let Slot::Leaf { lg2, .. } = self.get(slot) {
                    if lg2 <= to {
                        break;
                    }
                    match self.split(slot, lg2, Writes::Kept, splitting) {
                        Ok(()) => has_parts = lg2 == self.item_lg2(),
                        Err(error) if error == ENOMEM => return Err(error),
                        // It was unmapped, or has no smaller size: it stays.
                        Err(_) => break,
                    }
                }
            }
            if let Slot::Table(child) = self.get(slot) {
                if (has_parts || F::CONTIGUOUS == 0) && child.item_lg2() <= to {
                    continue;
                }
                if self.level().number() >= 2 && !go_on() {
                    return Err(EINTR);
                }
                child.split_all(to, splitting, go_on)?;
            }
        }
        Ok(())
    }

    /// Puts parts in the place of the leaf of `1 << lg2` bytes that the entry `slot` belongs to.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is no memory for a table, `EAGAIN` if the leaf is not there any more, has
    /// no smaller size, or may not change like that. All of it, or of a row the rest, is as it was.
    pub(super) fn split(
        self,
        slot: usize,
        lg2: u32,
        writes: Writes,
        splitting: &mut Splitting<M::Flags>,
    ) -> Result {
        if lg2 > self.item_lg2() {
            self.split_row(slot, lg2, writes, splitting)
        } else {
            self.split_leaf(slot, writes, splitting)
        }
    }

    /// The same, for a leaf of one entry.
    fn split_leaf(
        self,
        slot: usize,
        writes: Writes,
        splitting: &mut Splitting<M::Flags>,
    ) -> Result {
        let level = self.level();
        let below = level.below().ok_or(EAGAIN)?;
        let lg2 = below.item_lg2(F::PAGE_LG2);

        if splitting.page_sizes >> lg2 & 1 == 0 {
            return Err(EAGAIN);
        }

        let mut table = self.unlinked(splitting.flags)?;

        for _ in 0..TRIES {
            let word = self.word(slot);
            let phys = match F::decode(word, level) {
                Entry::Leaf { phys, lg2 } if lg2 == self.item_lg2() => phys,
                _ => return Err(EAGAIN),
            };
            let attrs = F::leaf_attrs(word, level);

            let words = Words::new(|part| {
                // CAST: A number of entries fits any width. OVERFLOW: It lies in the leaf.
                let phys = phys | (part as u64) << lg2;

                writes.of::<F>(F::leaf(phys, lg2, below, attrs)) | part_bits::<F>(TABLE_LG2)
            });

            table.fill(|part| words.word(part));
            match self.link(slot, word, table) {
                Ok(()) => {
                    splitting.add(self.item(slot));
                    return Ok(());
                }
                Err(unlinked) => table = unlinked,
            }
        }
        Err(EAGAIN)
    }

    /// The same, for a leaf that takes a row of entries: one by one. Until all are done, a walk
    /// finds some of the leaf and some of its parts.
    fn split_row(
        self,
        slot: usize,
        lg2: u32,
        writes: Writes,
        splitting: &mut Splitting<M::Flags>,
    ) -> Result {
        let mut result = Ok(());

        if splitting.page_sizes >> self.item_lg2() & 1 == 0 {
            return Err(EAGAIN);
        }
        for entry in self.row(slot, lg2) {
            match self.split_entry(entry, lg2, writes) {
                Ok(()) => splitting.add(self.leaf(slot, lg2)),
                error => result = error,
            }
        }
        result
    }

    /// Makes the entry `slot` of a row a leaf by itself.
    fn split_entry(self, slot: usize, lg2: u32, writes: Writes) -> Result {
        let (level, item_lg2) = (self.level(), self.item_lg2());
        let mut word = self.word(slot);

        // Once begun, a row is split to its end: an entry that stayed would let the hardware cache
        // the row again. This ends: the hardware sets each of A and D once, since no other pass
        // clears them meanwhile, and what is unmapped is no leaf of that size any more.
        loop {
            let phys = match F::decode(word, level) {
                Entry::Leaf { phys, lg2: found } if found == lg2 => phys,
                _ => return Err(EAGAIN),
            };
            let phys = phys | self.item(slot).first() & low_mask(lg2);
            let part = F::leaf(phys, item_lg2, level, F::leaf_attrs(word, level));
            // The hardware may have noted a write to another entry's part in this one, or may do so
            // until the flush.
            let part = match writes {
                Writes::Kept => F::mark(part),
                Writes::Reported => writes.of::<F>(part),
            };

            match self.exchange(slot, word, part | part_bits::<F>(lg2 - item_lg2)) {
                Ok(()) => return Ok(()),
                // Refused by `may_replace_live()`.
                Err(now) if now == word => return Err(EAGAIN),
                Err(now) => word = now,
            }
        }
    }
}
