// SPDX-License-Identifier: GPL-2.0

//! Leaves that are split while they are tracked.

use super::{
    super::{
        format::part_bits,
        Config,
        DirtySink,
        Entry,
        Exclusive,
        Format,
        Level,
        Prot,
        Range,
        Stable,
        Walks,
        TABLE_LG2, //
    },
    hardware::entry_at,
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
    sync::atomic::{
        Atomic,
        Full,
        Relaxed, //
    }, //
};

const K4: u64 = 1 << 12;
const M2: u64 = 1 << 21;
const G1: u64 = 1 << 30;

/// Hardware with leaves of 4 KiB, 2 MiB and 1 GiB, on which leaves may be split.
pub(super) fn config<S: Spec>() -> Config {
    Config {
        splits: true,
        ..TestTable::<S>::config(S::MIN_LEVELS)
    }
}

/// Harvests and splits; the addresses to flush are the second result.
pub(super) fn harvest<S: Spec>(
    table: &TestTable<'_, S>,
    iova: u64,
    len: u64,
) -> Result<(TestSink, Option<Range>)> {
    // SAFETY: The tests use a table from one thread.
    let claim = unsafe { Stable::new(Range::new(iova, len)?, &table.table) };
    let mut sink = TestSink::new();

    table.table.read_and_split_dirty(&claim, (), &mut sink)?;

    let split = sink.split;

    Ok((sink, split))
}

/// Splits what is larger than `1 << lg2` bytes; returns the addresses to flush.
pub(super) fn split<S: Spec>(
    table: &TestTable<'_, S>,
    iova: u64,
    len: u64,
    lg2: u32,
) -> Result<Option<Range>> {
    // SAFETY: The tests use a table from one thread.
    let claim = unsafe { Stable::new(Range::new(iova, len)?, &table.table) };
    let (range, result) = table.table.split(&claim, lg2, (), || true);

    result.map(|()| range)
}

/// Leaves are split only in trees that were made for it, and in formats that say what becomes of a
/// late write.
pub fn refused_unless_asked_for<S: Spec>() -> Result {
    let mem = TestMem::new();

    for (splits, coherent) in [(false, true), (true, true), (true, false)] {
        let config = Config {
            splits,
            coherent,
            ..config::<S>()
        };
        let table = TestTable::<S>::with(&mem, config)?;
        let can = splits && coherent && S::LATE_DIRT.is_some();

        table.map(G1, 0, M2)?;
        if coherent {
            table.access(G1, true)?;
        }

        let word = table.word(G1)?;

        check_eq!(table.table.can_split(), can);
        if can {
            continue;
        }
        check!(harvest(&table, G1, M2).err() == Some(EOPNOTSUPP));
        check!(split(&table, G1, M2, 12) == Err(EOPNOTSUPP));
        check_eq!(table.word(G1)?, word);
    }
    Ok(())
}

/// The bits that note parts, and that of a late write, are those that the specification has the
/// hardware ignore. Each number of parts reads back.
pub fn words_of_parts<S: Spec>() -> Result {
    check!(S::F::LATE_DIRT == S::LATE_DIRT);
    check_eq!(S::F::PART, S::PART);
    check_eq!(S::F::PART != 0, S::F::LATE_DIRT.is_some());
    check_eq!(S::PART & (S::DIRTY | S::ACCESSED | S::F::WRITABLE), 0);
    for (level, lg2) in [(1, 12), (2, 21), (3, 30)] {
        let level = Level::top_of(level)?;
        let leaf = S::F::leaf(G1, lg2, level, S::F::attrs(Prot::READ | Prot::WRITE)?);

        check_eq!(
            S::F::leaf(G1, lg2, level, S::F::leaf_attrs(leaf, level)),
            leaf
        );
        for bits in [part_bits::<S::F>(TABLE_LG2), S::PART] {
            check!(S::F::decode(leaf | bits, level) == Entry::Leaf { phys: G1, lg2 });
            check!(
                S::read(leaf | bits, level.number().into()) == S::read(leaf, level.number().into())
            );
        }
        if level > Level::LEAF {
            let link = S::F::table(G1, level);
            let late = link | S::PART | S::LATE_DIRT.unwrap_or(0);

            check!(S::F::decode(late, level) == Entry::Table(G1));
            check!(S::read(late, level.number().into()) == S::read(link, level.number().into()));
        }
    }
    for lg2 in 1..=TABLE_LG2 {
        if lg2 == TABLE_LG2 && S::PART != 0 || S::SPLITS_ROWS {
            let bits = part_bits::<S::F>(lg2);

            check!(bits != 0 && bits & !S::PART == 0);
            check_eq!(super::super::format::part_lg2::<S::F>(bits), lg2);
        }
    }
    check_eq!(super::super::format::part_lg2::<S::F>(!S::PART), 0);
    Ok(())
}

