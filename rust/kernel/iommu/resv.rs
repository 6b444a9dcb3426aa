// SPDX-License-Identifier: GPL-2.0

//! Reserved regions: addresses that a device may use, or that must not be mapped for it.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

use kernel::{
    bindings,
    prelude::*, //
};

use super::{
    ffi,
    hw::pages::Gfp,
    pt::{
        Prot,
        Range, //
    },
    values, //
};

/// Why a region is reserved (`enum iommu_resv_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// Must be mapped one to one at all times.
    Direct,
    /// As [`Self::Direct`], but a device that user space owns can do without it.
    DirectRelaxable,
    /// Never to be mapped.
    Reserved,
    /// Writes there are interrupts; they are not translated.
    Msi,
}

impl RegionKind {
    fn as_raw(self) -> bindings::iommu_resv_type {
        match self {
            Self::Direct => bindings::iommu_resv_type_IOMMU_RESV_DIRECT,
            Self::DirectRelaxable => bindings::iommu_resv_type_IOMMU_RESV_DIRECT_RELAXABLE,
            Self::Reserved => bindings::iommu_resv_type_IOMMU_RESV_RESERVED,
            Self::Msi => bindings::iommu_resv_type_IOMMU_RESV_MSI,
        }
    }
}

/// The list of a device's reserved regions, while the core asks for them.
///
/// # Invariants
///
/// `head` is the head of a list of `struct iommu_resv_region` that this object has for itself
/// during `'a`.
pub struct ReservedRegions<'a> {
    head: NonNull<bindings::list_head>,
    lifetime: PhantomData<&'a mut bindings::list_head>,
}

impl ReservedRegions<'_> {
    /// Borrows the list that the core passed to `get_resv_regions`.
    ///
    /// # Safety
    ///
    /// `head` is the head of an initialised list of reserved regions, which the caller has for
    /// itself during `'a`.
    pub(super) unsafe fn from_raw(head: NonNull<bindings::list_head>) -> Self {
        // INVARIANT: `head` is the head of an initialised list of reserved regions, which the
        // caller has for itself during `'a` (contract).
        Self {
            head,
            lifetime: PhantomData,
        }
    }

    /// Adds the addresses of interrupts of x86: a write there is one, and units do not translate it
    /// (VT-d specification, 3.14; AMD specification, 2.1.4.1).
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn add_x86_interrupts(&mut self) -> Result {
        let interrupts = Range::inclusive(0xfee0_0000, 0xfeef_ffff)?;
        self.add(interrupts, Prot::NONE, RegionKind::Msi)
    }

    /// Adds a region. `prot` matters for the direct kinds: they are mapped with it.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EOVERFLOW` for a region that the kernel's types cannot hold.
    pub fn add(&mut self, range: Range, prot: Prot, kind: RegionKind) -> Result {
        let start = ffi::to_phys(range.first())?;
        let length = range.size().try_into()?;
        // SAFETY: The function takes any values.
        let region = unsafe {
            bindings::iommu_alloc_resv_region(
                start,
                length,
                values::prot_to_raw(prot),
                kind.as_raw(),
                Gfp::KERNEL.as_raw(),
            )
        };
        let region = NonNull::new(region).ok_or(ENOMEM)?;
        // SAFETY: By the type invariants, only this object uses the list; the region is new and on
        // no list. The core frees it with the others.
        unsafe { bindings::list_add_tail(&raw mut (*region.as_ptr()).list, self.head.as_ptr()) };
        Ok(())
    }
}
