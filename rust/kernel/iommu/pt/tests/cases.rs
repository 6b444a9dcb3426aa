// SPDX-License-Identifier: GPL-2.0

//! What the specifications say about each format, in numbers.

use super::{
    super::{
        fmt,
        Format,
        Prot, //
    },
    hardware::Hardware, //
};

/// A format and what is known about it from elsewhere.
pub trait Case: 'static {
    /// The format.
    type F: Format;

    /// What the hardware makes of the bits.
    const HARDWARE: Hardware;

    /// The address bits that trees of one to six levels resolve, 0 if there are none.
    const INPUT_LG2: [u32; 6];

    /// The fewest levels of the trees that most tests use: they have room for leaves of 1 GiB.
    const MIN_LEVELS: u8;

    /// The most levels of the trees that most tests use: the end of their aperture is a number.
    const MAX_LEVELS: u8;

    /// The sizes that leaves can have, as binary logarithms.
    const SIZES: &'static [u32];

    /// What is allowed, and the words for it at [`PHYS`] with 4 KiB, 2 MiB and 1 GiB.
    const LEAVES: &'static [(Prot, [u64; 3])];

    /// Whether leaves can be made as if they had been used ([`Prot::USED`]).
    const HAS_USED: bool = false;

    /// The word for a table at [`PHYS`] in an entry of level 1.
    const TABLE: u64;

    /// What is added to it for each level further up.
    const TABLE_STEP: u64 = 0;
}

/// An address with the highest and the lowest bits that a leaf of 1 GiB can have.
pub const PHYS: u64 = 0x000f_5555_4000_0000;

/// VT-d second stage.
pub enum VtdSs {}

impl Case for VtdSs {
    type F = fmt::VtdSs;

    const HARDWARE: Hardware = Hardware {
        present: 0x3,
        read: 0x1,
        write: 0x2,
        accessed: 1 << 8,
        dirty: 1 << 9,
        table_reserved: 1 << 11,
        next_level: false,
    };

    const INPUT_LG2: [u32; 6] = [0, 0, 39, 48, 57, 0];
    const MIN_LEVELS: u8 = 3;
    const MAX_LEVELS: u8 = 5;
    const SIZES: &'static [u32] = &[12, 21, 30];

    const LEAVES: &'static [(Prot, [u64; 3])] = &[
        (
            Prot::READ,
            [
                0x000f_5555_4000_0001,
                0x000f_5555_4000_0081,
                0x000f_5555_4000_0081,
            ],
        ),
        (
            Prot::WRITE,
            [
                0x000f_5555_4000_0002,
                0x000f_5555_4000_0082,
                0x000f_5555_4000_0082,
            ],
        ),
        (
            Prot::READ.with(Prot::WRITE),
            [
                0x000f_5555_4000_0003,
                0x000f_5555_4000_0083,
                0x000f_5555_4000_0083,
            ],
        ),
        (
            Prot::READ.with(Prot::WRITE).with(Prot::SNOOP),
            [
                0x000f_5555_4000_0803,
                0x000f_5555_4000_0883,
                0x000f_5555_4000_0883,
            ],
        ),
    ];

    const TABLE: u64 = 0x000f_5555_4000_0003;
}

/// x86-64, first stage.
pub enum X86_64 {}

impl Case for X86_64 {
    type F = fmt::X86_64;

    const HAS_USED: bool = true;
    const HARDWARE: Hardware = Hardware {
        present: 0x1,
        read: 0x5,
        write: 0x7,
        accessed: 1 << 5,
        dirty: 1 << 6,
        table_reserved: 0,
        next_level: false,
    };

    const INPUT_LG2: [u32; 6] = [0, 0, 0, 47, 56, 0];
    const MIN_LEVELS: u8 = 4;
    const MAX_LEVELS: u8 = 5;
    const SIZES: &'static [u32] = &[12, 21, 30];

    const LEAVES: &'static [(Prot, [u64; 3])] = &[
        (
            Prot::READ,
            [
                0x000f_5555_4000_0005,
                0x000f_5555_4000_0085,
                0x000f_5555_4000_0085,
            ],
        ),
        (
            Prot::WRITE,
            [
                0x000f_5555_4000_0007,
                0x000f_5555_4000_0087,
                0x000f_5555_4000_0087,
            ],
        ),
        (
            Prot::READ.with(Prot::WRITE).with(Prot::SNOOP),
            [
                0x000f_5555_4000_0007,
                0x000f_5555_4000_0087,
                0x000f_5555_4000_0087,
            ],
        ),
    ];

    const TABLE: u64 = 0x000f_5555_4000_0027;
}

/// AMD v1.
pub enum AmdV1 {}

impl Case for AmdV1 {
    type F = fmt::AmdV1;

    const HARDWARE: Hardware = Hardware {
        present: 0x1,
        read: 1 << 61,
        write: 1 << 62,
        accessed: 1 << 5,
        dirty: 1 << 6,
        table_reserved: 0,
        next_level: true,
    };

    const INPUT_LG2: [u32; 6] = [21, 30, 39, 48, 57, 64];
    const MIN_LEVELS: u8 = 3;
    const MAX_LEVELS: u8 = 5;

    const SIZES: &'static [u32] = &[
        12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34,
        35, 36, 37, 38, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51,
    ];

    const LEAVES: &'static [(Prot, [u64; 3])] = &[
        (Prot::READ, [0x200f_5555_4000_0001; 3]),
        (Prot::WRITE, [0x400f_5555_4000_0001; 3]),
        (Prot::READ.with(Prot::WRITE), [0x600f_5555_4000_0001; 3]),
        (
            Prot::READ.with(Prot::WRITE).with(Prot::SNOOP),
            [0x700f_5555_4000_0001; 3],
        ),
    ];

    const TABLE: u64 = 0x600f_5555_4000_0201;
    const TABLE_STEP: u64 = 0x200;
}
