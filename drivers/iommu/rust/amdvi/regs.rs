// SPDX-License-Identifier: GPL-2.0

//! The register map of a unit (specification, 3.4).
//!
//! One module for each group of registers. Bits that software clears by writing a one (RW1C) are
//! never written by hand: each has a method that says what it acknowledges.
//!
//! The kernel's I/O regions are known to be aligned to four bytes only, so 64-bit registers are
//! reached with the `try_` accessors, which check at run time.

pub(crate) mod cap;
pub(crate) mod control;
pub(crate) mod queue;
