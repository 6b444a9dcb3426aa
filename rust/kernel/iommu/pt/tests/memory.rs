// SPDX-License-Identifier: GPL-2.0

//! Tables in ordinary memory, a gather and a sink that remember, and a page table with all three.

use super::{
    super::{
        Config,
        DetachedTable,
        DirtySink,
        Exclusive,
        Gather,
        Iova,
        NewTop,
        PageTable,
        PhysAddr,
        Prot,
        Range,
        Stable,
        Table,
        TableMem,
        Top,
        Walks, //
    },
    hardware::{
        access,
        find, //
    },
    Spec, //
};
use core::ptr::NonNull;
use kernel::{
    alloc::{
        flags::GFP_KERNEL,
        KBox, //
    },
    error::{
        code::*,
        Result, //
    },
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// Memory for tables: counts them, and fails on demand.
pub struct TestMem {
    /// The address bits that no entry has room for. The same for all of the kernel's linear map.
    high: Atomic<u64>,
    /// Bits that the hardware's address of a table has as well.
    far: Atomic<u64>,
    live: Atomic<u64>,
    left: Atomic<u64>,
    flushed: Atomic<u64>,
}

/// The address bits that an entry of any format has room for.
const ADDRESS: u64 = 0x0000_7fff_ffff_f000;

/// The tables of a top that has four of them.
#[repr(C, align(16384))]
struct FourTables([Table; 4]);

impl TestMem {
    /// Memory that never fails.
    pub fn new() -> Self {
        Self {
            high: Atomic::new(0),
            far: Atomic::new(0),
            live: Atomic::new(0),
            left: Atomic::new(u64::MAX),
            flushed: Atomic::new(0),
        }
    }

    /// The number of tables that were allocated and not freed.
    pub fn live(&self) -> u64 {
        self.live.load(Relaxed)
    }

    /// Lets the next `tables` allocations succeed, and none after them.
    pub fn fail_after(&self, tables: u64) {
        self.left.store(tables, Relaxed);
    }

    /// Moves all tables to where the hardware's addresses have those of `bits` that are above what
    /// an entry of any format has room for.
    pub fn move_away(&self, bits: u64) {
        self.far.store(bits & !(ADDRESS | 0xfff), Relaxed);
    }

    /// Takes one of the allocations that may succeed.
    fn take(&self) -> Result {
        let left = self.left.load(Relaxed);

        if left == 0 {
            return Err(ENOMEM);
        }
        if left != u64::MAX {
            self.left.store(left - 1, Relaxed);
        }
        Ok(())
    }

    /// Takes note of a table, or of a top of several, that was allocated.
    fn given(&self, table: NonNull<Table>) -> NonNull<Table> {
        self.high
            .store(table.as_ptr() as usize as u64 & !ADDRESS, Relaxed);
        self.live.fetch_add(1u64, Relaxed);
        table
    }

    /// The number of bytes that were flushed for hardware that does not snoop.
    pub fn flushed(&self) -> u64 {
        self.flushed.load(Relaxed)
    }
}

impl Default for TestMem {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: Tables are boxes, which stay valid until they are freed and are aligned like their type;
// `virt` takes the bits away that `phys` added, and adds those that it took away, which all boxes
// share.
unsafe impl TableMem for &TestMem {
    type Flags = ();

    fn alloc(&self, _flags: ()) -> Result<NonNull<Table>> {
        self.take()?;

        let table = KBox::into_raw(KBox::<Table>::new_uninit(GFP_KERNEL)?).cast::<Table>();
        let table = NonNull::new(table).ok_or(ENOMEM)?;

        // SAFETY: The box has room for one table, and all zeroes is a valid one.
        unsafe { table.as_ptr().write_bytes(0, 1) }
        Ok(self.given(table))
    }

    unsafe fn free(&self, table: NonNull<Table>) {
        // A walk that still follows a link to it finds no table.
        //
        // SAFETY: Nothing uses the table, by the contract of the function.
        unsafe { table.as_ptr().write_bytes(0, 1) }
        self.live.fetch_sub(1u64, Relaxed);
        // SAFETY: The pointer came from `into_raw()` in `alloc()`.
        drop(unsafe { KBox::from_raw(table.as_ptr()) });
    }

    fn phys(&self, table: NonNull<Table>) -> PhysAddr {
        table.as_ptr() as usize as u64 & ADDRESS | self.far.load(Relaxed)
    }

    unsafe fn virt(&self, phys: PhysAddr) -> NonNull<Table> {
        let table = (phys & ADDRESS | self.high.load(Relaxed)) as usize as *mut Table;

        // SAFETY: By the contract of the function, the address of a box.
        unsafe { NonNull::new_unchecked(table) }
    }

    fn alloc_top(&self, lg2: u32, _flags: ()) -> Result<NonNull<Table>> {
        if lg2 != 2 {
            return Err(EOPNOTSUPP);
        }
        self.take()?;

        let top = KBox::into_raw(KBox::<FourTables>::new_uninit(GFP_KERNEL)?).cast::<FourTables>();
        let top = NonNull::new(top).ok_or(ENOMEM)?;

        // SAFETY: The box has room for four tables, and all zeroes are valid ones.
        unsafe { top.as_ptr().write_bytes(0, 1) }
        Ok(self.given(top.cast()))
    }

    unsafe fn free_top(&self, top: NonNull<Table>, _lg2: u32) {
        self.live.fetch_sub(1u64, Relaxed);
        // SAFETY: The pointer came from `into_raw()` in `alloc_top()`.
        drop(unsafe { KBox::from_raw(top.cast::<FourTables>().as_ptr()) });
    }

    unsafe fn flush(&self, _start: NonNull<u8>, bytes: usize) {
        self.flushed.fetch_add(bytes as u64, Relaxed);
    }
}

/// How many tables or runs a test can collect.
const ROOM: usize = 64;

/// A gather that keeps tables until it is told that the flush is done.
pub struct TestGather<'m> {
    mem: &'m TestMem,
    tables: [Option<DetachedTable<&'m TestMem>>; ROOM],
    /// How many tables there are.
    pub queued: usize,
    /// The union of the ranges that were added.
    pub hull: Option<Range>,
    /// Whether a table came before any range, or found no room.
    pub broken: bool,
    /// How many times it was asked to change the top.
    pub tops: usize,
    /// The last top that it was given in time: what hardware would have.
    pub top: Option<Top>,
    /// What another does just before that.
    pub rival: Option<&'m dyn Fn() -> Result>,
    /// Whether it leaves the hardware with the top that it has.
    pub refuses: bool,
    /// Whether it publishes a new top without a look at whether it is current.
    pub hasty: bool,
    /// The walks that tables wait for, if there are any.
    walks: Option<&'m Walks<&'m TestMem>>,
}

impl<'m> TestGather<'m> {
    /// An empty gather.
    pub fn new(mem: &'m TestMem) -> Self {
        Self {
            mem,
            tables: [const { None }; ROOM],
            queued: 0,
            hull: None,
            broken: false,
            tops: 0,
            top: None,
            rival: None,
            refuses: false,
            hasty: false,
            walks: None,
        }
    }

    /// An empty gather, whose tables may be walked meanwhile.
    pub fn with_walks(mem: &'m TestMem, walks: &'m Walks<&'m TestMem>) -> Self {
        let mut gather = Self::new(mem);

        gather.walks = Some(walks);
        gather
    }

    /// Frees the tables, as after a flush.
    pub fn flush(&mut self) {
        for table in &mut self.tables {
            match (table.take(), self.walks) {
                // SAFETY: The table is of this memory, and the tests' hardware caches nothing.
                (Some(table), Some(walks)) => unsafe { walks.retire(table) },
                // SAFETY: As above, and there are no walks.
                (Some(table), None) => unsafe { table.free(&self.mem) },
                (None, _) => (),
            }
        }
        self.queued = 0;
        self.hull = None;
    }
}

impl<'m> Gather<&'m TestMem> for TestGather<'m> {
    fn add_range(&mut self, range: Range) {
        let hull = self.hull.unwrap_or(range);
        let first = hull.first().min(range.first());
        let last = hull.last().max(range.last());

        self.hull = Range::inclusive(first, last).ok();
    }

    fn queue_free(&mut self, table: DetachedTable<&'m TestMem>) {
        match self.tables.get_mut(self.queued) {
            Some(room) => *room = Some(table),
            None => self.broken = true,
        }
        if self.hull.is_none() {
            self.broken = true;
        }
        self.queued += 1;
    }

    fn change_top(&mut self, mut new: NewTop<'_>) {
        self.tops += 1;
        if let Some(rival) = self.rival {
            self.broken |= rival().is_err();
        }
        if self.hasty || new.is_current() && !self.refuses {
            self.top = Some(new.top());
            // SAFETY: The tests' hardware walks what it is told at each access.
            unsafe { new.publish() };
        }
    }
}

impl Drop for TestGather<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// A sink that remembers the runs.
pub struct TestSink {
    runs: [Option<Range>; ROOM],
    /// How many runs were recorded.
    pub count: usize,
    /// From the first to the last leaf that was made clean.
    pub cleared: Option<Range>,
    /// From the first to the last leaf that was split.
    pub split: Option<Range>,
    /// After how many questions it gives up.
    pub patience: Option<u32>,
    /// Whether something came out of order.
    pub broken: bool,
}

impl TestSink {
    /// An empty sink.
    pub fn new() -> Self {
        Self {
            runs: [None; ROOM],
            count: 0,
            cleared: None,
            split: None,
            patience: None,
            broken: false,
        }
    }

    /// The run with that number, as its first and its last address.
    pub fn run(&self, number: usize) -> (Iova, Iova) {
        match self.runs.get(number) {
            Some(Some(run)) => (run.first(), run.last()),
            _ => (1, 0),
        }
    }

    /// Whether the runs are exactly `runs`.
    pub fn is(&self, runs: &[(Iova, Iova)]) -> bool {
        !self.broken
            && self.count == runs.len()
            && runs.iter().enumerate().all(|(n, run)| self.run(n) == *run)
    }

    /// Whether the leaves from `first` to `last` were made clean, or some between the first and the
    /// last of them.
    pub fn has_cleared(&self, first: Iova, last: Iova) -> bool {
        self.cleared == Range::inclusive(first, last).ok()
    }
}

impl Default for TestSink {
    fn default() -> Self {
        Self::new()
    }
}

impl DirtySink for TestSink {
    fn record(&mut self, range: Range) {
        if self.count > 0 && self.run(self.count - 1).1 >= range.first() {
            self.broken = true;
        }
        match self.runs.get_mut(self.count) {
            Some(run) => *run = Some(range),
            None => self.broken = true,
        }
        self.count += 1;
    }

    fn cleared(&mut self, range: Range) {
        // Once, and after the runs.
        self.broken |= self.cleared.is_some() || self.count == 0;
        self.cleared = Some(range);
    }

    fn split(&mut self, range: Range) {
        self.broken |= self.split.is_some();
        self.split = Some(range);
    }

    fn gives_up(&mut self) -> bool {
        self.patience = self.patience.map(|left| left.saturating_sub(1));
        self.patience == Some(0)
    }
}

/// A page table in a test's memory, with simple calls.
pub struct TestTable<'m, S: Spec> {
    /// The page table.
    pub table: PageTable<S::F, &'m TestMem>,
    mem: &'m TestMem,
}

