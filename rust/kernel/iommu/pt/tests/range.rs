// SPDX-License-Identifier: GPL-2.0

//! Map, unmap, translate.

use super::{
    super::{
        map::next_run,
        Format,
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

const RW: Prot = Prot::READ.with(Prot::WRITE);

/// A leaf of each size, in trees of each height, is found by us and by the hardware, and goes.
pub fn every_leaf_size<S: Spec>() -> Result {
    for levels in S::MIN_LEVELS..=S::MAX_LEVELS {
        for lg2 in [12, 21, 30] {
            let mem = TestMem::new();
            let table = TestTable::<S>::new(&mem, levels)?;
            let size = 1u64 << lg2;
            let last_leaf = table.table.aperture_last() + 1 - size;

            for iova in [0, size, 7 * G1, last_leaf] {
                let phys = (iova ^ (3 * G1)) & ((1 << 45) - 1);

                table.map(iova, phys, size)?;
                check_eq!(table.leaf_lg2(iova)?, lg2);
                for offset in [0, 1, size / 2, size - 1] {
                    check!(table.translate(iova + offset) == Some(phys + offset));
                    check_eq!(table.access(iova + offset, true)?, phys + offset);
                }
                if iova > 0 {
                    check!(table.translate(iova - 1).is_none());
                }
                check!(table.translate(iova + size).is_none());
                check!(table.access(iova + size, false).is_err());

                check_eq!(table.unmap(iova, size), size);
                check!(table.translate(iova).is_none());
                check!(table.access(iova, false) == Err(ENOENT));
            }
        }
    }
    Ok(())
}

/// One range with odd ends takes the largest leaves that fit, and no others.
pub fn best_sizes<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
    let first = G1 - M2 - K4;
    let end = 2 * G1 + M2 + K4;

    table.map(first, first + 4 * G1, end - first)?;
    check_eq!(table.leaf_lg2(first)?, 12);
    check_eq!(table.leaf_lg2(first + K4)?, 21);
    check_eq!(table.leaf_lg2(G1)?, 30);
    check_eq!(table.leaf_lg2(2 * G1)?, 21);
    check_eq!(table.leaf_lg2(end - 1)?, 12);
    for iova in [first, first + K4, G1 - 1, G1 + 12345, 2 * G1, end - 1] {
        check!(table.translate(iova) == Some(iova + 4 * G1));
    }
    check_eq!(table.unmap(first, end - first), end - first);
    check!(table.translate(first).is_none() && table.translate(end - 1).is_none());
    drop(table);
    check_eq!(mem.live(), 0);

    // Sides that are aligned to each other in part only.
    let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;

    table.map(G1, 5 * G1 + M2, G1)?;
    check_eq!(table.leaf_lg2(G1)?, 21);
    table.map(4 * G1, K4, M2)?;
    check_eq!(table.leaf_lg2(4 * G1)?, 12);
    Ok(())
}

/// Whatever sizes there are, each leaf of a run has the largest that fits where it is.
pub fn runs_are_greedy<S: Spec>() -> Result {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |bits: u32| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random >> (64 - bits)
    };
    let best = |sizes: u64, iova: u64, phys: u64, len: u64| {
        (12..48)
            .rev()
            .find(|lg2| sizes & 1 << lg2 != 0 && (iova | phys) % (1 << lg2) == 0 && len >> lg2 != 0)
    };

    for _ in 0..2000 {
        // Every size is there half of the time: formats with contiguous entries have many.
        let sizes = (next(36) << 12) | 1 << 12;
        let offset = next(40) & !0xfff & (u64::MAX << next(5));
        let (mut iova, mut len) = (next(40) & !0xfff, (next(34) & !0xfff) + K4);

        while len > 0 {
            let phys = iova + offset;
            let run = next_run(sizes, iova, phys, len).ok_or(EINVAL)?;

            check!(run.leaves > 0);
            for leaf in [0, run.leaves / 2, run.leaves - 1] {
                let done = leaf << run.lg2;

                check!(best(sizes, iova + done, phys + done, len - done) == Some(run.lg2));
            }
            iova += run.leaves << run.lg2;
            len -= run.leaves << run.lg2;
        }
    }
    check!(next_run(1 << 12, 0, 0, 0xfff).is_none());
    check!(next_run(1 << 12, 0x800, 0, 0x1000).is_none());
    Ok(())
}

