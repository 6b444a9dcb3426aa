// SPDX-License-Identifier: GPL-2.0

//! Random splits, joins and harvests under hardware that remembers ([`Stale`]): what a migration
//! copies is what the device has written.
//!
//! The device also writes between a harvest and its flush, and between the flush and the copy. When
//! it has stopped, one more round must make the copy equal.

use iommu_pt_host::{
    error::{
        code::ENOMEM,
        Result, //
    },
    memory::HostMem,
    pt::{
        DetachedTable,
        DirtySink,
        Exclusive,
        Gather,
        Iova,
        PageTable,
        PhysAddr,
        Prot,
        Range,
        Stable,
        Table,
        TableMem,
        Walks, //
    },
    spec::{
        self,
        Spec, //
    },
    stale::Stale,
    table::HostTable, //
};
use std::{
    collections::BTreeMap,
    ptr::NonNull, //
};

const K4: u64 = 1 << 12;
const M2: u64 = 1 << 21;
const G1: u64 = 1 << 30;

/// What is mapped: first address and size. The output address is the same and 16 GiB more.
const EXTENTS: [(Iova, u64); 7] = [
    (4 * G1, G1),
    (6 * G1, G1 + M2),
    (8 * G1 + M2, M2),
    (8 * G1 + 2 * M2, 6 * M2),
    (9 * G1 + 16 * K4, 16 * K4),
    (9 * G1 + 64 * K4, 32 * K4),
    (9 * G1 + 256 * K4, 3 * K4),
];
const OFFSET: PhysAddr = 16 * G1;

/// The number of sequences for each format, and of operations in each.
const SEQUENCES: u64 = 60;
const OPERATIONS: usize = 400;

/// The pages of an extent that are written to.
fn hot(extent: (Iova, u64), number: u64) -> Iova {
    let pages = extent.1 / K4;

    extent.0 + number.wrapping_mul(0x9e37_79b9) % pages * K4
}

/// The report of a harvest.
#[derive(Default)]
struct Report {
    runs: Vec<Range>,
    cleared: Option<Range>,
    split: Option<Range>,
}

impl DirtySink for Report {
    fn record(&mut self, range: Range) {
        assert!(self
            .runs
            .last()
            .is_none_or(|last| last.last() < range.first()));
        self.runs.push(range);
    }

    fn cleared(&mut self, range: Range) {
        assert!(self.cleared.replace(range).is_none());
    }

    fn split(&mut self, range: Range) {
        assert!(self.split.replace(range).is_none());
    }
}

/// Ranges to flush with links, and tables to free after that.
#[derive(Default)]
struct Later {
    ranges: Vec<Range>,
    tables: Vec<NonNull<Table>>,
}

impl<'m> Gather<&'m HostMem> for Later {
    fn add_range(&mut self, range: Range) {
        self.ranges.push(range);
    }

    fn queue_free(&mut self, table: DetachedTable<&'m HostMem>) {
        self.tables.push(table.into_raw());
    }
}

struct Run<'m, S: Spec> {
    mem: &'m HostMem,
    table: PageTable<S::F, &'m HostMem>,
    device: Stale<'m, S>,
    /// The number of the last write to each page, and of that which was copied.
    written: BTreeMap<Iova, u64>,
    copied: BTreeMap<Iova, u64>,
    writes: u64,
    mapped: [bool; EXTENTS.len()],
    /// How many leaves were split or joined by a harvest, an eager split, a join.
    shaped: [u64; 3],
}

impl<'m, S: Spec> Run<'m, S> {
    fn new(mem: &'m HostMem, seed: u64) -> Self {
        let mut config = HostTable::<S, &HostMem>::config(u64::MAX);

        config.splits = true;

        let table = PageTable::new(mem, config, ()).unwrap();
        let top = table.top();

        Self {
            mem,
            table,
            device: Stale::new(mem, top, seed),
            written: BTreeMap::new(),
            copied: BTreeMap::new(),
            writes: 0,
            mapped: [false; EXTENTS.len()],
            shaped: [0; 3],
        }
    }

    fn exclusive(&self, range: Range) -> Exclusive {
        // SAFETY: One thread.
        unsafe { Exclusive::new(range, &self.table) }
    }

    fn later(&mut self, later: Later) {
        for range in later.ranges {
            self.device.flush(range, true);
        }
        for table in later.tables {
            // SAFETY: It was detached, and the hardware was flushed.
            unsafe { self.mem.free(table) }
        }
    }