impl<'m, S: Spec> TestTable<'m, S> {
    /// A page table with `levels` levels for the hardware of [`TestTable::config`].
    pub fn new(mem: &'m TestMem, levels: u8) -> Result<Self> {
        Self::with(mem, Self::config(levels))
    }

    /// A page table for the hardware that `config` describes.
    pub fn with(mem: &'m TestMem, config: Config) -> Result<Self> {
        Ok(Self {
            table: PageTable::new(mem, config, ())?,
            mem,
        })
    }

    /// Hardware with leaves of 4 KiB, 2 MiB and 1 GiB, and otherwise all that the format has.
    pub fn config(levels: u8) -> Config {
        Config {
            levels,
            max_levels: levels,
            page_sizes: 1 << 12 | 1 << 21 | 1 << 30,
            input_lg2: 64,
            output_lg2: 64,
            coherent: true,
            marks: true,
            splits: false,
        }
    }

    /// Maps; returns how much, and how it ended.
    pub fn try_map(
        &self,
        iova: Iova,
        phys: PhysAddr,
        len: u64,
        prot: Prot,
        gather: &mut TestGather<'m>,
    ) -> (u64, Result) {
        let Ok(range) = Range::new(iova, len) else {
            return (0, Err(EINVAL));
        };
        // SAFETY: The tests use a table from one thread.
        let mut claim = unsafe { Exclusive::new(range, &self.table) };

        self.table.map(&mut claim, phys, prot, (), gather)
    }

