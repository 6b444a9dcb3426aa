// SPDX-License-Identifier: GPL-2.0

//! The calls of vfio and iommufd that the `vfio-ioctls` and `iommufd-ioctls` crates do not wrap, and
//! DMA mapping.
//!
//! Layouts and numbers are those of `include/uapi/linux/{iommufd,vfio}.h`, taken from the `bindings`
//! crates. The functions fail with the kernel's error unless stated otherwise.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd, //
};

use iommufd_bindings::iommufd::*;
use iommufd_ioctls::IommuFd;
use vfio_bindings::bindings::vfio::{
    vfio_device_bind_iommufd,
    VFIO_BASE,
    VFIO_TYPE, //
};
use vfio_ioctls::{
    VfioError,
    VfioIommufd, //
};
use vmm_sys_util::ioctl::{
    ioctl_expr,
    ioctl_with_mut_ref,
    _IOC_NONE, //
};

use super::Mapping;

/// `VFIO_DEVICE_BIND_IOMMUFD`, which the bindings have only the structure of.
const VFIO_DEVICE_BIND_IOMMUFD: u32 = VFIO_BASE + 18;

/// The size of an argument structure, which is its first field in both interfaces.
fn size_of_u32<T>() -> u32 {
    // CAST: The structures are a few dozen bytes long.
    size_of::<T>() as u32
}

