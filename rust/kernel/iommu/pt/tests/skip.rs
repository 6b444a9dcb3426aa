// SPDX-License-Identifier: GPL-2.0

//! Trees that grow by several levels at once, and the tables that come between later.
//!
//! The hardware of the tests walks by the entries as they are. That it has cached what they were is
//! played by the concurrent tests in user space; here is checked that it was told to forget.

use super::{
    super::{
        Config,
        Format,
        Prot,
        Range, //
    },
    memory::{
        TestGather,
        TestMem,
        TestTable, //
    },
    Case, //
};
use kernel::error::{
    code::*,
    Result, //
};

const K4: u64 = 1 << 12;
const M2: u64 = 1 << 21;
const G1: u64 = 1 << 30;

/// Hardware that takes any number of levels, and a tree that skips some where it can.
fn config<C: Case>(levels: u8) -> Config {
    Config {
        max_levels: C::F::MAX_LEVELS,
        skip_levels: true,
        ..TestTable::<C>::config(levels)
    }
}

/// The bytes that a table of `level` covers.
fn span(level: u32) -> u64 {
    1 << (21 + 9 * level)
}

/// A tree of one table at address 0, with two pages, and of a top as high as a map at `far` needs.
fn grown<'m, C: Case>(mem: &'m TestMem, far: u64) -> Result<(TestTable<'m, C>, TestGather<'m>)> {
    let table = TestTable::<C>::with(mem, config::<C>(1))?;
    let mut gather = TestGather::new(mem);

    table.map(0, 5 * K4, K4)?;
    table.map(M2 - K4, 6 * K4, K4)?;
    table.access(0, true)?;

    let (done, result) = table.try_map(far, K4, K4, Prot::WRITE, &mut gather);

    check!(done == K4 && result.is_ok());
    check_eq!(gather.tops, 1);
    check_eq!(gather.forgets, 0);
    Ok((table, gather))
}

/// What was mapped before and the far page are there, for the hardware too.
fn check_grown<C: Case>(table: &TestTable<'_, C>, far: u64) -> Result {
    for (iova, phys) in [(0, 5 * K4), (M2 - K4, 6 * K4), (far, K4)] {
        check!(table.translate(iova) == Some(phys));
        check_eq!(table.access(iova, true)?, phys);
    }
    Ok(())
}

/// One table and one new top for any number of levels. Between the old top and the far page nothing is
/// mapped, whatever is asked.
pub fn grows_at_once<C: Case>() -> Result {
    if !C::F::SKIPS {
        return Ok(());
    }

    for levels in 3..=C::F::MAX_LEVELS {
        let mem = TestMem::new();
        let level = u32::from(levels) - 1;
        let far = span(level - 1);
        let (table, gather) = grown::<C>(&mem, far)?;

        check!(gather.top == Some(table.table.top()));
        check_eq!(table.table.top().levels, levels);
        // The old top, the new one, and what leads to the far page.
        check_eq!(mem.live(), 2 + u64::from(level));
        check_grown(&table, far)?;
        for between in [M2, far / 2, far - K4] {
            check!(table.translate(between).is_none());
            check!(table.access(between, true) == Err(ENOENT));
            check_eq!(table.unmap(between, K4), 0);
            check!(table.harvest(between, K4, true)?.is(&[]));
        }
        check!(table.harvest(0, far + K4, true)?.is(&[
            (0, K4 - 1),
            (M2 - K4, M2 - 1),
            (far, far + K4 - 1)
        ]));
        check!(table.harvest(0, far + K4, true)?.is(&[]));
        drop(gather);
        drop(table);
        check_eq!(mem.live(), 0);
    }
    Ok(())
}

/// An owner that does not want it gets each level.
pub fn only_if_wanted<C: Case>() -> Result {
    if !C::F::SKIPS {
        return Ok(());
    }

    let mem = TestMem::new();
    let table = TestTable::<C>::with(
        &mem,
        Config {
            skip_levels: false,
            ..config::<C>(1)
        },
    )?;
    let mut gather = TestGather::new(&mem);
    let (_, result) = table.try_map(span(2), 0, K4, Prot::WRITE, &mut gather);

    check!(result.is_ok());
    check_eq!(gather.tops, 3);
    check_eq!(mem.live(), 4 + 3);
    Ok(())
}

