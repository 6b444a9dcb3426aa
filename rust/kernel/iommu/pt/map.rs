// SPDX-License-Identifier: GPL-2.0

//! Mapping: the largest leaves that fit, a table's worth at a time.

use super::{
    addr::{
        low_mask,
        Iova,
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
        Attrs,
        Format,
        Prot, //
    },
    gather::Gather,
    node::{
        Node,
        Slot, //
    },
    table::TableMem,
    tables::parts_lg2,
    tree::Tree, //
};
use kernel::error::{
    code::*,
    Result, //
};

/// Leaves of one size in a row.
pub(super) struct Run {
    /// Binary logarithm of the size.
    pub(super) lg2: u32,
    /// How many there are before the range ends or a larger size fits.
    pub(super) leaves: u64,
}

/// The largest leaves that can map `len` bytes from `iova` on to `phys`, and how many of them.
///
/// `None` if not even the smallest does: something is not aligned to it, or nothing is left.
#[inline]
pub(super) fn next_run(page_sizes: u64, iova: Iova, phys: PhysAddr, len: u64) -> Option<Run> {
    // A leaf must start at a multiple of its size on both sides.
    let aligned = low_mask((iova | phys).trailing_zeros() + 1);
    let fitting = page_sizes & aligned & low_mask(u64::BITS - len.leading_zeros());
    let lg2 = fitting.checked_ilog2()?;
    let larger = page_sizes & !low_mask(lg2 + 1);
    let mut until = len;

    // Where both sides come to a multiple of the next size together, and enough is left from there
    // on, the larger leaves begin.
    if larger != 0 {
        let next = larger.trailing_zeros();
        let mask = low_mask(next);

        if (iova ^ phys) & mask == 0 {
            let gap = (iova & mask).wrapping_neg() & mask;

            if gap != 0 && len - gap.min(len) > mask {
                until = gap;
            }
        }
    }

    Some(Run {
        lg2,
        leaves: until >> lg2,
    })
}

/// A map under way.
struct Mapping<'g, G> {
    attrs: Attrs,
    /// Where the next leaf goes, and what it maps to.
    iova: Iova,
    phys: PhysAddr,
    gather: &'g mut G,
}

impl<G> Mapping<'_, G> {
    /// Continues after `leaves` leaves.
    #[inline(always)]
    fn advance(&mut self, leaves: usize, lg2: u32) {
        // CAST: A number of entries fits any width.
        let bytes = (leaves as u64) << lg2;

        // Past the last leaf of all either may come to the end of what the numbers hold.
        self.iova = self.iova.wrapping_add(bytes);
        self.phys = self.phys.wrapping_add(bytes);
    }
}

