// SPDX-License-Identifier: GPL-2.0

//! Sequences of operations, decoded from bytes and compared with the model and the raw tables.
//!
//! The random tests and the fuzzer make the bytes. Any bytes are a valid sequence, and the
//! meaning of a byte does not depend on its position, so a shorter or simpler input is a shorter
//! or simpler sequence.

mod decode;
mod run;

pub use decode::decode;
pub use run::{
    run,
    Maps, //
};

use crate::{
    pt::{
        Iova,
        PhysAddr,
        Prot, //
    },
    spec::Spec, //
};

/// The hardware that a page table is made for.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Number of levels at first.
    pub levels: u8,
    /// Number of levels that it may grow to.
    pub max_levels: u8,
    /// Whether the upper half of the address space is used.
    pub upper: bool,
    /// Leaf sizes, a bit for each.
    pub page_sizes: u64,
    /// Binary logarithm of the input addresses.
    pub input_lg2: u32,
    /// Binary logarithm of the output addresses.
    pub output_lg2: u32,
    /// Whether the hardware snoops.
    pub coherent: bool,
}

/// An operation. Lengths are given by the last address less the first, so that none is zero.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Maps, with memory for that many tables; undoes the map if memory runs out.
    Map {
        /// First address.
        iova: Iova,
        /// Output address of it.
        phys: PhysAddr,
        /// Length less one.
        span: u64,
        /// Permissions.
        prot: Prot,
        /// The number of tables that memory allows.
        tables: Option<u64>,
    },

    /// Unmaps.
    Unmap {
        /// First address.
        iova: Iova,
        /// Length less one.
        span: u64,
    },

    /// Accesses at `count` addresses, `stride` apart.
    Access {
        /// First address.
        iova: Iova,
        /// How many.
        count: u64,
        /// The distance.
        stride: u64,
        /// Whether they are writes.
        write: bool,
    },

    /// Queries the dirty pages.
    Harvest {
        /// First address.
        iova: Iova,
        /// Length less one.
        span: u64,
        /// Whether the leaves become clean.
        clear: bool,
    },

    /// Translates the address and those around it.
    Translate {
        /// The address.
        iova: Iova,
    },

    /// Makes a leaf dirty without a device.
    Mark {
        /// An address in it.
        iova: Iova,
    },

    /// Completes the flush: tables may be freed.
    Flush,
}

/// Runs the sequence in `bytes`, in the format of `S`.
pub fn check<S: Spec>(bytes: &[u8]) {
    let (setup, ops) = decode::<S>(bytes);

    run::<S>(setup, &ops);
}
