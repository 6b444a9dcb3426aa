// SPDX-License-Identifier: GPL-2.0

//! Memory that an IOMMU walks or reads: tables, rings, directories.
//!
//! [`TablePages`] owns zeroed, naturally aligned pages of the kernel's own IOMMU page allocator, so
//! that they are counted as secondary page tables (`SecPageTables` in `/proc/meminfo`). Hardware
//! reads and writes them at any time, so there is no reference to plain data in them: code accesses
//! them as [`Atomic`] 64-bit words.
//!
//! Memory that hardware may reach must not be freed before hardware has forgotten it. Dropping a
//! [`TablePages`] frees at once: flush first, or give the memory to an
//! [`IotlbGather`](super::super::gather::IotlbGather), which frees after the flush.

use core::ptr::NonNull;

use kernel::{
    alloc::{
        flags::__GFP_NOWARN,
        Flags, //
    },
    bindings,
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

use super::super::{
    ffi,
    pt::{
        Pause,
        Table,
        TableMem,
        Walk,
        TABLE_BYTES, //
    }, //
};

/// Flags of an allocation, as the IOMMU core passes them to `map_pages`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Gfp(bindings::gfp_t);

impl Gfp {
    /// May sleep.
    pub const KERNEL: Self = Self(bindings::GFP_KERNEL);

    /// May sleep; charged to the current task's memory control group.
    pub const KERNEL_ACCOUNT: Self = Self(bindings::GFP_KERNEL_ACCOUNT);

    /// Never sleeps.
    pub const ATOMIC: Self = Self(bindings::GFP_ATOMIC);

    /// Free memory only, charged to the current task's memory control group: for what the caller
    /// can do without. Never sleeps, and says nothing if there is none.
    pub fn spare() -> Self {
        Self::from(GFP_NOWAIT | __GFP_NOWARN | (GFP_KERNEL_ACCOUNT & !GFP_KERNEL))
    }

    /// Takes over flags that the core handed to a callback.
    #[inline]
    pub fn from_raw(gfp: bindings::gfp_t) -> Self {
        Self(gfp)
    }

    /// Tells whether an allocation with these flags may sleep.
    #[inline]
    pub fn may_sleep(self) -> bool {
        self.0 & (1 << bindings::___GFP_DIRECT_RECLAIM_BIT) != 0
    }

    /// The flags as C knows them.
    #[inline]
    pub(in super::super) fn as_raw(self) -> bindings::gfp_t {
        self.0
    }
}

impl From<Flags> for Gfp {
    #[inline]
    fn from(flags: Flags) -> Self {
        Self(flags.as_raw())
    }
}

/// Zeroed pages that hardware may be pointed to.
///
/// # Invariants
///
/// - `virt` came from `ffi::alloc_pages()` for `size` bytes and is owned by this object.
/// - `size` is a power of two and not less than a page; `virt` and `phys` are aligned to it.
/// - `phys` is the physical address of `virt`.
///
/// # Examples
///
/// ```
/// use kernel::iommu::hw::pages::{Gfp, TablePages};
/// use kernel::sync::atomic::Relaxed;
///
/// let ring = TablePages::new(2 * kernel::page::PAGE_SIZE, Gfp::KERNEL, None)?;
/// assert_eq!(ring.words().len(), ring.size() / 8);
/// assert_eq!(ring.phys() % ring.size() as u64, 0);
///
/// ring.word(3)?.store(0x17, Relaxed);
/// assert_eq!(ring.word(3)?.load(Relaxed), 0x17);
/// assert!(ring.word(ring.size() / 8).is_err());
/// # Ok::<(), Error>(())
/// ```
pub struct TablePages {
    virt: NonNull<u8>,
    phys: u64,
    size: usize,
}

// SAFETY: The memory belongs to the object, and all access to it is through atomics.
unsafe impl Send for TablePages {}
// SAFETY: As above: shared access is through atomics.
unsafe impl Sync for TablePages {}

impl TablePages {
    /// Allocates zeroed memory of at least `size` bytes, near the NUMA node `node` if one is given.
    ///
    /// Context: may sleep if `gfp` does.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a size of zero or one that no allocation can have, `ENOMEM`.
    pub fn new(size: usize, gfp: Gfp, node: Option<u32>) -> Result<Self> {
        if size == 0 {
            return Err(EINVAL);
        }
        let size = size
            .checked_next_power_of_two()
            .ok_or(EINVAL)?
            .max(PAGE_SIZE);
        let virt = ffi::alloc_pages(node, gfp.as_raw(), size).ok_or(ENOMEM)?;
        // SAFETY: The allocator returns addresses of the linear map.
        let phys = unsafe { ffi::virt_to_phys(virt) };
        // INVARIANT: The allocator rounds up to a power of two of pages, which `size` is already,
        // and aligns physically to it.
        Ok(Self { virt, phys, size })
    }

    /// The physical address, for hardware.
    #[inline]
    pub fn phys(&self) -> u64 {
        self.phys
    }

    /// The size in bytes, a power of two.
    #[inline]
    pub fn size(&self) -> usize {
        self.size
    }

    /// The memory as 64-bit words.
    #[inline]
    pub fn words(&self) -> &[Atomic<u64>] {
        // SAFETY:
        // - `virt` is valid for `size` bytes for as long as `self` lives, and page aligned.
        // - `Atomic<u64>` has the layout of `u64` (`Atomic::from_ptr` relies on it), any bit
        //   pattern is valid, and it may change under a shared reference.
        unsafe {
            core::slice::from_raw_parts(
                self.virt.as_ptr().cast::<Atomic<u64>>(),
                self.size / size_of::<u64>(),
            )
        }
    }

    /// The word at `index`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the memory has no such word.
    #[inline]
    pub fn word(&self, index: usize) -> Result<&Atomic<u64>> {
        self.words().get(index).ok_or(EINVAL)
    }

    /// Writes the words at `index` and `index + 1` at once: hardware that reads both in one access
    /// sees the old ones or the new ones. Ordered like a release store.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `index` is odd or the memory has no such words; `EOPNOTSUPP` where
    /// [`can_store_pairs`] is false.
    #[inline]
    pub fn store_pair(&self, index: usize, values: [u64; 2]) -> Result {
        if !index.is_multiple_of(2) {
            return Err(EINVAL);
        }
        let words = self.words().get(index..index + 2).ok_or(EINVAL)?;
        if !ffi::can_store_pair() {
            return Err(EOPNOTSUPP);
        }
        // SAFETY: The CPU can store pairs, as was just checked. The two words are of this
        // memory, which is aligned to a page, at an even index; all access to it is atomic. Their
        // provenance is that of `virt`, since `Atomic` allows to write through a shared reference.
        unsafe { ffi::store_pair(words.as_ptr().cast_mut().cast(), values) };
        Ok(())
    }

    /// Sets every word to zero. Hardware may see any mixture while this runs.
    pub fn clear(&self) {
        for word in self.words() {
            word.store(0, Relaxed);
        }
    }

    /// Makes `len` bytes from `offset` visible to a device that does not snoop the caches. Bytes
    /// beyond the end are ignored.
    ///
    /// Only if [`CAN_FLUSH`]. A store that hardware may act on has to be followed by this on a unit
    /// whose accesses are not coherent, before the store that makes it reachable.
    #[inline]
    pub fn flush(&self, offset: usize, len: usize) {
        let Some(room) = self.size.checked_sub(offset) else {
            return;
        };
        // SAFETY: The bytes from `offset` on lie in the memory, since `room` limits them, and it
        // lives as long as `self`.
        unsafe { flush_cache(self.virt.as_ptr().wrapping_add(offset), len.min(room)) };
    }
}

impl Drop for TablePages {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the pages came from the allocator and are owned. A driver
        // that pointed hardware to them keeps this object until hardware has forgotten them.
        unsafe { ffi::free_pages(self.virt) }
    }
}

