// SPDX-License-Identifier: GPL-2.0

//! Rings of commands that a unit fetches: their memory, and time that passes while it does.
//!
//! What is in a ring, how a unit is told of it and what stops it are a matter of the unit. That a
//! batch is followed by a command which makes the unit write a number, and that this number is what
//! a driver waits for, is the same for all.

use kernel::{
    prelude::*,
    sizes::SZ_4K,
    sync::atomic::{
        Acquire,
        Relaxed, //
    },
    time::{
        delay::udelay,
        Delta, //
    }, //
};

use super::pages::{
    Gfp,
    TablePages, //
};

/// Looks at a completion before pauses of a microsecond begin.
const EAGER_ROUNDS: u32 = 200;

/// The memory of a ring of commands of `WORDS` 64-bit words, and a word that the unit writes to.
///
/// # Examples
///
/// ```
/// use kernel::iommu::ring::Memory;
/// use kernel::sync::atomic::Release;
///
/// let memory = Memory::<2>::new(512, None)?;
/// memory.store(511, &[1, 2])?;
/// assert_eq!(memory.load(511), Some([1, 2]));
/// assert!(memory.store(512, &[1, 2]).is_err());
///
/// // What the unit does in the end.
/// memory.status.word(0)?.store(7, Release);
/// assert_eq!(memory.completed(), 7);
/// # Ok::<(), Error>(())
/// ```
pub struct Memory<const WORDS: usize> {
    /// The commands.
    pub slots: TablePages,
    /// A page, at whose start the unit says what is done.
    pub status: TablePages,
}

impl<const WORDS: usize> Memory<WORDS> {
    /// Memory for `slots` commands, near the NUMA node `node` if one is given. All is zero.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` for no command, or more than any memory holds.
    pub fn new(slots: usize, node: Option<u32>) -> Result<Self> {
        let bytes = slots.checked_mul(WORDS * size_of::<u64>()).ok_or(EINVAL)?;
        Ok(Self {
            slots: TablePages::new(bytes, Gfp::KERNEL, node)?,
            status: TablePages::new(SZ_4K, Gfp::KERNEL, node)?,
        })
    }

    /// Writes a command. The unit must not fetch it before it is told to by a register, whose write
    /// comes after this one for the unit.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such slot.
    pub fn store(&self, slot: usize, command: &[u64; WORDS]) -> Result {
        for (index, value) in command.iter().enumerate() {
            self.slots
                .word(slot * WORDS + index)?
                .store(*value, Relaxed);
        }
        Ok(())
    }

    /// Reads a command, [`None`] if there is no such slot.
    ///
    /// Context: any.
    pub fn load(&self, slot: usize) -> Option<[u64; WORDS]> {
        let mut command = [0; WORDS];
        for (index, value) in command.iter_mut().enumerate() {
            *value = self.slots.word(slot * WORDS + index).ok()?.load(Relaxed);
        }
        Some(command)
    }

    /// The number that the unit has written last, zero if none. What the caller does next does not
    /// come before what the unit has completed.
    ///
    /// Context: any.
    pub fn completed(&self) -> u64 {
        self.status.word(0).map_or(0, |word| word.load(Acquire))
    }
}

/// Waits about a microsecond between two looks at a completion, less in the first rounds.
///
/// Context: any.
pub fn pause(round: u32) {
    if round < EAGER_ROUNDS {
        core::hint::spin_loop();
    } else {
        udelay(Delta::from_micros(1));
    }
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_ring)]
mod tests {
    use super::*;
    use kernel::sync::atomic::Release;

    #[test]
    fn each_slot_has_its_own_words_and_the_last_is_the_end() -> Result {
        let memory = Memory::<2>::new(512, None)?;
        memory.store(0, &[1, 2])?;
        memory.store(1, &[3, 4])?;
        memory.store(511, &[5, 6])?;
        assert_eq!(memory.load(0), Some([1, 2]));
        assert_eq!(memory.load(1), Some([3, 4]));
        assert_eq!(memory.load(2), Some([0, 0]));
        assert_eq!(memory.load(511), Some([5, 6]));
        assert_eq!(memory.store(512, &[1, 2]), Err(EINVAL));
        assert_eq!(memory.load(512), None);
        Ok(())
    }

    #[test]
    fn what_the_unit_has_written_is_completed() -> Result {
        let memory = Memory::<4>::new(64, None)?;
        assert_eq!(memory.completed(), 0);
        memory.status.word(0)?.store(7, Release);
        assert_eq!(memory.completed(), 7);
        assert_eq!(Memory::<4>::new(0, None).err(), Some(EINVAL));
        assert_eq!(Memory::<4>::new(usize::MAX, None).err(), Some(EINVAL));
        Ok(())
    }
}