/// Ranges that cross from table to table at every level.
pub fn boundaries<S: Spec>() -> Result {
    let levels = S::MAX_LEVELS;
    let mem = TestMem::new();
    let table = TestTable::<S>::new(&mem, levels)?;

    for level in 1..u32::from(levels) {
        let boundary = 1u64 << (12 + 9 * level);
        let first = boundary - 3 * K4;
        let len = 5 * K4;

        table.map(first, 0x7000, len)?;
        for page in 0..5 {
            let iova = first + page * K4;

            check!(table.translate(iova + 5) == Some(0x7000 + page * K4 + 5));
            check_eq!(table.access(iova, true)?, 0x7000 + page * K4);
        }
        check!(table.translate(first - 1).is_none());
        check!(table.translate(first + len).is_none());
        check_eq!(table.unmap(first, len), len);
        check!(table.translate(boundary).is_none());
    }
    Ok(())
}

/// The first and the last page can be mapped, one beyond can't.
pub fn ends_of_the_aperture<S: Spec>() -> Result {
    for levels in S::MIN_LEVELS..=S::MAX_LEVELS {
        let mem = TestMem::new();
        let table = TestTable::<S>::new(&mem, levels)?;
        let mut gather = TestGather::new(&mem);
        let last = table.table.aperture_last();

        table.map(0, 0, K4)?;
        table.map(last - K4 + 1, K4, K4)?;
        check!(table.translate(last) == Some(2 * K4 - 1));
        check!(table.translate(last + 1).is_none());
        for (iova, len) in [
            (last + 1, K4),
            (last - 2 * K4 + 1, 3 * K4),
            (0, last + 1 + K4),
        ] {
            let (done, result) = table.try_map(iova, 0, len, RW, &mut gather);

            check!(done == 0 && result == Err(ERANGE));
            check_eq!(table.unmap(iova, len), 0);
            check!(table.harvest(iova, len, true).err() == Some(ERANGE));
        }
        check!(table.harvest(0, last + 1, true).is_ok());

        let out = 1u64 << S::F::OUTPUT_LG2;
        let (done, result) = table.try_map(G1, out - K4, 2 * K4, RW, &mut gather);

        check!(done == 0 && result == Err(ERANGE));
        let (done, result) = table.try_map(G1, u64::MAX - K4 + 1, 2 * K4, RW, &mut gather);

        check!(done == 0 && result == Err(ERANGE));
        table.map(G1, out - K4, K4)?;
        check!(table.translate(G1) == Some(out - K4));
    }
    Ok(())
}

/// What is not aligned, empty or allowed is refused, and changes nothing.
pub fn bad_arguments<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
    let mut gather = TestGather::new(&mem);
    let bad = [
        (1, 0, K4),
        (0, 1, K4),
        (0, 0, K4 + 1),
        (0, 0, K4 - 1),
        (K4 / 2, K4 / 2, K4),
        (0, 0, 0),
    ];

    // Without tables, and beside a page, where there is a shorter way.
    for tables in [1, u64::from(S::MIN_LEVELS)] {
        if tables > 1 {
            table.map(2 * K4, 0, K4)?;
        }
        for (iova, phys, len) in bad {
            let (done, result) = table.try_map(iova, phys, len, RW, &mut gather);

            check!(done == 0 && result == Err(EINVAL));
        }

        let (done, result) = table.try_map(0, 0, K4, Prot::NONE, &mut gather);

        check!(done == 0 && result == Err(EINVAL));
        check!(table.translate(0).is_none());
        check_eq!(mem.live(), tables);
    }
    Ok(())
}

/// A range that meets something mapped ends there, says how far it came, and spares what was.
pub fn overmap_keeps_what_was<S: Spec>() -> Result {
    for (size, taken) in [(K4, 5 * K4), (M2, 3 * M2), (G1, G1), (K4, 509 * K4)] {
        let mem = TestMem::new();
        let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
        let mut gather = TestGather::new(&mem);

        table.map(taken, 9 * G1, size)?;

        let (done, result) = table.try_map(0, 0, taken + 2 * size, RW, &mut gather);

        check!(result == Err(EADDRINUSE));
        check_eq!(done, taken);
        check!(table.translate(taken) == Some(9 * G1));
        check!(table.translate(taken - 1) == Some(taken - 1));
        check!(table.translate(taken + size).is_none());
        // What the caller does then.
        check_eq!(table.unmap(0, done), done);
        check!(table.translate(taken) == Some(9 * G1));
        check!(table.translate(taken - 1).is_none());
        // Smaller and larger leaves in the place of it.
        let (done, result) = table.try_map(taken, 0, K4, RW, &mut gather);

        check!(done == 0 && result == Err(EADDRINUSE));
    }
    Ok(())
}