    /// Maps an extent, or unmaps it.
    fn toggle(&mut self, number: usize) {
        let (iova, size) = EXTENTS[number];
        let range = Range::new(iova, size).unwrap();
        let mut claim = self.exclusive(range);
        let mut later = Later::default();

        if self.mapped[number] {
            assert_eq!(self.table.unmap(&mut claim, &mut later), size);
            self.written
                .retain(|page, _| !range.covers(&Range::at(*page)));
            self.copied
                .retain(|page, _| !range.covers(&Range::at(*page)));
        } else {
            let prot = Prot::READ | Prot::WRITE;
            let mapped = self
                .table
                .map(&mut claim, iova + OFFSET, prot, (), &mut later);

            assert_eq!(mapped, (size, Ok(())));
        }
        self.mapped[number] = !self.mapped[number];
        self.later(later);
    }

    /// The device accesses a page.
    fn access(&mut self) {
        let number = self.device.below(EXTENTS.len() as u64) as usize;
        let kind = self.device.below(16);
        let page = hot(EXTENTS[number], self.device.below(4));
        let write = kind > 3;

        if self.mapped[number] {
            self.access_page(page, write);
        }
    }

    fn access_page(&mut self, page: Iova, write: bool) {
        assert_eq!(self.device.access(page + 8, write), Ok(page + 8 + OFFSET));
        if write {
            self.writes += 1;
            self.written.insert(page, self.writes);
        }
    }

    fn accesses(&mut self, most: u64) {
        for _ in 0..self.device.below(most) {
            self.access();
        }
    }

    /// A query that splits leaves or does not, its flush, and the copy of what it has reported.
    fn round(&mut self, range: Range, splits: bool) -> Vec<Range> {
        // SAFETY: One thread.
        let claim = unsafe { Stable::new(range, &self.table) };
        let mut report = Report::default();
        let harvested = if splits {
            self.table.read_and_split_dirty(&claim, (), &mut report)
        } else {
            self.table.read_and_clear_dirty(&claim, true, &mut report)
        };

        assert_eq!(harvested, Ok(()));
        assert!(splits || report.split.is_none());

        assert!(report.runs.iter().all(|run| range.covers(run)));
        assert!(report.cleared.is_none_or(|cleared| range.covers(&cleared)));
        self.accesses(6);
        if let Some(cleared) = report.cleared {
            self.device.flush(cleared, false);
        }
        if let Some(split) = report.split {
            self.shaped[0] += 1;
            self.device.flush(split, true);
        }
        self.accesses(4);
        for run in &report.runs {
            for (page, number) in self.written.range(run.first()..=run.last()) {
                self.copied.insert(*page, *number);
            }
        }
        report.runs
    }

    /// A range that begins and ends somewhere, or is everything.
    fn range(&mut self) -> Range {
        let (iova, size) = EXTENTS[self.device.below(EXTENTS.len() as u64) as usize];
        let first = iova + self.device.below(size / K4) * K4;

        match self.device.below(4) {
            0 => Range::new(0, 16 * G1).unwrap(),
            1 => Range::new(first, self.device.below(8) * K4 + K4).unwrap(),
            2 => Range::new(first, self.device.below(3 * M2) + 1).unwrap(),
            _ => Range::new(iova, size).unwrap(),
        }
    }

    fn eager(&mut self) {
        let number = self.device.below(EXTENTS.len() as u64) as usize;
        let (iova, size) = EXTENTS[number];
        let range = Range::new(iova, size).unwrap();

        if !self.mapped[number] {
            return;
        }
        // The device has leaves cached as clean, and writes to them when they are split.
        self.join(range);
        self.round(range, false);
        for page in 0..3 {
            self.access_page(hot(EXTENTS[number], page), false);
        }

        // SAFETY: One thread.
        let claim = unsafe { Stable::new(range, &self.table) };
        let to = [12, 21][self.device.below(2) as usize];
        // Enough for some of it.
        let tables = self.device.below(12);

        self.mem.fail_after(tables);

        let (split, result) = self.table.split(&claim, to, (), || true);

        self.mem.fail_after(u64::MAX);
        assert!(result == Ok(()) || result == Err(ENOMEM));
        for page in 0..self.device.below(4) {
            self.access_page(hot(EXTENTS[number], page), true);
        }
        if let Some(split) = split {
            self.shaped[1] += 1;
            self.device.flush(split, true);
        }
    }

    fn join(&mut self, range: Range) {
        let mut claim = self.exclusive(range);
        let mut later = Later::default();
        let walks = Walks::new(self.mem);
        // SAFETY: There are no walks.
        let pause = unsafe { walks.pause(&self.table) }.unwrap();

        self.shaped[2] += self.table.join(&mut claim, &pause, &mut later).unwrap();
        self.accesses(6);
        self.later(later);
    }

