// SPDX-License-Identifier: GPL-2.0

//! Changing a device table entry that the hardware may read at any time.
//!
//! The hardware fetches an entry in one access of 256 bits, and a CPU writes 128 at most
//! (specification, 2.2.2.1 and 2.2.2.2, "Making Device Table Entry Changes"). The lower half
//! decides on a request, except for the number of levels of guest tables, which hardware reads only
//! in an entry with GV. So the order of the halves keeps the entry consistent at each step:
//!
//! - the old entry has no guest tables: the upper half first, which hardware ignores, then the
//!   lower half;
//! - the old entry has guest tables and the new one has none: the lower half first;
//! - both have guest tables, with as many levels: the same;
//! - both have guest tables, and the levels differ: through an entry that blocks.
//!
//! After the change the writer invalidates the entry and its translations.
//!
//! The steps run over [`EntryWords`], so that a test can check the entry after each of them.

use kernel::prelude::*;

use super::entry::{
    Entry,
    Interrupts,
    Translation,
    WORDS, //
};

/// An entry in memory, and the unit that reads it.
pub(crate) trait EntryWords {
    /// The value of a word.
    fn load(&self, word: usize) -> u64;
    /// Changes the lower two words (half 0) or the upper two (half 1), at once. The hardware sees
    /// stores in the order in which they are made.
    fn store(&mut self, half: usize, values: [u64; 2]) -> Result;
    /// Invalidates `old` in the hardware, and waits until that is done.
    fn forget(&mut self, old: Entry) -> Result;
}

/// The value of the entry in `slot`.
pub(crate) fn read(slot: &impl EntryWords) -> Entry {
    let mut words = [0; WORDS];
    for (index, word) in words.iter_mut().enumerate() {
        *word = slot.load(index);
    }
    Entry(words)
}

fn store_lower(slot: &mut impl EntryWords, entry: &Entry) -> Result {
    slot.store(0, [entry.0[0], entry.0[1]])
}

fn store_upper(slot: &mut impl EntryWords, entry: &Entry) -> Result {
    slot.store(1, [entry.0[2], entry.0[3]])
}

/// Replaces the translation of the entry by that of `new`. The interrupt fields do not change.
///
/// # Errors
///
/// If the hardware does not answer. The entry blocks then, because it is unknown what the hardware
/// still caches of the old one.
pub(crate) fn replace(slot: &mut impl EntryWords, new: Entry) -> Result {
    let old = read(slot);
    let new = new.over(&old);
    let guest = |entry: &Entry| entry.translation() == Translation::Guest;

    let result = if !guest(&old) {
        store_upper(slot, &new)
            .and_then(|()| store_lower(slot, &new))
            .and_then(|()| slot.forget(old))
    } else if guest(&new) && old.guest_levels() != new.guest_levels() {
        store_lower(slot, &Entry::BLOCKED.over(&old))
            .and_then(|()| slot.forget(old))
            .and_then(|()| store_upper(slot, &new))
            .and_then(|()| store_lower(slot, &new))
            .and_then(|()| slot.forget(Entry::BLOCKED))
    } else {
        store_lower(slot, &new)
            .and_then(|()| store_upper(slot, &new))
            .and_then(|()| slot.forget(old))
    };
    result.inspect_err(|_| {
        // The entry blocks; a failed invalidation changes nothing more.
        let _ = store_lower(slot, &Entry::BLOCKED.over(&old));
        let _ = slot.forget(new);
    })
}

/// Switches dirty tracking of an entry with a host table, without a gap for the device.
///
/// # Errors
///
/// If the hardware does not answer: it may use the old entry or the new one.
pub(crate) fn set_dirty(slot: &mut impl EntryWords, on: bool) -> Result {
    let old = read(slot);
    let new = old.with_dirty(on);
    if old.translation() != Translation::Host || new == old {
        return Ok(());
    }
    store_lower(slot, &new)?;
    slot.forget(old)
}

/// Changes how interrupts are treated. They change in one store, and the device sends none.
///
/// # Errors
///
/// If the hardware does not answer: it may use the old entry or the new one.
pub(crate) fn set_interrupts(slot: &mut impl EntryWords, interrupts: Interrupts) -> Result {
    let old = read(slot);
    store_upper(slot, &old.with_interrupts(interrupts))?;
    slot.forget(old)
}

