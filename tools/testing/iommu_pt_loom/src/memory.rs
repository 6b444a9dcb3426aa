// SPDX-License-Identifier: GPL-2.0

//! Memory for tables of which loom tracks a few entries, and the hardware that walks them.

use crate::{
    error::Result,
    pt::{
        DetachedTable,
        Gather,
        NewTop,
        PhysAddr,
        Range,
        Table,
        TableMem,
        Walks,
        TABLE_ENTRIES, //
    },
    sync::atomic::Atomic, //
};
use std::{
    alloc::{
        alloc,
        dealloc,
        Layout, //
    },
    collections::{
        HashMap,
        HashSet, //
    },
    ptr::NonNull,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// The number of entries of a table that threads may meet in.
pub const USED: usize = 3;

/// The content of memory before it is zeroed. For VT-d, x86-64 and Arm above level 0, and for AMD
/// v1 at level 1, a link to a table that does not exist; for RISC-V a leaf that no test maps; for
/// AMD v1 at other levels a word that maps nothing and is not 0.
const GARBAGE: u64 = 0xdead_d000 | 0x207;

type Words = [Atomic<u64>; TABLE_ENTRIES];

/// Tables by address.
#[derive(Default)]
struct Tables {
    live: HashSet<PhysAddr>,
    /// The freed tables. Each holds garbage, so that a late thread reads garbage, and stays until
    /// the memory is dropped. With how many there are side by side.
    dead: Vec<(PhysAddr, usize)>,
}

impl Drop for Tables {
    fn drop(&mut self) {
        for (first, number) in &self.dead {
            let first = *first as usize as *mut Words;

            for number in 0..*number {
                let words = first.wrapping_add(number);

                for slot in 0..USED {
                    // SAFETY: The table is there until the end of this function.
                    let word = unsafe { (*words)[slot].as_ptr().read_volatile() };

                    assert!(
                        word == GARBAGE || std::thread::panicking(),
                        "a table was written to after it was freed"
                    );
                }
                // SAFETY: It came from `alloc_tables()`, and nothing uses it any more.
                unsafe { words.drop_in_place() }
            }
            // SAFETY: As above.
            unsafe { dealloc(first.cast(), layout(*number)) }
        }
    }
}

/// The memory. Loom does not track its bookkeeping.
#[derive(Clone, Default)]
pub struct Mem(Arc<Mutex<Tables>>);

impl Mem {
    /// The number of tables that were allocated and not freed.
    pub fn live(&self) -> usize {
        self.0.lock().unwrap().live.len()
    }

    /// The word of an entry, as the hardware sees it.
    pub fn word(&self, table: PhysAddr, slot: usize) -> &Atomic<u64> {
        self.check(table);
        // SAFETY: The table is there, and stays: tables are freed when a test says so.
        unsafe { &(*(table as usize as *const Words))[slot] }
    }

    fn check(&self, table: PhysAddr) {
        assert!(
            self.0.lock().unwrap().live.contains(&table),
            "{table:#x} is no table, or none any more"
        );
    }
}

/// The layout of so many tables side by side.
fn layout(number: usize) -> Layout {
    Layout::array::<Table>(number).unwrap()
}

impl Mem {
    /// Allocates tables side by side.
    fn alloc_tables(&self, number: usize) -> NonNull<Table> {
        // SAFETY: The size of a table is not zero.
        let first = NonNull::new(unsafe { alloc(layout(number)) }).unwrap();
        let first = first.cast::<Table>();

        for number in 0..number {
            let table = first.as_ptr().wrapping_add(number);
            let words = table.cast::<Atomic<u64>>();

            for slot in 0..TABLE_ENTRIES {
                let word = if slot < USED {
                    Atomic::new(GARBAGE)
                } else {
                    Atomic::untracked()
                };

                // SAFETY: The words of the table, which no other code has yet.
                unsafe { words.add(slot).write(word) }
            }
            self.0.lock().unwrap().live.insert(table as usize as u64);
            for slot in 0..USED {
                // A thread that finds the table but is not ordered after this store reads garbage.
                // SAFETY: The word is there.
                unsafe {
                    self.word(table as usize as u64, slot)
                        .as_ptr()
                        .write_volatile(0)
                }
            }
        }
        first
    }

    /// Takes tables side by side back.
    fn bury(&self, first: NonNull<Table>, number: usize) {
        for number in 0..number {
            let phys = first.as_ptr().wrapping_add(number) as usize as u64;

            for slot in 0..USED {
                // SAFETY: The word is there.
                unsafe { self.word(phys, slot).as_ptr().write_volatile(GARBAGE) }
            }
            assert!(self.0.lock().unwrap().live.remove(&phys), "freed twice");
        }
        self.0
            .lock()
            .unwrap()
            .dead
            .push((first.as_ptr() as usize as u64, number));
    }
}

// SAFETY: Tables are allocations with the layout of their type, which stay until they are freed;
// `phys` is the address itself, so `virt` has nothing to do but to turn it back.
unsafe impl TableMem for Mem {
    type Flags = ();

    fn alloc(&self, _flags: ()) -> Result<NonNull<Table>> {
        Ok(self.alloc_tables(1))
    }

    unsafe fn free(&self, table: NonNull<Table>) {
        self.bury(table, 1);
    }

    fn alloc_top(&self, lg2: u32, _flags: ()) -> Result<NonNull<Table>> {
        Ok(self.alloc_tables(1 << lg2))
    }

    unsafe fn free_top(&self, top: NonNull<Table>, lg2: u32) {
        self.bury(top, 1 << lg2);
    }

    fn phys(&self, table: NonNull<Table>) -> PhysAddr {
        table.as_ptr() as usize as u64
    }

    unsafe fn virt(&self, phys: PhysAddr) -> NonNull<Table> {
        self.check(phys);
        NonNull::new(phys as usize as *mut Table).unwrap()
    }

    unsafe fn flush(&self, _start: NonNull<u8>, _bytes: usize) {}
}

/// The hardware's cache: words that link to tables, by table and index.
pub type Links = HashMap<(PhysAddr, usize), u64>;

/// Gathers for hardware that gets new tops under a lock; dropping the gather flushes the
/// hardware.
pub struct Waiting<'m> {
    /// The memory.
    pub mem: &'m Mem,
    /// The lock of an operation that changes the top.
    pub top_lock: &'m loom::sync::Mutex<()>,
    /// The lock that the hardware holds while it uses a translation, and its cache.
    pub walking: &'m loom::sync::Mutex<Links>,
    /// The walks that must end before a table is freed.
    pub walks: &'m Walks<Mem>,
    tables: Vec<DetachedTable<Mem>>,
}

impl<'m> Waiting<'m> {
    /// Nothing waits.
    pub fn new(
        mem: &'m Mem,
        walks: &'m Walks<Mem>,
        top_lock: &'m loom::sync::Mutex<()>,
        walking: &'m loom::sync::Mutex<Links>,
    ) -> Self {
        Self {
            mem,
            walks,
            top_lock,
            walking,
            tables: Vec::new(),
        }
    }
}

impl Gather<Mem> for Waiting<'_> {
    fn add_range(&mut self, _range: Range) {}

    fn queue_free(&mut self, table: DetachedTable<Mem>) {
        self.tables.push(table);
    }

    fn change_top(&mut self, new: NewTop<'_>) {
        let _guard = self.top_lock.lock().unwrap();

        if new.is_current() {
            // SAFETY: The hardware looks at the top of the tree.
            unsafe { new.publish() };
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.tables.is_empty() {
            return;
        }
        // The flush: it ends all walks that were in progress.
        self.walking.lock().unwrap().clear();
        for table in self.tables.drain(..) {
            // SAFETY: Nothing leads to the table, and the hardware has forgotten it.
            unsafe { self.walks.retire(table) }
        }
    }
}
