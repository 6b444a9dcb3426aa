// SPDX-License-Identifier: GPL-2.0

//! The DMAR table: which remapping units there are and which devices each one serves.
//!
//! VT-d specification, chapter 8. Pure: works on bytes and trusts none of them. A table with a
//! wrong length, with a unit twice or without an address is refused as a whole, because half a
//! description would leave devices outside of every unit. The parser ignores and reports reserved
//! memory that ends before it begins, like the C driver: such tables exist in the field, and
//! ignoring the record harms no device.
//!
//! The parser does not read these records: ATSR (8.5) and SIDP are about device TLBs, which this
//! driver does not enable; ANDD (8.7) names a device whose requester ID is in a scope of a unit.

pub(crate) mod scope;

use kernel::{
    iommu::firmware::reader::{
        Reader,
        Record,
        RecordHeader,
        Records,
        TableError, //
    },
    prelude::*, //
};

use scope::{
    Named,
    Scope, //
};

/// Bytes of the fixed part of the table: the ACPI header, two bytes of flags, ten reserved.
const FIXED_BYTES: usize = 48;

/// Offset of the host address width in the fixed part.
const WIDTH_OFFSET: usize = 36;

/// The types of records that the parser reads (8.2): DMA remapping hardware unit definition,
/// reserved memory region, remapping hardware static affinity, SoC integrated address translation
/// cache.
const DRHD: u16 = 0;
const RMRR: u16 = 1;
const RHSA: u16 = 3;
const SATC: u16 = 5;

/// Flag of the table: firmware has blocked DMA of devices until now.
const PLATFORM_OPT_IN: u8 = 1 << 2;

/// Flag of the table: firmware forces the remapping of DMA off (`DMAR_REMAP_OPT_OUT`). Bit 1 is the
/// opt-out of x2APIC mode.
const OPT_OUT: u8 = 1 << 3;

/// Flag of a SATC record: its devices do not work without their translation caches.
const CACHE_REQUIRED: u8 = 1 << 0;

/// Flag of a unit: it serves all devices of its segment that no other unit names.
const INCLUDE_ALL: u8 = 1 << 0;

/// A remapping unit (DRHD, 8.3).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Drhd {
    /// PCI segment that it serves.
    pub(crate) segment: u16,
    /// Physical address of its registers.
    pub(crate) base: u64,
    /// Bytes of its register set.
    pub(crate) bytes: usize,
    /// Whether it serves the devices that no other unit of the segment names.
    pub(crate) include_all: bool,
    /// The devices that it names.
    pub(crate) scopes: KVec<Scope>,
    /// Requester IDs of devices that are not on a PCI bus and have names in ACPI.
    pub(crate) acpi_devices: KVec<u16>,
}

/// Memory that firmware or a device's own firmware keeps using (RMRR, 8.4).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rmrr {
    /// PCI segment of the devices.
    pub(crate) segment: u16,
    /// First byte, aligned to a page.
    pub(crate) first: u64,
    /// Last byte, the last of a page.
    pub(crate) last: u64,
    /// The devices.
    pub(crate) scopes: KVec<Scope>,
}

/// Devices that do not work without their translation caches (SATC, 8.8).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Satc {
    /// PCI segment of the devices.
    pub(crate) segment: u16,
    /// The devices.
    pub(crate) scopes: KVec<Scope>,
}

/// The proximity domain of a unit (RHSA, 8.6).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rhsa {
    /// Physical address of its registers.
    pub(crate) base: u64,
    /// The proximity domain, ACPI's number of a NUMA node.
    pub(crate) proximity: u32,
}

/// The content of the whole table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dmar {
    /// Whether firmware forces the remapping of DMA off.
    pub(crate) opt_out: bool,
    /// Whether firmware has blocked DMA of devices until now.
    pub(crate) platform_opt_in: bool,
    /// Bits of a host address.
    pub(crate) host_width: u8,
    /// The remapping units.
    pub(crate) units: KVec<Drhd>,
    /// The reserved memory.
    pub(crate) reserved: KVec<Rmrr>,
    /// First and last byte of reserved memory that ends before it begins.
    pub(crate) inverted: KVec<(u64, u64)>,
    /// Devices that do not work without their translation caches.
    pub(crate) cached: KVec<Satc>,
    /// The proximity domains of units.
    pub(crate) affinities: KVec<Rhsa>,
}

