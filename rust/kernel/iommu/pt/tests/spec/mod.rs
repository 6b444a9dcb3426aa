// SPDX-License-Identifier: GPL-2.0

//! What the specifications say about the formats, for tests: bits, sizes, levels, address spaces.
//!
//! Written only from the specifications. This module shares no code with the formats under
//! `pt/fmt`, so tests compare two independent readings. KUnit and the tests in user space use the
//! same one.

mod amdv1;
mod armv8;
mod riscv;
mod vtdss;
mod x86_64;

pub use amdv1::{
    AmdV1,
    AmdV1Mock, //
};
pub use armv8::{
    Armv8S1,
    Armv8S2, //
};
pub use riscv::{
    Riscv,
    RiscvX4, //
};
pub use vtdss::VtdSs;
pub use x86_64::X86_64;

use super::super::{
    Format,
    Iova,
    PhysAddr,
    Prot, //
};

/// Bits 51:12 of an entry, which hold the address in the formats of x86 and AMD.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Number of entries of a table.
pub const ENTRIES: u64 = 512;

/// The `lg2` lowest bits.
pub const fn mask(lg2: u32) -> u64 {
    match lg2 {
        64.. => u64::MAX,
        _ => (1 << lg2) - 1,
    }
}

/// The meaning of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Nothing is mapped.
    Empty,

    /// The address of a table of the level below.
    Table(PhysAddr),

    /// A leaf of `1 << lg2` bytes, or a piece of it.
    Leaf {
        /// Output address of the first byte.
        phys: PhysAddr,
        /// Binary logarithm of its size.
        lg2: u32,
        /// Its permissions.
        prot: Prot,
    },
}

/// Words written out by hand, from the specification.
pub struct Words {
    /// Leaves of 4 KiB at `0x12_4567_8000`, of 2 MiB at `0x12_4560_0000` and of 1 GiB at
    /// `0x12_4000_0000`, each for reads only, for reads and writes, and the same after a write.
    pub leaves: [[u64; 3]; 3],

    /// Links to a table at `0x12_4567_8000`, from level 1 and from level 2, which nothing has used.
    pub links: [u64; 2],
}

