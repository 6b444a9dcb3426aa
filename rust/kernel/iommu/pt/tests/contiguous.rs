// SPDX-License-Identifier: GPL-2.0

//! Every size that leaves can have: those of a level, and those that take a row of entries.

use super::{
    super::{
        Config,
        Prot, //
    },
    memory::{
        TestGather,
        TestMem,
        TestTable, //
    },
    Spec, //
};
use kernel::error::{
    code::*,
    Result, //
};

const K4: u64 = 1 << 12;
const M2: u64 = 1 << 21;
const G1: u64 = 1 << 30;

/// Hardware that has all sizes of the format.
fn config<S: Spec>() -> Config {
    Config {
        page_sizes: u64::MAX,
        ..TestTable::<S>::config(S::MAX_LEVELS)
    }
}

/// The sizes that take a row of entries, of which a table has room for more than one leaf.
fn rows<S: Spec>() -> impl Iterator<Item = u32> {
    S::SIZES
        .iter()
        .copied()
        .filter(|lg2| (lg2 - 12) % 9 != 0 && *lg2 < 31)
}

/// Binary logarithm of the bytes that one entry of a leaf of `1 << lg2` bytes stands for.
fn entry_lg2(lg2: u32) -> u32 {
    lg2 - (lg2 - 12) % 9
}

/// A leaf of each size is found by us and by the hardware, and goes as a whole.
pub fn every_size<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::with(&mem, config::<S>())?;
    let mut sizes = 0;

    for lg2 in S::SIZES {
        let size = 1u64 << lg2;

        sizes |= size;
        for iova in [0, size, 3 * size] {
            let phys = if *lg2 < 51 { 2 * size } else { 0 };

            table.map(iova, phys, size)?;
            check_eq!(table.leaf_lg2(iova)?, *lg2);
            for offset in [0, 1, size / 2, size - 1] {
                check!(table.translate(iova + offset) == Some(phys + offset));
                check_eq!(table.access(iova + offset, false)?, phys + offset);
            }
            check!(table.translate(iova + size).is_none());
            check!(table.access(iova + size, false).is_err());
            // The second half takes nothing, a part of the head the whole leaf.
            check_eq!(table.unmap(iova + size / 2, size / 2), 0);
            check_eq!(table.unmap(iova, K4), size);
            check!(table.translate(iova + size - 1).is_none());
            check!(table.access(iova + size - 1, false) == Err(ENOENT));
        }
    }
    check_eq!(table.table.pgsize_bitmap(), sizes);
    Ok(())
}

/// Each entry of a row has the word of the first, or what goes on from there, and all of them go.
pub fn copies_are_alike<S: Spec>() -> Result {
    check!(rows::<S>().next().is_some());
    for lg2 in rows::<S>() {
        let mem = TestMem::new();
        let table = TestTable::<S>::with(&mem, config::<S>())?;
        let (size, step) = (1u64 << lg2, 1u64 << entry_lg2(lg2));
        let iova = 8 * G1 + size;

        table.map(iova - step, 0, step)?;
        table.map(iova, 4 * G1, size)?;
        table.map(iova + size, 0, step)?;

        let word = table.word(iova)?;

        for entry in 0..size / step {
            let expected = S::in_row(word, entry, (entry_lg2(lg2) - 12) / 9);

            check_eq!(table.word(iova + entry * step)?, expected);
        }
        check_eq!(table.unmap(iova, size), size);
        for entry in 0..size / step {
            check!(table.word(iova + entry * step) == Err(ENOENT));
        }
        check!(table.translate(iova - 1) == Some(step - 1));
        check!(table.translate(iova + size) == Some(0));
    }
    Ok(())
}

/// A range with odd ends takes the largest leaf that fits at each place.
pub fn sizes_are_mixed<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::with(&mem, config::<S>())?;
    let (first, end) = (G1 + 3 * K4, 2 * G1 + M2 + 5 * K4);
    let mut iova = first;

    table.map(first, first + 16 * G1, end - first)?;
    while iova < end {
        let best = S::SIZES
            .iter()
            .rev()
            .find(|lg2| iova % (1 << **lg2) == 0 && end - iova >= 1 << **lg2)
            .ok_or(EINVAL)?;

        check_eq!(table.leaf_lg2(iova)?, *best);
        check!(table.translate(iova) == Some(iova + 16 * G1));
        iova += 1 << best;
    }
    check_eq!(table.unmap(first, end - first), end - first);
    check!(table.harvest(0, 4 * G1, true)?.is(&[]));
    Ok(())
}

