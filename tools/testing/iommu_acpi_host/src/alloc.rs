// SPDX-License-Identifier: GPL-2.0

//! Stand-in for the kernel's vectors, which never run out of memory.

use std::ops::{
    Deref,
    DerefMut, //
};

/// There is no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocError;

/// Allocation flags.
#[derive(Clone, Copy)]
pub struct Flags;

/// An allocation that may sleep.
pub const GFP_KERNEL: Flags = Flags;

/// A vector.
#[derive(Debug, PartialEq, Eq)]
pub struct KVec<T>(Vec<T>);

impl<T> Default for KVec<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> KVec<T> {
    /// Makes an empty vector.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Makes an empty vector with room for `capacity` elements.
    pub fn with_capacity(capacity: usize, _flags: Flags) -> Result<Self, AllocError> {
        Ok(Self(Vec::with_capacity(capacity)))
    }

    /// Appends a value.
    pub fn push(&mut self, value: T, _flags: Flags) -> Result<(), AllocError> {
        self.0.push(value);
        Ok(())
    }
}

impl<T> Deref for KVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for KVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<'a, T> IntoIterator for &'a KVec<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
