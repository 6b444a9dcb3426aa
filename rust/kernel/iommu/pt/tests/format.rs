// SPDX-License-Identifier: GPL-2.0

//! Words: exactly the bits of the specification.

use super::{
    super::{
        Entry,
        Format,
        Level,
        Prot, //
    },
    spec::{
        mask,
        Spec,
        Word, //
    }, //
};
use kernel::error::Result;

/// The permissions that can be asked for.
const PROTS: [Prot; 4] = [
    Prot::READ,
    Prot::WRITE,
    Prot::READ.with(Prot::WRITE),
    Prot::READ.with(Prot::WRITE).with(Prot::SNOOP),
];

/// An address with as many bits as a leaf of 1 GiB can have in an entry of any format.
const PHYS: u64 = 0x5555_4000_0000;

/// The levels of leaves of 4 KiB, 2 MiB and 1 GiB.
fn levels() -> Result<[(Level, u32); 3]> {
    Ok([
        (Level::top_of(1)?, 12),
        (Level::top_of(2)?, 21),
        (Level::top_of(3)?, 30),
    ])
}

/// The address [`PHYS`], and the last that a leaf of 1 GiB can have.
fn addresses<S: Spec>() -> [u64; 2] {
    [PHYS, mask(S::OUTPUT_LG2) & !mask(30)]
}

/// Each permission at each size is a word that the specification reads as such, with no bit of
/// another meaning, and that reads back. One that is made as if it had been used has the bits that
/// the hardware would change.
pub fn leaf_words<S: Spec>() -> Result {
    for (prot, phys) in PROTS.into_iter().zip(addresses::<S>().into_iter().cycle()) {
        let attrs = S::F::attrs(prot)?;
        let used = S::F::attrs(prot | Prot::USED)?;

        for (level, lg2) in levels()? {
            let word = S::F::leaf(phys, lg2, level, attrs);
            let used_word = match (S::HAS_USED, prot.contains(Prot::WRITE)) {
                (false, _) => word,
                (true, false) => word | S::ACCESSED,
                (true, true) => S::written(word),
            };
            let said = S::prot(prot).map(|prot| Word::Leaf { phys, lg2, prot });

            check!(S::read(word, level.number().into()).ok() == said);
            check_eq!(S::F::leaf(phys, lg2, level, used), used_word);
            check!(S::F::decode(word, level) == Entry::Leaf { phys, lg2 });
        }
    }
    Ok(())
}

/// Words that are written out by hand are those that the format makes, and the specification reads
/// them as what they are meant to be.
pub fn literal_words<S: Spec>() -> Result {
    const AT: [u64; 3] = [0x12_4567_8000, 0x12_4560_0000, 0x12_4000_0000];

    let both = Prot::READ | Prot::WRITE;

    for (((level, lg2), phys), words) in levels()?.into_iter().zip(AT).zip(S::WORDS.leaves) {
        let [read_only, clean, dirty] = words;
        let number = level.number().into();
        let leaf = |prot| -> Result<u64> { Ok(S::F::leaf(phys, lg2, level, S::F::attrs(prot)?)) };
        let read = |prot| Ok(Word::Leaf { phys, lg2, prot });

        check_eq!(leaf(Prot::READ)?, read_only);
        check_eq!(leaf(both)?, clean);
        check_eq!(S::F::mark(clean | S::ACCESSED), dirty);
        check_eq!(S::F::clean(dirty), clean | S::ACCESSED);
        check_eq!(S::written(clean), dirty);
        check!(!S::is_dirty(clean) && S::is_dirty(dirty));
        check!(S::read(read_only, number) == read(Prot::READ));
        check!(S::read(clean, number) == read(both) && S::read(dirty, number) == read(both));
        for word in words {
            check!(S::F::decode(word, level) == Entry::Leaf { phys, lg2 });
        }
    }
    for ((level, _), word) in levels()?.into_iter().skip(1).zip(S::WORDS.links) {
        check_eq!(S::F::table(AT[0], level), word);
        check!(S::F::decode(word, level) == Entry::Table(AT[0]));
        check!(S::read(word, level.number().into()) == Ok(Word::Table(AT[0])));
    }
    Ok(())
}

/// A link to a table is a word that the specification reads as such, and reads back.
pub fn table_word<S: Spec>() -> Result {
    for levels in 2..=S::LEVELS.1 {
        let level = Level::top_of(levels)?;

        for phys in addresses::<S>() {
            let word = S::F::table(phys, level);
            // The accessed bit changes nothing.
            let used = word | S::ACCESSED_LINK;

            check!(S::read(word, level.number().into()) == Ok(Word::Table(phys)));
            check!(S::F::decode(word, level) == Entry::Table(phys));
            check!(S::F::decode(used, level) == Entry::Table(phys));
            check_eq!(S::F::dirt(word) & S::F::DIRTY, 0);
            check!(!S::F::has_no_table(word, 0, level));
            check!(!S::F::has_no_table(used, used, level));
        }
        check!(S::F::decode(0, level) == Entry::Empty);
    }
    check!(S::F::decode(0, Level::LEAF) == Entry::Empty);
    Ok(())
}

