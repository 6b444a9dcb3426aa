// SPDX-License-Identifier: GPL-2.0

//! The dirty contract: nothing lost, nothing outside the query.

use super::{
    super::{
        Config,
        Prot,
        Range,
        Stable, //
    },
    memory::{
        TestGather,
        TestMem,
        TestSink,
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

/// Nothing is dirty before a device writes.
pub fn new_leaves_are_clean<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;

    table.map(G1 - M2 - K4, G1 - M2 - K4, 2 * G1)?;

    let sink = table.harvest(0, 4 * G1, true)?;

    check!(sink.is(&[]) && sink.cleared.is_none());
    Ok(())
}

/// A write through a leaf of each size, in trees of each height, is reported once, as all of it.
pub fn every_size_of_dirt<S: Spec>() -> Result {
    for levels in S::MIN_LEVELS..=S::MAX_LEVELS {
        for lg2 in [12, 21, 30] {
            let mem = TestMem::new();
            let table = TestTable::<S>::new(&mem, levels)?;
            let size = 1u64 << lg2;
            let last = table.table.aperture_last();
            let top_leaf = last + 1 - size;

            for iova in [0, 5 * G1 + size, top_leaf] {
                table.map(iova, 0, size)?;
                table.access(iova + size - 1, true)?;

                let sink = table.harvest(0, last + 1, true)?;

                check!(sink.is(&[(iova, iova + size - 1)]));
                check!(sink.has_cleared(iova, iova + size - 1));
                check!(table.harvest(0, last + 1, true)?.is(&[]));
                // And it works again.
                table.access(iova, true)?;
                check!(table
                    .harvest(iova, size, true)?
                    .is(&[(iova, iova + size - 1)]));
            }
        }
    }
    Ok(())
}

/// To make a leaf clean takes its dirty bits and leaves every other bit as it was.
pub fn one_bit_is_taken<S: Spec>() -> Result {
    for size in [K4, M2, G1] {
        let mem = TestMem::new();
        let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;

        table.map(G1, 3 * G1, size)?;

        let clean = table.word(G1)?;

        table.access(G1, true)?;

        let dirty = table.word(G1)?;

        check_eq!(dirty, S::written(clean));
        table.harvest(G1, size, true)?;
        check_eq!(table.word(G1)?, S::cleaned(dirty));
    }
    Ok(())
}

/// Reads, and writes that are refused, leave no trace in the report.
pub fn reads_are_not_reported<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
    let mut gather = TestGather::new(&mem);

    table.map(0, 0, 4 * K4)?;
    table.try_map(4 * K4, 0, K4, Prot::READ, &mut gather).1?;
    for page in 0..5 {
        table.access(page * K4, false)?;
    }
    check!(table.access(4 * K4, true) == Err(EACCES));
    check!(table.harvest(0, M2, true)?.is(&[]));
    Ok(())
}

/// What a sink that gives up was not told of stays dirty.
pub fn a_sink_gives_up<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
    let mut sink = TestSink::new();

    for iova in [0, G1, 2 * G1, 3 * G1] {
        table.map(iova, iova, K4)?;
        table.access(iova, true)?;
    }
    // One question for each GiB, since the walk begins at the table of them.
    sink.patience = Some(3);
    // SAFETY: The tests use a table from one thread.
    let claim = unsafe { Stable::new(Range::new(0, 4 * G1)?, &table.table) };

    check!(table.table.read_and_clear_dirty(&claim, true, &mut sink) == Err(EINTR));
    check!(sink.is(&[(0, K4 - 1), (G1, G1 + K4 - 1)]));
    check!(sink.has_cleared(0, G1 + K4 - 1));
    check!(table
        .harvest(0, 4 * G1, true)?
        .is(&[(2 * G1, 2 * G1 + K4 - 1), (3 * G1, 3 * G1 + K4 - 1)]));
    Ok(())
}

/// A look without clearing reports the same, changes no bit and asks for no flush.
pub fn no_clear_changes_nothing<S: Spec>() -> Result {
    for size in [K4, M2, G1] {
        let mem = TestMem::new();
        let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;

        table.map(0, 0, 2 * size)?;
        table.access(size, true)?;

        let dirty = table.word(size)?;

        for _ in 0..2 {
            let sink = table.harvest(0, 2 * size, false)?;

            check!(sink.is(&[(size, 2 * size - 1)]));
            check!(sink.cleared.is_none());
            check_eq!(table.word(size)?, dirty);
        }
        check!(table
            .harvest(0, 2 * size, true)?
            .is(&[(size, 2 * size - 1)]));
    }
    Ok(())
}

