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

    /// The address bits that trees of three, four and five levels resolve, 0 if there are none.
    const INPUT_LG2: [u32; 3];

    /// What is allowed, and the words for it at [`PHYS`] with 4 KiB, 2 MiB and 1 GiB.
    const LEAVES: &'static [(Prot, [u64; 3])];

    /// The word for a table at [`PHYS`].
    const TABLE: u64;
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
    };

    const INPUT_LG2: [u32; 3] = [39, 48, 57];

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

    const HARDWARE: Hardware = Hardware {
        present: 0x1,
        read: 0x5,
        write: 0x7,
        accessed: 1 << 5,
        dirty: 1 << 6,
        table_reserved: 0,
    };

    const INPUT_LG2: [u32; 3] = [0, 47, 56];

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
