// SPDX-License-Identifier: GPL-2.0

//! The IVRS table: which remapping units there are and which devices each one serves.
//!
//! Specification, 5.2. Pure: works on bytes and trusts none of them. A table with a wrong length,
//! with a unit twice or with a contradictory range is refused as a whole, because half a
//! description would leave devices outside of every unit.
//!
//! Several blocks may describe a unit: old types for old systems, new types with more fields. The
//! parser uses the newest type that it knows, and ignores the others.

pub(crate) mod madt;
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
    Kind,
    Scope, //
};

/// Bytes of the fixed part of the table: the ACPI header, IVinfo, eight reserved.
const FIXED_BYTES: usize = 48;

/// Offset of IVinfo in the fixed part.
const INFO_OFFSET: usize = 36;

/// The types of blocks that describe a unit, the oldest first (5.2.2).
const IVHD_TYPES: [u16; 3] = [IVHD_10H, IVHD_11H, IVHD_40H];
const IVHD_10H: u16 = 0x10;
const IVHD_11H: u16 = 0x11;
const IVHD_40H: u16 = 0x40;

/// The types of blocks that describe memory (5.2.3): for all devices, one device, a range of them.
const IVMD_ALL: u16 = 0x20;
const IVMD_SPECIFIED: u16 = 0x21;
const IVMD_RANGE: u16 = 0x22;

/// The image of a unit's registers of extended features, in blocks that have one.
pub(crate) type Features = [u64; 2];

/// Attribute of a unit: it must not be used for host translation.
const NO_HOST_TRANSLATION: u32 = 1 << 0;

/// Flag of a memory block: addresses are used as they are.
const UNITY: u8 = 1 << 0;

/// Flag of a memory block: reads are allowed.
const READ: u8 = 1 << 1;

/// Flag of a memory block: writes are allowed.
const WRITE: u8 = 1 << 2;

/// Flag of a memory block: accesses there bypass the unit.
const EXCLUSION: u8 = 1 << 3;

/// A remapping unit (IVHD, 5.2.2).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ivhd {
    /// The kind of the block that described it.
    kind: u16,
    /// PCI segment that it is in and serves.
    pub(crate) segment: u16,
    /// The requester ID of the PCI function that it is.
    pub(crate) source: u16,
    /// Offset of its capability block in the function's configuration space.
    pub(crate) capability: u16,
    /// Physical address of its registers.
    pub(crate) base: u64,
    /// Firmware's settings for the unit (5.2.2.1).
    pub(crate) flags: u8,
    /// Whether it must not be used for host translation.
    pub(crate) no_host: bool,
    /// The block's image of the registers of extended features; old types code it otherwise.
    pub(crate) features: Option<Features>,
    /// The devices that it serves.
    pub(crate) scopes: KVec<Scope>,
}

impl Ivhd {
    /// Whether the unit serves the requester ID `source` of its segment.
    ///
    /// Firmware names the unit's own function too, which is not translated.
    pub(crate) fn serves(&self, source: u16) -> bool {
        source != self.source && self.scopes.iter().any(|scope| scope.holds(source))
    }

    /// Whether it serves the PCI function with the requester ID `source`, and not only an I/O APIC,
    /// a timer or an ACPI device that sends with the ID.
    fn serves_function(&self, source: u16) -> bool {
        let names = |scope: &Scope| scope.kind == Kind::Pci && scope.holds(source);
        source != self.source && self.scopes.iter().any(names)
    }

    /// The requester ID that requests of `source` carry, if it is another one.
    pub(crate) fn alias(&self, source: u16) -> Option<u16> {
        self.scopes
            .iter()
            .filter(|scope| scope.holds(source))
            .find_map(|scope| scope.alias)
    }

    /// What firmware wants for the requester ID `source`.
    ///
    /// Several entries may name it. The specification (5.2.2) does not say which counts; as in the
    /// C driver (`amd_iommu_get_ivhd_dte_flags()`) it is the one that names the fewest, the first
    /// of these, and one that wants nothing does not count.
    pub(crate) fn settings(&self, source: u16) -> u8 {
        self.scopes
            .iter()
            .filter(|scope| scope.holds(source) && scope.settings != 0)
            .min_by_key(|scope| scope.last - scope.first)
            .map_or(0, |scope| scope.settings)
    }

    /// Whether the requester ID `source` is that of a device which ACPI describes, whatever else
    /// names it.
    pub(crate) fn is_acpi(&self, source: u16) -> bool {
        let names = |scope: &Scope| scope.kind == Kind::Acpi && scope.holds(source);
        self.scopes.iter().any(names)
    }