/// Refuses the interrupts of an entry, or lets them pass, unless they are remapped.
///
/// # Errors
///
/// As for [`set_interrupts`].
pub(crate) fn refuse_interrupts(slot: &mut impl EntryWords, refused: bool) -> Result {
    let old = read(slot);
    let new = old.with_refused_interrupts(refused);
    if new == old {
        return Ok(());
    }
    store_upper(slot, &new)?;
    slot.forget(old)
}

/// Gives an entry another host table that translates all that the old one does, if the entry still
/// belongs to `domain`.
///
/// # Errors
///
/// As for [`set_dirty`].
pub(crate) fn set_top(slot: &mut impl EntryWords, domain: u16, table: u64, levels: u8) -> Result {
    let old = read(slot);
    if old.translation() != Translation::Host || old.domain() != domain {
        return Ok(());
    }
    store_lower(slot, &old.with_top(table, levels))?;
    slot.forget(old)
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
#[kunit_tests(rust_amdvi_dte_writer)]
mod tests {
    use super::*;

    /// What happened, in order.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Step {
        /// The hardware could see this entry.
        Seen(Entry),
        /// The hardware was told to forget.
        Forgot(Entry),
    }

    /// An entry that records what the hardware could see after every store.
    struct Recorder {
        words: [u64; WORDS],
        steps: KVec<Step>,
        fails: bool,
    }

    impl Recorder {
        fn new(entry: Entry) -> Self {
            Self {
                words: entry.0,
                steps: KVec::new(),
                fails: false,
            }
        }

        fn note(&mut self, step: Step) {
            assert!(self.steps.push(step, GFP_KERNEL).is_ok());
        }

        /// The hardware never saw anything that does something else than one of `allowed`, or
        /// block.
        fn saw_only(&self, allowed: &[Entry]) {
            for step in &self.steps {
                if let Step::Seen(entry) = step {
                    let effect = effect(entry);
                    assert!(
                        effect == effect_of_blocked()
                            || allowed.iter().any(|one| self::effect(one) == effect)
                    );
                }
            }
        }

        fn forgotten(&self) -> usize {
            let forgot = |step: &&Step| matches!(step, Step::Forgot(_));
            self.steps.iter().filter(forgot).count()
        }
    }

    impl EntryWords for Recorder {
        fn load(&self, word: usize) -> u64 {
            self.words[word]
        }

        fn store(&mut self, half: usize, values: [u64; 2]) -> Result {
            self.words[2 * half] = values[0];
            self.words[2 * half + 1] = values[1];
            self.note(Step::Seen(Entry(self.words)));
            Ok(())
        }

        fn forget(&mut self, old: Entry) -> Result {
            self.note(Step::Forgot(old));
            if self.fails {
                Err(ETIMEDOUT)
            } else {
                Ok(())
            }
        }
    }

    /// What of an entry the hardware acts on when it translates a request.
    fn effect(entry: &Entry) -> (Translation, [u64; 3]) {
        match entry.translation() {
            Translation::Blocked => (Translation::Blocked, [0; 3]),
            Translation::PassThrough if !entry.word0().valid() => {
                (Translation::PassThrough, [0; 3])
            }
            Translation::Guest => (
                Translation::Guest,
                [entry.0[0], entry.0[1], entry.guest_levels()],
            ),
            other => (other, [entry.0[0], entry.0[1], 0]),
        }
    }

    fn effect_of_blocked() -> (Translation, [u64; 3]) {
        effect(&Entry::BLOCKED)
    }

    /// Guest tables of five levels, which this driver does not make.
    fn deep_guest() -> Entry {
        let mut entry = Entry::guest(0x4000, 5);
        entry.0[2] |= 1 << 54;
        entry
    }

    fn entries() -> [Entry; 9] {
        [
            Entry::BLOCKED,
            Entry::pass_through(1),
            Entry::host(0x1000, 4, false, 2),
            Entry::host(0x2000, 6, true, 3),
            Entry::guest(0x3000, 4),
            Entry::guest(0x5000, 6),
            Entry::guest_by_pasid(0x6000, 2, false, 7),
            Entry::guest_by_pasid(0x6000, 2, true, 7),
            deep_guest(),
        ]
    }

    #[test]
    fn every_step_does_what_the_old_entry_or_the_new_one_does() {
        for old in entries() {
            for new in entries() {
                let mut slot = Recorder::new(old);
                assert_eq!(replace(&mut slot, new), Ok(()));
                assert_eq!(Entry(slot.words), new);
                slot.saw_only(&[old, new]);
                // The last thing that happens is that the hardware forgets.
                assert!(matches!(slot.steps.last(), Some(Step::Forgot(_))));
                assert!(slot.steps.contains(&Step::Forgot(old)));
            }
        }
    }

    /// The number of levels changes only while the hardware does not look at it.
    #[test]
    fn levels_of_guest_tables_change_behind_a_blocked_entry() {
        let mut slot = Recorder::new(Entry::guest(0x3000, 4));
        assert_eq!(replace(&mut slot, deep_guest()), Ok(()));
        let Step::Seen(first) = slot.steps[0] else {
            panic!("nothing was written first");
        };
        assert_eq!(first.translation(), Translation::Blocked);
        assert_eq!(slot.steps[1], Step::Forgot(Entry::guest(0x3000, 4)));
        assert_eq!(slot.forgotten(), 2);
    }

    /// Interrupt fields and what firmware wants are in every entry that is ever seen.
    #[test]
    fn what_is_not_translation_is_never_gone() {
        let kept2 = 0x5u64 << 60 | 1 << 57 | 0x1234_5000 | 0x13;
        let kept = Entry([1, 3 << 40, kept2, 0x77]);
        for old in entries() {
            for new in entries() {
                let mut slot = Recorder::new(old.over(&kept));
                assert_eq!(replace(&mut slot, new), Ok(()));
                for step in &slot.steps {
                    if let Step::Seen(entry) = step {
                        assert_eq!(entry.0[1] >> 40 & 3, 3);
                        assert_eq!(entry.0[2] & !(3 << 54), kept2);
                        assert_eq!(entry.0[3], 0x77);
                    }
                }
            }
        }
    }

    #[test]
    fn dirty_is_one_store() {
        let clean = Entry::host(0x1000, 4, false, 2);
        let tracked = Entry::host(0x1000, 4, true, 2);
        let mut slot = Recorder::new(clean);
        assert_eq!(set_dirty(&mut slot, true), Ok(()));
        assert_eq!(&slot.steps[..], &[Step::Seen(tracked), Step::Forgot(clean)]);
        // Switching it on again does nothing at all.
        assert_eq!(set_dirty(&mut slot, true), Ok(()));
        assert_eq!(slot.steps.len(), 2);
        assert_eq!(set_dirty(&mut slot, false), Ok(()));
        assert_eq!(Entry(slot.words), clean);
        // Nothing but host tables has the switch.
        for other in [
            Entry::BLOCKED,
            Entry::pass_through(1),
            Entry::guest(0x3000, 4),
        ] {
            let mut slot = Recorder::new(other);
            assert_eq!(set_dirty(&mut slot, true), Ok(()));
            assert_eq!(Entry(slot.words), other);
        }
    }

    #[test]
    fn interrupts_are_one_store_and_no_translation() {
        let remapped = Interrupts::Remapped {
            table: 0x1234_6000,
            entries_lg2: 9,
        };
        for old in entries() {
            let mut slot = Recorder::new(old);
            assert_eq!(set_interrupts(&mut slot, remapped), Ok(()));
            let new = Entry(slot.words);
            assert_eq!(&slot.steps[..], &[Step::Seen(new), Step::Forgot(old)]);
            assert_eq!(effect(&new), effect(&old));
            assert_eq!(new.0[2] & 0xff, 0x13);
            // And translation changes no interrupts.
            assert_eq!(replace(&mut slot, Entry::BLOCKED), Ok(()));
            assert_eq!(slot.words[2] & !(3 << 54), new.0[2] & !(3 << 54));
            slot.fails = true;
            let back = Interrupts::Unmapped(0);
            assert_eq!(set_interrupts(&mut slot, back), Err(ETIMEDOUT));
        }
    }

    #[test]
    fn a_top_is_one_store_and_only_for_its_domain() {
        let old = Entry::host(0x1000, 3, true, 2);
        let mut slot = Recorder::new(old);
        assert_eq!(set_top(&mut slot, 2, 0x9000, 4), Ok(()));
        let new = Entry::host(0x9000, 4, true, 2);
        assert_eq!(&slot.steps[..], &[Step::Seen(new), Step::Forgot(old)]);
        assert_eq!(set_top(&mut slot, 3, 0xa000, 5), Ok(()));
        assert_eq!(Entry(slot.words), new);
    }

    #[test]
    fn a_silent_unit_leaves_the_device_blocked() {
        for old in entries() {
            for new in entries() {
                let mut slot = Recorder::new(old);
                slot.fails = true;
                assert_eq!(replace(&mut slot, new), Err(ETIMEDOUT));
                assert_eq!(Entry(slot.words).translation(), Translation::Blocked);
            }
        }
    }
}
