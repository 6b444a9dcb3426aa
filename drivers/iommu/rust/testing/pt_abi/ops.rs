// SPDX-License-Identifier: GPL-2.0

//! The operations that C calls, one table of operations for each format.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

use kernel::{
    bindings,
    error::from_result,
    ffi::{
        c_int,
        c_uint,
        c_ulong, //
    },
    iommu::{
        dirty::DirtyBitmap,
        gather::{
            IotlbGather,
            LocalGather, //
        },
        hw::pages::Gfp,
        pt::{
            Exclusive,
            PhysAddr,
            Prot,
            Range,
            Stable, //
        }, //
    },
    pr_err_once,
    prelude::*,
    warn_on, //
};

use super::{
    format::CFormat,
    gather::{
        MapGather,
        UnmapGather, //
    },
    init,
    table::{
        low_mask,
        Table, //
    }, //
};

/// The access rights among the bits of the IOMMU API.
#[inline(always)]
fn prot_of(bits: c_uint) -> Prot {
    let mut prot = Prot::NONE;

    if bits & bindings::IOMMU_READ != 0 {
        prot |= Prot::READ;
    }
    if bits & bindings::IOMMU_WRITE != 0 {
        prot |= Prot::WRITE;
    }
    prot
}

/// The operations on tables of the format `C`.
pub(super) struct Ops<C: CFormat>(PhantomData<C>);

impl<C: CFormat> Ops<C> {
    /// Whether the kernel has a caller for dirty queries, and the format supports them.
    const TRACKS: bool = C::TRACKS && cfg!(CONFIG_IOMMUFD_DRIVER);

    /// `struct pt_iommu_ops` of the format.
    pub(super) const TABLE: bindings::pt_iommu_ops = bindings::pt_iommu_ops {
        map_range: Some(Self::map_range_callback),
        unmap_range: Some(Self::unmap_range_callback),
        set_dirty: if Self::TRACKS && cfg!(CONFIG_IOMMUFD_TEST) {
            Some(Self::set_dirty_callback)
        } else {
            None
        },
        get_info: Some(Self::get_info_callback),
        deinit: Some(Self::deinit_callback),
    };

    /// The rights of a leaf, with those that the features add; `None` if the features refuse the
    /// leaf.
    #[inline(always)]
    fn leaf_prot(table: &Table<'_, C>, mut prot: Prot) -> Option<Prot> {
        if table.features().has(C::FORCE_WRITEABLE) && !prot.contains(Prot::WRITE) {
            return None;
        }
        if table.features().has(C::FORCE_COHERENCE) {
            prot |= Prot::SNOOP;
        }
        Some(prot)
    }

    /// Checks a mapping in the order of C, so that the first of several mistakes decides the error.
    fn check(
        table: &Table<'_, C>,
        iova: u64,
        phys: PhysAddr,
        len: u64,
        prot: c_uint,
    ) -> Result<(Range, Prot)> {
        let prot = prot_of(prot);

        if warn_on!(prot == Prot::NONE) {
            return Err(EINVAL);
        }
        if phys > low_mask(table.output_lg2()) {
            return Err(ERANGE);
        }
        let Some(prot) = Self::leaf_prot(table, prot) else {
            pr_err_once!("no read-only mappings where others nest (ERRATA_772415_SPR17)\n");
            return Err(EINVAL);
        };

        let range = Range::new(iova, len)?;
        // The sizes to which both addresses are aligned, and those that are not longer than the
        // range.
        let aligned = low_mask((iova | phys).trailing_zeros() + 1);
        let short = low_mask(u64::BITS - len.leading_zeros());

        if table.page_sizes() & aligned & short == 0 {
            return Err(ENXIO);
        }
        Ok((range, prot))
    }

    /// `map_range`: maps a range, and adds what was mapped to `mapped`.
    ///
    /// # Safety
    ///
    /// `iommu` is that of a live table of the format `C`. No other caller works on the range, or on
    /// what a leaf that begins in it maps. `mapped` is valid for reads and writes, and the caller
    /// has it for itself.
    unsafe extern "C" fn map_range_callback(
        iommu: *mut bindings::pt_iommu,
        iova: bindings::dma_addr_t,
        paddr: bindings::phys_addr_t,
        len: bindings::dma_addr_t,
        prot: c_uint,
        gfp: bindings::gfp_t,
        mapped: *mut usize,
    ) -> c_int {
        // SAFETY: `iommu` is that of a live table of the format `C` (contract).
        let table = unsafe { Table::<C>::from_raw(iommu) };
        let rights = Self::leaf_prot(&table, prot_of(prot));

        // Most calls map one page, and do not need what `map()` prepares.
        if let (Some(rights), Ok(range)) = (rights, Range::new(iova, len)) {
            // SAFETY: No other caller works on the range, or on a leaf that begins in it
            // (contract): the IOMMU API gives both to the caller of `iommu_map()`.
            let mut claim = unsafe { Exclusive::new(range, table.owner()) };

            if table.tree().map_page(&mut claim, paddr, rights) {
                // SAFETY: `mapped` is valid for reads and writes (contract).
                // CAST: A page.
                unsafe { *mapped += len as usize };
                return 0;
            }
        }

        // SAFETY: `iommu` is that of a live table of the format `C`, no other caller works on the
        // range, and `mapped` is valid for reads and writes (contract). The claim above is gone.
        from_result(|| unsafe { Self::map(iommu, iova, paddr, len, prot, gfp, mapped) }.map(|()| 0))
    }

