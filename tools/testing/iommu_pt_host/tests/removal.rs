// SPDX-License-Identifier: GPL-2.0

//! Threads that unmap and map the very range that others harvest.
//!
//! Freed tables stay in a graveyard, filled with words that a harvest would report: a harvest that
//! reads a freed table shows in its report and in its writes. An unmapped entry must not come back,
//! and writes of a device to another page are never lost.

use iommu_pt_host::{
    error::Result,
    memory::HostMem,
    pt::{
        DetachedTable,
        DirtySink,
        Format,
        Gather,
        Iova,
        Level,
        PhysAddr,
        Prot,
        Range,
        Table,
        TableMem,
        Walks, //
    },
    spec::{
        self,
        Spec, //
    },
    table::HostTable, //
};
use std::{
    ptr::NonNull,
    sync::{
        atomic::{
            AtomicBool,
            AtomicU64,
            Ordering::{
                Relaxed,
                SeqCst, //
            }, //
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
const G1: Iova = 1 << 30;

/// The range that is mapped and unmapped.
const MOVING: u64 = 2 * M2;

/// Where a freed table leads: no test maps it.
const NOWHERE: PhysAddr = 0xbad_b000_0000;

/// Memory that keeps tables after they are freed.
struct Graveyard<'m> {
    mem: &'m HostMem,
    /// The content of a freed table: a dirty leaf.
    poison: u64,
    dead: Mutex<Vec<NonNull<Table>>>,
}

// SAFETY: Tables are words that are only accessed as atomics.
unsafe impl Send for Graveyard<'_> {}
// SAFETY: As above.
unsafe impl Sync for Graveyard<'_> {}

impl Graveyard<'_> {
    /// Whether no thread has written to a table after it was freed; really frees them all.
    fn bury(&self) -> bool {
        let mut intact = true;

        for table in self.dead.lock().unwrap().drain(..) {
            let phys = self.mem.phys(table);

            intact &= (0..512).all(|slot| self.mem.word(phys, slot).load(Relaxed) == self.poison);
            // SAFETY: Nothing uses it any more.
            unsafe { self.mem.free(table) }
        }
        intact
    }
}

// SAFETY: All but the freeing, which comes later, is that of `HostMem`.
unsafe impl TableMem for &Graveyard<'_> {
    type Flags = ();

    fn alloc(&self, flags: ()) -> Result<NonNull<Table>> {
        self.mem.alloc(flags)
    }

    unsafe fn free(&self, table: NonNull<Table>) {
        let phys = self.mem.phys(table);

        for slot in 0..512 {
            self.mem.word(phys, slot).store(self.poison, Relaxed);
        }
        self.dead.lock().unwrap().push(table);
    }

    fn alloc_top(&self, lg2: u32, flags: ()) -> Result<NonNull<Table>> {
        self.mem.alloc_top(lg2, flags)
    }

    unsafe fn free_top(&self, top: NonNull<Table>, lg2: u32) {
        // SAFETY: The caller's promise is the same.
        unsafe { self.mem.free_top(top, lg2) }
    }

    fn phys(&self, table: NonNull<Table>) -> PhysAddr {
        self.mem.phys(table)
    }

    unsafe fn virt(&self, phys: PhysAddr) -> NonNull<Table> {
        // SAFETY: The caller's promise is the same.
        unsafe { self.mem.virt(phys) }
    }

    unsafe fn flush(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: The caller's promise is the same.
        unsafe { self.mem.flush(start, bytes) }
    }
}

