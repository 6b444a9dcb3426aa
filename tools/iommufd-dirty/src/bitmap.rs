// SPDX-License-Identifier: GPL-2.0

//! One bit for each page of a range, in the layout of `IOMMU_HWPT_GET_DIRTY_BITMAP`.

use std::{
    fmt, iter,
    ops::{
        Range,
        RangeInclusive, //
    },
};

use crate::error::RangeError;

/// The largest page that the CPUs of this architecture may have, in bytes.
const BLOCK: usize = if cfg!(target_arch = "x86_64") {
    4 << 10
} else {
    64 << 10
};
const WORDS: usize = BLOCK / size_of::<u64>();
const BITS: usize = u64::BITS as usize;

/// A page of the CPU, for the words of a bitmap.
///
/// The kernel pins the bitmap in whole pages. An IOMMU driver that asks it to set bits behind the
/// bitmap gets them set, up to the end of what is pinned: the pages in which the bitmap lies, from
/// the bit on that is set, and one more if that bit is not at the start of a page
/// (`iova_bitmap_get()`).
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(target_arch = "x86_64", repr(C, align(0x1000)))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C, align(0x10000)))]
pub(crate) struct Block([u64; WORDS]);

const _: () = assert!(size_of::<Block>() == BLOCK && align_of::<Block>() == BLOCK);

/// Which pages of a range of I/O addresses are dirty.
///
/// ```
/// let mut dirty = iommufd_dirty::Bitmap::new(4 << 30, 1 << 30, 4096)?;
/// dirty.set(3);
/// dirty.mark(0x1_0000_4800, 1)?;
/// assert_eq!(dirty.ranges().collect::<Vec<_>>(), [0x1_0000_3000..=0x1_0000_4fff]);
/// # Ok::<(), iommufd_dirty::RangeError>(())
/// ```
///
/// # Invariants
///
/// - `1 << shift` is the page size, at least 4096; `iova` is a multiple of it.
/// - `pages` is from 1 to [`Self::MAX_PAGES`]; no address of the range is above `u64::MAX`.
/// - `blocks` has a bit for each page, and a block behind the last of these.
/// - All bits behind those are 0, except while the kernel has the blocks.
#[derive(Clone, PartialEq, Eq)]
pub struct Bitmap {
    blocks: Vec<Block>,
    iova: u64,
    shift: u32,
    pages: usize,
}

/// How many pages of `1 << shift` bytes a range has.
fn check(iova: u64, length: u64, shift: u32) -> Result<u64, RangeError> {
    let page_size = 1 << shift;
    if length == 0 {
        return Err(RangeError::Empty);
    }
    if iova % page_size != 0 || length % page_size != 0 {
        return Err(RangeError::Unaligned {
            iova,
            length,
            page_size,
        });
    }
    if iova.checked_add(length - 1).is_none() {
        return Err(RangeError::PastEnd { iova, length });
    }
    Ok(length >> shift)
}

impl Bitmap {
    /// The most pages that a bitmap can have: 8 TiB with pages of 4 KiB, and 256 MiB of memory. KVM
    /// has the same limit for a memory slot, less one page.
    pub const MAX_PAGES: usize = 1 << 31;

    /// A bitmap of `length` bytes from `iova` on, with a bit for each page of `page_size` bytes,
    /// none of which is dirty.
    ///
    /// `page_size` is the unit of the report, and may be smaller or larger than that of the page
    /// tables.
    ///
    /// # Errors
    ///
    /// - [`RangeError::PageSize`] if `page_size` is not a power of two, or below 4096.
    /// - [`RangeError::Empty`], [`RangeError::Unaligned`] or [`RangeError::PastEnd`] if the range
    ///   is no whole number of pages, at least one, below 2^64.
    /// - [`RangeError::TooLong`] or [`RangeError::NoMemory`] if they are too many.
    pub fn new(iova: u64, length: u64, page_size: u64) -> Result<Self, RangeError> {
        if !page_size.is_power_of_two() || page_size < 4096 {
            return Err(RangeError::PageSize(page_size));
        }
        let shift = page_size.trailing_zeros();
        let many = check(iova, length, shift)?;
        let pages = usize::try_from(many)
            .ok()
            .filter(|&pages| pages <= Self::MAX_PAGES)
            .ok_or(RangeError::TooLong(many))?;
        let count = pages.div_ceil(BITS * WORDS) + 1;
        let mut blocks = Vec::new();
        blocks
            .try_reserve_exact(count)
            .map_err(|_| RangeError::NoMemory(pages))?;
        blocks.resize(count, Block([0; WORDS]));
        // INVARIANT: `check` and the lines above have checked the range; a block has `BITS * WORDS`
        // bits, all 0.
        Ok(Self {
            blocks,
            iova,
            shift,
            pages,
        })
    }

