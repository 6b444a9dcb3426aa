// SPDX-License-Identifier: GPL-2.0

//! IVRS tables: made from a model and read back, changed at random, and random from the start.

use crate::{
    amdvi::acpi::{
        scope::Kind,
        Ivrs, //
    },
    check, //
};
use proptest::{
    collection::vec,
    prelude::*, //
};

/// A device entry, with its meaning according to the specification.
#[derive(Clone, Debug)]
enum Entry {
    All {
        settings: u8,
    },
    One {
        source: u16,
        settings: u8,
    },
    Range {
        first: u16,
        last: u16,
        settings: u8,
    },
    Alias {
        source: u16,
        alias: u16,
        settings: u8,
    },
    AliasRange {
        first: u16,
        last: u16,
        alias: u16,
        settings: u8,
    },
    Extended {
        source: u16,
        settings: u8,
    },
    Special {
        source: u16,
        settings: u8,
        handle: u8,
        variety: u8,
    },
    Acpi {
        source: u16,
        unique: Vec<u8>,
    },
    Unknown {
        kind: u8,
    },
    Padding,
}

impl Entry {
    fn bytes(&self, block: u8) -> Vec<u8> {
        let four = |kind: u8, source: u16, settings: u8| {
            let [low, high] = source.to_le_bytes();
            vec![kind, low, high, settings]
        };
        let eight = |kind, source, settings, rest: [u8; 4]| {
            let mut bytes = four(kind, source, settings);
            bytes.extend(rest);
            bytes
        };
        let aliased = |kind, source, settings, alias: u16| {
            let [low, high] = alias.to_le_bytes();
            eight(kind, source, settings, [0, low, high, 0])
        };
        match *self {
            Self::All { settings } => four(0x01, 0xdead, settings),
            Self::One { source, settings } => four(0x02, source, settings),
            Self::Range {
                first,
                last,
                settings,
            } => {
                let mut bytes = four(0x03, first, settings);
                bytes.extend(four(0x04, last, 0xff));
                bytes
            }
            Self::Alias {
                source,
                alias,
                settings,
            } => aliased(0x42, source, settings, alias),
            Self::AliasRange {
                first,
                last,
                alias,
                settings,
            } => {
                let mut bytes = aliased(0x43, first, settings, alias);
                bytes.extend(four(0x04, last, 0));
                bytes
            }
            Self::Extended { source, settings } => eight(0x46, source, settings, [1, 2, 3, 4]),
            Self::Special {
                source,
                settings,
                handle,
                variety,
            } => {
                let [low, high] = source.to_le_bytes();
                eight(0x48, 0, settings, [handle, low, high, variety])
            }
            Self::Acpi { source, ref unique } => {
                if block != 0x40 {
                    return Vec::new();
                }
                let mut bytes = four(0xf0, source, 0x40);
                bytes.extend(b"ABCD0001");
                bytes.extend([0; 8]);
                bytes.extend([2, unique.len() as u8]);
                bytes.extend(unique);
                bytes
            }
            Self::Unknown { kind } => {
                let mut bytes = four(kind, 0x5555, 0x55);
                bytes.resize(4 << (kind >> 6), 0x55);
                bytes
            }
            Self::Padding => vec![0; 4],
        }
    }

    /// Whether the entry names `source`, and its settings for it.
    fn names(&self, block: u8, source: u16) -> Option<(Kind, Option<u16>)> {
        let (kind, alias, first, last) = match *self {
            Self::All { .. } => (Kind::Pci, None, 0, u16::MAX),
            Self::One { source, .. } | Self::Extended { source, .. } => {
                (Kind::Pci, None, source, source)
            }
            Self::Range { first, last, .. } => (Kind::Pci, None, first, last),
            Self::Alias { source, alias, .. } => (Kind::Pci, Some(alias), source, source),
            Self::AliasRange {
                first, last, alias, ..
            } => (Kind::Pci, Some(alias), first, last),
            Self::Special {
                source,
                handle,
                variety: 1,
                ..
            } => (Kind::IoApic(handle), None, source, source),
            Self::Special { source, .. } => (Kind::Special, None, source, source),
            Self::Acpi { source, .. } if block == 0x40 => (Kind::Acpi, None, source, source),
            _ => return None,
        };
        if (first..=last).contains(&source) {
            Some((kind, alias))
        } else if alias == Some(source) {
            Some((kind, None))
        } else {
            None
        }
    }
}

