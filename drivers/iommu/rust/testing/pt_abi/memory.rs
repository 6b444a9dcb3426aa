// SPDX-License-Identifier: GPL-2.0

//! The memory of tables, as a `struct pt_iommu` asks for it.

use core::ptr::NonNull;

use kernel::{
    bindings,
    error::to_result,
    iommu::{
        hw::pages::{
            Gfp,
            KernelTables, //
        },
        pt::{
            Table,
            TableMem, //
        }, //
    },
    prelude::*, //
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
    pages: KernelTables,
    incoherent: *mut bindings::device,
}

// SAFETY: The functions of C that get the device may be called from any thread.
unsafe impl Send for DomainTables {}
// SAFETY: The functions of C that get the device may be called from any thread, at the same time.
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
            pages: KernelTables::new(u32::try_from(nid).ok()),
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
    /// `list` is initialised, and the caller has it for itself. It has tables of this memory only.
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
// - All tables are those of a `KernelTables`, which also translates their addresses.
// - A device that does not snoop reaches them through their physical addresses as well:
//   `iommu_pages_start_incoherent()` refuses one for which that is not so.
unsafe impl TableMem for DomainTables {
    type Flags = Gfp;

    #[inline]
    fn alloc(&self, flags: Gfp) -> Result<NonNull<Table>> {
        let table = self.pages.alloc(flags)?;

        if !self.incoherent.is_null() {
            // SAFETY: The page is fresh, and the device is valid by the type invariants.
            let begun = to_result(unsafe {
                bindings::iommu_pages_start_incoherent(table.as_ptr().cast(), self.incoherent)
            });

            if let Err(error) = begun {
                // SAFETY: The table came from `pages`, and no other code has it.
                unsafe { self.pages.free(table) };
                return Err(error);
            }
        }
        Ok(table)
    }

    #[inline]
    unsafe fn free(&self, table: NonNull<Table>) {
        if self.incoherent.is_null() {
            // SAFETY: By the contract of the trait, nothing uses the table; it came from `alloc()`,
            // which has it from `pages`.
            unsafe { self.pages.free(table) }
        } else {
            // SAFETY: By the contract of the trait, nothing uses the table; it came from `alloc()`.
            // The device is valid by the type invariants, and is the one that `alloc()` prepared
            // the page for.
            unsafe {
                bindings::iommu_pages_free_incoherent(table.as_ptr().cast(), self.incoherent);
            }
        }
    }

    #[inline]
    fn phys(&self, table: NonNull<Table>) -> u64 {
        self.pages.phys(table)
    }

    #[inline(always)]
    unsafe fn virt(&self, phys: u64) -> NonNull<Table> {
        // SAFETY: By the contract of the trait, `phys` came from `phys()`, which asks `pages`.
        unsafe { self.pages.virt(phys) }
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