/// Whether the CPU can write two words at once, see [`TablePages::store_pair`].
pub fn can_store_pairs() -> bool {
    ffi::can_store_pair()
}

/// Whether the kernel's memory is encrypted (SME), so that every address for hardware needs a bit
/// that says so. These abstractions do not set it: a driver refuses units whose walks depend on
/// that.
pub fn are_encrypted() -> bool {
    ffi::memory_is_encrypted()
}

/// Whether memory can be made visible to units that do not snoop, by [`TablePages::flush`].
///
/// On x86 that needs only a virtual address. Elsewhere it needs the DMA API and a device, which a
/// remapping unit need not be: a driver refuses such a unit there.
pub const CAN_FLUSH: bool = cfg!(CONFIG_X86);

/// Logs once that a driver has not checked [`CAN_FLUSH`].
///
/// # Safety
///
/// None. The function is unsafe because that of x86 is.
#[cfg(not(CONFIG_X86))]
unsafe fn flush_cache(_virt: *mut u8, _len: usize) {
    kernel::pr_err_once!(
        "iommu: a unit that does not snoop cannot be driven on this architecture\n"
    );
}

/// Writes cache lines back, so that a device that does not snoop sees them.
///
/// # Safety
///
/// `virt` is valid for reads of `len` bytes.
#[cfg(CONFIG_X86)]
unsafe fn flush_cache(mut virt: *mut u8, mut len: usize) {
    while len > 0 {
        // A multiple of any cache line, and within the C function's argument.
        let step = len.min(1 << 30);
        // SAFETY: `virt` is valid for reads of `len` bytes (contract), and `step` is at most `len`.
        // CAST: `step` has at most 31 bits.
        unsafe { ffi::flush_cache(virt, step as u32) };
        virt = virt.wrapping_add(step);
        len -= step;
    }
}

