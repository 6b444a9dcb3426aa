// SPDX-License-Identifier: GPL-2.0

//! Words: exactly the bits of the specification.

use super::{
    super::{
        Entry,
        Format,
        Level,
        Prot, //
    },
    cases::{
        Case,
        PHYS, //
    }, //
};
use kernel::error::Result;

/// The levels of the sizes that [`Case::LEAVES`] lists.
fn levels() -> Result<[(Level, u32); 3]> {
    Ok([
        (Level::top_of(1)?, 12),
        (Level::top_of(2)?, 21),
        (Level::top_of(3)?, 30),
    ])
}

/// Each permission at each size is the word that the specification has for it, and reads back. One
/// that is made as if it had been used has the bits that the hardware would set.
pub fn leaf_words<C: Case>() -> Result {
    for (prot, words) in C::LEAVES {
        let attrs = C::F::attrs(*prot)?;
        let used = C::F::attrs(*prot | Prot::USED)?;
        let preset = match (C::HAS_USED, prot.contains(Prot::WRITE)) {
            (false, _) => 0,
            (true, false) => C::HARDWARE.accessed,
            (true, true) => C::HARDWARE.accessed | C::HARDWARE.dirty,
        };

        for ((level, lg2), word) in levels()?.into_iter().zip(words) {
            check_eq!(C::F::leaf(PHYS, lg2, level, attrs), *word);
            check_eq!(C::F::leaf(PHYS, lg2, level, used), *word | preset);
            check!(C::F::decode(*word, level) == Entry::Leaf { phys: PHYS, lg2 });
        }
    }
    Ok(())
}

/// A link to a table is the word that the specification has for it, and reads back.
pub fn table_word<C: Case>() -> Result {
    for levels in 2..=C::F::MAX_LEVELS {
        let level = Level::top_of(levels)?;
        let word = C::TABLE + u64::from(levels - 2) * C::TABLE_STEP;

        check_eq!(C::F::table(PHYS, level), word);
        check!(C::F::decode(word, level) == Entry::Table(PHYS));
        check!(C::F::decode(0, level) == Entry::Empty);
        // The accessed bit changes nothing.
        let used = word | C::HARDWARE.accessed;

        check!(C::F::decode(used, level) == Entry::Table(PHYS));
        check!(!C::F::is_quiet(word, 0, level));
        check!(!C::F::is_quiet(used, used, level));
    }
    check!(C::F::decode(0, Level::LEAF) == Entry::Empty);
    Ok(())
}

/// What the hardware sets in a leaf changes neither its kind nor its address, and a dirty leaf is
/// never passed by.
pub fn leaves_survive_hardware_bits<C: Case>() -> Result {
    let (accessed, dirty) = (C::HARDWARE.accessed, C::HARDWARE.dirty);

    check_eq!(C::F::DIRTY, dirty);
    for (prot, _) in C::LEAVES {
        for (level, lg2) in levels()? {
            let clean = C::F::leaf(PHYS, lg2, level, C::F::attrs(*prot)?);

            check_eq!(clean & (accessed | dirty), 0);
            for set in [accessed, dirty, accessed | dirty] {
                let word = clean | set;

                check!(C::F::decode(word, level) == Entry::Leaf { phys: PHYS, lg2 });
                check_eq!(C::F::is_quiet(word, clean, level), set & dirty == 0);
            }
            check!(C::F::is_quiet(clean, clean, level));
        }
    }
    Ok(())
}

/// A leaf that allows nothing does not exist.
pub fn empty_prot_is_refused<C: Case>() -> Result {
    check!(C::F::attrs(Prot::NONE).is_err());
    check!(C::F::attrs(Prot::SNOOP).is_err());
    Ok(())
}
