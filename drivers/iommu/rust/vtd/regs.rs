// SPDX-License-Identifier: GPL-2.0

//! The register map of a remapping unit (VT-d specification, chapter 11.4).
//!
//! One module for each group of registers. Bits that software clears by writing a one (RW1C) are
//! never written directly: each has a method whose name says what it acknowledges.
//!
//! The kernel's I/O regions are only known to be aligned to four bytes, so 64-bit registers need
//! the `try_` accessors, which check at run time.

pub(crate) mod cap;
pub(crate) mod command;
pub(crate) mod fault;
pub(crate) mod queue;
