// SPDX-License-Identifier: GPL-2.0

//! What several formats have in common.

use super::super::{
    addr::Level,
    format::{
        Entry,
        Format, //
    }, //
};

/// Bits 51:12 of an entry: the output address or the address of the next table.
pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Bit 7 of an entry above level 0: it is a leaf ("page size").
const PAGE_SIZE: u64 = 1 << 7;

/// Leaves of 4 KiB, 2 MiB and 1 GiB.
pub(super) const PAGE_SIZES: u64 = 1 << 12 | 1 << 21 | 1 << 30;

/// Whether an entry of `level` can be a leaf: at levels 0, 1 and 2.
#[inline(always)]
pub(super) fn can_be_leaf(level: Level) -> bool {
    level <= Level::new(2)
}

/// Whether `word`, which is present, is a leaf.
#[inline(always)]
pub(super) fn is_leaf(word: u64, level: Level) -> bool {
    level == Level::LEAF || (can_be_leaf(level) && word & PAGE_SIZE != 0)
}

/// The page-size bit for a leaf of `level`: level 0 has none, bit 7 means something else there.
#[inline(always)]
pub(super) fn page_size_bit(level: Level) -> u64 {
    if level == Level::LEAF {
        0
    } else {
        PAGE_SIZE
    }
}

/// [`Format::has_no_table`] of formats that mark leaves with
/// [`PAGE_SIZE`].
///
/// Level 0 has no tables. Above, a line is passed by if every entry is a leaf; an empty entry costs
/// the line a closer look.
#[inline(always)]
pub(super) fn has_no_table(any: u64, all: u64, level: Level) -> bool {
    level == Level::LEAF || any == 0 || is_leaf(all, level)
}

/// Whether an entry of `level` may change from `old` to `new` under hardware that uses the one or
/// the other, or both, until a flush.
///
/// Both must translate alike, so the address of a leaf or of a table stays, and so does the size of
/// a leaf in a row of entries, which cannot change all at once. A leaf may give way to a table, and
/// a table to a leaf, if the table translates as the leaf does. `flags` are what the hardware
/// changes: they may differ. `rights` are permissions: they may come but not go. All other bits of
/// a leaf stay.
#[inline]
pub(super) fn may_coexist<F: Format>(
    old: u64,
    new: u64,
    level: Level,
    flags: u64,
    rights: u64,
) -> bool {
    match (F::decode(old, level), F::decode(new, level)) {
        (Entry::Empty, _) | (_, Entry::Empty) => false,
        (Entry::Table(old), Entry::Table(new)) => old == new,
        (leaf @ Entry::Leaf { .. }, other @ Entry::Leaf { .. }) => {
            leaf == other && (old ^ new) & !(flags | (rights & new)) == 0
        }
        (Entry::Leaf { lg2, .. }, Entry::Table(_)) | (Entry::Table(_), Entry::Leaf { lg2, .. }) => {
            lg2 == level.item_lg2(F::PAGE_LG2)
        }
    }
}
