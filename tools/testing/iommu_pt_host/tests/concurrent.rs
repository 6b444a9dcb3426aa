// SPDX-License-Identifier: GPL-2.0

//! Threads that play the hardware beside threads that harvest, map and unmap: no write is lost.
//!
//! The threads of a device write to pages of a "guest memory", each write a number higher than any
//! before. Like the hardware, they walk the tables, set A and D by compare-and-swap, and keep the
//! translation, and that its leaf is dirty, until they are told to forget it; a write through a
//! dirty cached translation touches no table. A migration harvests, flushes, and copies what was
//! reported. When the device has stopped and the last round is through, both memories must be the
//! same. If a single dirty bit had been lost, its page would differ.

use iommu_pt_host::pt::{
    tests::{
        cases,
        hardware::Found,
        memory::{
            TestMem,
            TestTable, //
        },
        Case, //
    },
    DetachedTable,
    DirtySink,
    Exclusive,
    Gather,
    Iova,
    PageTable,
    Prot,
    Range,
    Stable,
    Top, //
};
use std::{
    collections::HashMap,
    sync::{
        atomic::{
            AtomicBool,
            AtomicU64,
            AtomicUsize,
            Ordering::SeqCst, //
        },
        Mutex, //
    },
    thread,
    time::{
        Duration,
        Instant, //
    },
};

const K4: u64 = 1 << 12;
const M2: u64 = 1 << 21;
const DEVICES: usize = 2;

/// How long each test keeps everybody at work.
const WORK: Duration = Duration::from_secs(2);

/// What devices do before they take note of a flush: at most one access.
struct Bus {
    /// The number of flushes that were asked for.
    asked: AtomicU64,
    /// The number that each device has seen.
    seen: [AtomicU64; DEVICES],
    stop: AtomicBool,
}

impl Bus {
    fn new() -> Self {
        Self {
            asked: AtomicU64::new(0),
            seen: Default::default(),
            stop: AtomicBool::new(false),
        }
    }

    /// Has every device forget its translations, and waits until none has a write in flight.
    fn flush(&self) {
        let asked = self.asked.fetch_add(1, SeqCst) + 1;

        for seen in &self.seen {
            while seen.load(SeqCst) < asked {
                thread::yield_now();
            }
        }
    }
}

/// A leaf that a device has cached.
struct Cached {
    first: Iova,
    dirty: bool,
}

/// What a device knows, and how it writes.
struct Device<'t> {
    number: usize,
    bus: &'t Bus,
    mem: &'t TestMem,
    top: Top,
    tlb: HashMap<Iova, Cached>,
    flushed: u64,
    random: u64,
}

impl Device<'_> {
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Forgets everything if asked to, and only then says that it did.
    fn obey(&mut self) {
        let asked = self.bus.asked.load(SeqCst);

        if asked != self.flushed {
            self.tlb.clear();
            self.flushed = asked;
            self.bus.seen[self.number].store(asked, SeqCst);
        }
    }

    /// Writes to `iova`, or does nothing if it isn't mapped; returns whether it wrote.
    fn write<C: Case>(&mut self, iova: Iova, memory: &[AtomicU64], value: u64) -> bool {
        let page = iova & !(K4 - 1);
        let cached = self.tlb.get(&page).is_some_and(|cached| cached.dirty);

        if !cached {
            let Ok(Found { phys, lg2, .. }) = C::HARDWARE.find(self.mem, self.top, iova) else {
                return false;
            };
            if C::HARDWARE.access(self.mem, self.top, iova, true).is_err() {
                return false;
            }
            self.tlb.insert(
                page,
                Cached {
                    first: phys + (page & ((1 << lg2) - 1)),
                    dirty: true,
                },
            );
        }

        let target = self.tlb[&page].first / K4;

        memory[target as usize].fetch_max(value, SeqCst);
        true
    }
}

/// Reports of one round.
#[derive(Default)]
struct Pages(Vec<Range>);

impl DirtySink for Pages {
    fn record(&mut self, range: Range) {
        self.0.push(range);
    }

    fn cleared(&mut self, _range: Range) {}
}

/// Frees tables after a flush of the bus.
struct Flusher<'t> {
    bus: &'t Bus,
    mem: &'t TestMem,
    tables: Vec<DetachedTable<&'t TestMem>>,
}

