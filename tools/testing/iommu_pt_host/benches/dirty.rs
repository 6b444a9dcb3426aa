// SPDX-License-Identifier: GPL-2.0

//! The cost of a harvest, a map and an unmap per entry, in user space.
//!
//! Only an estimate: it does not include the kernel's bitmap and the cost of its calls. Run
//! with `cargo bench`; `MIB=1024 cargo bench` for another size.

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
    Stable, //
};
use std::hint::black_box;
use timing::{
    best_and_median,
    time,
    Drain, //
};

const K4: u64 = 4096;
const REPEAT: usize = 15;

/// A bitmap with a bit for each page, set in runs.
struct Bitmap {
    bits: Vec<u64>,
    hull: (u64, u64),
}

impl DirtySink for Bitmap {
    #[inline(never)]
    fn record(&mut self, range: Range) {
        let (first, last) = (range.first() / K4, range.last() / K4);
        let (head, tail) = ((first / 64) as usize, (last / 64) as usize);
        let low = !0 << (first % 64);
        let high = !0 >> (63 - last % 64);

        if head == tail {
            self.bits[head] |= low & high;
        } else {
            self.bits[head] |= low;
            self.bits[head + 1..tail].fill(!0);
            self.bits[tail] |= high;
        }
    }

    #[inline]
    fn cleared(&mut self, range: Range) {
        self.hull.0 = self.hull.0.min(range.first());
        self.hull.1 = self.hull.1.max(range.last());
    }

    fn split(&mut self, _range: Range) {}
}

/// Whether a page, of as many as there are, is dirty.
type Pattern = fn(u64, u64) -> bool;

fn report(work: &str, entries: u64, times: Vec<f64>) {
    let (best, median) = best_and_median(times);
    let (best, median) = (best / entries as f64, median / entries as f64);

    println!("{work:<22} {median:7.2} ns an entry (best {best:.2})");
}

fn bench<S: Spec>(mib: u64) {
    let mem = TestMem::new();
    let config = Config {
        levels: 4,
        max_levels: 4,
        page_sizes: K4,
        input_lg2: 48,
        output_lg2: 52,
        coherent: true,
        marks: true,
        splits: false,
    };
    let table = PageTable::<S::F, _>::new(&mem, config, ()).unwrap();
    let mut drain = Drain(&mem, Vec::new());
    let len = mib << 20;
    let entries = len / K4;
    let range = Range::new(1 << 30, len).unwrap();
    let mut maps = Vec::new();
    let mut unmaps = Vec::new();

    println!("{}, {mib} MiB in {entries} leaves", S::F::NAME);
    for _ in 0..5 {
        // SAFETY: One thread.
        let mut claim = unsafe { Exclusive::new(range, &table) };

        maps.push(time(|| {
            let prot = Prot::READ | Prot::WRITE;
            let (done, result) = table.map(&mut claim, 0, prot, (), &mut drain);

            assert!(done == len && result.is_ok());
        }));
        unmaps.push(time(|| {
            assert_eq!(table.unmap(&mut claim, &mut drain), len);
        }));
        drain.flush();
    }
    report("map, one call", entries, maps);
    report("unmap, one call", entries, unmaps);

    for pages in [1u64, 256] {
        let mut maps = Vec::new();
        let mut unmaps = Vec::new();

        for _ in 0..5 {
            let mut each = |map: bool| {
                time(|| {
                    for at in 0..entries / pages {
                        let first = range.first() + at * pages * K4;
                        let range = Range::new(first, pages * K4).unwrap();
                        // SAFETY: One thread.
                        let mut claim = unsafe { Exclusive::new(range, &table) };

                        if map {
                            let prot = Prot::READ | Prot::WRITE;
                            let phys = at * pages * K4;
                            let got = table.map(&mut claim, phys, prot, (), &mut drain);

                            assert!(got.1.is_ok());
                        } else {
                            let got = table.unmap(&mut claim, &mut drain);

                            assert_eq!(got, pages * K4);
                        }
                    }
                })
            };

            maps.push(each(true));
            unmaps.push(each(false));
        }
        report(&format!("map {pages} pages"), entries, maps);
        report(&format!("unmap {pages} pages"), entries, unmaps);
    }

    // SAFETY: One thread.
    let mut claim = unsafe { Exclusive::new(range, &table) };

    table
        .map(&mut claim, 0, Prot::READ | Prot::WRITE, (), &mut drain)
        .1
        .unwrap();

    let plain: Vec<u64> = vec![1; entries as usize];

    report(
        "limit: OR of u64",
        entries,
        (0..REPEAT)
            .map(|_| {
                time(|| {
                    black_box(black_box(&plain).iter().fold(0, |any, word| any | word));
                })
            })
            .collect(),
    );

    let work: [(&str, Pattern); 5] = [
        ("clean", |_, _| false),
        ("1 % random", |page, _| hash(page) % 100 == 0),
        ("10 % in a run", |page, all| page < all / 10),
        ("50 % random", |page, _| hash(page) % 2 == 0),
        ("all dirty", |_, _| true),
    ];

    for (name, is_dirty) in work {
        let mut times = Vec::new();

        for _ in 0..REPEAT {
            for page in (0..entries).filter(|page| is_dirty(*page, entries)) {
                let iova = range.first() + page * K4;

                hardware::access::<S>(&mem, table.top(), iova, true).unwrap();
            }

            let mut bitmap = Bitmap {
                bits: vec![0; (range.last() / K4 / 64 + 1) as usize],
                hull: (u64::MAX, 0),
            };
            // SAFETY: One thread.
            let claim = unsafe { Stable::new(range, &table) };

            times.push(time(|| {
                table
                    .read_and_clear_dirty(&claim, true, &mut bitmap)
                    .unwrap();
            }));

            let found: u64 = bitmap
                .bits
                .iter()
                .map(|word| u64::from(word.count_ones()))
                .sum();
            let expected = (0..entries).filter(|page| is_dirty(*page, entries)).count();

            assert_eq!(found, expected as u64);
        }
        report(name, entries, times);
    }
}

fn hash(page: u64) -> u64 {
    (page + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

fn main() {
    let mib = std::env::var("MIB")
        .ok()
        .and_then(|mib| mib.parse().ok())
        .unwrap_or(64);

    bench::<spec::VtdSs>(mib);
    bench::<spec::X86_64>(mib);
}
