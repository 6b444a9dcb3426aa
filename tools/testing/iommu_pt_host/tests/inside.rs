// SPDX-License-Identifier: GPL-2.0

//! A large leaf maps memory that looks like tables: nobody goes below the leaf, whatever is asked for.

use iommu_pt_host::{
    memory::HostMem,
    pt::{
        Config,
        DetachedTable,
        DirtySink,
        Exclusive,
        Gather,
        PageTable,
        Prot,
        Range,
        Stable, //
    },
    spec::{
        self,
        Spec, //
    }, //
};
use std::alloc::{
    alloc_zeroed,
    dealloc,
    Layout, //
};

const K4: u64 = 1 << 12;
const M2: u64 = 1 << 21;
const G1: u64 = 1 << 30;

/// Memory of 2 MiB, aligned to that.
struct Memory(*mut u64);

impl Memory {
    const LAYOUT: Layout = match Layout::from_size_align(M2 as usize, M2 as usize) {
        Ok(layout) => layout,
        Err(_) => panic!(),
    };

    fn new() -> Self {
        // SAFETY: The size is not zero.
        let words = unsafe { alloc_zeroed(Self::LAYOUT) };

        assert!(!words.is_null());
        Self(words.cast())
    }

    fn words(&mut self) -> &mut [u64] {
        // SAFETY: It is there, and zeroed at first; the page tables are not supposed to touch it.
        unsafe { std::slice::from_raw_parts_mut(self.0, M2 as usize / 8) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: It came from `alloc_zeroed()`.
        unsafe { dealloc(self.0.cast(), Self::LAYOUT) }
    }
}

/// Nothing may be freed.
struct Never;

impl<'m> Gather<&'m HostMem> for Never {
    fn add_range(&mut self, _range: Range) {}

    fn queue_free(&mut self, _table: DetachedTable<&'m HostMem>) {
        panic!("what a leaf maps was taken for a table");
    }
}

#[derive(Default)]
struct Runs(Vec<Range>);

impl DirtySink for Runs {
    fn record(&mut self, range: Range) {
        self.0.push(range);
    }

    fn cleared(&mut self, _range: Range) {}
}

fn look_inside<S: Spec>() {
    let mem = HostMem::new(true);
    let config = Config {
        levels: 4,
        max_levels: 4,
        page_sizes: K4 | M2,
        input_lg2: 64,
        output_lg2: 64,
        coherent: true,
        skip_levels: false,
    };
    let table = PageTable::<S::F, _>::new(&mem, config, ()).unwrap();
    let mut memory = Memory::new();
    let phys = memory.0 as usize as u64;
    let map = |iova: u64, phys: u64, len: u64| {
        // SAFETY: One thread.
        let mut claim = unsafe { Exclusive::new(Range::new(iova, len).unwrap(), &table) };
        let prot = Prot::READ | Prot::WRITE;

        assert_eq!(
            table.map(&mut claim, phys, prot, (), &mut Never),
            (len, Ok(()))
        );
    };

    // Real tables elsewhere, whose words are what the memory is full of: they lead to live tables and to
    // dirty leaves.
    map(G1, 3 * G1 + K4, M2);
    // SAFETY: One thread.
    let page = unsafe { Stable::at(G1 + K4, &table) };

    table.tree().set_dirty(&page).unwrap();

    let mut words = Vec::new();
    let tables = iommu_pt_host::reader::read::<S>(&mem, table.top(), |_, _| ());

    for table in tables.keys() {
        words.extend((0..512).map(|slot| {
            mem.word(*table, slot)
                .load(std::sync::atomic::Ordering::Relaxed)
        }));
    }
    words.retain(|word| *word != 0);
    for (word, plausible) in memory.words().iter_mut().zip(words.iter().cycle()) {
        *word = *plausible;
    }

    let before = memory.words().to_vec();
    let iova = 2 * G1;

    map(iova, phys, M2);

    let live = mem.live();

    for (at, len) in [(K4, K4), (K4, M2 - K4), (M2 / 2, M2 / 2), (M2 - K4, K4)] {
        let range = Range::new(iova + at, len).unwrap();
        // SAFETY: One thread.
        let mut claim = unsafe { Exclusive::new(range, &table) };
        let mut runs = Runs::default();

        assert_eq!(table.unmap(&mut claim, &mut Never), 0);
        assert_eq!(table.iova_to_phys(&claim), Some(phys + at));
        table.read_and_clear_dirty(&claim, true, &mut runs).unwrap();
        assert!(runs.0.is_empty());
        table.report_writable(&claim, &mut runs).unwrap();
        assert_eq!(runs.0, [range]);

        let prot = Prot::READ | Prot::WRITE;

        assert!(table.map(&mut claim, 0, prot, (), &mut Never).1.is_err());
    }

    // SAFETY: One thread.
    let mut claim = unsafe { Exclusive::new(Range::new(iova, K4).unwrap(), &table) };

    assert_eq!(table.unmap(&mut claim, &mut Never), M2);
    assert_eq!(mem.live(), live);
    assert!(memory.words() == before);
    drop(table);
    assert_eq!(mem.live(), 0);
    assert!(memory.words() == before);
}

#[test]
fn vtdss() {
    look_inside::<spec::VtdSs>();
}

#[test]
fn x86_64() {
    look_inside::<spec::X86_64>();
}

#[test]
fn amdv1() {
    look_inside::<spec::AmdV1>();
}
