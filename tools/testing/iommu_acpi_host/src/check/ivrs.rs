// SPDX-License-Identifier: GPL-2.0

//! IVRS tables (AMD I/O Virtualization specification, 5.2).

use super::{
    split,
    u16_at,
    u64_at,
    FIXED, //
};
use crate::amdvi::acpi::{
    scope::Kind,
    unit_of,
    Ivrs,
    Passing, //
};

/// Requester IDs: what they belong to, the first, the last, their alias, their settings.
type Scope = (Kind, u16, u16, Option<u16>, u8);

/// A remapping unit.
struct Unit {
    kind: u16,
    segment: u16,
    source: u16,
    capability: u16,
    base: u64,
    flags: u8,
    no_host: bool,
    scopes: Vec<Scope>,
}

/// Reserved memory: segment, devices, first and last byte, whether it may be read and written.
type Reserved = (u16, (u16, u16), (u64, u64), (bool, bool));

/// The bytes of the device entry at the start of `bytes`, if it is complete.
fn entry(bytes: &[u8]) -> Option<&[u8]> {
    let len = match bytes[0] {
        0x00..=0x3f => 4,
        0x40..=0x7f => 8,
        0xf0 => 22 + usize::from(*bytes.get(21)?),
        _ => return None,
    };
    bytes.get(..len)
}

/// The device entries of a block; nothing if one is wrong.
fn scopes(mut rest: &[u8], block: u16) -> Option<Vec<Scope>> {
    let mut scopes = Vec::new();
    let mut add = |scope: Scope| {
        scopes.push(scope);
        if let (kind, _, _, Some(alias), settings) = scope {
            scopes.push((kind, alias, alias, None, settings));
        }
    };
    // The first of a range, its alias and settings.
    let mut open: Option<(u16, Option<u16>, u8)> = None;

    while !rest.is_empty() {
        let entry = entry(rest)?;
        rest = &rest[entry.len()..];
        if entry.len() < 4 {
            return None;
        }
        let (source, settings) = (u16_at(entry, 1), entry[3]);
        let alias = || Some(u16_at(entry, 5));
        match entry[0] {
            0x01 => add((Kind::Pci, 0, 0xffff, None, settings)),
            0x02 | 0x46 => add((Kind::Pci, source, source, None, settings)),
            0x42 => add((Kind::Pci, source, source, alias(), settings)),
            0x48 => {
                let source = u16_at(entry, 5);
                let kind = match entry[7] {
                    1 => Kind::IoApic(entry[4]),
                    _ => Kind::Special,
                };
                add((kind, source, source, None, settings));
            }
            0xf0 if block == 0x40 => add((Kind::Acpi, source, source, None, settings)),
            0x03 | 0x43 | 0x47 if open.is_some() => return None,
            0x03 | 0x47 => open = Some((source, None, settings)),
            0x43 => open = Some((source, alias(), settings)),
            0x04 => {
                let (first, alias, settings) = open.take()?;
                if source < first {
                    return None;
                }
                add((Kind::Pci, first, source, alias, settings));
            }
            _ => {}
        }
    }
    if open.is_some() {
        return None;
    }
    Some(scopes)
}

/// A block that describes a unit, by itself.
fn unit(kind: u16, block: &[u8]) -> Option<Unit> {
    let fixed = if kind == 0x10 { 24 } else { 40 };

    if block.len() < fixed {
        return None;
    }
    let base = u64_at(block, 8);
    if base == 0 || base % 0x4000 != 0 {
        return None;
    }
    Some(Unit {
        kind,
        segment: u16_at(block, 16),
        source: u16_at(block, 4),
        capability: u16_at(block, 6),
        base,
        flags: block[1],
        no_host: kind != 0x10 && block[20] & 1 == 1,
        scopes: scopes(&block[fixed..], kind)?,
    })
}

/// Adds a unit, or its newer description; nothing if that contradicts the older one.
fn add(units: &mut Vec<Unit>, unit: Unit) -> Option<()> {
    let same = |other: &Unit| (other.segment, other.source) == (unit.segment, unit.source);

    match units.iter().position(same) {
        Some(at) if units[at].base != unit.base || units[at].kind == unit.kind => return None,
        Some(at) if units[at].kind < unit.kind => units[at] = unit,
        Some(_) => {}
        None if units.iter().any(|other| other.base == unit.base) => return None,
        None => units.push(unit),
    }
    Some(())
}

/// Adds the memory that a block describes; nothing if it contradicts itself.
fn add_reserved(reserved: &mut Vec<Reserved>, kind: u16, block: &[u8]) -> Option<()> {
    if block.len() < 32 {
        return None;
    }
    let sources = match kind {
        0x20 => (0, 0xffff),
        0x21 => (u16_at(block, 4), u16_at(block, 4)),
        _ => (u16_at(block, 4), u16_at(block, 6)),
    };
    if sources.0 > sources.1 {
        return None;
    }
    let (flags, start, bytes) = (block[1], u64_at(block, 16), u64_at(block, 24));
    if flags & 0b1001 == 0 || bytes == 0 {
        return Some(());
    }
    let last = u64::try_from(u128::from(start) + u128::from(bytes) - 1).ok()?;
    reserved.push((
        u16_at(block, 8),
        sources,
        (start / 4096 * 4096, last / 4096 * 4096 + 4095),
        (flags & 0b1010 != 0, flags & 0b1100 != 0),
    ));
    Some(())
}

