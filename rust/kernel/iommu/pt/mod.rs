// SPDX-License-Identifier: GPL-2.0

//! I/O page tables, generic over a format.
//!
//! # Language
//!
//! The words are those of the kernel's C generic page tables
//! (`Documentation/driver-api/generic_pt.rst`):
//!
//! - **iova**: the input address; **phys**: the output address.
//! - **table**: 512 **entries**, each empty, a link to a table of the level below, or a **leaf**.
//!   The top may be several tables side by side.
//! - **level**: 0 is that of the smallest leaves; the **top** has the highest.
//! - **item**: what one entry stands for. A leaf has one item or, spread over contiguous entries,
//!   several.
//! - **last**: the last address of a range, which belongs to it. There are no ends.
//! - **lg2**: the binary logarithm of a size.
//!
//! # Layers
//!
//! - A [`Format`] turns words into entries and back ([`fmt`]); it knows nothing of memory.
//! - [`TableMem`] is where tables live: kernel pages, or what a test puts in their place.
//! - [`Tree`] has the operations, each in a file: map, unmap, translate, harvest dirty bits. They
//!   walk along `Node`s and are the same for each format. [`PageTable`] owns one.
//! - What is left to the caller goes to a [`Gather`] (flush, then free) or to a [`DirtySink`].
//!
//! # Locks
//!
//! None. The callers own ranges, see [`claim`]; operations on ranges that have no address in common
//! may run at the same time, in atomic context too, and harvests beside all of them:
//!
//! - A table is linked by a compare-and-exchange with release semantics; if two maps race for the
//!   same table, the loser frees its own and uses the winner's.
//! - A table is unlinked only by an operation that claims every address below it, and is freed only
//!   after the hardware's caches were flushed, and after all [walks](Walks) that may be in it have
//!   ended.
//! - A harvest makes a leaf clean by a compare-and-exchange, which fails if the entry is not that
//!   leaf any more.
//! - A top above the top is published only after the hardware has it, see `grow.rs`.
//! - The hardware changes entries too, but only their accessed and dirty bits.
//!
//! # In use
//!
//! The callback of the IOMMU core makes the claim, for which it has the core's promise; the driver
//! passes it on. A claim is for the page tables that are a part of one object:
//!
//! ```text
//! let domain = Domain { table: PageTable::<VtdSs, _>::new(mem, config, Gfp::KERNEL)? };
//! let walks = Walks::new(mem);
//!
//! let mut claim = unsafe { Exclusive::new(Range::new(iova, len)?, &domain) };
//! let (mapped, result) = domain.table.map(&mut claim, phys, prot, gfp, &mut gather);
//! // On an error the caller unmaps the first `mapped` bytes.
//!
//! let unmapped = domain.table.unmap(&mut claim, &mut gather);
//! // Then flush, then `walks.retire()` each table that was gathered.
//!
//! let walk = unsafe { walks.enter(query, &domain) };
//! domain.table.read_and_clear_dirty(&walk, true, &mut bitmap)?;
//! // Then flush what the bitmap was told by `cleared()`, then copy what it was told to `record()`.
//! ```

mod addr;
pub mod claim;
mod dirty;
pub mod fmt;
mod format;
mod gather;
mod grow;
mod join;
mod limits;
mod map;
mod node;
mod page_table;
mod split;
mod survey;
mod table;
mod tables;
#[cfg(CONFIG_RUST_IOMMU_PT_KUNIT_TEST)]
#[doc(hidden)]
pub mod tests;
mod top;
mod translate;
mod tree;
mod unmap;
mod walks;

pub use addr::{
    Iova,
    Level,
    PhysAddr,
    Range,
    TABLE_ENTRIES,
    TABLE_LG2, //
};
pub use claim::{
    Claim,
    Exclusive,
    Stable, //
};
pub use format::{
    Attrs,
    Entry,
    Format,
    Prot, //
};
pub use gather::{
    DirtySink,
    Gather, //
};
pub use limits::{
    Config,
    Limits, //
};
pub use page_table::PageTable;
pub use survey::{
    Leaves,
    Step,
    Survey, //
};
pub use table::{
    DetachedTable,
    Table,
    TableMem,
    TABLE_BYTES, //
};
pub use top::NewTop;
pub use tree::{
    Top,
    Tree, //
};
pub use walks::{
    Pause,
    Walk,
    Walks, //
};
