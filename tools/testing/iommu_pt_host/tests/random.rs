// SPDX-License-Identifier: GPL-2.0

//! Random operations against the model, and the raw tables against both.

mod common;

use common::{
    dump,
    prot_in,
    Model, //
};
use iommu_pt_host::pt::{
    tests::{
        cases,
        memory::{
            TestMem,
            TestTable, //
        },
        Case, //
    },
    Config,
    DetachedTable,
    DirtySink,
    Exclusive,
    Format,
    Gather,
    Iova,
    PhysAddr,
    Prot,
    Range,
    Stable, //
};
use proptest::{
    prelude::*,
    sample::select, //
};

/// An operation; addresses are made of a place and an offset in it.
#[derive(Clone, Debug)]
enum Op {
    Map {
        at: At,
        phys: PhysAddr,
        len: u64,
        prot: Prot,
    },
    Unmap {
        at: At,
        len: u64,
    },
    Write {
        at: At,
        count: u64,
        stride: u64,
    },
    Harvest {
        at: At,
        len: u64,
        clear: bool,
    },
    Translate {
        at: At,
    },
    Flush,
}

/// An address: a few places, so that operations meet, with offsets of all granularities.
#[derive(Clone, Copy, Debug)]
struct At {
    place: usize,
    offset: u64,
}

impl At {
    fn iova(self, last: Iova) -> Iova {
        let places = [
            0,
            1 << 30,
            (1 << 39) - (1 << 31),
            (last >> 1) & !0xfff,
            last - (1 << 31) + 1,
        ];

        (places[self.place] + self.offset).min(last & !0xfff)
    }
}

const K4: u64 = 1 << 12;
const M2: u64 = 1 << 21;
const G1: u64 = 1 << 30;

fn at() -> impl Strategy<Value = At> {
    let offset = prop_oneof![
        (0..1600u64).prop_map(|page| page * K4),
        (0..6u64).prop_map(|leaf| leaf * M2),
        (0..3u64).prop_map(|leaf| leaf * G1),
        (0..6u64, 0..3u64)
            .prop_map(|(leaf, pages)| (leaf * M2).wrapping_sub(pages * K4) % (2 * G1)),
    ];

    (0..5usize, offset).prop_map(|(place, offset)| At { place, offset })
}

fn len() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => Just(K4),
        3 => (1..700u64).prop_map(|pages| pages * K4),
        2 => (1..4u64).prop_map(|leaves| leaves * M2),
        1 => Just(G1),
        1 => Just(G1 + M2 + K4),
    ]
}

/// Output addresses: aligned like the input of most operations, so that large leaves come up.
fn phys(len: u64) -> BoxedStrategy<PhysAddr> {
    let aligned = (0..8u64).prop_map(|leaf| leaf * G1);

    if len > 4 * M2 {
        aligned.boxed()
    } else {
        prop_oneof![
            2 => aligned,
            1 => (0..2048u64).prop_map(|page| page * K4),
            1 => Just((1 << 52) - K4),
        ]
        .boxed()
    }
}

fn op() -> impl Strategy<Value = Op> {
    let prot = select(vec![
        Prot::READ,
        Prot::WRITE,
        Prot::READ | Prot::WRITE,
        Prot::READ | Prot::WRITE,
        Prot::READ | Prot::WRITE | Prot::SNOOP,
    ]);
    let map = (at(), len(), prot).prop_flat_map(|(at, len, prot)| {
        phys(len).prop_map(move |phys| Op::Map {
            at,
            phys,
            len,
            prot,
        })
    });
    let write = (at(), 1..200u64, 1..9u64).prop_map(|(at, count, stride)| Op::Write {
        at,
        count,
        stride: stride * K4 / 2,
    });
    let harvest =
        (at(), len(), any::<bool>(), 0..4096u64).prop_map(|(at, len, clear, odd)| Op::Harvest {
            at,
            // A query may end anywhere.
            len: if odd < 512 { len + odd } else { len },
            clear,
        });

    prop_oneof![
        6 => map,
        4 => (at(), len()).prop_map(|(at, len)| Op::Unmap { at, len }),
        5 => write,
        5 => harvest,
        2 => at().prop_map(|at| Op::Translate { at }),
        1 => Just(Op::Flush),
    ]
}

/// A gather with room for everything.
struct AnyGather<'m> {
    mem: &'m TestMem,
    ranges: Vec<Range>,
    tables: Vec<DetachedTable<&'m TestMem>>,
}

impl<'m> Gather<&'m TestMem> for AnyGather<'m> {
    fn add_range(&mut self, range: Range) {
        self.ranges.push(range);
    }

    fn queue_free(&mut self, table: DetachedTable<&'m TestMem>) {
        assert!(!self.ranges.is_empty(), "a table came before its range");
        self.tables.push(table);
    }
}

impl AnyGather<'_> {
    fn covers(&self, first: Iova, last: Iova) -> bool {
        self.ranges
            .iter()
            .any(|range| range.first() <= first && last <= range.last())
    }

    fn flush(&mut self) {
        for table in self.tables.drain(..) {
            // SAFETY: The test's hardware caches nothing.
            unsafe { table.free(&self.mem) }
        }
        self.ranges.clear();
    }
}

