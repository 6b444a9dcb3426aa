// SPDX-License-Identifier: GPL-2.0

//! Removals beside a harvest of the same range: what one of them does in the middle of the other.
//! The sink is where the harvest can be interrupted, as it is when the user's bitmap is faulted in.

use super::{
    super::{
        Claim,
        Config,
        DetachedTable,
        DirtySink,
        Exclusive,
        Prot,
        Range,
        Walks, //
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

/// Has one implementation for a type that is not `Send`, and two for one that is.
trait StaysHere<Which> {
    fn check() {}
}

impl<T> StaysHere<()> for T {}
impl<T: Send> StaysHere<u8> for T {}

/// A detached table stays with the thread that detached it; otherwise the compiler could not tell
/// which implementation is meant.
const _: fn() = <DetachedTable<&TestMem> as StaysHere<_>>::check;

/// A sink in whose first record another does something to the table.
struct Meddling<'a> {
    sink: TestSink,
    meddle: Option<&'a dyn Fn() -> Result>,
    result: Result,
}

impl<'a> Meddling<'a> {
    fn new(meddle: &'a dyn Fn() -> Result) -> Self {
        Self {
            sink: TestSink::new(),
            meddle: Some(meddle),
            result: Err(ENOENT),
        }
    }
}

impl DirtySink for Meddling<'_> {
    fn record(&mut self, range: Range) {
        self.sink.record(range);
        if let Some(meddle) = self.meddle.take() {
            self.result = meddle();
        }
    }

    fn cleared(&mut self, range: Range) {
        self.sink.cleared(range);
    }

    fn split(&mut self, range: Range) {
        self.sink.split(range);
    }
}

/// Hardware that has all sizes of the format.
fn config<S: Spec>() -> Config {
    Config {
        page_sizes: u64::MAX,
        ..TestTable::<S>::config(S::MAX_LEVELS)
    }
}

/// Maps two tables' worth of pages, side by side with nothing larger, and writes to `pages` of
/// them.
fn map_pages<S: Spec>(table: &TestTable<'_, S>, pages: &[u64]) -> Result {
    for page in 0..2 * M2 / K4 {
        // Every other page goes elsewhere, so that no larger leaf is made.
        table.map(G1 + page * K4, (page % 2) * G1 + page * K4, K4)?;
    }
    for page in pages {
        table.access(G1 + page * K4, true)?;
    }
    Ok(())
}

/// Tables that are unmapped under a harvest that stands in one of them stay until it has left it,
/// and are freed then. Nothing comes back.
pub fn tables_outlive_a_harvest<S: Spec>() -> Result {
    // Dirty pages one by one, in a window, in whole lines; and those that the harvest does not come
    // to.
    for pages in [
        &[0, 8, 16, 700][..],
        &[0, 2, 4, 9, 11, 700],
        &[1, 8, 9, 10, 11, 12, 13, 14, 15, 700],
    ] {
        let mem = TestMem::new();
        let walks = Walks::new(&mem);
        let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
        let range = Range::new(G1, 2 * M2)?;

        map_pages(&table, pages)?;

        let live = mem.live();
        let meddle = || {
            let mut gather = TestGather::with_walks(&mem, &walks);

            check_eq!(table.unmap_to(G1, 2 * M2, &mut gather), 2 * M2);
            check_eq!(gather.queued, 2);
            gather.flush();
            check_eq!(mem.live(), live);
            check!(!walks.is_idle());
            Ok(())
        };
        let mut sink = Meddling::new(&meddle);

        {
            // SAFETY: The meddling one asks `walks` before it frees a table.
            let walk = unsafe { walks.enter(range, &table.table) }.ok_or(EIO)?;

            table.table.read_and_clear_dirty(&walk, true, &mut sink)?;
            sink.result?;
            check_eq!(mem.live(), live);
        }
        check_eq!(mem.live(), live - 2);
        check!(walks.is_idle());
        // What was found before, and nothing of the other table.
        check!(!sink.sink.broken && sink.sink.run(sink.sink.count - 1).1 < G1 + M2);
        for page in 0..2 * M2 / K4 {
            check!(table.translate(G1 + page * K4).is_none());
        }
        // Without a harvest they go at once.
        map_pages(&table, &[])?;
        check_eq!(mem.live(), live);

        let mut gather = TestGather::with_walks(&mem, &walks);

        check_eq!(table.unmap_to(G1, 2 * M2, &mut gather), 2 * M2);
        gather.flush();
        check_eq!(mem.live(), live - 2);
    }
    Ok(())
}