    /// Maps for reads and writes, all or an error.
    pub fn map(&self, iova: Iova, phys: PhysAddr, len: u64) -> Result {
        let mut gather = TestGather::new(self.mem);
        let (done, result) = self.try_map(iova, phys, len, Prot::READ | Prot::WRITE, &mut gather);

        result?;
        check_eq!(done, len);
        check!(!gather.broken);
        Ok(())
    }

    /// Unmaps and flushes; returns how much.
    pub fn unmap(&self, iova: Iova, len: u64) -> u64 {
        let mut gather = TestGather::new(self.mem);

        self.unmap_to(iova, len, &mut gather)
    }

    /// Unmaps without a flush; returns how much.
    pub fn unmap_to(&self, iova: Iova, len: u64, gather: &mut TestGather<'m>) -> u64 {
        let Ok(range) = Range::new(iova, len) else {
            return 0;
        };
        // SAFETY: The tests use a table from one thread.
        let mut claim = unsafe { Exclusive::new(range, &self.table) };

        self.table.unmap(&mut claim, gather)
    }

    /// Translates.
    pub fn translate(&self, iova: Iova) -> Option<PhysAddr> {
        // SAFETY: The tests use a table from one thread.
        let claim = unsafe { Stable::at(iova, &self.table) };

        self.table.iova_to_phys(&claim)
    }

