// SPDX-License-Identifier: GPL-2.0

//! The IVRS parser on tables that are right, cut off, and lying.

use super::*;

/// Puts the fixed part in front of `blocks`.
fn table(blocks: &[&[u8]]) -> Result<KVec<u8>> {
    let mut bytes = KVec::new();
    bytes.extend_from_slice(b"IVRS", GFP_KERNEL)?;
    bytes.resize(FIXED_BYTES, 0, GFP_KERNEL)?;
    // Addresses of 48 bits, and extended features are stated.
    bytes[INFO_OFFSET] = 0x01;
    bytes[INFO_OFFSET + 2] = 0x18;
    for block in blocks {
        bytes.extend_from_slice(block, GFP_KERNEL)?;
    }
    Ok(bytes)
}

/// A unit 00:02.0 at 0xfed80000 for all devices, described the old way.
const OLD: &[u8] = &[
    0x10, 0x0d, 28, 0, 0x10, 0, 0x40, 0, // type, flags, length, unit, capability
    0, 0, 0xd8, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // base, segment, info, features
    0x01, 0, 0, 0xd7, // all
];

/// The same unit, described the new way.
const NEW: &[u8] = &[
    0x11, 0x0d, 104, 0, 0x10, 0, 0x40, 0, //
    0, 0, 0xd8, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
    0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01, // image of the features
    0, 8, 0, 0, 0, 0, 0, 0x80, // and of the others
    0x02, 0x08, 0x00, 0x00, // 00:01.0
    0x03, 0x00, 0x01, 0x40, // from 01:00.0
    0x04, 0xff, 0x01, 0x00, // to 01:1f.7
    0x42, 0x00, 0x03, 0x00, 0, 0x00, 0x02, 0, // 03:00.0 as 02:00.0
    0x43, 0x00, 0x04, 0x30, 0, 0x01, 0x02, 0, // from 04:00.0 as 02:00.1
    0x04, 0x07, 0x04, 0x00, // to 04:00.7
    0x46, 0x00, 0x05, 0x00, 0, 0, 0, 0x80, // 05:00.0
    0x47, 0x00, 0x06, 0x00, 0, 0, 0, 0x80, // from 06:00.0
    0x04, 0x01, 0x06, 0x00, // to 06:00.1
    0x48, 0x00, 0x00, 0xd7, 0x02, 0xa0, 0x00, 0x01, // I/O APIC 2 as 00:14.0
    0, 0, 0, 0, // padding
];

/// The same unit, described the newest way, with an ACPI device.
const NEWEST: &[u8] = &[
    0x40, 0x0d, 72, 0, 0x10, 0, 0x40, 0, //
    0, 0, 0xd8, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0, 0, 0, //
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
    0xf0, 0xa5, 0x00, 0x40, b'A', b'M', b'D', b'I', b'0', b'0', b'4', b'0', //
    0, 0, 0, 0, 0, 0, 0, 0, 2, 6, // no compatible ID, a unique one of six characters
    b'\\', b'_', b'S', b'B', b'.', b'E', //
    0x02, 0x09, 0x00, 0x00, // 00:01.1
];

/// Memory that 00:01.0 may read.
const UNITY_READ: &[u8] = &[
    0x21, 0x03, 32, 0, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
    0x00, 0x12, 0, 0, 0, 0, 0, 0, 0x00, 0x10, 0, 0, 0, 0, 0, 0,
];

/// Memory that the unit does not look at, for a range of devices.
const EXCLUDED: &[u8] = &[
    0x22, 0x08, 32, 0, 0x00, 0x01, 0x07, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, //
    0x00, 0x00, 0x10, 0, 0, 0, 0, 0, 0x00, 0x20, 0, 0, 0, 0, 0, 0,
];

/// What firmware says of a unit that serves all devices of a segment that there is not.
pub(crate) fn made_up_unit() -> Result<Ivhd> {
    let units = Ivrs::parse(&table(&[OLD])?)?.units;
    let mut unit = units.into_iter().next().ok_or(EINVAL)?;
    unit.segment = u16::MAX;
    Ok(unit)
}