    fn step(&mut self) {
        match self.device.below(64) {
            0..40 => self.access(),
            40..48 => self.device.forget(),
            48..56 => {
                let range = self.range();
                let tables = [u64::MAX, u64::MAX, 0, 1][self.device.below(4) as usize];

                self.mem.fail_after(tables);
                self.round(range, true);
                self.mem.fail_after(u64::MAX);
            }
            56 => {
                let range = self.range();

                self.round(range, false);
            }
            57..59 => self.eager(),
            59..61 => {
                let range = self.range();

                self.join(range);
            }
            61 => {
                let number = self.device.below(EXTENTS.len() as u64) as usize;

                self.toggle(number);
            }
            _ => {
                let range = self.range();
                // SAFETY: One thread.
                let claim = unsafe { Stable::new(range, &self.table) };
                let mut report = Report::default();

                self.table
                    .read_and_clear_dirty(&claim, false, &mut report)
                    .unwrap();
                assert!(report.cleared.is_none());
            }
        }
    }
}

/// Whether all is copied after one more round with a device that has stopped.
fn run<S: Spec>(seed: u64) -> ([u64; 3], (u64, u64)) {
    let mem = HostMem::new(true);
    let mut run = Run::<S>::new(&mem, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let all = Range::new(0, 16 * G1).unwrap();

    for number in 0..EXTENTS.len() {
        run.toggle(number);
    }
    for _ in 0..OPERATIONS {
        run.step();
    }

    // The device stops.
    let mapped = std::mem::replace(&mut run.mapped, [false; EXTENTS.len()]);

    run.round(all, seed % 2 == 0);
    for (page, number) in &run.written {
        assert_eq!(run.copied.get(page), Some(number), "{page:#x} is lost");
    }

    // After some rounds nothing is reported but what is written to.
    run.mapped = mapped;
    for _ in 0..6 {
        run.round(all, true);
    }
    run.mapped = [false; EXTENTS.len()];
    for round in 0..5 {
        let mut pages = Vec::new();

        for (number, extent) in EXTENTS.into_iter().enumerate() {
            if mapped[number] {
                let page = hot(extent, 1);

                assert_eq!(run.device.access(page, true), Ok(page + OFFSET));
                // RISC-V has rows of 64 KiB, which stay.
                let is_row = !S::SPLITS_ROWS && S::SIZES.contains(&16) && extent.1 % (16 * K4) == 0;
                let size = if is_row && extent.1 < M2 { 16 * K4 } else { K4 };

                pages.push(Range::new(page & !(size - 1), size).unwrap());
            }
        }

        let runs = run.round(all, true);

        if round == 4 {
            assert_eq!(runs, pages, "what is reported is not what was written to");
        }
    }

    // All comes back, and all can be unmapped.
    run.join(all);
    run.mapped = mapped;

    let tables = mem.live();
    let shaped = run.shaped;
    let late = run.device.late;

    for (number, is_mapped) in mapped.into_iter().enumerate() {
        if is_mapped {
            run.toggle(number);
            run.toggle(number);
        }
    }
    assert_eq!(mem.live(), tables, "a join has left tables");
    drop(run);
    assert_eq!(mem.live(), 0);
    (shaped, late)
}

fn sequences<S: Spec>() -> Result {
    if S::LATE_DIRT.is_none() {
        return Ok(());
    }

    let mut all = ([0; 3], (0, 0));

    for seed in 1..=SEQUENCES {
        if std::env::var_os("TRACE").is_some() {
            eprintln!("seed {seed}");
        }

        let (shaped, late) = run::<S>(seed);

        for (sum, one) in all.0.iter_mut().zip(shaped) {
            *sum += one;
        }
        all.1 .0 += late.0;
        all.1 .1 += late.1;
    }
    // They do what they are for.
    assert!(all.0.iter().all(|shaped| *shaped > SEQUENCES), "{all:?}");
    assert!(
        S::LATE_DIRT == Some(0) || all.1 .1 > SEQUENCES / 2,
        "{all:?}"
    );
    Ok(())
}

macro_rules! tests {
    ($($name:ident: $spec:ident,)* ; $($other:ident: $other_spec:ident,)*) => {
        $(
            #[test]
            fn $name() -> Result {
                sequences::<spec::$spec>()
            }
        )*
    };
}

iommu_pt_host::iommu_pt_for_each_format!(tests);
