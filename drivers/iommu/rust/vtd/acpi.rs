// SPDX-License-Identifier: GPL-2.0

//! The DMAR table: which remapping units there are and which devices each one serves.
//!
//! VT-d specification, chapter 8. Pure: works on bytes, trusts none of them. A table that lies
//! about a length, names a unit twice or leaves an address out is refused whole, because half a
//! description would leave devices outside of every unit.

pub(crate) mod scope;

use kernel::{
    iommu::reader::{
        Reader,
        Record,
        RecordHeader,
        Records,
        TableError, //
    },
    prelude::*, //
};

use scope::Scope;

/// Bytes of the fixed part of the table: the ACPI header, two bytes of flags, ten reserved.
const FIXED_BYTES: usize = 48;

/// Offset of the host address width in the fixed part.
const WIDTH_OFFSET: usize = 36;

/// Flag of the table: firmware asks the system not to remap DMA.
const OPT_OUT: u8 = 1 << 1;

/// Flag of the table: firmware has kept devices from DMA until here.
const PLATFORM_OPT_IN: u8 = 1 << 2;

/// Flag of a unit: it serves all devices of its segment that no other unit names.
const INCLUDE_ALL: u8 = 1 << 0;

/// A remapping unit (DRHD, 8.3).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnitInfo {
    /// PCI segment that it serves.
    pub(crate) segment: u16,
    /// Physical address of its registers.
    pub(crate) base: u64,
    /// Bytes of its register set.
    pub(crate) bytes: usize,
    /// Whether it serves what no other unit of the segment names.
    pub(crate) include_all: bool,
    /// What it serves by name.
    pub(crate) scopes: KVec<Scope>,
}

/// Memory that firmware or a device's own firmware keeps using (RMRR, 8.4).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReservedInfo {
    /// PCI segment of the devices.
    pub(crate) segment: u16,
    /// First byte, aligned to a page.
    pub(crate) first: u64,
    /// Last byte, the last of a page.
    pub(crate) last: u64,
    /// The devices.
    pub(crate) scopes: KVec<Scope>,
}

/// What the whole table says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dmar {
    /// Whether firmware asks the system not to remap DMA.
    pub(crate) opt_out: bool,
    /// Whether firmware has kept devices from DMA until here.
    pub(crate) platform_opt_in: bool,
    /// Bits of a host address.
    pub(crate) host_width: u8,
    /// The remapping units.
    pub(crate) units: KVec<UnitInfo>,
    /// The reserved memory.
    pub(crate) reserved: KVec<ReservedInfo>,
}

impl Dmar {
    /// Parses a DMAR table, its ACPI header included.
    ///
    /// # Errors
    ///
    /// Says at which offset the table contradicts itself.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, TableError> {
        let bad = |offset, what| TableError::Bad { offset, what };
        let mut reader = Reader::new(bytes);
        let mut fixed = reader
            .sub(FIXED_BYTES)
            .and_then(|mut fixed| fixed.skip(WIDTH_OFFSET).map(|()| fixed))
            .map_err(|_| bad(0, "the table is shorter than its fixed part"))?;
        let short = |_| bad(WIDTH_OFFSET, "the table is shorter than its fixed part");
        let width = fixed.u8().map_err(short)?;
        let flags = fixed.u8().map_err(short)?;
        if width >= 64 {
            return Err(bad(WIDTH_OFFSET, "the host address width is above 64 bits"));
        }

