// SPDX-License-Identifier: GPL-2.0

//! Device table entries, bit by bit (specification, 2.2.2.1).
//!
//! An entry has 256 bits. The fields about the translation of requests and those about interrupts
//! change independently: see [`Entry::over`] and [`Entry::with_interrupts`]. Pure.

use kernel::{
    bitfield,
    prelude::*, //
};

/// Quadwords of an entry.
pub(crate) const WORDS: usize = 4;

bitfield! {
    /// Quadword 0.
    pub(crate) struct Word0(u64) {
        /// IW: writes are allowed.
        62:62   write => bool;
        /// IR: reads are allowed.
        61:61   read => bool;
        /// GCR3 table root pointer, bits 14:12.
        60:58   guest_low;
        /// GLX: levels of the GCR3 table, less one.
        57:56   guest_depth;
        /// GV: the GCR3 table root pointer is valid.
        55:55   guest => bool;
        /// GIoV: requests without PASID use the entry for PASID 0.
        54:54   guest_untagged => bool;
        /// Host page table root pointer, in 4 KiB units.
        51:12   host_table;
        /// Paging mode: levels of the host table, 0 for none.
        11:9    host_levels;
        /// HAD: accessed and dirty flags of host tables are live, see [`DIRTY`].
        8:7     dirty;
        /// TV: the other fields about translation are valid; if not, requests are refused.
        1:1     translation => bool;
        /// V: the entry is valid; if not, requests pass.
        0:0     valid => bool;
    }
}

/// `Word0.HAD`: the unit sets both flags.
const DIRTY: u64 = 0b11;

bitfield! {
    /// Quadword 1.
    pub(crate) struct Word1(u64) {
        /// GCR3 table root pointer, bits 51:31.
        63:43   guest_high;
        /// SysMgt: system management messages.
        41:40   management;
        /// GCR3 table root pointer, bits 30:15.
        31:16   guest_middle;
        /// DomainID: what translations are cached under.
        15:0    domain;
    }
}

bitfield! {
    /// Quadword 2.
    pub(crate) struct Word2(u64) {
        /// Lint1Pass.
        63:63   lint1 => bool;
        /// Lint0Pass.
        62:62   lint0 => bool;
        /// NMIPass.
        58:58   nmi => bool;
        /// EIntPass.
        57:57   external => bool;
        /// INITPass.
        56:56   init => bool;
        /// IntCtl: how the unit treats fixed and arbitrated interrupts, see [`REMAP`].
        61:60   interrupt_control;
        /// GuestPagingMode: levels of guest tables, less four.
        55:54   guest_levels;
        /// IntTblPtr: the interrupt remapping table, in units of 64 bytes.
        51:6    interrupt_table;
        /// IG: interrupts that are refused are not logged.
        5:5     ignore_interrupts => bool;
        /// IntTabLen: the logarithm of the number of entries of that table.
        4:1     interrupt_entries;
        /// IV: the fields about interrupts are valid; if not, interrupts pass.
        0:0     interrupts => bool;
    }
}

/// What decides on fixed and arbitrated interrupts: IV and IntCtl. With IV alone they are refused
/// (IntCtl 00b).
const DECIDES2: u64 = Word2::INTERRUPTS_MASK | Word2::INTERRUPT_CONTROL_MASK;

/// What of quadword 2 is about the translation of requests. The rest is about interrupts.
const TRANSLATION2: u64 = Word2::GUEST_LEVELS_MASK;

/// `Word2.IntCtl`: remapped by the table.
const REMAP: u64 = 0b10;

/// What of quadword 2 is about interrupts.
const INTERRUPTS2: u64 = !TRANSLATION2;

/// `Word1.SysMgt` of a device whose messages are forwarded, which needs IW in every state of the
/// entry (erratum 63).
const FORWARDED: u64 = 0b01;

/// How the unit treats interrupts that an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupts {
    /// They pass, with these settings of firmware for those that have no vector.
    Unmapped(u8),
    /// They are remapped by the table at `table`, with so many entries. Those without a vector
    /// (NMI, INIT and others) are refused, even if firmware asks for them: a device that is
    /// assigned to user space must not send them.
    Remapped {
        /// The address, aligned to 128 bytes.
        table: u64,
        /// The logarithm of the number of entries.
        entries_lg2: u8,
    },
}

/// How the unit treats a request that an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Translation {
    /// It is refused.
    Blocked,
    /// It passes as it is.
    PassThrough,
    /// By a host table.
    Host,
    /// By guest tables.
    Guest,
}

