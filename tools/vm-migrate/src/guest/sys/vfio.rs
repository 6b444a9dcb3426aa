// SPDX-License-Identifier: GPL-2.0

//! The four calls of vfio that give a program the interrupts of a function, in a machine without an
//! IOMMU.
//!
//! Layouts and numbers are those of `include/uapi/linux/vfio.h`, taken from `vfio-bindings`. The
//! functions fail with the kernel's error.

use std::{
    ffi::{
        c_ulong,
        CStr, //
    },
    fs::File,
    io,
    os::fd::{
        AsRawFd,
        FromRawFd,
        OwnedFd,
        RawFd, //
    },
};

use vfio_bindings::bindings::vfio::{
    VFIO_BASE,
    VFIO_IRQ_SET_ACTION_TRIGGER,
    VFIO_IRQ_SET_DATA_EVENTFD,
    VFIO_NOIOMMU_IOMMU,
    VFIO_PCI_MSIX_IRQ_INDEX,
    VFIO_TYPE, //
};
use vmm_sys_util::ioctl::{
    ioctl_expr,
    ioctl_with_ptr,
    ioctl_with_ref,
    ioctl_with_val,
    _IOC_NONE, //
};

/// The number of a call of vfio.
fn call(number: u32) -> c_ulong {
    ioctl_expr(_IOC_NONE, VFIO_TYPE.into(), VFIO_BASE + number, 0)
}

/// What a call returned, or why it failed.
fn result(value: i32) -> io::Result<i32> {
    match value {
        0.. => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `VFIO_GROUP_SET_CONTAINER`
pub(crate) fn set_container(group: &File, container: &File) -> io::Result<()> {
    let fd: RawFd = container.as_raw_fd();
    // SAFETY: The call reads one `int` from the address, which is that of `fd`. A file of another kind
    // refuses the call.
    result(unsafe { ioctl_with_ref(group, call(4), &fd) }).map(drop)
}

/// `VFIO_SET_IOMMU`: none.
pub(crate) fn set_no_iommu(container: &File) -> io::Result<()> {
    // SAFETY: The call takes a number, no address.
    result(unsafe { ioctl_with_val(container, call(2), VFIO_NOIOMMU_IOMMU.into()) }).map(drop)
}

/// `VFIO_GROUP_GET_DEVICE_FD`: opens the function `name`, which resets it.
pub(crate) fn open_device(group: &File, name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: The call reads a string that ends with a zero byte from the address, and `name` is one.
    let fd = result(unsafe { ioctl_with_ptr(group, call(6), name.as_ptr()) })?;
    // SAFETY: The call has just made this file descriptor, and nothing else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `struct vfio_irq_set` with its data: event files for the first two vectors.
#[repr(C)]
struct Vectors {
    argsz: u32,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
    files: [RawFd; 2],
}

/// `VFIO_DEVICE_SET_IRQS`: switches MSI-X on; each interrupt of the two vectors adds 1 to an eventfd.
pub(crate) fn set_msix(device: &OwnedFd, events: [&OwnedFd; 2]) -> io::Result<()> {
    let vectors = Vectors {
        // CAST: The structure has 28 bytes.
        argsz: size_of::<Vectors>() as u32,
        flags: VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
        index: VFIO_PCI_MSIX_IRQ_INDEX,
        start: 0,
        count: 2,
        files: events.map(AsRawFd::as_raw_fd),
    };
    // SAFETY: The call reads `argsz` bytes from the address: `struct vfio_irq_set`, and behind it
    // `count` descriptors. `Vectors` has that layout.
    result(unsafe { ioctl_with_ref(device, call(10), &vectors) }).map(drop)
}
