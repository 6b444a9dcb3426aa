// SPDX-License-Identifier: GPL-2.0

//! Machines whose units the driver refuses, or works around an erratum of.
//!
//! The C driver knows three errata of whole machines (`init.c`):
//!
//! - Stoney Ridge: with the unit on, its graphics fail. C leaves the unit off (`detect_ivrs()`),
//!   and so does this driver.
//! - Erratum 746, "IOMMU Logging May Stall Translations", of family 15h, models 10h to 1fh. A bit
//!   of the unit works around it, and firmware should set it. Like C, this driver sets it if it is
//!   clear, and does not clear it again: it harms no other driver. The driver has claimed the unit
//!   while it uses the two registers that lead to the bit.
//! - A write check of translated requests that is too strict, of family 15h, models 30h to 3fh. C
//!   changes another register. This driver never switches a device TLB on: it sets I in no device
//!   table entry and offers no [`Capability::PciAts`], so no translated request ever comes.
//!
//! [`Capability::PciAts`]: kernel::iommu::device::Capability::PciAts

use kernel::{
    iommu::{
        hw::cpu,
        pci::unit::UnitFunction, //
    },
    prelude::*, //
};

/// Device and vendor of the graphics of Stoney Ridge.
const STONEY_RIDGE: u32 = 0x98e4_1002;

/// Functions 0 on the first bus, where such graphics are.
const DEVICES: u16 = 32;

/// Register of the unit's function: which indirect register is meant, and whether it may be
/// written.
const INDEX: u16 = 0xf0;

/// Register of the function: the value of the indirect register.
const DATA: u16 = 0xf4;

/// Number of the indirect register that has [`MENDED`].
const LOGGING: u32 = 0x90;

/// Flag of [`INDEX`]: the indirect register may be written.
const WRITABLE: u32 = 1 << 8;

/// Flag of the indirect register [`LOGGING`] that mends erratum 746.
const MENDED: u32 = 1 << 2;

/// The vendor AMD in the number of a processor (`X86_VENDOR_AMD`).
const AMD: u32 = 2;

/// Whether units of the processor with this number have erratum 746.
fn has_erratum_746(processor: u32) -> bool {
    let [model, family, vendor, _] = processor.to_le_bytes();
    u32::from(vendor) == AMD && family == 0x15 && (0x10..=0x1f).contains(&model)
}

/// The configuration space of a unit's function.
trait Config {
    /// Reads 32 bits.
    fn read(&self, offset: u16) -> Result<u32>;
    /// Writes 32 bits.
    fn write(&self, offset: u16, value: u32) -> Result;
}

impl Config for UnitFunction {
    fn read(&self, offset: u16) -> Result<u32> {
        self.read_config(offset)
    }

    fn write(&self, offset: u16, value: u32) -> Result {
        self.write_config(offset, value)
    }
}

/// Mends erratum 746 as C does (`amd_iommu_erratum_746_workaround()`). Returns whether firmware had
/// not.
///
/// # Errors
///
/// The errors of the PCI core; `EIO` if the unit does not take the bit.
fn mend_746(config: &impl Config) -> Result<bool> {
    config.write(INDEX, LOGGING)?;
    let value = config.read(DATA)?;
    if value & MENDED != 0 {
        return Ok(false);
    }
    config.write(INDEX, LOGGING | WRITABLE)?;
    let written = config.write(DATA, value | MENDED);
    // Also after an error: write-protects the indirect register again.
    config.write(INDEX, LOGGING)?;
    written?;
    if config.read(DATA)? & MENDED == 0 {
        return Err(EIO);
    }
    Ok(true)
}

