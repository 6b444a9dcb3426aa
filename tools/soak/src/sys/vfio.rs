// SPDX-License-Identifier: GPL-2.0

//! A device file of vfio.
//!
//! Layouts and numbers are those of `include/uapi/linux/vfio.h`; the bindings' crate has the attach
//! of a time before PASIDs. All functions fail with the kernel's error.

use std::{
    fs::File,
    io,
    os::fd::{
        AsRawFd,
        RawFd, //
    },
};

use super::call::{
    call,
    size_of_u32, //
};

const VFIO_TYPE: u8 = b';';
const VFIO_BASE: u32 = 100;

const DEVICE_GET_REGION_INFO: u32 = VFIO_BASE + 8;
const DEVICE_SET_IRQS: u32 = VFIO_BASE + 10;
const DEVICE_RESET: u32 = VFIO_BASE + 11;
const DEVICE_BIND_IOMMUFD: u32 = VFIO_BASE + 18;
const DEVICE_ATTACH_IOMMUFD_PT: u32 = VFIO_BASE + 19;
const DEVICE_DETACH_IOMMUFD_PT: u32 = VFIO_BASE + 20;

/// `VFIO_DEVICE_ATTACH_PASID` and `VFIO_DEVICE_DETACH_PASID`.
const WITH_PASID: u32 = 1 << 0;

/// The index of MSI-X, and what to do with its vectors.
const MSIX_IRQ_INDEX: u32 = 2;
const IRQ_SET_DATA_NONE: u32 = 1 << 0;
const IRQ_SET_DATA_EVENTFD: u32 = 1 << 2;
const IRQ_SET_ACTION_TRIGGER: u32 = 1 << 5;

/// Index of BAR 0, and of configuration space.
pub(crate) const REGION_BAR0: u32 = 0;
pub(crate) const REGION_CONFIG: u32 = 7;

#[repr(C)]
#[derive(Default)]
struct RegionInfo {
    argsz: u32,
    flags: u32,
    index: u32,
    cap_offset: u32,
    size: u64,
    offset: u64,
}

#[repr(C)]
#[derive(Default)]
struct BindIommufd {
    argsz: u32,
    flags: u32,
    iommufd: i32,
    out_devid: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachIommufdPt {
    argsz: u32,
    flags: u32,
    pt_id: u32,
    pasid: u32,
}

#[repr(C)]
#[derive(Default)]
struct DetachIommufdPt {
    argsz: u32,
    flags: u32,
    pasid: u32,
}

#[repr(C)]
#[derive(Default)]
struct IrqSet {
    argsz: u32,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
    eventfd: i32,
}

fn pasid_flag(pasid: Option<u32>) -> u32 {
    pasid.map_or(0, |_| WITH_PASID)
}

/// Gives the device to `iommufd`; returns its number there.
pub(crate) fn bind(device: &File, iommufd: &File) -> io::Result<u32> {
    let mut arg = BindIommufd {
        argsz: size_of_u32::<BindIommufd>(),
        iommufd: iommufd.as_raw_fd(),
        ..Default::default()
    };
    // SAFETY: Another kind of file refuses the call; the structure is its own and has no addresses.
    unsafe { call(device, VFIO_TYPE, DEVICE_BIND_IOMMUFD, &mut arg)? };
    Ok(arg.out_devid)
}

/// Attaches the device, or one of its PASIDs, to a page table; replaces what is attached.
pub(crate) fn attach(device: &File, pasid: Option<u32>, hwpt: u32) -> io::Result<()> {
    let mut arg = AttachIommufdPt {
        argsz: size_of_u32::<AttachIommufdPt>(),
        flags: pasid_flag(pasid),
        pt_id: hwpt,
        pasid: pasid.unwrap_or(0),
    };
    // SAFETY: Another kind of file refuses the call; the structure is its own and has no addresses.
    unsafe { call(device, VFIO_TYPE, DEVICE_ATTACH_IOMMUFD_PT, &mut arg) }
}

/// Detaches the device, or one of its PASIDs.
pub(crate) fn detach(device: &File, pasid: Option<u32>) -> io::Result<()> {
    let mut arg = DetachIommufdPt {
        argsz: size_of_u32::<DetachIommufdPt>(),
        flags: pasid_flag(pasid),
        pasid: pasid.unwrap_or(0),
    };
    // SAFETY: Another kind of file refuses the call; the structure is its own and has no addresses.
    unsafe { call(device, VFIO_TYPE, DEVICE_DETACH_IOMMUFD_PT, &mut arg) }
}

/// Resets the device.
pub(crate) fn reset(device: &File) -> io::Result<()> {
    // SAFETY: Another kind of file refuses the call, which takes no argument.
    unsafe { call(device, VFIO_TYPE, DEVICE_RESET, &mut 0_u64) }
}

/// Where a region begins in the device's file, and how long it is.
pub(crate) fn region(device: &File, index: u32) -> io::Result<(u64, u64)> {
    let mut arg = RegionInfo {
        argsz: size_of_u32::<RegionInfo>(),
        index,
        ..Default::default()
    };
    // SAFETY:
    // - Another kind of file refuses the call; the structure is its own and has no addresses.
    // - Capabilities, which would follow it, do not fit into `argsz`.
    unsafe { call(device, VFIO_TYPE, DEVICE_GET_REGION_INFO, &mut arg)? };
    Ok((arg.offset, arg.size))
}

/// Has vector 0 of MSI-X signal `eventfd`, or switches MSI-X off.
pub(crate) fn interrupt(device: &File, eventfd: Option<RawFd>) -> io::Result<()> {
    let data = match eventfd {
        Some(_) => IRQ_SET_DATA_EVENTFD,
        None => IRQ_SET_DATA_NONE,
    };
    let absent = size_of_u32::<i32>();
    let mut arg = IrqSet {
        argsz: size_of_u32::<IrqSet>() - eventfd.map_or(absent, |_| 0),
        flags: data | IRQ_SET_ACTION_TRIGGER,
        index: MSIX_IRQ_INDEX,
        start: 0,
        count: eventfd.map_or(0, |_| 1),
        eventfd: eventfd.unwrap_or(-1),
    };
    // SAFETY: Another kind of file refuses the call; the structure is its own, with the one
    // descriptor that `count` says, and has no addresses.
    unsafe { call(device, VFIO_TYPE, DEVICE_SET_IRQS, &mut arg) }
}
