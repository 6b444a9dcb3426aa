// SPDX-License-Identifier: GPL-2.0

//! Harvests while a device writes, in every order. Checks what Documentation/driver-api/rust-iommu
//! (dirty.rst) says about the load and the exchange that clear D, and about the flush after them.

use iommu_pt_loom::{
    memory::Mem,
    pt::{
        fmt,
        Config,
        DirtySink,
        Exclusive,
        Format,
        Gather,
        PageTable,
        PhysAddr,
        Prot,
        Range,
        Stable, //
    }, //
};
use loom::{
    sync::{
        Arc,
        Mutex, //
    },
    thread, //
};

const K4: u64 = 4096;
const PAGES: usize = 3;

/// The hardware's cache of translations: for each page, whether a write found D set or has set it.
type Cache = [bool; PAGES];

struct Machine<F: Format> {
    mem: Mem,
    table: PageTable<F, Mem>,
    /// The table of the pages' leaves.
    leaves: PhysAddr,
    cache: Mutex<Cache>,
    /// The number of the last write of the device to each page.
    memory: Mutex<[u32; PAGES]>,
}

struct NoGather;

impl Gather<Mem> for NoGather {
    fn add_range(&mut self, _range: Range) {}

    fn queue_free(&mut self, _table: iommu_pt_loom::pt::DetachedTable<Mem>) {
        unreachable!()
    }
}

/// The report of a harvest.
#[derive(Default)]
struct Report {
    dirty: [bool; PAGES],
    cleared: Option<Range>,
}

fn pages(range: Range) -> std::ops::RangeInclusive<usize> {
    (range.first() / K4) as usize..=(range.last() / K4) as usize
}

impl DirtySink for Report {
    fn record(&mut self, range: Range) {
        self.dirty[pages(range)].fill(true);
    }

    fn cleared(&mut self, range: Range) {
        self.cleared = Some(range);
    }

    fn split(&mut self, _range: Range) {}
}

impl<F: Format> Machine<F> {
    fn new() -> Arc<Self> {
        let mem = Mem::default();
        let config = Config {
            levels: 4,
            max_levels: 4,
            page_sizes: K4,
            input_lg2: 47,
            output_lg2: 48,
            coherent: true,
            marks: true,
            splits: false,
        };
        let table = PageTable::<F, _>::new(mem.clone(), config, ()).unwrap();
        let size = K4 * PAGES as u64;
        // SAFETY: No other thread has the table yet.
        let mut claim = unsafe { Exclusive::new(Range::new(0, size).unwrap(), &table) };
        let prot = Prot::READ | Prot::WRITE;

        table
            .map(&mut claim, 1 << 32, prot, (), &mut NoGather)
            .1
            .unwrap();

        let mut leaves = table.top().phys;

        for number in (1..4).rev() {
            // SAFETY: The word is there.
            let word = unsafe { mem.word(leaves, 0).as_ptr().read_volatile() };
            let level = iommu_pt_loom::pt::Level::top_of(number + 1).unwrap();
            let iommu_pt_loom::pt::Entry::Table(below) = F::decode(word, level) else {
                unreachable!()
            };

            leaves = below;
        }
        Arc::new(Self {
            mem,
            table,
            leaves,
            cache: Mutex::default(),
            memory: Mutex::default(),
        })
    }

    /// A write of the device. A flush waits until the write is in memory; the lock of the cache
    /// models that.
    fn write(&self, page: usize, number: u32) {
        let mut cache = self.cache.lock().unwrap();

        if !cache[page] {
            let word = self.mem.word(self.leaves, page);

            loop {
                // SAFETY: The word is there.
                let old = unsafe { word.as_ptr().read_volatile() };
                let new = F::mark(old);

                if word
                    .cmpxchg(old, new, iommu_pt_loom::sync::atomic::Release)
                    .is_ok()
                {
                    break;
                }
            }
            cache[page] = true;
        }
        self.memory.lock().unwrap()[page] = number;
    }

    /// A round of a migration: harvest, flush, copy the reported pages.
    fn round(&self, copy: &mut [u32; PAGES]) {
        // SAFETY: Nothing is mapped or unmapped any more.
        let claim = unsafe { Stable::new(Range::new(0, K4 * PAGES as u64).unwrap(), &self.table) };
        let mut report = Report::default();

        self.table
            .read_and_clear_dirty(&claim, true, &mut report)
            .unwrap();
        if let Some(cleared) = report.cleared {
            self.cache.lock().unwrap()[pages(cleared)].fill(false);
        }

        let memory = self.memory.lock().unwrap();

        for page in 0..PAGES {
            if report.dirty[page] {
                copy[page] = memory[page];
            }
        }
    }
}

/// The device makes the writes of `writes`; after it has stopped and the last round is done, the
/// copy must be identical.
fn migrate<F: Format>(writes: &'static [usize]) {
    let mut builder = loom::model::Builder::new();

    builder.preemption_bound = Some(3);
    builder.check(move || {
        let machine = Machine::<F>::new();
        let device = machine.clone();
        let thread = thread::spawn(move || {
            for (before, page) in writes.iter().enumerate() {
                device.write(*page, before as u32 + 1);
            }
        });
        let mut copy = [0; PAGES];

        machine.round(&mut copy);
        machine.round(&mut copy);
        thread.join().unwrap();
        machine.round(&mut copy);
        assert_eq!(copy, *machine.memory.lock().unwrap());
    });
}

macro_rules! tests {
    ($($name:ident: $format:ident,)* ; $($other:ident: $other_format:ident,)*) => {
        $(
            mod $name {
                use super::*;

                #[test]
                fn a_page_is_written_again_and_again() {
                    migrate::<fmt::$format>(&[0, 0, 0]);
                }

                #[test]
                fn two_pages_are_written_in_turn() {
                    migrate::<fmt::$format>(&[0, 1, 0]);
                }

                /// The harvest reads the last page of a query alone, and those before it together.
                #[test]
                fn the_last_page_is_one_of_them() {
                    migrate::<fmt::$format>(&[1, 2, 1]);
                }
            }
        )*
    };
}

iommu_pt_loom::iommu_pt_for_each_format!(tests);