/// Retires tables; there is no hardware to flush.
struct Retire<'w, 'm>(&'w Walks<&'w Graveyard<'m>>);

impl<'w, 'm> Gather<&'w Graveyard<'m>> for Retire<'w, 'm> {
    fn add_range(&mut self, _range: Range) {}

    fn queue_free(&mut self, table: DetachedTable<&'w Graveyard<'m>>) {
        // SAFETY: It is of this memory, and no hardware knows of it.
        unsafe { self.0.retire(table) }
    }
}

/// The reports: of the changing range, and of the other page.
#[derive(Default)]
struct Report {
    beside: bool,
    last: Option<Iova>,
    disordered: bool,
}

impl DirtySink for Report {
    fn record(&mut self, range: Range) {
        self.disordered |= self.last.is_some_and(|last| last >= range.first());
        self.last = Some(range.last());
        self.beside |= range.last() >= G1 + MOVING;
    }

    fn cleared(&mut self, _range: Range) {}

    fn split(&mut self, _range: Range) {}
}

/// Ends the harvests, also after a failure: otherwise a thread would wait for them for ever.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// How often the range is mapped and unmapped.
const ROUNDS: u64 = 3000;
const LIMIT: Duration = Duration::from_secs(50);

fn remove<S: Spec>(lg2s: &[u32]) {
    let mem = HostMem::new(true);
    let attrs = S::F::attrs(Prot::READ | Prot::WRITE).unwrap();
    let leaf = S::F::leaf(NOWHERE, K4.trailing_zeros(), Level::LEAF, attrs);
    let graves = Graveyard {
        mem: &mem,
        poison: S::written(leaf),
        dead: Mutex::default(),
    };
    let walks = Walks::new(&graves);
    let config = HostTable::<S, &Graveyard<'_>>::config(u64::MAX);
    // SAFETY: One thread maps, unmaps and writes; the others harvest by walks.
    let host = unsafe { HostTable::<S, _>::new(&graves, config) };
    let table = &host.table;
    let beside = G1 + MOVING + 5 * K4;
    let all = Range::new(G1, MOVING + M2).unwrap();
    let stop = AtomicBool::new(false);
    let (written, seen) = (AtomicU64::new(0), AtomicU64::new(0));
    let deadline = Instant::now() + LIMIT;
    let map = |iova, phys, len| host.map(iova, phys, len, &mut Retire(&walks));
    let unmap = |iova, len| assert_eq!(host.unmap(iova, len, &mut Retire(&walks)), len);
    let write = |iova| {
        // A harvest may run in between.
        while host.set_dirty(iova).is_err() {}
    };

    map(beside, 0, K4);
    thread::scope(|scope| {
        let (walks, stop, seen) = (&walks, &stop, &seen);
        let _stop = Stop(stop);

        for _ in 0..2 {
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    // SAFETY: Tables are freed by `Retire` only.
                    let walk = unsafe { walks.enter(all, table) }.unwrap();
                    let mut report = Report::default();

                    table
                        .read_and_clear_dirty(&walk, true, &mut report)
                        .unwrap();
                    table
                        .report_writable(&walk, &mut Report::default())
                        .unwrap();

                    let phys = table.iova_to_phys(&walk);

                    assert!(phys.is_none_or(|phys| phys < 16 * M2), "{phys:x?}");
                    assert!(!report.disordered, "reports are out of order");
                    seen.fetch_add(u64::from(report.beside), SeqCst);
                }
            });
        }
        for round in 0..ROUNDS {
            let lg2 = lg2s[round as usize % lg2s.len()];
            let step = 1u64 << lg2;

            // In reverse order, so that no leaf is larger.
            for at in (0..MOVING).step_by(step as usize) {
                map(G1 + at, MOVING - step - at, step);
            }
            for at in (0..MOVING).step_by((step * 3).max(8 * K4) as usize) {
                write(G1 + at);
            }
            // The device writes the other page again once the last write was reported.
            if seen.load(SeqCst) >= written.load(SeqCst) {
                written.fetch_add(1, SeqCst);
                write(beside);
            }
            unmap(G1, MOVING);
            for at in (0..MOVING).step_by(step as usize) {
                assert_eq!(host.translate(G1 + at), None, "{at:#x} came back");
            }
            if Instant::now() > deadline {
                break;
            }
        }
    });

    let mut report = Report::default();

    host.harvest(all, true, &mut report);

    let seen = seen.load(SeqCst) + u64::from(report.beside);

    // Two harvests may both have reported one write.
    assert!(seen >= written.load(SeqCst), "a write was lost");
    assert!(seen > 10, "only {seen} writes");
    assert!(walks.is_idle());
    drop(host);
    assert!(graves.bury(), "a table was written to after it was freed");
    assert_eq!(mem.live(), 0);
}

/// Pages, what takes a row of them, pages again, and a leaf of the level above.
fn sizes<S: Spec>() -> Vec<u32> {
    let rows = S::SIZES
        .iter()
        .copied()
        .filter(|lg2| (13..=16).contains(lg2));

    [12].into_iter().chain(rows).chain([12, 21]).collect()
}

macro_rules! tests {
    ($($name:ident: $spec:ident,)* ; $($other:ident: $other_spec:ident,)*) => {
        $(
            #[test]
            fn $name() {
                remove::<spec::$spec>(&sizes::<spec::$spec>());
            }
        )*
    };
}

iommu_pt_host::iommu_pt_for_each_format!(tests);