    /// Whether it serves the I/O APIC `id`.
    pub(crate) fn has_io_apic(&self, id: u8) -> bool {
        let is_it = |scope: &Scope| scope.kind == Kind::IoApic(id);
        self.scopes.iter().any(is_it)
    }

    /// The highest requester ID that it serves.
    pub(crate) fn last_source(&self) -> u16 {
        let own = |scope: &Scope| scope.last.max(scope.alias.unwrap_or(0));
        self.scopes.iter().map(own).max().unwrap_or(0)
    }
}

/// The index of the unit that serves the PCI function with the requester ID `source` of `segment`.
///
/// No unit serves the function of another, although firmware may name it in a range: it is not
/// translated.
///
/// A unit that names the ID as that of functions takes precedence. Firmware may name it by another
/// unit as well, for an I/O APIC or a timer: such an entry (5.2.2.5) says with which ID these send,
/// and not which function has that ID too. Where no other unit names it, it is that one, as in C.
/// There the last entry counts, of whatever kind (`amd_iommu_set_rlookup_table()`).
pub(crate) fn unit_of<'a>(
    units: impl Iterator<Item = &'a Ivhd> + Clone,
    segment: u16,
    source: u16,
) -> Option<usize> {
    let is_here = |unit: &Ivhd| unit.segment == segment;
    let is_itself = |unit: &Ivhd| is_here(unit) && unit.source == source;
    if units.clone().any(is_itself) {
        return None;
    }
    let named = |unit: &Ivhd| is_here(unit) && unit.serves_function(source);
    let serves = |unit: &Ivhd| is_here(unit) && unit.serves(source);
    let by_name = units.clone().position(named);
    by_name.or_else(|| units.clone().position(serves))
}

/// Requester IDs whose interrupts must pass as they are: those of an I/O APIC or a timer, which the
/// kernel has set up, of a device that the IOMMU core does not know, and of the units.
///
/// It does not matter by which unit of the segment firmware names them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Passing {
    /// Segment, first and last requester ID.
    ranges: KVec<(u16, u16, u16)>,
}

impl Passing {
    /// What firmware says of all `units`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(units: &[Ivhd]) -> Result<Self> {
        let mut ranges = KVec::new();
        for unit in units {
            ranges.push((unit.segment, unit.source, unit.source), GFP_KERNEL)?;
            for scope in unit.scopes.iter().filter(|scope| scope.kind != Kind::Pci) {
                ranges.push((unit.segment, scope.first, scope.last), GFP_KERNEL)?;
            }
        }
        Ok(Self { ranges })
    }

    /// Whether the requester ID `source` of `segment` is one of them.
    pub(crate) fn holds(&self, segment: u16, source: u16) -> bool {
        let mut ranges = self.ranges.iter();
        ranges.any(|&(of, first, last)| of == segment && (first..=last).contains(&source))
    }
}

/// Memory that a device must reach as it is (IVMD, 5.2.3).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ivmd {
    /// PCI segment of the devices.
    pub(crate) segment: u16,
    /// The first requester ID.
    pub(crate) first_source: u16,
    /// The last requester ID.
    pub(crate) last_source: u16,
    /// First byte, aligned to a page.
    pub(crate) first: u64,
    /// Last byte, the last of a page.
    pub(crate) last: u64,
    /// Whether the devices may read there.
    pub(crate) read: bool,
    /// Whether the devices may write there.
    pub(crate) write: bool,
}

/// The content of the whole table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ivrs {
    /// IVinfo.
    pub(crate) info: u32,
    /// The remapping units.
    pub(crate) units: KVec<Ivhd>,
    /// The reserved memory.
    pub(crate) reserved: KVec<Ivmd>,
}

impl Ivrs {
    /// Parses an IVRS table, its ACPI header included.
    ///
    /// # Errors
    ///
    /// Returns the offset at which the table contradicts itself.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, TableError> {
        let bad = |offset, what| TableError::Bad { offset, what };
        let mut reader = Reader::new(bytes);
        let info = reader
            .sub(FIXED_BYTES)
            .and_then(|mut fixed| {
                fixed.skip(INFO_OFFSET)?;
                fixed.u32()
            })
            .map_err(|_| bad(0, "the table is shorter than its fixed part"))?;

