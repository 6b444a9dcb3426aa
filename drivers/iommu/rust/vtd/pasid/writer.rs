// SPDX-License-Identifier: GPL-2.0

//! Changing a PASID entry that the hardware may read at any time.
//!
//! The hardware fetches an entry in pieces, so a change of more than one quadword goes through an
//! absent entry: clear P, invalidate the entry and the translations made with it, write the other
//! words, set P last (VT-d specification, 6.5.3.3). In between the device is blocked. A change of
//! quadword 0 alone, such as the switch of dirty tracking, is one store.
//!
//! The steps run over [`EntryWords`], so that a test can check the entry after each of them.

use kernel::prelude::*;

use super::entry::{
    Entry,
    Word0,
    WORDS, //
};

/// What to invalidate in the hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forget {
    /// The entry, now absent, and all translations that it made.
    Old(Entry),
    /// That the entry was absent.
    Absent(Entry),
    /// The entry whose dirty tracking was switched, and translations made before.
    Dirty(Entry),
}

/// An entry in memory, and the unit that reads it.
pub(crate) trait EntryWords {
    /// The value of a word.
    fn load(&self, word: usize) -> u64;
    /// Changes a word. The hardware sees stores in the order in which they are made.
    fn store(&mut self, word: usize, value: u64);
    /// Makes the stores visible to hardware that does not snoop.
    fn flush(&mut self);
    /// Invalidates, and waits until the hardware has done so.
    fn forget(&mut self, what: Forget) -> Result;
}

/// The value of the entry in `slot`.
pub(crate) fn read(slot: &impl EntryWords) -> Entry {
    let mut words = [0; WORDS];
    for (index, word) in words.iter_mut().enumerate() {
        *word = slot.load(index);
    }
    Entry(words)
}

/// Makes the entry absent.
///
/// # Errors
///
/// If the hardware does not answer. The entry is absent in memory even then.
pub(crate) fn clear(slot: &mut impl EntryWords) -> Result {
    let old = read(slot);
    if !old.is_present() {
        return Ok(());
    }
    slot.store(0, old.0[0] & !Word0::PRESENT_MASK);
    slot.flush();
    let forgotten = slot.forget(Forget::Old(old));
    // The hardware ignores the other words now.
    for word in 0..WORDS {
        slot.store(word, 0);
    }
    slot.flush();
    forgotten
}

/// Replaces the entry by `new`, which is present.
///
/// # Errors
///
/// If the hardware does not answer. The entry is absent then: the device must be blocked, because
/// the hardware may still cache the old entry.
pub(crate) fn replace(slot: &mut impl EntryWords, new: Entry) -> Result {
    clear(slot)?;
    for (word, value) in new.0.iter().enumerate().skip(1) {
        slot.store(word, *value);
    }
    // P comes last: the hardware reads the rest only if P is set.
    slot.store(0, new.0[0]);
    slot.flush();
    slot.forget(Forget::Absent(new)).inspect_err(|_| {
        // Blocked as promised; another invalidation would not help.
        let _ = clear(slot);
    })
}

/// Switches dirty tracking of a present second-stage entry, without a gap for the device.
///
/// # Errors
///
/// If the hardware does not answer: it may or may not use the new value then.
pub(crate) fn set_dirty(slot: &mut impl EntryWords, on: bool) -> Result {
    let old = read(slot);
    let word = old.word0().with_dirty(on).into_raw();
    if !old.is_present() || word == old.0[0] {
        return Ok(());
    }
    slot.store(0, word);
    slot.flush();
    slot.forget(Forget::Dirty(old))
}

#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
#[kunit_tests(rust_vtd_pasid_writer)]
mod tests {
    use super::*;
    use crate::pasid::entry::Common;

    /// What happened, in order.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Step {
        /// The hardware could see this entry.
        Seen(Entry),
        /// The driver asked for an invalidation.
        Forgot(Forget),
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

        /// Every present entry that the hardware could see is whole.
        fn saw_only(&self, allowed: &[Entry]) {
            for step in &self.steps {
                if let Step::Seen(entry) = step {
                    assert!(!entry.is_present() || allowed.contains(entry));
                }
            }
        }

