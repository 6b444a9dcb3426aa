// SPDX-License-Identifier: GPL-2.0

//! Stand-in for the kernel's error type.

use crate::alloc::AllocError;

/// An error number, negative as in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(i32);

impl From<AllocError> for Error {
    fn from(_: AllocError) -> Self {
        code::ENOMEM
    }
}

/// Result of the kernel's fallible functions.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// The error numbers that the parsers use.
pub mod code {
    use super::Error;

    /// Out of memory.
    pub const ENOMEM: Error = Error(-12);

    /// Invalid argument.
    pub const EINVAL: Error = Error(-22);
}
