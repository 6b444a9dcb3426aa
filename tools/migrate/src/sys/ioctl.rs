// SPDX-License-Identifier: GPL-2.0

//! The calls of vfio and iommufd that the crates do not wrap, and DMA mapping.
//!
//! Layouts and numbers are those of `include/uapi/linux/{iommufd,vfio}.h`, taken from the `bindings`
//! crates. The functions fail with the kernel's error unless stated otherwise.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd, //
};

use device_memory::Memory;
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

/// Maps `memory` at `iova` for reading and writing by the device.
///
/// # Errors
///
/// The kernel's, wrapped by the crate.
pub(crate) fn map_dma(ops: &VfioIommufd, iova: u64, memory: &Memory) -> Result<(), VfioError> {
    // SAFETY:
    // - The only accesses that `Memory` offers are atomic ones on a raw pointer; no reference to the
    //   memory exists (its invariant).
    // - `Memory` unmaps the whole range when it goes, which ends these obligations.
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