        fn forgotten(&self) -> KVec<Forget> {
            let mut all = KVec::new();
            for step in &self.steps {
                if let Step::Forgot(what) = step {
                    assert!(all.push(*what, GFP_KERNEL).is_ok());
                }
            }
            all
        }
    }

    impl EntryWords for Recorder {
        fn load(&self, word: usize) -> u64 {
            self.words[word]
        }

        fn store(&mut self, word: usize, value: u64) {
            self.words[word] = value;
            self.note(Step::Seen(Entry(self.words)));
        }

        fn flush(&mut self) {}

        fn forget(&mut self, what: Forget) -> Result {
            self.note(Step::Forgot(what));
            if self.fails {
                Err(ETIMEDOUT)
            } else {
                Ok(())
            }
        }
    }

    fn common(domain: u16) -> Common {
        Common {
            domain,
            walk_snoop: true,
            page_snoop: false,
        }
    }

    fn entries() -> [Entry; 4] {
        [
            Entry::ABSENT,
            Entry::pass_through(4, common(1)),
            Entry::second_stage(0x1000, 4, false, common(2)),
            Entry::first_stage(0x2000, 4, 4, common(3)),
        ]
    }

    #[test]
    fn every_step_shows_the_old_entry_the_new_one_or_none() {
        for old in entries() {
            for new in entries().into_iter().filter(Entry::is_present) {
                let mut slot = Recorder::new(old);
                assert_eq!(replace(&mut slot, new), Ok(()));
                assert_eq!(Entry(slot.words), new);
                slot.saw_only(&[old, new]);
                let forgotten = slot.forgotten();
                if old.is_present() {
                    assert_eq!(&forgotten[..], &[Forget::Old(old), Forget::Absent(new)]);
                } else {
                    assert_eq!(&forgotten[..], &[Forget::Absent(new)]);
                }
            }
        }
    }

    /// Between clearing P and the end of the invalidation, no other word changes.
    #[test]
    fn nothing_changes_before_the_old_entry_is_forgotten() {
        let [_, old, new, _] = entries();
        let mut slot = Recorder::new(old);
        assert_eq!(replace(&mut slot, new), Ok(()));
        let mut absent = old;
        absent.0[0] &= !Word0::PRESENT_MASK;
        assert_eq!(slot.steps[0], Step::Seen(absent));
        assert_eq!(slot.steps[1], Step::Forgot(Forget::Old(old)));
        // The last state before the end is the first one with P.
        let last = slot.steps.len() - 2;
        assert_eq!(slot.steps[last], Step::Seen(new));
        assert!(slot.steps[1..last]
            .iter()
            .all(|step| !matches!(step, Step::Seen(entry) if entry.is_present())));
    }

    #[test]
    fn clearing_leaves_nothing() {
        for old in entries() {
            let mut slot = Recorder::new(old);
            assert_eq!(clear(&mut slot), Ok(()));
            assert_eq!(Entry(slot.words), Entry::ABSENT);
            slot.saw_only(&[]);
            assert_eq!(slot.forgotten().len(), usize::from(old.is_present()));
        }
    }

    #[test]
    fn dirty_is_one_store() {
        let clean = Entry::second_stage(0x1000, 4, false, common(2));
        let tracked = Entry::second_stage(0x1000, 4, true, common(2));
        let mut slot = Recorder::new(clean);
        assert_eq!(set_dirty(&mut slot, true), Ok(()));
        assert_eq!(
            &slot.steps[..],
            &[Step::Seen(tracked), Step::Forgot(Forget::Dirty(clean))]
        );
        // Switching it on again does nothing.
        assert_eq!(set_dirty(&mut slot, true), Ok(()));
        assert_eq!(slot.steps.len(), 2);
        assert_eq!(set_dirty(&mut slot, false), Ok(()));
        assert_eq!(Entry(slot.words), clean);
    }

    #[test]
    fn a_silent_unit_leaves_the_device_blocked() {
        let [_, old, new, _] = entries();
        for start in [old, Entry::ABSENT] {
            let mut slot = Recorder::new(start);
            slot.fails = true;
            assert_eq!(replace(&mut slot, new), Err(ETIMEDOUT));
            assert!(!Entry(slot.words).is_present());
        }
    }
}