fn what(bytes: &[u8]) -> &'static str {
    match Ivrs::parse(bytes) {
        Ok(_) => "no error",
        Err(TableError::Memory) => "memory",
        Err(TableError::Bad { what, .. }) => what,
    }
}

fn changed(block: &[u8], changes: &[(usize, u8)]) -> Result<KVec<u8>> {
    let mut copy = KVec::new();
    copy.extend_from_slice(block, GFP_KERNEL)?;
    for (at, value) in changes {
        copy[*at] = *value;
    }
    Ok(copy)
}

#[kunit_tests(rust_amdvi_acpi)]
mod suite {
    use super::*;

    #[test]
    fn an_old_table() -> Result {
        let ivrs = Ivrs::parse(&table(&[OLD])?)?;
        assert_eq!(ivrs.info, 0x18_0001);
        assert_eq!(ivrs.units.len(), 1);
        let unit = &ivrs.units[0];
        assert_eq!(
            (unit.segment, unit.source, unit.capability),
            (0, 0x10, 0x40)
        );
        assert_eq!((unit.base, unit.flags), (0xfed8_0000, 0x0d));
        assert_eq!(unit.last_source(), 0xffff);
        assert!(unit.serves(0) && unit.serves(0x1234) && unit.serves(0xffff));
        // Not itself, whatever firmware says.
        assert!(!unit.serves(0x10));
        assert_eq!(unit.scopes[0].settings, 0xd7);
        assert_eq!(unit.features, None);
        Ok(())
    }

    #[test]
    fn every_kind_of_entry() -> Result {
        let ivrs = Ivrs::parse(&table(&[NEW])?)?;
        let unit = &ivrs.units[0];
        let features = [0x0123_4567_89ab_cdef, 0x8000_0000_0000_0800];
        assert_eq!(unit.features, Some(features));
        for source in [
            0x08, 0x100, 0x1ff, 0x200, 0x300, 0x400, 0x407, 0x500, 0x600, 0x601, 0xa0,
        ] {
            assert!(unit.serves(source));
        }
        for source in [0x00, 0x09, 0xff, 0x202, 0x301, 0x408, 0x501, 0x602] {
            assert!(!unit.serves(source));
        }
        assert_eq!(unit.alias(0x300), Some(0x200));
        assert_eq!(unit.alias(0x405), Some(0x201));
        assert_eq!(unit.alias(0x200), None);
        assert_eq!(unit.alias(0x08), None);
        assert_eq!(unit.last_source(), 0x601);
        let settings = |source| {
            let held = unit.scopes.iter().find(|scope| scope.holds(source));
            held.map(|scope| (scope.kind, scope.settings))
        };
        // The start of a range decides, and an alias is set like what it stands for.
        assert_eq!(settings(0x1ff), Some((Kind::Pci, 0x40)));
        assert_eq!(settings(0x201), Some((Kind::Pci, 0x30)));
        assert_eq!(settings(0xa0), Some((Kind::IoApic(2), 0xd7)));
        Ok(())
    }

    /// A block of a unit with these device entries.
    fn unit_with(entries: &[u8]) -> Result<Ivhd> {
        let mut block = changed(OLD, &[])?;
        block.truncate(24);
        block.extend_from_slice(entries, GFP_KERNEL)?;
        // CAST: A few entries.
        block[2] = block.len() as u8;
        let units = Ivrs::parse(&table(&[&block])?)?.units;
        units.into_iter().next().ok_or(EINVAL)
    }

    #[test]
    fn the_narrowest_entry_decides() -> Result {
        const ALL: [u8; 4] = [0x01, 0, 0, 0x01];
        const RANGE: [u8; 8] = [0x03, 0x10, 0, 0x02, 0x04, 0x1f, 0, 0];
        const ONE: [u8; 4] = [0x02, 0x18, 0, 0x04];
        // Neither of them wants anything.
        const NONE: [u8; 8] = [0x02, 0x11, 0, 0, 0x02, 0x18, 0, 0];
        // In either order.
        for parts in [[&ALL[..], &RANGE, &ONE, &NONE], [&NONE, &ONE, &RANGE, &ALL]] {
            let mut entries = KVec::new();
            for part in parts {
                entries.extend_from_slice(part, GFP_KERNEL)?;
            }
            let unit = unit_with(&entries)?;
            for (source, settings) in [(0x0f, 1), (0x10, 2), (0x11, 2), (0x18, 4), (0x20, 1)] {
                assert_eq!(unit.settings(source), settings);
            }
        }
        // Of two that name as many, the first.
        let unit = unit_with(&[0x02, 0x18, 0, 0x04, 0x02, 0x18, 0, 0x40])?;
        assert_eq!((unit.settings(0x18), unit.settings(0x19)), (4, 0));
        Ok(())
    }

