// SPDX-License-Identifier: GPL-2.0

//! The memory of tables, as a `struct pt_iommu` asks for it.

use core::ptr::NonNull;

use kernel::{
    bindings,
    error::to_result,
    prelude::*, //
};

use super::super::{
    ffi,
    pages::Gfp,
    pt::{
        Table,
        TableMem,
        TABLE_BYTES, //
    }, //
};

/// Tables near the node of a `struct pt_iommu`, prepared for the device that walks them.
///
/// If that device does not snoop, `iommu_pages_*_incoherent()` of C keep its walks and the CPU's
/// caches in step.
///
/// # Invariants
///
/// `incoherent` is null or a valid device.
pub(super) struct DomainTables {
    nid: i32,
    incoherent: *mut bindings::device,
}

// SAFETY: The device is only used by functions that take it from any thread.
unsafe impl Send for DomainTables {}
// SAFETY: As above.
unsafe impl Sync for DomainTables {}

impl DomainTables {
    /// The memory of `iommu`, which does not snoop if `incoherent` says so.
    ///
    /// # Safety
    ///
    /// `iommu` is valid. If `incoherent`, then its device is null or valid, and stays so while this
    /// value is used.
    #[inline]
    pub(super) unsafe fn new(iommu: *const bindings::pt_iommu, incoherent: bool) -> Self {
        // SAFETY: `iommu` is valid (contract). Nothing changes the fields once the struct is used.
        let (nid, device) = unsafe { ((*iommu).nid, (*iommu).iommu_device) };

        // INVARIANT: If `incoherent`, the device is null, or stays valid while this value is used
        // (contract).
        Self {
            nid,
            incoherent: if incoherent {
                device
            } else {
                core::ptr::null_mut()
            },
        }
    }

    /// Undoes what [`TableMem::alloc`] did for the pages of a free list.
    ///
    /// # Safety
    ///
    /// `list` is initialised and the caller's own; its pages are tables of this memory.
    #[inline]
    pub(super) unsafe fn stop_incoherent(&self, list: *mut bindings::iommu_pages_list) {
        if !self.incoherent.is_null() {
            // SAFETY: The caller has the initialised list for itself, and its pages are tables of
            // this memory (contract). The device is valid by the type invariants.
            unsafe { bindings::iommu_pages_stop_incoherent_list(list, self.incoherent) }
        }
    }
}

// SAFETY:
// - Pages of the allocator are in the linear map, are valid until freed, and are reached by the
//   hardware through their physical addresses; `iommu_pages_start_incoherent()` refuses a device
//   for which that is not so.
// - `virt()` and `phys()` are the linear map and its inverse.
// - Pages are aligned to their size, which is that of a table.
unsafe impl TableMem for DomainTables {
    type Flags = Gfp;

    #[inline]
    fn alloc(&self, flags: Gfp) -> Result<NonNull<Table>> {
        let node = u32::try_from(self.nid).ok();
        let virt = ffi::alloc_pages(node, flags.as_raw(), TABLE_BYTES).ok_or(ENOMEM)?;

        if !self.incoherent.is_null() {
            // SAFETY: The page is fresh, and the device is valid by the type invariants.
            let begun = to_result(unsafe {
                bindings::iommu_pages_start_incoherent(virt.as_ptr().cast(), self.incoherent)
            });

            if let Err(error) = begun {
                // SAFETY: The page came from the allocator, and no other code has it.
                unsafe { ffi::free_pages(virt) };
                return Err(error);
            }
        }
        Ok(virt.cast())
    }

    #[inline]
    unsafe fn free(&self, table: NonNull<Table>) {
        if self.incoherent.is_null() {
            // SAFETY: By the contract of the trait, nothing uses the table; it came from `alloc()`.
            unsafe { ffi::free_pages(table.cast()) }
        } else {
            // SAFETY: As above; the device is valid by the type invariants, and is the one that
            // `alloc()` prepared the page for.
            unsafe {
                bindings::iommu_pages_free_incoherent(table.as_ptr().cast(), self.incoherent);
            }
        }
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
        if self.incoherent.is_null() {
            return;
        }
        // SAFETY: By the contract of the trait the bytes lie in one table; the device is valid by
        // the type invariants, and is the one that `alloc()` prepared the page for.
        unsafe {
            bindings::iommu_pages_flush_incoherent(
                self.incoherent,
                start.as_ptr().cast(),
                0,
                bytes,
            );
        }
    }
}
