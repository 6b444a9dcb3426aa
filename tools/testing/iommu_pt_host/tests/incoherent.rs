// SPDX-License-Identifier: GPL-2.0

//! Hardware that does not snoop sees only what was flushed.
//!
//! Each table has a shadow, which is what such hardware reads. It starts as garbage, and only a
//! flush copies words into it. After every operation the tree in the shadows must be the tree.

use iommu_pt_host::{
    error::Result,
    pt::{
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
        Exclusive,
        Format,
        Gather,
        PageTable,
        PhysAddr,
        Prot,
        Range,
        Table,
        TableMem,
        TABLE_BYTES, //
    },
};
use std::{
    collections::HashMap,
    ptr::NonNull,
    sync::Mutex, //
};

type Words = [u64; 512];

/// Memory with shadows.
struct Shadowed {
    mem: TestMem,
    shadows: Mutex<HashMap<PhysAddr, Box<Words>>>,
}

// SAFETY: All but the shadows is that of `TestMem`.
unsafe impl TableMem for &Shadowed {
    type Flags = ();

    fn alloc(&self, flags: ()) -> Result<NonNull<Table>> {
        let table = (&self.mem).alloc(flags)?;
        let garbage = Box::new([!0; 512]);

        self.shadows
            .lock()
            .unwrap()
            .insert(self.phys(table), garbage);
        Ok(table)
    }

    unsafe fn free(&self, table: NonNull<Table>) {
        self.shadows.lock().unwrap().remove(&self.phys(table));
        // SAFETY: The caller's promise is the same.
        unsafe { (&self.mem).free(table) }
    }

    fn phys(&self, table: NonNull<Table>) -> PhysAddr {
        (&self.mem).phys(table)
    }

    unsafe fn virt(&self, phys: PhysAddr) -> NonNull<Table> {
        // SAFETY: The caller's promise is the same.
        unsafe { (&self.mem).virt(phys) }
    }

    unsafe fn flush(&self, start: NonNull<u8>, bytes: usize) {
        let first = start.as_ptr() as usize;
        let offset = first % TABLE_BYTES;

        assert!(bytes > 0 && offset + bytes <= TABLE_BYTES);

        let table = NonNull::new((first - offset) as *mut Table).unwrap();
        let mut shadows = self.shadows.lock().unwrap();
        let shadow = shadows.get_mut(&self.phys(table)).expect("not a table");

        // Whole cache lines, as the processor does it.
        for word in offset / 64 * 8..(offset + bytes).div_ceil(64) * 8 {
            // SAFETY: A word of the table, which nobody writes meanwhile.
            shadow[word] = unsafe { table.cast::<u64>().add(word).read() };
        }
    }
}

struct Later<'m>(&'m Shadowed, Vec<DetachedTable<&'m Shadowed>>);

impl<'m> Gather<&'m Shadowed> for Later<'m> {
    fn add_range(&mut self, _range: Range) {}

    fn queue_free(&mut self, table: DetachedTable<&'m Shadowed>) {
        self.1.push(table);
    }
}

impl Later<'_> {
    fn flush(&mut self) {
        for table in self.1.drain(..) {
            // SAFETY: The test's hardware caches nothing.
            unsafe { table.free(&self.0) }
        }
    }
}

/// Checks the tree that the hardware sees against the one that the processor sees; returns how many
/// leaves there are.
fn compare<C: Case>(mem: &Shadowed, table: PhysAddr, level: u32) -> u64 {
    let shadow = mem.shadows.lock().unwrap()[&table].clone();
    let mut leaves = 0;

    for (index, word) in shadow.into_iter().enumerate() {
        // SAFETY: The tree is whole, and nobody writes to it meanwhile.
        let real = unsafe { mem.virt(table).cast::<u64>().add(index).read() };

        assert_eq!(word, real, "entry {index} at level {level}");
        if word & C::HARDWARE.present == 0 {
            continue;
        }
        if level == 0 || word & 1 << 7 != 0 {
            leaves += 1;
        } else {
            leaves += compare::<C>(mem, word & 0x000f_ffff_ffff_f000, level - 1);
        }
    }
    leaves
}

fn run<C: Case>() {
    let mem = Shadowed {
        mem: TestMem::new(),
        shadows: Mutex::default(),
    };
    let config = Config {
        coherent: false,
        ..TestTable::<C>::config(C::F::MIN_LEVELS)
    };
    let table = PageTable::<C::F, _>::new(&mem, config, ()).unwrap();
    let top = table.top();
    let level = u32::from(top.levels) - 1;
    let mut later = Later(&mem, Vec::new());
    let mut random = 1u64;
    let mut most = 0;

    for step in 0..3000u64 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);

        let pick = random >> 33;
        let place = [0, (1 << 30) - (1 << 21), (1 << 30) - (8 << 12)][(pick % 3) as usize];
        let iova = place + ((pick / 3 % 16) << if pick & 64 == 0 { 12 } else { 21 });
        let len = if pick & 128 == 0 {
            (pick / 256 % 24 + 1) << 12
        } else {
            (pick / 256 % 3 + 1) << 21
        };
        // SAFETY: One thread.
        let mut claim = unsafe { Exclusive::new(Range::new(iova, len).unwrap()) };

        if step % 3 == 0 {
            table.unmap(&mut claim, &mut later);
        } else {
            let phys = if pick & 2048 == 0 { iova } else { iova + 4096 };
            let _ = table.map(&mut claim, phys, Prot::READ, (), &mut later);
        }
        most = most.max(compare::<C>(&mem, top.phys, level));
        later.flush();
    }
    assert!(most > 100, "never more than {most} leaves");
    drop(table);
    assert_eq!(mem.mem.live(), 0);
}

#[test]
fn vtdss() {
    run::<cases::VtdSs>();
}

#[test]
fn x86_64() {
    run::<cases::X86_64>();
}