/// The kernel's memory for page tables of the kind [`pt`](super::super::pt).
///
/// # Examples
///
/// ```
/// use kernel::iommu::{
///     hw::pages::{Gfp, KernelTables},
///     pt::{fmt::VtdSs, Config, PageTable},
/// };
///
/// let config = Config {
///     levels: 4,
///     max_levels: 4,
///     page_sizes: 1 << 12 | 1 << 21,
///     input_lg2: 48,
///     output_lg2: 46,
///     coherent: true,
///     marks: true,
///     splits: false,
/// };
/// let table = PageTable::<VtdSs, _>::new(KernelTables::new(None), config, Gfp::KERNEL)?;
/// # let _ = table;
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct KernelTables {
    node: Option<u32>,
}

impl KernelTables {
    /// Tables near the NUMA node `node`, if one is given: that of the unit which walks them.
    pub const fn new(node: Option<u32>) -> Self {
        Self { node }
    }
}

/// A harvest that runs in the tables of a domain: see [`pt`](super::super::pt).
pub type KernelWalk<'w> = Walk<'w, KernelTables>;

/// A time without harvests of the page tables of a domain.
pub type KernelPause<'w> = Pause<'w, KernelTables>;

// SAFETY:
// - Pages of the allocator are zeroed, no other code has them, they are in the linear map, are
//   valid until freed, and are reached by the hardware through their physical addresses.
// - `virt()` and `phys()` are the linear map and its inverse.
// - Pages are aligned to their size, which is that of a table, and those of a top, which are one
//   allocation, to the size of them all.
unsafe impl TableMem for KernelTables {
    type Flags = Gfp;

    #[inline]
    fn alloc(&self, flags: Gfp) -> Result<NonNull<Table>> {
        const_assert!(TABLE_BYTES == PAGE_SIZE);
        ffi::alloc_pages(self.node, flags.as_raw(), TABLE_BYTES)
            .map(NonNull::cast)
            .ok_or(ENOMEM)
    }

    #[inline]
    unsafe fn free(&self, table: NonNull<Table>) {
        // SAFETY: By the contract of the trait, nothing uses the table, and it came from `alloc()`.
        unsafe { ffi::free_pages(table.cast()) }
    }

    #[inline]
    fn alloc_top(&self, lg2: u32, flags: Gfp) -> Result<NonNull<Table>> {
        // OVERFLOW: A top has at most 16 tables, see `Format::TOP_LG2`.
        ffi::alloc_pages(self.node, flags.as_raw(), TABLE_BYTES << lg2)
            .map(NonNull::cast)
            .ok_or(ENOMEM)
    }

    #[inline]
    unsafe fn free_top(&self, top: NonNull<Table>, _lg2: u32) {
        // SAFETY: By the contract of the trait, nothing uses the top. It is one allocation of
        // `ffi::alloc_pages()`, from `alloc_top()`, and never on a free list: only tables that were
        // detached are.
        unsafe { ffi::free_pages(top.cast()) }
    }

    #[inline]
    fn phys(&self, table: NonNull<Table>) -> u64 {
        // SAFETY: A table of this memory is in the linear map.
        unsafe { ffi::virt_to_phys(table.cast()) }
    }

    #[inline(always)]
    unsafe fn virt(&self, phys: u64) -> NonNull<Table> {
        // SAFETY: By the contract of the trait, `phys` is that of a page in the linear map.
        unsafe { ffi::phys_to_virt(phys) }.cast()
    }

    #[inline]
    unsafe fn flush(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: By the contract of the trait, the bytes lie in one table of this memory.
        unsafe { flush_cache(start.as_ptr(), bytes) };
    }
}