/// The limits of the format are those of the specification.
pub fn limits<S: Spec>() -> Result {
    check_eq!(S::F::MIN_LEVELS, S::LEVELS.0);
    check_eq!(S::F::MAX_LEVELS, S::LEVELS.1);
    check_eq!(S::F::OUTPUT_LG2, S::OUTPUT_LG2);
    check_eq!(S::F::TOP_LG2, S::TOP_LG2);
    check_eq!(S::F::GROWS, S::GROWS);
    check_eq!(S::F::SIGN_EXTENDS, S::SIGNED);
    check_eq!(
        S::F::PAGE_SIZES,
        S::SIZES.iter().fold(0u64, |sizes, lg2| sizes | 1 << lg2)
    );
    for levels in S::LEVELS.0..=S::LEVELS.1 {
        check_eq!(S::F::input_lg2(levels), S::lower_lg2(levels));
    }
    Ok(())
}

/// What the hardware changes in a leaf changes neither its kind nor its address, dirty leaves are
/// told from clean ones, and neither is taken for a table.
pub fn leaves_survive_hardware_bits<S: Spec>() -> Result {
    for prot in PROTS {
        for (level, lg2) in levels()? {
            let clean = S::F::leaf(PHYS, lg2, level, S::F::attrs(prot)?);
            let read = clean | S::ACCESSED;
            let written = S::written(clean);

            check_eq!(clean & S::ACCESSED, 0);
            // Dirty or not, it allows what it did.
            check!(
                S::read(S::F::mark(clean), level.number().into())
                    == S::read(clean, level.number().into())
            );
            for (word, is_dirty) in [(clean, false), (read, false), (written, true)] {
                // The hardware writes through no other leaf.
                if is_dirty && !prot.contains(Prot::WRITE) {
                    continue;
                }
                check!(S::F::decode(word, level) == Entry::Leaf { phys: PHYS, lg2 });
                check_eq!(S::is_dirty(word), is_dirty);
                check_eq!(S::F::dirt(word) & S::F::DIRTY != 0, is_dirty);
                check!(S::F::has_no_table(word, word, level));
                check_eq!(word & S::F::WRITABLE != 0, prot.contains(Prot::WRITE));
                if is_dirty {
                    check_eq!(S::F::clean(word), S::cleaned(word));
                    check_eq!(S::F::mark(read), word);
                }
            }
        }
    }
    // What is in limbo looks like the address of a table: see `walks.rs`.
    for bits in [1 << 51, 1 << 52, u64::MAX] {
        check_eq!(S::F::dirt(bits & !0xfff) & S::F::DIRTY, 0);
        for (level, _) in levels()? {
            check!(S::F::decode(bits & !0xfff, level) == Entry::Empty);
        }
    }
    Ok(())
}

/// A leaf that devices use may be made clean and dirty. It may not go elsewhere, lose a permission,
/// vanish, or change in any other bit. It may be split, and get a permission, only where the
/// specification allows that.
pub fn live_changes<S: Spec>() -> Result {
    for (level, lg2) in levels()? {
        let may = |old, new| S::F::may_replace_live(old, new, level);
        let leaf =
            |phys, prot| -> Result<u64> { Ok(S::F::leaf(phys, lg2, level, S::F::attrs(prot)?)) };
        let both = Prot::READ | Prot::WRITE;
        let clean = leaf(PHYS, both)?;
        let (read_only, elsewhere) = (leaf(PHYS, Prot::READ)?, leaf(PHYS + (1 << 30), both)?);
        let dirty = S::written(clean);

        check!(may(dirty, S::cleaned(dirty)) && may(clean, dirty));
        check!(may(clean, clean | S::ACCESSED));
        check!(!may(clean, read_only));
        check_eq!(may(read_only, clean), S::GAINS_LIVE);
        check!(!may(dirty, read_only));
        check!(!may(clean, elsewhere) && !may(dirty, elsewhere));
        check!(!may(clean, 0) && !may(0, clean));
        for bit in (0..u64::BITS).map(|bit| 1 << bit) {
            // A leaf that allows all gets no permission, so each bit but two is another matter.
            if !matches!(S::F::decode(clean ^ bit, level), Entry::Table(_)) {
                check_eq!(
                    may(clean, clean ^ bit),
                    bit == S::ACCESSED || bit == S::DIRTY
                );
            }
        }
        if level > Level::LEAF {
            let table = S::F::table(PHYS, level);

            check_eq!(may(clean, table), S::SPLITS_LIVE);
            check_eq!(may(table, clean), S::SPLITS_LIVE);
            check!(may(table, table | S::ACCESSED_LINK));
            check!(!may(table, S::F::table(PHYS + 4096, level)));
            check!(!may(table, 0) && !may(0, table));
        }
    }
    Ok(())
}

/// A leaf that allows nothing does not exist.
pub fn empty_prot_is_refused<S: Spec>() -> Result {
    check!(S::F::attrs(Prot::NONE).is_err());
    check!(S::F::attrs(Prot::SNOOP).is_err());
    Ok(())
}
