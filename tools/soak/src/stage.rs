// SPDX-License-Identifier: GPL-2.0

//! What an episode plays with: an address space, its page tables, memory, two writers.
//!
//! Lock order: the model, then the state of a writer.

use std::{
    ops::Range,
    sync::{
        atomic::{
            AtomicU32,
            Ordering, //
        },
        Mutex,
        MutexGuard,
        PoisonError, //
    },
};

use anyhow::{
    Context,
    Result, //
};
use device_memory::Memory;

use crate::{
    function::Function,
    model::{
        Leaves,
        Model, //
    },
    op::{
        Episode,
        Leaf,
        AREA_PAGES,
        PIECES,
        PLACE_PAGES,
        SLOTS, //
    },
    split,
    sys::{
        iommufd::Iommufd,
        vfio, //
    },
    writer::{
        Target,
        Writer, //
    },
};

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
/// Bytes of a large leaf.
const LARGE: usize = 2 << 20;

/// Where devices see the area, and the places beside it.
pub(crate) const AREA_IOVA: u64 = 1 << 32;
const PLACES_IOVA: u64 = 1 << 33;

/// The open files, objects and memory of an episode.
pub(crate) struct Stage {
    /// All objects are its.
    pub(crate) iommufd: Iommufd,
    /// The address space.
    pub(crate) ioas: u32,
    /// Its page tables.
    hwpts: Vec<AtomicU32>,
    /// The memory that writers write to.
    pub(crate) area: Memory,
    /// The memory that is mapped in all places.
    pub(crate) beside: Memory,
    /// The functions that write.
    pub(crate) writers: Vec<Writer>,
    /// What they write to.
    pub(crate) target: Target,
    /// Pages of a piece of the area.
    piece_pages: usize,
    model: Mutex<Model>,
}