    /// The address of the first page.
    pub fn iova(&self) -> u64 {
        self.iova
    }

    /// The bytes of a page.
    pub fn page_size(&self) -> u64 {
        1 << self.shift
    }

    /// How many pages the range has.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// The bytes of the range.
    pub fn length(&self) -> u64 {
        self.bytes(&(0..self.pages))
    }

    /// The bytes of some pages of the range.
    fn bytes(&self, pages: &Range<usize>) -> u64 {
        // CAST: `usize` has at most 64 bits. No overflow: the range has fewer than 2^64 bytes.
        (pages.len() as u64) << self.shift
    }

    /// Moves the range to another address: the bits stay, for memory that is mapped several times.
    ///
    /// # Errors
    ///
    /// [`RangeError::Unaligned`] or [`RangeError::PastEnd`], and nothing has changed.
    pub fn move_to(&mut self, iova: u64) -> Result<(), RangeError> {
        check(iova, self.length(), self.shift)?;
        // INVARIANT: `check` has checked the new range.
        self.iova = iova;
        Ok(())
    }

    /// The word of 64 pages; 0 behind the end.
    fn word(&self, index: usize) -> u64 {
        self.blocks
            .get(index / WORDS)
            .and_then(|block| block.0.get(index % WORDS))
            .copied()
            .unwrap_or(0)
    }

    fn word_mut(&mut self, index: usize) -> Option<&mut u64> {
        self.blocks
            .get_mut(index / WORDS)
            .and_then(|block| block.0.get_mut(index % WORDS))
    }

