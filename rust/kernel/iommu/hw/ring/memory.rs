// SPDX-License-Identifier: GPL-2.0

//! The memory of a ring: commands that the unit reads, and words that it writes.

use kernel::{
    prelude::*,
    sync::atomic::{
        Acquire,
        Relaxed, //
    }, //
};

use super::super::pages::{
    Gfp,
    TablePages, //
};

/// The memory of a ring of commands of `WORDS` 64-bit words, and for each slot a word that the unit
/// writes to.
///
/// # Examples
///
/// ```
/// use kernel::iommu::hw::ring::Memory;
/// use kernel::sync::atomic::Release;
///
/// let memory = Memory::<2>::new(512, None)?;
/// memory.store(511, &[1, 2])?;
/// assert_eq!(memory.load(511), Some([1, 2]));
/// assert!(memory.store(512, &[1, 2]).is_err());
///
/// // What the unit does in the end.
/// memory.status.word(511)?.store(7, Release);
/// assert_eq!(memory.completed(511), 7);
/// # Ok::<(), Error>(())
/// ```
pub struct Memory<const WORDS: usize> {
    /// The commands.
    pub slots: TablePages,
    /// A word for each slot, and one more: see [`Self::nowhere`].
    pub status: TablePages,
    count: usize,
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
        let bytes = |words: usize| words.checked_mul(size_of::<u64>()).ok_or(EINVAL);
        let commands = slots.checked_mul(WORDS).ok_or(EINVAL)?;
        Ok(Self {
            slots: TablePages::new(bytes(commands)?, Gfp::KERNEL, node)?,
            status: TablePages::new(bytes(slots + 1)?, Gfp::KERNEL, node)?,
            count: slots,
        })
    }

    /// How many commands the ring holds.
    pub fn count(&self) -> usize {
        self.count
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
        if slot >= self.count {
            return Err(EINVAL);
        }
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
        if slot >= self.count {
            return None;
        }
        let mut command = [0; WORDS];
        for (index, value) in command.iter_mut().enumerate() {
            *value = self.slots.word(slot * WORDS + index).ok()?.load(Relaxed);
        }
        Some(command)
    }

    /// The physical address of the word that belongs to `slot`.
    pub fn status_of(&self, slot: usize) -> u64 {
        // CAST: An index into pages.
        self.status.phys() + (slot * size_of::<u64>()) as u64
    }

    /// The physical address of a word that belongs to no slot: what a unit writes there tells no
    /// CPU anything.
    pub fn nowhere(&self) -> u64 {
        self.status_of(self.count)
    }

    /// The number that the unit has written last for `slot`, zero if none. What the caller does
    /// next does not come before what the unit has completed.
    ///
    /// Context: any.
    #[inline]
    pub fn completed(&self, slot: usize) -> u64 {
        self.status.word(slot).map_or(0, |word| word.load(Acquire))
    }
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_ring_memory)]
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
        assert_eq!(memory.completed(63), 0);
        memory.status.word(63)?.store(7, Release);
        assert_eq!(memory.completed(63), 7);
        assert_eq!(memory.completed(62), 0);
        assert_eq!(memory.status_of(63), memory.status.phys() + 63 * 8);
        assert_eq!(memory.nowhere(), memory.status.phys() + 64 * 8);
        assert_eq!(Memory::<4>::new(0, None).err(), Some(EINVAL));
        assert_eq!(Memory::<4>::new(usize::MAX, None).err(), Some(EINVAL));
        Ok(())
    }
}
