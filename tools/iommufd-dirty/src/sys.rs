// SPDX-License-Identifier: GPL-2.0

//! The calls, and all unsafe code.
//!
//! Layouts and numbers are those of `include/uapi/linux/iommufd.h`, taken from `iommufd-bindings`.
//! The functions fail with the kernel's error.

use std::{
    io,
    os::fd::BorrowedFd, //
};

use iommufd_bindings::iommufd::*;
use vmm_sys_util::ioctl::{
    ioctl_expr,
    _IOC_NONE, //
};

use crate::bitmap::Bitmap;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
use fake::ioctl;

// The sizes of `struct iommu_…` in the header of Linux 6.7, where the calls came;
// `iommu_hwpt_alloc` has grown by the 8 bytes of `fault_id` since, which older kernels take if they
// are 0.
const _: () = assert!(size_of::<iommu_destroy>() == 8);
const _: () = assert!(size_of::<iommu_hw_info>() == 40);
const _: () = assert!(size_of::<iommu_hwpt_alloc>() == 48);
const _: () = assert!(size_of::<iommu_hwpt_set_dirty_tracking>() == 16);
const _: () = assert!(size_of::<iommu_hwpt_get_dirty_bitmap>() == 48);

/// The size of an argument, which is its first field.
fn size_of_u32<T>() -> u32 {
    // CAST: The structures are a few dozen bytes long.
    size_of::<T>() as u32
}

/// Makes a call.
///
/// # Safety
///
/// That of [`call`], for the number that `request` holds.
#[cfg(not(test))]
unsafe fn ioctl<T>(fd: BorrowedFd<'_>, request: std::ffi::c_ulong, arg: &mut T) -> io::Result<()> {
    // SAFETY: By this function's contract the call takes a `T`, and `arg` is one, exclusively
    // borrowed.
    match unsafe { vmm_sys_util::ioctl::ioctl_with_mut_ref(&fd, request, arg) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes the call `number` of iommufd, which takes a structure `T` by address.
///
/// If `fd` is another kind of file, it refuses the call with `ENOTTY`.
///
/// # Safety
///
/// - The call `number` takes a `T`.
/// - For each address in `arg`, the memory that the call accesses there is valid for that access
///   during the call.
unsafe fn call<T>(fd: BorrowedFd<'_>, number: u32, arg: &mut T) -> io::Result<()> {
    // SAFETY: By this function's contract.
    unsafe {
        ioctl(
            fd,
            ioctl_expr(_IOC_NONE, IOMMUFD_TYPE.into(), number, 0),
            arg,
        )
    }
}

/// `IOMMU_GET_HW_INFO`: whether the IOMMU of a bound device tracks dirty pages.
pub(crate) fn can_track(fd: BorrowedFd<'_>, dev_id: u32) -> io::Result<bool> {
    let mut arg = iommu_hw_info {
        size: size_of_u32::<iommu_hw_info>(),
        dev_id,
        // No memory for the details that differ from IOMMU to IOMMU.
        data_len: 0,
        data_uptr: 0,
        ..Default::default()
    };
    // SAFETY:
    // - The structure is the call's.
    // - It has one address, for `data_len` bytes, of which there are none.
    unsafe { call(fd, IOMMUFD_CMD_GET_HW_INFO, &mut arg)? };
    let tracks = u64::from(iommufd_hw_capabilities_IOMMU_HW_CAP_DIRTY_TRACKING);
    Ok(arg.out_capabilities & tracks != 0)
}

/// `IOMMU_HWPT_ALLOC` of a page table of an I/O address space that tracks dirty pages; returns its
/// id.
pub(crate) fn hwpt_alloc(fd: BorrowedFd<'_>, dev_id: u32, ioas_id: u32) -> io::Result<u32> {
    let mut arg = iommu_hwpt_alloc {
        size: size_of_u32::<iommu_hwpt_alloc>(),
        flags: iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
        dev_id,
        pt_id: ioas_id,
        data_type: iommu_hwpt_data_type_IOMMU_HWPT_DATA_NONE,
        ..Default::default()
    };
    // SAFETY:
    // - The structure is the call's.
    // - It has one address, for `data_len` bytes, which is 0.
    unsafe { call(fd, IOMMUFD_CMD_HWPT_ALLOC, &mut arg)? };
    Ok(arg.out_hwpt_id)
}

/// `IOMMU_DESTROY`
pub(crate) fn destroy(fd: BorrowedFd<'_>, id: u32) -> io::Result<()> {
    let mut arg = iommu_destroy {
        size: size_of_u32::<iommu_destroy>(),
        id,
    };
    // SAFETY: The structure is the call's, and has no addresses.
    unsafe { call(fd, IOMMUFD_CMD_DESTROY, &mut arg) }
}

/// `IOMMU_HWPT_SET_DIRTY_TRACKING`
pub(crate) fn set_dirty_tracking(fd: BorrowedFd<'_>, hwpt_id: u32, on: bool) -> io::Result<()> {
    let mut arg = iommu_hwpt_set_dirty_tracking {
        size: size_of_u32::<iommu_hwpt_set_dirty_tracking>(),
        flags: match on {
            true => iommufd_hwpt_set_dirty_tracking_flags_IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
            false => 0,
        },
        hwpt_id,
        __reserved: 0,
    };
    // SAFETY: The structure is the call's, and has no addresses.
    unsafe { call(fd, IOMMUFD_CMD_HWPT_SET_DIRTY_TRACKING, &mut arg) }
}

/// `IOMMU_HWPT_GET_DIRTY_BITMAP`: sets bits of `bitmap`, maybe also behind its last page.
pub(crate) fn get_dirty_bitmap(
    fd: BorrowedFd<'_>,
    hwpt_id: u32,
    no_clear: bool,
    bitmap: &mut Bitmap,
) -> io::Result<()> {
    let mut arg = iommu_hwpt_get_dirty_bitmap {
        size: size_of_u32::<iommu_hwpt_get_dirty_bitmap>(),
        hwpt_id,
        flags: match no_clear {
            true => iommufd_hwpt_get_dirty_bitmap_flags_IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
            false => 0,
        },
        __reserved: 0,
        iova: bitmap.iova(),
        length: bitmap.length(),
        page_size: bitmap.page_size(),
        data: bitmap.blocks_mut().as_mut_ptr() as u64,
    };
    // SAFETY:
    // - The structure is the call's.
    // - Its one address is that of the blocks of `bitmap`, which is exclusively borrowed for the
    //   whole call. By the invariants of `Bitmap` they have one bit for each page of the range,
    //   whose size is a power of two, and fill whole pages of memory. The kernel writes to the
    //   pages in which these bits are, and to the next one at most (`iova_bitmap_get()`), which is
    //   the last block.
    unsafe { call(fd, IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP, &mut arg) }
}