impl Dmar {
    /// Parses a DMAR table, its ACPI header included.
    ///
    /// # Errors
    ///
    /// Returns the offset at which the table contradicts itself.
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
            inverted: KVec::new(),
            cached: KVec::new(),
            affinities: KVec::new(),
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
                DRHD => dmar.add_drhd(&record, offset)?,
                RMRR => dmar.add_rmrr(&record, offset)?,
                RHSA => dmar.add_rhsa(&record, offset)?,
                SATC => dmar.add_satc(&record, offset)?,
                _ => {}
            }
            offset += record.bytes.len();
        }
        Ok(dmar)
    }

    fn add_drhd(&mut self, record: &Record<'_>, offset: usize) -> Result<(), TableError> {
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
        let catches_all = |unit: &Drhd| unit.segment == segment && unit.include_all;
        if include_all && self.units.iter().any(catches_all) {
            return Err(bad("two units serve all other devices of one segment"));
        }
        let mut unit = Drhd {
            segment,
            base,
            // The lower four bits are the logarithm of the number of pages.
            bytes: 0x1000 << (size & 0xf),
            include_all,
            scopes: KVec::new(),
            acpi_devices: KVec::new(),
        };
        for named in each_scope(body, offset) {
            match named? {
                Named::Function(scope) => unit.scopes.push(scope, GFP_KERNEL)?,
                Named::AcpiDevice(source) => unit.acpi_devices.push(source, GFP_KERNEL)?,
                Named::Other => {}
            }
        }
        self.units.push(unit, GFP_KERNEL)?;
        Ok(())
    }

    fn add_rhsa(&mut self, record: &Record<'_>, offset: usize) -> Result<(), TableError> {
        let what = "a RHSA record is shorter than its fixed part";
        let short = |_| TableError::Bad { offset, what };
        let mut body = record.body();
        body.skip(4).map_err(short)?;
        let base = body.u64().map_err(short)?;
        let proximity = body.u32().map_err(short)?;
        self.affinities.push(Rhsa { base, proximity }, GFP_KERNEL)?;
        Ok(())
    }

    fn add_satc(&mut self, record: &Record<'_>, offset: usize) -> Result<(), TableError> {
        let what = "a SATC record is shorter than its fixed part";
        let short = |_| TableError::Bad { offset, what };
        let mut body = record.body();
        let flags = body.u8().map_err(short)?;
        body.skip(1).map_err(short)?;
        let segment = body.u16().map_err(short)?;
        let scopes = functions(body, offset)?;
        if flags & CACHE_REQUIRED != 0 {
            self.cached.push(Satc { segment, scopes }, GFP_KERNEL)?;
        }
        Ok(())
    }

    fn add_rmrr(&mut self, record: &Record<'_>, offset: usize) -> Result<(), TableError> {
        let bad = |what| TableError::Bad { offset, what };
        let short = |_| bad("an RMRR record is shorter than its fixed part");
        let mut body = record.body();
        body.skip(2).map_err(short)?;
        let segment = body.u16().map_err(short)?;
        let first = body.u64().map_err(short)?;
        let last = body.u64().map_err(short)?;
        let scopes = functions(body, offset)?;
        if last < first {
            self.inverted.push((first, last), GFP_KERNEL)?;
            return Ok(());
        }
        self.reserved.push(
            Rmrr {
                segment,
                // If firmware does not align a region, reserve whole pages.
                first: first & !0xfff,
                last: last | 0xfff,
                scopes,
            },
            GFP_KERNEL,
        )?;
        Ok(())
    }
}

/// Parses the device scopes at the end of a record.
fn each_scope(
    body: Reader<'_>,
    offset: usize,
) -> impl Iterator<Item = Result<Named, TableError>> + '_ {
    Records::new(body.rest(), RecordHeader::Byte).map(move |record| {
        let record = record.map_err(|_| TableError::Bad {
            offset,
            what: "a device scope is shorter than its header or leads past its record",
        })?;
        Named::parse(&record, offset)
    })
}

