// SPDX-License-Identifier: GPL-2.0

//! Memory for tables that checks how it is used.
//!
//! Each table is a separate allocation, which is really freed: AddressSanitizer detects a use after
//! free. Allocations fail on demand. An operation may free only what the same operation has
//! allocated: all else has to wait for the flush. For hardware that does not snoop each table has a
//! shadow, which starts as garbage and changes by flushes only.

use crate::{
    error::{
        code::ENOMEM,
        Result, //
    },
    pt::{
        PhysAddr,
        Table,
        TableMem,
        TABLE_BYTES, //
    },
    reader::View, //
};
use std::{
    alloc::{
        alloc_zeroed,
        dealloc,
        Layout, //
    },
    collections::HashMap,
    ptr::NonNull,
    sync::{
        atomic::{
            AtomicU64,
            Ordering::{
                Relaxed,
                SeqCst, //
            }, //
        },
        Mutex,
        MutexGuard, //
    }, //
};

/// The words of a table.
pub type Words = [u64; 512];

struct Entry {
    /// The operation that allocated it.
    born: u64,
    shadow: Option<Box<Words>>,
}

/// The memory.
pub struct HostMem {
    tables: Mutex<HashMap<PhysAddr, Entry>>,
    coherent: bool,
    left: AtomicU64,
    /// The number of the operation under way, or 0.
    operation: AtomicU64,
    operations: AtomicU64,
}

impl HostMem {
    /// Memory whose tables the hardware sees directly, or only as far as they were flushed.
    pub fn new(coherent: bool) -> Self {
        Self {
            tables: Mutex::default(),
            coherent,
            left: AtomicU64::new(u64::MAX),
            operation: AtomicU64::new(0),
            operations: AtomicU64::new(0),
        }
    }

    fn tables(&self) -> MutexGuard<'_, HashMap<PhysAddr, Entry>> {
        self.tables
            .lock()
            .unwrap_or_else(|error| error.into_inner())
    }

    /// The number of tables that were allocated and not freed.
    pub fn live(&self) -> usize {
        self.tables().len()
    }

    /// Whether there is a table at `table`.
    pub fn is_live(&self, table: PhysAddr) -> bool {
        self.tables().contains_key(&table)
    }

    /// Lets the next `tables` allocations succeed, and none after them.
    pub fn fail_after(&self, tables: u64) {
        self.left.store(tables, SeqCst);
    }

    /// Runs an operation, which may not free a table that existed before.
    pub fn operation<R>(&self, work: impl FnOnce() -> R) -> R {
        let number = self.operations.fetch_add(1, SeqCst) + 1;

        self.operation.store(number, SeqCst);

        let result = work();

        self.operation.store(0, SeqCst);
        result
    }

    /// The word of an entry, as snooping hardware accesses it.
    pub fn word(&self, table: PhysAddr, index: u64) -> &AtomicU64 {
        let word = (table as usize as *const u64).wrapping_add(index as usize);

        debug_assert!(index < 2048);
        // SAFETY: The caller has the address from an entry or from the top, so it is a table's,
        // whose words are only accessed as atomics.
        unsafe { AtomicU64::from_ptr(word.cast_mut()) }
    }

    /// What non-snooping hardware sees.
    pub fn shadows(&self) -> Shadows<'_> {
        Shadows(self)
    }
}

impl View for HostMem {
    fn words(&self, table: PhysAddr) -> Box<Words> {
        Box::new(std::array::from_fn(|index| {
            self.word(table, index as u64).load(Relaxed)
        }))
    }
}

/// The tables as far as they were flushed.
pub struct Shadows<'m>(&'m HostMem);

impl View for Shadows<'_> {
    fn words(&self, table: PhysAddr) -> Box<Words> {
        let tables = self.0.tables();
        let entry = tables.get(&table).expect("an entry leads to no table");

        entry
            .shadow
            .clone()
            .expect("coherent tables have no shadow")
    }
}

