// SPDX-License-Identifier: GPL-2.0

//! DMAR tables: made from a model and read back, changed at random, and random from the start.

use crate::{
    check,
    vtd::acpi::{
        scope::{
            any_serves,
            Hop, //
        },
        Dmar, //
    }, //
};
use proptest::{
    collection::vec,
    prelude::*, //
};

/// A device scope: whether it is a bridge, the bus that it starts on, its path.
type Scope = (bool, u8, Vec<(u8, u8)>);

/// A unit: whether it serves all others, and its scopes.
type Unit = (bool, Vec<Scope>);

fn scope() -> impl Strategy<Value = Scope> {
    (any::<bool>(), any::<u8>(), vec((0u8..0x20, 0u8..8), 1..4))
}

fn unit() -> impl Strategy<Value = Unit> {
    (any::<bool>(), vec(scope(), 0..5))
}

fn scope_bytes((bridge, bus, path): &Scope) -> Vec<u8> {
    let mut bytes = vec![if *bridge { 2 } else { 1 }, 0, 0, 0, 0, *bus];
    for (device, function) in path {
        bytes.extend([*device, *function]);
    }
    bytes[1] = bytes.len() as u8;
    bytes
}

fn unit_bytes((all, scopes): &Unit, segment: u16, base: u64) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, u8::from(*all), 0];
    bytes.extend(segment.to_le_bytes());
    bytes.extend(base.to_le_bytes());
    for scope in scopes {
        bytes.extend(scope_bytes(scope));
    }
    let len = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&len.to_le_bytes());
    bytes
}

/// Records of other kinds: reserved memory, the proximity domain of a unit, devices that need
/// their caches; and a unit with a device that has a name in ACPI.
fn other() -> impl Strategy<Value = Vec<u8>> {
    let numbers = (
        any::<u8>(),
        0u16..3,
        any::<u64>(),
        any::<u64>(),
        vec(scope(), 0..3),
    );
    (0usize..4, numbers).prop_map(|(kind, (flags, segment, one, two, scopes))| {
        let mut bytes = vec![[1, 3, 5, 0][kind], 0, 0, 0, flags, 0];
        bytes.extend(segment.to_le_bytes());
        match kind {
            0 => bytes.extend([one, two].iter().flat_map(|number| number.to_le_bytes())),
            1 => bytes.extend(
                [one, two]
                    .iter()
                    .flat_map(|number| number.to_le_bytes())
                    .take(12),
            ),
            2 => {}
            _ => bytes.extend((one & !0xfff | 0x1000_0000_0000).to_le_bytes()),
        }
        if kind != 1 {
            bytes.extend(scopes.iter().flat_map(scope_bytes));
        }
        if kind == 3 {
            bytes.extend([
                5,
                8,
                0,
                0,
                1,
                flags,
                (two & 0x1f) as u8,
                (two >> 8 & 7) as u8,
            ]);
        }
        let len = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&len.to_le_bytes());
        bytes
    })
}

fn table(records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = b"DMAR".to_vec();
    bytes.resize(48, 0);
    bytes[36] = 47;
    for record in records {
        bytes.extend(record);
    }
    bytes
}

/// Each unit in a segment of its own.
fn table_of(units: &[Unit]) -> Vec<u8> {
    let records: Vec<_> = units
        .iter()
        .enumerate()
        .map(|(index, unit)| unit_bytes(unit, index as u16, 0xfed9_0000 + 0x1000 * index as u64))
        .collect();
    table(&records)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_written_is_read(units in vec(unit(), 0..6)) {
        let bytes = table_of(&units);
        check::dmar(&bytes);
        let dmar = Dmar::parse(&bytes).unwrap();
        prop_assert_eq!(dmar.units.len(), units.len());
        for (read, (all, scopes)) in dmar.units.iter().zip(&units) {
            prop_assert_eq!(read.include_all, *all);
            prop_assert_eq!(read.scopes.len(), scopes.len());
            for (bridge, bus, path) in scopes {
                // The device that the path leads to, and one behind it.
                let mut chain: Vec<Hop> = path
                    .iter()
                    .enumerate()
                    .map(|(step, (device, function))| Hop {
                        bus: bus.wrapping_add(step as u8),
                        devfn: device << 3 | function,
                    })
                    .collect();
                prop_assert!(any_serves(&read.scopes, &chain));
                chain.push(Hop { bus: 0xff, devfn: 0xff });
                if *bridge {
                    prop_assert!(any_serves(&read.scopes, &chain));
                }
            }
        }
    }

    #[test]
    fn every_cut_is_noticed_or_between_records(
        units in vec(unit(), 1..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = table_of(&units);
        let ends: Vec<_> = (0..=units.len()).map(|count| table_of(&units[..count]).len()).collect();
        let len = cut.index(bytes.len() + 1);
        prop_assert_eq!(Dmar::parse(&bytes[..len]).is_ok(), ends.contains(&len));
    }

    #[test]
    fn other_records_are_read(units in vec(unit(), 0..3), others in vec(other(), 0..6)) {
        let mut bytes = table_of(&units);
        bytes.extend(others.concat());
        check::dmar(&bytes);
    }

    #[test]
    fn changes_are_survived(
        units in vec(unit(), 1..5),
        others in vec(other(), 0..4),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = table_of(&units);
        bytes.extend(others.concat());
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        check::dmar(&bytes);
    }

    #[test]
    fn random_bytes_are_survived(bytes in vec(any::<u8>(), 0..400)) {
        check::dmar(&bytes);
        check::dmar(&table(&[bytes]));
    }
}
