// SPDX-License-Identifier: GPL-2.0

//! Assertions that return an error.

use kernel::error::{
    code::*,
    Error, //
};

/// What can be compared: shown as one kind of number.
pub trait Number {
    /// The number.
    fn number(self) -> u64;
}

macro_rules! numbers {
    ($($type:ty)*) => {
        $(
            impl Number for $type {
                fn number(self) -> u64 {
                    self.into()
                }
            }
        )*
    };
}

numbers!(bool u8 u32 u64);

impl Number for usize {
    fn number(self) -> u64 {
        // CAST: At most 64 bits.
        self as u64
    }
}

/// Says what failed, and returns the error to return.
#[inline(never)]
pub fn failed(line: u32, what: &str, left: u64, right: u64) -> Error {
    kernel::pr_err!("line {line}: {what}: {left:#x} against {right:#x}\n");
    EINVAL
}

/// Ends the test with an error unless the condition holds.
macro_rules! check {
    ($cond:expr $(,)?) => {
        if !$cond {
            return Err(kernel::iommu::pt::tests::failed(
                ::core::line!(),
                ::core::concat!(::core::file!(), ": ", ::core::stringify!($cond)),
                0,
                1,
            ));
        }
    };
}

/// Ends the test with an error unless both numbers are the same.
macro_rules! check_eq {
    ($left:expr, $right:expr $(,)?) => {{
        use kernel::iommu::pt::tests::Number as _;

        let (left, right) = ($left, $right);

        if left != right {
            return Err(kernel::iommu::pt::tests::failed(
                ::core::line!(),
                ::core::concat!(
                    ::core::file!(),
                    ": ",
                    ::core::stringify!($left),
                    " == ",
                    ::core::stringify!($right)
                ),
                left.number(),
                right.number(),
            ));
        }
    }};
}
