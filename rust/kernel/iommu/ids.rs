// SPDX-License-Identifier: GPL-2.0

//! Sets of small numbers, of which some are in use: the domain ids of a unit.
//!
//! Pure: depends on `core` and on the kernel's error type and vectors only.

use kernel::prelude::*;

/// A set of ids of sixteen bits.
///
/// # Examples
///
/// ```
/// use kernel::iommu::ids::IdSet;
///
/// // Ids below 256, of which the first two have a special meaning.
/// let mut ids = IdSet::new(2, 256)?;
/// let id = ids.take()?;
/// assert_eq!(id, 2);
/// ids.give_back(id);
/// # Ok::<(), Error>(())
/// ```
pub struct IdSet {
    /// One bit for each id; a set bit is in use.
    words: KVec<u64>,
    first: u16,
    limit: u32,
}

impl IdSet {
    /// The ids from `first` to below `limit`; those below `first` are never given out. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(first: u16, limit: u32) -> Result<Self> {
        let limit = limit.min(1 << 16);
        // CAST: At most 1024.
        let words = KVec::from_elem(0u64, limit.div_ceil(64) as usize, GFP_KERNEL)?;
        let mut set = Self {
            words,
            first,
            limit,
        };
        for reserved in 0..first {
            set.mark(reserved, true);
        }
        Ok(set)
    }

    fn mark(&mut self, id: u16, used: bool) {
        let bit = 1u64 << (id % 64);
        if let Some(word) = self.words.get_mut(usize::from(id / 64)) {
            if used {
                *word |= bit;
            } else {
                *word &= !bit;
            }
        }
    }

    /// Takes the lowest id that is not in use.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if all are.
    pub fn take(&mut self) -> Result<u16> {
        for (index, word) in self.words.iter().enumerate() {
            let free = word.trailing_ones();
            // CAST: At most 2^16 / 64 words of 64 bits.
            let id = index as u32 * 64 + free;
            if free < 64 && id < self.limit {
                // CAST: Below the limit, which is at most 2^16.
                self.mark(id as u16, true);
                return Ok(id as u16);
            }
        }
        Err(ENOSPC)
    }

    /// Gives an id back that the unit has forgotten.
    pub fn give_back(&mut self, id: u16) {
        if id >= self.first {
            self.mark(id, false);
        }
    }
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_ids)]
mod tests {
    use super::*;

    #[test]
    fn all_ids_but_the_reserved_ones() -> Result {
        let mut set = IdSet::new(2, 80)?;
        for id in 2..80 {
            assert_eq!(set.take(), Ok(id));
        }
        assert_eq!(set.take(), Err(ENOSPC));
        set.give_back(70);
        set.give_back(3);
        set.give_back(0);
        set.give_back(1);
        assert_eq!(set.take(), Ok(3));
        assert_eq!(set.take(), Ok(70));
        assert_eq!(set.take(), Err(ENOSPC));
        Ok(())
    }
}
