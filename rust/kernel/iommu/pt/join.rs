// SPDX-License-Identifier: GPL-2.0

//! Joining what was split: parts become the original leaf again.
//!
//! - Only parts of one leaf are joined, all of them, and only if none was unmapped since: what is
//!   mapped instead is not noted as a part ([`Format::PART`]). So leaves come back that were mapped
//!   as such, and a caller that unmaps what it has mapped finds no other.
//! - The caller flushes the addresses and the hardware's copies of links. Until then the hardware
//!   may use the leaf or the parts, and it may set D in a part, which nothing reads any more. So
//!   the leaf begins as dirty: a harvest may report too much, and loses no page.
//! - A table that was replaced is freed after that flush, as one that an unmap has taken out.
//!
//! No caller maps or unmaps the range during a join: a page that is unmapped in a table which has
//! just given way to a leaf would stay mapped. There is no walk either: see [`Pause`].

use super::{
    addr::{
        low_mask,
        Level,
        PhysAddr,
        TABLE_ENTRIES,
        TABLE_LG2, //
    },
    claim::{
        Claim,
        Exclusive, //
    },
    format::{
        part_bits,
        part_lg2,
        Attrs,
        Entry,
        Format,
        Words, //
    },
    gather::Gather,
    node::{
        Node,
        Slot,
        TRIES, //
    },
    table::{
        Line,
        TableMem,
        LINE_ENTRIES, //
    },
    tree::Tree,
    walks::Pause, //
};
use core::marker::PhantomData;
use kernel::error::{
    code::*,
    Result, //
};

/// Leaves in a row that may have been one, by the first of them.
struct Parts<F> {
    phys: PhysAddr,
    attrs: Attrs,
    lg2: u32,
    level: Level,
    format: PhantomData<F>,
}

impl<F: Format> Parts<F> {
    /// The leaf of `level` in `word`, if it is a part of `1 << lg2` such leaves, the first of them.
    fn first(word: u64, level: Level, lg2: u32) -> Option<Self> {
        let item_lg2 = level.item_lg2(F::PAGE_LG2);

        match F::decode(word, level) {
            Entry::Leaf { phys, lg2: found }
                if found == item_lg2
                    && part_lg2::<F>(word) == lg2
                    && phys & low_mask(item_lg2 + lg2) == 0 =>
            {
                Some(Self {
                    phys,
                    attrs: F::leaf_attrs(word, level),
                    lg2,
                    level,
                    format: PhantomData,
                })
            }
            _ => None,
        }
    }

    /// The part with that number, as accessed and dirty as the first one.
    fn word(&self, number: usize) -> u64 {
        let item_lg2 = self.level.item_lg2(F::PAGE_LG2);
        // CAST: A number of entries fits any width.
        let phys = self.phys | (number as u64) << item_lg2;

        F::leaf(phys, item_lg2, self.level, self.attrs) | part_bits::<F>(self.lg2)
    }

    /// Whether `word` is the part with that number: its address follows, and all but the accessed
    /// and dirty flags is the same.
    fn has(&self, number: usize, word: u64) -> bool {
        let part = self.word(number);

        // One direction alone allows for a permission that has come.
        F::may_replace_live(part, word, self.level) && F::may_replace_live(word, part, self.level)
    }
}

impl<F: Format, M: TableMem> Tree<'_, F, M> {
    /// Joins the parts of leaves that lie wholly in the claimed range; returns the number of leaves
    /// that came back.
    ///
    /// The addresses go to `gather`, and the tables after them, which the caller frees as those of
    /// an unmap. It flushes the hardware's copies of links, whether there is a table or not.
    ///
    /// Takes no lock, and needs no memory.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` unless [`Tree::can_split`], `EINVAL` if a claim is about another tree, `ERANGE`
    /// if the range reaches beyond the aperture. Nothing has changed then.
    pub fn join(
        &self,
        claim: &mut Exclusive,
        pause: &Pause<'_, M>,
        gather: &mut impl Gather<M>,
    ) -> Result<u64> {
        let claim = &*claim;
        let mut joined = 0;

        if !self.can_split() {
            return Err(EOPNOTSUPP);
        }
        if !pause.is_about(self.top) {
            return Err(EINVAL);
        }
        self.each_root(claim, |root| {
            joined += root.join(claim, gather);
            true
        })?;
        Ok(joined)
    }
}

