// SPDX-License-Identifier: GPL-2.0

//! The cost of leaves that change their size, in user space, and of queries where they do not.
//!
//! `cargo bench --bench split`. Times are medians. What is compared alternates in one run.

mod timing;

use iommu_pt_host::pt::{
    tests::{
        hardware,
        memory::TestMem,
        spec::{
            self,
            Spec, //
        }, //
    },
    Config,
    DirtySink,
    Exclusive,
    Format,
    PageTable,
    Prot,
    Range,
    Stable,
    Table,
    TableMem,
    Walks, //
};
use std::hint::black_box;
use timing::{
    best_and_median,
    time,
    Drain, //
};

const K4: u64 = 1 << 12;
const M2: u64 = 1 << 21;
const G1: u64 = 1 << 30;
const T1: u64 = 1 << 40;
const ENTRIES: u64 = 512;
const REPEAT: usize = 15;

/// Adds up what is reported.
#[derive(Default)]
struct Sum {
    bytes: u64,
}

impl DirtySink for Sum {
    #[inline(never)]
    fn record(&mut self, range: Range) {
        self.bytes += range.size();
    }

    fn cleared(&mut self, _range: Range) {}

    fn split(&mut self, _range: Range) {}
}

struct Machine<'m, S: Spec> {
    mem: &'m TestMem,
    table: PageTable<S::F, &'m TestMem>,
    drain: Drain<'m>,
}

impl<'m, S: Spec> Machine<'m, S> {
    fn new(mem: &'m TestMem, splits: bool) -> Self {
        let config = Config {
            levels: 4,
            max_levels: 4,
            page_sizes: K4 | M2 | G1,
            input_lg2: 48,
            output_lg2: 52,
            coherent: true,
            marks: true,
            splits,
        };

        Self {
            mem,
            table: PageTable::new(mem, config, ()).unwrap(),
            drain: Drain(mem, Vec::new()),
        }
    }

    /// Maps leaves of `size` bytes: each has a target that lies beside those of its neighbours.
    fn map(&mut self, bytes: u64, size: u64) {
        let prot = Prot::READ | Prot::WRITE;

        for iova in (0..bytes).step_by(size as usize) {
            let range = Range::new(iova, size).unwrap();
            // SAFETY: One thread.
            let mut claim = unsafe { Exclusive::new(range, &self.table) };
            let got = self
                .table
                .map(&mut claim, (iova * 2) % T1, prot, (), &mut self.drain);

            assert_eq!(got, (size, Ok(())));
        }
    }

    /// Maps leaves of 4 KiB in one call.
    fn map_all(&mut self, bytes: u64) {
        let range = Range::new(0, bytes).unwrap();
        let prot = Prot::READ | Prot::WRITE;
        // SAFETY: One thread.
        let mut claim = unsafe { Exclusive::new(range, &self.table) };
        // The target begins where no larger leaf can.
        let got = self.table.map(&mut claim, K4, prot, (), &mut self.drain);

        assert_eq!(got, (bytes, Ok(())));
    }

    fn split(&mut self, bytes: u64, lg2: u32) -> f64 {
        // SAFETY: One thread.
        let claim = unsafe { Stable::new(Range::new(0, bytes).unwrap(), &self.table) };

        time(|| {
            let (flush, result) = self.table.split(&claim, lg2, (), || true);

            assert!(flush.is_some() && result.is_ok());
        })
    }

    fn join(&mut self, bytes: u64) -> f64 {
        let walks = Walks::new(self.mem);
        // SAFETY: One thread, and no walks.
        let (mut claim, pause) = unsafe {
            (
                Exclusive::new(Range::new(0, bytes).unwrap(), &self.table),
                walks.pause(&self.table).unwrap(),
            )
        };
        let spent = time(|| {
            let joined = self.table.join(&mut claim, &pause, &mut self.drain);

            assert!(joined.unwrap() > 0);
        });

        self.drain.flush();
        spent
    }

    fn harvest(&mut self, bytes: u64, expected: u64) -> f64 {
        // SAFETY: One thread.
        let claim = unsafe { Stable::new(Range::new(0, bytes).unwrap(), &self.table) };
        let mut sum = Sum::default();
        let spent = time(|| {
            self.table
                .read_and_clear_dirty(&claim, true, &mut sum)
                .unwrap();
        });

        assert_eq!(sum.bytes, expected);
        spent
    }