        let mut dmar = Self {
            opt_out: flags & OPT_OUT != 0,
            platform_opt_in: flags & PLATFORM_OPT_IN != 0,
            host_width: width + 1,
            units: KVec::new(),
            reserved: KVec::new(),
        };
        let mut offset = FIXED_BYTES;
        for record in Records::new(reader.rest(), RecordHeader::Word) {
            let record = record.map_err(|_| {
                bad(
                    offset,
                    "the record's length is shorter than its header or leads past the end",
                )
            })?;
            match record.kind {
                0 => dmar.add_unit(&record, offset)?,
                1 => dmar.add_reserved(&record, offset)?,
                // ATSR, RHSA, ANDD, SATC, SIDP: advice about device TLBs, NUMA and devices that
                // are not on a PCI bus, none of which this driver uses.
                _ => {}
            }
            offset += record.bytes.len();
        }
        Ok(dmar)
    }

    fn add_unit(&mut self, record: &Record<'_>, offset: usize) -> Result<(), TableError> {
        let bad = |what| TableError::Bad { offset, what };
        let short = |_| bad("a DRHD record is shorter than its fixed part");
        let mut body = record.body();
        let flags = body.u8().map_err(short)?;
        let size = body.u8().map_err(short)?;
        let segment = body.u16().map_err(short)?;
        let base = body.u64().map_err(short)?;

        if base == 0 || base == u64::MAX || base & 0xfff != 0 {
            return Err(bad("a DRHD record names no valid register address"));
        }
        if self.units.iter().any(|unit| unit.base == base) {
            return Err(bad("two DRHD records name the same registers"));
        }
        let include_all = flags & INCLUDE_ALL != 0;
        let catches_all = |unit: &UnitInfo| unit.segment == segment && unit.include_all;
        if include_all && self.units.iter().any(catches_all) {
            return Err(bad("two units serve all other devices of one segment"));
        }
        self.units.push(
            UnitInfo {
                segment,
                base,
                // The lower four bits are the logarithm of the number of pages.
                bytes: 0x1000 << (size & 0xf),
                include_all,
                scopes: scopes(body, offset)?,
            },
            GFP_KERNEL,
        )?;
        Ok(())
    }

    fn add_reserved(&mut self, record: &Record<'_>, offset: usize) -> Result<(), TableError> {
        let bad = |what| TableError::Bad { offset, what };
        let short = |_| bad("an RMRR record is shorter than its fixed part");
        let mut body = record.body();
        body.skip(2).map_err(short)?;
        let segment = body.u16().map_err(short)?;
        let first = body.u64().map_err(short)?;
        let last = body.u64().map_err(short)?;
        if last < first {
            return Err(bad("an RMRR record ends before it begins"));
        }
        self.reserved.push(
            ReservedInfo {
                segment,
                // Firmware that does not align its regions gets the whole pages.
                first: first & !0xfff,
                last: last | 0xfff,
                scopes: scopes(body, offset)?,
            },
            GFP_KERNEL,
        )?;
        Ok(())
    }
}

/// Parses the device scopes at the end of a record.
fn scopes(body: Reader<'_>, offset: usize) -> Result<KVec<Scope>, TableError> {
    let mut scopes = KVec::new();
    for record in Records::new(body.rest(), RecordHeader::Byte) {
        let record = record.map_err(|_| TableError::Bad {
            offset,
            what: "a device scope is shorter than its header or leads past its record",
        })?;
        if let Some(scope) = Scope::parse(&record, offset)? {
            scopes.push(scope, GFP_KERNEL)?;
        }
    }
    Ok(scopes)
}

#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
#[kunit_tests(rust_vtd_acpi)]
mod tests {
    use super::*;
    use crate::acpi::scope::{
        Kind,
        Node, //
    };

    /// Puts the fixed part in front of `records`.
    fn table(records: &[&[u8]]) -> Result<KVec<u8>> {
        let mut bytes = KVec::new();
        bytes.extend_from_slice(b"DMAR", GFP_KERNEL)?;
        bytes.resize(FIXED_BYTES, 0, GFP_KERNEL)?;
        bytes[WIDTH_OFFSET] = 38;
        bytes[WIDTH_OFFSET + 1] = PLATFORM_OPT_IN;
        for record in records {
            bytes.extend_from_slice(record, GFP_KERNEL)?;
        }
        Ok(bytes)
    }

    /// A unit at 0xfed90000 that serves one endpoint behind a bridge.
    const UNIT: &[u8] = &[
        0, 0, 26, 0, 0, 0, 0, 0, 0, 0, 0xd9, 0xfe, 0, 0, 0, 0, // DRHD
        1, 10, 0, 0, 0, 0, 0x1c, 4, 0x00, 1, // endpoint 00:1c.4 -> 00.1
    ];

    /// A unit at 0xfed91000, two pages long, that serves all others.
    const ALL: &[u8] = &[0, 0, 16, 0, 1, 1, 0, 0, 0, 0x10, 0xd9, 0xfe, 0, 0, 0, 0];

