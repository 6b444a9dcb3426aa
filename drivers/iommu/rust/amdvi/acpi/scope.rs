// SPDX-License-Identifier: GPL-2.0

//! Device entries: how an IVHD block names requester IDs (specification, 5.2.2.2 and following).
//!
//! Entries come in several lengths, which their type tells. Ranges take two entries, a start and
//! an end. Each entry has a byte of settings, which go into the device table entries of the
//! requester IDs it names. Pure.

use kernel::{
    iommu::firmware::reader::{
        Reader,
        TableError, //
    },
    prelude::*, //
};

/// What a device entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// PCI functions, or whatever sends with such requester IDs.
    Pci,
    /// The I/O APIC with this id. Its requests are interrupts.
    IoApic(u8),
    /// A timer, or a special device of a later kind. Its requests are interrupts.
    Special,
    /// A device that ACPI describes, on no PCI bus.
    Acpi,
}

/// Requester IDs that a unit serves, and what firmware wants for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// What they belong to.
    pub(crate) kind: Kind,
    /// The first requester ID.
    pub(crate) first: u16,
    /// The last requester ID.
    pub(crate) last: u16,
    /// The requester ID that their requests carry in the place of their own.
    pub(crate) alias: Option<u16>,
    /// The byte of settings.
    pub(crate) settings: u8,
}

impl Scope {
    /// Whether `source` is named.
    pub(crate) fn holds(&self, source: u16) -> bool {
        (self.first..=self.last).contains(&source)
    }
}

/// Bytes of the fixed part of an entry for an ACPI device, and where the length of its unique ID
/// stands in it.
const ACPI_BYTES: usize = 22;
const ACPI_LENGTH_OFFSET: usize = 21;

/// The kind of blocks that may have entries for ACPI devices.
const ACPI_BLOCK: u16 = 0x40;

/// The types of entries, by their names in the specification (5.2.2.4 and following): they name
/// all requester IDs, one, the start or the end of a range; in longer entries with another ID that
/// requests carry, with extended settings, or for a device that is no PCI function.
const ALL: u8 = 0x01;
const SELECT: u8 = 0x02;
const START_OF_RANGE: u8 = 0x03;
const END_OF_RANGE: u8 = 0x04;
const ALIAS_SELECT: u8 = 0x42;
const ALIAS_START_OF_RANGE: u8 = 0x43;
const EXTENDED_SELECT: u8 = 0x46;
const EXTENDED_START_OF_RANGE: u8 = 0x47;
const SPECIAL_DEVICE: u8 = 0x48;
const ACPI_DEVICE: u8 = 0xf0;

/// The variety of a special device that is an I/O APIC.
const IO_APIC: u8 = 1;

/// The length of the entry at the start of `bytes`, [`None`] if its type does not tell.
fn length(bytes: &[u8]) -> Option<usize> {
    match *bytes.first()? {
        // The upper two bits are the logarithm, counted from four bytes.
        kind @ 0..=0x7f => Some(4 << (kind >> 6)),
        ACPI_DEVICE => Some(ACPI_BYTES + usize::from(*bytes.get(ACPI_LENGTH_OFFSET)?)),
        _ => None,
    }
}

/// The start of a range that waits for its end.
struct Start {
    first: u16,
    settings: u8,
    alias: Option<u16>,
}

/// Parses the device entries of a block of kind `block`.
///
/// # Errors
///
/// `offset` is the offset of the block, for the message.
pub(super) fn parse(
    mut reader: Reader<'_>,
    block: u16,
    offset: usize,
) -> Result<KVec<Scope>, TableError> {
    let bad = |what| TableError::Bad { offset, what };
    let short = |_| bad("a device entry leads past its block");
    let mut scopes = KVec::new();
    let mut start: Option<Start> = None;

    while !reader.is_empty() {
        let len = length(reader.rest())
            .ok_or_else(|| bad("a device entry is of a type whose length is not known"))?;
        let mut entry = reader.sub(len).map_err(short)?;
        let kind = entry.u8().map_err(short)?;
        let source = entry.u16().map_err(short)?;
        let settings = entry.u8().map_err(short)?;

        let mut scope = Scope {
            kind: Kind::Pci,
            first: source,
            last: source,
            alias: None,
            settings,
        };
        match kind {
            ALL => (scope.first, scope.last) = (0, u16::MAX),
            // Extended settings are about what this driver leaves alone.
            SELECT | EXTENDED_SELECT => {}
            START_OF_RANGE | ALIAS_START_OF_RANGE | EXTENDED_START_OF_RANGE => {
                if start.is_some() {
                    return Err(bad("a range of devices begins inside of another"));
                }
                let alias = if kind == ALIAS_START_OF_RANGE {
                    Some(alias(&mut entry).map_err(short)?)
                } else {
                    None
                };
                start = Some(Start {
                    first: source,
                    settings,
                    alias,
                });
                continue;
            }
            END_OF_RANGE => {
                let begun = start
                    .take()
                    .ok_or_else(|| bad("a range of devices ends that has not begun"))?;
                if source < begun.first {
                    return Err(bad("a range of devices ends before it begins"));
                }
                // What the end says of settings does not count.
                scope.first = begun.first;
                scope.settings = begun.settings;
                scope.alias = begun.alias;
            }
            ALIAS_SELECT => scope.alias = Some(alias(&mut entry).map_err(short)?),
            SPECIAL_DEVICE => {
                // A handle, the requester ID, and what kind of device it is.
                let handle = entry.u8().map_err(short)?;
                let source = entry.u16().map_err(short)?;
                (scope.first, scope.last) = (source, source);
                scope.kind = match entry.u8().map_err(short)? {
                    // The handle is its id (5.2.2.5).
                    IO_APIC => Kind::IoApic(handle),
                    _ => Kind::Special,
                };
            }
            ACPI_DEVICE if block == ACPI_BLOCK => scope.kind = Kind::Acpi,
            // Padding, and types that are not known here or not in such a block.
            _ => continue,
        }
        scopes.push(scope, GFP_KERNEL)?;
        if let Some(alias) = scope.alias {
            // Requests carry it, so the unit serves it, with the same settings.
            scopes.push(
                Scope {
                    first: alias,
                    last: alias,
                    alias: None,
                    ..scope
                },
                GFP_KERNEL,
            )?;
        }
    }
    if start.is_some() {
        return Err(bad("a range of devices has no end"));
    }
    Ok(scopes)
}

/// Reads the alias in the second half of an entry of eight bytes.
fn alias(entry: &mut Reader<'_>) -> Result<u16> {
    entry.skip(1)?;
    entry.u16()
}