    fn write(&self, iova: u64) {
        hardware::access::<S>(self.mem, self.table.top(), iova, true).unwrap();
    }
}

/// As many tables as leaves are split into, allocated, written and freed.
fn plain_tables(mem: &TestMem, count: u64) -> f64 {
    let mut tables = Vec::new();
    let spent = time(|| {
        for _ in 0..count {
            let table = (&mem).alloc(()).unwrap();
            // SAFETY: The table is ours, and has that many words.
            let words = unsafe {
                core::slice::from_raw_parts_mut(table.cast::<u64>().as_ptr(), ENTRIES as usize)
            };

            for (at, word) in words.iter_mut().enumerate() {
                *word = black_box(at as u64);
            }
            tables.push(table);
        }
    });

    for table in tables {
        // SAFETY: Nothing else has the table, which came from this memory.
        unsafe { (&mem).free(table) }
    }
    spent
}

/// The least that a query of so many entries takes.
fn read(words: &[u64]) -> f64 {
    time(|| {
        black_box(black_box(words).iter().fold(0, |any, word| any | word));
    })
}

/// Memory for so many tables, which the allocator keeps, since it has given out what is behind.
fn warm(mem: &TestMem, count: u64) -> Vec<u8> {
    plain_tables(mem, count);

    let tables: Vec<_> = (0..count).map(|_| (&mem).alloc(()).unwrap()).collect();
    let behind = vec![1; 4096];

    for table in tables {
        // SAFETY: Nothing else has the table, which came from this memory.
        unsafe { (&mem).free(table) }
    }
    behind
}

/// Splits and joins, for each leaf, beside writing as many tables.
fn shapes<S: Spec>() {
    let mem = TestMem::new();
    let mut machine = Machine::<S>::new(&mem, true);
    let (small, large) = (G1, 256 * G1);
    let count = (small / M2, large / G1);
    let mut times = [const { Vec::new() }; 6];

    machine.map(small, M2);

    let behind = warm(&mem, count.0);

    for _ in 0..REPEAT {
        times[0].push(plain_tables(&mem, count.0) / count.0 as f64);
        times[1].push(machine.split(small, 12) / count.0 as f64);
        times[2].push(machine.join(small) / count.0 as f64);
    }

    let mem = TestMem::new();
    let mut machine = Machine::<S>::new(&mem, true);

    machine.map(large, G1);

    let _behind = (behind, warm(&mem, count.1));

    for _ in 0..REPEAT {
        times[3].push(plain_tables(&mem, count.1) / count.1 as f64);
        times[4].push(machine.split(large, 21) / count.1 as f64);
        times[5].push(machine.join(large) / count.1 as f64);
    }

    let medians = times.map(|times| best_and_median(times).1);

    for (name, at, plain) in [
        ("split of 2 MiB", 1, 0),
        ("join to 2 MiB", 2, 0),
        ("split of 1 GiB", 4, 3),
        ("join to 1 GiB", 5, 3),
    ] {
        println!(
            "  {name:<34} {:8.0} ns, {:.2} of a table that is written",
            medians[at],
            medians[at] / medians[plain]
        );
    }
}

/// Queries of 1 TiB in leaves of 2 MiB.
fn terabyte<S: Spec>() {
    let mem = TestMem::new();
    let (mut plain, mut splits) = (
        Machine::<S>::new(&mem, false),
        Machine::<S>::new(&mem, true),
    );
    let words = vec![1u64; (T1 / M2) as usize];
    let mut times = [const { Vec::new() }; 4];

    for machine in [&mut plain, &mut splits] {
        machine.map(T1, M2);
        machine.harvest(T1, 0);
    }
    for _ in 0..REPEAT {
        times[0].push(plain.harvest(T1, 0));
        times[1].push(splits.harvest(T1, 0));
        times[3].push(read(&words));
    }

    // One leaf in a hundred.
    let pieces: Vec<u64> = (0..T1).step_by(100 * M2 as usize).collect();

    for iova in &pieces {
        // SAFETY: One thread.
        let claim = unsafe { Stable::new(Range::new(*iova, K4).unwrap(), &splits.table) };

        splits.table.split(&claim, 12, (), || true).1.unwrap();
    }
    splits.harvest(T1, 0);
    for _ in 0..REPEAT {
        times[2].push(splits.harvest(T1, 0));
    }
    for iova in &pieces {
        splits.write(iova + 5 * K4);
    }
    splits.harvest(T1, pieces.len() as u64 * K4);

    let [plain, whole, split, limit] = times.map(|times| best_and_median(times).1 / 1e6);

    println!("  1 TiB in 2 MiB leaves, clean        {plain:8.3} ms in a tree that splits nothing");
    println!("                                      {whole:8.3} ms in one that may, unsplit");
    println!("                                      {split:8.3} ms with 1 % of the leaves split");
    println!("                                      {limit:8.3} ms to read as much memory");
}

