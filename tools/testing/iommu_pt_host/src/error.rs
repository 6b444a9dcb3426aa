// SPDX-License-Identifier: GPL-2.0

//! Stand-in for the kernel's error type.

use std::fmt;

/// An error number, negative as in the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error(i32);

impl Error {
    /// The negative error number.
    pub fn to_errno(self) -> i32 {
        self.0
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match code::NAMES.iter().find(|(error, _)| error == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

/// Result of the kernel's fallible functions.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// The error numbers that the page tables use.
pub mod code {
    use super::Error;

    macro_rules! errors {
        ($($name:ident = $number:literal,)*) => {
            $(
                #[doc = concat!("Error number ", $number, ".")]
                pub const $name: Error = Error(-$number);
            )*

            pub(super) const NAMES: &[(Error, &str)] = &[$(($name, stringify!($name)),)*];
        };
    }

    errors! {
        ENOENT = 2,
        EINTR = 4,
        EIO = 5,
        EAGAIN = 11,
        ENOMEM = 12,
        EACCES = 13,
        EINVAL = 22,
        ERANGE = 34,
        EOVERFLOW = 75,
        EOPNOTSUPP = 95,
        EADDRINUSE = 98,
    }
}