    /// Reserved memory for the bridge 00:01.0.
    const RESERVED: &[u8] = &[
        1, 0, 32, 0, 0, 0, 0, 0, // RMRR
        0x00, 0x10, 0, 0, 0, 0, 0, 0, 0xff, 0x2f, 0, 0, 0, 0, 0, 0, //
        2, 8, 0, 0, 0, 0, 1, 0,
    ];

    fn what(bytes: &[u8]) -> &'static str {
        match Dmar::parse(bytes) {
            Ok(_) => "no error",
            Err(TableError::Memory) => "memory",
            Err(TableError::Bad { what, .. }) => what,
        }
    }

    #[test]
    fn a_good_table() -> Result {
        let bytes = table(&[UNIT, ALL, RESERVED, &[2, 0, 8, 0, 0, 0, 0, 0]])?;
        let dmar = Dmar::parse(&bytes)?;
        assert!(dmar.platform_opt_in && !dmar.opt_out);
        assert_eq!(dmar.host_width, 39);
        assert_eq!(dmar.units.len(), 2);
        assert_eq!(dmar.units[0].base, 0xfed9_0000);
        assert_eq!(dmar.units[0].bytes, 0x1000);
        assert!(!dmar.units[0].include_all);
        assert_eq!(dmar.units[0].scopes.len(), 1);
        assert_eq!(dmar.units[0].scopes[0].kind, Kind::Endpoint);
        let chain = [
            Node {
                bus: 0,
                devfn: 0xe4,
            },
            Node {
                bus: 3,
                devfn: 0x01,
            },
        ];
        assert!(dmar.units[0].scopes[0].serves(&chain));
        assert_eq!(dmar.units[1].bytes, 0x2000);
        assert!(dmar.units[1].include_all);
        assert_eq!(dmar.reserved.len(), 1);
        assert_eq!(dmar.reserved[0].first, 0x1000);
        assert_eq!(dmar.reserved[0].last, 0x2fff);
        Ok(())
    }

    /// No prefix of a good table is misread: it is refused or has fewer records.
    #[test]
    fn every_truncation_is_handled() -> Result {
        let bytes = table(&[UNIT, ALL, RESERVED])?;
        let ends = [
            FIXED_BYTES,
            FIXED_BYTES + UNIT.len(),
            FIXED_BYTES + UNIT.len() + ALL.len(),
            bytes.len(),
        ];
        for len in 0..=bytes.len() {
            assert_eq!(Dmar::parse(&bytes[..len]).is_ok(), ends.contains(&len));
        }
        Ok(())
    }

    /// No single byte that lies makes the parser loop, panic or read past the end.
    #[test]
    fn every_lie_is_survived() -> Result {
        let mut bytes = table(&[UNIT, ALL, RESERVED])?;
        for index in 0..bytes.len() {
            let honest = bytes[index];
            for lie in [0, 1, 3, 0x7f, 0xff] {
                bytes[index] = lie;
                if let Ok(dmar) = Dmar::parse(&bytes) {
                    assert!(dmar.units.len() <= 8 && dmar.reserved.len() <= 8);
                }
            }
            bytes[index] = honest;
        }
        Ok(())
    }

    #[test]
    fn contradictions_are_named() -> Result {
        let mut nowhere = [0; 16];
        nowhere.copy_from_slice(ALL);
        nowhere[9] = 0;
        nowhere[10] = 0;
        nowhere[11] = 0;
        let mut backwards = [0; 32];
        backwards.copy_from_slice(RESERVED);
        backwards[17] = 0;
        assert!(what(&table(&[&nowhere])?).contains("no valid register address"));
        assert!(what(&table(&[UNIT, UNIT])?).contains("the same registers"));
        let mut other = [0; 16];
        other.copy_from_slice(ALL);
        other[9] = 0x20;
        assert!(what(&table(&[ALL, &other])?).contains("one segment"));
        assert!(what(&table(&[&backwards])?).contains("ends before it begins"));
        assert!(what(&table(&[&[0, 0, 3, 0]])?).contains("shorter than its header"));
        assert!(what(&table(&[&[0, 0, 8, 0, 0, 0, 0, 0]])?).contains("fixed part"));
        Ok(())
    }
}
