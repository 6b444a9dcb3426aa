// SPDX-License-Identifier: GPL-2.0

//! Parts of leaves that are joined.

use super::{
    super::{
        Exclusive,
        Format,
        Prot,
        Range,
        Walks, //
    },
    memory::{
        TestGather,
        TestMem,
        TestTable, //
    },
    split::{
        config,
        split, //
    },
    split_rows::all_sizes,
    Spec, //
};
use kernel::error::{
    code::*,
    Result, //
};

const K4: u64 = 1 << 12;
const M2: u64 = 1 << 21;
const G1: u64 = 1 << 30;

/// Joins; returns how many leaves came back.
fn join<'m, S: Spec>(
    table: &TestTable<'m, S>,
    mem: &'m TestMem,
    iova: u64,
    len: u64,
    gather: &mut TestGather<'m>,
) -> Result<u64> {
    let walks = Walks::new(mem);
    // SAFETY: The tests use a table from one thread, and there are no walks.
    let (mut claim, pause) = unsafe {
        (
            Exclusive::new(Range::new(iova, len)?, &table.table),
            walks.pause(&table.table).ok_or(EIO)?,
        )
    };

    table.table.join(&mut claim, &pause, gather)
}

/// A tree that splits nothing has nothing to join.
pub fn nothing_without_splits<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
    let mut gather = TestGather::new(&mem);

    table.map(G1, 0, M2)?;
    check!(join(&table, &mem, G1, M2, &mut gather) == Err(EOPNOTSUPP));
    check!(gather.hull.is_none() && gather.queued == 0);
    Ok(())
}

/// What was split comes back as it was mapped, but dirty, and its tables go.
pub fn leaves_come_back<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::with(&mem, config::<S>())?;
    let mut gather = TestGather::new(&mem);

    table.map(G1, 0, G1)?;
    table.map(2 * G1, 7 * G1 + K4, 3 * K4)?;
    table
        .try_map(3 * G1, 4 * G1, M2, Prot::READ, &mut gather)
        .1?;

    let live = mem.live();
    let words = [table.word(G1)?, table.word(2 * G1)?, table.word(3 * G1)?];

    split(&table, G1, G1, 21)?;
    split(&table, G1 + 5 * M2, M2, 12)?;
    split(&table, 3 * G1, M2, 12)?;
    check_eq!(mem.live(), live + 3);
    // A device uses some of them.
    table.access(G1 + 5 * M2 + K4, true)?;
    table.access(G1 + 7 * M2, false)?;

    // A claim that is not for all of a leaf joins nothing of it.
    check_eq!(join(&table, &mem, G1, G1 - K4, &mut gather)?, 1);
    check!(gather.hull == Some(Range::new(G1 + 5 * M2, M2)?));
    check_eq!(table.leaf_lg2(G1 + 5 * M2)?, 21);
    check_eq!(table.leaf_lg2(G1)?, 21);
    gather.flush();
    check_eq!(join(&table, &mem, 0, 4 * G1, &mut gather)?, 2);
    check!(gather.hull == Some(Range::inclusive(G1, 3 * G1 + M2 - 1)?));
    check!(!gather.broken && gather.queued == 2);
    gather.flush();
    check_eq!(mem.live(), live);
    check_eq!(join(&table, &mem, 0, 4 * G1, &mut gather)?, 0);
    check!(gather.hull.is_none());

    // Whatever a device has written to until the flush is dirty.
    check!(table.harvest(0, 4 * G1, true)?.is(&[(G1, 2 * G1 - 1)]));
    for (iova, word) in [G1, 2 * G1, 3 * G1].into_iter().zip(words) {
        check_eq!(table.word(iova)? & !S::ACCESSED, word);
    }
    Ok(())
}

