// SPDX-License-Identifier: GPL-2.0

//! Threads that play the hardware run with threads that harvest, map and unmap: no write is lost.
//!
//! The threads of a device write to pages of a "guest memory", each write a number higher than any
//! before. A migration harvests, flushes, and copies what was reported. When the device has stopped
//! and the last round is done, both memories must be the same. If one dirty bit is lost, its page
//! differs.

use iommu_pt_host::{
    device::{
        Bus,
        Device,
        Flusher, //
    },
    memory::HostMem,
    pt::{
        Iova,
        Range, //
    },
    spec::{
        self,
        Spec, //
    },
    table::{
        HostTable,
        Runs, //
    }, //
};
use std::{
    sync::{
        atomic::{
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
const DEVICES: usize = 2;

/// The running time of the threads in each test.
const WORK: Duration = Duration::from_millis(1500);

/// The parameters of a test.
#[derive(Clone, Copy)]
struct Scene {
    /// Binary logarithms of the leaf sizes of the memory that is migrated, in a row.
    leaves: &'static [u32],
    /// How many such rows there are.
    rows: u64,
    /// How many migrations run at the same time, into one copy.
    harvesters: usize,
    /// Whether neighbours map and unmap during the test.
    neighbours: bool,
    /// Whether some queries end inside a leaf.
    ragged: bool,
}

impl Scene {
    fn row(&self) -> u64 {
        self.leaves.iter().map(|lg2| 1 << lg2).sum()
    }

    fn len(&self) -> u64 {
        self.rows * self.row()
    }

    /// Not at the start of a table, so that the neighbours share tables with the memory; aligned
    /// for the first leaf, which is the largest.
    fn base(&self) -> Iova {
        (1 << 30) + (64 * K4).next_multiple_of(1 << self.leaves[0])
    }
}

/// The state that the threads of a test share.
struct Stage<'t, S: Spec> {
    scene: Scene,
    mem: &'t HostMem,
    host: &'t HostTable<S, &'t HostMem>,
    bus: &'t Bus,
    /// The guest memory and the copy of it, a number for each page.
    source: Vec<AtomicU64>,
    copy: Vec<AtomicU64>,
    clock: AtomicU64,
    writes: AtomicU64,
    reports: AtomicU64,
    harvesting: AtomicUsize,
    deadline: Instant,
}

impl<S: Spec> Stage<'_, S> {
    fn map(&self) {
        let mut flusher = Flusher::new(self.bus, self.mem);
        let mut done = 0;

        // Leaf by leaf, so that no leaf is larger than intended.
        for _ in 0..self.scene.rows {
            for lg2 in self.scene.leaves {
                let iova = self.scene.base() + done;

                self.host.map(iova, done, 1 << lg2, &mut flusher);
                done += 1 << lg2;
            }
        }
        assert_eq!(flusher.tops, (0, 0));
    }

    /// A device that writes until it is stopped.
    fn write(&self, number: usize) {
        let mut device = Device::new(number, self.bus, self.mem);
        let mut done = 0;

        while !self.bus.stop.load(SeqCst) {
            device.obey();

            let at = self.scene.base() + device.random() % self.scene.len();

            // Sometimes a read before the write.
            if device.random() % 4 == 0 {
                device.read::<S>(at).unwrap();
            }

            let value = self.clock.fetch_add(1, SeqCst);
            let target = device.write::<S>(at).unwrap() / K4;

            self.source[target as usize].fetch_max(value, SeqCst);
            done += 1;
        }
        self.writes.fetch_add(done, SeqCst);
        // A stopped device still answers flushes.
        while self.harvesting.load(SeqCst) > 0 {
            device.obey();
            thread::yield_now();
        }
    }

    /// A migration: rounds until the devices have stopped, and two more.
    fn migrate(&self, number: usize) {
        let (base, len) = (self.scene.base(), self.scene.len());
        let mut round = number as u64;
        let mut rest = 2;

        while rest > 0 {
            // The last rounds begin after all devices have stopped writing. One is not enough:
            // another migration may have cleared pages that it has not copied yet.
            if self.bus.stop.load(SeqCst) {
                rest -= 1;
            }

            let mut sink = Runs::default();
            let cut = if self.scene.ragged && rest == 2 {
                (round * 37 % (len / K4 - 1) + 1) * K4
            } else {
                len
            };

            for (first, size) in [(base, cut), (base + cut, len - cut)] {
                if size == 0 {
                    continue;
                }
                self.host
                    .harvest(Range::new(first, size).unwrap(), true, &mut sink);
            }
            self.bus.flush();
            for run in &sink.0 {
                assert!(run.first() >= base && run.last() < base + len);
                for page in (run.first() - base) / K4..=(run.last() - base) / K4 {
                    let value = self.source[page as usize].load(SeqCst);

                    self.copy[page as usize].fetch_max(value, SeqCst);
                    self.reports.fetch_add(1, SeqCst);
                }
            }
            round += 1;
            if number == 0 && Instant::now() > self.deadline {
                self.bus.stop.store(true, SeqCst);
            }
        }
        self.harvesting.fetch_sub(1, SeqCst);
    }

    /// Maps and unmaps next to the migrated memory, in its tables and in other ones, which the
    /// other side needs at the same moment.
    fn disturb(&self, side: u64) {
        let mut flusher = Flusher::new(self.bus, self.mem);
        let near = if side == 0 {
            self.scene.base() - 32 * K4
        } else {
            self.scene.base() + self.scene.len()
        };
        let far = (2 << 30) + (side << 21);
        let mut rounds = 0u64;

        while self.harvesting.load(SeqCst) > 0 {
            for (iova, len) in [(near, 32 * K4), (far, 1 << 21)] {
                let phys = if rounds % 2 == 0 { iova } else { iova + K4 };

                self.host.map(iova, phys, len, &mut flusher);
                assert_eq!(self.host.unmap(iova, len, &mut flusher), len);
            }
            rounds += 1;
            if rounds % 16 == 0 {
                flusher.flush();
            }
        }
        flusher.flush();
        assert!(rounds > 10, "the neighbours came to {rounds} rounds only");
    }
}

fn migrate<S: Spec>(scene: Scene) {
    let mem = HostMem::new(true);
    let config = HostTable::<S, &HostMem>::config(u64::MAX);
    // SAFETY: The memory that is migrated is mapped before there is another thread, and stays. Each
    // side of the neighbours has its own ranges.
    let host = unsafe { HostTable::<S, _>::new(&mem, config) };
    let bus = Bus::new(DEVICES, host.table.top());
    let pages = scene.len() / K4;
    let numbers = || (0..pages).map(|_| AtomicU64::new(0)).collect();
    let stage = Stage::<S> {
        scene,
        mem: &mem,
        host: &host,
        bus: &bus,
        source: numbers(),
        copy: numbers(),
        clock: AtomicU64::new(1),
        writes: AtomicU64::new(0),
        reports: AtomicU64::new(0),
        harvesting: AtomicUsize::new(scene.harvesters),
        deadline: Instant::now() + WORK,
    };

    stage.map();
    thread::scope(|scope| {
        let stage = &stage;
        let devices = (0..DEVICES).map(|number| scope.spawn(move || stage.write(number)));
        let mut threads: Vec<_> = devices.collect();

        threads.extend((0..scene.harvesters).map(|n| scope.spawn(move || stage.migrate(n))));
        if scene.neighbours {
            threads.extend((0..2).map(|side| scope.spawn(move || stage.disturb(side))));
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });

    let writes = stage.writes.load(SeqCst);
    let reports = stage.reports.load(SeqCst);
    let number = |memory: &[AtomicU64], page: u64| memory[page as usize].load(SeqCst);
    let lost: Vec<u64> = (0..pages)
        .filter(|page| number(&stage.source, *page) != number(&stage.copy, *page))
        .collect();

    println!("{writes} writes, {reports} pages reported");
    assert!(
        lost.is_empty(),
        "pages {lost:?} were written after their last report"
    );
    assert!(writes > 1000, "the devices wrote only {writes} times");
    assert!(reports > 1000, "only {reports} pages were reported");
    drop(stage);
    drop(host);
    assert_eq!(mem.live(), 0);
}

const SMALL: Scene = Scene {
    leaves: &[12],
    rows: 700,
    harvesters: 1,
    neighbours: false,
    ragged: false,
};

const LARGE: Scene = Scene {
    leaves: &[21],
    rows: 3,
    ragged: true,
    ..SMALL
};

/// Leaves of sixteen entries, and of one between them.
const NAPOT: Scene = Scene {
    leaves: &[
        16, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12,
    ],
    rows: 8,
    ragged: true,
    ..SMALL
};

/// The same with large entries.
const LARGE_NAPOT: Scene = Scene {
    leaves: &[25, 21],
    rows: 1,
    ragged: true,
    ..SMALL
};

/// Leaves of several entries, and of one between them.
const ROWS: Scene = Scene {
    leaves: &[16, 14, 13, 12, 12],
    rows: 16,
    ragged: true,
    ..SMALL
};

/// Rows of large entries.
const LARGE_ROWS: Scene = Scene {
    leaves: &[22, 21, 21],
    rows: 2,
    ragged: true,
    ..SMALL
};

/// The tests share the host, and each already has several threads.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs a scene if the format has all of its leaf sizes.
fn play<S: Spec>(scene: Scene) {
    let _guard = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(|error| error.into_inner());

    if scene.leaves.iter().all(|lg2| S::SIZES.contains(lg2)) {
        migrate::<S>(scene);
    }
}

macro_rules! scenes {
    ($($name:ident: $spec:ident,)* ; $($other:ident: $other_spec:ident,)*) => {
        $(scenes!(
            @one $name $spec;
            small_leaves SMALL,
            large_leaves_ragged_queries LARGE,
            neighbours_map_and_unmap Scene { neighbours: true, ..SMALL },
            two_migrations Scene { harvesters: 2, ..SMALL },
            everything_at_once Scene { neighbours: true, harvesters: 2, ragged: true, ..SMALL },
            rows_of_sixteen_entries NAPOT,
            large_rows_of_sixteen_entries LARGE_NAPOT,
            rows_of_entries ROWS,
            large_rows_ragged_queries LARGE_ROWS,
            rows_and_two_migrations Scene { harvesters: 2, ..ROWS },
            rows_and_everything_at_once Scene { neighbours: true, harvesters: 2, ..ROWS },
        );)*
    };
    (@one $format:ident $spec:ident; $($name:ident $scene:expr,)*) => {
        mod $format {
            use super::*;

            $(
                #[test]
                fn $name() {
                    play::<spec::$spec>($scene);
                }
            )*
        }
    };
}

iommu_pt_host::iommu_pt_for_each_format!(scenes);