/// A map between the old top and the far page puts in one table, and has the hardware forget the entry
/// that skipped it. So does the next one further down; all the rest finds its tables.
pub fn tables_come_between<C: Case>() -> Result {
    if !C::F::SKIPS {
        return Ok(());
    }

    let mem = TestMem::new();
    let far = span(3);
    let (table, mut gather) = grown::<C>(&mem, far)?;
    let mut forgets = 0;

    // In the entry for address 0 of the tables of level 4, 3 and 2; from there on nothing is skipped.
    for (between, level, tables) in [(span(2), 3, 3), (span(1) + K4, 2, 2), (M2, 1, 1)] {
        let live = mem.live();
        let (done, result) = table.try_map(between, 9 * K4, K4, Prot::WRITE, &mut gather);

        check!(done == K4 && result.is_ok());
        forgets += 1;
        check_eq!(gather.forgets, forgets);
        check!(gather.forgotten == Some(Range::new(0, span(level))?));
        // That between, and those below it on the way to the page.
        check_eq!(mem.live(), live + 1 + tables);
        check!(table.translate(between) == Some(9 * K4));
        check_eq!(table.access(between, true)?, 9 * K4);
        check_grown(&table, far)?;
    }
    table.map(2 * M2, 0, K4)?;
    table.map(span(2) - K4, 0, K4)?;
    check_eq!(gather.forgets, forgets);
    check_eq!(gather.tops, 1);
    check!(!gather.broken);
    check!(table.harvest(M2, far, true)?.is(&[
        (M2, M2 + K4 - 1),
        (span(1) + K4, span(1) + 2 * K4 - 1),
        (span(2), span(2) + K4 - 1),
        (far, far + K4 - 1)
    ]));
    drop(gather);
    drop(table);
    check_eq!(mem.live(), 0);
    Ok(())
}

/// A large leaf at an address of the old top needs a table above that, and takes the old top's place.
pub fn a_leaf_between<C: Case>() -> Result {
    if !C::F::SKIPS {
        return Ok(());
    }

    let mem = TestMem::new();
    let far = span(3);
    let (table, mut gather) = grown::<C>(&mem, far)?;
    let all = Prot::READ | Prot::WRITE;

    // Something is mapped there.
    check!(table.try_map(0, 0, G1, all, &mut gather) == (0, Err(EADDRINUSE)));
    check_grown(&table, far)?;
    check_eq!(table.unmap(0, K4), K4);
    check_eq!(table.unmap(M2 - K4, K4), K4);
    check!(table.try_map(0, G1, G1, all, &mut gather) == (G1, Ok(())));
    check_eq!(gather.forgets, 1);
    // All that the entry stands for, not only what the table between is for.
    check!(gather.forgotten == Some(Range::new(0, span(3))?));
    check_eq!(gather.queued, 1);
    check!(!gather.broken);
    gather.flush();
    check_eq!(1u64 << table.leaf_lg2(0)?, G1);
    check!(table.translate(G1 - 1) == Some(2 * G1 - 1));
    check_eq!(table.access(G1 - 1, true)?, 2 * G1 - 1);
    check!(table.harvest(0, far, true)?.is(&[(0, G1 - 1)]));
    check_eq!(table.unmap(0, G1), G1);
    drop(gather);
    drop(table);
    check_eq!(mem.live(), 0);
    Ok(())
}

/// An unmap ends where the old top does, and frees it if all that its entry stands for is claimed.
pub fn unmap_ends_with_the_table<C: Case>() -> Result {
    if !C::F::SKIPS {
        return Ok(());
    }

    // The range ends within the old top's addresses, at their end, behind it, at the end of the entry,
    // and behind that.
    for (len, removed, freed) in [
        (M2 - K4, M2 - K4, 0usize),
        (M2, M2, 0),
        (M2 + K4, M2, 0),
        (span(2), M2, 1),
        (span(2) + K4, M2, 1),
    ] {
        let mem = TestMem::new();
        let far = span(2);
        let table = TestTable::<C>::with(&mem, config::<C>(1))?;
        let mut gather = TestGather::new(&mem);

        for page in 0..512 {
            table.map(page * K4, page * K4, K4)?;
        }
        table.map(far, K4, K4)?;
        check_eq!(table.unmap_to(0, len, &mut gather), removed);
        check_eq!(gather.queued, freed);
        check!(!gather.broken);
        check!(table.translate(0).is_none());
        check_eq!(table.translate(M2 - 1).is_some(), removed < M2);
        check!(table.translate(far) == Some(K4));
        // What is mapped there again finds the way.
        table.map(0, 7 * K4, K4)?;
        check_eq!(table.access(0, true)?, 7 * K4);
        drop(gather);
        drop(table);
        check_eq!(mem.live(), 0);
    }
    Ok(())
}