/// Pages that happen to lie side by side, and leaves of which a part was replaced, are not joined:
/// they are unmapped one by one.
pub fn what_was_no_leaf_stays<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::with(&mem, config::<S>())?;
    let mut gather = TestGather::new(&mem);

    for page in 0..M2 / K4 {
        table.map(G1 + page * K4, page * K4, K4)?;
    }
    table.map(2 * G1, 0, 3 * M2)?;
    split(&table, 2 * G1, 3 * M2, 12)?;
    // One part that is not there, and one that is mapped by itself.
    check_eq!(table.unmap(2 * G1 + 3 * K4, K4), K4);
    check_eq!(table.unmap(2 * G1 + M2 + 511 * K4, K4), K4);
    table.map(2 * G1 + M2 + 511 * K4, M2 + 511 * K4, K4)?;

    // One that allows less than the others: no leaf allows what they do.
    table.map(3 * G1, 0, M2)?;
    split(&table, 3 * G1, M2, 12)?;
    table.spoil(3 * G1, table.word(3 * G1)? & !S::F::WRITABLE)?;

    check_eq!(join(&table, &mem, 0, 4 * G1, &mut gather)?, 1);
    gather.flush();
    for iova in [G1, 2 * G1, 2 * G1 + M2, 3 * G1] {
        check_eq!(table.leaf_lg2(iova)?, 12);
    }
    check_eq!(table.leaf_lg2(2 * G1 + 2 * M2)?, 21);
    check_eq!(table.unmap(G1, K4), K4);
    check!(table.translate(G1 + K4) == Some(K4));
    Ok(())
}

/// There is no join while there is a walk, and no walk while there is a join. The tables wait for
/// its end.
pub fn walks_are_excluded<S: Spec>() -> Result {
    let mem = TestMem::new();
    let walks = Walks::new(&mem);
    let table = TestTable::<S>::with(&mem, config::<S>())?;
    let range = Range::new(G1, M2)?;
    // SAFETY: Tables are freed by a gather that asks `walks`.
    let enter = || unsafe { walks.enter(range, &table.table) };
    // SAFETY: As above, and `walks` has all walks.
    let pause = || unsafe { walks.pause(&table.table) };

    table.map(G1, 0, M2)?;
    split(&table, G1, M2, 12)?;

    let live = mem.live();
    let walk = enter().ok_or(EIO)?;

    check!(pause().is_none());
    drop(walk);

    let paused = pause().ok_or(EIO)?;
    let mut gather = TestGather::with_walks(&mem, &walks);
    // SAFETY: One thread.
    let mut claim = unsafe { Exclusive::new(range, &table.table) };

    check!(enter().is_none() && pause().is_none() && !walks.is_idle());
    check_eq!(table.table.join(&mut claim, &paused, &mut gather)?, 1);
    check_eq!(gather.queued, 1);
    gather.flush();
    check_eq!(mem.live(), live);
    drop(paused);
    check_eq!(mem.live(), live - 1);
    check!(walks.is_idle() && enter().is_some() && pause().is_some());
    Ok(())
}

/// Rows come back as they were, whatever became of their entries, and not as larger ones.
pub fn rows_come_back<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::with(&mem, all_sizes::<S>())?;
    let mut gather = TestGather::new(&mem);

    // Two rows of 4 MiB, side by side like one of 8 MiB, and two of 64 KiB.
    for (iova, size) in [
        (G1, 2 * M2),
        (G1 + 2 * M2, 2 * M2),
        (2 * G1, 16 * K4),
        (2 * G1 + 16 * K4, 16 * K4),
    ] {
        table.map(iova, iova, size)?;
    }

    let live = mem.live();
    let ends = [
        (G1, 22),
        (G1 + 4 * M2 - K4, 22),
        (2 * G1, 16),
        (2 * G1 + 32 * K4 - K4, 16),
    ];
    let clean = table.word(G1)?;

    split(&table, G1, 2 * G1, 21)?;
    split(&table, G1 + M2, 2 * M2, 12)?;
    split(&table, 2 * G1, M2, 12)?;
    check_eq!(mem.live(), live + 2);
    check_eq!(table.leaf_lg2(G1)?, 21);
    check_eq!(table.leaf_lg2(G1 + M2)?, 12);
    check_eq!(table.leaf_lg2(2 * G1)?, 12);
    // Two tables and four rows.
    check_eq!(join(&table, &mem, 0, 4 * G1, &mut gather)?, 6);
    check!(gather.queued == 2 && !gather.broken);
    gather.flush();
    check_eq!(mem.live(), live);
    for (iova, lg2) in ends {
        check_eq!(table.leaf_lg2(iova)?, lg2);
        check!(table.translate(iova) == Some(iova));
    }
    table.harvest(0, 4 * G1, true)?;
    check_eq!(table.word(G1)? & !S::ACCESSED, clean);
    Ok(())
}
