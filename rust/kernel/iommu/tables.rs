// SPDX-License-Identifier: GPL-2.0

//! The page tables of a domain, and the calls that a [`PagingDomain`](super::ops::PagingDomain)
//! only passes on to them.

use super::{
    hw::pages::{
        Gfp,
        KernelPause,
        KernelTables,
        KernelWalk, //
    },
    pt::{
        DirtySink,
        Exclusive,
        Format,
        Gather,
        Iova,
        PageTable,
        PhysAddr,
        Prot,
        Range,
        Stable,
        Step,
        Survey,
        Top, //
    },
    values::Geometry, //
};

use kernel::error::Result;

/// Page tables whose format the domain need not know. [`PageTable`] describes the methods.
pub trait Tables: Send + Sync + 'static {
    /// The top table, as hardware is told.
    fn top(&self) -> Top;

    /// The addresses and the page sizes that can be mapped. Does not change.
    fn geometry(&self) -> Geometry;

    /// Maps the claimed range.
    fn map(
        &self,
        claim: &mut Exclusive,
        phys: PhysAddr,
        prot: Prot,
        gfp: Gfp,
        gather: &mut impl Gather<KernelTables>,
    ) -> (u64, Result);

    /// Unmaps the claimed range.
    fn unmap(&self, claim: &mut Exclusive, gather: &mut impl Gather<KernelTables>) -> u64;

    /// The physical address that the first claimed address leads to.
    fn iova_to_phys(&self, claim: &Stable) -> Option<PhysAddr>;

    /// Records the dirty pages of the range of `walk`, and makes them clean if `clear`.
    fn read_and_clear_dirty(
        &self,
        walk: &KernelWalk<'_>,
        clear: bool,
        sink: &mut impl DirtySink,
    ) -> Result;

    /// Whether a harvest may split leaves.
    fn can_split(&self) -> bool;

    /// Records the dirty pages of the range of `walk`, makes them clean, and splits the leaves that
    /// they are in.
    fn read_and_split_dirty(
        &self,
        walk: &KernelWalk<'_>,
        gfp: Gfp,
        sink: &mut impl DirtySink,
    ) -> Result;

    /// Splits the leaves of the range of `walk` that are larger than `1 << lg2` bytes. Returns what
    /// has to be flushed with links, also after an error.
    fn split(
        &self,
        walk: &KernelWalk<'_>,
        lg2: u32,
        gfp: Gfp,
        go_on: impl FnMut() -> bool,
    ) -> (Option<Range>, Result);

    /// Joins what was split in the claimed range; returns how many leaves came back.
    fn join(
        &self,
        claim: &mut Exclusive,
        pause: &KernelPause<'_>,
        gather: &mut impl Gather<KernelTables>,
    ) -> Result<u64>;

    /// Records all of the range of `walk` that is mapped and writable.
    fn report_writable(&self, walk: &KernelWalk<'_>, sink: &mut impl DirtySink) -> Result;

    /// The name of the format.
    fn format(&self) -> &'static str;

    /// The way to the first address of `walk`, entry by entry.
    fn steps(&self, walk: &KernelWalk<'_>, step: impl FnMut(Step)) -> Result;

    /// Counts leaves in the range of `walk`. Returns where to go on, if there are many.
    fn survey(&self, walk: &KernelWalk<'_>, survey: &mut Survey) -> Result<Option<Iova>>;
}

impl<F: Format> Tables for PageTable<F, KernelTables>
where
    Self: Send + Sync + 'static,
{
    #[inline]
    fn top(&self) -> Top {
        self.top()
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            first: 0,
            last: self.aperture_last(),
            page_sizes: self.pgsize_bitmap(),
        }
    }

    #[inline]
    fn map(
        &self,
        claim: &mut Exclusive,
        phys: PhysAddr,
        prot: Prot,
        gfp: Gfp,
        gather: &mut impl Gather<KernelTables>,
    ) -> (u64, Result) {
        self.map(claim, phys, prot, gfp, gather)
    }

    #[inline]
    fn unmap(&self, claim: &mut Exclusive, gather: &mut impl Gather<KernelTables>) -> u64 {
        self.unmap(claim, gather)
    }

    #[inline]
    fn iova_to_phys(&self, claim: &Stable) -> Option<PhysAddr> {
        self.iova_to_phys(claim)
    }

    #[inline]
    fn read_and_clear_dirty(
        &self,
        walk: &KernelWalk<'_>,
        clear: bool,
        sink: &mut impl DirtySink,
    ) -> Result {
        self.read_and_clear_dirty(walk, clear, sink)
    }

    #[inline]
    fn can_split(&self) -> bool {
        self.can_split()
    }

    #[inline]
    fn read_and_split_dirty(
        &self,
        walk: &KernelWalk<'_>,
        gfp: Gfp,
        sink: &mut impl DirtySink,
    ) -> Result {
        self.read_and_split_dirty(walk, gfp, sink)
    }

    fn split(
        &self,
        walk: &KernelWalk<'_>,
        lg2: u32,
        gfp: Gfp,
        go_on: impl FnMut() -> bool,
    ) -> (Option<Range>, Result) {
        self.split(walk, lg2, gfp, go_on)
    }

    fn join(
        &self,
        claim: &mut Exclusive,
        pause: &KernelPause<'_>,
        gather: &mut impl Gather<KernelTables>,
    ) -> Result<u64> {
        self.join(claim, pause, gather)
    }

    #[inline]
    fn report_writable(&self, walk: &KernelWalk<'_>, sink: &mut impl DirtySink) -> Result {
        self.report_writable(walk, sink)
    }

    fn format(&self) -> &'static str {
        F::NAME
    }

    fn steps(&self, walk: &KernelWalk<'_>, step: impl FnMut(Step)) -> Result {
        self.tree().steps(walk, step)
    }

    fn survey(&self, walk: &KernelWalk<'_>, survey: &mut Survey) -> Result<Option<Iova>> {
        self.tree().survey(walk, survey)
    }
}

