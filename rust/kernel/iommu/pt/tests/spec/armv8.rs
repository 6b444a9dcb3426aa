// SPDX-License-Identifier: GPL-2.0

//! VMSAv8-64 with a granule of 4 KiB, from the Arm Architecture Reference Manual ("VMSAv8-64
//! translation table format descriptors") and sections 3.13 and 3.21 of the SMMUv3 specification.

use super::{
    super::super::{
        fmt,
        Format,
        PhysAddr,
        Prot, //
    },
    mask,
    Spec,
    Word,
    Words, //
};

/// VMSAv8-64 of one stage.
pub struct Armv8<F, const STAGE: u32>(core::marker::PhantomData<F>);

/// Stage 1.
pub type Armv8S1 = Armv8<fmt::Armv8S1, 1>;

/// Stage 2.
pub type Armv8S2 = Armv8<fmt::Armv8S2, 2>;

/// The bits from `high` to `low` of a word.
fn field(word: u64, high: u32, low: u32) -> u64 {
    word >> low & mask(high - low + 1)
}

/// Bits 7:6 of a leaf as the hardware takes them, and DBM: what is allowed.
fn rights(word: u64, stage: u32) -> Prot {
    let (high, low, dbm) = (field(word, 7, 7), field(word, 6, 6), field(word, 51, 51));
    let (read, write) = match stage {
        // AP[2] forbids writes, unless DBM lets a write clear it.
        1 => (true, high == 0 || dbm == 1),
        // S2AP: one bit for reads, one for writes, which DBM lets a write set.
        _ => (low == 1, high == 1 || dbm == 1),
    };
    let mut prot = Prot::NONE;

    if read {
        prot |= Prot::READ;
    }
    if write {
        prot |= Prot::WRITE;
    }
    prot
}

impl<F: Format, const STAGE: u32> Spec for Armv8<F, STAGE> {
    type F = F;

    const WORDS: Words = Words {
        leaves: if STAGE == 1 {
            [
                [
                    0x0060_0012_4567_8bc7,
                    0x0068_0012_4567_8bc7,
                    0x0068_0012_4567_8f47,
                ],
                [
                    0x0060_0012_4560_0bc5,
                    0x0068_0012_4560_0bc5,
                    0x0068_0012_4560_0f45,
                ],
                [
                    0x0060_0012_4000_0bc5,
                    0x0068_0012_4000_0bc5,
                    0x0068_0012_4000_0f45,
                ],
            ]
        } else {
            [
                [
                    0x0040_0012_4567_837f,
                    0x0048_0012_4567_837f,
                    0x0048_0012_4567_87ff,
                ],
                [
                    0x0040_0012_4560_037d,
                    0x0048_0012_4560_037d,
                    0x0048_0012_4560_07fd,
                ],
                [
                    0x0040_0012_4000_037d,
                    0x0048_0012_4000_037d,
                    0x0048_0012_4000_07fd,
                ],
            ]
        },
        links: [0x12_4567_8003, 0x12_4567_8003],
    };

    const LEVELS: (u8, u8) = (3, 4);
    const SIZES: &'static [u32] = &[12, 16, 21, 25, 30, 34];
    const ACCESSED: u64 = 1 << 10;
    // Only with an extension (FEAT_HAFT), and nothing asks for it.
    const ACCESSED_LINK: u64 = 0;
    const DIRTY: u64 = 1 << 7;
    // DBM means nothing without hardware update of dirty state (section 3.13 of SMMUv3).
    const CLEAN_REFUSES: bool = true;
    const SPLITS_LIVE: bool = false;
    const OUTPUT_LG2: u32 = 48;

    fn input_lg2(levels: u8) -> u32 {
        match levels {
            3 => 39,
            _ => 48,
        }
    }

    /// Stage 1 has no leaf that may be written and not read. Neither states snooping.
    fn prot(prot: Prot) -> Option<Prot> {
        let write = prot.contains(Prot::WRITE);
        let read = prot.contains(Prot::READ) || write && STAGE == 1;
        let mut said = Prot::NONE;

        if read {
            said |= Prot::READ;
        }
        if write {
            said |= Prot::WRITE;
        }
        (read || write).then_some(said)
    }

    fn read(word: u64, level: u32) -> Result<Word, &'static str> {
        let address = field(word, 47, 12) << 12;