fn entry() -> impl Strategy<Value = Entry> {
    let range = (any::<u16>(), any::<u16>()).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let unknown = prop_oneof![0x05u8..0x40, 0x49u8..0x80];
    prop_oneof![
        any::<u8>().prop_map(|settings| Entry::All { settings }),
        (any::<u16>(), any::<u8>()).prop_map(|(source, settings)| Entry::One { source, settings }),
        (range.clone(), any::<u8>()).prop_map(|((first, last), settings)| Entry::Range {
            first,
            last,
            settings
        }),
        (any::<u16>(), any::<u16>(), any::<u8>()).prop_map(|(source, alias, settings)| {
            Entry::Alias {
                source,
                alias,
                settings,
            }
        }),
        (range, any::<u16>(), any::<u8>()).prop_map(|((first, last), alias, settings)| {
            Entry::AliasRange {
                first,
                last,
                alias,
                settings,
            }
        }),
        (any::<u16>(), any::<u8>())
            .prop_map(|(source, settings)| Entry::Extended { source, settings }),
        (any::<u16>(), any::<u8>(), any::<u8>(), 0..4u8).prop_map(
            |(source, settings, handle, variety)| Entry::Special {
                source,
                settings,
                handle,
                variety,
            }
        ),
        (any::<u16>(), vec(any::<u8>(), 0..20))
            .prop_map(|(source, unique)| Entry::Acpi { source, unique }),
        unknown.prop_map(|kind| Entry::Unknown { kind }),
        Just(Entry::Padding),
    ]
}

fn block(kind: u8, source: u16, base: u64, segment: u16, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = vec![kind, 0x1f, 0, 0];
    bytes.extend(source.to_le_bytes());
    bytes.extend(0x40u16.to_le_bytes());
    bytes.extend(base.to_le_bytes());
    bytes.extend(segment.to_le_bytes());
    bytes.extend([0; 6]);
    if kind != 0x10 {
        bytes.extend([0; 16]);
    }
    for entry in entries {
        bytes.extend(entry.bytes(kind));
    }
    let len = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&len.to_le_bytes());
    bytes
}

fn table(blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = b"IVRS".to_vec();
    bytes.resize(48, 0);
    for block in blocks {
        bytes.extend(block);
    }
    bytes
}

fn kind() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0x10u8), Just(0x11), Just(0x40)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_written_is_read(
        kind in kind(),
        entries in vec(entry(), 0..12),
        sources in vec(any::<u16>(), 16),
        segment in any::<u16>(),
    ) {
        let bytes = table(&[block(kind, 0x10, 0xfed8_0000, segment, &entries)]);
        check::ivrs(&bytes);
        let ivrs = Ivrs::parse(&bytes).unwrap();
        let unit = &ivrs.units[0];
        prop_assert_eq!(unit.segment, segment);
        // Prefers IDs that an entry names over random ones.
        let named = unit.scopes.iter().flat_map(|scope| [scope.first, scope.last]);
        for source in named.chain(sources) {
            let by_model = entries.iter().filter_map(|entry| entry.names(kind, source));
            prop_assert_eq!(
                unit.serves(source),
                source != 0x10 && by_model.clone().next().is_some()
            );
            prop_assert_eq!(
                unit.alias(source),
                by_model.clone().find_map(|(_, alias)| alias)
            );
        }
    }

    #[test]
    fn two_units_of_a_segment(first in vec(entry(), 0..6), second in vec(entry(), 0..6)) {
        check::ivrs(&table(&[
            block(0x40, 0x10, 0xfed8_0000, 0, &first),
            block(0x40, 0x18, 0xfed9_0000, 0, &second),
        ]));
    }

    #[test]
    fn every_cut_is_noticed_or_between_blocks(
        entries in vec(entry(), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let first = block(0x40, 0x10, 0xfed8_0000, 0, &entries);
        let second = block(0x11, 0x18, 0xfed9_0000, 0, &entries);
        let ends = [48, 48 + first.len(), 48 + first.len() + second.len()];
        let bytes = table(&[first, second]);
        let len = cut.index(bytes.len() + 1);
        prop_assert_eq!(Ivrs::parse(&bytes[..len]).is_ok(), ends.contains(&len));
    }

    #[test]
    fn changes_are_survived(
        kind in kind(),
        entries in vec(entry(), 0..12),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = table(&[
            block(kind, 0x10, 0xfed8_0000, 0, &entries),
            block(kind, 0x18, 0xfed9_0000, 1, &entries),
        ]);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        check::ivrs(&bytes);
    }

    #[test]
    fn random_bytes_are_survived(bytes in vec(any::<u8>(), 0..400)) {
        check::ivrs(&bytes);
        check::ivrs(&table(&[bytes]));
    }
}
