// SPDX-License-Identifier: GPL-2.0

//! Leaves that take rows of entries, split while they are tracked.

use super::{
    super::{
        format::part_bits,
        Config,
        Format,
        Level,
        Prot,
        Range, //
    },
    memory::{
        TestMem,
        TestTable, //
    },
    split::{
        config,
        harvest, //
    },
    Spec, //
};
use kernel::error::Result;

const K4: u64 = 1 << 12;
const M2: u64 = 1 << 21;
const G1: u64 = 1 << 30;

/// Hardware with all sizes of the format, on which leaves may be split.
pub(super) fn all_sizes<S: Spec>() -> Config {
    Config {
        page_sizes: u64::MAX,
        ..config::<S>()
    }
}

/// An entry of a row may become a leaf by itself and come back, if it translates alike and allows
/// the same.
pub fn rows_change_live<S: Spec>() -> Result {
    for (level, item_lg2, lg2) in [(1, 12, 16), (2, 21, 22)] {
        let level = Level::top_of(level)?;
        let leaf = |phys, lg2, prot| -> Result<u64> {
            Ok(S::F::leaf(phys, lg2, level, S::F::attrs(prot)?))
        };
        let may = |old, new| S::F::may_replace_live(old, new, level);
        let both = Prot::READ | Prot::WRITE;
        let row = leaf(G1, lg2, both)?;

        for part in 0..1u64 << (lg2 - item_lg2) {
            let part = leaf(G1 + (part << item_lg2), item_lg2, both)?;

            for part in [part, S::written(part), part | S::PART] {
                check!(may(row, part) && may(part, row));
                check!(may(S::written(row), part) && may(part, S::written(row)));
            }
        }
        for other in [
            leaf(G1 + (1 << lg2), item_lg2, both)?,
            leaf(G1 - (1 << item_lg2), item_lg2, both)?,
            leaf(G1, item_lg2, Prot::READ)?,
            leaf(G1, item_lg2, both | Prot::SNOOP)?,
            leaf(G1, lg2 + 1, both)?,
        ] {
            check!(!may(row, other) && !may(other, row));
        }
    }
    Ok(())
}

/// A leaf that takes a row of entries is reported as a whole, and becomes leaves of one entry,
/// which takes no memory.
pub fn rows_become_leaves<S: Spec>() -> Result {
    for (lg2, item) in [(13, K4), (16, K4), (20, K4), (22, M2), (25, M2)] {
        let mem = TestMem::new();
        let table = TestTable::<S>::with(&mem, all_sizes::<S>())?;
        let size = 1u64 << lg2;

        // Not aligned for more.
        table.map(G1 + size, 2 * G1 + size, size)?;
        check_eq!(table.leaf_lg2(G1 + size)?, lg2);
        mem.fail_after(0);
        table.access(G1 + 2 * size - 1, true)?;

        let (sink, split_range) = harvest(&table, 0, 4 * G1)?;
        let leaf = Range::new(G1 + size, size)?;

        check!(sink.is(&[(leaf.first(), leaf.last())]) && split_range == Some(leaf));
        for part in (0..size).step_by(item as usize) {
            let iova = leaf.first() + part;

            check_eq!(table.leaf_lg2(iova)?, item.trailing_zeros());
            check!(table.translate(iova) == Some(iova + G1));
            check!(!S::is_dirty(table.word(iova)?));
        }
        check!(table.access(leaf.last(), true)? == leaf.last() + G1);

        let (sink, split_range) = harvest(&table, 0, 4 * G1)?;

        check!(sink.is(&[(leaf.last() + 1 - item, leaf.last())]));
        check!(split_range.is_none());
        check!(harvest(&table, 0, 4 * G1)?.0.is(&[]));
    }
    Ok(())
}

/// The same where queries cut it: each reports its part, and all are clean in the end.
pub fn a_cut_row_converges<S: Spec>() -> Result {
    for lg2 in [14, 20, 23] {
        let mem = TestMem::new();
        let table = TestTable::<S>::with(&mem, all_sizes::<S>())?;
        let size = 1u64 << lg2;
        let (first, half) = (G1 + size, G1 + size + size / 2);

        table.map(first, size, size)?;
        table.access(first + size - 1, true)?;

        let (sink, split_range) = harvest(&table, half - K4, K4 + 3)?;

        check!(sink.is(&[(half - K4, half + 2)]));
        check!(sink.has_cleared(half - K4, half - 1));
        check!(split_range == Some(Range::new(first, size)?));

        let (sink, _) = harvest(&table, first, size / 2)?;

        check!(sink.is(&[(first, half - K4 - 1)]));
        check!(harvest(&table, half, size)?
            .0
            .is(&[(half, first + size - 1)]));
        check!(harvest(&table, 0, 4 * G1)?.0.is(&[]));
    }
    Ok(())
}

/// An unmap may come when a harvest has split some entries of a row: it removes the row and no
/// more, also if it was asked for less.
pub fn half_a_row_is_unmapped<S: Spec>() -> Result {
    for (level, item_lg2, lg2) in [(1, 12, 16), (2, 21, 23)] {
        let level = Level::top_of(level)?;
        let attrs = S::F::attrs(Prot::READ | Prot::WRITE)?;
        let (item, size) = (1u64 << item_lg2, 1u64 << lg2);

        for asked in [size, size - item] {
            let mem = TestMem::new();
            let table = TestTable::<S>::with(&mem, all_sizes::<S>())?;

            table.map(G1, 0, size)?;
            table.map(G1 + size, 2 * size, size)?;
            for part in (0..size / 2 - item).step_by(1 << item_lg2) {
                let word = S::F::leaf(part, item_lg2, level, attrs);

                table.spoil(G1 + part, word | part_bits::<S::F>(lg2 - item_lg2))?;
            }
            check_eq!(table.unmap(G1, asked), size);
            for part in (0..size).step_by(1 << item_lg2) {
                check!(table.translate(G1 + part).is_none());
                check!(table.translate(G1 + size + part) == Some(2 * size + part));
            }
        }
    }
    Ok(())
}