impl<'t> Gather<&'t TestMem> for Flusher<'t> {
    fn add_range(&mut self, _range: Range) {}

    fn queue_free(&mut self, table: DetachedTable<&'t TestMem>) {
        self.tables.push(table);
    }
}

impl Flusher<'_> {
    fn flush(&mut self) {
        self.bus.flush();
        for table in self.tables.drain(..) {
            // SAFETY: No device holds a translation from before the flush.
            unsafe { table.free(&self.mem) }
        }
    }
}

/// What varies.
#[derive(Clone, Copy)]
struct Scene {
    /// Bytes per leaf of the memory that is migrated.
    leaf: u64,
    leaves: u64,
    /// How many migrations run at the same time, into one copy.
    harvesters: usize,
    /// Whether neighbours map and unmap all the while.
    neighbours: bool,
    /// Whether some queries end inside a leaf.
    ragged: bool,
}

fn migrate<C: Case>(scene: Scene) {
    let mem = TestMem::new();
    let test = TestTable::<C>::new(&mem, 4).unwrap();
    let table = &test.table;
    // Not at the start of a table: the neighbours share tables with the memory on both sides.
    let base = (1 << 30) + 64 * scene.leaf;
    let len = scene.leaves * scene.leaf;
    let pages = len / K4;
    let source: Vec<AtomicU64> = (0..pages).map(|_| AtomicU64::new(0)).collect();
    let copy: Vec<AtomicU64> = (0..pages).map(|_| AtomicU64::new(0)).collect();
    let bus = Bus::new();
    let clock = AtomicU64::new(1);
    let writes = AtomicU64::new(0);
    let reports = AtomicU64::new(0);
    let harvesting = AtomicUsize::new(scene.harvesters);

    if scene.leaf == K4 {
        // Leaf by leaf, so that they stay small.
        for leaf in 0..scene.leaves {
            test.map(base + leaf * K4, leaf * K4, K4).unwrap();
        }
    } else {
        test.map(base, 0, len).unwrap();
    }

    thread::scope(|scope| {
        let deadline = Instant::now() + WORK;

        for number in 0..DEVICES {
            let (bus, mem, clock, writes, source) = (&bus, &mem, &clock, &writes, &source);
            let (top, harvesting) = (table.top(), &harvesting);

            scope.spawn(move || {
                let mut device = Device {
                    number,
                    bus,
                    mem,
                    top,
                    tlb: HashMap::new(),
                    flushed: 0,
                    random: 0x9e37_79b9_7f4a_7c15 + number as u64,
                };
                let mut done = 0;

                while !bus.stop.load(SeqCst) {
                    device.obey();

                    let page = device.random() % pages;
                    let value = clock.fetch_add(1, SeqCst);

                    if device.write::<C>(base + page * K4, source, value) {
                        done += 1;
                    }
                }
                writes.fetch_add(done, SeqCst);
                // A device that has stopped still answers to flushes.
                while harvesting.load(SeqCst) > 0 {
                    device.obey();
                    thread::yield_now();
                }
                bus.seen[number].store(u64::MAX, SeqCst);
            });
        }

        for number in 0..scene.harvesters {
            let (bus, source, copy) = (&bus, &source, &copy);
            let (reports, harvesting) = (&reports, &harvesting);

            scope.spawn(move || {
                let mut round = number as u64;
                let mut rest = None;

                loop {
                    // The last round is one that begins when no device writes any more.
                    let last = bus.stop.load(SeqCst);
                    let mut sink = Pages::default();
                    // A cut that lies inside a leaf if leaves are large.
                    let cut = if scene.ragged && !last {
                        (round * 37 % (pages - 1) + 1) * K4
                    } else {
                        len
                    };

                    for (first, size) in [(base, cut), (base + cut, len - cut)] {
                        if size == 0 {
                            continue;
                        }
                        // SAFETY: The memory stays mapped until all threads have ended.
                        let claim = unsafe { Stable::new(Range::new(first, size).unwrap()) };

                        table.read_and_clear_dirty(&claim, true, &mut sink).unwrap();
                    }
                    bus.flush();
                    for run in &sink.0 {
                        assert!(run.first() >= base && run.last() < base + len);
                        for page in (run.first() - base) / K4..=(run.last() - base) / K4 {
                            let value = source[page as usize].load(SeqCst);

                            copy[page as usize].fetch_max(value, SeqCst);
                            reports.fetch_add(1, SeqCst);
                        }
                    }
                    round += 1;
                    if number == 0 && !last && Instant::now() > deadline {
                        bus.stop.store(true, SeqCst);
                    }
                    // Another one that has seen the stop later may have cleared what this one has
                    // not: each does two rounds after it.
                    match (last, rest) {
                        (false, _) => {}
                        (true, None) => rest = Some(()),
                        (true, Some(())) => break,
                    }
                }
                harvesting.fetch_sub(1, SeqCst);
            });
        }

        if scene.neighbours {
            for side in 0..2u64 {
                let (bus, mem, harvesting) = (&bus, &mem, &harvesting);

                scope.spawn(move || disturb(table, bus, mem, scene, base, side, harvesting));
            }
        }
    });

    let writes = writes.load(SeqCst);
    let reports = reports.load(SeqCst);
    let lost: Vec<u64> = (0..pages)
        .filter(|page| {
            let page = *page as usize;

            source[page].load(SeqCst) != copy[page].load(SeqCst)
        })
        .collect();

    println!("{writes} writes, {reports} pages reported");
    assert!(
        lost.is_empty(),
        "pages {lost:?} were written after their last report"
    );
    assert!(writes > 1000, "the devices wrote only {writes} times");
    assert!(reports > 1000, "only {reports} pages were reported");
    drop(test);
    assert_eq!(mem.live(), 0);
}

