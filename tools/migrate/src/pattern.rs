// SPDX-License-Identifier: GPL-2.0

//! Which bytes the device writes, and where: all of it follows from a seed.

use std::ops::RangeInclusive;

use crate::PAGE_SIZE;

/// Steele, Lea and Flood's SplitMix64: small, fast, and the same on every machine.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// A sequence that follows from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, or 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        // CAST: A remainder of a `usize` is a `usize`. Its bias is below 2^-30 for any memory size.
        (self.next() % (limit.max(1) as u64)) as usize
    }
}

/// Fills `to` with bytes that differ for each `number`.
pub(crate) fn fill(seed: u64, number: u64, to: &mut [u8]) {
    let mut random = Random::new(seed ^ number.rotate_left(32));
    for bytes in to.chunks_mut(8) {
        bytes.copy_from_slice(&random.next().to_le_bytes()[..bytes.len()]);
    }
}

/// One write that the device shall make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    /// Where in the memory it starts; a multiple of 64.
    pub(crate) offset: usize,
    /// What it writes; a multiple of eight bytes.
    pub(crate) data: Vec<u8>,
}

impl Write {
    /// The pages that it touches.
    pub(crate) fn pages(&self) -> RangeInclusive<usize> {
        let last = self.offset + self.data.len().saturating_sub(1);
        self.offset / PAGE_SIZE..=last / PAGE_SIZE
    }
}

/// Chooses the writes: half of them anywhere, half of them on a few hot pages.
///
/// Hot pages are written again soon after their dirty bit was cleared, through a translation that the
/// device still caches: what a driver that forgets to flush would lose.
pub(crate) struct Pattern {
    random: Random,
    seed: u64,
    number: u64,
    size: usize,
    hot: Vec<usize>,
}

impl Pattern {
    /// Writes to a memory of `size` bytes.
    pub(crate) fn new(seed: u64, size: usize) -> Self {
        let mut random = Random::new(seed);
        let pages = size / PAGE_SIZE;
        let hot = (0..(pages / 128).max(1))
            .map(|_| random.below(pages))
            .collect();
        Self {
            random,
            seed,
            number: 0,
            size,
            hot,
        }
    }

    /// The next write: `prefix`, which the device needs at the start, and then bytes that no write
    /// before had. Its length, in whole units of eight bytes, is within `lengths`.
    pub(crate) fn next(&mut self, prefix: &[u8], lengths: &RangeInclusive<usize>) -> Write {
        self.number += 1;
        let (shortest, longest) = (lengths.start().div_ceil(8), lengths.end() / 8);
        let units = shortest + self.random.below((longest + 1).saturating_sub(shortest));
        let mut data = vec![0; units * 8];
        fill(self.seed, self.number, &mut data);
        for (byte, fixed) in data.iter_mut().zip(prefix) {
            *byte = *fixed;
        }
        let page = if self.random.next() & 1 == 0 {
            self.random.below(self.size / PAGE_SIZE)
        } else {
            let i = self.random.below(self.hot.len());
            self.hot.get(i).copied().unwrap_or(0)
        };
        // Any line of the page, so that some writes reach into the next page; but not over the end.
        let offset = page * PAGE_SIZE + self.random.below(PAGE_SIZE / 64) * 64;
        let end = self.size.saturating_sub(data.len()) / 64 * 64;
        Write {
            offset: offset.min(end),
            data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 64 * PAGE_SIZE;

    fn writes(seed: u64) -> Vec<Write> {
        let mut pattern = Pattern::new(seed, SIZE);
        (0..2000)
            .map(|_| pattern.next(&[9; 14], &(64..=1024)))
            .collect()
    }

    #[test]
    fn stays_inside_and_follows_from_the_seed() {
        let all = writes(1);
        for write in &all {
            assert!(write.offset + write.data.len() <= SIZE);
            assert!((64..=1024).contains(&write.data.len()) && write.data.len() % 8 == 0);
            assert_eq!((write.offset % 64, &write.data[..14]), (0, &[9; 14][..]));
        }
        assert_eq!(all, writes(1));
        assert_ne!(all, writes(2));
    }

    #[test]
    fn reaches_every_page_and_across_pages() {
        let all = writes(1);
        let mut touched = [false; SIZE / PAGE_SIZE];
        all.iter()
            .flat_map(Write::pages)
            .for_each(|page| touched[page] = true);
        assert!(touched.iter().all(|t| *t));
        assert!(all.iter().any(|w| w.pages().count() == 2));
    }

    #[test]
    fn no_two_writes_have_the_same_bytes() {
        let mut data: Vec<_> = writes(1)
            .into_iter()
            .map(|w| w.data[14..64].to_vec())
            .collect();
        let n = data.len();
        data.sort();
        data.dedup();
        assert_eq!(data.len(), n);
    }
}
