// SPDX-License-Identifier: GPL-2.0

//! A large leaf maps memory that looks like tables: no operation may descend below the leaf.

use iommu_pt_host::{
    memory::HostMem,
    pt::{
        Exclusive,
        Prot,
        Range, //
    },
    reader,
    spec::{
        self,
        Spec, //
    },
    table::{
        HostTable,
        Never,
        Runs, //
    }, //
};
use std::{
    alloc::{
        alloc_zeroed,
        dealloc,
        Layout, //
    },
    sync::atomic::Ordering::Relaxed, //
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

fn look_inside<S: Spec>() {
    let mem = HostMem::new(true);
    // SAFETY: One thread.
    let host = unsafe { HostTable::<S, _>::new(&mem, HostTable::<S, &HostMem>::config(K4 | M2)) };
    let table = &host.table;
    let mut memory = Memory::new();
    let phys = memory.0 as usize as u64;

    // Real tables elsewhere. The memory is full of their words, which link to live tables and to
    // dirty leaves.
    host.map(G1, 3 * G1 + K4, M2, &mut Never);
    host.set_dirty(G1 + K4).unwrap();

    let mut words = Vec::new();

    for table in reader::tables::<S>(&mem, table.top()).keys() {
        words.extend((0..512).map(|slot| mem.word(*table, slot).load(Relaxed)));
    }
    words.retain(|word| *word != 0);
    for (word, plausible) in memory.words().iter_mut().zip(words.iter().cycle()) {
        *word = *plausible;
    }

    let before = memory.words().to_vec();
    let iova = 2 * G1;

    host.map(iova, phys, M2, &mut Never);

    let live = mem.live();

    for (at, len) in [(K4, K4), (K4, M2 - K4), (M2 / 2, M2 / 2), (M2 - K4, K4)] {
        let range = Range::new(iova + at, len).unwrap();
        let mut runs = Runs::default();

        assert_eq!(host.unmap(iova + at, len, &mut Never), 0);
        assert_eq!(host.translate(iova + at), Some(phys + at));
        host.harvest(range, true, &mut runs);
        assert!(runs.0.is_empty());
        host.writable(range, &mut runs);
        assert_eq!(runs.0, [range]);

        // SAFETY: One thread.
        let mut claim = unsafe { Exclusive::new(range, table) };
        let prot = Prot::READ | Prot::WRITE;

        assert!(table.map(&mut claim, 0, prot, (), &mut Never).1.is_err());
    }
    assert_eq!(host.unmap(iova, K4, &mut Never), M2);
    assert_eq!(mem.live(), live);
    assert!(memory.words() == before);
    drop(host);
    assert_eq!(mem.live(), 0);
    assert!(memory.words() == before);
}

macro_rules! tests {
    ($($name:ident: $spec:ident,)* ; $($other:ident: $other_spec:ident,)*) => {
        $(
            #[test]
            fn $name() {
                look_inside::<spec::$spec>();
            }
        )*
    };
}

iommu_pt_host::iommu_pt_for_each_format!(tests);
