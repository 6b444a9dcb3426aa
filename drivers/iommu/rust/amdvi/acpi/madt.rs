// SPDX-License-Identifier: GPL-2.0

//! The MADT: which CPUs and I/O APICs there are (ACPI specification, 5.2.12).
//!
//! Pure: works on bytes and trusts none of them.

use kernel::{
    iommu::firmware::reader::{
        Reader,
        RecordHeader,
        Records, //
    },
    prelude::*, //
};

/// Bytes of the fixed part of the MADT: the ACPI header, the address of the local APICs, flags.
const MADT_BYTES: usize = 44;

/// The types of records of the MADT (ACPI specification, 5.2.12).
const IO_APIC: u16 = 1;
const LOCAL_X2APIC: u16 = 9;

/// The APIC id that no message names as one CPU: it is all of them.
const BROADCAST: u32 = 0xff;

/// The APIC id of a CPU that does not exist.
const NO_CPU: u32 = u32::MAX;

/// `Flags` of [`LOCAL_X2APIC`]: the CPU can be used.
const ENABLED: u32 = 1 << 0;

/// What the MADT says that matters here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Madt {
    /// How many CPUs have an APIC id that fits no message.
    pub(crate) far_cpus: usize,
    /// The ids of the I/O APICs: one bit each.
    io_apics: [u64; 4],
}

impl Madt {
    /// Parses a MADT, its ACPI header included.
    ///
    /// # Errors
    ///
    /// `EINVAL` if a record is cut off.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        reader.skip(MADT_BYTES)?;
        let mut madt = Self::default();
        for record in Records::new(reader.rest(), RecordHeader::Byte) {
            let record = record?;
            let mut body = record.body();
            match record.kind {
                IO_APIC => {
                    let id = usize::from(body.u8()?);
                    madt.io_apics[id / 64] |= 1 << (id % 64);
                }
                LOCAL_X2APIC => {
                    body.skip(2)?;
                    let id = body.u32()?;
                    let usable = body.u32()? & ENABLED != 0 && id != NO_CPU;
                    if usable && id >= BROADCAST {
                        madt.far_cpus += 1;
                    }
                }
                _ => {}
            }
        }
        Ok(madt)
    }

    /// Whether `is_named` says so of all I/O APICs, of which there is one.
    pub(crate) fn are_io_apics(&self, is_named: impl Fn(u8) -> bool) -> bool {
        let has = |id: &u8| self.io_apics[usize::from(*id) / 64] >> (id % 64) & 1 != 0;
        let mut all = (0..=u8::MAX).filter(has).peekable();
        all.peek().is_some() && all.all(is_named)
    }
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
#[kunit_tests(rust_amdvi_madt)]
mod tests {
    use super::*;

    /// A MADT of these records.
    fn madt(records: &[&[u8]]) -> Result<Madt> {
        let mut bytes = KVec::new();
        bytes.resize(MADT_BYTES, 0, GFP_KERNEL)?;
        for record in records {
            bytes.extend_from_slice(record, GFP_KERNEL)?;
        }
        Madt::parse(&bytes)
    }

    /// CPU 1 with the APIC id 0xfe, 2 with 0xff, one with a higher one, one that cannot be used,
    /// and one that does not exist.
    const CPUS: [&[u8]; 5] = [
        &[9, 16, 0, 0, 0xfe, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
        &[9, 16, 0, 0, 0xff, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0],
        &[9, 16, 0, 0, 0, 0, 1, 0, 3, 0, 0, 0, 3, 0, 0, 0],
        &[9, 16, 0, 0, 1, 1, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0],
        &[9, 16, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 5, 0, 0, 0],
    ];

    #[test]
    fn cpus_that_no_message_names_are_counted() -> Result {
        assert_eq!(madt(&CPUS)?.far_cpus, 2);
        // A local APIC of the old kind.
        assert_eq!(madt(&[&[0, 8, 0, 0xff, 1, 0, 0, 0]])?.far_cpus, 0);
        assert_eq!(madt(&[&CPUS[1][..15]]), Err(EINVAL));
        assert_eq!(madt(&[&[9, 8, 0, 0, 0, 1, 0, 0]]), Err(EINVAL));
        assert_eq!(Madt::parse(&[0; MADT_BYTES - 1]), Err(EINVAL));
        Ok(())
    }

    #[test]
    fn every_io_apic_must_be_named() -> Result {
        let io_apic = |id| [1, 12, id, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0];
        let two = madt(&[&io_apic(2), &io_apic(0xc1)])?;
        assert!(two.are_io_apics(|id| id == 2 || id == 0xc1));
        assert!(!two.are_io_apics(|id| id == 2));
        assert!(!two.are_io_apics(|_| false));
        // One that is not known could be anywhere.
        assert!(!madt(&[])?.are_io_apics(|_| true));
        Ok(())
    }
}