    /// Harvests into a new sink.
    pub fn harvest(&self, iova: Iova, len: u64, clear: bool) -> Result<TestSink> {
        // SAFETY: The tests use a table from one thread.
        let claim = unsafe { Stable::new(Range::new(iova, len)?, &self.table) };
        let mut sink = TestSink::new();

        self.table.read_and_clear_dirty(&claim, clear, &mut sink)?;
        Ok(sink)
    }

    /// What is mapped and may be written to, in a new sink.
    pub fn writable(&self, iova: Iova, len: u64) -> Result<TestSink> {
        // SAFETY: The tests use a table from one thread.
        let claim = unsafe { Stable::new(Range::new(iova, len)?, &self.table) };
        let mut sink = TestSink::new();

        self.table.report_writable(&claim, &mut sink)?;
        Ok(sink)
    }

    /// The word of the leaf that the hardware would use for `iova`.
    pub fn word(&self, iova: Iova) -> Result<u64> {
        find::<S>(self.mem, self.table.top(), iova).map(|found| found.word)
    }

    /// Binary logarithm of the size of the leaf that the hardware would use for `iova`.
    pub fn leaf_lg2(&self, iova: Iova) -> Result<u32> {
        find::<S>(self.mem, self.table.top(), iova).map(|found| found.lg2)
    }

    /// Puts `word` in the place of the leaf that the hardware would use for `iova`, as code that
    /// has no business there.
    pub fn spoil(&self, iova: Iova, word: u64) -> Result {
        let found = find::<S>(self.mem, self.table.top(), iova)?;

        // SAFETY: The entry is one of a table of this memory, which lives as long as `self`, and
        // its words are accessed as atomics.
        unsafe { Atomic::from_ptr(found.entry) }.store(word, Relaxed);
        Ok(())
    }

    /// Reads or writes `iova` as a device would; returns the address that it came to.
    pub fn access(&self, iova: Iova, write: bool) -> Result<PhysAddr> {
        access::<S>(self.mem, self.table.top(), iova, write)
    }
}