/// A leaf that is found dirty is reported as usual, and split by one level; the next time only what
/// was written to is. The hardware comes to the same addresses all the time.
pub fn one_level_each_time<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::with(&mem, config::<S>())?;
    let at = G1 + 77 * M2 + 13 * K4;

    table.map(G1, 3 * G1, G1)?;

    let live = mem.live();

    for (round, (size, below)) in [(G1, M2), (M2, K4), (K4, K4)].into_iter().enumerate() {
        let first = at & !(size - 1);

        check!(table.access(at + 5, true)? == at + 2 * G1 + 5);

        let (sink, split) = harvest(&table, 0, 4 * G1)?;
        let leaf = Range::new(first, size)?;

        check!(sink.is(&[(first, first + size - 1)]));
        check!(sink.has_cleared(first, first + size - 1));
        check!(split == (size != below).then_some(leaf));
        check_eq!(table.leaf_lg2(at)?, below.trailing_zeros());
        check_eq!(mem.live(), live + (round as u64 + 1).min(2));
        for other in [G1, at, at + K4, at + M2, 2 * G1 - K4] {
            check!(table.translate(other) == Some(other + 2 * G1));
            check!(!S::is_dirty(table.word(other)?));
        }
        check!(harvest(&table, 0, 4 * G1)?.0.is(&[]));
    }
    Ok(())
}

/// A part has the word that a leaf would have that was mapped there, but for what notes it.
pub fn parts_are_like_the_leaf<S: Spec>() -> Result {
    for prot in [
        Prot::READ | Prot::WRITE,
        Prot::READ | Prot::WRITE | Prot::SNOOP,
        Prot::READ,
    ] {
        let mem = TestMem::new();
        let table = TestTable::<S>::with(&mem, config::<S>())?;
        let like = TestTable::<S>::with(
            &mem,
            Config {
                page_sizes: K4,
                ..config::<S>()
            },
        )?;
        let mut gather = TestGather::new(&mem);

        table.try_map(G1, 5 * G1, M2, prot, &mut gather).1?;
        like.try_map(G1, 5 * G1, M2, prot, &mut gather).1?;
        check!(split(&table, G1 + 9 * K4, 1, 12)? == Some(Range::new(G1, M2)?));
        for page in (0..512).map(|page| G1 + page * K4) {
            check_eq!(table.word(page)?, like.word(page)? | S::PART);
        }
    }
    Ok(())
}

