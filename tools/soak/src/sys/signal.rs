// SPDX-License-Identifier: GPL-2.0

//! Signals that interrupt system calls, and eventfds.

use std::{
    fs::File,
    io,
    os::fd::{
        FromRawFd,
        OwnedFd, //
    },
    ptr,
};

extern "C" fn nothing(_signal: libc::c_int) {}

/// From now on SIGUSR1 does nothing but interrupt the call that a thread is in.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn catch() -> io::Result<()> {
    // SAFETY: All-zero is a valid `sigaction`: an empty mask and no flags (so not SA_RESTART).
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
    // SAFETY: `action` is initialised, and its handler does nothing.
    if unsafe { libc::sigaction(libc::SIGUSR1, &action, ptr::null_mut()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The number of this thread.
pub(crate) fn this_thread() -> i32 {
    // SAFETY: The call has no arguments and cannot fail.
    unsafe { libc::gettid() }
}

/// Sends SIGUSR1 to a thread of this program, if it still exists.
pub(crate) fn interrupt(thread: i32) {
    // SAFETY: The call takes numbers only; SIGUSR1 has a handler that does nothing, and a thread
    // that is gone has no effect but ESRCH.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1) };
}

/// A new eventfd, which does not block.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn eventfd() -> io::Result<File> {
    // SAFETY: The call takes numbers only.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: The kernel has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}
