// SPDX-License-Identifier: GPL-2.0

//! A set of pages, one bit each.

use std::ops::Range;

/// A set of pages, numbered from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    /// The empty set of pages below `pages`.
    pub(crate) fn new(pages: usize) -> Self {
        Self(vec![0; pages.div_ceil(64)])
    }

    /// Whether `page` is in it.
    pub(crate) fn get(&self, page: usize) -> bool {
        self.0
            .get(page / 64)
            .is_some_and(|word| (word >> (page % 64)) & 1 != 0)
    }

    /// Adds `page`; one that the set cannot hold is ignored.
    pub(crate) fn set(&mut self, page: usize) {
        if let Some(word) = self.0.get_mut(page / 64) {
            *word |= 1 << (page % 64);
        }
    }

    /// Removes `page`.
    pub(crate) fn unset(&mut self, page: usize) {
        if let Some(word) = self.0.get_mut(page / 64) {
            *word &= !(1 << (page % 64));
        }
    }

    /// Removes everything.
    pub(crate) fn clear(&mut self) {
        self.0.fill(0);
    }

    /// Whether it has one of `range`.
    pub(crate) fn any_in(&self, mut range: Range<usize>) -> bool {
        range.any(|page| self.get(page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_is_set() {
        let mut bits = Bits::new(130);
        for page in [0, 63, 64, 129, 4000] {
            bits.set(page);
        }
        assert!(bits.get(63) && bits.get(64) && bits.get(129) && !bits.get(128));
        assert!(bits.any_in(60..64) && !bits.any_in(65..129) && !bits.any_in(5..5));
        bits.unset(64);
        assert!(!bits.get(64));
        bits.clear();
        assert_eq!(bits, Bits::new(130));
    }
}