/// The layout of `1 << lg2` tables side by side, aligned to the size of them all.
fn layout(lg2: u32) -> Layout {
    Layout::from_size_align(TABLE_BYTES << lg2, TABLE_BYTES << lg2).unwrap()
}

impl HostMem {
    /// Allocates tables side by side, each of which counts as one.
    fn alloc_tables(&self, lg2: u32) -> Result<NonNull<Table>> {
        let take = |left| match left {
            u64::MAX => Some(u64::MAX),
            left => u64::checked_sub(left, 1),
        };

        if self.left.fetch_update(SeqCst, SeqCst, take).is_err() {
            return Err(ENOMEM);
        }

        // SAFETY: The size of a table is not zero.
        let first = unsafe { alloc_zeroed(layout(lg2)) }.cast::<Table>();

        for number in 0..1usize << lg2 {
            let entry = Entry {
                born: self.operation.load(SeqCst),
                shadow: (!self.coherent).then(|| Box::new([!0; 512])),
            };
            let phys = first.wrapping_add(number) as usize as u64;

            assert!(self.tables().insert(phys, entry).is_none());
        }
        NonNull::new(first).ok_or(ENOMEM)
    }

    /// Checks that tables side by side may be freed, and counts them no more.
    fn forget(&self, first: NonNull<Table>, lg2: u32) {
        let operation = self.operation.load(SeqCst);

        for number in 0..1usize << lg2 {
            let phys = first.as_ptr().wrapping_add(number) as usize as u64;
            let entry = self
                .tables()
                .remove(&phys)
                .expect("what is freed is no table");

            assert!(
                operation == 0 || entry.born == operation,
                "a table was freed before the flush"
            );
        }
    }
}

// SAFETY: Tables are zeroed allocations, of one table or of several side by side, aligned to the
// size of them all, which stay until they are freed; `phys` is the address itself, so `virt` has
// nothing to do but to turn it back. Whether an entry has room for it is checked where tables are
// allocated.
unsafe impl TableMem for &HostMem {
    type Flags = ();

    fn alloc(&self, _flags: ()) -> Result<NonNull<Table>> {
        self.alloc_tables(0)
    }

    unsafe fn free(&self, table: NonNull<Table>) {
        self.forget(table, 0);
        // SAFETY: It came from `alloc_zeroed()`, was not freed before, and by the contract of the
        // function nothing uses it.
        unsafe { dealloc(table.as_ptr().cast(), layout(0)) }
    }

    fn alloc_top(&self, lg2: u32, _flags: ()) -> Result<NonNull<Table>> {
        self.alloc_tables(lg2)
    }

    unsafe fn free_top(&self, top: NonNull<Table>, lg2: u32) {
        self.forget(top, lg2);
        // SAFETY: As in `free()`.
        unsafe { dealloc(top.as_ptr().cast(), layout(lg2)) }
    }

    fn phys(&self, table: NonNull<Table>) -> PhysAddr {
        table.as_ptr() as usize as u64
    }

    unsafe fn virt(&self, phys: PhysAddr) -> NonNull<Table> {
        // SAFETY: By the contract of the function, the address of a table.
        unsafe { NonNull::new_unchecked(phys as usize as *mut Table) }
    }

    unsafe fn flush(&self, start: NonNull<u8>, bytes: usize) {
        let first = start.as_ptr() as usize;
        let offset = first % TABLE_BYTES;

        assert!(!self.coherent, "a flush without need");
        assert!(bytes > 0 && offset + bytes <= TABLE_BYTES);

        let table = (first - offset) as u64;
        let mut tables = self.tables();
        let entry = tables.get_mut(&table).expect("what is flushed is no table");
        let shadow = entry
            .shadow
            .as_mut()
            .expect("incoherent tables have shadows");

        // Whole cache lines, as a CPU does.
        for word in offset / 64 * 8..(offset + bytes).div_ceil(64) * 8 {
            shadow[word] = self.word(table, word as u64).load(Relaxed);
        }
    }
}
