// SPDX-License-Identifier: GPL-2.0

//! Tops that grow, and the ends of address spaces that only such trees, or signed ones, have.

use super::{
    super::{
        Config,
        Format,
        Prot,
        Range,
        Stable,
        TableMem,
        Tree, //
    },
    memory::{
        TestGather,
        TestMem,
        TestSink,
        TestTable, //
    },
    Spec, //
};
use kernel::{
    error::{
        code::*,
        Result, //
    },
    sync::atomic::Atomic, //
};

const K4: u64 = 1 << 12;
const M2: u64 = 1 << 21;

/// Hardware whose top may come to the most levels of the format.
fn config<S: Spec>(levels: u8) -> Config {
    Config {
        max_levels: S::F::MAX_LEVELS,
        page_sizes: u64::MAX,
        ..TestTable::<S>::config(levels)
    }
}

/// The bytes that a tree of `levels` levels covers.
fn span<S: Spec>(levels: u8) -> u64 {
    1 << S::lower_lg2(levels)
}

/// Each mapping beyond the top adds a level, the hardware is told once each, and what was mapped
/// before stays. A format that does not grow refuses.
pub fn grows_when_needed<S: Spec>() -> Result {
    let mem = TestMem::new();
    let least = S::F::MIN_LEVELS;
    let table = TestTable::<S>::with(&mem, config::<S>(least))?;
    let mut gather = TestGather::new(&mem);

    table.map(0, 5 * K4, K4)?;
    if !S::F::GROWS {
        let beyond = span::<S>(least);
        let (done, result) = table.try_map(beyond, K4, K4, Prot::WRITE, &mut gather);

        check!(done == 0 && result == Err(ERANGE));
        return Ok(());
    }
    for levels in least..S::F::MAX_LEVELS {
        let beyond = span::<S>(levels);
        let (_, result) = table.try_map(beyond, K4, K4, Prot::WRITE, &mut gather);

        check!(result.is_ok());
        check_eq!(table.table.top().levels, levels + 1);
        check_eq!(gather.tops, usize::from(levels - least + 1));
        check!(gather.top == Some(table.table.top()));
        check!(table.translate(beyond) == Some(K4));
        check_eq!(table.access(beyond, true)?, K4);
        check!(table.translate(0) == Some(5 * K4));
        check_eq!(table.access(0, true)?, 5 * K4);
    }
    check!(table.harvest(0, K4, true)?.is(&[(0, K4 - 1)]));
    drop(table);
    check_eq!(mem.live(), 0);
    Ok(())
}

/// As long as the top does not reach an address nothing is mapped there, whatever is asked.
pub fn nothing_is_beyond_the_top<S: Spec>() -> Result {
    check!(S::F::GROWS);

    let mem = TestMem::new();
    let table = TestTable::<S>::with(&mem, config::<S>(2))?;
    let reach = span::<S>(2);

    table.map(reach - K4, 0, K4)?;
    table.access(reach - K4, true)?;
    check!(table.translate(reach).is_none());
    check_eq!(table.unmap(reach, K4), 0);
    check!(table.harvest(reach, 4 * reach, true)?.is(&[]));
    // Ranges that begin below the end of the top and end beyond it.
    check!(table
        .harvest(reach - 2 * K4, 4 * reach, true)?
        .is(&[(reach - K4, reach - 1)]));
    check_eq!(table.unmap(reach - K4, 2 * K4), K4);
    check_eq!(table.table.top().levels, 2);
    Ok(())
}

/// A leaf of the size of the whole tree needs a top above it.
pub fn a_leaf_above_the_top<S: Spec>() -> Result {
    check!(S::F::GROWS);

    let mem = TestMem::new();
    let table = TestTable::<S>::with(&mem, config::<S>(2))?;
    let mut gather = TestGather::new(&mem);
    let size = span::<S>(2);
    let (done, result) = table.try_map(0, 2 * size, size, Prot::WRITE, &mut gather);

    check!(result.is_ok());
    check_eq!(done, size);
    check_eq!(table.table.top().levels, 3);
    check_eq!(1u64 << table.leaf_lg2(0)?, size);
    check!(table.translate(size - 1) == Some(3 * size - 1));
    // The old top mapped nothing, and waits for the flush.
    check_eq!(gather.queued, 1);
    check!(!gather.broken);
    gather.flush();
    drop(table);
    check_eq!(mem.live(), 0);
    Ok(())
}

