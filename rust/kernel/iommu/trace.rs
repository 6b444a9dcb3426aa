// SPDX-License-Identifier: GPL-2.0

//! The tracepoints of the group `rust_iommu`.
//!
//! None of the functions is generic or inlined: the tracepoints are in the kernel and are not
//! exported to modules, into which generic code is compiled. While an event is not enabled, a call
//! passes a patched instruction and returns.
//!
//! C header: [`include/trace/events/rust_iommu.h`](srctree/include/trace/events/rust_iommu.h)

use kernel::{
    error::Result,
    ffi::c_int,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::Delta, //
};

use super::pt::Range;

/// The entry points in C.
// There are as many arguments as fields, and the macro's unsafe block is what its caller asks for.
#[allow(clippy::macro_metavars_in_unsafe, clippy::too_many_arguments)]
mod points {
    use kernel::ffi::{
        c_char,
        c_int, //
    };

    kernel::declare_trace! {
        /// A harvest.
        ///
        /// # Safety
        ///
        /// None.
        pub(super) unsafe fn iommu_harvest(
            domain: u64,
            iova: u64,
            length: u64,
            clear: bool,
            dirty: u64,
            cleared_iova: u64,
            cleared: u64,
            time: u64,
            error: c_int,
        );

        /// Dirty tracking was switched.
        ///
        /// # Safety
        ///
        /// None.
        pub(super) unsafe fn iommu_tracking(domain: u64, on: bool, error: c_int);

        /// A unit is given up.
        ///
        /// # Safety
        ///
        /// `kind` is valid for reads of `kind_length` bytes, and `reason` of `reason_length`.
        pub(super) unsafe fn iommu_unit_dead(
            kind: *const c_char,
            kind_length: usize,
            number: u64,
            reason: *const c_char,
            reason_length: usize,
            devices: u64,
        );
    }
}

/// A number for a new domain, by which events name it. None is given twice.
#[inline(never)]
pub(super) fn next_domain() -> u64 {
    static LAST: Atomic<u64> = Atomic::new(0);

    LAST.fetch_add(1u64, Relaxed).wrapping_add(1)
}

/// The result of a harvest.
pub(super) struct Harvest {
    /// The number of the domain.
    pub(super) domain: u64,
    /// The range that was asked about.
    pub(super) query: Range,
    /// Whether leaves were to be made clean.
    pub(super) clear: bool,
    /// The bytes that were reported as dirty.
    pub(super) dirty: u64,
    /// From the first to the last leaf that was made clean.
    pub(super) cleared: Option<Range>,
    /// How long it took.
    pub(super) time: Delta,
}

/// Reports a harvest.
///
/// Context: any.
#[inline(never)]
pub(super) fn harvest(harvest: &Harvest, result: &Result) {
    let (cleared_iova, cleared) = harvest
        .cleared
        .map_or((0, 0), |range| (range.first(), range.size()));
    let time = u64::try_from(harvest.time.as_nanos()).unwrap_or(0);

    // SAFETY: The function asks for nothing.
    unsafe {
        points::iommu_harvest(
            harvest.domain,
            harvest.query.first(),
            harvest.query.size(),
            harvest.clear,
            harvest.dirty,
            cleared_iova,
            cleared,
            time,
            errno(result),
        )
    }
}

/// Reports that dirty tracking of the domain with the number `domain` was switched, or was not.
///
/// Context: any.
#[inline(never)]
pub(super) fn tracking(domain: u64, on: bool, result: &Result) {
    // SAFETY: The function asks for nothing.
    unsafe { points::iommu_tracking(domain, on, errno(result)) }
}

/// Reports that a unit does not answer: `reason` says what it did not do. `devices` behind it lost
/// bus mastering.
///
/// Context: any.
#[inline(never)]
pub fn unit_dead(kind: &str, number: usize, reason: &str, devices: usize) {
    // SAFETY: Both texts are valid for reads of their lengths.
    // CAST: Numbers of units and of devices fit any width.
    unsafe {
        points::iommu_unit_dead(
            kind.as_ptr().cast(),
            kind.len(),
            number as u64,
            reason.as_ptr().cast(),
            reason.len(),
            devices as u64,
        )
    }
}

/// The error of a result as C has it, 0 for none.
fn errno(result: &Result) -> c_int {
    result
        .as_ref()
        .map_or_else(|error| error.to_errno(), |()| 0)
}
