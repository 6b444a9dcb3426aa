// SPDX-License-Identifier: GPL-2.0

//! `struct iommu_domain_ops` for a [`PagingDomain`]: one callback for each operation.

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
    prelude::*, //
};

use super::{
    super::{
        attach::Prepared,
        device::Capability,
        domain::{
            self,
            Domain,
            DomainCallbacks, //
        },
        ffi,
        gather::{
            IotlbGather,
            LocalGather, //
        },
        hw::pages::Gfp,
        ops::{
            Driver,
            PagingDomain, //
        },
        pt::{
            Exclusive,
            Range,
            Stable, //
        },
        registry::{
            Endpoint,
            Inner,
            Registered, //
        },
        tables::Tables,
        values::{
            self,
            AllocFlags,
            DeviceSlot,
            Flush, //
        }, //
    },
    dirty::DirtyTable,
    lookup::{
        endpoint,
        inner,
        range, //
    }, //
};

/// The C table of a kind of paging domains.
pub(in super::super) struct DomainTable<P: PagingDomain>(PhantomData<P>);

/// Makes a paging domain.
///
/// # Errors
///
/// The errors of [`Domain::new`].
pub(in super::super) fn new_domain<P: PagingDomain>(
    data: impl PinInit<P, Error>,
    flags: AllocFlags,
) -> Result<Pin<KBox<Domain<P>>>>
where
    P::Driver: Registered,
{
    let callbacks = DomainCallbacks {
        ops: DomainTable::<P>::table(),
        ranges: DomainTable::<P>::range_table(),
        dirty: DirtyTable::<P>::table(),
    };
    // SAFETY: Each callback of `DomainTable<P>` and `DirtyTable<P>` asks for a live domain of type
    // `P`.
    unsafe { Domain::new(data, flags, callbacks) }
}