/// A top that there is no memory for leaves the tree as it was.
pub fn out_of_memory_changes_nothing<S: Spec>() -> Result {
    check!(S::F::GROWS);

    let mem = TestMem::new();
    let table = TestTable::<S>::with(&mem, config::<S>(1))?;
    let mut gather = TestGather::new(&mem);
    let beyond = span::<S>(4);

    table.map(0, K4, K4)?;
    for tables in 0..4 {
        mem.fail_after(tables);

        let (done, result) = table.try_map(beyond, 0, K4, Prot::READ, &mut gather);

        check!(done == 0 && result == Err(ENOMEM));
        check!(table.translate(0) == Some(K4));
        check!(table.translate(beyond).is_none());
    }
    mem.fail_after(u64::MAX);
    table.map(beyond, 0, K4)?;
    check!(table.translate(beyond) == Some(0));
    check_eq!(table.table.top().levels, 5);
    drop(table);
    check_eq!(mem.live(), 0);
    Ok(())
}

/// Of two maps that put a table above the same top one comes second: its table is freed, and it
/// goes on with that of the other. If it has told the hardware, the table is not freed.
pub fn another_map_was_faster<S: Spec>() -> Result {
    check!(S::F::GROWS);

    for hasty in [false, true] {
        let mem = TestMem::new();
        let table = TestTable::<S>::with(&mem, config::<S>(2))?;
        // What the gather does when it is asked to change the top: the same, but by another.
        let rival = || table.map(span::<S>(2) + K4, 7 * K4, K4);
        let mut gather = TestGather::new(&mem);

        gather.rival = Some(&rival);
        gather.hasty = hasty;

        let (done, result) = table.try_map(span::<S>(2), 0, K4, Prot::READ, &mut gather);

        check!(result.is_ok());
        check_eq!(done, K4);
        check_eq!(gather.tops, 1);
        check!(gather.top.is_some() == hasty);
        check_eq!(table.table.top().levels, 3);
        check!(table.translate(span::<S>(2)) == Some(0));
        check!(table.translate(span::<S>(2) + K4) == Some(7 * K4));

        let told = gather.top;

        drop(gather);
        drop(table);
        check_eq!(mem.live(), u64::from(hasty));
        if let Some(top) = told {
            // SAFETY: The table is there, as was just seen, and the test's hardware walks it no
            // more.
            unsafe { (&mem).free((&mem).virt(top.phys)) };
        }
        check_eq!(mem.live(), 0);
    }
    Ok(())
}

/// A top that the hardware is not given is not used, and the map that needed it fails.
pub fn refused_by_the_hardware<S: Spec>() -> Result {
    check!(S::F::GROWS);

    let mem = TestMem::new();
    let table = TestTable::<S>::with(&mem, config::<S>(2))?;
    let mut gather = TestGather::new(&mem);
    let live = mem.live();

    gather.refuses = true;

    let (done, result) = table.try_map(span::<S>(2), 0, K4, Prot::READ, &mut gather);

    check!(done == 0 && result == Err(EIO));
    check_eq!(table.table.top().levels, 2);
    check_eq!(mem.live(), live);
    gather.refuses = false;
    check!(table
        .try_map(span::<S>(2), 0, K4, Prot::READ, &mut gather)
        .1
        .is_ok());
    Ok(())
}

/// Where 64 bits are resolved, the last page is mapped, harvested and unmapped like any other, and
/// a query of all addresses is one.
pub fn whole_address_space<S: Spec>() -> Result {
    check_eq!(S::lower_lg2(S::LEVELS.1), 64);

    let mem = TestMem::new();
    let table = TestTable::<S>::with(&mem, config::<S>(6))?;
    let last_page = u64::MAX - K4 + 1;

    check_eq!(table.table.aperture_last(), u64::MAX);
    table.map(last_page, K4, K4)?;
    table.map(0, 0, K4)?;
    check!(table.translate(u64::MAX) == Some(2 * K4 - 1));
    table.access(u64::MAX, true)?;

    // SAFETY: The tests use a table from one thread.
    let claim = unsafe { Stable::new(Range::inclusive(0, u64::MAX)?, &table.table) };
    let mut sink = TestSink::new();

    table.table.read_and_clear_dirty(&claim, true, &mut sink)?;
    check!(sink.is(&[(last_page, u64::MAX)]));
    check!(table.harvest(last_page, K4, true)?.is(&[]));
    check_eq!(table.unmap(last_page, K4), K4);
    check!(table.translate(u64::MAX).is_none());
    Ok(())
}

/// If a device has written to each address that there is, each is reported.
pub fn all_addresses_dirty<S: Spec>() -> Result {
    check_eq!(S::lower_lg2(S::LEVELS.1), 64);

    let mem = TestMem::new();
    let table = TestTable::<S>::with(&mem, config::<S>(6))?;
    let largest = 1u64 << S::SIZES.iter().copied().max().unwrap_or(12);

    for leaf in 0..=u64::MAX / largest {
        table.map(leaf * largest, 0, largest)?;
        table.access(leaf * largest, true)?;
    }

    // SAFETY: The tests use a table from one thread.
    let claim = unsafe { Stable::new(Range::inclusive(0, u64::MAX)?, &table.table) };
    let mut sink = TestSink::new();

    table.table.read_and_clear_dirty(&claim, true, &mut sink)?;
    check!(!sink.broken && sink.count > 0);
    check_eq!(sink.run(0).0, 0);
    for run in 1..sink.count {
        check_eq!(sink.run(run).0, sink.run(run - 1).1 + 1);
    }
    check_eq!(sink.run(sink.count - 1).1, u64::MAX);
    check!(sink.has_cleared(0, u64::MAX));
    Ok(())
}

