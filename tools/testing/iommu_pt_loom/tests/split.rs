// SPDX-License-Identifier: GPL-2.0

//! Leaves that are split and joined while a device writes, an unmap removes them and a harvest
//! reads them, in every order.
//!
//! The hardware caches the leaf and its parts at once. It notes a write through what it has cached
//! as clean late, in the entry that it remembers.

use iommu_pt_loom::{
    memory::Mem,
    pt::{
        fmt,
        Config,
        DetachedTable,
        DirtySink,
        Entry,
        Exclusive,
        Format,
        Gather,
        Level,
        PageTable,
        PhysAddr,
        Prot,
        Range,
        Walks, //
    },
    sync::atomic::Release, //
};
use loom::{
    sync::{
        Arc,
        Mutex, //
    },
    thread, //
};

const K4: u64 = 4096;
const M2: u64 = 512 * K4;
const PHYS: PhysAddr = 1 << 32;
const PAGES: usize = 2;

/// The hardware's cache: whether it has the leaf, or the part of each page, and as dirty.
#[derive(Default)]
struct Cache {
    leaf: Option<bool>,
    /// What it has read of the leaf.
    word: u64,
    parts: [Option<bool>; PAGES],
}

struct Machine<F: Format> {
    mem: Mem,
    table: PageTable<F, Mem>,
    walks: Walks<Mem>,
    cache: Mutex<Cache>,
    /// The number of the last write of the device to each page.
    memory: Mutex<[u32; PAGES]>,
}

/// The report of a harvest.
#[derive(Default)]
struct Report {
    dirty: [bool; PAGES],
    /// Whether there is something to flush.
    changed: bool,
}

impl DirtySink for Report {
    fn record(&mut self, range: Range) {
        for (page, dirty) in self.dirty.iter_mut().enumerate() {
            *dirty |= range.covers(&Range::at(page as u64 * K4));
        }
    }

    fn cleared(&mut self, _range: Range) {
        self.changed = true;
    }

    fn split(&mut self, _range: Range) {
        self.changed = true;
    }
}

/// Tables that wait for the flush.
#[derive(Default)]
struct Later(Vec<DetachedTable<Mem>>);

impl Gather<Mem> for Later {
    fn add_range(&mut self, _range: Range) {}

    fn queue_free(&mut self, table: DetachedTable<Mem>) {
        self.0.push(table);
    }
}

impl<F: Format> Machine<F> {
    /// One leaf of 2 MiB at address 0.
    fn new() -> Arc<Self> {
        let mem = Mem::default();
        let config = Config {
            levels: 4,
            max_levels: 4,
            page_sizes: K4 | M2,
            input_lg2: 47,
            output_lg2: 48,
            coherent: true,
            marks: true,
            splits: true,
        };
        let table = PageTable::<F, _>::new(mem.clone(), config, ()).unwrap();
        let machine = Self {
            walks: Walks::new(mem.clone()),
            mem,
            table,
            cache: Mutex::default(),
            memory: Mutex::default(),
        };
        let prot = Prot::READ | Prot::WRITE;
        let mapped = machine.table.map(
            &mut machine.exclusive(),
            PHYS,
            prot,
            (),
            &mut Later::default(),
        );

        assert_eq!(mapped, (M2, Ok(())));
        Arc::new(machine)
    }

    fn exclusive(&self) -> Exclusive {
        // SAFETY: Each test has one thread that maps, unmaps or joins.
        unsafe { Exclusive::new(Range::new(0, M2).unwrap(), &self.table) }
    }

    /// The table of the entry for the leaf, and that of its parts.
    fn tables(&self) -> (PhysAddr, Option<PhysAddr>) {
        let mut table = self.table.top().phys;

        for number in (2..4).rev() {
            let Entry::Table(below) = F::decode(self.load(table, 0), level(number)) else {
                unreachable!()
            };

            table = below;
        }
        match F::decode(self.load(table, 0), level(1)) {
            Entry::Table(parts) => (table, Some(parts)),
            _ => (table, None),
        }
    }

    fn load(&self, table: PhysAddr, slot: usize) -> u64 {
        // SAFETY: The word is there.
        unsafe { self.mem.word(table, slot).as_ptr().read_volatile() }
    }

