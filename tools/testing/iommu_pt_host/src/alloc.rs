// SPDX-License-Identifier: GPL-2.0

//! Stand-in for the kernel's boxes.

use crate::error::Result;
use std::mem::MaybeUninit;

/// Allocation flags.
#[derive(Clone, Copy)]
pub struct Flags;

/// The flags that the tests of the page tables use.
pub mod flags {
    /// An allocation that may sleep.
    pub const GFP_KERNEL: super::Flags = super::Flags;
}

/// A box.
pub struct KBox<T>(Box<T>);

impl<T> KBox<T> {
    /// Allocates room for a value.
    pub fn new_uninit(_flags: Flags) -> Result<KBox<MaybeUninit<T>>> {
        Ok(KBox(Box::new_uninit()))
    }

    /// Turns the box into a pointer.
    pub fn into_raw(this: Self) -> *mut T {
        Box::into_raw(this.0)
    }

    /// Turns the pointer into a box.
    ///
    /// # Safety
    ///
    /// The pointer came from [`KBox::into_raw`], and is used for one box only.
    pub unsafe fn from_raw(raw: *mut T) -> Self {
        // SAFETY: The caller's promise is that of the standard library's function.
        Self(unsafe { Box::from_raw(raw) })
    }
}