/// Mends the unit number `number`, which is the PCI function `source` of `segment`, and is claimed.
///
/// May sleep.
///
/// # Errors
///
/// `EIO` if the bit cannot be set; the log says so.
pub(crate) fn mend(number: usize, segment: u16, source: u16) -> Result {
    if !has_erratum_746(cpu::model()) {
        return Ok(());
    }
    let mended = UnitFunction::find(segment, source)
        .ok_or(ENODEV)
        .and_then(|function| mend_746(&function));
    match mended {
        Ok(true) => pr_info!("ivhd{}: applied the workaround for erratum 746\n", number),
        Ok(false) => {}
        Err(error) => {
            pr_err!(
                "ivhd{}: may stall when it logs an event, and does not accept the workaround \
                 (erratum 746): {:?}; update the firmware\n",
                number,
                error
            );
            return Err(EIO);
        }
    }
    Ok(())
}

/// What is wrong with units of a machine that has functions with these IDs.
fn graphics(mut ids: impl Iterator<Item = u32>) -> Option<&'static str> {
    ids.any(|id| id == STONEY_RIDGE).then_some(
        "the graphics of Stoney Ridge fail while its unit is on: no driver can change that",
    )
}

/// Refuses a machine whose units must stay off.
///
/// May sleep.
///
/// # Errors
///
/// `ENODEV`; the log says why.
pub(crate) fn check() -> Result {
    let ids = (0..DEVICES).filter_map(|device| {
        let function = UnitFunction::find(0, device << 3)?;
        function.read_config(0).ok()
    });
    match graphics(ids) {
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
    use core::cell::Cell;

    /// A function with indirect registers, of which [`LOGGING`] is one.
    struct Fake {
        index: Cell<u32>,
        logging: Cell<u32>,
        takes: bool,
        written: Cell<u32>,
    }

    impl Fake {
        fn new(logging: u32, takes: bool) -> Self {
            Self {
                // What was there before means another register, which may be written.
                index: Cell::new(WRITABLE | 0x33),
                logging: Cell::new(logging),
                takes,
                written: Cell::new(0),
            }
        }
    }

    impl Config for Fake {
        fn read(&self, offset: u16) -> Result<u32> {
            assert_eq!((offset, self.index.get() & 0xff), (DATA, LOGGING));
            Ok(self.logging.get())
        }

        fn write(&self, offset: u16, value: u32) -> Result {
            if offset == INDEX {
                self.index.set(value);
                return Ok(());
            }
            assert_eq!((offset, self.index.get()), (DATA, LOGGING | WRITABLE));
            self.written.set(self.written.get() + 1);
            if self.takes {
                self.logging.set(value);
            }
            Ok(())
        }
    }

    #[test]
    fn erratum_746_is_mended_once() {
        // The other bits stay, and nothing can be written afterwards.
        let unit = Fake::new(0xa5a5_a5a0, true);
        assert_eq!(mend_746(&unit), Ok(true));
        assert_eq!(unit.logging.get(), 0xa5a5_a5a4);
        assert_eq!(mend_746(&unit), Ok(false));
        assert_eq!((unit.written.get(), unit.index.get()), (1, LOGGING));

        let unit = Fake::new(MENDED, true);
        assert_eq!(mend_746(&unit), Ok(false));
        assert_eq!((unit.written.get(), unit.index.get()), (0, LOGGING));

        let unit = Fake::new(0, false);
        assert_eq!(mend_746(&unit), Err(EIO));
        assert_eq!(unit.index.get(), LOGGING);
    }

    #[test]
    fn processors_with_an_erratum() {
        for model in [0x10, 0x13, 0x1f] {
            assert!(has_erratum_746(AMD << 16 | 0x15 << 8 | model));
        }
        for other in [
            0,
            AMD << 16 | 0x15 << 8 | 0x0f,
            AMD << 16 | 0x15 << 8 | 0x20,
            AMD << 16 | 0x17 << 8 | 0x10,
            0x15 << 8 | 0x10,
        ] {
            assert!(!has_erratum_746(other));
        }
    }

    #[test]
    fn a_machine_with_such_graphics() {
        assert!(graphics([0x1419_1022, 0x98e4_1002].into_iter()).is_some());
        assert!(graphics([0x1419_1022, 0x98e4_1022, 0xffff_ffff].into_iter()).is_none());
    }
}