/// A query inside a dirty leaf reports just its own part, and the leaf stays dirty for the others.
pub fn query_inside_a_leaf<S: Spec>() -> Result {
    for size in [M2, G1] {
        let mem = TestMem::new();
        let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
        let iova = 6 * G1;
        let parts = [
            (0, size / 2),
            (size / 2, size / 2),
            (K4, K4),
            (0, size - K4),
            (K4, size - K4),
            (size - K4, K4),
            (3, 1),
        ];

        table.map(iova, 0, size)?;
        table.access(iova + 77, true)?;
        for (offset, len) in parts {
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
    Ok(())
}

/// A query that cuts two leaves and holds whole ones between them makes only these clean.
pub fn query_across_leaves<S: Spec>() -> Result {
    for size in [K4, M2, G1] {
        let mem = TestMem::new();
        let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
        let iova = 6 * G1;

        table.map(iova, 0, 4 * size)?;
        for leaf in 0..4 {
            table.access(iova + leaf * size, true)?;
        }

        let (first, last) = (iova + size / 2, iova + 3 * size + size / 2 - 1);
        let sink = table.harvest(first, last - first + 1, true)?;

        check!(sink.is(&[(first, last)]));
        check!(sink.has_cleared(iova + size, iova + 3 * size - 1));

        // Both ends are still dirty, the middle is not.
        let ends = [
            (iova, iova + size - 1),
            (iova + 3 * size, iova + 4 * size - 1),
        ];

        check!(table.harvest(iova, 4 * size, true)?.is(&ends));
        check!(table.harvest(iova, 4 * size, true)?.is(&[]));
    }
    Ok(())
}

/// Dirty pages beside the query, in the same cache line too, are neither reported nor touched.
pub fn neighbours_are_untouched<S: Spec>() -> Result {
    for size in [K4, M2] {
        let mem = TestMem::new();
        let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;

        table.map(0, 0, 18 * size)?;
        for first in 0..18 {
            for count in 1..=(18 - first) {
                for leaf in 0..18 {
                    table.access(leaf * size, true)?;
                }

                let query = (first * size, (first + count) * size - 1);

                check!(table.harvest(query.0, count * size, true)?.is(&[query]));
                for leaf in 0..18 {
                    let dirty = S::is_dirty(table.word(leaf * size)?);

                    check_eq!(dirty, leaf < first || leaf >= first + count);
                }
            }
        }
    }
    Ok(())
}

/// Dirty pages on both sides of leaves of 2 MiB, 1 GiB and 2 MiB stay what they are, and dirty,
/// when these are mapped and unmapped, written to or not.
pub fn pages_beside_large_leaves<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
    let (first, end) = (G1 - M2, 2 * G1 + M2);
    let pages = [first - K4, end];

    for page in pages {
        table.map(page, 7 * K4, K4)?;
        table.access(page, true)?;
    }

    let live = mem.live();

    for written in [false, true] {
        table.map(first, first, end - first)?;
        for (iova, lg2) in [(first, 21), (G1, 30), (2 * G1, 21)] {
            check_eq!(table.leaf_lg2(iova)?, lg2);
            if written {
                table.access(iova, true)?;
            }
        }
        check_eq!(table.unmap(first, end - first), end - first);
        for page in pages {
            check!(table.translate(page) == Some(7 * K4));
            check!(S::is_dirty(table.word(page)?));
        }
        check_eq!(mem.live(), live);
    }

    let runs = pages.map(|page| (page, page + K4 - 1));

    check!(table.harvest(0, 4 * G1, true)?.is(&runs));
    check!(table.harvest(0, 4 * G1, true)?.is(&[]));
    Ok(())
}

/// What is dirty in a row is one run, over lines, tables and sizes; a clean page splits it.
pub fn runs_are_joined<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
    // 4 KiB pages up to 1 GiB, a leaf of 1 GiB, one of 2 MiB, 4 KiB again.
    let first = G1 - 20 * K4;
    let end = 2 * G1 + M2 + 20 * K4;

    table.map(first, first, end - first)?;
    for page in 0..20 {
        table.access(first + page * K4, true)?;
        table.access(end - K4 - page * K4, true)?;
    }
    table.access(G1, true)?;
    table.access(2 * G1, true)?;

    let sink = table.harvest(0, 4 * G1, false)?;

    check!(sink.is(&[(first, end - 1)]));

    let sink = table.harvest(first + 9 * K4, K4, true)?;

    check!(sink.has_cleared(first + 9 * K4, first + 10 * K4 - 1));
    check!(table
        .harvest(0, 4 * G1, true)?
        .is(&[(first, first + 9 * K4 - 1), (first + 10 * K4, end - 1)]));
    check!(table.harvest(0, 4 * G1, true)?.is(&[]));
    Ok(())
}