/// What the table holds; nothing if it contradicts itself.
fn read(table: &[u8]) -> Option<(Vec<Unit>, Vec<Reserved>)> {
    let mut units = Vec::new();
    let mut reserved = Vec::new();

    let blocks = split(table.get(FIXED..)?, 4, |b| {
        (b[0].into(), u16_at(b, 2).into())
    })?;
    for (kind, block) in blocks {
        match kind {
            0x10 | 0x11 | 0x40 => add(&mut units, unit(kind, block)?)?,
            0x20..=0x22 => add_reserved(&mut reserved, kind, block)?,
            _ => {}
        }
    }
    Some((units, reserved))
}

/// The settings of a requester ID: of the entries with settings, those with the fewest IDs win,
/// and of these the first one.
fn settings(scopes: &[Scope], source: u16) -> u8 {
    let mut best: Option<(u16, u8)> = None;

    for &(_, first, last, _, settings) in scopes {
        let wider = |(width, _)| width > last - first;
        if settings != 0 && first <= source && source <= last && best.is_none_or(wider) {
            best = Some((last - first, settings));
        }
    }
    best.map_or(0, |(_, settings)| settings)
}

/// Panics if the parser is wrong about whose interrupts must pass, whichever unit names them.
fn passing(parsed: &Ivrs, units: &[Unit]) {
    let passing = Passing::new(&parsed.units).expect("there is memory");
    let names = |unit: &Unit, source| {
        let held = |s: &Scope| s.0 != Kind::Pci && s.1 <= source && source <= s.2;
        unit.source == source || unit.scopes.iter().any(held)
    };

    for Unit {
        segment,
        source,
        scopes,
        ..
    } in units
    {
        let edges = scopes.iter().flat_map(|s| [s.1, s.2, s.2.wrapping_add(1)]);
        for source in edges.chain([*source]) {
            let expected = |of: u16| units.iter().any(|u| u.segment == of && names(u, source));
            for of in [*segment, segment.wrapping_add(1)] {
                assert_eq!(passing.holds(of, source), expected(of));
            }
        }
    }
}

/// Panics if the parser is wrong about which unit serves a requester ID: one that names it as that
/// of functions, before one that names it as that of something else.
fn serving(parsed: &Ivrs, units: &[Unit]) {
    let expected = |segment: u16, source: u16| {
        let of_segment = |unit: &&Unit| unit.segment == segment;
        if units
            .iter()
            .filter(of_segment)
            .any(|unit| unit.source == source)
        {
            return None;
        }
        let names = |unit: &Unit, any: bool| {
            let held = |s: &Scope| (any || s.0 == Kind::Pci) && s.1 <= source && source <= s.2;
            unit.segment == segment && unit.scopes.iter().any(held)
        };
        let first = |any| units.iter().position(|unit| names(unit, any));
        first(false).or_else(|| first(true))
    };

    for unit in units {
        let edges = unit
            .scopes
            .iter()
            .flat_map(|s| [s.1, s.2, s.2.wrapping_add(1)]);
        for source in edges.chain([unit.source]) {
            for segment in [unit.segment, unit.segment.wrapping_add(1)] {
                assert_eq!(
                    unit_of(parsed.units.iter(), segment, source),
                    expected(segment, source)
                );
            }
        }
    }
}

/// Parses a table and panics if the parser's result is wrong.
pub fn ivrs(table: &[u8]) {
    let parsed = Ivrs::parse(table);
    let Some((units, reserved)) = read(table) else {
        assert!(parsed.is_err(), "a table is taken that contradicts itself");
        return;
    };
    let parsed = parsed.expect("a table is refused that has nothing wrong");

    assert_eq!(parsed.info.to_le_bytes(), table[36..40]);
    assert_eq!(parsed.units.len(), units.len());
    for (read, unit) in parsed.units.iter().zip(&units) {
        assert_eq!((read.segment, read.source), (unit.segment, unit.source));
        assert_eq!((read.base, read.capability), (unit.base, unit.capability));
        assert_eq!((read.flags, read.no_host), (unit.flags, unit.no_host));
        let scopes: Vec<Scope> = read
            .scopes
            .iter()
            .map(|scope| {
                (
                    scope.kind,
                    scope.first,
                    scope.last,
                    scope.alias,
                    scope.settings,
                )
            })
            .collect();
        assert_eq!(scopes, unit.scopes);
        let named = |source: u16| scopes.iter().any(|s| (s.1..=s.2).contains(&source));
        let edges = scopes.iter().flat_map(|s| [s.1, s.2, s.2.wrapping_add(1)]);
        for source in edges.chain([unit.source]) {
            assert_eq!(read.settings(source), settings(&scopes, source));
            let acpi = |s: &Scope| s.0 == Kind::Acpi && s.1 <= source && source <= s.2;
            assert_eq!(read.is_acpi(source), scopes.iter().any(acpi));
            assert_eq!(read.serves(source), source != unit.source && named(source));
            assert!(!read.serves(source) || source <= read.last_source());
        }
    }
    passing(&parsed, &units);
    serving(&parsed, &units);
    let regions: Vec<Reserved> = parsed
        .reserved
        .iter()
        .map(|r| {
            (
                r.segment,
                (r.first_source, r.last_source),
                (r.first, r.last),
                (r.read, r.write),
            )
        })
        .collect();
    assert_eq!(regions, reserved);
}