/// This code does not write a word that maps nothing and is not 0: a map that would need a table
/// there ends, and leaves it alone.
pub fn a_foreign_word_ends_it<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
    let mut gather = TestGather::new(&mem);

    table.map(M2, 0, M2)?;
    table.spoil(M2, 1 << 52)?;

    let live = mem.live();
    let (done, result) = table.try_map(M2 - K4, 0, 2 * K4, RW, &mut gather);

    check!(result == Err(EIO));
    check_eq!(done, K4);
    check!(table.translate(M2).is_none());
    // But for the one that the page before it needed.
    check_eq!(mem.live(), live + 1);

    // In the place of a page: there is a shorter way to map one, which must see it too.
    table.map(8 * M2, 0, 2 * K4)?;
    table.spoil(8 * M2, 1 << 52)?;

    let (done, result) = table.try_map(8 * M2, 0, K4, RW, &mut gather);

    check!(done == 0 && result == Err(EIO));
    check!(table.translate(8 * M2).is_none());
    Ok(())
}

/// However many tables there is memory for, what was mapped is reported exactly.
pub fn out_of_memory_is_exact<S: Spec>() -> Result {
    let levels = S::MIN_LEVELS;
    let first = G1 - 3 * M2 - K4;
    let len = 6 * M2;

    for tables in 0..32 {
        let mem = TestMem::new();
        let table = TestTable::<S>::new(&mem, levels)?;
        let mut gather = TestGather::new(&mem);

        mem.fail_after(tables);

        // Not aligned to each other: smallest pages, and so a table for each 2 MiB.
        let (done, result) = table.try_map(first, K4, len, RW, &mut gather);

        if done > 0 {
            check!(table.translate(first + done - 1) == Some(K4 + done - 1));
        }
        check!(table.translate(first + done).is_none());
        if result.is_ok() {
            check_eq!(done, len);
            check!(tables > 6);
            return Ok(());
        }
        check!(result == Err(ENOMEM));
        if done > 0 {
            check_eq!(table.unmap(first, done), done);
        }
        mem.fail_after(u64::MAX);
        table.map(first, K4, len)?;
        drop(table);
        check_eq!(mem.live(), 0);
    }
    Err(ENOMEM)
}

/// A range that begins inside a leaf unmaps nothing.
pub fn unmap_inside_a_leaf<S: Spec>() -> Result {
    for size in [M2, G1] {
        let mem = TestMem::new();
        let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;

        table.map(4 * G1, 2 * G1, size)?;
        table.map(4 * G1 + size, 0, K4)?;
        for (offset, len) in [(K4, K4), (size / 2, size / 2), (size - K4, 2 * K4)] {
            check_eq!(table.unmap(4 * G1 + offset, len), 0);
            check!(table.translate(4 * G1) == Some(2 * G1));
            check!(table.translate(4 * G1 + size - 1) == Some(2 * G1 + size - 1));
            check!(table.translate(4 * G1 + size) == Some(0));
        }
    }
    Ok(())
}

/// A range that ends inside a leaf unmaps all of the leaf, and the flush covers all of it.
pub fn unmap_ends_inside_a_leaf<S: Spec>() -> Result {
    for size in [M2, G1] {
        let mem = TestMem::new();
        let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
        let mut gather = TestGather::new(&mem);

        table.map(4 * G1 - K4, 2 * G1 - K4, K4 + size)?;
        check_eq!(table.unmap_to(4 * G1 - K4, 2 * K4, &mut gather), K4 + size);
        check!(table.translate(4 * G1 + size - 1).is_none());

        let hull = gather.hull.ok_or(EINVAL)?;

        check!(hull.first() <= 4 * G1 - K4 && hull.last() >= 4 * G1 + size - 1);
    }
    Ok(())
}

/// The first hole ends an unmap; what is behind it stays.
pub fn unmap_stops_at_a_hole<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;

    table.map(0, 0, 3 * K4)?;
    table.map(5 * K4, 0, K4)?;
    check_eq!(table.unmap(0, M2), 3 * K4);
    check!(table.translate(5 * K4) == Some(0));
    check_eq!(table.unmap(3 * K4, M2), 0);
    check_eq!(table.unmap(G1, M2), 0);
    check_eq!(table.unmap(5 * K4, K4), K4);
    Ok(())
}

