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
        Kind,
        Node,
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
}

/// Reserved memory.
struct Reserved {
    segment: u16,
    first: u64,
    last: u64,
    scopes: Vec<Scope>,
}

/// The device scopes in the rest of a record; nothing if one is wrong.
fn scopes(bytes: &[u8]) -> Option<Vec<Scope>> {
    let mut scopes = Vec::new();

    for (kind, scope) in split(bytes, 2, |b| (b[0].into(), b[1].into()))? {
        if scope.len() < 8 || scope.len() % 2 != 0 {
            return None;
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
    Some(scopes)
}

/// What the table holds; nothing if it contradicts itself.
fn read(table: &[u8]) -> Option<(Vec<Unit>, Vec<Reserved>)> {
    if table.len() < FIXED || table[36] > 63 {
        return None;
    }
    let mut units: Vec<Unit> = Vec::new();
    let mut reserved = Vec::new();

    for (kind, record) in split(&table[FIXED..], 4, |b| (u16_at(b, 0), u16_at(b, 2).into()))? {
        match kind {
            0 if record.len() < 16 => return None,
            1 if record.len() < 24 => return None,
            0 => units.push(Unit {
                segment: u16_at(record, 6),
                base: u64_at(record, 8),
                pages: 1 << (record[5] & 15),
                all: record[4] & 1 == 1,
                scopes: scopes(&record[16..])?,
            }),
            1 => reserved.push(Reserved {
                segment: u16_at(record, 6),
                first: u64_at(record, 8),
                last: u64_at(record, 16),
                scopes: scopes(&record[24..])?,
            }),
            _ => {}
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
    if reserved.iter().any(|region| region.last < region.first) {
        return None;
    }
    Some((units, reserved))
}

fn compare(read: &[ReadScope], expected: &[Scope]) {
    assert_eq!(read.len(), expected.len());
    for (read, (bridge, bus, path)) in read.iter().zip(expected) {
        // The device that the path leads to; one above it, and one behind it.
        let mut chain: Vec<Node> = path
            .iter()
            .enumerate()
            .map(|(step, devfn)| Node {
                // CAST: any number will do for the buses behind the first one.
                bus: bus.wrapping_add(step as u8),
                devfn: *devfn,
            })
            .collect();

        assert_eq!(read.kind == Kind::Bridge, *bridge);
        assert!(read.serves(&chain));
        assert!(!read.serves(&chain[..path.len() - 1]));
        chain.push(Node {
            bus: bus.wrapping_add(77),
            devfn: !path[0],
        });
        assert_eq!(read.serves(&chain), *bridge);
    }
}

/// Parses a table and panics unless the parser says of it what is there.
pub fn dmar(table: &[u8]) {
    let parsed = Dmar::parse(table);
    let Some((units, reserved)) = read(table) else {
        assert!(parsed.is_err(), "a table is taken that contradicts itself");
        return;
    };
    let parsed = parsed.expect("a table is refused that has nothing wrong");

    assert_eq!(parsed.host_width, table[36] + 1);
    assert_eq!(parsed.opt_out, table[37] & 2 != 0);
    assert_eq!(parsed.platform_opt_in, table[37] & 4 != 0);
    assert_eq!(parsed.units.len(), units.len());
    for (read, unit) in parsed.units.iter().zip(&units) {
        assert_eq!((read.segment, read.base), (unit.segment, unit.base));
        assert_eq!((read.bytes, read.include_all), (unit.pages << 12, unit.all));
        compare(&read.scopes, &unit.scopes);
    }
    assert_eq!(parsed.reserved.len(), reserved.len());
    for (read, region) in parsed.reserved.iter().zip(&reserved) {
        assert_eq!(read.segment, region.segment);
        assert_eq!(read.first, region.first / 4096 * 4096);
        assert_eq!(read.last, region.last / 4096 * 4096 + 4095);
        compare(&read.scopes, &region.scopes);
    }
}