/// A caller that asks for less than a leaf gets what it asks for, and no page twice; a leaf of
/// 1 GiB is split down to where it is cut.
pub fn a_cut_leaf_converges<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::with(&mem, config::<S>())?;
    let (first, behind) = (G1 + 3 * M2 + 5 * K4, G1 + 6 * M2 + K4);

    table.map(G1, 0, 2 * G1)?;
    table.access(G1 + 7, true)?;

    let live = mem.live();
    let (sink, split) = harvest(&table, first, behind - first)?;

    check!(sink.is(&[(first, behind - 1)]));
    check!(sink.has_cleared(first, behind - 1));
    // All of the leaf, though the query was for less.
    check!(split == Some(Range::new(G1, G1)?));
    // The table of the parts, and one for each that was cut: the others stay as they are.
    check_eq!(mem.live(), live + 3);
    for (iova, lg2) in [
        (G1, 21),
        (first, 12),
        (G1 + 4 * M2, 21),
        (behind, 12),
        (2 * G1, 30),
    ] {
        check_eq!(table.leaf_lg2(iova)?, lg2);
    }
    check!(harvest(&table, first, behind - first)?.0.is(&[]));

    // What was written to before is still dirty elsewhere.
    let (sink, _) = harvest(&table, G1, first - G1)?;

    check!(sink.is(&[(G1, first - 1)]));
    check!(harvest(&table, 0, 4 * G1)?.0.is(&[(behind, 2 * G1 - 1)]));
    check!(harvest(&table, 0, 4 * G1)?.0.is(&[]));
    Ok(())
}

/// Without memory the harvest does what one does that splits nothing.
pub fn without_memory_leaves_stay<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::with(&mem, config::<S>())?;

    table.map(G1, 0, G1)?;

    let live = mem.live();
    let clean = table.word(G1)?;

    table.access(G1, true)?;

    let dirty = table.word(G1)?;

    mem.fail_after(0);

    let (sink, split_range) = harvest(&table, G1 + K4, M2)?;

    check!(sink.is(&[(G1 + K4, G1 + M2 + K4 - 1)]));
    check!(sink.cleared.is_none() && split_range.is_none());
    check_eq!(table.word(G1)?, dirty);
    check!(split(&table, G1, G1, 12) == Err(ENOMEM));
    check_eq!(table.word(G1)?, dirty);

    let (sink, split_range) = harvest(&table, 0, 4 * G1)?;

    check!(sink.is(&[(G1, 2 * G1 - 1)]) && split_range.is_none());
    check_eq!(table.word(G1)?, clean | S::ACCESSED);
    check_eq!(mem.live(), live);

    // With memory for one table, a cut leaf of 1 GiB becomes leaves of 2 MiB.
    table.access(G1, true)?;
    mem.fail_after(1);

    let (sink, split_range) = harvest(&table, G1 + K4, M2)?;

    check!(sink.is(&[(G1 + K4, G1 + M2 + K4 - 1)]));
    check!(sink.cleared.is_none() && split_range == Some(Range::new(G1, G1)?));
    check_eq!(table.leaf_lg2(G1)?, 21);
    check!(harvest(&table, 0, 4 * G1)?.0.is(&[(G1, 2 * G1 - 1)]));
    Ok(())
}

/// A leaf is not split into leaves that the hardware does not have.
pub fn sizes_that_the_hardware_lacks<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::with(
        &mem,
        Config {
            page_sizes: G1 | K4,
            ..config::<S>()
        },
    )?;

    table.map(G1, 0, G1)?;
    table.access(G1, true)?;
    check!(split(&table, G1, G1, 12)?.is_none());

    let (sink, split_range) = harvest(&table, G1, G1)?;

    check!(sink.is(&[(G1, 2 * G1 - 1)]) && split_range.is_none());
    check_eq!(table.leaf_lg2(G1)?, 30);
    check!(!S::is_dirty(table.word(G1)?));
    Ok(())
}

/// To split a leaf without a report makes no page clean, and none dirty.
pub fn eager_keeps_what_is_dirty<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::with(&mem, config::<S>())?;

    table.map(G1, 0, 4 * M2)?;
    table.map(2 * G1, 0, K4)?;
    table.access(G1 + M2, true)?;
    check!(split(&table, G1, G1 + K4, 21)?.is_none());
    check!(split(&table, G1, G1 + K4, 12)? == Some(Range::new(G1, 4 * M2)?));
    check!(split(&table, G1, G1 + K4, 12)?.is_none());
    for page in 0..4 * M2 / K4 {
        check_eq!(table.leaf_lg2(G1 + page * K4)?, 12);
    }

    let (sink, split_range) = harvest(&table, 0, 4 * G1)?;

    check!(sink.is(&[(G1 + M2, G1 + 2 * M2 - 1)]) && split_range.is_none());
    table.access(G1 + 17 * K4, true)?;
    check!(harvest(&table, 0, 4 * G1)?
        .0
        .is(&[(G1 + 17 * K4, G1 + 18 * K4 - 1)]));
    Ok(())
}