    #[test]
    fn the_newest_block_counts() -> Result {
        for blocks in [[OLD, NEW, NEWEST], [NEWEST, OLD, NEW]] {
            let ivrs = Ivrs::parse(&table(&blocks)?)?;
            assert_eq!(ivrs.units.len(), 1);
            let unit = &ivrs.units[0];
            assert!(unit.no_host);
            assert_eq!(unit.scopes.len(), 2);
            assert_eq!(unit.scopes[0].kind, Kind::Acpi);
            assert_eq!(
                (unit.scopes[0].first, unit.scopes[0].settings),
                (0xa5, 0x40)
            );
            assert!(unit.is_acpi(0xa5) && !unit.is_acpi(0x09));
            assert!(unit.serves(0x09) && !unit.serves(0x08));
        }
        // In the other order of age nothing of the newest is taken.
        let ivrs = Ivrs::parse(&table(&[OLD, NEW])?)?;
        assert!(!ivrs.units[0].no_host);
        Ok(())
    }

    #[test]
    fn several_units_and_segments() -> Result {
        let second = changed(OLD, &[(4, 0x18), (10, 0xd9)])?;
        let third = changed(OLD, &[(10, 0xda), (16, 1)])?;
        let ivrs = Ivrs::parse(&table(&[OLD, &second, &third])?)?;
        assert_eq!(ivrs.units.len(), 3);
        assert_eq!(ivrs.units[1].source, 0x18);
        assert_eq!(ivrs.units[2].segment, 1);
        assert_eq!(ivrs.units[2].base, 0xfeda_0000);
        Ok(())
    }

    /// A special device sends with the ID of a function that another unit serves.
    #[test]
    fn the_unit_that_names_a_function_serves_it() -> Result {
        // 00:14.0, as an I/O APIC and as a timer; all functions of a bus.
        const IO_APIC: [u8; 8] = [0x48, 0, 0, 0, 0x02, 0xa0, 0, 0x01];
        const TIMER: [u8; 8] = [0x48, 0, 0, 0, 0, 0xa0, 0, 0x02];
        const BUS: [u8; 8] = [0x03, 0, 0, 0, 0x04, 0xff, 0, 0];

        for special in [IO_APIC, TIMER] {
            let (mut names, serves) = (unit_with(&special)?, unit_with(&BUS)?);
            names.source = 0x18;
            // Whichever comes first.
            assert_eq!(unit_of([&names, &serves].into_iter(), 0, 0xa0), Some(1));
            assert_eq!(unit_of([&serves, &names].into_iter(), 0, 0xa0), Some(0));
            // There is no other.
            assert_eq!(unit_of([&names].into_iter(), 0, 0xa0), Some(0));
            assert_eq!(unit_of([&names].into_iter(), 0, 0xa1), None);
            assert_eq!(unit_of([&names].into_iter(), 1, 0xa0), None);
            // The functions of both units.
            for own in [0x10, 0x18] {
                assert_eq!(unit_of([&names, &serves].into_iter(), 0, own), None);
            }
        }
        Ok(())
    }

    #[test]
    fn reserved_memory() -> Result {
        let all = changed(UNITY_READ, &[(0, 0x20), (1, 0x07)])?;
        let nothing = changed(UNITY_READ, &[(1, 0x06)])?;
        let ivrs = Ivrs::parse(&table(&[OLD, UNITY_READ, EXCLUDED, &all, &nothing])?)?;
        assert_eq!(ivrs.reserved.len(), 3);
        let one = &ivrs.reserved[0];
        // The whole pages of a region that is not aligned.
        assert_eq!((one.first, one.last), (0x1000, 0x2fff));
        assert_eq!((one.first_source, one.last_source), (0x08, 0x08));
        assert!(one.read && !one.write);
        let excluded = &ivrs.reserved[1];
        assert_eq!((excluded.first, excluded.last), (0x10_0000, 0x10_1fff));
        assert_eq!(
            (excluded.first_source, excluded.last_source),
            (0x100, 0x107)
        );
        assert!(excluded.read && excluded.write);
        let all = &ivrs.reserved[2];
        assert_eq!((all.first_source, all.last_source), (0, 0xffff));
        assert!(all.read && all.write);
        Ok(())
    }

