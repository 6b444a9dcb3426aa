// SPDX-License-Identifier: GPL-2.0

//! What the specifications say about the formats: `pt/tests/spec`, and what only these tests need.

pub use crate::pt::tests::spec::*;

use crate::pt::Iova;

/// The input addresses of a tree of `levels` levels on hardware that takes `bits` bits, with the
/// upper half or without: ranges with their last address.
pub fn apertures<S: Spec>(levels: u8, bits: u32, upper: bool) -> Vec<(Iova, Iova)> {
    let last = mask(bits.min(S::lower_lg2(levels)));

    if upper {
        vec![(0, last), (!last, u64::MAX)]
    } else {
        vec![(0, last)]
    }
}