/// A sink with room for everything.
#[derive(Default)]
struct AnySink {
    runs: Vec<(Iova, Iova)>,
    cleared: Vec<(Iova, Iova)>,
}

impl DirtySink for AnySink {
    fn record(&mut self, range: Range) {
        self.runs.push((range.first(), range.last()));
    }

    fn cleared(&mut self, range: Range) {
        self.cleared.push((range.first(), range.last()));
    }
}

fn run<C: Case>(levels: u8, page_sizes: u64, ops: &[Op]) {
    let mem = TestMem::new();
    let config = Config {
        page_sizes,
        ..TestTable::<C>::config(levels)
    };
    let test = TestTable::<C>::with(&mem, config).unwrap();
    let table = &test.table;
    let last = table.aperture_last();
    let mut gather = AnyGather {
        mem: &mem,
        ranges: Vec::new(),
        tables: Vec::new(),
    };
    let mut model = Model {
        sizes: [12, 21, 30]
            .into_iter()
            .filter(|lg2| page_sizes & 1 << lg2 != 0)
            .collect(),
        last,
        ..Model::default()
    };

    for op in ops {
        match *op {
            Op::Map {
                at,
                phys,
                len,
                prot,
            } => {
                let iova = at.iova(last);
                // A leaf each 4 KiB of a gibibyte says nothing that one each 2 MiB doesn't.
                let largest = page_sizes.ilog2();
                let aligned = (iova ^ phys).trailing_zeros().min(largest) >= 21;
                let len = if aligned { len } else { len.min(4 * M2) };
                // SAFETY: One thread.
                let mut claim = unsafe { Exclusive::new(Range::new(iova, len).unwrap()) };
                let got = table.map(&mut claim, phys, prot, (), &mut gather);

                assert_eq!(
                    got,
                    model.map(iova, phys, len, prot_in::<C>(prot)),
                    "{op:?}"
                );
                if got.1.is_err() && got.0 > 0 {
                    // SAFETY: One thread.
                    let mut claim = unsafe { Exclusive::new(Range::new(iova, got.0).unwrap()) };

                    assert_eq!(table.unmap(&mut claim, &mut gather), got.0);
                    assert_eq!(model.unmap(iova, got.0), got.0);
                }
            }
            Op::Unmap { at, len } => {
                let iova = at.iova(last);
                // SAFETY: One thread.
                let mut claim = unsafe { Exclusive::new(Range::new(iova, len).unwrap()) };
                let got = table.unmap(&mut claim, &mut gather);

                assert_eq!(got, model.unmap(iova, len), "{op:?}");
                if got > 0 {
                    assert!(gather.covers(iova, iova + got - 1));
                }
            }
            Op::Write { at, count, stride } => {
                for step in 0..count {
                    let iova = (at.iova(last) + step * stride).min(last);

                    assert_eq!(test.access(iova, true).is_ok(), model.write(iova));
                }
            }
            Op::Harvest { at, len, clear } => {
                let first = at.iova(last);
                let end = (first + len - 1).min(last);
                // SAFETY: One thread.
                let claim = unsafe { Stable::new(Range::inclusive(first, end).unwrap()) };
                let mut sink = AnySink::default();
                let before: Vec<_> = model.leaves.iter().map(|(at, leaf)| (*at, *leaf)).collect();

                table
                    .read_and_clear_dirty(&claim, clear, &mut sink)
                    .unwrap();
                assert_eq!(sink.runs, model.harvest(first, end, clear), "{op:?}");
                // Each leaf that became clean is to be flushed, and nothing outside the query.
                for (iova, leaf) in before {
                    let now = model.leaves[&iova];
                    let told = sink
                        .cleared
                        .iter()
                        .any(|run| run.0 <= iova && iova + leaf.size() - 1 <= run.1);

                    assert_eq!(leaf.dirty && !now.dirty, told, "{op:?} at {iova:#x}");
                }
                assert!(sink
                    .cleared
                    .iter()
                    .all(|run| run.0 >= first && run.1 <= end));
            }
            Op::Translate { at } => {
                let iova = at.iova(last);
                // SAFETY: One thread.
                let claim = unsafe { Stable::at(iova) };

                assert_eq!(table.iova_to_phys(&claim), model.translate(iova));
            }
            Op::Flush => gather.flush(),
        }
    }

    let found = dump::<C>(&mem, table.top());

    assert_eq!(found.leaves, model.leaves);
    // No table is lost: each is reachable or waits for the flush.
    assert_eq!(mem.live(), found.tables + gather.tables.len() as u64);
    gather.flush();
    drop(test);
    assert_eq!(mem.live(), 0);
}

fn run_all_levels<C: Case>(page_sizes: u64, ops: &[Op]) {
    for levels in C::F::MIN_LEVELS..=C::F::MAX_LEVELS {
        run::<C>(levels, page_sizes, ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn vtdss(
        sizes in select(vec![0x1000, 0x20_1000, 0x4020_1000u64]),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        run_all_levels::<cases::VtdSs>(sizes, &ops);
    }

    #[test]
    fn x86_64(
        sizes in select(vec![0x1000, 0x20_1000, 0x4020_1000u64]),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        run_all_levels::<cases::X86_64>(sizes, &ops);
    }
}
