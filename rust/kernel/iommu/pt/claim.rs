// SPDX-License-Identifier: GPL-2.0

//! Which operation may touch which range: the lock contract of the page tables, as types.
//!
//! The tables take no lock. Their callers own ranges: the IOMMU API promises that no caller maps or
//! unmaps a range while another maps, unmaps or translates in it, and it is free to work on
//! different ranges at the same time, in atomic context too. Code cannot check such a promise, so
//! the callback of the IOMMU core makes it once, by an `unsafe` constructor; from there on the
//! proof travels as a value.
//!
//! There are three kinds:
//!
//! - [`Exclusive`]: the range is changed by the holder alone.
//! - [`Stable`]: the range does not change while the claim lasts.
//! - [`Walk`](super::Walk): the range may change at any time, but no table is freed that the holder
//!   may be in: see `walks.rs`. A harvest has this, because iommufd may unmap beside it.
//!
//! The tables rely on these claims: a table is unlinked only by an operation that has an
//! [`Exclusive`] of *all* of the addresses below it, and is freed only when every earlier
//! [`Walk`](super::Walk) has ended. So the holder of a claim of any kind may rely on this: **a
//! table that is found on the way to claimed addresses stays as long as the claim.**
//!
//! # Which tree
//!
//! A claim is made by code that knows the object that a page table is a part of, before the page
//! table itself is known: a domain has a driver's part, and somewhere in that is the page table.
//! The claim therefore names the *owner*, by the memory that it takes, and a tree accepts a claim
//! if its top lies there. While an operation borrows a page table it does not move, so it is the
//! owner's as long as the operation takes. A page table that the owner has elsewhere, behind a
//! pointer, accepts no claim of the owner's.

use super::addr::{
    Iova,
    Range, //
};

/// The memory of an object that page tables are a part of.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    first: usize,
    bytes: usize,
}

impl Owner {
    /// The memory of `owner`.
    #[inline(always)]
    pub(super) fn of<T>(owner: *const T) -> Self {
        Self {
            first: owner.addr(),
            bytes: size_of::<T>(),
        }
    }

    /// Whether `part` lies in it.
    #[inline(always)]
    pub(super) fn has<T>(self, part: *const T) -> bool {
        part.addr().wrapping_sub(self.first) < self.bytes
    }
}

pub(super) mod private {
    pub trait Sealed {
        /// The object that the claim is about.
        fn owner(&self) -> super::Owner;
    }

    impl Sealed for super::Exclusive {
        #[inline(always)]
        fn owner(&self) -> super::Owner {
            self.owner
        }
    }

    impl Sealed for super::Stable {
        #[inline(always)]
        fn owner(&self) -> super::Owner {
            self.owner
        }
    }
}

/// A claim of any kind: enough to walk down to the addresses of its range.
pub trait Claim: private::Sealed {
    /// The range that the claim is for.
    fn range(&self) -> Range;

    /// Whether the claim is about the object that `part` is a part of.
    #[doc(hidden)]
    #[inline(always)]
    fn is_about<T>(&self, part: &T) -> bool {
        self.owner().has(part)
    }
}

impl Claim for Exclusive {
    #[inline(always)]
    fn range(&self) -> Range {
        self.range
    }
}

impl Claim for Stable {
    #[inline(always)]
    fn range(&self) -> Range {
        self.range
    }
}

/// The right to change a range.
///
/// # Invariants
///
/// While the value exists, no other operation maps, unmaps or translates any address of the range
/// in a page table that is a part of `owner`.
#[derive(Debug)]
#[must_use]
pub struct Exclusive {
    range: Range,
    owner: Owner,
}

impl Exclusive {
    /// Claims `range` for changes, in the page tables that are a part of `owner`.
    ///
    /// # Safety
    ///
    /// For as long as the value exists there must be no other [`Exclusive`] and no [`Stable`] of
    /// the same owner over any address of `range`, nor over any other address that a leaf which
    /// begins in `range` covers.
    #[inline(always)]
    pub unsafe fn new<T>(range: Range, owner: *const T) -> Self {
        // INVARIANT: Promised by the caller.
        Self {
            range,
            owner: Owner::of(owner),
        }
    }
}

/// The right to read a range that does not change while the claim lasts.
///
/// The hardware still sets accessed and dirty bits, and harvests may clear dirty bits.
///
/// # Invariants
///
/// While the value exists, no operation maps or unmaps any address of the range in a page table
/// that is a part of `owner`.
#[derive(Debug)]
#[must_use]
pub struct Stable {
    range: Range,
    owner: Owner,
}

impl Stable {
    /// Claims `range` for reading, in the page tables that are a part of `owner`.
    ///
    /// # Safety
    ///
    /// For as long as the value exists there must be no [`Exclusive`] of the same owner over any
    /// address of `range`.
    #[inline(always)]
    pub unsafe fn new<T>(range: Range, owner: *const T) -> Self {
        // INVARIANT: Promised by the caller.
        Self {
            range,
            owner: Owner::of(owner),
        }
    }

    /// Claims the one address `iova` for reading.
    ///
    /// # Safety
    ///
    /// As for [`Stable::new`].
    #[inline(always)]
    pub unsafe fn at<T>(iova: Iova, owner: *const T) -> Self {
        // SAFETY: The caller makes the same promise for the range of one byte.
        unsafe { Self::new(Range::at(iova), owner) }
    }
}