/// Tables in one of two formats, of which a unit may walk both.
pub enum Either<L, R> {
    /// The one.
    Left(L),
    /// The other.
    Right(R),
}

/// Calls the same method of the tables of either format.
macro_rules! either {
    ($self:expr, $tables:ident => $call:expr) => {
        match $self {
            Either::Left($tables) => $call,
            Either::Right($tables) => $call,
        }
    };
}

impl<L: Tables, R: Tables> Tables for Either<L, R> {
    #[inline]
    fn top(&self) -> Top {
        either!(self, tables => tables.top())
    }

    fn geometry(&self) -> Geometry {
        either!(self, tables => tables.geometry())
    }

    #[inline]
    fn map(
        &self,
        claim: &mut Exclusive,
        phys: PhysAddr,
        prot: Prot,
        gfp: Gfp,
        gather: &mut impl Gather<KernelTables>,
    ) -> (u64, Result) {
        either!(self, tables => tables.map(claim, phys, prot, gfp, gather))
    }

    #[inline]
    fn unmap(&self, claim: &mut Exclusive, gather: &mut impl Gather<KernelTables>) -> u64 {
        either!(self, tables => tables.unmap(claim, gather))
    }

    #[inline]
    fn iova_to_phys(&self, claim: &Stable) -> Option<PhysAddr> {
        either!(self, tables => tables.iova_to_phys(claim))
    }

    #[inline]
    fn read_and_clear_dirty(
        &self,
        walk: &KernelWalk<'_>,
        clear: bool,
        sink: &mut impl DirtySink,
    ) -> Result {
        either!(self, tables => tables.read_and_clear_dirty(walk, clear, sink))
    }

    #[inline]
    fn can_split(&self) -> bool {
        either!(self, tables => tables.can_split())
    }

    #[inline]
    fn read_and_split_dirty(
        &self,
        walk: &KernelWalk<'_>,
        gfp: Gfp,
        sink: &mut impl DirtySink,
    ) -> Result {
        either!(self, tables => tables.read_and_split_dirty(walk, gfp, sink))
    }

    fn split(
        &self,
        walk: &KernelWalk<'_>,
        lg2: u32,
        gfp: Gfp,
        go_on: impl FnMut() -> bool,
    ) -> (Option<Range>, Result) {
        either!(self, tables => tables.split(walk, lg2, gfp, go_on))
    }

    fn join(
        &self,
        claim: &mut Exclusive,
        pause: &KernelPause<'_>,
        gather: &mut impl Gather<KernelTables>,
    ) -> Result<u64> {
        either!(self, tables => tables.join(claim, pause, gather))
    }

    #[inline]
    fn report_writable(&self, walk: &KernelWalk<'_>, sink: &mut impl DirtySink) -> Result {
        either!(self, tables => tables.report_writable(walk, sink))
    }

    fn format(&self) -> &'static str {
        either!(self, tables => tables.format())
    }

    fn steps(&self, walk: &KernelWalk<'_>, step: impl FnMut(Step)) -> Result {
        either!(self, tables => tables.steps(walk, step))
    }

    fn survey(&self, walk: &KernelWalk<'_>, survey: &mut Survey) -> Result<Option<Iova>> {
        either!(self, tables => tables.survey(walk, survey))
    }
}