/// The same where a large leaf takes the place of a table, with nothing unmapped in that call.
pub fn a_leaf_replaces_the_harvested_table<S: Spec>() -> Result {
    let mem = TestMem::new();
    let walks = Walks::new(&mem);
    let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;

    map_pages(&table, &[0, 8, 16])?;

    let live = mem.live();
    let meddle = || {
        let mut gather = TestGather::with_walks(&mem, &walks);

        // Piece by piece, so that the table stays.
        check_eq!(table.unmap_to(G1, M2 / 2, &mut gather), M2 / 2);
        check_eq!(table.unmap_to(G1 + M2 / 2, M2 / 2, &mut gather), M2 / 2);
        check_eq!(gather.queued, 0);

        let (done, result) = table.try_map(G1, 0, M2, Prot::READ | Prot::WRITE, &mut gather);

        check!(done == M2 && result == Ok(()));
        check_eq!(gather.queued, 1);
        table.access(G1, true)?;
        gather.flush();
        check_eq!(mem.live(), live);
        Ok(())
    };
    let mut sink = Meddling::new(&meddle);

    {
        // SAFETY: The meddling one asks `walks` before it frees a table.
        let walk = unsafe { walks.enter(Range::new(G1, M2)?, &table.table) }.ok_or(EIO)?;

        table.table.read_and_clear_dirty(&walk, true, &mut sink)?;
    }
    sink.result?;
    check_eq!(mem.live(), live - 1);
    // The leaf was written to, and the harvest had passed its entry.
    check!(table.harvest(G1, M2, true)?.is(&[(G1, G1 + M2 - 1)]));
    check!(table.harvest(G1, M2, true)?.is(&[]));
    Ok(())
}

/// A table in limbo waits for each walk that was there when it was unlinked, and for those that
/// have come since, but none keeps what it does not.
pub fn the_last_walk_frees<S: Spec>() -> Result {
    let mem = TestMem::new();
    let walks = Walks::new(&mem);
    let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
    let range = Range::new(G1, 2 * M2)?;
    // SAFETY: All tables are freed by a gather that asks `walks`.
    let enter = || unsafe { walks.enter(range, &table.table) }.ok_or(EIO);

    map_pages(&table, &[3, 600])?;

    let live = mem.live();
    let remove = |iova| {
        let mut gather = TestGather::with_walks(&mem, &walks);

        check_eq!(table.unmap_to(iova, M2, &mut gather), M2);
        Ok(())
    };
    let first = enter()?;

    remove(G1)?;
    check_eq!(mem.live(), live);

    let second = enter()?;

    drop(first);
    check_eq!(mem.live(), live);
    remove(G1 + M2)?;
    check_eq!(mem.live(), live);
    check!(table.table.iova_to_phys(&second).is_none());
    drop(second);
    check_eq!(mem.live(), live - 2);

    let third = enter()?;

    check_eq!(third.range().first(), G1);
    drop(third);
    check_eq!(mem.live(), live - 2);
    drop(table);
    check_eq!(mem.live(), 0);
    Ok(())
}

/// A harvest that has found a leaf dirty does not clean what has taken its place since.
pub fn what_takes_its_place_stays_dirty<S: Spec>() -> Result {
    let mem = TestMem::new();
    let walks = Walks::new(&mem);
    let table = TestTable::<S>::with(&mem, config::<S>())?;
    // A page, and two leaves of 2 MiB, which are not one of 4 MiB.
    let page = G1 - 2 * K4;
    let has_rows = S::SIZES.contains(&22);

    table.map(page, 0, K4)?;
    table.map(G1, 2 * M2, M2)?;
    table.map(G1 + M2, 8 * M2, M2)?;
    table.access(page, true)?;
    table.access(G1, true)?;
    // Called when the leaf was found dirty, and is about to be made clean.
    let meddle = || {
        let mut gather = TestGather::with_walks(&mem, &walks);

        check_eq!(table.unmap_to(G1, 2 * M2, &mut gather), 2 * M2);
        if has_rows {
            table.map(G1, 4 * M2, 2 * M2)?;
        } else {
            table.map(G1, K4, 2 * M2)?;
        }
        table.access(G1, true)?;
        Ok(())
    };
    let mut sink = Meddling::new(&meddle);

    {
        // SAFETY: The meddling one asks `walks` before it frees a table.
        let walk = unsafe { walks.enter(Range::new(page, G1)?, &table.table) }.ok_or(EIO)?;

        table.table.read_and_clear_dirty(&walk, true, &mut sink)?;
    }
    sink.result?;

    // With a row of entries there, its other half comes next, and stays dirty as well.
    let (reported, last) = if has_rows {
        (G1 + 2 * M2 - 1, G1 + 2 * M2 - 1)
    } else {
        (G1 + M2 - 1, G1 + K4 - 1)
    };

    check!(sink.sink.is(&[(page, page + K4 - 1), (G1, reported)]));
    check!(table.harvest(0, 4 * G1, true)?.is(&[(G1, last)]));
    check!(table.harvest(0, 4 * G1, true)?.is(&[]));
    Ok(())
}