/// A write that the hardware notes in the link, because it has the leaf cached, may have gone to
/// any page below. Whatever part of it is asked for is reported once, and the rest stays dirty.
pub fn a_late_write_is_all_below<S: Spec>() -> Result {
    let late = S::LATE_DIRT.unwrap_or(0);

    if late == 0 {
        return Ok(());
    }
    for (level, size) in [(1, M2), (2, G1)] {
        let mem = TestMem::new();
        let table = TestTable::<S>::with(&mem, config::<S>())?;

        table.map(2 * G1, 0, G1)?;
        split(&table, 2 * G1, 1, size.trailing_zeros() - 9)?;
        // A hole is no page that a device can have written to.
        if size == M2 {
            check_eq!(table.unmap(2 * G1 + 7 * K4, K4), K4);
        }

        let entry = entry_at::<S>(&mem, table.table.top(), 2 * G1, level)?;
        // SAFETY: The entry is one of a table of this memory, whose words are accessed as atomics.
        let entry = unsafe { Atomic::from_ptr(entry) };
        let link = entry.load(Relaxed);
        let (first, last) = (2 * G1, 2 * G1 + size - 1);
        let behind = first + 8 * K4;

        check!(entry.cmpxchg(link, link | late, Full).is_ok());
        // One that clears nothing, and one that cannot split.
        for clear in [false, true] {
            let sink = table.harvest(behind, G1, clear)?;

            check!(sink.is(&[(behind, last)]) && sink.cleared.is_none());
            check_eq!(entry.load(Relaxed), link | late);
        }

        let (sink, split_range) = harvest(&table, behind + K4, K4)?;

        check!(sink.is(&[(behind + K4, behind + 2 * K4 - 1)]));
        check!(split_range == Some(Range::new(first, size)?));
        check_eq!(entry.load(Relaxed), link);

        let (sink, _) = harvest(&table, 0, 4 * G1)?;

        if size == M2 {
            check!(sink.is(&[
                (first, first + 7 * K4 - 1),
                (behind, behind + K4 - 1),
                (behind + 2 * K4, last)
            ]));
        } else {
            check!(sink.is(&[(first, behind + K4 - 1), (behind + 2 * K4, last)]));
        }
        check!(harvest(&table, 0, 4 * G1)?.0.is(&[]));
    }
    Ok(())
}

/// A sink in whose first record another unmaps a leaf.
struct Removing<'a> {
    sink: TestSink,
    remove: Option<&'a dyn Fn() -> Result>,
    result: Result,
}

impl DirtySink for Removing<'_> {
    fn record(&mut self, range: Range) {
        self.sink.record(range);
        if let Some(remove) = self.remove.take() {
            self.result = remove();
        }
    }

    fn cleared(&mut self, range: Range) {
        self.sink.cleared(range);
    }

    fn split(&mut self, range: Range) {
        self.sink.split(range);
    }
}

/// A leaf that is unmapped when the harvest is about to split it does not come back, and no table
/// is left.
pub fn a_removed_leaf_stays_removed<S: Spec>() -> Result {
    let mem = TestMem::new();
    let walks = Walks::new(&mem);
    let table = TestTable::<S>::with(&mem, config::<S>())?;
    let page = G1 - 2 * K4;

    table.map(page, 0, K4)?;
    table.map(G1, 0, M2)?;
    table.access(page, true)?;
    table.access(G1, true)?;

    let live = mem.live();
    let remove = || {
        check_eq!(table.unmap(G1, M2), M2);
        Ok(())
    };
    let mut sink = Removing {
        sink: TestSink::new(),
        remove: Some(&remove),
        result: Err(ENOENT),
    };

    {
        // SAFETY: No table is detached; one thread.
        let walk = unsafe { walks.enter(Range::new(page, G1)?, &table.table) }.ok_or(EIO)?;

        table.table.read_and_split_dirty(&walk, (), &mut sink)?;
        check!(sink.sink.split.is_none());
    }
    sink.result?;
    check!(table.translate(G1).is_none());
    check_eq!(mem.live(), live);
    Ok(())
}

