// SPDX-License-Identifier: GPL-2.0

//! Access rights: from the bits of the IOMMU API to those of the page tables, and back.
//!
//! - `IOMMU_READ` and `IOMMU_WRITE` are [`Prot::READ`] and [`Prot::WRITE`].
//! - `IOMMU_CACHE` asks for coherent accesses, which the DMA of a PCI device is anyway, unless the
//!   device asks not to. It says nothing to a page table; enforcing it is a property of a domain.
//! - `IOMMU_NOEXEC`, `IOMMU_PRIV` and `IOMMU_MMIO` are hints for IOMMUs of other kinds.

use kernel::{
    bindings,
    ffi::c_int, //
};

use super::pt::Prot;

/// Reads the bits that the core passes to `map_pages`.
#[inline]
pub(super) fn from_raw(raw: c_int) -> Prot {
    // CAST: The bits of a set.
    let raw = raw as u32;
    let mut prot = Prot::NONE;
    if raw & bindings::IOMMU_READ != 0 {
        prot |= Prot::READ;
    }
    if raw & bindings::IOMMU_WRITE != 0 {
        prot |= Prot::WRITE;
    }
    prot
}

/// The bits for a reserved region.
pub(super) fn to_raw(prot: Prot) -> c_int {
    let mut raw = 0;
    if prot.contains(Prot::READ) {
        raw |= bindings::IOMMU_READ;
    }
    if prot.contains(Prot::WRITE) {
        raw |= bindings::IOMMU_WRITE;
    }
    // CAST: Two low bits.
    raw as c_int
}