/// A write through any of its entries makes the leaf dirty, and a harvest cleans all of them.
pub fn dirt_in_any_entry<S: Spec>() -> Result {
    check!(rows::<S>().next().is_some());
    for lg2 in rows::<S>() {
        let mem = TestMem::new();
        let table = TestTable::<S>::with(&mem, config::<S>())?;
        let (size, step) = (1u64 << lg2, 1u64 << entry_lg2(lg2));
        let (iova, entries) = (8 * G1 + size, size / step);
        let leaf = (iova, iova + size - 1);
        // Neighbours that stay clean.
        table.map(iova - step, 0, step)?;
        table.map(iova, 4 * G1, size)?;
        table.map(iova + size, 0, step)?;
        for entry in 0..entries {
            table.access(iova + entry * step, true)?;
            if entry % 3 == 1 {
                table.access(iova + (entries - 1) * step, true)?;
            }

            let sink = table.harvest(0, 16 * G1, false)?;

            check!(sink.is(&[leaf]) && sink.cleared.is_none());

            let sink = table.harvest(0, 16 * G1, true)?;

            check!(sink.is(&[leaf]));
            check!(sink.has_cleared(leaf.0, leaf.1));
            for entry in 0..entries {
                check!(!S::is_dirty(table.word(iova + entry * step)?));
            }
            check!(table.harvest(0, 16 * G1, true)?.is(&[]));
        }
    }
    Ok(())
}

/// A row with D in one of its entries, each in turn, gives way to single entries and to another
/// row: of the old one nothing is left, neither an entry nor its D.
pub fn a_row_is_replaced<S: Spec>() -> Result {
    let sizes = || rows::<S>().filter(|lg2| (14..=20).contains(lg2));

    check!(sizes().next().is_some());
    for lg2 in sizes() {
        let mem = TestMem::new();
        let table = TestTable::<S>::with(&mem, config::<S>())?;
        let (size, step) = (1u64 << lg2, 1u64 << entry_lg2(lg2));
        let (iova, entries) = (8 * G1 + size, size / step);

        for dirty in 0..entries {
            table.map(iova, 4 * G1, size)?;
            table.access(iova + dirty * step, true)?;
            check_eq!(table.unmap(iova, size), size);
            // Turned round, so that no row is made of them.
            for entry in 0..entries {
                table.map(iova + entry * step, size - step - entry * step, step)?;
            }
            for entry in 0..entries {
                check_eq!(table.leaf_lg2(iova + entry * step)?, entry_lg2(lg2));
                check!(!S::is_dirty(table.word(iova + entry * step)?));
            }
            check!(table.harvest(iova, size, true)?.is(&[]));
            table.access(iova + dirty * step, true)?;
            check_eq!(table.unmap(iova, size), size);
            table.map(iova, 2 * G1, size)?;
            check!(table.harvest(iova, size, true)?.is(&[]));
            check!(table.translate(iova + size - 1) == Some(2 * G1 + size - 1));
            check_eq!(table.unmap(iova, size), size);
            check!(table.translate(iova + dirty * step).is_none());
        }
    }
    Ok(())
}

/// Behind pages that are all dirty, a leaf is dirty as a whole though only its first entries are.
pub fn a_row_behind_dirty_pages<S: Spec>() -> Result {
    let sizes = || rows::<S>().filter(|lg2| lg2 - entry_lg2(*lg2) > 3);

    check!(sizes().next().is_some());
    for lg2 in sizes() {
        let mem = TestMem::new();
        let table = TestTable::<S>::with(&mem, config::<S>())?;
        let (size, step) = (1u64 << lg2, 1u64 << entry_lg2(lg2));
        let row = 8 * G1 + size;
        // A cache line of entries each.
        let (first, end) = (row - 8 * step, row + 8 * step);
        let mut iova = first;

        table.map(row, 4 * G1, size)?;
        while iova < end {
            if iova < row {
                table.map(iova, 0, step)?;
            }
            table.access(iova, true)?;
            iova += step;
        }
        for clear in [false, true] {
            let sink = table.harvest(0, 16 * G1, clear)?;

            check!(sink.is(&[(first, row + size - 1)]));
        }
        check!(table.harvest(0, 16 * G1, true)?.is(&[]));
    }
    Ok(())
}

/// A query inside a leaf reports its part of it, also when D is in an entry that it does not reach,
/// and leaves the leaf dirty.
pub fn query_inside_a_row<S: Spec>() -> Result {
    check!(rows::<S>().next().is_some());
    for lg2 in rows::<S>() {
        let mem = TestMem::new();
        let table = TestTable::<S>::with(&mem, config::<S>())?;
        let size = 1u64 << lg2;
        let iova = 8 * G1;

        table.map(iova, 4 * G1, size)?;
        for dirty in [0, size / 2, size - 1] {
            table.access(iova + dirty, true)?;
            for (offset, len) in [(0, size / 2), (size / 2, size / 2), (K4, size - K4)] {
                let first = iova + offset;
                let sink = table.harvest(first, len, true)?;

                check!(sink.is(&[(first, first + len - 1)]));
                check!(sink.cleared.is_none());
            }
            check!(table
                .harvest(iova, size, true)?
                .is(&[(iova, iova + size - 1)]));
            check!(table.harvest(iova, size, true)?.is(&[]));
        }
    }
    Ok(())
}