/// Makes the call `number` of the interface `ty`, which takes a structure `T` by address.
///
/// # Safety
///
/// - `fd` is a file for which that call takes a `T`.
/// - For each address in `arg`, the memory that the call accesses there is valid for that access
///   during the call.
unsafe fn call<T>(fd: &impl AsRawFd, ty: u32, number: u32, arg: &mut T) -> io::Result<()> {
    let request = ioctl_expr(_IOC_NONE, ty, number, 0);
    // SAFETY:
    // - By this function's contract the call takes a `T`; `arg` is one, exclusively borrowed.
    // - What lies behind addresses in it is valid by the same contract.
    let ret = unsafe { ioctl_with_mut_ref(fd, request, arg) };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives a function's vfio device file to `iommufd`; returns its number there.
pub(crate) fn bind(device: &File, iommufd: &IommuFd) -> io::Result<u32> {
    let mut arg = vfio_device_bind_iommufd {
        argsz: size_of_u32::<vfio_device_bind_iommufd>(),
        iommufd: iommufd.as_raw_fd(),
        ..Default::default()
    };
    // SAFETY:
    // - The call takes this structure; any other kind of file refuses it with `ENOTTY`.
    // - The structure has no addresses.
    unsafe { call(device, VFIO_TYPE.into(), VFIO_DEVICE_BIND_IOMMUFD, &mut arg)? };
    Ok(arg.out_devid)
}

/// Allocates an I/O address space; returns its number.
pub(crate) fn alloc_ioas(iommufd: &IommuFd) -> io::Result<u32> {
    let mut arg = iommu_ioas_alloc {
        size: size_of_u32::<iommu_ioas_alloc>(),
        ..Default::default()
    };
    // SAFETY: `IommuFd` holds an open `/dev/iommu`; the structure is the call's and has no addresses.
    unsafe {
        call(
            iommufd,
            IOMMUFD_TYPE.into(),
            IOMMUFD_CMD_IOAS_ALLOC,
            &mut arg,
        )?
    };
    Ok(arg.out_ioas_id)
}

/// Makes an I/O address space map everything in pages of the CPU's smallest size.
///
/// Otherwise pages that happen to be contiguous are combined into large leaves, and the granularity
/// of the dirty report depends on luck.
pub(crate) fn forbid_large_pages(iommufd: &IommuFd, ioas_id: u32) -> io::Result<()> {
    let mut arg = iommu_option {
        size: size_of_u32::<iommu_option>(),
        option_id: iommufd_option_IOMMU_OPTION_HUGE_PAGES,
        // CAST: The operation is 0 (set) or 1 (get).
        op: iommufd_option_ops_IOMMU_OPTION_OP_SET as u16,
        object_id: ioas_id,
        val64: 0,
        ..Default::default()
    };
    // SAFETY: `IommuFd` holds an open `/dev/iommu`; the structure is the call's and has no addresses.
    unsafe { call(iommufd, IOMMUFD_TYPE.into(), IOMMUFD_CMD_OPTION, &mut arg) }
}

/// Asks whether the IOMMU of a bound device tracks dirty pages.
pub(crate) fn can_track(iommufd: &IommuFd, dev_id: u32) -> io::Result<bool> {
    let mut arg = iommu_hw_info {
        size: size_of_u32::<iommu_hw_info>(),
        dev_id,
        // No memory for the details that differ from IOMMU to IOMMU.
        data_len: 0,
        data_uptr: 0,
        ..Default::default()
    };
    // SAFETY:
    // - `IommuFd` holds an open `/dev/iommu`, and the structure is the call's.
    // - It has one address, for `data_len` bytes, of which there are none.
    unsafe {
        call(
            iommufd,
            IOMMUFD_TYPE.into(),
            IOMMUFD_CMD_GET_HW_INFO,
            &mut arg,
        )?
    };
    let tracks = u64::from(iommufd_hw_capabilities_IOMMU_HW_CAP_DIRTY_TRACKING);
    Ok(arg.out_capabilities & tracks != 0)
}

/// Allocates a page table of an I/O address space that tracks dirty pages; returns its number.
pub(crate) fn alloc_tracking_hwpt(iommufd: &IommuFd, dev_id: u32, ioas_id: u32) -> io::Result<u32> {
    let mut arg = iommu_hwpt_alloc {
        size: size_of_u32::<iommu_hwpt_alloc>(),
        flags: iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
        dev_id,
        pt_id: ioas_id,
        data_type: iommu_hwpt_data_type_IOMMU_HWPT_DATA_NONE,
        ..Default::default()
    };
    // SAFETY:
    // - `IommuFd` holds an open `/dev/iommu`, and the structure is the call's.
    // - It has one address, for `data_len` bytes, which is 0.
    unsafe {
        call(
            iommufd,
            IOMMUFD_TYPE.into(),
            IOMMUFD_CMD_HWPT_ALLOC,
            &mut arg,
        )?
    };
    Ok(arg.out_hwpt_id)
}

/// Turns dirty tracking of a page table on or off.
pub(crate) fn set_dirty_tracking(iommufd: &IommuFd, hwpt_id: u32, on: bool) -> io::Result<()> {
    let mut arg = iommu_hwpt_set_dirty_tracking {
        size: size_of_u32::<iommu_hwpt_set_dirty_tracking>(),
        flags: match on {
            true => iommufd_hwpt_set_dirty_tracking_flags_IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
            false => 0,
        },
        hwpt_id,
        __reserved: 0,
    };
    let number = IOMMUFD_CMD_HWPT_SET_DIRTY_TRACKING;
    // SAFETY: `IommuFd` holds an open `/dev/iommu`; the structure is the call's and has no addresses.
    unsafe { call(iommufd, IOMMUFD_TYPE.into(), number, &mut arg) }
}

/// ORs into `bitmap` one bit for each page of `iova..iova + length` that was written since the last
/// call, and makes those pages clean again.
///
/// # Errors
///
/// `EINVAL` when `bitmap` is too short for the range; otherwise the kernel's.
pub(crate) fn get_dirty_bitmap(
    iommufd: &IommuFd,
    hwpt_id: u32,
    iova: u64,
    length: u64,
    page_size: u64,
    bitmap: &mut [u64],
) -> io::Result<()> {
    let bits = length.div_ceil(page_size);
    if (bitmap.len() as u64).saturating_mul(64) < bits {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut arg = iommu_hwpt_get_dirty_bitmap {
        size: size_of_u32::<iommu_hwpt_get_dirty_bitmap>(),
        hwpt_id,
        flags: 0,
        __reserved: 0,
        iova,
        length,
        page_size,
        data: bitmap.as_mut_ptr() as u64,
    };
    let number = IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP;
    // SAFETY:
    // - `IommuFd` holds an open `/dev/iommu`, and the structure is the call's.
    // - Its one address is that of `bitmap`, which is exclusively borrowed for the whole call, and
    //   has the one bit for each page of the range that the kernel writes (checked above).
    unsafe { call(iommufd, IOMMUFD_TYPE.into(), number, &mut arg) }
}

/// Maps `memory` at `iova` for reading and writing by the device.
///
/// # Errors
///
/// The kernel's, wrapped by the crate.
pub(crate) fn map_dma(ops: &VfioIommufd, iova: u64, memory: &Mapping) -> Result<(), VfioError> {
    // SAFETY:
    // - The only accesses that `Mapping` offers are atomic or volatile ones on a raw pointer; no
    //   reference to the memory exists (its invariant).
    // - `Mapping` unmaps the whole range when it goes, which ends these obligations.
    unsafe { ops.vfio_dma_map(iova, memory.len(), memory.as_ptr()) }
}

/// The number of the error that a call failed with, here or in the crates, if it was a system call.
pub(crate) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(e) = next {
        if let Some(e) = e.downcast_ref::<vmm_sys_util::errno::Error>() {
            return Some(e.errno());
        }
        if let Some(e) = e.downcast_ref::<io::Error>() {
            return e.raw_os_error();
        }
        next = e.source();
    }
    None
}