    /// Sets the dirty bit of an entry as the hardware does; whether the word was as `to` asks for.
    fn note(&self, table: PhysAddr, slot: usize, to: impl Fn(u64) -> Option<u64>) -> bool {
        loop {
            let old = self.load(table, slot);
            let Some(new) = to(old) else {
                return false;
            };

            if self
                .mem
                .word(table, slot)
                .cmpxchg(old, new, Release)
                .is_ok()
            {
                return true;
            }
        }
    }

    /// The device reads the page: the hardware caches what maps it.
    fn read(&self, page: usize) {
        let mut cache = self.cache.lock().unwrap();
        let (table, parts) = self.tables();

        if parts.is_none() {
            cache.word = self.load(table, 0);
            cache.leaf = Some(is_dirty::<F>(cache.word));
        } else {
            cache.parts[page].get_or_insert(false);
        }
    }

    /// A write of the device. A flush waits until the write is in memory; the lock of the cache
    /// models that.
    fn write(&self, page: usize, number: u32) {
        let mut cache = self.cache.lock().unwrap();

        if cache.leaf == Some(false) {
            let (table, _) = self.tables();
            let (late, word) = (F::LATE_DIRT.unwrap(), cache.word);
            // Late, in the entry that was read.
            let noted = self.note(table, 0, |now| match F::decode(now, level(1)) {
                Entry::Table(_) if late != 0 => Some(now | late),
                Entry::Leaf { .. } if late != 0 || now == word => Some(F::mark(now)),
                _ => None,
            });

            cache.leaf = noted.then_some(true);
        }
        if cache.leaf.is_none() && cache.parts[page] != Some(true) {
            loop {
                let (table, parts) = self.tables();
                let is_leaf = |word, at| matches!(F::decode(word, at), Entry::Leaf { .. });

                if let Some(parts) = parts {
                    let mark = |word| is_leaf(word, level(0)).then(|| F::mark(word));

                    assert!(self.note(parts, page, mark));
                    cache.parts[page] = Some(true);
                    break;
                }
                if self.note(table, 0, |word| {
                    is_leaf(word, level(1)).then(|| F::mark(word))
                }) {
                    cache.leaf = Some(true);
                    break;
                }
            }
        }
        self.memory.lock().unwrap()[page] = number;
    }

    fn flush(&self) {
        *self.cache.lock().unwrap() = Cache::default();
    }

    /// A round of a migration on `pages` pages from the first on: harvest, flush, copy.
    fn round(&self, pages: u64, copy: &mut [u32; PAGES]) {
        let range = Range::new(0, pages * K4).unwrap();
        // SAFETY: Tables are freed by `join()` and `unmap()`, which ask `walks`.
        let walk = unsafe { self.walks.enter(range, &self.table) }.unwrap();
        let mut report = Report::default();

        self.table
            .read_and_split_dirty(&walk, (), &mut report)
            .unwrap();
        drop(walk);
        if report.changed {
            self.flush();
        }

        let memory = self.memory.lock().unwrap();

        for page in 0..PAGES {
            if report.dirty[page] {
                copy[page] = memory[page];
            }
        }
    }

    fn split(&self) {
        let range = Range::new(0, M2).unwrap();
        // SAFETY: As in `round()`.
        let walk = unsafe { self.walks.enter(range, &self.table) }.unwrap();
        let (split, result) = self.table.split(&walk, 12, (), || true);

        assert_eq!(result, Ok(()));
        if split.is_some() {
            self.flush();
        }
    }

    fn retire(&self, later: Later) {
        self.flush();
        for table in later.0 {
            // SAFETY: The hardware was flushed, and all walks are counted.
            unsafe { self.walks.retire(table) }
        }
    }

    /// Joins, unless there is a walk.
    fn join(&self) -> u64 {
        // SAFETY: As in `round()`, and `walks` has all walks.
        let Some(pause) = (unsafe { self.walks.pause(&self.table) }) else {
            return 0;
        };
        let mut later = Later::default();
        let joined = self
            .table
            .join(&mut self.exclusive(), &pause, &mut later)
            .unwrap();

        self.retire(later);
        joined
    }

    fn unmap(&self) {
        let mut later = Later::default();

        assert_eq!(self.table.unmap(&mut self.exclusive(), &mut later), M2);
        self.retire(later);
    }
}

fn level(number: u8) -> Level {
    Level::top_of(number + 1).unwrap()
}

fn is_dirty<F: Format>(word: u64) -> bool {
    F::dirt(word) & F::DIRTY != 0
}

