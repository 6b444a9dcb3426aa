// SPDX-License-Identifier: GPL-2.0

//! What an operator sees of a tree is what was mapped.

use super::{
    super::{
        Entry,
        Format,
        Iova,
        Leaves,
        Prot,
        Range,
        Stable,
        Survey,
        TABLE_LG2, //
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

/// A survey of the range, and in how many pieces.
fn survey<S: Spec>(table: &TestTable<'_, S>, first: Iova, last: Iova) -> Result<(Survey, usize)> {
    let mut survey = Survey::default();
    let mut next = first;

    for pieces in 1..1000 {
        // SAFETY: The tests use a table from one thread.
        let claim = unsafe { Stable::new(Range::inclusive(next, last)?, &table.table) };

        match table.table.tree().survey(&claim, &mut survey)? {
            None => return Ok((survey, pieces)),
            Some(rest) => {
                check!(rest > next);
                next = rest;
            }
        }
    }
    Err(EAGAIN)
}

/// The tables that there are. A top of several is one allocation.
fn tables<S: Spec>(mem: &TestMem) -> u64 {
    mem.live() + (1 << (S::F::TOP_LG2 - TABLE_LG2)) - 1
}

/// Whether there are these leaves, and no others.
fn has(survey: &Survey, expected: &[(u32, u64, u64)]) -> bool {
    survey.sizes().eq(expected.iter().map(|(lg2, all, dirty)| {
        (
            *lg2,
            Leaves {
                all: *all,
                dirty: *dirty,
            },
        )
    }))
}

/// Leaves of all sizes, of which the hardware has marked some; nothing changes.
pub fn every_leaf_is_counted<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
    let last = table.table.aperture_last();

    check!(has(&survey(&table, 0, last)?.0, &[]));
    table.map(G1 - 20 * K4, G1 - 20 * K4, 20 * K4 + G1 + 3 * M2)?;
    for iova in [G1 - 20 * K4, G1 - K4, G1 + K4, 2 * G1 + M2] {
        table.access(iova, true)?;
    }

    let expected = [(12, 20, 2), (21, 3, 1), (30, 1, 1)];

    for _ in 0..2 {
        let (found, pieces) = survey(&table, 0, last)?;

        check!(has(&found, &expected) && pieces == 1);
        check_eq!(found.tables, tables::<S>(&mem));
    }
    // A leaf that begins before the range is none of it.
    check!(has(
        &survey(&table, G1 + M2, 2 * G1 + M2 - 1)?.0,
        &[(21, 1, 0)]
    ));
    check!(table.harvest(G1, G1, false)?.is(&[(G1, 2 * G1 - 1)]));

    let beyond = last.wrapping_add(1);

    check!(beyond == 0 || survey(&table, beyond, beyond).err() == Some(ERANGE));
    Ok(())
}

/// More tables than one piece has, and holes.
pub fn pieces_add_up<S: Spec>() -> Result {
    const TABLES: u64 = 200;

    let mem = TestMem::new();
    let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;

    for number in 0..TABLES {
        // The first and the last page of a table, a page in between, or all of them.
        let base = number * 2 * M2;

        table.map(base, base, K4)?;
        table.map(base + M2 - K4, base + M2 - K4, K4)?;
        if number % 3 == 0 {
            table.map(base + K4, base + K4, M2 - 2 * K4)?;
        }
    }
    table.access(TABLES * M2, true)?;

    let full = TABLES.div_ceil(3);
    let (found, pieces) = survey(&table, 0, table.table.aperture_last())?;

    check!(pieces > 3);
    check_eq!(found.tables, tables::<S>(&mem));
    check!(has(&found, &[(12, full * 512 + (TABLES - full) * 2, 1)]));
    Ok(())
}

/// From the top to the leaf, or to where there is nothing.
pub fn the_way_to_a_page<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
    let mut gather = TestGather::new(&mem);

    table.map(G1, 0, K4)?;
    table.map(3 * G1, G1, G1)?;
    table
        .try_map(G1 + K4, 5 * K4, K4, Prot::READ, &mut gather)
        .1?;
    table.access(G1, true)?;
    for (iova, leaf, writable, dirty) in [
        (G1 + 7, Some((0, 12)), true, true),
        (G1 + K4, Some((5 * K4, 12)), false, false),
        (3 * G1 + M2, Some((G1, 30)), true, false),
        (G1 + 2 * K4, None, false, false),
        (G1 + M2, None, false, false),
        (8 * G1, None, false, false),
    ] {
        // SAFETY: The tests use a table from one thread.
        let claim = unsafe { Stable::at(iova, &table.table) };
        let mut level = table.table.top().levels;
        let mut last = None;

        table.table.tree().steps(&claim, |step| {
            level = level.wrapping_sub(1);
            // One level each time; nothing comes behind a leaf or a hole.
            if step.level != level || !matches!(last, None | Some(Entry::Table(_))) {
                level = u8::MAX;
            }
            last = Some(step.entry);
            if let Entry::Leaf { .. } = step.entry {
                if (step.writable, step.dirty) != (writable, dirty) {
                    level = u8::MAX;
                }
            }
        })?;
        check!(level < S::MAX_LEVELS);
        check!(match (last, leaf) {
            (Some(Entry::Leaf { phys, lg2 }), Some(expected)) => (phys, lg2) == expected,
            (Some(Entry::Empty), None) => true,
            _ => false,
        });
        check_eq!(table.translate(iova).is_some(), leaf.is_some());
    }
    Ok(())
}
