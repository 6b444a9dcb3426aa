// SPDX-License-Identifier: GPL-2.0

//! Registers of the invalidation queue (VT-d specification, 11.4.9).

use kernel::{
    io::register,
    num::Bounded, //
};

register! {
    /// Invalidation queue head register, read-only: what the hardware fetches next.
    ///
    /// This one and the tail are 64 bits wide, but their upper halves are reserved, and software
    /// may access the lower ones alone.
    pub(crate) IQH(u32) @ 0x80 {
        /// QH: offset in the queue in units of 16 bytes.
        18:4    head;
    }

    /// Invalidation queue tail register: what software fills next.
    pub(crate) IQT(u32) @ 0x88 {
        /// QT: offset in the queue in units of 16 bytes.
        18:4    tail;
    }

    /// Invalidation queue address register.
    pub(crate) IQA(u64) @ 0x90 {
        /// IQA: the queue's address, in 4 KiB units.
        63:12   queue;
        /// DW: descriptors of 256 bits, which scalable mode needs.
        11:11   wide => bool;
        /// QS: the queue is 2^QS pages long.
        2:0     size;
    }

    /// Invalidation queue error record register, read-only.
    pub(crate) IQERCD(u64) @ 0xb0 {
        /// IQEI: why a descriptor was refused.
        3:0     queue_error;
    }
}

/// Bytes of a wide descriptor.
pub(crate) const DESCRIPTOR_BYTES: usize = 32;

/// A wide descriptor takes two of the 16-byte units that head and tail count in.
const UNITS: u32 = (DESCRIPTOR_BYTES / 16) as u32;

impl IQH {
    /// Index of the wide descriptor that the hardware fetches next.
    pub(crate) fn index(self) -> usize {
        // CAST: the field is 15 bits wide.
        (self.head().get() / UNITS) as usize
    }
}

impl IQT {
    /// The register value for the wide descriptor at `index`.
    pub(crate) fn at(index: usize) -> Self {
        // CAST: an index into the ring has nine bits at most.
        Self::from_raw(((index as u32 * UNITS) << Self::TAIL_SHIFT) & Self::TAIL_MASK)
    }
}

impl IQA {
    /// A queue of 2^`size` pages of wide descriptors at the physical address `queue`.
    pub(crate) fn wide_queue(queue: u64, size: u8) -> Self {
        Self::from_raw(
            (queue & Self::QUEUE_MASK) | Self::WIDE_MASK | (u64::from(size) & Self::SIZE_MASK),
        )
    }
}

/// Why the unit has stopped (IQEI), which [`Self::text`] puts into words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueError {
    NoDetails,
    Tail,
    Fetch,
    Kind,
    Reserved,
    Width,
    Alignment,
    RootMode,
    Unknown,
}

impl From<Bounded<u64, 4>> for QueueError {
    fn from(code: Bounded<u64, 4>) -> Self {
        match code.get() {
            0 => Self::NoDetails,
            1 => Self::Tail,
            2 => Self::Fetch,
            3 => Self::Kind,
            4 => Self::Reserved,
            5 => Self::Width,
            6 => Self::Alignment,
            7 => Self::RootMode,
            _ => Self::Unknown,
        }
    }
}

impl QueueError {
    /// Whether the unit resumes if another descriptor replaces the one at the head. Units may
    /// give no details.
    pub(crate) fn is_about_descriptor(self) -> bool {
        matches!(self, Self::NoDetails | Self::Kind | Self::Reserved)
    }

    /// The reason in words.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::NoDetails => "no details",
            Self::Tail => "the tail register points outside the queue",
            Self::Fetch => "the descriptor could not be fetched",
            Self::Kind => "the descriptor type is invalid",
            Self::Reserved => "a reserved field is set",
            Self::Width => "the queue address register names an invalid descriptor width",
            Self::Alignment => "the tail register is not aligned to a wide descriptor",
            Self::RootMode => "the root table address register names an invalid mode",
            Self::Unknown => "an unknown error",
        }
    }
}
