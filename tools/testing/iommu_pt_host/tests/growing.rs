// SPDX-License-Identifier: GPL-2.0

//! A top that grows while devices, harvests and maps use the tree, and several maps need it at the
//! same moment.

use iommu_pt_host::{
    device::{
        Bus,
        Device,
        Flusher, //
    },
    memory::HostMem,
    model::Model,
    pt::{
        Config,
        Iova,
        Prot,
        Range, //
    },
    reader::{
        self,
        Fault, //
    },
    spec::{
        self,
        mask,
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
        Barrier, //
    },
    thread,
};

const PAGES: u64 = 64;
const PAGE: u64 = 1 << 12;

/// How often a tree grows from its fewest levels to its most.
const TREES: usize = 60;

/// Makes one tree grow; returns the number of tops that lost the race, and of writes.
fn grow<S: Spec>(number: usize) -> (u64, u64) {
    let (fewest, most) = S::LEVELS;
    let mem = HostMem::new(true);
    let config = Config {
        levels: fewest,
        max_levels: most,
        ..HostTable::<S, &HostMem>::config(1 << S::PAGE_LG2)
    };
    // SAFETY: The memory that is migrated is mapped before there is another thread, and stays. Each
    // thread that maps has its own addresses.
    let host = unsafe { HostTable::<S, _>::new(&mem, config) };
    let table = &host.table;
    let bus = Bus::new(1, table.top());
    let source: Vec<AtomicU64> = (0..PAGES).map(|_| AtomicU64::new(0)).collect();
    let copy: Vec<AtomicU64> = (0..PAGES).map(|_| AtomicU64::new(0)).collect();
    let mapping = AtomicUsize::new(2);
    let harvesting = AtomicUsize::new(1);
    let late = AtomicU64::new(0);
    let writes = AtomicU64::new(0);
    let start = Barrier::new(4);
    // In the range of the first top, mapped during the whole test.
    host.map(0, 0, PAGES * PAGE, &mut Flusher::new(&bus, &mem));

    // A page beyond each top, for each side.
    let beyond = |levels: u8, side: u64| -> Iova {
        (1 << (S::item_lg2(u32::from(levels) - 1) + 9)) + (side << 14)
    };

    thread::scope(|scope| {
        let (host, mem, bus, start) = (&host, &mem, &bus, &start);
        let (source, copy, late, writes) = (&source, &copy, &late, &writes);
        let (mapping, harvesting) = (&mapping, &harvesting);
        let mut threads = Vec::new();

        for side in 0..2 {
            threads.push(scope.spawn(move || {
                let mut flusher = Flusher::new(bus, mem);

                start.wait();
                for levels in fewest..most {
                    let iova = beyond(levels, side);

                    host.map(iova, PAGE * (side + 1), PAGE, &mut flusher);

                    // From now on the hardware must see the mapping.
                    let top = bus.top();
                    let found = reader::access::<S>(mem, top, iova, true, 0).unwrap();

                    assert_eq!(found.phys, PAGE * (side + 1));
                    if number % 2 == 1 {
                        assert_eq!(host.unmap(iova, PAGE, &mut flusher), PAGE);
                        flusher.flush();
                        assert_eq!(
                            reader::access::<S>(mem, bus.top(), iova, true, 0),
                            Err(Fault::NotMapped)
                        );
                    }
                }
                late.fetch_add(flusher.tops.1, SeqCst);
                flusher.flush();
                mapping.fetch_sub(1, SeqCst);
            }));
        }
        threads.push(scope.spawn(move || {
            let mut device = Device::new(0, bus, mem);
            let mut value = 0;

            start.wait();
            while mapping.load(SeqCst) > 0 || value < 200 {
                device.obey();
                if device.random() % 8 == 0 {
                    device.look_at_top();
                }
                value += 1;

                let at = device.random() % (PAGES * PAGE);
                let target = device.write::<S>(at).unwrap() / PAGE;

                source[target as usize].fetch_max(value, SeqCst);
            }
            writes.fetch_add(value, SeqCst);
            bus.stop.store(true, SeqCst);
            while harvesting.load(SeqCst) > 0 {
                device.obey();
                thread::yield_now();
            }
        }));
        threads.push(scope.spawn(move || {
            start.wait();
            loop {
                let last = bus.stop.load(SeqCst);
                let mut sink = Runs::default();

                host.harvest(Range::new(0, PAGES * PAGE).unwrap(), true, &mut sink);
                assert_eq!(host.translate(0), Some(0));
                bus.flush();
                for run in &sink.0 {
                    for page in run.first() / PAGE..=run.last() / PAGE {
                        let value = source[page as usize].load(SeqCst);

                        copy[page as usize].fetch_max(value, SeqCst);
                    }
                }
                if last {
                    break;
                }
            }
            harvesting.fetch_sub(1, SeqCst);
        }));
        for thread in threads {
            thread.join().unwrap();
        }
    });

    for page in 0..PAGES as usize {
        assert_eq!(
            source[page].load(SeqCst),
            copy[page].load(SeqCst),
            "page {page}"
        );
    }
    assert_eq!(table.top(), bus.top());
    assert_eq!(table.top().levels, most);

    // Checks the whole tree once more, with the reader.
    let mut model = Model {
        leaves: Default::default(),
        sizes: vec![S::PAGE_LG2],
        apertures: spec::apertures::<S>(most, 64, false),
        output_last: mask(S::OUTPUT_LG2),
    };
    let mut expect = |iova: Iova, phys: u64, len: u64| {
        let got = model.map(
            (iova, iova + (len - 1)),
            phys,
            S::prot(Prot::READ | Prot::WRITE),
            u64::MAX,
        );

        assert_eq!(got, (len, Ok(())));
    };

    expect(0, 0, PAGES * PAGE);
    for levels in fewest..most {
        for side in 0..2 {
            if number % 2 == 0 {
                expect(beyond(levels, side), PAGE * (side + 1), PAGE);
            }
        }
    }

    let mut expected = model.leaves.iter();
    let tables = reader::read::<S>(&mem, table.top(), |iova, leaf| {
        let (at, model) = expected.next().unwrap();

        assert_eq!((iova, leaf.phys, leaf.lg2), (*at, model.phys, model.lg2));
    });

    assert!(expected.next().is_none());
    // A top that lost the race is freed.
    assert_eq!(mem.live(), tables.len());
    drop(host);
    assert_eq!(mem.live(), 0);
    (late.load(SeqCst), writes.load(SeqCst))
}

fn grow_often<S: Spec>() {
    let (mut late, mut writes) = (0, 0);

    for number in 0..TREES {
        let got = grow::<S>(number);

        late += got.0;
        writes += got.1;
    }
    println!("{late} tops came too late, {writes} writes");
    assert!(late > 0, "no two needed a top at the same moment");
}

#[test]
fn amdv1() {
    grow_often::<spec::AmdV1>();
}

#[test]
fn amdv1_mock() {
    grow_often::<spec::AmdV1Mock>();
}