    /// The bits, 64 pages to a word, the first page in bit 0 of the first word: the layout of KVM's
    /// dirty log, too.
    pub fn words(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.pages.div_ceil(BITS)).map(|index| self.word(index))
    }

    /// Makes all pages clean.
    pub fn clear(&mut self) {
        self.blocks.iter_mut().for_each(|block| block.0.fill(0));
    }

    /// Makes all pages dirty.
    pub fn set_all(&mut self) {
        self.set_run(0..self.pages);
    }

    /// Makes a page dirty; a number that no page has is ignored.
    pub fn set(&mut self, page: usize) {
        if page < self.pages {
            self.set_run(page..page + 1);
        }
    }

    /// Makes a page clean; a number that no page has is ignored.
    pub fn unset(&mut self, page: usize) {
        if page < self.pages {
            if let Some(word) = self.word_mut(page / BITS) {
                *word &= !(1 << (page % BITS));
            }
        }
    }

    /// Makes pages dirty, all of which the range must have.
    fn set_run(&mut self, run: Range<usize>) {
        let mut page = run.start;
        while page < run.end {
            let count = (BITS - page % BITS).min(run.end - page);
            if let Some(word) = self.word_mut(page / BITS) {
                *word |= (u64::MAX >> (BITS - count)) << (page % BITS);
            }
            page += count;
        }
    }

    /// Makes each page dirty that has a byte of the `length` bytes from `iova` on; none if `length`
    /// is 0.
    ///
    /// # Errors
    ///
    /// [`RangeError::Outside`] if a byte is not in the range, and nothing has changed.
    pub fn mark(&mut self, iova: u64, length: u64) -> Result<(), RangeError> {
        let outside = RangeError::Outside { iova, length };
        if length == 0 {
            return Ok(());
        }
        let first = iova.checked_sub(self.iova).ok_or(outside)? >> self.shift;
        let last_iova = iova.checked_add(length - 1).ok_or(outside)?;
        let last = (last_iova - self.iova) >> self.shift;
        match (usize::try_from(first), usize::try_from(last)) {
            (Ok(first), Ok(last)) if last < self.pages => self.set_run(first..last + 1),
            _ => return Err(outside),
        }
        Ok(())
    }

    /// Makes dirty what is dirty in `other`, which may have other pages: each page that overlaps
    /// one of those.
    ///
    /// # Errors
    ///
    /// [`RangeError::Outside`] if the range of `other` is not inside this one, even if nothing is
    /// dirty there. Nothing has changed then.
    pub fn merge(&mut self, other: &Self) -> Result<(), RangeError> {
        let last = |bitmap: &Self| bitmap.iova + (bitmap.length() - 1);
        if other.iova < self.iova || last(other) > last(self) {
            return Err(RangeError::Outside {
                iova: other.iova,
                length: other.length(),
            });
        }
        if (other.iova, other.shift) == (self.iova, self.shift) {
            for (index, word) in other.words().enumerate() {
                if let Some(mine) = self.word_mut(index) {
                    *mine |= word;
                }
            }
            return Ok(());
        }
        for run in other.runs() {
            self.mark(other.address(run.start), other.bytes(&run))?;
        }
        Ok(())
    }

    /// The address of a page of the range.
    fn address(&self, page: usize) -> u64 {
        // CAST: `usize` has at most 64 bits. No overflow: the range ends below 2^64.
        self.iova + ((page as u64) << self.shift)
    }

    /// Whether a page is dirty; one that the range does not have is not.
    pub fn contains(&self, page: usize) -> bool {
        page < self.pages && (self.word(page / BITS) >> (page % BITS)) & 1 != 0
    }

    /// How many pages are dirty.
    pub fn count(&self) -> usize {
        // CAST: A word has at most 64 bits set.
        self.words().map(|word| word.count_ones() as usize).sum()
    }

    /// The first page from `from` on that is dirty, or the first that is not.
    fn find(&self, from: usize, dirty: bool) -> Option<usize> {
        let mut page = from;
        while page < self.pages {
            let word = self.word(page / BITS);
            let rest = if dirty { word } else { !word } >> (page % BITS);
            if rest != 0 {
                // CAST: A word has at most 64 trailing zeroes.
                let found = page + rest.trailing_zeros() as usize;
                return (found < self.pages).then_some(found);
            }
            page = (page / BITS + 1) * BITS;
        }
        None
    }

    /// The longest runs of dirty pages, ascending.
    fn runs(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut from = 0;
        iter::from_fn(move || {
            let start = self.find(from, true)?;
            from = self.find(start, false).unwrap_or(self.pages);
            Some(start..from)
        })
    }

    /// The dirty addresses, from the first to the last byte of each run of dirty pages, ascending.
    /// Two of them have at least one clean page between them.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        self.runs().map(|run| {
            let first = self.address(run.start);
            first..=first + (self.bytes(&run) - 1)
        })
    }

    /// The numbers of the dirty pages, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.runs().flatten()
    }

    /// The memory for the kernel to set bits in. [`Self::take_overrun`] must follow.
    pub(crate) fn blocks_mut(&mut self) -> &mut [Block] {
        &mut self.blocks
    }

    /// Clears the bits behind those of the pages, and says whether one was set.
    pub(crate) fn take_overrun(&mut self) -> bool {
        let first = self.pages / BITS;
        let mut found = false;
        for index in first..self.blocks.len() * WORDS {
            let kept = if index == first { self.pages % BITS } else { 0 };
            if let Some(word) = self.word_mut(index) {
                let behind = *word & (u64::MAX << kept);
                // INVARIANT: Only the bits of pages stay.
                *word &= !behind;
                found |= behind != 0;
            }
        }
        found
    }
}

impl fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bitmap")
            .field("iova", &self.iova)
            .field("page_size", &self.page_size())
            .field("pages", &self.pages)
            .field("dirty", &self.runs().collect::<Vec<_>>())
            .finish()
    }
}
