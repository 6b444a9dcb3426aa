// SPDX-License-Identifier: GPL-2.0

//! Machines whose units are left alone.
//!
//! The C driver knows three errata of whole machines (`init.c`):
//!
//! - Stoney Ridge: with the unit on, its graphics fail. C leaves the unit off (`detect_ivrs()`), and
//!   so does this driver.
//! - Erratum 746, "IOMMU Logging May Stall Translations", of family 15h, models 10h to 1fh. C changes
//!   an undocumented register of the unit. Such units have neither dirty flags nor guest tables for
//!   requests without PASID, so that this driver has nothing to offer there that C has not.
//! - A write check of translated requests that is too strict, of family 15h, models 30h to 3fh. C
//!   changes another register. This driver never switches a device TLB on: it sets I in no device
//!   table entry and offers no [`Capability::PciAts`], so no translated request ever comes.
//!
//! [`Capability::PciAts`]: kernel::iommu::device::Capability::PciAts

use kernel::{
    iommu::function::{
        self,
        UnitFunction, //
    },
    prelude::*, //
};

/// Device and vendor of the graphics of Stoney Ridge.
const STONEY_RIDGE: u32 = 0x98e4_1002;

/// Functions 0 on the first bus, where such graphics are.
const DEVICES: u16 = 32;

/// The vendor AMD in the number of a processor (`X86_VENDOR_AMD`).
const AMD: u32 = 2;

/// What is wrong with units of the processor with this number.
fn erratum(processor: u32) -> Option<&'static str> {
    let [model, family, vendor, _] = processor.to_le_bytes();
    let is_746 = u32::from(vendor) == AMD && family == 0x15 && (0x10..=0x1f).contains(&model);
    is_746.then_some(
        "the units of this processor may stall when they log an event (erratum 746), which the C \
         driver works around: boot without amd_iommu=off",
    )
}

/// What is wrong with units of a machine that has functions with these IDs.
fn graphics(mut ids: impl Iterator<Item = u32>) -> Option<&'static str> {
    ids.any(|id| id == STONEY_RIDGE).then_some(
        "the graphics of Stoney Ridge fail while its unit is on: no driver can change that",
    )
}

/// Refuses a machine whose units had better be left alone.
///
/// May sleep.
///
/// # Errors
///
/// `ENODEV`, which has been reported.
pub(crate) fn check() -> Result {
    let ids = (0..DEVICES).filter_map(|device| {
        let function = UnitFunction::find(0, device << 3)?;
        function.read_config(0).ok()
    });
    match erratum(function::processor()).or_else(|| graphics(ids)) {
        Some(reason) => {
            pr_err!("{}\n", reason);
            Err(ENODEV)
        }
        None => Ok(()),
    }
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
#[kunit_tests(rust_amdvi_quirks)]
mod tests {
    use super::*;

    #[test]
    fn processors_with_an_erratum() {
        for model in [0x10, 0x13, 0x1f] {
            assert!(erratum(AMD << 16 | 0x15 << 8 | model).is_some());
        }
        for other in [
            0,
            AMD << 16 | 0x15 << 8 | 0x0f,
            AMD << 16 | 0x15 << 8 | 0x20,
            AMD << 16 | 0x17 << 8 | 0x10,
            0x15 << 8 | 0x10,
        ] {
            assert!(erratum(other).is_none());
        }
        // This machine runs tests.
        assert!(function::processor() != 0);
    }

    #[test]
    fn a_machine_with_such_graphics() {
        assert!(graphics([0x1419_1022, 0x98e4_1002].into_iter()).is_some());
        assert!(graphics([0x1419_1022, 0x98e4_1022, 0xffff_ffff].into_iter()).is_none());
    }
}
