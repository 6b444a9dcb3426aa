// SPDX-License-Identifier: GPL-2.0

//! Which page a write goes to, and which words it carries: both follow from a seed and the number of
//! the write.
//!
//! QEMU's `page-writer` writes by this rule, and so does the processor of the virtual machine, with
//! another seed and at another place of the page.

/// Bytes of a page: the unit of what a device or the processor is known to have written.
pub const PAGE_SIZE: usize = 4096;
/// Words of 64 bits in a page.
pub const PAGE_WORDS: usize = PAGE_SIZE / 8;

/// The finalizer of Steele, Lea and Flood's SplitMix64: a permutation of the 64-bit numbers.
pub const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The rule of one writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Decides which pages are written.
    pub seed: u64,
    /// Pages that can be written, from the area's first on; at least 1.
    pub pages: u64,
}

impl Rule {
    /// The page that write `number` (1, 2, ...) goes to.
    pub const fn page(&self, number: u64) -> u64 {
        mix(self.seed.wrapping_add(number)) % if self.pages == 0 { 1 } else { self.pages }
    }

    /// The two words of write `number`.
    pub const fn words(&self, number: u64) -> [u64; 2] {
        [number, mix(self.seed ^ number)]
    }

    /// The number of the write that carried these words, if one of this rule did.
    pub fn number(&self, words: [u64; 2]) -> Option<u64> {
        (words[0] != 0 && self.words(words[0]) == words).then_some(words[0])
    }
}

/// What a page holds before anything is written to it: words that all differ, and none of them zero
/// but by chance.
pub fn pattern(page: u64) -> impl Iterator<Item = u64> {
    let first = mix(page ^ 0x7061_6765_5f77_7472);
    // CAST: A page has 512 words.
    (0..PAGE_WORDS as u64).map(move |i| first.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The numbers of SplitMix64 with seed 0 are `mix` of the multiples of its step; these are in the
    /// test vectors of its implementations.
    #[test]
    fn mixes_as_splitmix64_does() {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        assert_eq!(mix(STEP), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(STEP.wrapping_mul(2)), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(mix(STEP.wrapping_mul(3)), 0x06c4_5d18_8009_454f);
        assert_eq!(mix(0), 0);
    }

    #[test]
    fn writes_reach_every_page_and_none_beyond() {
        let rule = Rule {
            seed: u64::MAX,
            pages: 100,
        };
        let pages: HashSet<_> = (1..=2000).map(|n| rule.page(n)).collect();
        assert_eq!(pages.len(), 100);
        assert!(pages.iter().all(|page| *page < 100));
    }

    #[test]
    fn words_tell_their_number() {
        let (rule, other) = (Rule { seed: 5, pages: 9 }, Rule { seed: 6, pages: 9 });
        for n in [1, 2, 1000, u64::MAX] {
            assert_eq!(rule.number(rule.words(n)), Some(n));
            assert_eq!(other.number(rule.words(n)), None);
        }
        assert_eq!(rule.number([7, 7]), None);
        assert_eq!(rule.number([0, mix(5)]), None);
    }

    #[test]
    fn patterns_differ_from_page_to_page_and_word_to_word() {
        let words: HashSet<_> = (0..64).flat_map(pattern).collect();
        assert_eq!(words.len(), 64 * PAGE_WORDS);
        assert!(!words.contains(&0));
    }
}