impl<F: Format, M: TableMem> Node<'_, F, M> {
    /// Joins what can be in the claimed part of what the table covers, from below.
    fn join(self, claim: &Exclusive, gather: &mut impl Gather<M>) -> u64 {
        let mut joined = 0;

        if self.level() != Level::LEAF {
            let has_table = |line: Line| !F::has_no_table(line.any, line.all, self.level());

            self.each_slot(has_table, |slot| {
                if let Slot::Table(child) = self.get(slot) {
                    joined += child.join(claim, gather);
                    joined += u64::from(self.join_table(slot, child, claim, gather));
                }
            });
        }
        // Parts of a row may have been tables until now.
        if F::CONTIGUOUS != 0 {
            let has_row = |line: Line| line.any & F::PART != 0 && line.all & F::PART != F::PART;

            self.each_slot(has_row, |slot| {
                joined += u64::from(self.join_row(slot, claim, gather));
            });
        }
        joined
    }

    /// Calls `work` for each claimed entry in a cache line that `matters`, in ascending order.
    fn each_slot(self, matters: impl Fn(Line) -> bool, mut work: impl FnMut(usize)) {
        let (mut slot, last) = (self.first_slot(), self.last_slot());

        while slot <= last {
            let next = (slot / LINE_ENTRIES + 1) * LINE_ENTRIES;

            if matters(self.line(slot / LINE_ENTRIES)) {
                (slot..next.min(last + 1)).for_each(&mut work);
            }
            slot = next;
        }
    }

    /// Puts a leaf in the place of the table `child` in the entry `slot`, if that has its parts.
    fn join_table(
        self,
        slot: usize,
        child: Self,
        claim: &Exclusive,
        gather: &mut impl Gather<M>,
    ) -> bool {
        let Some(parts) = Parts::<F>::first(child.word(0), child.level(), TABLE_LG2) else {
            return false;
        };

        let words = Words::new(|part| parts.word(part));
        let has = |part| {
            let word = child.word(part);

            words.word(part) == word || parts.has(part, word)
        };

        if !(0..TABLE_ENTRIES).all(has) {
            return false;
        }

        let leaf = F::leaf(parts.phys, self.item_lg2(), self.level(), parts.attrs);
        let leaf = if leaf & F::WRITABLE != 0 {
            F::mark(leaf)
        } else {
            leaf
        };
        let Some(table) = self.unlink(slot, leaf, claim) else {
            return false;
        };

        // First the range, see `Gather`.
        gather.add_range(self.item(slot));
        gather.queue_free(table);
        true
    }

    /// Makes the leaves from the entry `slot` on a leaf that takes a row of entries, if they are
    /// its parts. Each entry stays as dirty as it is: one is enough for all.
    fn join_row(self, slot: usize, claim: &Exclusive, gather: &mut impl Gather<M>) -> bool {
        let level = self.level();
        let word = self.word(slot);
        let row_lg2 = part_lg2::<F>(word);

        if !(1..TABLE_LG2).contains(&row_lg2) {
            return false;
        }

        let lg2 = self.item_lg2() + row_lg2;
        let slots = self.row(slot, lg2);
        let leaf = self.leaf(slot, lg2);
        let Some(parts) = Parts::<F>::first(word, level, row_lg2) else {
            return false;
        };

        if slots.start != slot
            || !claim.range().covers(&leaf)
            || !slots
                .clone()
                .all(|entry| parts.has(entry - slot, self.word(entry)))
        {
            return false;
        }
        gather.add_range(leaf);
        slots.fold(true, |all, entry| {
            // CAST: A number of entries fits any width.
            let phys = parts.phys | ((entry - slot) as u64) << self.item_lg2();
            let mut word = self.word(entry);

            for _ in 0..TRIES {
                let attrs = F::leaf_attrs(word, level);

                match self.exchange(entry, word, F::leaf(phys, lg2, level, attrs)) {
                    Ok(()) => return all,
                    Err(now) => word = now,
                }
            }
            false
        })
    }
}