    /// Does what `map_range` has left to do.
    ///
    /// # Safety
    ///
    /// As for [`Ops::map_range_callback`].
    #[inline(never)]
    unsafe fn map(
        iommu: *mut bindings::pt_iommu,
        iova: bindings::dma_addr_t,
        paddr: bindings::phys_addr_t,
        len: bindings::dma_addr_t,
        prot: c_uint,
        gfp: bindings::gfp_t,
        mapped: *mut usize,
    ) -> Result {
        // SAFETY: `iommu` is that of a live table of the format `C` (contract).
        let table = unsafe { Table::<C>::from_raw(iommu) };
        let (range, prot) = Self::check(&table, iova, paddr, len, prot)?;
        // SAFETY: No other caller works on the range, or on a leaf that begins in it (contract):
        // the IOMMU API gives both to the caller of `iommu_map()`.
        let mut claim = unsafe { Exclusive::new(range, table.owner()) };
        pin_init::stack_pin_init!(let local = LocalGather::new());
        let mut gather = MapGather::new(local.borrow(), &table);
        let gfp = Gfp::from_raw(gfp);
        let (done, result) = table.tree().map(&mut claim, paddr, prot, gfp, &mut gather);

        gather.finish();
        // SAFETY: `mapped` is valid for reads and writes (contract).
        // CAST: At most the range was mapped, whose length is an `unsigned long`.
        unsafe { *mapped += done as usize };
        match result {
            // The rights were checked, so the length is not aligned.
            Err(error) if error == EINVAL => Err(ENXIO),
            result => result,
        }
    }

    /// `unmap_range`: unmaps a range, and returns the number of bytes that were unmapped.
    ///
    /// # Safety
    ///
    /// `iommu` is that of a live table of the format `C`. No other caller works on the range, or on
    /// what a leaf that begins in it maps. `gather` is null, or an initialised gather that the
    /// caller has for itself; its list has tables of this page table only.
    unsafe extern "C" fn unmap_range_callback(
        iommu: *mut bindings::pt_iommu,
        iova: bindings::dma_addr_t,
        len: bindings::dma_addr_t,
        gather: *mut bindings::iommu_iotlb_gather,
    ) -> usize {
        // SAFETY: `iommu` is that of a live table of the format `C` (contract).
        let table = unsafe { Table::<C>::from_raw(iommu) };
        let (Ok(range), Some(gather)) = (Range::new(iova, len), NonNull::new(gather)) else {
            return 0;
        };
        if !table.is_reached(&range) {
            return 0;
        }

        // SAFETY: No other caller works on the range, or on a leaf that begins in it (contract):
        // the IOMMU API gives both to the caller of `iommu_unmap()`.
        let mut claim = unsafe { Exclusive::new(range, table.owner()) };
        // SAFETY: `gather` is initialised, and the caller has it for itself during the call
        // (contract).
        let mut gather = unsafe { IotlbGather::from_raw(gather) };
        pin_init::stack_pin_init!(let local = LocalGather::new());
        let mut tables = UnmapGather::new(local.borrow());
        let done = table.tree().unmap(&mut claim, &mut tables);

        tables.finish(&table, Range::new(range.first(), done).ok(), &mut gather);
        // CAST: Addresses are `unsigned long`, and so is the difference of two.
        done as usize
    }

    /// `set_dirty`: marks the leaf of an address as written to, as the hardware would.
    ///
    /// # Safety
    ///
    /// `iommu` is that of a live table of the format `C`. No caller maps or unmaps the address
    /// meanwhile: iommufd's self-test, the only caller, leaves that to the test.
    unsafe extern "C" fn set_dirty_callback(
        iommu: *mut bindings::pt_iommu,
        iova: bindings::dma_addr_t,
    ) -> c_int {
        // SAFETY: `iommu` is that of a live table of the format `C` (contract).
        let table = unsafe { Table::<C>::from_raw(iommu) };
        // SAFETY: No caller maps or unmaps the address meanwhile (contract).
        let claim = unsafe { Stable::at(iova, table.owner()) };

        from_result(|| table.tree().set_dirty(&claim).map(|()| 0))
    }