/// One dirty page is found wherever it is in its table, and nothing else is.
pub fn every_position_in_a_line<S: Spec>() -> Result {
    for size in [K4, M2] {
        let mem = TestMem::new();
        let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
        // Not aligned to each other, so that no larger leaf is made of them.
        table.map(4 * G1, K4.max(size), 512 * size)?;
        // At level 0 everywhere, above it once in each place of a line.
        let step = if size == K4 { 1 } else { 9 };

        for slot in (0..512).step_by(step) {
            let iova = 4 * G1 + slot * size;

            table.access(iova, true)?;
            check!(table
                .harvest(4 * G1, 512 * size, true)?
                .is(&[(iova, iova + size - 1)]));
        }
        check!(table.harvest(4 * G1, 512 * size, true)?.is(&[]));
    }
    Ok(())
}

/// Holes of every kind are passed: empty entries, empty tables, the rest of the aperture.
pub fn holes_are_passed<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::new(&mem, S::MAX_LEVELS)?;
    let last = table.table.aperture_last();
    let pages = [
        0,
        8 * K4,
        M2 + 511 * K4,
        G1,
        513 * G1 + 7 * K4,
        last - K4 + 1,
    ];

    for page in pages {
        table.map(page, 0, K4)?;
        table.access(page, true)?;
    }
    // A table that has nothing left, and one leaf among empty entries of a higher level.
    table.map(3 * G1, 0, K4)?;
    check_eq!(table.unmap(3 * G1, K4), K4);
    table.map(7 * G1, 0, M2)?;

    let sink = table.harvest(0, last + 1, true)?;

    check_eq!(sink.count, pages.len());
    check!(!sink.broken);
    for (run, page) in pages.into_iter().enumerate() {
        check!(sink.run(run) == (page, page + K4 - 1));
    }
    check!(table.harvest(0, last + 1, true)?.is(&[]));
    Ok(())
}

/// Without coherent walks there is no dirty tracking.
pub fn refused_if_incoherent<S: Spec>() -> Result {
    let mem = TestMem::new();
    let mut config = TestTable::<S>::config(S::MIN_LEVELS);

    check!(TestTable::<S>::with(&mem, config)?.table.can_track_dirty());
    config.coherent = false;

    let table = TestTable::<S>::with(&mem, config)?;

    check!(!table.table.can_track_dirty());
    check!(table.harvest(0, M2, true).err() == Some(EOPNOTSUPP));
    Ok(())
}

/// Hardware that sets no dirty flags itself refuses writes through clean leaves in some formats:
/// then there is no tracking, and a leaf that was made as if it had been used stays writable.
pub fn refused_if_clean_leaves_refuse<S: Spec>() -> Result {
    let mem = TestMem::new();
    let mut gather = TestGather::new(&mem);
    let config = Config {
        marks: false,
        ..TestTable::<S>::config(S::MIN_LEVELS)
    };
    let table = TestTable::<S>::with(&mem, config)?;
    let prot = Prot::READ | Prot::WRITE | Prot::USED;

    table.try_map(G1, 0, K4, prot, &mut gather).1?;

    let word = table.word(G1)?;
    let tracks = !S::CLEAN_REFUSES;

    check_eq!(S::is_dirty(word), S::HAS_USED);
    check_eq!(table.table.can_track_dirty(), tracks);
    for clear in [false, true] {
        let result = table.harvest(G1, K4, clear);

        check!(result.err() == (!tracks).then_some(EOPNOTSUPP));
    }
    check!(tracks || table.word(G1)? == word);
    check!(table.writable(G1, K4)?.is(&[(G1, G1 + K4 - 1)]));
    Ok(())
}
