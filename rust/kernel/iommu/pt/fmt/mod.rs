// SPDX-License-Identifier: GPL-2.0

//! The formats: the list of them, and what some have in common.

mod amdv1;
mod armv8;
mod riscv;
mod vtdss;
mod x86_64;

pub use amdv1::{
    AmdV1,
    AmdV1Mock, //
};
pub use armv8::{
    Armv8S1,
    Armv8S2, //
};
pub use riscv::{
    Riscv,
    RiscvX4, //
};
pub use vtdss::VtdSs;
pub use x86_64::X86_64;

use super::{
    addr::Level,
    format::{
        Entry,
        Format, //
    }, //
};

/// Calls the macro `$stamp` with the list of all formats: a name, and the
/// type that both the format and the reading of its specification (`tests/spec`) are called.
///
/// This is the one list of formats. From it come the KUnit suites, the tests of the host crate and of
/// loom, and the fuzz targets; `tools/testing/check/fuzz` reads the lines as text. Behind the
/// semicolon are those whose smallest page is not 4 KiB, which the suites assume.
#[doc(hidden)]
#[macro_export]
macro_rules! iommu_pt_for_each_format {
    ($stamp:ident) => {
        $stamp! {
            vtdss: VtdSs,
            x86_64: X86_64,
            amdv1: AmdV1,
            riscv: Riscv,
            riscv_x4: RiscvX4,
            armv8_s1: Armv8S1,
            armv8_s2: Armv8S2,
            ;
            amdv1_mock: AmdV1Mock,
        }
    };
}

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

/// [`Format::has_no_table`](super::Format::has_no_table) of formats that mark leaves with
/// [`PAGE_SIZE`].
///
/// Level 0 has no tables. Above, a line is passed by if every entry is a leaf; an empty entry costs
/// the line a closer look.
#[inline(always)]
fn has_no_table(any: u64, all: u64, level: Level) -> bool {
    level == Level::LEAF || any == 0 || is_leaf(all, level)
}

/// Whether an entry of `level` may change from `old` to `new` under hardware that uses the one or the
/// other, or both, until a flush.
///
/// Both must translate alike, so the address of a leaf or of a table stays, and so does the size of
/// a leaf in a row of entries, which cannot change all at once. A leaf may give way to a table, and
/// a table to a leaf, if the table translates as the leaf does. A permission may come but not go.
/// `flags` are what the hardware changes: they may differ.
#[inline]
fn may_coexist<F: Format>(old: u64, new: u64, level: Level, flags: u64) -> bool {
    match (F::decode(old, level), F::decode(new, level)) {
        (Entry::Empty, _) | (_, Entry::Empty) => false,
        (Entry::Table(old), Entry::Table(new)) => old == new,
        (leaf @ Entry::Leaf { .. }, other @ Entry::Leaf { .. }) => {
            leaf == other && old & !new & !flags == 0
        }
        (Entry::Leaf { lg2, .. }, Entry::Table(_)) | (Entry::Table(_), Entry::Leaf { lg2, .. }) => {
            lg2 == level.item_lg2(F::PAGE_LG2)
        }
    }
}