    /// `get_info`: the leaf sizes that the table can have.
    ///
    /// # Safety
    ///
    /// `iommu` is that of a live table of the format `C`; `info` is valid for writes.
    unsafe extern "C" fn get_info_callback(
        iommu: *mut bindings::pt_iommu,
        info: *mut bindings::pt_iommu_info,
    ) {
        // SAFETY: `iommu` is that of a live table of the format `C` (contract).
        let table = unsafe { Table::<C>::from_raw(iommu) };
        let sizes = init::page_sizes::<C>(table.input_lg2(), table.output_lg2());

        // SAFETY: `info` is valid for writes (contract).
        unsafe { (*info).pgsize_bitmap = sizes };
    }

    /// `deinit`: frees all tables.
    ///
    /// # Safety
    ///
    /// `iommu` is that of a live table of the format `C`. Nothing uses the table any more, the
    /// hardware and its caches included.
    unsafe extern "C" fn deinit_callback(iommu: *mut bindings::pt_iommu) {
        // SAFETY: `iommu` is that of a live table of the format `C` (contract).
        let table = unsafe { Table::<C>::from_raw(iommu) };

        // SAFETY: Nothing uses the table any more, the hardware and its caches included (contract).
        unsafe { table.tree().free() }
    }

    /// `pt_iommu_<format>_iova_to_phys()`: the physical address that an address translates to, 0
    /// for none.
    ///
    /// # Safety
    ///
    /// `domain` is that of a live table of the format `C`; no caller maps or unmaps the address
    /// meanwhile.
    #[inline]
    pub(super) unsafe fn iova_to_phys(
        domain: *mut bindings::iommu_domain,
        iova: bindings::dma_addr_t,
    ) -> bindings::phys_addr_t {
        // SAFETY: `domain` is that of a live table of the format `C` (contract).
        let table = unsafe { Table::<C>::from_domain(domain) };
        // SAFETY: No caller maps or unmaps the address meanwhile (contract).
        let claim = unsafe { Stable::at(iova, table.owner()) };

        table.tree().translate(&claim, |phys| phys.unwrap_or(0))
    }

    /// `pt_iommu_<format>_read_and_clear_dirty()`: records the pages that were written to.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the format or the kernel does not track, `EINVAL` for an empty range,
    /// `EOVERFLOW` or `ERANGE` for one that reaches beyond the addresses.
    ///
    /// # Safety
    ///
    /// `domain` is that of a live table of the format `C`; no caller maps or unmaps anything in the
    /// range meanwhile. `dirty` is a valid dirty bitmap. Its `bitmap` is null, or valid and covers
    /// the range; its `gather` is null or initialised. The caller has all three for itself.
    #[inline]
    pub(super) unsafe fn read_and_clear_dirty(
        domain: *mut bindings::iommu_domain,
        iova: c_ulong,
        size: usize,
        flags: c_ulong,
        dirty: *mut bindings::iommu_dirty_bitmap,
    ) -> Result {
        if !Self::TRACKS {
            return Err(EOPNOTSUPP);
        }
        // SAFETY: `domain` is that of a live table of the format `C` (contract).
        let table = unsafe { Table::<C>::from_domain(domain) };
        // CAST: `unsigned long` and `size_t` have 64 bits here.
        let range = Range::new(iova as u64, size as u64)?;

        if !table.is_reached(&range) {
            return Err(ERANGE);
        }

        // SAFETY: No caller maps or unmaps anything in the range meanwhile (contract). FIXME:
        // iommufd does not keep that where a dma-buf is revoked (`iopt_revoke_notify()`). C's
        // tables have the same fault: C code frees them, and there is no count of walks that it
        // could ask.
        let claim = unsafe { Stable::new(range, table.owner()) };
        // SAFETY: `dirty` is a valid dirty bitmap, so it is not null; its bitmap covers the range,
        // and the caller has all of it for itself (contract).
        let mut sink = unsafe { DirtyBitmap::from_raw(NonNull::new_unchecked(dirty), range) };
        // CAST: `unsigned long` has 64 bits here.
        let clear = flags as u64 & u64::from(bindings::IOMMU_DIRTY_NO_CLEAR) == 0;

        table.tree().read_and_clear_dirty(&claim, clear, &mut sink)
    }
}