        let mut ivrs = Self {
            info,
            units: KVec::new(),
            reserved: KVec::new(),
        };
        let mut offset = FIXED_BYTES;
        for record in Records::new(reader.rest(), RecordHeader::ByteThenWord) {
            let record = record.map_err(|_| {
                bad(
                    offset,
                    "the block's length is shorter than its header or leads past the end",
                )
            })?;
            match record.kind {
                kind if IVHD_TYPES.contains(&kind) => ivrs.add_ivhd(&record, offset)?,
                IVMD_ALL | IVMD_SPECIFIED | IVMD_RANGE => ivrs.add_ivmd(&record, offset)?,
                // Software must ignore unknown types (5.2.1).
                _ => {}
            }
            offset += record.bytes.len();
        }
        Ok(ivrs)
    }

    fn add_ivhd(&mut self, record: &Record<'_>, offset: usize) -> Result<(), TableError> {
        let bad = |what| TableError::Bad { offset, what };
        let short = |_| bad("an IVHD block is shorter than its fixed part");
        // Type and length stand around the flags.
        let flags = record.bytes.get(1).copied().unwrap_or(0);
        let mut body = record.body();
        let source = body.u16().map_err(short)?;
        let capability = body.u16().map_err(short)?;
        let base = body.u64().map_err(short)?;
        let segment = body.u16().map_err(short)?;
        body.skip(2).map_err(short)?;
        let attributes = body.u32().map_err(short)?;
        let newer = record.kind != IVHD_10H;
        let features = if newer {
            Some([body.u64().map_err(short)?, body.u64().map_err(short)?])
        } else {
            None
        };

        if base == 0 || base == u64::MAX || base & 0x3fff != 0 {
            return Err(bad("an IVHD block names no valid register address"));
        }
        let unit = Ivhd {
            kind: record.kind,
            segment,
            source,
            capability,
            base,
            flags,
            // Blocks of the oldest kind have another meaning for the field.
            no_host: newer && attributes & NO_HOST_TRANSLATION != 0,
            features,
            scopes: scope::parse(body, record.kind, offset)?,
        };
        let same = |known: &Ivhd| known.segment == segment && known.source == source;
        let known = self.units.iter().position(same);
        if let Some(known) = known.and_then(|index| self.units.get_mut(index)) {
            if known.base != base {
                return Err(bad("two IVHD blocks name one unit and different registers"));
            }
            if known.kind == unit.kind {
                return Err(bad("two IVHD blocks of one kind describe the same unit"));
            }
            if known.kind < unit.kind {
                *known = unit;
            }
            return Ok(());
        }
        if self.units.iter().any(|known| known.base == base) {
            return Err(bad("two units have the same registers"));
        }
        self.units.push(unit, GFP_KERNEL)?;
        Ok(())
    }

    fn add_ivmd(&mut self, record: &Record<'_>, offset: usize) -> Result<(), TableError> {
        let bad = |what| TableError::Bad { offset, what };
        let short = |_| bad("an IVMD block is shorter than its fixed part");
        let flags = record.bytes.get(1).copied().unwrap_or(0);
        let mut body = record.body();
        let source = body.u16().map_err(short)?;
        let end = body.u16().map_err(short)?;
        let segment = body.u16().map_err(short)?;
        body.skip(6).map_err(short)?;
        let start = body.u64().map_err(short)?;
        let bytes = body.u64().map_err(short)?;

        let (first_source, last_source) = match record.kind {
            IVMD_ALL => (0, u16::MAX),
            IVMD_SPECIFIED => (source, source),
            _ => (source, end),
        };
        if last_source < first_source {
            return Err(bad(
                "an IVMD block's range of devices ends before it begins",
            ));
        }
        if flags & (UNITY | EXCLUSION) == 0 || bytes == 0 {
            return Ok(());
        }
        let last = start
            .checked_add(bytes - 1)
            .ok_or_else(|| bad("an IVMD block leads past the end of memory"))?;
        // A unit has registers for one exclusion range only, and firmware may name several: the
        // driver maps them like the others, readable and writable.
        let excluded = flags & EXCLUSION != 0;
        let (read, write) = (
            excluded || flags & READ != 0,
            excluded || flags & WRITE != 0,
        );
        self.reserved.push(
            Ivmd {
                segment,
                first_source,
                last_source,
                // If firmware does not align a region, reserve whole pages.
                first: start & !0xfff,
                last: last | 0xfff,
                read,
                write,
            },
            GFP_KERNEL,
        )?;
        Ok(())
    }
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
pub(crate) mod tests;
