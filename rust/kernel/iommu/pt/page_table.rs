// SPDX-License-Identifier: GPL-2.0

//! The page table as its owner sees it: what it is made for, its top, its end.

use super::{
    addr::{
        low_mask,
        Iova,
        Level,
        PhysAddr,
        PAGE_LG2, //
    },
    claim::Claim,
    format::Format,
    table::{
        Node,
        Table,
        TableMem,
        Tables, //
    }, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::{
        code::*,
        Result, //
    },
    sync::atomic::{
        Acquire,
        Atomic, //
    }, //
};

/// What the hardware can do, of what the format can.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Number of levels that the hardware is told to walk.
    pub levels: u8,

    /// Leaf sizes that the hardware supports, a bit for each power of two. Must have the smallest
    /// of the format; sizes that the format does not know are ignored.
    pub page_sizes: u64,

    /// Binary logarithm of the input addresses that the hardware takes; the format may have fewer.
    pub input_lg2: u32,

    /// Binary logarithm of the output addresses that the hardware takes; the format may have fewer.
    pub output_lg2: u32,

    /// Whether the hardware's walks snoop the processor's caches.
    pub coherent: bool,
}

/// What to tell the hardware about the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Top {
    /// Address of the top table.
    pub phys: PhysAddr,

    /// Number of levels, the top included.
    pub levels: u8,
}

/// An I/O page table in the format `F`, in tables from `M`.
///
/// Many threads may use it at the same time, in any context, as long as they keep to the ranges
/// that they claim: see [`claim`](super::claim).
///
/// # Invariants
///
/// - `top` holds the address of a table of the memory `tables.mem`, with its level in the bits
///   that its alignment leaves free. The tree below is written by walks of `F` only.
/// - Input addresses from 0 to `aperture` use entries of the top table only, and there are entries
///   for all of them.
/// - `page_sizes` is a subset of [`Format::PAGE_SIZES`] with its lowest bit, and no size in it
///   exceeds an entry of the top table.
pub struct PageTable<F: Format, M: TableMem> {
    pub(super) tables: Tables<M>,
    // One word, so that a reader sees an address and the level that belongs to it even if a format
    // adds a top above the top.
    top: Atomic<u64>,
    aperture: Iova,
    pub(super) page_sizes: u64,
    pub(super) output_last: PhysAddr,
    format: PhantomData<F>,
}

/// The bits of [`PageTable::top`] that hold the level.
const LEVEL_BITS: u64 = 0x7;

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
        if !(F::MIN_LEVELS..=F::MAX_LEVELS).contains(&config.levels) {
            return Err(EINVAL);
        }
        if config.input_lg2 < PAGE_LG2 || config.output_lg2 < PAGE_LG2 {
            return Err(EINVAL);
        }

        let level = Level::top_of(config.levels)?;
        // A leaf is never larger than one entry of the top.
        let page_sizes = config.page_sizes & F::PAGE_SIZES & low_mask(level.item_lg2() + 1);
        let smallest = F::PAGE_SIZES & F::PAGE_SIZES.wrapping_neg();

        if page_sizes & smallest == 0 {
            return Err(EINVAL);
        }

        let tables = Tables {
            mem,
            coherent: config.coherent,
        };
        let table = tables.alloc(flags)?;

        // INVARIANT: The address is aligned to the size of a table by the contract of `TableMem`,
        // `input_lg2` is at most what the levels resolve, and `page_sizes` was cut to fit.
        Ok(Self {
            top: Atomic::new(tables.mem.phys(table) | u64::from(level.number())),
            tables,
            aperture: low_mask(config.input_lg2.min(F::input_lg2(config.levels))),
            page_sizes,
            output_last: low_mask(config.output_lg2.min(F::OUTPUT_LG2)),
            format: PhantomData,
        })
    }

    /// The memory that the tables come from.
    pub fn memory(&self) -> &M {
        &self.tables.mem
    }

    /// The top table, as the hardware is told.
    pub fn top(&self) -> Top {
        let top = self.top.load(Acquire);

        Top {
            phys: top & !LEVEL_BITS,
            // CAST: Three bits.
            levels: (top & LEVEL_BITS) as u8 + 1,
        }
    }

    /// The last input address that can be mapped.
    pub fn aperture_last(&self) -> Iova {
        self.aperture
    }

    /// The leaf sizes that can be used, a bit for each power of two.
    pub fn pgsize_bitmap(&self) -> u64 {
        self.page_sizes
    }

    /// Whether [`PageTable::read_and_clear_dirty`] can work.
    ///
    /// Not if the format has no dirty bits, and not if the hardware walks incoherently: what it
    /// writes to an entry in memory and what we flush out of the cache overwrite each other.
    pub fn can_track_dirty(&self) -> bool {
        F::DIRTY != 0 && self.tables.coherent
    }

    /// The top table, for a walk to the claimed addresses.
    ///
    /// # Errors
    ///
    /// `ERANGE` if the claim reaches beyond the aperture.
    #[inline(always)]
    pub(super) fn root<'t>(&'t self, claim: &'t impl Claim) -> Result<Node<'t, F, M>> {
        if claim.range().last() > self.aperture {
            return Err(ERANGE);
        }

        let (top, level) = self.top_table();

        // SAFETY: By the type invariants this is the top table of this tree, with its level; it is
        // freed by `drop` only, which can't run while `self` is borrowed for `'t`; and every
        // address up to the aperture is covered by it.
        Ok(unsafe { Node::top(&self.tables, top, level, claim) })
    }

    #[inline(always)]
    fn top_table(&self) -> (NonNull<Table>, Level) {
        let top = self.top.load(Acquire);
        // CAST: Three bits.
        // An error would mean a level that the invariant excludes; no level needs no unwrapping.
        let level = Level::top_of((top & LEVEL_BITS) as u8 + 1).unwrap_or(Level::LEAF);

        // SAFETY: By the type invariants this is the address of a table of this memory.
        (unsafe { self.tables.mem.virt(top & !LEVEL_BITS) }, level)
    }
}

impl<F: Format, M: TableMem> Drop for PageTable<F, M> {
    /// Frees all tables. No device may be attached any more, and its caches must have been flushed.
    fn drop(&mut self) {
        let (top, level) = self.top_table();

        // SAFETY: The tree is ours alone: nobody else holds a reference to `self`. Who told the
        // hardware about it has to untell it before it drops the tree.
        unsafe { self.tables.free_tree::<F>(top, level) }
    }
}
