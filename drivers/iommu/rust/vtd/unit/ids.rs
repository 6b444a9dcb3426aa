// SPDX-License-Identifier: GPL-2.0

//! Domain ids of a unit: small numbers that it caches translations under. Pure.

use kernel::prelude::*;

/// Reserved: units with caching mode cache absent entries under it (VT-d specification, 11.4.2).
const ABSENT: u16 = 0;

/// The id of pass-through entries. They must not share one with second-stage entries (9.6).
pub(crate) const PASS_THROUGH: u16 = 1;

/// A set of ids.
pub(crate) struct IdSet {
    /// One bit for each id; a set bit is in use.
    words: KVec<u64>,
    limit: u32,
}

impl IdSet {
    /// The ids below `limit`, of which the reserved ones are in use. May sleep.
    pub(crate) fn new(limit: u32) -> Result<Self> {
        // A domain id has sixteen bits.
        let limit = limit.min(1 << 16);
        // CAST: at most 1024.
        let words = KVec::from_elem(0u64, limit.div_ceil(64) as usize, GFP_KERNEL)?;
        let mut set = Self { words, limit };
        for reserved in [ABSENT, PASS_THROUGH] {
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

    /// Takes an id that is not in use.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if all are.
    pub(crate) fn take(&mut self) -> Result<u16> {
        for (index, word) in self.words.iter().enumerate() {
            let free = word.trailing_ones();
            // CAST: at most 2^16 / 64 words of 64 bits.
            let id = index as u32 * 64 + free;
            if free < 64 && id < self.limit {
                // CAST: below the limit, which is at most 2^16.
                self.mark(id as u16, true);
                return Ok(id as u16);
            }
        }
        Err(ENOSPC)
    }

    /// Gives an id back that the unit has forgotten.
    pub(crate) fn give_back(&mut self, id: u16) {
        if id != ABSENT && id != PASS_THROUGH {
            self.mark(id, false);
        }
    }
}

#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
#[kunit_tests(rust_vtd_ids)]
mod tests {
    use super::*;

    #[test]
    fn all_ids_but_the_reserved_ones() -> Result {
        let mut set = IdSet::new(80)?;
        for id in 2..80 {
            assert_eq!(set.take(), Ok(id));
        }
        assert_eq!(set.take(), Err(ENOSPC));
        set.give_back(70);
        set.give_back(3);
        set.give_back(ABSENT);
        set.give_back(PASS_THROUGH);
        assert_eq!(set.take(), Ok(3));
        assert_eq!(set.take(), Ok(70));
        assert_eq!(set.take(), Err(ENOSPC));
        Ok(())
    }
}