/// A table between that there is no memory for leaves the tree as it was.
pub fn out_of_memory_between<C: Case>() -> Result {
    if !C::F::SKIPS {
        return Ok(());
    }

    let mem = TestMem::new();
    let far = span(3);
    let between = span(1);
    let (table, mut gather) = grown::<C>(&mem, far)?;
    let all = Prot::READ | Prot::WRITE;

    // None; the table between, which stays; that below it; and one more would be enough.
    for (tables, forgets) in [(0, 0), (1, 1), (1, 1)] {
        mem.fail_after(tables);
        check!(table.try_map(between, 0, K4, all, &mut gather) == (0, Err(ENOMEM)));
        // The hardware has forgotten what was before as soon as there is one.
        check_eq!(gather.forgets, forgets);
        check!(table.translate(between).is_none());
        check_grown(&table, far)?;
    }
    mem.fail_after(u64::MAX);
    table.map(between, 8 * K4, K4)?;
    check_eq!(table.access(between, true)?, 8 * K4);
    check_eq!(gather.forgets, 1);
    drop(gather);
    drop(table);
    check_eq!(mem.live(), 0);
    Ok(())
}

/// Another map needs the same table, or one further down, while the hardware has not forgotten yet:
/// it has the hardware forget as well before it returns, and none waits.
pub fn somebody_else_between<C: Case>() -> Result {
    if !C::F::SKIPS {
        return Ok(());
    }

    // Beside the other in the same table, in one further down, in one further up.
    for beside in [span(1) + K4, M2, span(2)] {
        let mem = TestMem::new();
        let far = span(3);
        let (table, grower) = grown::<C>(&mem, far)?;
        let nested = core::cell::Cell::new(0);
        let rival = || {
            let mut gather = TestGather::new(&mem);
            let (_, result) = table.try_map(beside, 7 * K4, K4, Prot::WRITE, &mut gather);

            nested.set(gather.forgets);
            result
        };
        let mut gather = TestGather::new(&mem);

        gather.rival = Some(&rival);

        let (done, result) = table.try_map(span(1), 8 * K4, K4, Prot::WRITE, &mut gather);

        check!(done == K4 && result.is_ok());
        check!(!gather.broken);
        // Once for the entry that the first one had exchanged, and again for what it exchanged
        // itself.
        check_eq!(nested.get(), if beside == span(1) + K4 { 1 } else { 2 });
        check!(table.translate(span(1)) == Some(8 * K4));
        check_eq!(table.access(span(1), true)?, 8 * K4);
        check_eq!(table.access(beside, true)?, 7 * K4);
        check_grown(&table, far)?;
        drop(gather);
        drop(grower);
        drop(table);
        check_eq!(mem.live(), 0);
    }
    Ok(())
}

/// Hardware that does not snoop finds the table between.
pub fn incoherent_tables_between<C: Case>() -> Result {
    if !C::F::SKIPS {
        return Ok(());
    }

    let mem = TestMem::new();
    let table = TestTable::<C>::with(
        &mem,
        Config {
            coherent: false,
            ..config::<C>(1)
        },
    )?;

    table.map(0, 0, K4)?;
    table.map(span(2), 0, K4)?;

    let (before, tables) = (mem.flushed(), mem.live());

    table.map(M2, 0, K4)?;

    let made = mem.live() - tables;

    check_eq!(made, 2);
    // Each table. The first entry of the one between; what leads to it, before the hardware forgets, and
    // when a map passes it; what leads to the other, when a map passes that; the leaf.
    check_eq!(mem.flushed() - before, made * K4 + 5 * 8);
    Ok(())
}
