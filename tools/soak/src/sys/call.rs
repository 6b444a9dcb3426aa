// SPDX-License-Identifier: GPL-2.0

//! One ioctl of iommufd or of a vfio device.

use std::{
    io,
    os::fd::AsRawFd, //
};

/// The size of an argument structure, which is its first field in both interfaces.
pub(super) fn size_of_u32<T>() -> u32 {
    // CAST: The structures are a few dozen bytes long.
    size_of::<T>() as u32
}

/// Makes the call `number` of the interface `ty` (`_IO(ty, number)`), which takes a structure `T`
/// by address.
///
/// # Errors
///
/// The kernel's.
///
/// # Safety
///
/// - `fd` is a file for which that call takes a `T`, or which refuses it.
/// - For each address in `arg`, the memory that the call accesses there is valid for that access
///   during the call.
pub(super) unsafe fn call<T>(
    fd: &impl AsRawFd,
    ty: u8,
    number: u32,
    arg: &mut T,
) -> io::Result<()> {
    let request = libc::Ioctl::from(ty) << 8 | libc::Ioctl::from(number);
    // SAFETY:
    // - By this function's contract the call takes a `T`; `arg` is one, exclusively borrowed.
    // - What lies behind addresses in it is valid by the same contract.
    if unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_mut(arg)) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