/// The value of a whole entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(pub(crate) [u64; WORDS]);

impl Entry {
    /// Requests are refused.
    pub(crate) const BLOCKED: Self = Self([Word0::VALID_MASK, 0, 0, 0]);

    /// The settings of firmware for a device: a byte of its table entry (5.2.2.2). They do not
    /// include a translation, so the entry blocks.
    pub(crate) fn with_settings(settings: u8) -> Self {
        let settings = u64::from(settings);
        let word1 = settings >> 4 << Word1::MANAGEMENT_SHIFT & Word1::MANAGEMENT_MASK;
        let word2 = Word2::zeroed()
            .with_init(settings & 1 << 0 != 0)
            .with_external(settings & 1 << 1 != 0)
            .with_nmi(settings & 1 << 2 != 0)
            .with_lint0(settings & 1 << 6 != 0)
            .with_lint1(settings & 1 << 7 != 0);
        Self::BLOCKED.over(&Self([0, word1, word2.into_raw(), 0]))
    }

    fn present(domain: u16) -> (Word0, Word1) {
        (
            Word0::from_raw(Self::BLOCKED.0[0])
                .with_translation(true)
                .with_read(true)
                .with_write(true),
            Word1::zeroed().with_domain(domain),
        )
    }

    /// Lets requests pass untranslated.
    pub(crate) fn pass_through(domain: u16) -> Self {
        let (word0, word1) = Self::present(domain);
        Self([word0.into_raw(), word1.into_raw(), 0, 0])
    }

    /// Translates by the host table at `table`.
    pub(crate) fn host(table: u64, levels: u8, dirty: bool, domain: u16) -> Self {
        let (word0, word1) = Self::present(domain);
        Self([word0.into_raw(), word1.into_raw(), 0, 0])
            .with_top(table, levels)
            .with_dirty(dirty)
    }

    /// Translates by guest tables of four levels, whose addresses are in the GCR3 table of one
    /// level at `table`.
    pub(crate) fn guest(table: u64, domain: u16) -> Self {
        Self::guest_by_pasid(table, 1, true, domain)
    }

    /// Translates requests with PASID by guest tables of four levels, whose addresses are in the
    /// GCR3 table at `table`, which has `levels`. Requests without one are translated as those with
    /// PASID 0 if `untagged`, and pass otherwise.
    pub(crate) fn guest_by_pasid(table: u64, levels: u8, untagged: bool, domain: u16) -> Self {
        let (word0, word1) = Self::present(domain);
        let field = |low: u32, mask: u64, shift: u32| table >> low << shift & mask;
        let depth = u64::from(levels.saturating_sub(1)) << Word0::GUEST_DEPTH_SHIFT;
        let word0 = word0
            .with_guest(true)
            .with_guest_untagged(untagged)
            .into_raw()
            | depth & Word0::GUEST_DEPTH_MASK
            | field(12, Word0::GUEST_LOW_MASK, Word0::GUEST_LOW_SHIFT);
        let word1 = word1.into_raw()
            | field(15, Word1::GUEST_MIDDLE_MASK, Word1::GUEST_MIDDLE_SHIFT)
            | field(31, Word1::GUEST_HIGH_MASK, Word1::GUEST_HIGH_SHIFT);
        Self([word0, word1, 0, 0])
    }

    /// The same entry with another host table.
    pub(crate) fn with_top(mut self, table: u64, levels: u8) -> Self {
        let levels = u64::from(levels) << Word0::HOST_LEVELS_SHIFT & Word0::HOST_LEVELS_MASK;
        self.0[0] &= !(Word0::HOST_TABLE_MASK | Word0::HOST_LEVELS_MASK);
        self.0[0] |= (table & Word0::HOST_TABLE_MASK) | levels;
        self
    }

    /// The same entry with dirty tracking on or off.
    pub(crate) fn with_dirty(mut self, on: bool) -> Self {
        self.0[0] &= !Word0::DIRTY_MASK;
        if on {
            self.0[0] |= DIRTY << Word0::DIRTY_SHIFT;
        }
        self
    }

