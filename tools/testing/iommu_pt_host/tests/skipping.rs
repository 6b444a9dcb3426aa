// SPDX-License-Identifier: GPL-2.0

//! Tables that come between a link and the table that it leads to, while devices walk by the links
//! that they remember.

use iommu_pt_host::{
    device::{
        Bus,
        Device,
        Flusher, //
    },
    memory::HostMem,
    pt::{
        Config,
        DirtySink,
        Iova,
        Range, //
    },
    reader,
    spec::{
        self,
        Spec, //
    },
    table::HostTable, //
};
use std::{
    collections::BTreeSet,
    sync::{
        atomic::{
            AtomicU64,
            AtomicUsize,
            Ordering::SeqCst, //
        },
        Barrier,
        Mutex, //
    },
    thread,
};

/// How many trees are grown at once and filled.
const TREES: usize = 100;

const SIDES: u64 = 3;

#[derive(Default)]
struct Dirty(BTreeSet<Iova>);

impl DirtySink for Dirty {
    fn record(&mut self, range: Range) {
        self.0.insert(range.first());
    }

    fn cleared(&mut self, _range: Range) {}
}

/// A side that maps, until it has ended, well or not.
struct Mapping<'a>(&'a AtomicU64);

impl Drop for Mapping<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// The smallest page.
fn page<S: Spec>() -> u64 {
    1 << S::PAGE_LG2
}

/// Where a side maps a page behind what a table of `level` covers: its own pages, apart from
/// each other, so that no two runs of dirty pages join.
fn place<S: Spec>(level: u32, side: u64) -> Iova {
    (1 << (S::item_lg2(level) + 9)) + 2 * side * page::<S>()
}

/// Maps a page, whose output address tells the input address.
fn map<'m, S: Spec>(host: &HostTable<S, &'m HostMem>, iova: Iova, flusher: &mut Flusher<'m>) {
    host.map(iova, iova >> 8 & !(page::<S>() - 1), page::<S>(), flusher);
}

/// Grows a tree at once, and fills it from all sides; returns how often devices had to forget.
fn fill<S: Spec>(number: usize) -> u64 {
    let highest = u32::from(S::LEVELS.1) - 1;
    let mem = HostMem::new(true);
    let config = Config {
        levels: 1,
        max_levels: S::LEVELS.1,
        skip_levels: true,
        ..HostTable::<S, &HostMem>::config(page::<S>())
    };
    // SAFETY: Each side maps its own pages, and the harvest is when all are through.
    let host = unsafe { HostTable::<S, _>::new(&mem, config) };
    let table = &host.table;
    let alone = Bus::new(0, table.top());
    let mut flusher = Flusher::new(&alone, &mem);
    let far = place::<S>(highest - 1, SIDES);

    map::<S>(&host, 0, &mut flusher);
    map::<S>(&host, far, &mut flusher);
    assert_eq!(table.top().levels, S::LEVELS.1);
    assert_eq!(flusher.tops, (1, 0));

    let bus = Bus::new(2, table.top());
    // What is mapped for sure, and what was written.
    let mapped = Mutex::new(vec![0, far]);
    let written = Mutex::new(BTreeSet::new());
    let mapping = AtomicU64::new(SIDES);
    let forgets = AtomicU64::new(0);
    let start = Barrier::new(SIDES as usize + 2);
    let devices = AtomicUsize::new(0);

    thread::scope(|scope| {
        for side in 0..SIDES {
            let (bus, mem, host, mapped) = (&bus, &mem, &host, &mapped);
            let (mapping, forgets, start) = (&mapping, &forgets, &start);

            scope.spawn(move || {
                let _mapping = Mapping(mapping);
                let mut flusher = Flusher::new(bus, mem);
                let mut levels: Vec<u32> = (0..highest - 1).collect();

                // From below, from above, and from the middle.
                let turn = side as usize + number;
                let first = turn % levels.len();

                levels.rotate_left(first);
                if turn % 2 == 1 {
                    levels.reverse();
                }
                start.wait();
                for level in levels {
                    let iova = place::<S>(level, side);

                    map::<S>(host, iova, &mut flusher);
                    mapped.lock().unwrap().push(iova);
                }
                forgets.fetch_add(flusher.forgets, SeqCst);
            });
        }
        for _ in 0..2 {
            let (bus, mem, mapped, written) = (&bus, &mem, &mapped, &written);
            let (mapping, start, devices) = (&mapping, &start, &devices);

            scope.spawn(move || {
                let me = devices.fetch_add(1, SeqCst);
                let mut device = Device::new(me, bus, mem);

                // It knows the way to the old top before anything comes between.
                device.read::<S>(0).unwrap();
                start.wait();
                while mapping.load(SeqCst) > 0 {
                    device.obey();

                    let known = mapped.lock().unwrap().clone();
                    // The last one most of the time.
                    let pick = device.random() as usize % (2 * known.len());
                    let iova = known[pick.min(known.len() - 1)];

                    assert_eq!(
                        device.write::<S>(iova).map(|phys| phys << 8),
                        Ok(iova & !(256 * page::<S>() - 1)),
                        "{iova:#x} is mapped"
                    );
                    written.lock().unwrap().insert(iova);
                }
            });
        }
    });

    let mut dirty = Dirty::default();
    let all = Range::inclusive(0, table.aperture_last()).unwrap();

    host.harvest(all, true, &mut dirty);
    assert_eq!(dirty.0, *written.lock().unwrap());

    let mut leaves = Vec::new();
    let tables = reader::read::<S>(&mem, table.top(), |iova, _| leaves.push(iova));
    let mut expected = mapped.into_inner().unwrap();

    expected.sort_unstable();
    assert_eq!(leaves, expected);
    assert_eq!(mem.live(), tables.len());
    drop(host);
    assert_eq!(mem.live(), 0);
    forgets.into_inner()
}

fn fill_often<S: Spec>() {
    let forgets: u64 = (0..TREES).map(fill::<S>).sum();
    let between = u64::from(S::LEVELS.1) - 2;

    // Each table between is one, and each that two came by at the same moment another.
    assert!(forgets > TREES as u64 * between, "no two ever met");
}

#[test]
fn amdv1() {
    fill_often::<spec::AmdV1>();
}

#[test]
fn amdv1_mock() {
    fill_often::<spec::AmdV1Mock>();
}