/// A row of entries that is mapped over what was reported: the rest of it is reported, in order,
/// and it stays dirty.
pub fn a_row_behind_the_harvest<S: Spec>() -> Result {
    // Two cache lines of entries, and four where there is such a leaf.
    check!(S::SIZES.contains(&16));
    for lg2 in [16, 17].into_iter().filter(|lg2| S::SIZES.contains(lg2)) {
        let mem = TestMem::new();
        let walks = Walks::new(&mem);
        let table = TestTable::<S>::with(&mem, config::<S>())?;
        let row = 1u64 << lg2;
        let pages = row / K4;
        let before = G1 - 2 * K4;

        table.map(before, 0, K4)?;
        // Turned round, so that no larger leaf is made.
        for page in 0..pages {
            table.map(G1 + page * K4, (pages - 1 - page) * K4, K4)?;
        }
        table.access(before, true)?;
        table.access(G1 + 2 * K4, true)?;
        // Called when the harvest has found the second page, and stands in the first line.
        let meddle = || {
            let mut gather = TestGather::with_walks(&mem, &walks);

            check_eq!(table.unmap_to(G1, row, &mut gather), row);
            table.map(G1, 0, row)?;
            check_eq!(table.leaf_lg2(G1)?, lg2);
            table.access(G1 + row / 8 * 5, true)?;
            Ok(())
        };
        let mut sink = Meddling::new(&meddle);

        {
            // SAFETY: The meddling one asks `walks` before it frees a table.
            let walk = unsafe { walks.enter(Range::new(before, M2)?, &table.table) }.ok_or(EIO)?;

            table.table.read_and_clear_dirty(&walk, true, &mut sink)?;
        }
        sink.result?;
        check!(sink
            .sink
            .is(&[(before, before + K4 - 1), (G1 + 2 * K4, G1 + row - 1)]));
        check!(table.harvest(G1, M2, true)?.is(&[(G1, G1 + row - 1)]));
        check!(table.harvest(G1, M2, true)?.is(&[]));
    }
    Ok(())
}

/// There is a limit to the walks that can be counted, which is not passed.
pub fn walks_are_counted<S: Spec>() -> Result {
    let mem = TestMem::new();
    let walks = Walks::new(&mem);
    let table = TestTable::<S>::new(&mem, S::MIN_LEVELS)?;
    let range = Range::new(0, K4)?;
    // SAFETY: No table is detached.
    let enter = || unsafe { walks.enter(range, &table.table) };

    for _ in 0..4094 {
        // They never leave: the tables of this owner would wait for good.
        core::mem::forget(enter().ok_or(EIO)?);
    }

    let last = enter().ok_or(EIO)?;

    check!(enter().is_none());
    check!(enter().is_none());
    drop(last);
    check!(enter().is_some());
    check!(!walks.is_idle());
    Ok(())
}

/// A claim about one tree is of no use with another, whatever is tried.
pub fn claims_of_another_tree<S: Spec>() -> Result {
    let mem = TestMem::new();
    let walks = Walks::new(&mem);
    let config = Config {
        levels: S::MIN_LEVELS,
        max_levels: S::MAX_LEVELS,
        ..TestTable::<S>::config(S::MIN_LEVELS)
    };
    let table = TestTable::<S>::with(&mem, config)?;
    let other = TestTable::<S>::with(&mem, config)?;
    let mut gather = TestGather::new(&mem);

    table.map(G1, 0, M2 + K4)?;
    table.access(G1, true)?;

    let (live, top) = (mem.live(), table.table.top());

    for (iova, len) in [(G1, M2 + K4), (G1, K4), (G1 + 2 * M2, K4), (1 << 40, K4)] {
        let range = Range::new(iova, len)?;
        // SAFETY: One thread.
        let mut claim = unsafe { Exclusive::new(range, &other.table) };
        let prot = Prot::READ | Prot::WRITE;
        let got = table.table.map(&mut claim, 0, prot, (), &mut gather);

        check!(got == (0, Err(EINVAL)));
        check!(!table.table.tree().map_page(&mut claim, 0, prot));
        check_eq!(table.table.unmap(&mut claim, &mut gather), 0);

        // SAFETY: Nothing is detached.
        let walk = unsafe { walks.enter(range, &other.table) }.ok_or(EIO)?;
        let mut sink = TestSink::new();

        check!(table.table.iova_to_phys(&walk).is_none());
        check!(table.table.read_and_clear_dirty(&walk, true, &mut sink) == Err(EINVAL));
        check!(table.table.report_writable(&walk, &mut sink) == Err(EINVAL));
        check!(table.table.tree().set_dirty(&walk) == Err(EINVAL));
        check!(sink.is(&[]) && sink.cleared.is_none());
    }
    check!(gather.queued == 0 && gather.hull.is_none() && gather.tops == 0);
    check!(mem.live() == live && table.table.top() == top);
    check!(table.translate(G1 + M2) == Some(M2));
    check!(table.harvest(0, 4 * G1, true)?.is(&[(G1, G1 + M2 - 1)]));
    Ok(())
}