    /// The same translation, with other interrupts.
    pub(crate) fn with_interrupts(mut self, interrupts: Interrupts) -> Self {
        let word2 = match interrupts {
            Interrupts::Unmapped(settings) => Self::with_settings(settings).0[2],
            Interrupts::Remapped { table, entries_lg2 } => {
                let entries = u64::from(entries_lg2) << Word2::INTERRUPT_ENTRIES_SHIFT;
                Word2::from_raw(table & Word2::INTERRUPT_TABLE_MASK)
                    .with_const_interrupt_control::<REMAP>()
                    .with_interrupts(true)
                    .into_raw()
                    | entries & Word2::INTERRUPT_ENTRIES_MASK
            }
        };
        self.0[2] = (self.0[2] & TRANSLATION2) | (word2 & INTERRUPTS2);
        self
    }

    /// The same entry, with interrupts refused, or not; of one whose interrupts are remapped
    /// nothing changes. Those without a vector pass as firmware's settings say in either case.
    pub(crate) fn with_refused_interrupts(mut self, refused: bool) -> Self {
        let [now, new] = if refused {
            [0, Word2::INTERRUPTS_MASK]
        } else {
            [Word2::INTERRUPTS_MASK, 0]
        };
        if self.0[2] & DECIDES2 == now {
            self.0[2] ^= now ^ new;
        }
        self
    }

    /// This translation, with the other fields of `old`.
    pub(crate) fn over(&self, old: &Self) -> Self {
        let management = old.0[1] & Word1::MANAGEMENT_MASK;
        let mut word0 = self.0[0];
        if management >> Word1::MANAGEMENT_SHIFT == FORWARDED {
            word0 |= Word0::WRITE_MASK;
        }
        Self([
            word0,
            (self.0[1] & !Word1::MANAGEMENT_MASK) | management,
            (self.0[2] & TRANSLATION2) | (old.0[2] & !TRANSLATION2),
            old.0[3],
        ])
    }

    /// The domain id.
    pub(crate) fn domain(&self) -> u16 {
        // CAST: The field is sixteen bits wide.
        Word1::from_raw(self.0[1]).domain().get() as u16
    }

    /// Quadword 0, which holds everything that decides how an entry is used.
    pub(crate) fn word0(&self) -> Word0 {
        Word0::from_raw(self.0[0])
    }

    /// Levels of guest tables, as coded.
    pub(crate) fn guest_levels(&self) -> u64 {
        self.0[2] & Word2::GUEST_LEVELS_MASK
    }

    /// Whether guest tables translate requests without PASID too.
    pub(crate) fn is_guest_untagged(&self) -> bool {
        self.word0().guest_untagged()
    }

    /// How the unit treats a request, for an entry with guest tables one with PASID.
    pub(crate) fn translation(&self) -> Translation {
        let word = self.word0();
        if !word.valid() {
            Translation::PassThrough
        } else if !word.translation() {
            Translation::Blocked
        } else if word.guest() {
            Translation::Guest
        } else if word.host_levels().get() != 0 {
            Translation::Host
        } else {
            Translation::PassThrough
        }
    }
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
#[kunit_tests(rust_amdvi_dte_entry)]
mod tests {
    use super::*;

    const TABLE: u64 = 0x000f_edcb_a987_6000;

    #[test]
    fn blocked() {
        assert_eq!(Entry::BLOCKED.0, [1, 0, 0, 0]);
        assert_eq!(Entry::BLOCKED.translation(), Translation::Blocked);
        // An entry that is not valid blocks nothing.
        assert_eq!(Entry([0; 4]).translation(), Translation::PassThrough);
    }

    #[test]
    fn pass_through() {
        let entry = Entry::pass_through(1);
        assert_eq!(entry.0, [0x6000_0000_0000_0003, 1, 0, 0]);
        assert_eq!(entry.translation(), Translation::PassThrough);
    }

    #[test]
    fn host() {
        let entry = Entry::host(TABLE | 0xfff, 4, false, 0xbeef);
        assert_eq!(entry.0, [0x600f_edcb_a987_6803, 0xbeef, 0, 0]);
        assert_eq!(entry.domain(), 0xbeef);
        assert_eq!(entry.translation(), Translation::Host);
        let tracked = Entry::host(TABLE, 6, true, 2);
        assert_eq!(tracked.0[0], 0x600f_edcb_a987_6d83);
        assert_eq!(tracked.with_dirty(false), Entry::host(TABLE, 6, false, 2));
        assert_eq!(tracked.with_top(0x1000, 3), Entry::host(0x1000, 3, true, 2));
    }