    /// No prefix of a good table is misread: it is refused or has fewer blocks.
    #[test]
    fn every_truncation_is_handled() -> Result {
        let bytes = table(&[OLD, NEW, NEWEST, UNITY_READ])?;
        let mut ends = KVec::new();
        let mut end = FIXED_BYTES;
        ends.push(end, GFP_KERNEL)?;
        for block in [OLD, NEW, NEWEST, UNITY_READ] {
            end += block.len();
            ends.push(end, GFP_KERNEL)?;
        }
        for len in 0..=bytes.len() {
            assert_eq!(Ivrs::parse(&bytes[..len]).is_ok(), ends.contains(&len));
        }
        Ok(())
    }

    /// No single byte that lies makes the parser loop, panic or read past the end.
    #[test]
    fn every_lie_is_survived() -> Result {
        let mut bytes = table(&[OLD, NEW, NEWEST, UNITY_READ, EXCLUDED])?;
        for index in 0..bytes.len() {
            let honest = bytes[index];
            for lie in [0, 1, 3, 4, 0x3f, 0x43, 0x48, 0x7f, 0x80, 0xf0, 0xff] {
                bytes[index] = lie;
                if let Ok(ivrs) = Ivrs::parse(&bytes) {
                    assert!(ivrs.units.len() <= 5 && ivrs.reserved.len() <= 5);
                }
            }
            bytes[index] = honest;
        }
        Ok(())
    }

    #[test]
    fn contradictions_are_named() -> Result {
        let nowhere = changed(OLD, &[(10, 0), (11, 0)])?;
        assert!(what(&table(&[&nowhere])?).contains("no valid register address"));
        assert!(what(&table(&[OLD, OLD])?).contains("same unit"));
        let other = changed(OLD, &[(4, 0x18)])?;
        assert!(what(&table(&[OLD, &other])?).contains("same registers"));
        let moved = changed(NEW, &[(10, 0xd9)])?;
        assert!(what(&table(&[OLD, &moved])?).contains("different registers"));
        assert!(what(&table(&[&[0x10, 0, 3, 0]])?).contains("shorter than its header"));
        assert!(what(&table(&[&[0x10, 0, 8, 0, 0, 0, 0, 0]])?).contains("fixed part"));
        assert!(what(&table(&[&[0x21, 0, 8, 0, 0, 0, 0, 0]])?).contains("fixed part"));
        // Entries: an end without a start, a start without an end, one that ends too early.
        let cases: &[([u8; 8], &str)] = &[
            ([0x04, 1, 0, 0, 0, 0, 0, 0], "has not begun"),
            ([0x03, 1, 0, 0, 0, 0, 0, 0], "has no end"),
            ([0x03, 2, 0, 0, 0x04, 1, 0, 0], "before it begins"),
            ([0x03, 1, 0, 0, 0x03, 2, 0, 0], "inside of another"),
            ([0x80, 0, 0, 0, 0, 0, 0, 0], "length is not known"),
            ([0, 0, 0, 0, 0x42, 0, 0, 0], "past its block"),
        ];
        for (entries, expected) in cases {
            let mut block = changed(OLD, &[(2, 32)])?;
            block.truncate(24);
            block.extend_from_slice(entries, GFP_KERNEL)?;
            assert!(what(&table(&[&block])?).contains(expected));
        }
        let backwards = changed(EXCLUDED, &[(7, 0)])?;
        assert!(what(&table(&[OLD, &backwards])?).contains("ends before it begins"));
        let beyond = changed(EXCLUDED, &[(23, 0xff), (31, 0xff)])?;
        assert!(what(&table(&[OLD, &beyond])?).contains("past the end of memory"));
        Ok(())
    }
}