/// Dirty leaves of many sizes side by side are one run, and a clean one splits it.
pub fn rows_are_joined<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::with(&mem, config::<S>())?;
    let (first, end) = (G1 - 5 * K4, G1 + M2 + 3 * K4);
    let mut iova = first;

    table.map(first, first, end - first)?;
    while iova < end {
        table.access(iova, true)?;
        iova += 1 << table.leaf_lg2(iova)?;
    }
    check!(table.harvest(0, 2 * G1, false)?.is(&[(first, end - 1)]));

    // Makes the leaf at the end of the first gibibyte clean.
    let last = table.leaf_lg2(G1 - 1)?;
    let split = G1 - (1 << last);
    let sink = table.harvest(split, 1 << last, true)?;

    check!(sink.has_cleared(split, G1 - 1));
    check!(table
        .harvest(0, 2 * G1, true)?
        .is(&[(first, split - 1), (G1, end - 1)]));
    check!(table.harvest(0, 2 * G1, true)?.is(&[]));
    Ok(())
}

/// A leaf over a row of entries of which one is taken is refused; what was there stays.
pub fn overmap_of_a_row<S: Spec>() -> Result {
    check!(rows::<S>().next().is_some());
    for lg2 in rows::<S>() {
        let mem = TestMem::new();
        let table = TestTable::<S>::with(&mem, config::<S>())?;
        let mut gather = TestGather::new(&mem);
        let (size, step) = (1u64 << lg2, 1u64 << entry_lg2(lg2));

        for entry in [0, size / step / 2, size / step - 1] {
            let taken = 8 * G1 + size + entry * step;

            table.map(taken, G1, step)?;

            let (done, result) =
                table.try_map(8 * G1, 0, 2 * size, Prot::READ | Prot::WRITE, &mut gather);

            // Two of a size make one of the next, if that exists; then nothing was mapped.
            check!(result == Err(EADDRINUSE));
            check!(done == 0 || done == size);
            check!(table.translate(taken) == Some(G1));
            if entry > 0 {
                check!(table.translate(taken - 1).is_none());
            }
            check!(table.translate(taken + step).is_none());
            if done > 0 {
                check_eq!(table.unmap(8 * G1, done), done);
            }
            check_eq!(table.unmap(taken, step), step);
        }
    }
    Ok(())
}

/// A leaf takes the place of a row of tables that map nothing, and these wait for the flush.
pub fn replaces_empty_tables<S: Spec>() -> Result {
    let sizes = || rows::<S>().filter(|lg2| (22..26).contains(lg2));

    check!(sizes().next().is_some());
    for lg2 in sizes() {
        let mem = TestMem::new();
        let table = TestTable::<S>::with(&mem, config::<S>())?;
        let mut gather = TestGather::new(&mem);
        let size = 1u64 << lg2;

        for at in (0..size).step_by(1 << 21) {
            table.map(8 * G1 + at, 0, K4)?;
            check_eq!(table.unmap(8 * G1 + at, K4), K4);
        }

        let (done, result) = table.try_map(8 * G1, 0, size, Prot::READ, &mut gather);

        check!(result.is_ok());
        check_eq!(done, size);
        check_eq!(table.leaf_lg2(8 * G1)?, lg2);
        check_eq!(gather.queued, 1usize << (lg2 - 21));
        check!(!gather.broken);

        let hull = gather.hull.ok_or(EINVAL)?;

        check!(hull.first() <= 8 * G1 && hull.last() >= 8 * G1 + size - 1);
        gather.flush();
        check!(table.translate(8 * G1 + size - 1) == Some(size - 1));
        drop(table);
        check_eq!(mem.live(), 0);
    }
    Ok(())
}

/// An entry that comes near a link to a table and is none is not followed, and not written over.
pub fn what_is_no_link<S: Spec>() -> Result {
    check!(S::no_link(0, 0).is_some());
    for number in 0.. {
        let mem = TestMem::new();
        let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
        let mut gather = TestGather::new(&mem);

        let Some(word) = S::no_link(table.table.top().phys, number) else {
            break;
        };

        table.map(G1, 0, G1)?;
        table.access(G1, true)?;
        table.spoil(G1, word)?;

        let live = mem.live();

        for offset in [0, K4, M2] {
            check!(table.translate(G1 + offset).is_none());
            check!(table.access(G1 + offset, true).is_err());

            let prot = Prot::READ | Prot::WRITE;
            let (done, result) = table.try_map(G1 + offset, 0, K4, prot, &mut gather);

            check!(done == 0 && result == Err(EIO));
        }

        let prot = Prot::READ | Prot::WRITE;
        let (done, result) = table.try_map(G1, 0, G1, prot, &mut gather);

        check!(done == 0 && result == Err(EIO));
        check!(table.translate(G1).is_none());
        check_eq!(table.unmap(G1, G1), 0);
        check!(table.harvest(G1, G1, true)?.is(&[]));
        check_eq!(mem.live(), live);
    }
    Ok(())
}