        match field(word, 1, 0) {
            0 | 2 if word == 0 => return Ok(Word::Empty),
            0 | 2 => return Err("a descriptor that is not valid holds something"),
            3 if level > 0 => {
                return if word == address | 3 {
                    Ok(Word::Table(address))
                } else {
                    Err("a table descriptor has other bits")
                };
            }
            1 if level == 0 => return Err("a reserved descriptor"),
            1 if level > 2 => return Err("there is no block of this size"),
            _ => {}
        }

        let attributes = match STAGE {
            // AttrIndx 1, no NS, AP[1], inner shareable, nG, PXN and UXN.
            1 => {
                [
                    field(word, 5, 2),
                    field(word, 6, 6),
                    field(word, 9, 8),
                    field(word, 11, 11),
                ] == [1, 1, 3, 1]
                    && field(word, 54, 53) == 3
            }
            // MemAttr write-back, inner shareable, no fetches at any level.
            _ => {
                [field(word, 5, 2), field(word, 9, 8), field(word, 11, 11)] == [15, 3, 0]
                    && field(word, 54, 53) == 2
            }
        };

        if !attributes {
            return Err("an attribute is not the one that all leaves have");
        }
        if field(word, 63, 55) != 0 || field(word, 50, 48) != 0 {
            return Err("a reserved bit is set, or one that nothing here uses");
        }
        if address & mask(Self::item_lg2(level)) != 0 {
            return Err("address bits below the size of the block are reserved");
        }
        if !Self::is_dirty(word) && STAGE == 1 && field(word, 7, 7) == 0 {
            return Err("a leaf without DBM is writable, so that its writes are not seen");
        }
        if STAGE == 2 && field(word, 7, 7) > field(word, 51, 51) {
            return Err("a leaf without DBM is writable, so that its writes are not seen");
        }

        let lg2 = Self::item_lg2(level) + if field(word, 52, 52) == 1 { 4 } else { 0 };

        Ok(Word::Leaf {
            phys: address & !mask(lg2),
            lg2,
            prot: rights(word, STAGE),
        })
    }

    fn is_dirty(word: u64) -> bool {
        let written = match STAGE {
            1 => field(word, 7, 7) == 0,
            _ => field(word, 7, 7) == 1,
        };

        written && field(word, 51, 51) == 1 && field(word, 0, 0) == 1
    }

    fn written(word: u64) -> u64 {
        let word = word | Self::ACCESSED;

        match STAGE {
            1 => word & !Self::DIRTY,
            _ => word | Self::DIRTY,
        }
    }

    fn cleaned(word: u64) -> u64 {
        word ^ Self::DIRTY
    }

    /// The entries of a contiguous leaf have consecutive addresses.
    fn in_row(word: u64, entries: u64, level: u32) -> u64 {
        word + (entries << Self::item_lg2(level))
    }

    /// With bit 0 clear the other bits of a descriptor are ignored.
    fn no_link(phys: PhysAddr, number: usize) -> Option<u64> {
        let bits = [0, 2, 2 | 1 << 10].get(number)?;

        Some(phys | bits)
    }

    fn address_in_row(word: u64) -> Option<PhysAddr> {
        Some(field(word, 47, 12) << 12)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writable leaf of either stage, clean and dirty.
    #[test]
    fn dirty_state() {
        let leaf = |prot| {
            Ok(Word::Leaf {
                phys: 0x5000,
                lg2: 12,
                prot,
            })
        };
        let both = Prot::READ | Prot::WRITE;

        for (word, dirty) in [
            (0x0068_0000_0000_5bc7, false),
            (0x0068_0000_0000_5b47, true),
        ] {
            assert_eq!(Armv8S1::read(word, 0), leaf(both));
            assert_eq!(Armv8S1::is_dirty(word), dirty);
        }
        for (word, dirty) in [
            (0x0048_0000_0000_537f, false),
            (0x0048_0000_0000_53ff, true),
        ] {
            assert_eq!(Armv8S2::read(word, 0), leaf(both));
            assert_eq!(Armv8S2::is_dirty(word), dirty);
        }
        assert_eq!(Armv8S1::read(0x0060_0000_0000_5bc7, 0), leaf(Prot::READ));
        assert!(Armv8S1::read(0x0060_0000_0000_5b47, 0).is_err());
        assert!(Armv8S2::read(0x0040_0000_0000_53ff, 0).is_err());
        assert!(Armv8S1::read(0x0068_0000_0000_5bc5, 0).is_err());
    }
}
