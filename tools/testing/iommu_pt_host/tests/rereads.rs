// SPDX-License-Identifier: GPL-2.0

//! Two migrations of the same pages: what one finds dirty, the other has made clean before the first
//! looks again. A page that no device has written is reported by neither.

use iommu_pt_host::{
    memory::HostMem,
    pt::{
        Config,
        DirtySink,
        Exclusive,
        Gather,
        Iova,
        PageTable,
        Prot,
        Range,
        Stable, //
    },
    spec::{
        self,
        Spec, //
    }, //
};
use std::{
    sync::atomic::{
        AtomicBool,
        AtomicU64,
        Ordering::SeqCst, //
    },
    thread,
    time::{
        Duration,
        Instant, //
    },
};

const BASE: Iova = 1 << 30;
const PAGE: u64 = 1 << 12;
const PAGES: u64 = 128;

/// One entry in each cache line from the 64th entry on, never the first of the line.
fn is_written(page: u64) -> bool {
    page >= 64 && page % 8 == 1 + page / 8 % 7
}

/// How many pages the harvests report before the test ends, and how long it waits for that.
const REPORTS: u64 = 40_000;
const LIMIT: Duration = Duration::from_secs(50);

struct Never;

impl<'m> Gather<&'m HostMem> for Never {
    fn add_range(&mut self, _range: Range) {}

    fn queue_free(&mut self, _table: iommu_pt_host::pt::DetachedTable<&'m HostMem>) {
        panic!("nothing is unmapped");
    }
}

/// Counts the pages that were reported, and keeps one that nobody has written.
#[derive(Default)]
struct Report {
    pages: u64,
    wrong: Option<u64>,
}

impl DirtySink for Report {
    fn record(&mut self, range: Range) {
        for page in (range.first() - BASE) / PAGE..=(range.last() - BASE) / PAGE {
            if !is_written(page) {
                self.wrong = Some(page);
            }
            self.pages += 1;
        }
    }

    fn cleared(&mut self, _range: Range) {}
}

fn race<S: Spec>() {
    let mem = HostMem::new(true);
    let config = Config {
        levels: 4,
        max_levels: 4,
        page_sizes: PAGE,
        input_lg2: 64,
        output_lg2: 64,
        coherent: true,
        skip_levels: false,
    };
    let table = PageTable::<S::F, _>::new(&mem, config, ()).unwrap();
    let range = Range::new(BASE, PAGES * PAGE).unwrap();
    // SAFETY: No other thread runs yet.
    let mut claim = unsafe { Exclusive::new(range, &table) };
    let prot = Prot::READ | Prot::WRITE;

    assert_eq!(
        table.map(&mut claim, 0, prot, (), &mut Never),
        (PAGES * PAGE, Ok(()))
    );

    let stop = AtomicBool::new(false);
    let reported = AtomicU64::new(0);
    let deadline = Instant::now() + LIMIT;

    thread::scope(|scope| {
        let (table, stop, reported) = (&table, &stop, &reported);

        for _ in 0..2 {
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    // SAFETY: Nothing is unmapped.
                    let claim = unsafe { Stable::new(range, table) };
                    let mut report = Report::default();

                    table
                        .read_and_clear_dirty(&claim, true, &mut report)
                        .unwrap();
                    reported.fetch_add(report.pages, SeqCst);
                    if report.wrong.is_some() {
                        stop.store(true, SeqCst);
                    }
                    assert_eq!(report.wrong, None, "a page that nobody has written");
                }
            });
        }
        while reported.load(SeqCst) < REPORTS && Instant::now() < deadline && !stop.load(SeqCst) {
            for page in (0..PAGES).filter(|page| is_written(*page)) {
                // SAFETY: Nothing is unmapped.
                let claim = unsafe { Stable::at(BASE + page * PAGE, table) };

                // Fails where a harvest was in between.
                let _ = table.tree().set_dirty(&claim);
            }
        }
        stop.store(true, SeqCst);
    });
    assert!(
        reported.load(SeqCst) >= REPORTS,
        "the harvests found next to nothing"
    );
}

#[test]
fn vtdss() {
    race::<spec::VtdSs>();
}

#[test]
fn x86_64() {
    race::<spec::X86_64>();
}

#[test]
fn amdv1() {
    race::<spec::AmdV1>();
}
