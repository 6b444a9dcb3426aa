// SPDX-License-Identifier: GPL-2.0

//! The page table of most tests: with the claims for their operations, and with a default gather
//! and sink.

use crate::{
    error::Result,
    pt::{
        Config,
        DetachedTable,
        DirtySink,
        Exclusive,
        Gather,
        Iova,
        PageTable,
        PhysAddr,
        Prot,
        Range,
        Stable,
        TableMem, //
    },
    spec::Spec, //
};

/// A page table in the format of `S`, in tables from `M`.
///
/// # Invariants
///
/// The promise of [`HostTable::new`].
pub struct HostTable<S: Spec, M: TableMem<Flags = ()>> {
    /// The page table.
    pub table: PageTable<S::F, M>,
}

impl<S: Spec, M: TableMem<Flags = ()>> HostTable<S, M> {
    /// Hardware that snoops, with four levels and with those of `page_sizes` that the format has.
    pub fn config(page_sizes: u64) -> Config {
        Config {
            levels: 4,
            max_levels: 4,
            page_sizes,
            input_lg2: 64,
            output_lg2: 64,
            coherent: true,
            marks: true,
            splits: false,
        }
    }

    /// A page table that maps nothing.
    ///
    /// # Safety
    ///
    /// While [`HostTable::map`] or [`HostTable::unmap`] is called for a range, no other method is
    /// called for an address of it, or for one of the leaf that begins in it.
    pub unsafe fn new(mem: M, config: Config) -> Self {
        // INVARIANT: The caller's promise.
        Self {
            table: PageTable::new(mem, config, ()).unwrap(),
        }
    }

    /// Maps all of a range, for reads and writes.
    pub fn map(&self, iova: Iova, phys: PhysAddr, len: u64, gather: &mut impl Gather<M>) {
        let range = Range::new(iova, len).unwrap();
        // SAFETY: By the type invariant.
        let mut claim = unsafe { Exclusive::new(range, &self.table) };
        let prot = Prot::READ | Prot::WRITE;

        assert_eq!(
            self.table.map(&mut claim, phys, prot, (), gather),
            (len, Ok(()))
        );
    }

    /// Unmaps a range; returns the number of bytes.
    pub fn unmap(&self, iova: Iova, len: u64, gather: &mut impl Gather<M>) -> u64 {
        let range = Range::new(iova, len).unwrap();
        // SAFETY: By the type invariant.
        let mut claim = unsafe { Exclusive::new(range, &self.table) };

        self.table.unmap(&mut claim, gather)
    }

    /// Translates an address.
    pub fn translate(&self, iova: Iova) -> Option<PhysAddr> {
        // SAFETY: By the type invariant.
        let claim = unsafe { Stable::at(iova, &self.table) };

        self.table.iova_to_phys(&claim)
    }

    /// Makes the leaf at an address dirty.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if a harvest was in between, and others: see
    /// [`Tree::set_dirty`](crate::pt::Tree::set_dirty).
    pub fn set_dirty(&self, iova: Iova) -> Result {
        // SAFETY: By the type invariant.
        let claim = unsafe { Stable::at(iova, &self.table) };

        self.table.tree().set_dirty(&claim)
    }

    /// Harvests a range.
    pub fn harvest(&self, range: Range, clear: bool, sink: &mut impl DirtySink) {
        // SAFETY: By the type invariant.
        let claim = unsafe { Stable::new(range, &self.table) };

        self.table
            .read_and_clear_dirty(&claim, clear, sink)
            .unwrap();
    }

    /// Reports the writable pages of a range.
    pub fn writable(&self, range: Range, sink: &mut impl DirtySink) {
        // SAFETY: By the type invariant.
        let claim = unsafe { Stable::new(range, &self.table) };

        self.table.report_writable(&claim, sink).unwrap();
    }
}

/// A gather for operations that must not detach a table.
pub struct Never;

impl<M: TableMem> Gather<M> for Never {
    fn add_range(&mut self, _range: Range) {}

    fn queue_free(&mut self, _table: DetachedTable<M>) {
        panic!("a table was detached");
    }
}

/// The runs that were recorded.
#[derive(Default)]
pub struct Runs(pub Vec<Range>);

impl DirtySink for Runs {
    fn record(&mut self, range: Range) {
        self.0.push(range);
    }

    fn cleared(&mut self, _range: Range) {}

    fn split(&mut self, _range: Range) {}
}