/// A thread with room for a walk that splits, as code that is not optimised has it.
fn spawn(work: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    thread::Builder::new()
        .stack_size(1 << 16)
        .spawn(work)
        .unwrap()
}

fn model(bound: usize, test: impl Fn() + Copy + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();

    builder.preemption_bound = Some(bound);
    builder.check(move || spawn(test).join().unwrap());
}

/// The device makes the accesses of `writes` while `shape` runs; when it has stopped and the last
/// round is done, the copy must be identical.
fn migrate<F: Format>(
    writes: &'static [usize],
    shape: impl Fn(&Machine<F>, &mut [u32; PAGES]) + Copy + Sync + Send + 'static,
) {
    model(3, move || {
        let machine = Machine::<F>::new();
        let device = machine.clone();
        let mut copy = [0; PAGES];
        let thread = spawn(move || {
            device.read(0);
            for (before, page) in writes.iter().enumerate() {
                device.write(*page, before as u32 + 1);
            }
        });

        shape(&machine, &mut copy);
        thread.join().unwrap();
        machine.round(M2 / K4, &mut copy);
        assert_eq!(copy, *machine.memory.lock().unwrap());
    });
}

macro_rules! tests {
    ($($name:ident: $format:ident,)* ; $($other:ident: $other_format:ident,)*) => {
        $(
            mod $name {
                use super::*;

                type F = fmt::$format;

                fn can_split() -> bool {
                    F::LATE_DIRT.is_some()
                }

                #[test]
                fn harvests_split_what_is_written() {
                    if can_split() {
                        migrate::<F>(&[0, 1, 0], |machine, copy| {
                            machine.round(M2 / K4, copy);
                            machine.round(M2 / K4, copy);
                        });
                    }
                }

                #[test]
                fn a_query_cuts_the_leaf() {
                    if can_split() {
                        migrate::<F>(&[1, 0], |machine, copy| {
                            machine.round(1, copy);
                            machine.round(1, copy);
                        });
                    }
                }

                #[test]
                fn a_clean_leaf_is_split() {
                    if can_split() {
                        migrate::<F>(&[1, 0], |machine, copy| {
                            machine.split();
                            machine.round(M2 / K4, copy);
                        });
                    }
                }

                #[test]
                fn parts_are_joined() {
                    if can_split() {
                        migrate::<F>(&[0, 1], |machine, copy| {
                            machine.split();
                            machine.round(M2 / K4, copy);
                            assert_eq!(machine.join(), 1);
                        });
                    }
                }

                /// Whichever comes first: nothing is mapped in the end, and no table is left.
                #[test]
                fn a_leaf_is_unmapped_beside_a_split() {
                    if !can_split() {
                        return;
                    }
                    model(3, || {
                        let machine = Machine::<F>::new();
                        let other = machine.clone();
                        let live = machine.mem.live();

                        machine.write(0, 1);

                        let thread = spawn(move || other.unmap());

                        machine.round(M2 / K4, &mut [0; PAGES]);
                        thread.join().unwrap();

                        let (table, parts) = machine.tables();

                        assert_eq!(machine.load(table, 0), 0);
                        assert_eq!(parts, None);
                        assert!(machine.mem.live() <= live && machine.walks.is_idle());
                    });
                }

                /// One of them does without: then the harvest reports all.
                #[test]
                fn parts_are_joined_beside_a_harvest() {
                    if !can_split() {
                        return;
                    }
                    model(3, || {
                        let machine = Machine::<F>::new();
                        let other = machine.clone();
                        let live = machine.mem.live();

                        machine.split();
                        machine.write(0, 1);
                        spawn(move || assert!(other.join() < 2));

                        let range = Range::new(0, 2 * K4).unwrap();
                        let mut report = Report::default();

                        // SAFETY: As in `round()`.
                        match unsafe { machine.walks.enter(range, &machine.table) } {
                            Some(walk) => machine
                                .table
                                .read_and_clear_dirty(&walk, false, &mut report)
                                .unwrap(),
                            None => report.dirty.fill(true),
                        }
                        assert!(report.dirty[0]);
                        while machine.join() == 0 && machine.mem.live() != live {
                            thread::yield_now();
                        }
                        assert_eq!(machine.mem.live(), live);
                    });
                }
            }
        )*
    };
}

iommu_pt_loom::iommu_pt_for_each_format!(tests);