impl<F: Format, M: TableMem> Tree<'_, F, M> {
    /// Maps the claimed range to the output addresses from `phys` on.
    ///
    /// Returns how many bytes were mapped, from the start of the range on, and how it ended. After
    /// an error the caller unmaps exactly these bytes if it wants none. Tables that were made on
    /// the way stay; an unmap of all that they cover, or the end of the page table, frees them.
    ///
    /// A large leaf may take the place of tables that map nothing any more. They go to `gather`
    /// with the range that they covered, and the caller must flush it, if it holds any table,
    /// before it says that the range is mapped: the hardware may have the old tables cached.
    ///
    /// A range that the top does not reach makes the tree grow, if the format does:
    /// [`Gather::change_top`] tells the hardware.
    ///
    /// May sleep if `flags` allow it, takes no lock.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if a side is not aligned to the smallest page, `prot` can't be expressed, or the
    ///   claim is about another tree.
    /// - `ERANGE` if a side ends beyond what the hardware takes.
    /// - `EADDRINUSE` if something is mapped there.
    /// - `ENOMEM` if there is no memory for a table.
    /// - `EIO` if the hardware could not be given a top that was needed, or a table holds a word
    ///   that this code did not write.
    #[inline]
    pub fn map(
        &self,
        claim: &mut Exclusive,
        phys: PhysAddr,
        prot: Prot,
        flags: M::Flags,
        gather: &mut impl Gather<M>,
    ) -> (u64, Result) {
        if self.map_page(claim, phys, prot) {
            return (1 << F::PAGE_LG2, Ok(()));
        }

        let first = claim.range().first();
        let mut mapping = Mapping {
            attrs: Attrs(0),
            iova: first,
            phys,
            gather,
        };
        let result = self.map_all(claim, prot, flags, &mut mapping);

        (mapping.iova.wrapping_sub(first), result)
    }

    /// Maps the claimed range if it is one page, and if that takes no more than to write an empty
    /// entry of a table that is there; or changes nothing and returns `false`, for whatever reason.
    ///
    /// Drivers mostly map one page, next to others: [`Tree::map`] tries this first. A caller that
    /// would have to make a gather for `map` may try it before.
    #[inline(always)]
    pub fn map_page(&self, claim: &mut Exclusive, phys: PhysAddr, prot: Prot) -> bool {
        let page = low_mask(F::PAGE_LG2);
        let range = claim.range();

        if range.last() - range.first() != page
            || (range.first() | phys) & page != 0
            || phys | page > self.limits.output_last
            || self.limits.page_sizes & (page + 1) == 0
        {
            return false;
        }
        // Tables that another map has linked may not be flushed yet: see `Node::make`.
        if !self.limits.coherent {
            return false;
        }

        let (Ok(attrs), Ok(Slot::Table(root))) = (F::attrs(prot), self.root(claim)) else {
            return false;
        };

        root.descend(Level::LEAF, |node, _| {
            // 0 maps nothing in any format. `map_all()` refuses another word that maps nothing: see
            // `Node::install`.
            let free = node.level() == Level::LEAF && node.word(node.slot()) == 0;

            if free {
                node.set_leaf(node.slot(), F::leaf(phys, F::PAGE_LG2, Level::LEAF, attrs));
            }
            free
        })
    }

    #[inline(never)]
    fn map_all<G: Gather<M>>(
        self,
        claim: &Exclusive,
        prot: Prot,
        flags: M::Flags,
        mapping: &mut Mapping<'_, G>,
    ) -> Result {
        let range = claim.range();
        let size = range.size();
        let last = mapping.phys.checked_add(size - 1).ok_or(ERANGE)?;

        mapping.attrs = F::attrs(prot)?;
        // Before the tree grows.
        if !self.is_claimed_by(claim) {
            return Err(EINVAL);
        }
        if !self.limits.hold(&range) || last > self.limits.output_last {
            return Err(ERANGE);
        }
        if (range.first() | mapping.phys | size) & low_mask(F::PAGE_LG2) != 0 {
            return Err(EINVAL);
        }

        let mut left = size;
        let mut run = self.run(mapping, left)?;
        // Only the first leaf can be as large as the whole tree.
        let mut root = self.root_to_map(claim, run.level::<F>(), flags, mapping.gather)?;

        loop {
            if parts_lg2::<F>() != 0 {
                if let Slot::Table(part) = self.root_from(claim, mapping.iova)? {
                    root = part;
                }
            }

            let node = root.toward(mapping.iova).make(run.level::<F>(), flags)?;

            node.fill(&run, claim, mapping)?;
            left = size - mapping.iova.wrapping_sub(range.first());
            if left == 0 {
                return Ok(());
            }
            run = self.run(mapping, left)?;
        }
    }

    #[inline(always)]
    fn run<G>(&self, mapping: &Mapping<'_, G>, left: u64) -> Result<Run> {
        next_run(self.limits.page_sizes, mapping.iova, mapping.phys, left).ok_or(EINVAL)
    }

    /// The top table for the claimed addresses, none of which is beyond the aperture; a new one if
    /// the present one does not reach them, or is below `level`.
    #[inline(always)]
    fn root_to_map<'c>(
        &'c self,
        claim: &'c Exclusive,
        level: Level,
        flags: M::Flags,
        gather: &mut impl Gather<M>,
    ) -> Result<Node<'c, F, M>> {
        if F::GROWS {
            loop {
                let (top, at) = self.top_table();
                let reach = low_mask(at.item_lg2(F::PAGE_LG2) + TABLE_LG2);

                if at >= level && claim.range().last() <= reach {
                    break;
                }
                self.grow(top, at, flags, gather)?;
            }
        }
        match self.root(claim)? {
            Slot::Table(root) => Ok(root),
            _ => Err(ERANGE),
        }
    }
}

impl Run {
    /// The level of the tables that the leaves go to.
    #[inline(always)]
    fn level<F: Format>(&self) -> Level {
        Level::of_size(F::PAGE_LG2, self.lg2)
    }
}

