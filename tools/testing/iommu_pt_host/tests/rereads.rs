// SPDX-License-Identifier: GPL-2.0

//! Two migrations of the same pages: one finds a page dirty, and the other makes it clean before
//! the first reads it again. Neither may report a page that no device has written.

use iommu_pt_host::{
    memory::HostMem,
    pt::{
        DirtySink,
        Iova,
        Range, //
    },
    spec::{
        self,
        Spec, //
    },
    table::{
        HostTable,
        Never, //
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

/// The number of reported pages after which the test ends, and its time limit.
const REPORTS: u64 = 40_000;
const LIMIT: Duration = Duration::from_secs(50);

/// Counts the reported pages, and records one that no device has written.
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

    fn split(&mut self, _range: Range) {}
}

fn race<S: Spec>() {
    let mem = HostMem::new(true);
    // SAFETY: All is mapped before there is another thread, and nothing after that.
    let host = unsafe { HostTable::<S, _>::new(&mem, HostTable::<S, &HostMem>::config(PAGE)) };
    let range = Range::new(BASE, PAGES * PAGE).unwrap();

    host.map(BASE, 0, PAGES * PAGE, &mut Never);

    let stop = AtomicBool::new(false);
    let reported = AtomicU64::new(0);
    let deadline = Instant::now() + LIMIT;

    thread::scope(|scope| {
        let (host, stop, reported) = (&host, &stop, &reported);

        for _ in 0..2 {
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    let mut report = Report::default();

                    host.harvest(range, true, &mut report);
                    reported.fetch_add(report.pages, SeqCst);
                    if report.wrong.is_some() {
                        stop.store(true, SeqCst);
                    }
                    assert_eq!(report.wrong, None, "a page that no device has written");
                }
            });
        }
        while reported.load(SeqCst) < REPORTS && Instant::now() < deadline && !stop.load(SeqCst) {
            for page in (0..PAGES).filter(|page| is_written(*page)) {
                // Fails if a harvest was in between.
                let _ = host.set_dirty(BASE + page * PAGE);
            }
        }
        stop.store(true, SeqCst);
    });
    assert!(
        reported.load(SeqCst) >= REPORTS,
        "the harvests found next to nothing"
    );
}

macro_rules! tests {
    ($($name:ident: $spec:ident,)* ; $($other:ident: $other_spec:ident,)*) => {
        $(
            #[test]
            fn $name() {
                race::<spec::$spec>();
            }
        )*
    };
}

iommu_pt_host::iommu_pt_for_each_format!(tests);