/// Tables go only when all of their addresses are unmapped, and are freed only after the flush.
pub fn tables_wait_for_the_flush<S: Spec>() -> Result {
    let levels = S::MIN_LEVELS;
    let mem = TestMem::new();
    let table = TestTable::<S>::new(&mem, levels)?;
    let mut gather = TestGather::new(&mem);

    // 4 KiB pages in two tables of level 0.
    table.map(4 * G1, K4, 2 * M2)?;

    let live = mem.live();

    check_eq!(live, u64::from(levels) + 1);
    check_eq!(table.unmap_to(4 * G1, M2 - K4, &mut gather), M2 - K4);
    check_eq!(gather.queued, 0);
    // The rest of the first table alone does not cover it either.
    check_eq!(table.unmap_to(4 * G1 + M2 - K4, K4, &mut gather), K4);
    check_eq!(gather.queued, 0);
    check_eq!(table.unmap_to(4 * G1 + M2, M2, &mut gather), M2);
    check_eq!(gather.queued, 1);
    check_eq!(mem.live(), live);
    gather.flush();
    check_eq!(mem.live(), live - 1);
    check!(!gather.broken);

    // All below one entry of the top goes at once.
    let span = 1u64 << (12 + 9 * (u32::from(levels) - 1));

    table.map(span, 0, span)?;
    check!(mem.live() >= live - 1);
    check_eq!(table.unmap_to(span, span, &mut gather), span);
    check!(!gather.broken);

    let hull = gather.hull.ok_or(EINVAL)?;

    check!(hull.first() <= span && hull.last() >= 2 * span - 1);
    gather.flush();
    check_eq!(mem.live(), live - 1);
    Ok(())
}

/// A large leaf takes the place of tables that map nothing, and these wait for the flush.
pub fn leaf_replaces_empty_tables<S: Spec>() -> Result {
    for size in [M2, G1] {
        let mem = TestMem::new();
        let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
        let mut gather = TestGather::new(&mem);

        table.map(4 * G1, K4, K4)?;
        table.map(4 * G1 + size - K4, K4, K4)?;
        check_eq!(table.unmap(4 * G1, K4), K4);
        check_eq!(table.unmap(4 * G1 + size - K4, K4), K4);

        let live = mem.live();
        let (done, result) = table.try_map(4 * G1, 0, size, RW, &mut gather);

        check!(result.is_ok());
        check_eq!(done, size);
        check_eq!(1u64 << table.leaf_lg2(4 * G1)?, size);
        check_eq!(mem.live(), live);
        check_eq!(gather.queued, if size == M2 { 1 } else { 3 });
        check!(!gather.broken);

        let hull = gather.hull.ok_or(EINVAL)?;

        check!(hull.first() <= 4 * G1 && hull.last() >= 4 * G1 + size - 1);
        gather.flush();
        check!(mem.live() < live);
        check!(table.translate(4 * G1 + size - 1) == Some(size - 1));
        drop(table);
        check_eq!(mem.live(), 0);
    }
    Ok(())
}

/// A large leaf does not take the place of a table that maps something.
pub fn leaf_spares_full_tables<S: Spec>() -> Result {
    for size in [M2, G1] {
        let mem = TestMem::new();
        let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
        let mut gather = TestGather::new(&mem);

        table.map(4 * G1 + size - K4, 8 * G1, K4)?;

        let live = mem.live();
        let (done, result) = table.try_map(4 * G1 - size, 0, 2 * size, RW, &mut gather);

        check!(result == Err(EADDRINUSE));
        check_eq!(done, size);
        check_eq!(gather.queued, 0);
        check!(mem.live() >= live);
        check!(table.translate(4 * G1 + size - K4) == Some(8 * G1));
        check!(table.translate(4 * G1).is_none());
    }
    Ok(())
}

/// Hardware that does not snoop is shown each table and each entry.
pub fn incoherent_tables_are_flushed<S: Spec>() -> Result {
    let levels = S::MIN_LEVELS;
    let mem = TestMem::new();
    let mut config = TestTable::<S>::config(levels);

    config.coherent = false;

    let table = TestTable::<S>::with(&mem, config)?;

    let top = K4 << (S::TOP_LG2 - 9);

    check_eq!(mem.flushed(), top);
    table.map(0, K4, 3 * K4)?;

    // The other tables, the entries that link them, the leaves.
    let tables = u64::from(levels) - 1;
    let expected = top + tables * K4 + tables * 8 + 3 * 8;

    check_eq!(mem.flushed(), expected);
    check_eq!(table.unmap(0, 3 * K4), 3 * K4);
    check_eq!(mem.flushed(), expected + 3 * 8);
    drop(table);
    check_eq!(mem.live(), 0);

    let mem = TestMem::new();
    let table = TestTable::<S>::new(&mem, levels)?;

    table.map(0, K4, 3 * K4)?;
    check_eq!(mem.flushed(), 0);
    Ok(())
}