impl Stage {
    /// Opens everything.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub(crate) fn open(episode: &Episode, functions: &[Function]) -> Result<Self> {
        let splits = split::choose(episode.split)?;
        let iommufd = Iommufd::open().context("cannot open /dev/iommu; load iommufd")?;
        let ioas = iommufd
            .ioas_alloc()
            .context("cannot allocate an address space")?;
        if episode.leaf == Leaf::Small {
            iommufd
                .forbid_large_leaves(ioas)
                .context("cannot restrict mappings to small leaves")?;
        }
        let writers = functions
            .iter()
            .map(|function| Writer::open(function, iommufd.file()))
            .collect::<Result<Vec<_>>>()?;
        let first = writers
            .first()
            .context("there is no page writer (1234:11f1)")?
            .id;
        let target = Target {
            iova: AREA_IOVA,
            length: (episode.span * PAGE) as u64,
            rate: episode.rate.max(1),
        };
        let mut stage = Self {
            area: area(episode.leaf)?,
            beside: Memory::new(c"soak", PLACE_PAGES * PAGE, None)?,
            piece_pages: (AREA_PAGES / PIECES).max(episode.leaf.pages()),
            hwpts: vec![],
            model: Mutex::new(Model::new(
                SLOTS,
                writers.len(),
                AREA_PAGES,
                Leaves {
                    pages: episode.leaf.pages(),
                    splits,
                },
                episode.span,
            )),
            iommufd,
            ioas,
            writers,
            target,
        };
        for piece in 0..AREA_PAGES / stage.piece_pages {
            stage.map_piece(piece).context("cannot map the area")?;
        }
        for _ in 0..SLOTS {
            let hwpt = stage
                .iommufd
                .hwpt_alloc(first, ioas, false)
                .context("cannot allocate a page table that tracks dirty pages")?;
            stage.hwpts.push(AtomicU32::new(hwpt));
        }
        Ok(stage)
    }

    /// The page table in a slot.
    pub(crate) fn hwpt(&self, slot: usize) -> u32 {
        self.hwpts[slot].load(Ordering::Relaxed)
    }

    /// The one that replaces it.
    pub(crate) fn set_hwpt(&self, slot: usize, hwpt: u32) {
        self.hwpts[slot].store(hwpt, Ordering::Relaxed);
    }

    /// The pages of a piece of the area.
    pub(crate) fn piece(&self, piece: usize) -> Range<usize> {
        let piece = piece % (AREA_PAGES / self.piece_pages);
        piece * self.piece_pages..(piece + 1) * self.piece_pages
    }

    /// Maps a piece of the area.
    pub(crate) fn map_piece(&self, piece: usize) -> std::io::Result<()> {
        let pages = self.piece(piece);
        let (at, length) = (pages.start * PAGE, pages.len() * PAGE);
        self.iommufd
            .map(self.ioas, AREA_IOVA + at as u64, &self.area, at, length)
    }

    /// Unmaps a piece of the area.
    pub(crate) fn unmap_piece(&self, piece: usize) -> std::io::Result<()> {
        let pages = self.piece(piece);
        let at = (pages.start * PAGE) as u64;
        self.iommufd
            .unmap(self.ioas, AREA_IOVA + at, pages.len() * PAGE)
    }

    /// Where a place begins.
    pub(crate) fn place(&self, place: usize) -> u64 {
        PLACES_IOVA + (place * PLACE_PAGES * PAGE) as u64
    }

    /// The model, which knows of all writes up to now.
    ///
    /// # Errors
    ///
    /// More writes failed than can have.
    pub(crate) fn model(&self) -> Result<MutexGuard<'_, Model>> {
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, writer) in self.writers.iter().enumerate() {
            if let Some(counts) = writer.counts()? {
                model.advance(number, counts.made, counts.failed)?;
            }
        }
        Ok(model)
    }

    /// Stops a writer: the model knows of its last write.
    ///
    /// # Errors
    ///
    /// As of [`Self::model`].
    pub(crate) fn stop(&self, writer: usize) -> Result<()> {
        let mut model = self.model()?;
        if let Some(counts) = self.writers[writer].stop()? {
            model.advance(writer, counts.made, counts.failed)?;
        }
        Ok(())
    }

    /// Has a writer begin to write.
    ///
    /// # Errors
    ///
    /// As of [`Self::model`], or it does not.
    pub(crate) fn start(&self, writer: usize, seed: u64) -> Result<()> {
        let mut model = self.model()?;
        model.start(writer, seed);
        self.writers[writer].start(&self.target, seed)
    }

    /// The first words of a page of the area.
    ///
    /// # Errors
    ///
    /// There is no such page.
    pub(crate) fn words(&self, page: usize) -> Result<[u64; 2]> {
        let at = page * PAGE;
        Ok([self.area.load(at)?, self.area.load(at + 8)?])
    }

    /// Frees everything, object by object: each must be free to go.
    ///
    /// # Errors
    ///
    /// One is in use.
    pub(crate) fn close(self) -> Result<()> {
        for writer in &self.writers {
            writer.stop()?;
            vfio::detach(writer.file(), None).context("cannot detach a writer")?;
        }
        for slot in 0..self.hwpts.len() {
            self.iommufd
                .destroy(self.hwpt(slot))
                .with_context(|| format!("cannot free table {slot}, which no device has"))?;
        }
        self.iommufd
            .destroy(self.ioas)
            .context("cannot free the address space, which no table has")
    }
}

/// The memory that devices write to, in leaves of one size.
fn area(leaf: Leaf) -> Result<Memory> {
    let size = AREA_PAGES * PAGE;
    if leaf == Leaf::Small {
        return Ok(Memory::new(c"soak", size, None)?);
    }
    let huge = || {
        Memory::new(c"soak", size, Some(LARGE as u64))
            .context("cannot get huge pages; write 8 to /proc/sys/vm/nr_hugepages")
    };
    // The kernel may allocate adjacent huge pages, which AMD's tables map by one leaf: every other
    // page goes to memory that is not used.
    let (area, spare) = (huge()?, huge()?);
    for at in (0..size).step_by(LARGE) {
        area.store(at, 0)?;
        spare.store(at, 0)?;
    }
    Ok(area)
}