/// The device scopes at the end of a record that are PCI functions.
fn functions(body: Reader<'_>, offset: usize) -> Result<KVec<Scope>, TableError> {
    let mut scopes = KVec::new();
    for named in each_scope(body, offset) {
        if let Named::Function(scope) = named? {
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
        Hop,
        Kind, //
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

    /// The unit at 0xfed91000 is in proximity domain 7.
    const AFFINITY: &[u8] = &[
        3, 0, 20, 0, 0, 0, 0, 0, 0, 0x10, 0xd9, 0xfe, 0, 0, 0, 0, 7, 0, 0, 0,
    ];

    /// 00:02.0 does not work without its cache.
    const CACHED: &[u8] = &[5, 0, 16, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0, 2, 0];

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
        assert!(dmar.cached.is_empty() && dmar.affinities.is_empty());
        assert_eq!(dmar.host_width, 39);
        assert_eq!(dmar.units.len(), 2);
        assert_eq!(dmar.units[0].base, 0xfed9_0000);
        assert_eq!(dmar.units[0].bytes, 0x1000);
        assert!(!dmar.units[0].include_all);
        assert_eq!(dmar.units[0].scopes.len(), 1);
        assert_eq!(dmar.units[0].scopes[0].kind, Kind::Endpoint);
        let chain = [
            Hop {
                bus: 0,
                devfn: 0xe4,
            },
            Hop {
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

    #[test]
    fn flags_of_the_table() -> Result {
        let mut bytes = table(&[ALL])?;
        // Flags of interrupt remapping, x2APIC mode and opt-in do not matter for DMA.
        for (flags, opt_out, opt_in) in [(0b0111, false, true), (0b1000, true, false)] {
            bytes[WIDTH_OFFSET + 1] = flags;
            let dmar = Dmar::parse(&bytes)?;
            assert_eq!((dmar.opt_out, dmar.platform_opt_in), (opt_out, opt_in));
        }
        Ok(())
    }

    #[test]
    fn caches_and_nodes() -> Result {
        let bytes = table(&[ALL, AFFINITY, CACHED])?;
        let dmar = Dmar::parse(&bytes)?;
        assert_eq!(dmar.affinities.len(), 1);
        assert_eq!(dmar.affinities[0].base, dmar.units[0].base);
        assert_eq!(dmar.affinities[0].proximity, 7);
        assert_eq!(dmar.cached.len(), 1);
        let gpu = [Hop {
            bus: 0,
            devfn: 0x10,
        }];
        assert!(dmar.cached[0].scopes[0].serves(&gpu));
        // A device that can work without its cache is like any other.
        let mut optional = [0; 16];
        optional.copy_from_slice(CACHED);
        optional[4] = 0;
        assert!(Dmar::parse(&table(&[&optional])?)?.cached.is_empty());
        for cut in [AFFINITY, CACHED] {
            let short = [cut[0], 0, 6, 0, 0, 0];
            assert!(what(&table(&[&short])?).contains("fixed part"));
        }
        Ok(())
    }

    #[test]
    fn a_device_that_acpi_has_a_name_for() -> Result {
        let mut unit = [0; 26];
        unit.copy_from_slice(UNIT);
        // Type 5, with a path of one step: 00:1e.3.
        unit[2] = 24;
        unit[16..24].copy_from_slice(&[5, 8, 0, 0, 1, 0, 0x1e, 3]);
        let dmar = Dmar::parse(&table(&[&unit[..24]])?)?;
        assert_eq!(&dmar.units[0].acpi_devices[..], &[0x00f3]);
        assert!(dmar.units[0].scopes.is_empty());
        // The number of a bus behind a bridge is not in the table.
        unit[2] = 26;
        unit[17] = 10;
        assert!(what(&table(&[&unit])?).contains("behind a bridge"));
        Ok(())
    }

    /// The rest of the table is still used.
    #[test]
    fn inverted_memory_is_left_out() -> Result {
        let mut backwards = [0; 32];
        backwards.copy_from_slice(RESERVED);
        backwards[17] = 0;
        let dmar = Dmar::parse(&table(&[ALL, &backwards, RESERVED])?)?;
        assert_eq!((dmar.units.len(), dmar.reserved.len()), (1, 1));
        assert_eq!(&dmar.inverted[..], &[(0x1000, 0xff)]);
        Ok(())
    }

    /// No prefix of a good table is misread: it is refused or has fewer records.
    #[test]
    fn every_truncation_is_handled() -> Result {
        let bytes = table(&[UNIT, ALL, RESERVED, AFFINITY, CACHED])?;
        let mut ends = [FIXED_BYTES; 6];
        for (index, record) in [UNIT, ALL, RESERVED, AFFINITY, CACHED].iter().enumerate() {
            ends[index + 1] = ends[index] + record.len();
        }
        for len in 0..=bytes.len() {
            assert_eq!(Dmar::parse(&bytes[..len]).is_ok(), ends.contains(&len));
        }
        Ok(())
    }

    /// No single wrong byte makes the parser loop, panic or read past the end.
    #[test]
    fn every_lie_is_survived() -> Result {
        let mut bytes = table(&[UNIT, ALL, RESERVED, AFFINITY, CACHED])?;
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
        assert!(what(&table(&[&nowhere])?).contains("no valid register address"));
        assert!(what(&table(&[UNIT, UNIT])?).contains("the same registers"));
        let mut other = [0; 16];
        other.copy_from_slice(ALL);
        other[9] = 0x20;
        assert!(what(&table(&[ALL, &other])?).contains("one segment"));
        assert!(what(&table(&[&[0, 0, 3, 0]])?).contains("shorter than its header"));
        assert!(what(&table(&[&[0, 0, 8, 0, 0, 0, 0, 0]])?).contains("fixed part"));
        Ok(())
    }
}
