// SPDX-License-Identifier: GPL-2.0

//! DMAR tables (VT-d specification, chapter 8).

use super::{
    split,
    u16_at,
    u64_at,
    FIXED, //
};
use crate::vtd::acpi::{
    scope::{
        Hop,
        Kind,
        Scope as ReadScope, //
    },
    Dmar, //
};

/// A device scope that is a PCI function: whether a bridge, the first bus, its path.
type Scope = (bool, u8, Vec<u8>);

/// A remapping unit.
struct Unit {
    segment: u16,
    base: u64,
    pages: usize,
    all: bool,
    scopes: Vec<Scope>,
    acpi: Vec<u16>,
}

/// Devices that need their caches: the segment, the devices.
type Cached = (u16, Vec<Scope>);

/// What the table holds.
struct Table {
    units: Vec<Unit>,
    reserved: Vec<Reserved>,
    inverted: Vec<(u64, u64)>,
    cached: Vec<Cached>,
    places: Vec<(u64, u32)>,
}

/// Reserved memory.
struct Reserved {
    segment: u16,
    first: u64,
    last: u64,
    scopes: Vec<Scope>,
}

/// The PCI functions and the ACPI devices in the rest of a record; nothing if one is wrong.
fn scopes(bytes: &[u8]) -> Option<(Vec<Scope>, Vec<u16>)> {
    let mut scopes = Vec::new();
    let mut acpi = Vec::new();

    for (kind, scope) in split(bytes, 2, |b| (b[0].into(), b[1].into()))? {
        if scope.len() < 8 || scope.len() % 2 != 0 {
            return None;
        }
        if kind == 5 {
            let &[device, function] = &scope[6..] else {
                return None;
            };
            if device >= 32 || function >= 8 {
                return None;
            }
            acpi.push(256 * u16::from(scope[5]) + 8 * u16::from(device) + u16::from(function));
        }
        if kind != 1 && kind != 2 {
            continue;
        }
        if scope[6..].chunks(2).any(|step| step[0] > 31 || step[1] > 7) {
            return None;
        }
        let path = scope[6..].chunks(2).map(|step| step[0] << 3 | step[1]);
        scopes.push((kind == 2, scope[5], path.collect()));
    }
    Some((scopes, acpi))
}

/// What the table holds; nothing if it contradicts itself.
fn read(table: &[u8]) -> Option<Table> {
    if table.len() < FIXED || table[36] > 63 {
        return None;
    }
    let mut units: Vec<Unit> = Vec::new();
    let mut reserved = Vec::new();
    let mut cached = Vec::new();
    let mut places = Vec::new();

    for (kind, record) in split(&table[FIXED..], 4, |b| (u16_at(b, 0), u16_at(b, 2).into()))? {
        let least = match kind {
            0 => 16,
            1 => 24,
            3 => 20,
            5 => 8,
            _ => continue,
        };
        if record.len() < least {
            return None;
        }
        match kind {
            0 => {
                let (scopes, acpi) = scopes(&record[16..])?;
                units.push(Unit {
                    segment: u16_at(record, 6),
                    base: u64_at(record, 8),
                    pages: 1 << (record[5] & 15),
                    all: record[4] & 1 == 1,
                    scopes,
                    acpi,
                });
            }
            1 => reserved.push(Reserved {
                segment: u16_at(record, 6),
                first: u64_at(record, 8),
                last: u64_at(record, 16),
                scopes: scopes(&record[24..])?.0,
            }),
            3 => places.push((u64_at(record, 8), (u64_at(record, 12) >> 32) as u32)),
            _ => {
                let (scopes, _) = scopes(&record[8..])?;
                if record[4] & 1 == 1 {
                    cached.push((u16_at(record, 6), scopes));
                }
            }
        }
    }
    for (index, unit) in units.iter().enumerate() {
        let before = &units[..index];
        if unit.base == 0
            || unit.base % 4096 != 0
            || before.iter().any(|other| other.base == unit.base)
            || (unit.all
                && before
                    .iter()
                    .any(|other| other.all && other.segment == unit.segment))
        {
            return None;
        }
    }
    let inverted = |region: &Reserved| region.last < region.first;
    Some(Table {
        inverted: reserved
            .iter()
            .filter(|region| inverted(region))
            .map(|region| (region.first, region.last))
            .collect(),
        reserved: reserved
            .into_iter()
            .filter(|region| !inverted(region))
            .collect(),
        units,
        cached,
        places,
    })
}

fn compare(read: &[ReadScope], expected: &[Scope]) {
    assert_eq!(read.len(), expected.len());
    for (read, (bridge, bus, path)) in read.iter().zip(expected) {
        // The device that the path leads to; one above it, and one behind it.
        let mut chain: Vec<Hop> = path
            .iter()
            .enumerate()
            .map(|(step, devfn)| Hop {
                // CAST: any number will do for the buses behind the first one.
                bus: bus.wrapping_add(step as u8),
                devfn: *devfn,
            })
            .collect();

        assert_eq!(read.kind == Kind::Bridge, *bridge);
        assert!(read.serves(&chain));
        assert!(!read.serves(&chain[..path.len() - 1]));
        chain.push(Hop {
            bus: bus.wrapping_add(77),
            devfn: !path[0],
        });
        assert_eq!(read.serves(&chain), *bridge);
    }
}

/// Parses a table and panics if the parser's result is wrong.
pub fn dmar(table: &[u8]) {
    let parsed = Dmar::parse(table);
    let Some(expected) = read(table) else {
        assert!(parsed.is_err(), "a table is taken that contradicts itself");
        return;
    };
    let parsed = parsed.expect("a table is refused that has nothing wrong");

    assert_eq!(parsed.host_width, table[36] + 1);
    assert_eq!(parsed.opt_out, table[37] & 8 != 0);
    assert_eq!(parsed.platform_opt_in, table[37] & 4 != 0);
    assert_eq!(parsed.units.len(), expected.units.len());
    for (read, unit) in parsed.units.iter().zip(&expected.units) {
        assert_eq!((read.segment, read.base), (unit.segment, unit.base));
        assert_eq!((read.bytes, read.include_all), (unit.pages << 12, unit.all));
        compare(&read.scopes, &unit.scopes);
        assert_eq!(read.acpi_devices[..], unit.acpi[..]);
    }
    assert_eq!(parsed.inverted[..], expected.inverted[..]);
    assert_eq!(parsed.cached.len(), expected.cached.len());
    for (read, (segment, scopes)) in parsed.cached.iter().zip(&expected.cached) {
        assert_eq!(read.segment, *segment);
        compare(&read.scopes, scopes);
    }
    assert_eq!(parsed.affinities.len(), expected.places.len());
    for (read, place) in parsed.affinities.iter().zip(&expected.places) {
        assert_eq!((read.base, read.proximity), *place);
    }
    assert_eq!(parsed.reserved.len(), expected.reserved.len());
    for (read, region) in parsed.reserved.iter().zip(&expected.reserved) {
        assert_eq!(read.segment, region.segment);
        assert_eq!(read.first, region.first / 4096 * 4096);
        assert_eq!(read.last, region.last / 4096 * 4096 + 4095);
        compare(&read.scopes, &region.scopes);
    }
}
