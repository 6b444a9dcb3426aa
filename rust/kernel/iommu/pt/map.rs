// SPDX-License-Identifier: GPL-2.0

//! Mapping: the largest leaves that fit, a table's worth at a time.

use super::{
    addr::{
        low_mask,
        Iova,
        Level,
        PhysAddr, //
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
    page_table::PageTable,
    table::{
        Node,
        Slot,
        TableMem, //
    },
    TABLE_ENTRIES, //
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

impl<F: Format, M: TableMem> PageTable<F, M> {
    /// Maps the claimed range to the output addresses from `phys` on.
    ///
    /// Returns how many bytes were mapped, from the start of the range on, and how it ended. After
    /// an error the caller unmaps exactly these bytes if it wants none. Tables that were made on
    /// the way stay; whoever unmaps all that they cover, or the end of the page table, frees them.
    ///
    /// A large leaf may take the place of tables that map nothing any more. They go to `gather`
    /// with the range that they covered, and the caller must flush it, if it holds any table,
    /// before it says that the range is mapped: the hardware may have the old tables cached.
    ///
    /// May sleep if `flags` allow it, takes no lock.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if a side is not aligned to the smallest page, or `prot` can't be expressed.
    /// - `ERANGE` if a side ends beyond what the hardware takes.
    /// - `EADDRINUSE` if something is mapped there.
    /// - `ENOMEM` if there is no memory for a table.
    pub fn map(
        &self,
        claim: &mut Exclusive,
        phys: PhysAddr,
        prot: Prot,
        flags: M::Flags,
        gather: &mut impl Gather<M>,
    ) -> (u64, Result) {
        let mut done = 0;
        let result = self.map_all(claim, phys, prot, flags, gather, &mut done);

        (done, result)
    }

    fn map_all(
        &self,
        claim: &Exclusive,
        phys: PhysAddr,
        prot: Prot,
        flags: M::Flags,
        gather: &mut impl Gather<M>,
        done: &mut u64,
    ) -> Result {
        let attrs = F::attrs(prot)?;
        let root = self.root(claim)?;
        let range = claim.range();
        let size = range.size();
        let last = phys.checked_add(size - 1).ok_or(ERANGE)?;

        if last > self.output_last {
            return Err(ERANGE);
        }

        let smallest = low_mask(self.page_sizes.trailing_zeros());

        if (range.first() | phys | size) & smallest != 0 {
            return Err(EINVAL);
        }

        while *done < size {
            // OVERFLOW: Less than `size` is added, and both ranges were checked to fit.
            let (iova, phys) = (range.first() + *done, phys + *done);
            let run = next_run(self.page_sizes, iova, phys, size - *done).ok_or(EINVAL)?;
            let node = root.make(iova, Level::of_size(run.lg2), flags)?;

            node.fill(iova, phys, &run, attrs, claim, gather, done)?;
        }
        Ok(())
    }
}

impl<'t, F: Format, M: TableMem> Node<'t, F, M> {
    /// The table of `level` on the way to `iova`, made if it isn't there.
    fn make(&self, iova: Iova, level: Level, flags: M::Flags) -> Result<Node<'t, F, M>> {
        let mut node = *self;

        while node.level() > level {
            let slot = node.level().slot(iova);
            let found = match node.get(slot) {
                Slot::Empty => node.install(slot, flags)?,
                found => {
                    // Who linked the table may be about to flush, but not done with it.
                    node.flush(slot, slot);
                    found
                }
            };

            match found {
                Slot::Table(child) => node = child,
                _ => return Err(EADDRINUSE),
            }
        }
        Ok(node)
    }

    /// Writes as many leaves of `run` as this table has room for, and adds them to `done`.
    #[expect(clippy::too_many_arguments)]
    fn fill(
        &self,
        iova: Iova,
        phys: PhysAddr,
        run: &Run,
        attrs: Attrs,
        claim: &Exclusive,
        gather: &mut impl Gather<M>,
        done: &mut u64,
    ) -> Result {
        let level = self.level();
        let first = level.slot(iova);
        // A format may spread a leaf over several entries.
        let step = 1usize << (run.lg2 - level.item_lg2());
        // CAST: At most the number of entries of a table.
        let room = ((TABLE_ENTRIES - first) / step) as u64;
        let mut slot = first;
        let mut phys = phys;
        let mut result = Ok(());

        for _ in 0..run.leaves.min(room) {
            for slot in slot..slot + step {
                result = self.make_empty(slot, claim, gather);
                if result.is_err() {
                    break;
                }
            }
            if result.is_err() {
                break;
            }

            let word = F::leaf(phys, run.lg2, level, attrs);

            for slot in slot..slot + step {
                self.set_leaf(slot, word);
            }
            slot += step;
            phys += 1 << run.lg2;
            *done += 1 << run.lg2;
        }

        if slot != first {
            self.flush(first, slot - 1);
        }
        result
    }

    /// Sees to it that the entry `slot`, all of whose addresses are claimed, holds nothing.
    #[inline]
    fn make_empty(&self, slot: usize, claim: &Exclusive, gather: &mut impl Gather<M>) -> Result {
        match self.get(slot) {
            Slot::Empty => Ok(()),
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
    fn is_vacant(&self) -> bool {
        (0..TABLE_ENTRIES).all(|slot| match self.get(slot) {
            Slot::Empty => true,
            Slot::Leaf { .. } => false,
            Slot::Table(child) => child.is_vacant(),
        })
    }

    /// Takes out all tables below this one, all of which is claimed.
    fn detach_below(&self, claim: &Exclusive, gather: &mut impl Gather<M>) {
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
