// SPDX-License-Identifier: GPL-2.0

//! The C ABI of the page tables: `struct pt_iommu` on the Rust tables. For tests only.
//!
//! A C driver embeds a struct of the kernel's generic page tables
//! (`include/linux/generic_pt/iommu.h`) in its domain, which they fill with a table of a format and
//! with operations. This crate fills the same structs from [`kernel::iommu::pt`]. C code reads the
//! same values in them and gets the same results as from the C implementation
//! (`drivers/iommu/generic_pt/iommu_pt.h`).
//!
//! | C | This crate |
//! | --- | --- |
//! | `PT_SUPPORTED_FEATURES` and the limits of a format | `format.rs`, one trait |
//! | `struct pt_iommu_<format>`, `struct pt_common` | `table.rs`, as a tree of `pt` |
//! | `pt_iommu_<format>_init()` | `init.rs` |
//! | `struct pt_iommu_ops` and the rest of the functions | `ops.rs` |
//! | `struct iommu_iotlb_gather`, `struct pt_iommu_driver_ops` | `gather.rs` |
//! | `iommu-pages.h` | `memory.rs` |
//!
//! What is different, and why:
//!
//! - A dirty query is clipped: a leaf that reaches beyond it is reported for its part and stays
//!   dirty. C reports all of it, past the end of the bitmap, or loses the part before its start.
//! - Incoherent tables refuse dirty queries (`-EOPNOTSUPP`). No C driver makes one.
//! - Tables that would have to be encrypted (`sme_me_mask`) are refused (`-EOPNOTSUPP`).
//! - With sign extension, addresses whose high bits are all set and whose sign bit is clear are out
//!   of range. C treats them as aliases of other addresses.
//! - A mapping that ends beyond the output addresses is refused as a whole (`-ERANGE`), and so is
//!   one whose length is not a multiple of the smallest page (`-ENXIO`). C does not refuse them.

mod format;
mod gather;
mod init;
mod memory;
mod ops;
mod table;

use kernel::{
    bindings,
    error::from_result,
    ffi::{
        c_int,
        c_ulong, //
    },
    prelude::*, //
};

use format::{
    AmdV1,
    AmdV1Mock,
    VtdSs,
    X86_64, //
};
use ops::Ops;
use table::Table;

/// Stands before the messages of this crate.
const __LOG_PREFIX: &[u8] = b"iommu\0";

/// Defines the functions that C calls for tables of one format.
macro_rules! c_functions {
    ($format:ty, $name:ident, $struct:ident) => {
        kernel::macros::paste! {
            #[doc = concat!("`pt_iommu_", stringify!($name), "_init()`, on a Rust table.")]
            ///
            /// # Safety
            ///
            /// `table` points to an initialised struct (zeroes will do), and no other code uses it.
            /// Its `driver_ops` and `iommu_device` are null, or valid for as long as it is used.
            /// `cfg` is valid and does not change during the call.
            #[export]
            pub unsafe extern "C" fn [<pt_iommu_ $name _rust_init>](
                table: *mut bindings::$struct,
                cfg: *const bindings::[<$struct _cfg>],
                gfp: bindings::gfp_t,
            ) -> c_int {
                // SAFETY: `table` is initialised, no other code uses it, and its `driver_ops` and
                // `iommu_device` are null or valid as long as it is used; `cfg` is valid and does
                // not change (contract).
                from_result(|| unsafe { init::init::<$format>(table, cfg, gfp) }.map(|()| 0))
            }

            #[doc = concat!("`pt_iommu_", stringify!($name), "_iova_to_phys()`, on a Rust table.")]
            ///
            /// # Safety
            ///
            /// `domain` is that of a live table of this format; no caller maps or unmaps the
            /// address meanwhile.
            #[export]
            pub unsafe extern "C" fn [<pt_iommu_ $name _rust_iova_to_phys>](
                domain: *mut bindings::iommu_domain,
                iova: bindings::dma_addr_t,
            ) -> bindings::phys_addr_t {
                // SAFETY: `domain` is that of a live table of this format, and no caller maps or
                // unmaps the address meanwhile (contract).
                unsafe { Ops::<$format>::iova_to_phys(domain, iova) }
            }

            #[doc = concat!(
                "`pt_iommu_", stringify!($name), "_read_and_clear_dirty()`, on a Rust table."
            )]
            ///
            /// # Safety
            ///
            /// `domain` is that of a live table of this format; no caller maps or unmaps anything
            /// in the range meanwhile. `dirty` is a valid dirty bitmap. Its `bitmap` is null, or
            /// valid and covers the range; its `gather` is null or initialised. The caller has all
            /// three for itself.
            #[export]
            pub unsafe extern "C" fn [<pt_iommu_ $name _rust_read_and_clear_dirty>](
                domain: *mut bindings::iommu_domain,
                iova: c_ulong,
                size: usize,
                flags: c_ulong,
                dirty: *mut bindings::iommu_dirty_bitmap,
            ) -> c_int {
                from_result(|| {
                    // SAFETY: `domain` is that of a live table of this format, and no caller maps
                    // or unmaps anything in the range meanwhile. `dirty` is a valid dirty bitmap;
                    // its `bitmap` is null or covers the range, its `gather` is null or
                    // initialised, and the caller has all three for itself (contract).
                    unsafe {
                        Ops::<$format>::read_and_clear_dirty(domain, iova, size, flags, dirty)
                    }
                    .map(|()| 0)
                })
            }
        }
    };
}

/// Defines the function that gives a C driver the values for the hardware: the address of the top,
/// and its level as the hardware encodes it.
macro_rules! c_hw_info {
    ($format:ty, $name:ident, $phys:ident, $number:ident: $number_of:expr) => {
        kernel::macros::paste! {
            #[doc = concat!("`pt_iommu_", stringify!($name), "_hw_info()`, on a Rust table.")]
            ///
            /// # Safety
            ///
            /// `table` is a live table of this format, and `info` is valid for writes.
            #[export]
            pub unsafe extern "C" fn [<pt_iommu_ $name _rust_hw_info>](
                table: *mut bindings::[<pt_iommu_ $name>],
                info: *mut bindings::[<pt_iommu_ $name _hw_info>],
            ) {
                // SAFETY: `table` is a live table of this format (contract); `iommu` is its first
                // member.
                let top = unsafe { Table::<$format>::from_raw(table.cast()) }.tree().top();
                let number: fn(u8) -> u8 = $number_of;

                // SAFETY: `info` is valid for writes (contract).
                unsafe {
                    (*info).$phys = top.phys;
                    (*info).$number = number(top.levels);
                }
            }
        }
    };
}

c_functions!(AmdV1, amdv1, pt_iommu_amdv1);
c_hw_info!(AmdV1, amdv1, host_pt_root, mode: |levels| levels);

c_functions!(AmdV1Mock, amdv1_mock, pt_iommu_amdv1);

// Address widths: 1 stands for three levels.
c_functions!(VtdSs, vtdss, pt_iommu_vtdss);
c_hw_info!(VtdSs, vtdss, ssptptr, aw: |levels| levels - 2);

c_functions!(X86_64, x86_64, pt_iommu_x86_64);
c_hw_info!(X86_64, x86_64, gcr3_pt, levels: |levels| levels);