/// Maps and unmaps beside the memory that is migrated, in its tables and in tables of its own.
fn disturb<'t, C: iommu_pt_host::pt::Format>(
    table: &PageTable<C, &'t TestMem>,
    bus: &'t Bus,
    mem: &'t TestMem,
    scene: Scene,
    base: Iova,
    side: u64,
    harvesting: &AtomicUsize,
) {
    let mut flusher = Flusher {
        bus,
        mem,
        tables: Vec::new(),
    };
    let near = if side == 0 {
        base - 32 * scene.leaf
    } else {
        base + scene.leaves * scene.leaf
    };
    // Tables that both sides need at the same moment, and that go when their part does.
    let far = (2 << 30) + side * M2;
    let mut rounds = 0u64;

    while harvesting.load(SeqCst) > 0 {
        for (iova, len) in [(near, 32 * scene.leaf), (far, M2)] {
            let range = Range::new(iova, len).unwrap();
            // SAFETY: Each side has ranges of its own.
            let mut claim = unsafe { Exclusive::new(range) };
            let phys = if rounds % 2 == 0 { iova } else { iova + K4 };
            let (done, result) = table.map(
                &mut claim,
                phys & ((1 << 40) - 1),
                Prot::READ | Prot::WRITE,
                (),
                &mut flusher,
            );

            assert_eq!((done, result), (len, Ok(())));
            assert_eq!(table.unmap(&mut claim, &mut flusher), len);
        }
        rounds += 1;
        if rounds % 16 == 0 {
            flusher.flush();
        }
    }
    flusher.flush();
    assert!(rounds > 10, "the neighbours came to {rounds} rounds only");
}

const SMALL: Scene = Scene {
    leaf: K4,
    leaves: 700,
    harvesters: 1,
    neighbours: false,
    ragged: false,
};

const LARGE: Scene = Scene {
    leaf: M2,
    leaves: 3,
    harvesters: 1,
    neighbours: false,
    ragged: true,
};

/// The tests share the machine, and each has several threads already.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

macro_rules! scenes {
    ($($name:ident: $case:ident, $scene:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|error| error.into_inner());

                migrate::<cases::$case>($scene);
            }
        )*
    };
}

scenes! {
    vtdss_small_leaves: VtdSs, SMALL;
    vtdss_large_leaves_ragged_queries: VtdSs, LARGE;
    vtdss_neighbours_map_and_unmap: VtdSs, Scene { neighbours: true, ..SMALL };
    vtdss_two_migrations: VtdSs, Scene { harvesters: 2, ..SMALL };
    x86_64_small_leaves: X86_64, SMALL;
    x86_64_large_leaves_ragged_queries: X86_64, LARGE;
    x86_64_neighbours_map_and_unmap: X86_64, Scene { neighbours: true, ..SMALL };
    x86_64_two_migrations: X86_64, Scene { harvesters: 2, ..SMALL };
}