    #[test]
    fn guest() {
        let entry = Entry::guest(TABLE, 3);
        let word0 = entry.word0();
        assert_eq!(entry.translation(), Translation::Guest);
        assert_eq!(word0.guest_low().get(), TABLE >> 12 & 0x7);
        assert_eq!(entry.0[1] >> 16 & 0xffff, TABLE >> 15 & 0xffff);
        assert_eq!(entry.0[1] >> 43, TABLE >> 31);
        assert_eq!(entry.0[0] & !Word0::GUEST_LOW_MASK, 0x60c0_0000_0000_0003);
        assert_eq!((entry.0[1] & 0xffff, entry.0[2], entry.0[3]), (3, 0, 0));
    }

    #[test]
    fn guest_by_pasid() {
        assert_eq!(
            Entry::guest_by_pasid(TABLE, 1, true, 3),
            Entry::guest(TABLE, 3)
        );
        let entry = Entry::guest_by_pasid(TABLE, 2, false, 3);
        assert_eq!(entry.translation(), Translation::Guest);
        assert!(!entry.is_guest_untagged());
        assert_eq!(entry.0[0] & !Word0::GUEST_LOW_MASK, 0x6180_0000_0000_0003);
        assert_eq!(entry.0[1], Entry::guest(TABLE, 3).0[1]);
        let deep = Entry::guest_by_pasid(TABLE, 3, true, 3);
        assert_eq!(deep.0[0] & !Word0::GUEST_LOW_MASK, 0x62c0_0000_0000_0003);
    }

    /// Each bit of the settings, and its place in the entry (5.2.2.2, 2.2.2.1).
    #[test]
    fn settings() {
        let places = [
            (0x01, [1, 0, 1 << 56]),
            (0x02, [1, 0, 1 << 57]),
            (0x04, [1, 0, 1 << 58]),
            (0x08, [1, 0, 0]),
            // Messages that are forwarded need IW.
            (0x10, [1 | 1 << 62, 1 << 40, 0]),
            (0x20, [1, 1 << 41, 0]),
            (0x30, [1, 3 << 40, 0]),
            (0x40, [1, 0, 1 << 62]),
            (0x80, [1, 0, 1 << 63]),
        ];
        for (settings, words) in places {
            assert_eq!(Entry::with_settings(settings).0[..3], words);
        }
    }

    #[test]
    fn interrupts() {
        let remapped = Interrupts::Remapped {
            table: TABLE,
            entries_lg2: 9,
        };
        // IV, 512 entries, no IG, IntCtl 10b, and none of what firmware lets pass.
        let word2 = 0x200f_edcb_a987_6013;
        let old = Entry::host(TABLE, 4, true, 2).over(&Entry::with_settings(0xff));
        let entry = old.with_interrupts(remapped);
        assert_eq!(entry.0, [old.0[0], old.0[1], word2, old.0[3]]);
        // Back again, with firmware's settings.
        assert_eq!(entry.with_interrupts(Interrupts::Unmapped(0xff)), old);
        assert_eq!(entry.with_interrupts(Interrupts::Unmapped(0)).0[2], 0);
        // The levels of guest tables are not about interrupts.
        let deep = Entry([1, 0, 1 << 54, 0]);
        assert_eq!(deep.with_interrupts(remapped).0[2], word2 | 1 << 54);
    }

    #[test]
    fn refused_interrupts() {
        let old = Entry::host(TABLE, 4, true, 2).over(&Entry::with_settings(0xff));
        let refused = old.with_refused_interrupts(true);
        assert_eq!(refused.0, [old.0[0], old.0[1], old.0[2] | 1, old.0[3]]);
        assert_eq!(refused.with_refused_interrupts(true), refused);
        assert_eq!(refused.with_refused_interrupts(false), old);
        assert_eq!(old.with_refused_interrupts(false), old);
        // A table stays.
        let remapped = old.with_interrupts(Interrupts::Remapped {
            table: TABLE,
            entries_lg2: 9,
        });
        for on in [false, true] {
            assert_eq!(remapped.with_refused_interrupts(on), remapped);
        }
    }

    #[test]
    fn what_is_not_translation_stays() {
        let live = Entry([1, 3 << 40 | 7, !0, !0]);
        for new in [
            Entry::BLOCKED,
            Entry::pass_through(1),
            Entry::host(TABLE, 4, true, 2),
            Entry::guest(TABLE, 2),
        ] {
            let entry = new.over(&live);
            assert_eq!(entry.0[0], new.0[0]);
            assert_eq!(entry.0[1], new.0[1] | 3 << 40);
            assert_eq!(entry.0[2], !(3 << 54));
            assert_eq!(entry.0[3], !0);
        }
    }
}
