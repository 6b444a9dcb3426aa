// SPDX-License-Identifier: GPL-2.0

//! Who may touch which range: the lock contract of the page tables, as types.
//!
//! The tables take no lock. Their callers own ranges: the IOMMU API promises that nobody maps,
//! unmaps or reads a range while somebody else maps or unmaps it, and it is free to work on
//! different ranges at the same time, in atomic context too. A promise of that kind cannot be
//! checked, so it is made once, by an `unsafe` constructor, where the callback of the IOMMU core
//! enters; from there on the proof travels as a value.
//!
//! What the tables make of it: a table is freed only by an operation that claims *all* of the
//! addresses below it. Whoever holds a claim on one of these addresses therefore knows that the
//! tables on the way to it stay.

use super::addr::{
    Iova,
    Range, //
};

mod private {
    pub trait Sealed {}

    impl Sealed for super::Exclusive {}
    impl Sealed for super::Stable {}
}

/// A claim of either kind: enough to walk down to the addresses of its range.
pub trait Claim: private::Sealed {
    /// The range that the claim is for.
    fn range(&self) -> Range;
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
/// While the value exists, nobody else maps, unmaps, translates or harvests any address of the
/// range in the page table that it is used with.
#[derive(Debug)]
#[must_use]
pub struct Exclusive {
    range: Range,
}

impl Exclusive {
    /// Claims `range` for changes.
    ///
    /// # Safety
    ///
    /// For as long as the value exists, and in the page table that it is used with, there must be
    /// no other [`Exclusive`] and no [`Stable`] over any address of `range`, nor over any other
    /// address that a leaf which begins in `range` covers.
    pub unsafe fn new(range: Range) -> Self {
        // INVARIANT: Promised by the caller.
        Self { range }
    }
}

/// The right to read a range: it does not change meanwhile.
///
/// The hardware still sets accessed and dirty bits, and another holder of a `Stable` may clear
/// dirty bits at the same time.
///
/// # Invariants
///
/// While the value exists, nobody maps or unmaps any address of the range in the page table that
/// it is used with.
#[derive(Debug)]
#[must_use]
pub struct Stable {
    range: Range,
}

impl Stable {
    /// Claims `range` for reading.
    ///
    /// # Safety
    ///
    /// For as long as the value exists, and in the page table that it is used with, there must be
    /// no [`Exclusive`] over any address of `range`.
    pub unsafe fn new(range: Range) -> Self {
        // INVARIANT: Promised by the caller.
        Self { range }
    }

    /// Claims the one address `iova` for reading.
    ///
    /// # Safety
    ///
    /// As for [`Stable::new`].
    pub unsafe fn at(iova: Iova) -> Self {
        // SAFETY: The caller makes the same promise for the range of one byte.
        unsafe { Self::new(Range::at(iova)) }
    }
}