impl<F: Format, M: TableMem> Node<'_, F, M> {
    /// The table of `level` on the chosen way, made if it isn't there.
    #[inline(always)]
    fn make(mut self, level: Level, flags: M::Flags) -> Result<Self> {
        while self.level() > level {
            match self.get_on_way() {
                Slot::Table(child) => {
                    // It was linked just now, or by another map that may not have come to its flush
                    // yet; and this walk is going to promise that the hardware can follow it.
                    self.flush(self.slot(), self.slot());
                    self = child;
                }
                // Nothing takes the table away again: the way is claimed.
                Slot::Empty => self.install(flags)?,
                Slot::Leaf { .. } => return Err(EADDRINUSE),
            }
        }
        Ok(self)
    }

    /// Writes as many leaves of `run` as this table has room for, from the chosen way on.
    #[inline(always)]
    fn fill<G: Gather<M>>(
        self,
        run: &Run,
        claim: &Exclusive,
        mapping: &mut Mapping<'_, G>,
    ) -> Result {
        let first = self.slot();
        let room = TABLE_ENTRIES - first;
        // One entry a leaf is what nearly all leaves take.
        let (next, result) = if F::CONTIGUOUS == 0 || run.lg2 == self.item_lg2() {
            // CAST: No more than a table has.
            let leaves = run.leaves.min(room as u64) as usize;

            self.fill_entries(first, first + leaves, run.lg2, claim, mapping)
        } else {
            let step = 1 << (run.lg2 - self.item_lg2());
            // CAST: As above.
            let leaves = run.leaves.min((room / step) as u64) as usize;

            self.fill_rows(first, first + leaves * step, run.lg2, claim, mapping)
        };

        if next != first {
            self.flush(first, next - 1);
        }
        result
    }

    /// Writes a leaf to each entry from `slot` to before `end`; returns the entry behind the last.
    #[inline(always)]
    fn fill_entries<G: Gather<M>>(
        self,
        mut slot: usize,
        end: usize,
        lg2: u32,
        claim: &Exclusive,
        mapping: &mut Mapping<'_, G>,
    ) -> (usize, Result) {
        let level = self.level();

        loop {
            let (phys, attrs) = (mapping.phys, mapping.attrs);
            // CAST: A number of entries fits any width.
            let next = self.set_leaves(slot, end, |leaf| {
                F::leaf(phys.wrapping_add((leaf as u64) << lg2), lg2, level, attrs)
            });

            mapping.advance(next - slot, lg2);
            if next == end {
                return (end, Ok(()));
            }
            if let Err(error) = self.make_empty(next, claim, mapping.gather) {
                return (next, Err(error));
            }
            self.set_leaf(next, F::leaf(mapping.phys, lg2, level, attrs));
            mapping.advance(1, lg2);
            slot = next + 1;
        }
    }

    /// The same, with leaves that take a row of entries each.
    fn fill_rows<G: Gather<M>>(
        self,
        mut slot: usize,
        end: usize,
        lg2: u32,
        claim: &Exclusive,
        mapping: &mut Mapping<'_, G>,
    ) -> (usize, Result) {
        let step = 1 << (lg2 - self.item_lg2());

        while slot < end {
            if let Err(error) = self.make_room(slot, step, claim, mapping.gather) {
                return (slot, Err(error));
            }

            for _ in 0..step {
                self.set_leaf(
                    slot,
                    F::leaf(mapping.phys, lg2, self.level(), mapping.attrs),
                );
                slot += 1;
                mapping.advance(1, self.item_lg2());
            }
        }
        (slot, Ok(()))
    }

    /// Empties `step` entries from `slot` on, all of whose addresses are claimed.
    #[inline(always)]
    fn make_room(
        self,
        slot: usize,
        step: usize,
        claim: &Exclusive,
        gather: &mut impl Gather<M>,
    ) -> Result {
        let mut entry = slot;

        while entry < slot + step {
            if self.word(entry) != 0 {
                self.make_empty(entry, claim, gather)?;
            }
            entry += 1;
        }
        Ok(())
    }

    /// Empties the entry `slot`, whose word is not 0 and all of whose addresses are claimed.
    #[cold]
    fn make_empty(self, slot: usize, claim: &Exclusive, gather: &mut impl Gather<M>) -> Result {
        match self.get(slot) {
            // This code did not write a word that maps nothing: see `Node::install`.
            Slot::Empty => Err(EIO),
            Slot::Leaf { .. } => Err(EADDRINUSE),
            Slot::Table(child) if child.is_vacant() => {
                // First the range, see `Gather`.
                gather.add_range(self.item(slot));
                child.detach_below(claim, gather);
                if let Some(table) = self.detach(slot, claim) {
                    self.flush(slot, slot);
                    gather.queue_free(table);
                }
                Ok(())
            }
            Slot::Table(_) => Err(EADDRINUSE),
        }
    }

    /// Whether nothing is mapped by this table and those below, all of which is claimed.
    fn is_vacant(self) -> bool {
        (0..TABLE_ENTRIES).all(|slot| match self.get(slot) {
            Slot::Empty => true,
            Slot::Leaf { .. } => false,
            Slot::Table(child) => child.is_vacant(),
        })
    }

    /// Takes out all tables below this one, all of which is claimed.
    fn detach_below(self, claim: &Exclusive, gather: &mut impl Gather<M>) {
        for slot in 0..TABLE_ENTRIES {
            if let Slot::Table(child) = self.get(slot) {
                child.detach_below(claim, gather);
                if let Some(table) = self.detach(slot, claim) {
                    gather.queue_free(table);
                }
            }
        }
    }
}
