// SPDX-License-Identifier: GPL-2.0

//! Entries of interrupt remapping tables, bit by bit (specification, 2.2.5.2, for GAEn = 1).
//!
//! An entry has 128 bits. This driver remaps interrupts to vectors of the host only; it posts no
//! interrupts to guests (GuestMode). Pure.

use kernel::{
    bitfield,
    iommu::irq::parent::Target,
    prelude::*, //
};

bitfield! {
    /// Quadword 0.
    struct Low(u64) {
        /// Destination, bits 23:0: the lowest eight without x2APIC support (XTEn).
        31:8    destination;
        /// GuestMode: the interrupt is posted to a guest.
        7:7     guest => bool;
        /// DM: the destination is a logical one.
        6:6     logical => bool;
        /// RqEoi: the unit waits for the end of the interrupt.
        5:5     request_eoi => bool;
        /// IntType: see [`FIXED`].
        4:2     kind;
        /// SupIOPF: what is refused is not logged.
        1:1     silent => bool;
        /// RemapEn: the entry is valid.
        0:0     enabled => bool;
    }
}

bitfield! {
    /// Quadword 1.
    struct High(u64) {
        /// Destination, bits 31:24.
        63:56   destination;
        /// Vector.
        7:0     vector;
    }
}

/// `Low.IntType` of an interrupt for exactly the destination.
const FIXED: u64 = 0b000;

/// The highest destination without x2APIC support.
pub(crate) const LAST_DESTINATION: u32 = 0xff;

/// The lowest vector that is not an exception of the CPU.
const FIRST_VECTOR: u8 = 16;

/// The value of a whole entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Irte(pub(crate) [u64; 2]);

impl Irte {
    /// Interrupts are refused, and that is logged.
    pub(crate) const EMPTY: Self = Self([0; 2]);

    /// Interrupts go to `target`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a destination that needs x2APIC support, or a vector that no interrupt can
    /// have.
    pub(crate) fn new(target: Target) -> Result<Self> {
        if target.destination > LAST_DESTINATION || target.vector < FIRST_VECTOR {
            return Err(EINVAL);
        }
        let low = Low::from_raw(u64::from(target.destination) << Low::DESTINATION_SHIFT)
            .with_const_kind::<FIXED>()
            .with_logical(target.logical)
            .with_enabled(true);
        let high = High::from_raw(u64::from(target.vector));
        Ok(Self([low.into_raw(), high.into_raw()]))
    }
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
#[kunit_tests(rust_amdvi_irte)]
mod tests {
    use super::*;

    fn to(vector: u8, destination: u32, logical: bool) -> Target {
        Target {
            vector,
            destination,
            logical,
        }
    }

    #[test]
    fn every_field_is_where_the_unit_looks() -> Result {
        for (target, words) in [
            (to(0x31, 0, false), [0x0001, 0x31]),
            (to(0xef, 1, false), [0x0101, 0xef]),
            (to(0x10, 0xff, false), [0xff01, 0x10]),
            (to(0xa5, 0x81, true), [0x8141, 0xa5]),
        ] {
            assert_eq!(Irte::new(target)?.0, words);
        }
        assert_eq!(Irte::EMPTY.0[0] & 1, 0);
        // SupIOPF is off.
        assert_eq!(Irte::EMPTY.0[0] & 2, 0);
        Ok(())
    }

    #[test]
    fn what_no_entry_can_name_is_refused() {
        // A reserved bit would be set, and another CPU interrupted.
        assert_eq!(Irte::new(to(0x31, 0x100, false)), Err(EINVAL));
        assert_eq!(Irte::new(to(0x31, u32::MAX, true)), Err(EINVAL));
        // NMI and its like.
        assert_eq!(Irte::new(to(2, 0, false)), Err(EINVAL));
    }
}