/// A format as its specification has it.
pub trait Spec: 'static {
    /// The format that is tested.
    type F: Format;

    /// A few words.
    const WORDS: Words;

    /// Binary logarithm of the smallest leaf.
    const PAGE_LG2: u32 = 12;

    /// Numbers of levels that a tree can have, from the fewest to the most.
    const LEVELS: (u8, u8);

    /// Binary logarithms of the leaf sizes, ascending.
    const SIZES: &'static [u32];

    /// The bit that the hardware sets in each leaf that it uses.
    const ACCESSED: u64;

    /// The bit that it sets in each link to a table that it uses, if it does. It may be set there
    /// from the beginning.
    const ACCESSED_LINK: u64 = Self::ACCESSED;

    /// The bit that it changes in a leaf that is written through: sets, unless [`Spec::written`]
    /// says otherwise.
    const DIRTY: u64;

    /// The bit of a link in which the hardware may note a write to the leaf that the link has
    /// replaced: it ignores it there. 0 if the hardware does not set a bit in an entry that it has
    /// not just read, `None` if neither is known.
    const LATE_DIRT: Option<u64> = None;

    /// The bits of leaves and links that the hardware ignores and that the format uses.
    const PART: u64 = 0;

    /// Whether a leaf that takes a row of entries may give way to leaves of one entry.
    const SPLITS_ROWS: bool = false;

    /// Whether hardware that does not set the dirty bit by itself refuses a write where it is
    /// clean.
    const CLEAN_REFUSES: bool = false;

    /// Whether leaves can be made as if they had been used ([`Prot::USED`]).
    const HAS_USED: bool = true;

    /// Whether a leaf may give way to a table that translates the same, and back, while devices use
    /// it.
    const SPLITS_LIVE: bool = true;

    /// Whether a leaf that devices use may get one more permission.
    const GAINS_LIVE: bool = true;

    /// Binary logarithm of the number of entries of the top.
    const TOP_LG2: u32 = 9;

    /// The fewest levels of the trees that most tests use: they have room for leaves of 1 GiB.
    const MIN_LEVELS: u8 = if Self::LEVELS.0 > 3 {
        Self::LEVELS.0
    } else {
        3
    };

    /// The most levels of the trees that most tests use: the end of their aperture is a number.
    const MAX_LEVELS: u8 = if Self::LEVELS.1 < 5 {
        Self::LEVELS.1
    } else {
        5
    };

    /// Whether a tree can get another top while it is used.
    const GROWS: bool = false;

    /// Whether the hardware extends the sign of input addresses: then there is an upper half, too.
    const SIGNED: bool = false;

    /// Binary logarithm of the output addresses.
    const OUTPUT_LG2: u32 = 52;

    /// Binary logarithm of the range of an entry of `level`; level 0 has the smallest leaves.
    fn item_lg2(level: u32) -> u32 {
        Self::PAGE_LG2 + 9 * level
    }

    /// Binary logarithm of the input addresses of a tree of `levels` levels, those with the sign
    /// included.
    fn input_lg2(levels: u8) -> u32;

    /// The address that the hardware uses for `iova`; the levels resolve its low bits.
    fn canonical(iova: Iova, levels: u8) -> Iova {
        let above = 64 - Self::input_lg2(levels);

        if Self::SIGNED {
            // The bits above the highest that is translated must be equal to it.
            ((iova << above) as i64 >> above) as u64
        } else {
            iova
        }
    }

    /// Binary logarithm of the input addresses from 0 on: without the upper half, if there is one.
    fn lower_lg2(levels: u8) -> u32 {
        Self::input_lg2(levels) - u32::from(Self::SIGNED)
    }

    /// The permissions as this format stores them; `None` if it cannot express them.
    fn prot(prot: Prot) -> Option<Prot>;

    /// The meaning of `word` in a table of `level`.
    ///
    /// # Errors
    ///
    /// What is wrong with it: a reserved bit, a size or a level that cannot be there.
    fn read(word: u64, level: u32) -> Result<Word, &'static str>;

    /// Whether a leaf is dirty: a device has written through it.
    fn is_dirty(word: u64) -> bool {
        word & Self::DIRTY != 0
    }

    /// What a write makes of the word of a leaf that allows it.
    fn written(word: u64) -> u64 {
        word | Self::ACCESSED | Self::DIRTY
    }

    /// The word of a dirty leaf, clean.
    fn cleaned(word: u64) -> u64 {
        word & !Self::DIRTY
    }

    /// The word of the entry that many behind one with `word`, both of one leaf that takes a row of
    /// entries of `level`, but for what the hardware changes.
    fn in_row(word: u64, _entries: u64, _level: u32) -> u64 {
        word
    }

    /// The output address that the word of an entry in such a row has, if it is that of the entry's
    /// part and not that of the leaf.
    fn address_in_row(_word: u64) -> Option<PhysAddr> {
        None
    }

    /// Words in an entry for 1 GiB that come near a link to the table at `phys` and map nothing, by
    /// number. Each format has one at least.
    fn no_link(phys: PhysAddr, number: usize) -> Option<u64>;
}

/// The entries of x86 descent: bit 7 is "page size", leaves are at the levels 0, 1 and 2.
fn read_page_size(
    word: u64,
    level: u32,
    table_bits: u64,
    prot: impl Fn(u64) -> Option<Prot>,
) -> Result<Word, &'static str> {
    const PS: u64 = 1 << 7;

    if level == 0 || word & PS != 0 {
        if level > 2 {
            return Err("a leaf cannot be at this level");
        }

        let lg2 = 12 + 9 * level;
        let phys = word & ADDRESS;

        if phys & mask(lg2) != 0 {
            return Err("address bits below the size of the leaf are reserved");
        }

        let size = if level == 0 { 0 } else { PS };
        let prot = prot(word & !ADDRESS & !size).ok_or("no permissions have these bits")?;

        return Ok(Word::Leaf { phys, lg2, prot });
    }
    if word & !ADDRESS != table_bits {
        return Err("a link to a table has other bits");
    }
    Ok(Word::Table(word & ADDRESS))
}