impl<P: PagingDomain> DomainTable<P>
where
    P::Driver: Registered,
{
    const TABLE: bindings::iommu_domain_ops = bindings::iommu_domain_ops {
        attach_dev: Some(Self::attach_dev_callback),
        set_dev_pasid: if P::PASIDS {
            Some(Self::set_dev_pasid_callback)
        } else {
            None
        },
        map_pages: Some(Self::map_pages_callback),
        unmap_pages: Some(Self::unmap_pages_callback),
        flush_iotlb_all: Some(Self::flush_iotlb_all_callback),
        iotlb_sync_map: Some(Self::iotlb_sync_map_callback),
        iotlb_sync: Some(Self::iotlb_sync_callback),
        iova_to_phys: Some(Self::iova_to_phys_callback),
        enforce_cache_coherency: Some(Self::enforce_cache_coherency_callback),
        free: Some(domain::free),
        ..pin_init::zeroed()
    };

    const RANGE_TABLE: bindings::pt_iommu_ops = bindings::pt_iommu_ops {
        map_range: Some(Self::map_range_callback),
        unmap_range: Some(Self::unmap_range_callback),
        // These are for drivers that use `generic_pt`; the core calls none.
        set_dirty: None,
        get_info: None,
        deinit: None,
    };

    /// The table.
    pub(in super::super) fn table() -> &'static bindings::iommu_domain_ops {
        &Self::TABLE
    }

    /// The table that the core uses instead of `map_pages` and `unmap_pages`, in kernels with
    /// `CONFIG_IOMMU_PT`: its callbacks take a whole range, whatever page sizes that needs.
    fn range_table() -> &'static bindings::pt_iommu_ops {
        &Self::RANGE_TABLE
    }

    /// Attaches a domain to a device that the core names.
    ///
    /// # Safety
    ///
    /// `domain` is a live domain of type `P`, and `dev` a valid device under the control of its
    /// driver.
    unsafe fn attach(
        domain: *mut bindings::iommu_domain,
        dev: *mut bindings::device,
        slot: DeviceSlot,
    ) -> Result {
        // SAFETY: `dev` is valid and under the driver's control, so it is not released during the
        // call. `domain` is live, so it is not freed during the call (contract).
        let (inner, endpoint, domain) = unsafe {
            (
                inner::<P::Driver>().ok_or(ENODEV)?,
                endpoint::<P::Driver>(dev).ok_or(ENODEV)?,
                Domain::<P>::from_raw(domain),
            )
        };
        Self::attach_to(&inner, endpoint, domain, slot)
    }

    /// Attaches a domain: prepare, install, commit.
    pub(in super::super) fn attach_to(
        inner: &Inner<P::Driver>,
        endpoint: &Endpoint<P::Driver>,
        domain: &Domain<P>,
        slot: DeviceSlot,
    ) -> Result {
        let user = !domain.is_dma_api();

        if domain.flags.dirty_tracking
            && !inner
                .driver
                .capable(&endpoint.data, Capability::DirtyTracking)
        {
            return Err(EINVAL);
        }

        let state = inner.state.lock();
        if user && state.is_closing() {
            return Err(ENODEV);
        }
        let installed = Prepared::new(
            &domain.data,
            &domain.attachments,
            &endpoint.data,
            &endpoint.slots,
            slot,
            user,
        )
        .and_then(|prepared| prepared.install(&domain.data));
        match installed {
            Ok(installed) => {
                installed.commit();
                Ok(())
            }
            Err(error) if user => Err(error),
            Err(error) => endpoint.fall_back(slot, error),
        }
    }

    /// `attach_dev`: the domain translates for the device from now on.
    ///
    /// # Safety
    ///
    /// `domain` is a live domain of type `P`, and `dev` a valid device under the control of its
    /// driver.
    unsafe extern "C" fn attach_dev_callback(
        domain: *mut bindings::iommu_domain,
        dev: *mut bindings::device,
        _old: *mut bindings::iommu_domain,
    ) -> c_int {
        // SAFETY: `attach()` has the same contract for `domain` and `dev`.
        from_result(|| unsafe { Self::attach(domain, dev, DeviceSlot::Rid) }.map(|()| 0))
    }

    /// `set_dev_pasid`: the domain translates for a PASID of the device from now on, in place of
    /// what it had. The core detaches through the blocked domain.
    ///
    /// # Safety
    ///
    /// `domain` is a live domain of type `P`, and `dev` a valid device under the control of its
    /// driver.
    unsafe extern "C" fn set_dev_pasid_callback(
        domain: *mut bindings::iommu_domain,
        dev: *mut bindings::device,
        pasid: bindings::ioasid_t,
        _old: *mut bindings::iommu_domain,
    ) -> c_int {
        // SAFETY: `attach()` has the same contract for `domain` and `dev`.
        from_result(|| unsafe { Self::attach(domain, dev, DeviceSlot::Pasid(pasid)) }.map(|()| 0))
    }

    /// Maps a range and adds what was mapped to `mapped`.
    ///
    /// # Safety
    ///
    /// `domain` is a live domain of type `P`. No other caller works on the range, or on what a leaf
    /// that begins in it maps. `mapped` is valid for reads and writes, and the caller has it for
    /// itself.
    #[inline(always)]
    unsafe fn map(
        domain: *mut bindings::iommu_domain,
        range: Option<Range>,
        paddr: bindings::phys_addr_t,
        prot: c_int,
        gfp: bindings::gfp_t,
        mapped: *mut usize,
    ) -> c_int {
        // SAFETY: `domain` is a live domain of type `P` (contract).
        let domain = unsafe { Domain::<P>::from_raw(domain) };
        let Some(range) = range else {
            return EINVAL.to_errno();
        };
        let _mapping = domain.lock_mapping();
        // SAFETY: No other caller works on the range, or on a leaf that begins in it (contract):
        // the IOMMU API gives both to the caller of `iommu_map()`.
        let mut claim = unsafe { Exclusive::new(range, &domain.data) };
        pin_init::stack_pin_init!(let local = LocalGather::new());
        let mut gather = local.borrow();

        let (done, mut result) = domain.data.map(
            &mut claim,
            ffi::from_phys(paddr),
            values::prot_from_raw(prot),
            Gfp::from_raw(gfp),
            &mut gather,
        );
        if gather.has_tables() {
            // Empty tables gave way to a large leaf. Hardware may have them cached, and what is
            // mapped must work when this returns.
            // SAFETY: The gather was empty, and only the map above had it.
            let flushed = unsafe { domain.sync(&mut gather) };
            // The caller unmaps what was mapped, since hardware may not see it.
            result = result.and(flushed);
        }
        // SAFETY: `mapped` is valid for reads and writes (contract).
        // CAST: The range came in a `usize`.
        // The core unmaps as much as this reports, so it must not exceed the request.
        unsafe { *mapped += done.min(range.size()) as usize };
        from_result(|| result.map(|()| 0))
    }

    /// Unmaps a range and returns the number of bytes that were unmapped.
    ///
    /// # Safety
    ///
    /// `domain` is a live domain of type `P`. No other caller works on the range, or on what a leaf
    /// that begins in it maps. `gather` is null, or an initialised gather that the caller has for
    /// itself and that only maps, unmaps and harvests of this domain have added to.
    #[inline(always)]
    unsafe fn unmap(
        domain: *mut bindings::iommu_domain,
        range: Option<Range>,
        gather: *mut bindings::iommu_iotlb_gather,
    ) -> usize {
        // SAFETY: `domain` is a live domain of type `P` (contract).
        let domain = unsafe { Domain::<P>::from_raw(domain) };
        let (Some(range), Some(gather)) = (range, NonNull::new(gather)) else {
            return 0;
        };
        let _mapping = domain.lock_mapping();
        // SAFETY: No other caller works on the range, or on a leaf that begins in it (contract):
        // the IOMMU API gives both to the caller of `iommu_unmap()`.
        let mut claim = unsafe { Exclusive::new(range, &domain.data) };
        // SAFETY: `gather` is initialised, and the caller has it for itself during the call
        // (contract).
        let mut gather = unsafe { IotlbGather::from_raw(gather) };
        // CAST: Addresses are `unsigned long`, and so is the difference of two.
        let unmapped = domain.data.unmap(&mut claim, &mut gather) as usize;
        if gather.is_queued() && gather.has_tables() {
            // The core would free the tables after `flush_iotlb_all`, which cannot report a
            // failure. So they are flushed here. Only the range waits for that flush.
            // SAFETY: Only maps, unmaps and harvests of this domain have added to the gather
            // (contract).
            let _ = unsafe { domain.sync(&mut gather) };
        }
        unmapped
    }

    /// `map_pages`: maps `pgcount` pages of `pgsize` bytes and adds what was mapped to `mapped`.
    ///
    /// # Safety
    ///
    /// `domain` is a live domain of type `P`. No other caller works on the range, or on what a leaf
    /// that begins in it maps. `mapped` is valid for reads and writes, and the caller has it for
    /// itself.
    unsafe extern "C" fn map_pages_callback(
        domain: *mut bindings::iommu_domain,
        iova: c_ulong,
        paddr: bindings::phys_addr_t,
        pgsize: usize,
        pgcount: usize,
        prot: c_int,
        gfp: bindings::gfp_t,
        mapped: *mut usize,
    ) -> c_int {
        let range = range(iova, pgsize, pgcount);

        // SAFETY: `map()` has the same contract, for the range that the arguments describe.
        unsafe { Self::map(domain, range, paddr, prot, gfp, mapped) }
    }

    /// `map_range`: maps `len` bytes and adds what was mapped to `mapped`.
    ///
    /// # Safety
    ///
    /// `iommu` is that of a live domain of type `P`. No other caller works on the range, or on what
    /// a leaf that begins in it maps. `mapped` is valid for reads and writes, and the caller has it
    /// for itself.
    unsafe extern "C" fn map_range_callback(
        iommu: *mut bindings::pt_iommu,
        iova: bindings::dma_addr_t,
        paddr: bindings::phys_addr_t,
        len: bindings::dma_addr_t,
        prot: c_uint,
        gfp: bindings::gfp_t,
        mapped: *mut usize,
    ) -> c_int {
        let range = Range::new(ffi::from_dma(iova), ffi::from_dma(len)).ok();

        // SAFETY: `map()` has the same contract, and the domain is the first member of `iommu`.
        // CAST: The bits of a set.
        unsafe { Self::map(iommu.cast(), range, paddr, prot as c_int, gfp, mapped) }
    }

    /// `unmap_pages`: unmaps `pgcount` pages of `pgsize` bytes and returns the number of bytes
    /// unmapped.
    ///
    /// # Safety
    ///
    /// `domain` is a live domain of type `P`. No other caller works on the range, or on what a leaf
    /// that begins in it maps. `gather` is null, or an initialised gather that the caller has for
    /// itself and that only maps, unmaps and harvests of this domain have added to.
    unsafe extern "C" fn unmap_pages_callback(
        domain: *mut bindings::iommu_domain,
        iova: c_ulong,
        pgsize: usize,
        pgcount: usize,
        gather: *mut bindings::iommu_iotlb_gather,
    ) -> usize {
        // SAFETY: `unmap()` has the same contract, for the range that the arguments describe.
        unsafe { Self::unmap(domain, range(iova, pgsize, pgcount), gather) }
    }

    /// `unmap_range`: unmaps `len` bytes and returns the number of bytes unmapped.
    ///
    /// # Safety
    ///
    /// `iommu` is that of a live domain of type `P`. No other caller works on the range, or on what
    /// a leaf that begins in it maps. `gather` is null, or an initialised gather that the caller
    /// has for itself and that only maps, unmaps and harvests of this domain have added to.
    unsafe extern "C" fn unmap_range_callback(
        iommu: *mut bindings::pt_iommu,
        iova: bindings::dma_addr_t,
        len: bindings::dma_addr_t,
        gather: *mut bindings::iommu_iotlb_gather,
    ) -> usize {
        let range = Range::new(ffi::from_dma(iova), ffi::from_dma(len)).ok();

        // SAFETY: `unmap()` has the same contract, and the domain is the first member of `iommu`.
        unsafe { Self::unmap(iommu.cast(), range, gather) }
    }

    /// `flush_iotlb_all`: makes hardware forget all translations of the domain.
    ///
    /// # Safety
    ///
    /// `domain` is a live domain of type `P`.
    unsafe extern "C" fn flush_iotlb_all_callback(domain: *mut bindings::iommu_domain) {
        // SAFETY: `domain` is a live domain of type `P` (contract).
        let domain = unsafe { Domain::<P>::from_raw(domain) };
        // The callback cannot return an error.
        let _ = domain.flush(Flush::All);
    }

    /// `iotlb_sync_map`: makes hardware see what was mapped.
    ///
    /// # Safety
    ///
    /// `domain` is a live domain of type `P`.
    unsafe extern "C" fn iotlb_sync_map_callback(
        domain: *mut bindings::iommu_domain,
        iova: c_ulong,
        size: usize,
    ) -> c_int {
        // SAFETY: `domain` is a live domain of type `P` (contract).
        let domain = unsafe { Domain::<P>::from_raw(domain) };
        from_result(|| {
            let range = range(iova, size, 1).ok_or(EINVAL)?;
            domain.data.sync_map(range, domain.attachments.tags())?;
            Ok(0)
        })
    }

    /// `iotlb_sync`: makes hardware forget what was gathered, then frees the tables on the list.
    ///
    /// # Safety
    ///
    /// `domain` is a live domain of type `P`. `gather` is null, or an initialised gather that the
    /// caller has for itself and that only maps, unmaps and harvests of this domain have added to.
    unsafe extern "C" fn iotlb_sync_callback(
        domain: *mut bindings::iommu_domain,
        gather: *mut bindings::iommu_iotlb_gather,
    ) {
        // SAFETY: `domain` is a live domain of type `P` (contract).
        let domain = unsafe { Domain::<P>::from_raw(domain) };
        let Some(gather) = NonNull::new(gather) else {
            return;
        };
        // SAFETY: `gather` is initialised, and the caller has it for itself during the call
        // (contract).
        let mut gather = unsafe { IotlbGather::from_raw(gather) };
        // The callback cannot return an error.
        // SAFETY: Only maps, unmaps and harvests of this domain have added to the gather
        // (contract).
        let _ = unsafe { domain.sync(&mut gather) };
    }

    /// `iova_to_phys`: the physical address that an address translates to, 0 for none.
    ///
    /// # Safety
    ///
    /// `domain` is a live domain of type `P`; no caller maps or unmaps the address during the
    /// call.
    unsafe extern "C" fn iova_to_phys_callback(
        domain: *mut bindings::iommu_domain,
        iova: bindings::dma_addr_t,
    ) -> bindings::phys_addr_t {
        // SAFETY: `domain` is a live domain of type `P` (contract).
        let domain = unsafe { Domain::<P>::from_raw(domain) };
        let _mapping = domain.lock_mapping();
        // SAFETY: No caller maps or unmaps the address during the call (contract): the IOMMU API
        // requires it.
        let claim = unsafe { Stable::at(ffi::from_dma(iova), &domain.data) };
        domain
            .data
            .tables()
            .iova_to_phys(&claim)
            .and_then(|phys| ffi::to_phys(phys).ok())
            .unwrap_or(0)
    }

    /// `enforce_cache_coherency`: makes all accesses snoop.
    ///
    /// # Safety
    ///
    /// `domain` is a live domain of type `P`.
    unsafe extern "C" fn enforce_cache_coherency_callback(
        domain: *mut bindings::iommu_domain,
    ) -> bool {
        let Some(inner) = inner::<P::Driver>() else {
            return false;
        };
        // SAFETY: `domain` is a live domain of type `P` (contract).
        let domain = unsafe { Domain::<P>::from_raw(domain) };
        let _state = inner.state.lock();
        domain.data.enforce_cache_coherency()
    }
}