/// Queries of 1 TiB in leaves of 4 KiB, by one thread and by two, beside as much memory.
fn small_leaves<S: Spec>() {
    let mem = TestMem::new();
    let mut machine = Machine::<S>::new(&mem, false);
    let plain = vec![1u64; (T1 / K4) as usize];
    let mut times = [const { Vec::new() }; 3];

    machine.map_all(T1);
    for _ in 0..5 {
        times[0].push(read(&plain));
        times[1].push(machine.harvest(T1, 0));
        times[2].push(time(|| {
            std::thread::scope(|scope| {
                for half in [0, T1 / 2] {
                    let table = &machine.table;

                    scope.spawn(move || {
                        let range = Range::new(half, T1 / 2).unwrap();
                        // SAFETY: Queries change nothing that another one relies on.
                        let claim = unsafe { Stable::new(range, table) };
                        let mut sum = Sum::default();

                        table.read_and_clear_dirty(&claim, true, &mut sum).unwrap();
                        assert_eq!(sum.bytes, 0);
                    });
                }
            });
        }));
    }

    let [limit, one, two] = times.map(|times| best_and_median(times).1 / 1e6);

    println!("  1 TiB in 4 KiB leaves, clean        {one:8.0} ms");
    println!("                                      {two:8.0} ms by two threads");
    println!("                                      {limit:8.0} ms to read as much memory");
}

/// The pages that queries of one GiB report, in leaves of `size` bytes. Before each query there are
/// 64 writes: to the same pages each time, or to any.
fn rounds<S: Spec>(size: u64, splits: bool, same: bool) -> [u64; 6] {
    let mem = TestMem::new();
    let mut machine = Machine::<S>::new(&mem, splits);
    let mut number = 0u64;

    machine.map(G1, size);
    [(); 6].map(|()| {
        if same {
            number = 0;
        }
        for _ in 0..64 {
            // Each number below `1 << 18` comes once.
            let page = number.wrapping_mul(0x9e37_79b9) % (G1 / K4);

            machine.write(page * K4);
            number += 1;
        }

        // SAFETY: One thread.
        let claim = unsafe { Stable::new(Range::new(0, G1).unwrap(), &machine.table) };
        let mut sum = Sum::default();
        let harvested = if splits {
            machine.table.read_and_split_dirty(&claim, (), &mut sum)
        } else {
            machine.table.read_and_clear_dirty(&claim, true, &mut sum)
        };

        assert_eq!(harvested, Ok(()));
        sum.bytes / K4
    })
}

fn bench<S: Spec>() {
    println!("{}", S::F::NAME);
    shapes::<S>();
    terabyte::<S>();
    small_leaves::<S>();
    println!("  pages that six queries of 1 GiB report, 64 writes before each");
    for (same, to) in [(true, "to the same pages"), (false, "to any pages")] {
        for (size, name) in [(K4, "4 KiB"), (M2, "2 MiB"), (G1, "1 GiB")] {
            for (splits, how) in [(false, ""), (true, ", split")] {
                let row = rounds::<S>(size, splits, same).map(|pages| format!("{pages:>7}"));

                println!("  {:<34}{}", format!("{to}, {name}{how}"), row.concat());
            }
        }
    }
}

fn main() {
    const { assert!(size_of::<Table>() == 4096) };
    bench::<spec::VtdSs>();
    bench::<spec::AmdV1>();
    bench::<spec::X86_64>();
}
