// SPDX-License-Identifier: GPL-2.0

//! The page table as the domain of a Rust driver owns it.

use super::{
    addr::{
        Iova,
        PhysAddr,
        Range, //
    },
    claim::{
        Claim,
        Exclusive, //
    },
    format::{
        Format,
        Prot, //
    },
    gather::{
        DirtySink,
        Gather, //
    },
    limits::{
        Config,
        Limits, //
    },
    table::TableMem,
    tree::{
        Top,
        Tree, //
    },
    walks::Pause, //
};
use core::marker::PhantomData;
use kernel::{
    error::Result,
    sync::atomic::Atomic, //
};

/// An I/O page table in the format `F`, in tables from `M`.
///
/// Owns a [`Tree`], whose operations it has; they are described there.
///
/// # Invariants
///
/// `top` and `limits` are the parts of a tree in `mem` that nothing else frees.
pub struct PageTable<F: Format, M: TableMem> {
    mem: M,
    top: Atomic<u64>,
    limits: Limits,
    format: PhantomData<F>,
}

impl<F: Format, M: TableMem> PageTable<F, M> {
    /// Makes a page table that maps nothing.
    ///
    /// May sleep if `flags` allow it.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the format has no trees of `config.levels` levels, if the hardware lacks the
    /// smallest page of the format, or if it takes fewer addresses than one such page has;
    /// `ENOMEM` if there is no memory for the top.
    pub fn new(mem: M, config: Config, flags: M::Flags) -> Result<Self> {
        let limits = Limits::new::<F>(&config)?;
        let top = Tree::<F, M>::new_top(&mem, limits.coherent, config.levels, flags)?;

        // INVARIANT: The tree was just made, for limits that suit the format.
        Ok(Self {
            mem,
            top: Atomic::new(top),
            limits,
            format: PhantomData,
        })
    }

    /// The tree.
    #[inline(always)]
    pub fn tree(&self) -> Tree<'_, F, M> {
        // SAFETY: By the type invariant these are the parts of a tree, and it is freed by `drop`
        // only, which can't run while `self` is borrowed. `Limits::new()` cut the page sizes and
        // the aperture to what the format and its levels have.
        unsafe { Tree::from_parts(&self.mem, &self.top, self.limits) }
    }

    /// The memory that the tables come from.
    pub fn memory(&self) -> &M {
        &self.mem
    }

    /// The top table, as the hardware is told.
    pub fn top(&self) -> Top {
        self.tree().top()
    }

    /// The last input address that can be mapped.
    pub fn aperture_last(&self) -> Iova {
        self.limits.aperture_last
    }

    /// The leaf sizes that can be used, a bit for each power of two.
    pub fn pgsize_bitmap(&self) -> u64 {
        self.limits.page_sizes
    }

    /// [`Tree::can_track_dirty`].
    pub fn can_track_dirty(&self) -> bool {
        self.tree().can_track_dirty()
    }

    /// [`Tree::map`].
    pub fn map(
        &self,
        claim: &mut Exclusive,
        phys: PhysAddr,
        prot: Prot,
        flags: M::Flags,
        gather: &mut impl Gather<M>,
    ) -> (u64, Result) {
        self.tree().map(claim, phys, prot, flags, gather)
    }

    /// [`Tree::unmap`].
    pub fn unmap(&self, claim: &mut Exclusive, gather: &mut impl Gather<M>) -> u64 {
        self.tree().unmap(claim, gather)
    }

    /// [`Tree::iova_to_phys`].
    pub fn iova_to_phys(&self, claim: &impl Claim) -> Option<PhysAddr> {
        self.tree().iova_to_phys(claim)
    }

    /// [`Tree::read_and_clear_dirty`].
    pub fn read_and_clear_dirty(
        &self,
        claim: &impl Claim,
        clear: bool,
        sink: &mut impl DirtySink,
    ) -> Result {
        self.tree().read_and_clear_dirty(claim, clear, sink)
    }

    /// [`Tree::read_and_split_dirty`].
    pub fn read_and_split_dirty(
        &self,
        claim: &impl Claim,
        flags: M::Flags,
        sink: &mut impl DirtySink,
    ) -> Result {
        self.tree().read_and_split_dirty(claim, flags, sink)
    }

    /// [`Tree::can_split`].
    pub fn can_split(&self) -> bool {
        self.tree().can_split()
    }

    /// [`Tree::split`].
    pub fn split(
        &self,
        claim: &impl Claim,
        lg2: u32,
        flags: M::Flags,
        go_on: impl FnMut() -> bool,
    ) -> (Option<Range>, Result) {
        self.tree().split(claim, lg2, flags, go_on)
    }

    /// [`Tree::join`].
    pub fn join(
        &self,
        claim: &mut Exclusive,
        pause: &Pause<'_, M>,
        gather: &mut impl Gather<M>,
    ) -> Result<u64> {
        self.tree().join(claim, pause, gather)
    }

    /// [`Tree::report_writable`].
    pub fn report_writable(&self, claim: &impl Claim, sink: &mut impl DirtySink) -> Result {
        self.tree().report_writable(claim, sink)
    }
}

impl<F: Format, M: TableMem> Drop for PageTable<F, M> {
    /// Frees all tables. No device may be attached any more, and its caches must have been flushed.
    fn drop(&mut self) {
        // SAFETY: The tree is ours alone: there is no other reference to `self`. An owner that told
        // the hardware of the tree has it forgotten before the tree is dropped: see `Confirms`.
        unsafe { self.tree().free() }
    }
}