/// The upper half of a signed address space is there for an owner that asks for it, and for no
/// other.
pub fn upper_half<S: Spec>() -> Result {
    check!(S::F::SIGN_EXTENDS);

    let mem = TestMem::new();
    let owner = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
    let lower = owner.table.tree();
    let mut limits = lower.limits;

    limits.sign_extend = true;

    let handle = &mem;
    let top = Tree::<S::F, &TestMem>::new_top(&handle, true, S::MIN_LEVELS, ())?;
    let word = Atomic::new(top);
    // SAFETY: The word was just made for the format and this memory, whose limits these are but for
    // the upper half, which the top covers; the tree is freed at the end.
    let tree = unsafe { Tree::<S::F, &TestMem>::from_parts(&handle, &word, limits) };
    let half = limits.aperture_last + 1;
    let mut gather = TestGather::new(&mem);
    let result = (|| {
        for (iova, there) in [
            (0u64, true),
            (half - K4, true),
            (half, false),
            (half.wrapping_neg() - K4, false),
            (half.wrapping_neg(), true),
            (K4.wrapping_neg(), true),
        ] {
            // SAFETY: The tests use a table from one thread.
            let mut claim = unsafe { super::super::Exclusive::new(Range::new(iova, K4)?, &word) };
            let (done, result) = tree.map(&mut claim, 3 * K4, Prot::READ, (), &mut gather);

            check!(result == if there { Ok(()) } else { Err(ERANGE) });
            check_eq!(done, if there { K4 } else { 0 });

            // SAFETY: As above.
            let (at, below) = unsafe { (Stable::at(iova, &word), Stable::at(iova, &owner)) };

            check!(tree.iova_to_phys(&at) == there.then_some(3 * K4));
            check_eq!(tree.unmap(&mut claim, &mut gather), done);
            check!(lower.iova_to_phys(&below).is_none());
        }
        Ok(())
    })();

    gather.flush();
    // SAFETY: Nothing uses the tree any more.
    unsafe { tree.free() }
    result
}

/// A top of several tables is one to each operation: a range that crosses from one to the next, or
/// passes several, is mapped, translated, harvested and unmapped as any other.
pub fn across_the_parts<S: Spec>() -> Result {
    check!(S::TOP_LG2 > 9);
    for levels in S::LEVELS.0..=S::LEVELS.1 {
        let mem = TestMem::new();
        let table = TestTable::<S>::with(&mem, config::<S>(levels))?;
        let part = 1u64 << S::item_lg2(levels.into());
        let last_part = (1 << (S::TOP_LG2 - 9)) - 1;
        let live = mem.live();

        for next in (1..=last_part).map(|number| number * part) {
            let (first, len) = (next - 2 * K4, 5 * K4);
            let runs = [(next - K4, next + K4 - 1)];

            table.map(first, 7 * K4, len)?;
            for page in [0, 1, 2, 4] {
                check!(table.translate(first + page * K4) == Some((7 + page) * K4));
                check_eq!(table.access(first + page * K4, false)?, (7 + page) * K4);
            }
            table.access(next - K4, true)?;
            table.access(next, true)?;
            check!(table.harvest(first, len, false)?.is(&runs));
            check!(table.harvest(next, K4, false)?.is(&[(next, next + K4 - 1)]));
            check!(table.harvest(first, len, true)?.is(&runs));
            check!(table.harvest(first, len, true)?.is(&[]));
            check!(table
                .writable(0, part * last_part + M2)?
                .is(&[(first, first + len - 1)]));
            check_eq!(table.unmap(first, len), len);
            check!(table.translate(next).is_none() && table.translate(next - K4).is_none());
        }

        // A query that passes all that is between.
        let (first, len) = (K4, last_part * part);

        table.map(part - K4, 0, K4)?;
        table.map(last_part * part, 0, K4)?;
        table.access(part - K4, true)?;
        table.access(last_part * part, true)?;
        check!(table.harvest(first, len, true)?.is(&[
            (part - K4, part - 1),
            (last_part * part, last_part * part + K4 - 1)
        ]));
        // Nothing that is mapped in one part shows in another.
        check!(table.translate(2 * part - K4).is_none());
        check!(table.translate(0).is_none());
        check!(mem.live() > live);
        drop(table);
        check_eq!(mem.live(), 0);
    }
    Ok(())
}