/// What was split is unmapped as before: all at once with its tables, or now in parts.
pub fn unmap_frees_the_parts<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::with(&mem, config::<S>())?;

    // Something that keeps the tables above.
    table.map(4 * G1, 0, G1)?;

    let live = mem.live();

    table.map(G1, 0, G1)?;
    split(&table, G1, 1, 21)?;
    split(&table, G1 + M2, M2, 12)?;
    split(&table, G1 + 5 * M2, M2, 12)?;
    check_eq!(mem.live(), live + 3);
    check_eq!(table.unmap(G1 + M2, K4), K4);
    check_eq!(table.unmap(G1 + M2 + K4, M2 - K4), M2 - K4);
    check_eq!(table.unmap(G1, M2), M2);
    check_eq!(table.unmap(G1 + 2 * M2, G1 - 2 * M2), G1 - 2 * M2);
    check!(table.translate(2 * G1 - 1).is_none());
    table.map(G1, 0, G1)?;
    check_eq!(table.leaf_lg2(G1)?, 30);
    check_eq!(mem.live(), live);
    split(&table, G1, 1, 21)?;
    check_eq!(table.unmap(G1, G1), G1);
    check_eq!(mem.live(), live);
    Ok(())
}

/// A split that is not to go on leaves the rest as it is, and says what is to be flushed.
pub fn eager_may_end_early<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::with(&mem, config::<S>())?;
    let range = Range::new(0, 4 * G1)?;
    // One question for each link of a higher level, and one for each GiB.
    let mut questions = S::MIN_LEVELS - 3 + 2;

    for iova in [0, G1, 2 * G1] {
        table.map(iova, iova, M2)?;
    }
    // SAFETY: The tests use a table from one thread.
    let claim = unsafe { Stable::new(range, &table.table) };
    let (flush, result) = table.table.split(&claim, 12, (), || {
        questions -= 1;
        questions > 0
    });

    check!(result == Err(EINTR));
    check!(flush == Some(Range::new(0, M2)?));
    for (iova, lg2) in [(0, 12), (G1, 21), (2 * G1, 21)] {
        check_eq!(table.leaf_lg2(iova)?, lg2);
    }
    Ok(())
}

/// A claim about another tree splits and joins nothing.
pub fn another_tree<S: Spec>() -> Result {
    let mem = TestMem::new();
    let table = TestTable::<S>::with(&mem, config::<S>())?;
    let other = TestTable::<S>::with(&mem, config::<S>())?;
    let mut gather = TestGather::new(&mem);
    let range = Range::new(G1, M2)?;

    table.map(G1, 0, M2)?;
    table.access(G1, true)?;

    let word = table.word(G1)?;

    for (owner, paused) in [(&table, &other), (&other, &table)] {
        let walks = Walks::new(&mem);
        let (is_other, owner) = (core::ptr::eq(owner, &other), &owner.table);
        // SAFETY: One thread, and no walks.
        let (claim, mut exclusive, pause) = unsafe {
            (
                Stable::new(range, owner),
                Exclusive::new(range, owner),
                walks.pause(&paused.table).ok_or(EIO)?,
            )
        };
        let mut sink = TestSink::new();
        let tree = table.table.tree();

        check!(tree.join(&mut exclusive, &pause, &mut gather) == Err(EINVAL));
        if is_other {
            let harvested = tree.read_and_split_dirty(&claim, (), &mut sink);

            check!(harvested.err() == Some(EINVAL));
            check!(tree.split(&claim, 12, (), || true) == (None, Err(EINVAL)));
        }
        check!(sink.is(&[]) && gather.hull.is_none());
    }
    check_eq!(table.word(G1)?, word);
    Ok(())
}
