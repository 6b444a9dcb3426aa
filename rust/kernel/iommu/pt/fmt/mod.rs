// SPDX-License-Identifier: GPL-2.0

//! The formats, and what those of x86 descent have in common.

mod amdv1;
mod vtdss;
mod x86_64;

pub use amdv1::{
    AmdV1,
    AmdV1Mock, //
};
pub use vtdss::VtdSs;
pub use x86_64::X86_64;

use super::addr::Level;

/// Bits 51:12 of an entry: the output address or the address of the next table.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Bit 7 of an entry above level 0: it is a leaf ("page size").
const PAGE_SIZE: u64 = 1 << 7;

/// Leaves of 4 KiB, 2 MiB and 1 GiB.
const PAGE_SIZES: u64 = 1 << 12 | 1 << 21 | 1 << 30;

/// Whether an entry of `level` can be a leaf: at levels 0, 1 and 2.
#[inline(always)]
fn can_be_leaf(level: Level) -> bool {
    level <= Level::new(2)
}

/// Whether `word`, which is present, is a leaf.
#[inline(always)]
fn is_leaf(word: u64, level: Level) -> bool {
    level == Level::LEAF || (can_be_leaf(level) && word & PAGE_SIZE != 0)
}

/// The page-size bit for a leaf of `level`: level 0 has none, bit 7 means something else there.
#[inline(always)]
fn page_size_bit(level: Level) -> u64 {
    if level == Level::LEAF {
        0
    } else {
        PAGE_SIZE
    }
}

/// [`Format::is_quiet`](super::Format::is_quiet) of formats that mark leaves with [`PAGE_SIZE`].
///
/// Level 0 has no tables, so only dirty bits count there. Above, a line is passed by if every entry
/// is a leaf and none is dirty; an empty entry costs the line a closer look.
#[inline(always)]
fn is_quiet(any: u64, all: u64, level: Level, dirty: u64) -> bool {
    any & dirty == 0 && (level == Level::LEAF || any == 0 || is_leaf(all, level))
}
