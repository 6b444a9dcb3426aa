// SPDX-License-Identifier: GPL-2.0

//! How a callback finds what it works on.

use kernel::{
    bindings,
    ffi::c_ulong,
    sync::Arc, //
};

use super::super::{
    ops::Driver,
    pt::Range,
    registry::{
        Endpoint,
        Inner,
        Registered, //
    }, //
};

/// The registration of the driver.
#[inline]
pub(super) fn inner<D: Registered>() -> Option<Arc<Inner<D>>> {
    D::registry().get()
}

/// The endpoint that `probe_device` stored in a device.
///
/// # Safety
///
/// `dev` is a valid device under the control of the driver `D`, and is not released during `'a`.
#[inline]
pub(super) unsafe fn endpoint<'a, D: Driver>(
    dev: *mut bindings::device,
) -> Option<&'a Endpoint<D>> {
    // SAFETY: `dev` is valid, and a device under the control of a driver has its `iommu`, whose
    // private data `probe_device_callback()` set to a leaked `Arc<Endpoint<D>>`.
    unsafe {
        let iommu = (*dev).iommu;
        (*iommu).priv_.cast::<Endpoint<D>>().as_ref()
    }
}

/// The range of `count` pages of `size` bytes.
#[inline]
pub(super) fn range(iova: c_ulong, size: usize, count: usize) -> Option<Range> {
    // CAST: `unsigned long` and `size_t` have at most 64 bits.
    Range::new(iova as u64, size.checked_mul(count)? as u64).ok()
}
