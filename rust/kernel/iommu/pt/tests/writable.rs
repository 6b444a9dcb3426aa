// SPDX-License-Identifier: GPL-2.0

//! All that a device may write to is reported, and nothing else, and nothing changes.

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

/// Runs of leaves of all sizes are joined; read-only leaves and holes split them; leaves that reach
/// beyond the query are reported for their part of it.
pub fn all_that_may_be_written<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
    let mut gather = TestGather::new(&mem);
    // 4 KiB pages, a leaf of 1 GiB, one of 2 MiB, 4 KiB pages.
    let (first, end) = (G1 - 20 * K4, 2 * G1 + M2 + 20 * K4);

    table.map(first, first, end - first)?;
    // Mapped for reads only, and for writes as well behind a hole.
    table.try_map(end, 0, 3 * K4, Prot::READ, &mut gather).1?;
    table.map(end + 4 * K4, 0, K4)?;
    // A dirty leaf is one among others here, and stays dirty.
    table.access(G1, true)?;

    let runs = [(first, end - 1), (end + 4 * K4, end + 5 * K4 - 1)];

    for _ in 0..2 {
        let sink = table.writable(0, 4 * G1)?;

        check!(sink.is(&runs) && sink.cleared.is_none());
    }

    let sink = table.writable(G1 + M2, G1 + K4)?;

    check!(sink.is(&[(G1 + M2, 2 * G1 + M2 + K4 - 1)]) && sink.cleared.is_none());
    check!(table.writable(end, 4 * K4)?.is(&[]));
    check!(table.harvest(0, 4 * G1, true)?.is(&[(G1, 2 * G1 - 1)]));
    check!(table.harvest(0, 4 * G1, true)?.is(&[]));

    let beyond = table.table.aperture_last().wrapping_add(1);

    check!(beyond == 0 || table.writable(beyond, K4).err() == Some(ERANGE));
    Ok(())
}

/// A leaf of each size, alone, whatever part of it is asked for.
pub fn any_part_of_a_leaf<S: Spec>() -> Result {
    for lg2 in S::SIZES.iter().copied().filter(|lg2| *lg2 < 39) {
        let mem = TestMem::new();
        let config = Config {
            page_sizes: u64::MAX,
            ..TestTable::<S>::config(S::MAX_LEVELS)
        };
        let table = TestTable::<S>::with(&mem, config)?;
        let mut gather = TestGather::new(&mem);
        let size = 1u64 << lg2;
        let iova = 2 * size;

        table.map(iova, 2 * size, size)?;
        table
            .try_map(iova + size, 0, size, Prot::READ, &mut gather)
            .1?;
        check!(table.writable(0, 4 * size)?.is(&[(iova, iova + size - 1)]));
        // The first page, the second half, and the last page with one that is read-only.
        for (at, len) in [(0, K4), ((size / 2) & !(K4 - 1), size), (size - K4, 2 * K4)] {
            let sink = table.writable(iova + at, len)?;

            check!(sink.is(&[(iova + at, iova + (at + len).min(size) - 1)]));
        }
    }
    Ok(())
}

/// Hardware that does not snoop has no dirty bits to offer, but it writes.
pub fn incoherent_tables_too<S: Spec>() -> Result {
    let mem = TestMem::new();
    let config = Config {
        coherent: false,
        ..TestTable::<S>::config(S::MIN_LEVELS)
    };
    let table = TestTable::<S>::with(&mem, config)?;

    table.map(G1, 0, 2 * K4)?;
    check!(table.harvest(0, 2 * G1, true).err() == Some(EOPNOTSUPP));
    check!(table.writable(0, 2 * G1)?.is(&[(G1, G1 + 2 * K4 - 1)]));
    Ok(())
}
