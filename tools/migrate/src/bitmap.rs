// SPDX-License-Identifier: GPL-2.0

//! One bit per page, in the layout of `IOMMU_HWPT_GET_DIRTY_BITMAP`.

/// A set of pages, numbered from 0.
///
/// # Invariants
///
/// `words` has one bit for each of `pages` pages, rounded up to whole words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bitmap {
    words: Vec<u64>,
    pages: usize,
}

impl Bitmap {
    /// The empty set of `pages` possible pages.
    pub(crate) fn new(pages: usize) -> Self {
        // INVARIANT: The length is that of `pages` bits in whole words.
        Self {
            words: vec![0; pages.div_ceil(64)],
            pages,
        }
    }

    /// The set of all `pages` pages.
    pub(crate) fn full(pages: usize) -> Self {
        let mut all = Self::new(pages);
        (0..pages).for_each(|page| all.set(page));
        all
    }

    /// How many pages it can hold.
    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// The words, for the kernel to OR its report into.
    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// Removes all pages.
    pub(crate) fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Adds a page; one that the bitmap cannot hold is ignored.
    pub(crate) fn set(&mut self, page: usize) {
        if page < self.pages {
            if let Some(word) = self.words.get_mut(page / 64) {
                *word |= 1 << (page % 64);
            }
        }
    }

    /// Removes a page.
    #[cfg(test)]
    pub(crate) fn unset(&mut self, page: usize) {
        if let Some(word) = self.words.get_mut(page / 64) {
            *word &= !(1 << (page % 64));
        }
    }

    /// Whether it holds the page.
    pub(crate) fn get(&self, page: usize) -> bool {
        self.words
            .get(page / 64)
            .is_some_and(|word| (word >> (page % 64)) & 1 != 0)
    }

    /// How many pages it holds.
    pub(crate) fn count(&self) -> usize {
        // CAST: A word has at most 64 bits set.
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// How many of the pages `first..last` it holds.
    pub(crate) fn count_in(&self, range: std::ops::Range<usize>) -> usize {
        range.filter(|&page| self.get(page)).count()
    }

    /// How many pages it holds that `other` does not.
    pub(crate) fn count_without(&self, other: &Self) -> usize {
        self.words
            .iter()
            .zip(&other.words)
            // CAST: A word has at most 64 bits set.
            .map(|(a, b)| (a & !b).count_ones() as usize)
            .sum()
    }

    /// Adds all pages of `other`.
    pub(crate) fn union(&mut self, other: &Self) {
        for (a, b) in self.words.iter_mut().zip(&other.words) {
            *a |= b;
        }
    }

    /// Whether a bit is set behind the last page, where no page is.
    pub(crate) fn has_stray_bits(&self) -> bool {
        match (self.words.last(), self.pages % 64) {
            (Some(last), used @ 1..) => last >> used != 0,
            _ => false,
        }
    }

    /// The pages that it holds, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(i, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                // CAST: A word has at most 64 trailing zeroes.
                let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
                rest &= rest - 1;
                Some(i * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_is_set() {
        let mut b = Bitmap::new(130);
        for page in [0, 63, 64, 129, 130, 4000] {
            b.set(page);
        }
        assert_eq!(b.iter().collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert_eq!((b.count(), b.count_in(1..129)), (4, 2));
        assert!(b.get(129) && !b.get(130) && !b.get(4000));
        b.unset(63);
        assert_eq!(b.iter().collect::<Vec<_>>(), [0, 64, 129]);
    }

    #[test]
    fn combines() {
        let (mut a, mut b) = (Bitmap::new(100), Bitmap::new(100));
        a.set(1);
        a.set(70);
        b.set(70);
        assert_eq!((a.count_without(&b), b.count_without(&a)), (1, 0));
        b.union(&a);
        assert_eq!(a, b);
        a.clear();
        assert_eq!(a.count(), 0);
        assert_eq!(Bitmap::full(100).count(), 100);
    }

    #[test]
    fn sees_bits_behind_the_last_page() {
        let mut b = Bitmap::full(100);
        assert!(!b.has_stray_bits());
        b.words_mut()[1] |= 1 << 36;
        assert!(b.has_stray_bits());
        assert!(!Bitmap::full(128).has_stray_bits());
    }
}
