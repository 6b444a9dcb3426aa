// SPDX-License-Identifier: GPL-2.0

//! Scalable-mode PASID table entries, bit by bit (VT-d specification, 9.5 and 9.6).
//!
//! An entry is eight quadwords; this driver uses the lower three. Pure.

use kernel::{
    bitfield,
    num::Bounded,
    prelude::*, //
};

/// Quadwords of an entry.
pub(crate) const WORDS: usize = 8;

/// Entries of one 4 KiB table.
pub(crate) const ENTRIES: usize = 64;

/// Flag of a directory entry: the table that it points to is present.
pub(crate) const DIRECTORY_PRESENT: u64 = 1 << 0;

/// How the entry translates a request (field PGTT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Translation {
    /// First-stage tables only.
    First,
    /// Second-stage tables only.
    Second,
    /// No translation: addresses are used as they are.
    PassThrough,
}

impl TryFrom<Bounded<u64, 3>> for Translation {
    type Error = Error;

    fn try_from(code: Bounded<u64, 3>) -> Result<Self> {
        match code.get() {
            0b001 => Ok(Self::First),
            0b010 => Ok(Self::Second),
            0b100 => Ok(Self::PassThrough),
            _ => Err(EINVAL),
        }
    }
}

impl From<Translation> for Bounded<u64, 3> {
    fn from(translation: Translation) -> Self {
        match translation {
            Translation::First => Self::new::<0b001>(),
            Translation::Second => Self::new::<0b010>(),
            Translation::PassThrough => Self::new::<0b100>(),
        }
    }
}

bitfield! {
    /// Quadword 0.
    pub(crate) struct Word0(u64) {
        /// SSPTPTR: the second-stage table, in 4 KiB units.
        63:12   second_stage;
        /// SSADE: accessed and dirty flags of second-stage tables are active.
        9:9     dirty => bool;
        /// PGTT.
        8:6     translation ?=> Translation;
        /// AW: levels of the second-stage table, less two.
        4:2     width;
        /// P: present. The hardware ignores the other bits of an absent entry.
        0:0     present => bool;
    }
}

bitfield! {
    /// Quadword 1.
    pub(crate) struct Word1(u64) {
        /// PGSNP: every access snoops, whatever the request says.
        24:24   page_snoop => bool;
        /// PWSNP: page walks snoop.
        23:23   walk_snoop => bool;
        /// DID: the domain that translations are cached under.
        15:0    domain;
    }
}

bitfield! {
    /// Quadword 2.
    pub(crate) struct Word2(u64) {
        /// FSPTPTR: the first-stage table, in 4 KiB units.
        63:12   first_stage;
        /// FSPM: levels of the first-stage table, less four.
        3:2     levels;
    }
}

/// The value of a whole entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(pub(crate) [u64; WORDS]);

/// The fields that all kinds of present entries share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Common {
    /// The domain id that translations are cached under.
    pub(crate) domain: u16,
    /// Whether page walks snoop.
    pub(crate) walk_snoop: bool,
    /// Whether every access snoops.
    pub(crate) page_snoop: bool,
}

impl Entry {
    /// The absent entry: requests are refused.
    #[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
    pub(crate) const ABSENT: Self = Self([0; WORDS]);

    fn present(translation: Translation, levels: u8, common: Common) -> Self {
        // AW codes n levels as n - 2, for pass-through too (9.6).
        let width = u64::from(levels.saturating_sub(2)) << Word0::WIDTH_SHIFT;
        let word0 = Word0::from_raw(width & Word0::WIDTH_MASK)
            .with_translation(translation)
            .with_present(true);
        let word1 = Word1::zeroed()
            .with_domain(common.domain)
            .with_walk_snoop(common.walk_snoop)
            .with_page_snoop(common.page_snoop);
        let mut words = [0; WORDS];
        words[0] = word0.into_raw();
        words[1] = word1.into_raw();
        Self(words)
    }

    /// Passes requests through untranslated. `levels` is the most that the unit supports.
    pub(crate) fn pass_through(levels: u8, common: Common) -> Self {
        Self::present(Translation::PassThrough, levels, common)
    }

    /// Translates by the second-stage table at `table`.
    pub(crate) fn second_stage(table: u64, levels: u8, dirty: bool, common: Common) -> Self {
        let mut entry = Self::present(Translation::Second, levels, common);
        entry.0[0] |= table & Word0::SECOND_STAGE_MASK;
        if dirty {
            entry.0[0] |= Word0::DIRTY_MASK;
        }
        entry
    }

    /// Translates by the first-stage table at `table`.
    ///
    /// `widest` goes into AW: it has no meaning for first-stage translation on hardware, but
    /// emulated units check addresses against it.
    pub(crate) fn first_stage(table: u64, levels: u8, widest: u8, common: Common) -> Self {
        let mut entry = Self::present(Translation::First, widest, common);
        let depth = u64::from(levels.saturating_sub(4)) << Word2::LEVELS_SHIFT;
        entry.0[2] = (table & Word2::FIRST_STAGE_MASK) | (depth & Word2::LEVELS_MASK);
        entry
    }

    /// Whether the entry is present.
    pub(crate) fn is_present(&self) -> bool {
        self.word0().present()
    }

    /// The domain id.
    pub(crate) fn domain(&self) -> u16 {
        // CAST: the field is sixteen bits wide.
        Word1::from_raw(self.0[1]).domain().get() as u16
    }

    /// Quadword 0, which holds all fields that decide how the hardware uses the entry.
    pub(crate) fn word0(&self) -> Word0 {
        Word0::from_raw(self.0[0])
    }

    /// The kind of the entry; [`None`] for a value that this driver never writes.
    pub(crate) fn translation(&self) -> Option<Translation> {
        self.word0().translation().ok()
    }
}

#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
#[kunit_tests(rust_vtd_pasid_entry)]
mod tests {
    use super::*;

    const TABLE: u64 = 0x000f_edcb_a987_6000;

    fn common(domain: u16) -> Common {
        Common {
            domain,
            walk_snoop: true,
            page_snoop: false,
        }
    }

    #[test]
    fn pass_through() {
        let entry = Entry::pass_through(4, common(1));
        assert_eq!(entry.0, [0x109, 0x80_0001, 0, 0, 0, 0, 0, 0]);
        assert!(entry.is_present());
        assert_eq!(entry.translation(), Some(Translation::PassThrough));
    }

    #[test]
    fn second_stage() {
        let entry = Entry::second_stage(TABLE | 0xfff, 3, false, common(0xbeef));
        assert_eq!(entry.0, [TABLE | 0x85, 0x80_beef, 0, 0, 0, 0, 0, 0]);
        assert_eq!(entry.domain(), 0xbeef);
        let tracked = Entry::second_stage(TABLE, 5, true, common(2));
        assert_eq!(tracked.0[0], TABLE | 0x28d);
        assert_eq!(tracked.translation(), Some(Translation::Second));
    }

    #[test]
    fn first_stage() {
        let mut share = common(3);
        share.page_snoop = true;
        let entry = Entry::first_stage(TABLE, 4, 4, share);
        assert_eq!(entry.0, [0x49, 0x180_0003, TABLE, 0, 0, 0, 0, 0]);
        let five = Entry::first_stage(TABLE, 5, 5, share);
        assert_eq!(five.0[..3], [0x4d, 0x180_0003, TABLE | 0x4]);
        assert_eq!(five.translation(), Some(Translation::First));
    }

    #[test]
    fn absent() {
        assert!(!Entry::ABSENT.is_present());
        assert_eq!(Entry::ABSENT.translation(), None);
    }
}
