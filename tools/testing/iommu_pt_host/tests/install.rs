// SPDX-License-Identifier: GPL-2.0

//! Two maps that need the same table at the same moment.
//!
//! The memory delays each allocation until the other map allocates too: then both maps have read
//! an empty entry, and both are about to link a table there.

use iommu_pt_host::{
    error::Result,
    pt::{
        tests::{
            memory::{
                TestMem,
                TestTable, //
            },
            spec::{
                self,
                Spec, //
            }, //
        },
        Config,
        DetachedTable,
        Exclusive,
        Gather,
        PageTable,
        PhysAddr,
        Prot,
        Range,
        Stable,
        Table,
        TableMem, //
    },
};
use std::{
    ptr::NonNull,
    sync::{
        atomic::{
            AtomicUsize,
            Ordering::SeqCst, //
        },
        Barrier, //
    },
    thread,
    time::{
        Duration,
        Instant, //
    },
};

/// Memory where allocations wait for each other.
struct Meeting {
    mem: TestMem,
    arrived: AtomicUsize,
    met: AtomicUsize,
}

// SAFETY: All but the waiting is that of `TestMem`.
unsafe impl TableMem for &Meeting {
    type Flags = bool;

    fn alloc(&self, wait: bool) -> Result<NonNull<Table>> {
        if wait {
            let number = self.arrived.fetch_add(1, SeqCst) + 1;
            let pair = number.div_ceil(2) * 2;
            // A late side finds a table and never allocates one.
            let deadline = Instant::now() + Duration::from_millis(100);

            while self.arrived.load(SeqCst) < pair && Instant::now() < deadline {
                thread::yield_now();
            }
            if self.arrived.load(SeqCst) >= pair {
                self.met.fetch_add(1, SeqCst);
            }
        }
        (&self.mem).alloc(())
    }

    unsafe fn free(&self, table: NonNull<Table>) {
        // SAFETY: The caller's promise is the same.
        unsafe { (&self.mem).free(table) }
    }

    fn alloc_top(&self, lg2: u32, _wait: bool) -> Result<NonNull<Table>> {
        (&self.mem).alloc_top(lg2, ())
    }

    unsafe fn free_top(&self, top: NonNull<Table>, lg2: u32) {
        // SAFETY: The caller's promise is the same.
        unsafe { (&self.mem).free_top(top, lg2) }
    }

    fn phys(&self, table: NonNull<Table>) -> PhysAddr {
        (&self.mem).phys(table)
    }

    unsafe fn virt(&self, phys: PhysAddr) -> NonNull<Table> {
        // SAFETY: The caller's promise is the same.
        unsafe { (&self.mem).virt(phys) }
    }

    unsafe fn flush(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: The caller's promise is the same.
        unsafe { (&self.mem).flush(start, bytes) }
    }
}

struct Nothing;

impl Gather<&Meeting> for Nothing {
    fn add_range(&mut self, _range: Range) {}

    fn queue_free(&mut self, _table: DetachedTable<&Meeting>) {
        panic!("nothing is there to be replaced");
    }
}

fn race<S: Spec>(coherent: bool) {
    let memory = Meeting {
        mem: TestMem::new(),
        arrived: AtomicUsize::new(0),
        met: AtomicUsize::new(0),
    };

    for _ in 0..20 {
        let config = Config {
            coherent,
            ..TestTable::<S>::config(S::MAX_LEVELS)
        };
        let table = PageTable::<S::F, _>::new(&memory, config, false).unwrap();
        let start = Barrier::new(2);
        let page = |side: u64| (5 << 30) + side * 4096;

        thread::scope(|scope| {
            for side in 0..2 {
                let (table, start) = (&table, &start);

                scope.spawn(move || {
                    let range = Range::new(page(side), 4096).unwrap();
                    // SAFETY: Each side has its own page.
                    let mut claim = unsafe { Exclusive::new(range, table) };

                    start.wait();

                    let phys = (side + 1) << 12;
                    let got = table.map(&mut claim, phys, Prot::READ, true, &mut Nothing);

                    assert_eq!(got, (4096, Ok(())));
                });
            }
        });

        for side in 0..2 {
            // SAFETY: The threads have ended.
            let claim = unsafe { Stable::at(page(side), &table) };

            assert_eq!(table.iova_to_phys(&claim), Some((side + 1) << 12));
        }
        // One table for each level, whichever side wins.
        assert_eq!(memory.mem.live(), u64::from(S::MAX_LEVELS));
        drop(table);
        assert_eq!(memory.mem.live(), 0);
    }
    assert!(memory.met.load(SeqCst) > 0, "no two ever met");
}

macro_rules! tests {
    ($($name:ident: $spec:ident,)* ; $($other:ident: $other_spec:ident,)*) => {
        $(
            mod $name {
                use super::*;

                #[test]
                fn coherent() {
                    race::<spec::$spec>(true);
                }

                #[test]
                fn incoherent() {
                    race::<spec::$spec>(false);
                }
            }
        )*
    };
}

iommu_pt_host::iommu_pt_for_each_format!(tests);
