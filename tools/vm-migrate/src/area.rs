// SPDX-License-Identifier: GPL-2.0

//! What a piece of memory must hold after so many writes by a device and by the processor, and the
//! comparing of it with what it holds.

use std::{
    fmt,
    io,
    ops::RangeInclusive, //
};

use crate::rule::{
    pattern,
    Rule,
    PAGE_SIZE,
    PAGE_WORDS, //
};

/// Memory, page by page.
pub trait Memory {
    /// Reads a page.
    ///
    /// # Errors
    ///
    /// The memory has no such page.
    fn read(&self, page: u64, to: &mut [u64; PAGE_WORDS]) -> io::Result<()>;

    /// Writes a page.
    ///
    /// # Errors
    ///
    /// The memory has no such page.
    fn write(&self, page: u64, from: &[u64; PAGE_WORDS]) -> io::Result<()>;
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A PCI function, at the start of a page.
    Device,
    /// The processor, in the middle of a page.
    Processor,
}

impl Writer {
    /// The first of its two words in a page.
    pub const fn word(self) -> usize {
        match self {
            Self::Device => 0,
            Self::Processor => PAGE_WORDS / 2,
        }
    }

    /// Whose place a word of a page is, if any writer's.
    fn of(word: usize) -> Option<Self> {
        [Self::Device, Self::Processor]
            .into_iter()
            .find(|writer| (writer.word()..writer.word() + 2).contains(&word))
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device",
            Self::Processor => "processor",
        })
    }
}

/// A page that does not hold what it must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The page, counted from the area's first.
    pub page: u64,
    /// The first word that differs.
    pub word: usize,
    /// What the word is.
    pub found: u64,
    /// What it must be.
    pub expected: u64,
    /// Who wrote there last, and the number of that write; none if the place was never written.
    pub last: Option<(Writer, u64)>,
    /// The number of the older write that the place still holds, if one is there.
    pub holds: Option<u64>,
}

/// The outcome of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Pages that were compared.
    pub pages: u64,
    /// Pages that differ.
    pub different: u64,
    /// The first of them.
    pub first: Option<Difference>,
}

/// The writes of one writer to an area, by all rules that it has followed so far.
#[derive(Clone, Debug)]
struct History {
    writer: Writer,
    rules: Vec<Rule>,
    /// For each page the rule and the number of the last write.
    last: Vec<Option<(usize, u64)>>,
}

impl History {
    fn new(writer: Writer, pages: usize) -> Self {
        Self {
            writer,
            rules: vec![],
            last: vec![None; pages],
        }
    }

    fn replay(&mut self, rule: Rule, numbers: RangeInclusive<u64>) {
        if self.rules.last() != Some(&rule) {
            self.rules.push(rule);
        }
        let current = self.rules.len() - 1;
        for number in numbers {
            // A rule for more pages than the area has would be seen in the comparison.
            let page = usize::try_from(rule.page(number)).ok();
            if let Some(last) = page.and_then(|page| self.last.get_mut(page)) {
                *last = Some((current, number));
            }
        }
    }

    /// The last write to a page: its number and its words.
    fn last(&self, page: u64) -> Option<(u64, [u64; 2])> {
        let (rule, number) = (*self.last.get(usize::try_from(page).ok()?)?)?;
        Some((number, self.rules.get(rule)?.words(number)))
    }

    /// The number of the write to `page` that these words are of.
    fn number(&self, page: u64, words: [u64; 2]) -> Option<u64> {
        let mut rules = self.rules.iter().rev();
        rules.find_map(|rule| rule.number(words).filter(|&n| rule.page(n) == page))
    }
}

/// What a piece of memory must hold.
#[derive(Clone, Debug)]
pub struct Area {
    /// The number that the first page's pattern follows from: of the page in the whole memory.
    first: u64,
    pages: u64,
    device: History,
    processor: History,
}

impl Area {
    /// An area of `length` bytes at guest address `base`, as `fill` makes it.
    ///
    /// # Errors
    ///
    /// It does not consist of whole pages.
    pub fn new(base: u64, length: u64) -> io::Result<Self> {
        let page = PAGE_SIZE as u64;
        if base % page != 0 || length % page != 0 || length == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{length:#x} bytes at {base:#x} are not whole pages"),
            ));
        }
        let pages = usize::try_from(length / page).map_err(io::Error::other)?;
        Ok(Self {
            first: base / page,
            pages: length / page,
            device: History::new(Writer::Device, pages),
            processor: History::new(Writer::Processor, pages),
        })
    }

    /// How many pages it has.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Makes `memory` what it must be: at first, gives every page its pattern.
    ///
    /// # Errors
    ///
    /// The memory's.
    pub fn fill(&self, memory: &impl Memory) -> io::Result<()> {
        (0..self.pages).try_for_each(|page| memory.write(page, &self.expected(page)))
    }

    /// Takes note that `writer` has made the writes `numbers` by `rule`.
    pub fn replay(&mut self, writer: Writer, rule: Rule, numbers: RangeInclusive<u64>) {
        match writer {
            Writer::Device => self.device.replay(rule, numbers),
            Writer::Processor => self.processor.replay(rule, numbers),
        }
    }

    /// Compares all of `memory` with what it must hold.
    ///
    /// # Errors
    ///
    /// The memory's.
    pub fn compare(&self, memory: &impl Memory) -> io::Result<Comparison> {
        let mut all = Comparison::default();
        let mut words = [0; PAGE_WORDS];
        for page in 0..self.pages {
            memory.read(page, &mut words)?;
            all.pages += 1;
            if let Some(difference) = self.difference(page, &words) {
                all.different += 1;
                all.first.get_or_insert(difference);
            }
        }
        Ok(all)
    }

    /// What a page must hold.
    fn expected(&self, page: u64) -> [u64; PAGE_WORDS] {
        let mut words = [0; PAGE_WORDS];
        words
            .iter_mut()
            .zip(pattern(self.first + page))
            .for_each(|(word, value)| *word = value);
        for history in [&self.device, &self.processor] {
            let place = words.get_mut(history.writer.word()..);
            if let (Some(place), Some((_, last))) = (place, history.last(page)) {
                place.iter_mut().zip(last).for_each(|(to, word)| *to = word);
            }
        }
        words
    }

    /// Compares a page.
    fn difference(&self, page: u64, found: &[u64; PAGE_WORDS]) -> Option<Difference> {
        let expected = self.expected(page);
        let word = found.iter().zip(&expected).position(|(a, b)| a != b)?;
        let last = |writer| match writer {
            Writer::Device => self.device.last(page),
            Writer::Processor => self.processor.last(page),
        };

        let writer = Writer::of(word);
        let history = writer.map(|writer| match writer {
            Writer::Device => &self.device,
            Writer::Processor => &self.processor,
        });
        Some(Difference {
            page,
            word,
            found: found.get(word).copied().unwrap_or(0),
            expected: expected.get(word).copied().unwrap_or(0),
            last: writer.and_then(|writer| Some((writer, last(writer)?.0))),
            holds: history.and_then(|history| {
                let at = history.writer.word();
                let words = [*found.get(at)?, *found.get(at + 1)?];
                history.number(page, words)
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;

    const PAGES: u64 = 32;
    const BASE: u64 = 0x400_0000;

    /// Pages in a vector.
    struct Pages(RefCell<Vec<[u64; PAGE_WORDS]>>);

    impl Pages {
        fn new() -> Self {
            // CAST: A few pages.
            Self(RefCell::new(vec![[0; PAGE_WORDS]; PAGES as usize]))
        }

        /// As the writers of the virtual machine write.
        fn apply(&self, writer: Writer, rule: Rule, numbers: RangeInclusive<u64>) {
            for number in numbers {
                let page = rule.page(number) as usize;
                self.0.borrow_mut()[page][writer.word()..writer.word() + 2]
                    .copy_from_slice(&rule.words(number));
            }
        }
    }

    impl Memory for Pages {
        fn read(&self, page: u64, to: &mut [u64; PAGE_WORDS]) -> io::Result<()> {
            let pages = self.0.borrow();
            *to = *pages.get(page as usize).ok_or(io::ErrorKind::NotFound)?;
            Ok(())
        }

        fn write(&self, page: u64, from: &[u64; PAGE_WORDS]) -> io::Result<()> {
            self.0.borrow_mut()[page as usize] = *from;
            Ok(())
        }
    }

    const DEVICE: Rule = Rule {
        seed: 7,
        pages: PAGES / 2,
    };
    const PROCESSOR: Rule = Rule {
        seed: 8,
        pages: PAGES,
    };

    /// An area and its memory after `device` and `processor` writes.
    fn written(device: u64, processor: u64) -> io::Result<(Area, Pages)> {
        let mut area = Area::new(BASE, PAGES * PAGE_SIZE as u64)?;
        let memory = Pages::new();
        area.fill(&memory)?;
        for (writer, rule, n) in [
            (Writer::Device, DEVICE, device),
            (Writer::Processor, PROCESSOR, processor),
        ] {
            memory.apply(writer, rule, 1..=n);
            area.replay(writer, rule, 1..=n);
        }
        Ok((area, memory))
    }

    #[test]
    fn what_was_written_by_the_rule_is_the_same() -> io::Result<()> {
        for (device, processor) in [(0, 0), (1, 0), (0, 1), (500, 300)] {
            let (area, memory) = written(device, processor)?;
            let all = area.compare(&memory)?;
            assert_eq!((all.pages, all.different, all.first), (PAGES, 0, None));
        }
        Ok(())
    }

    #[test]
    fn a_write_that_did_not_arrive_is_named() -> io::Result<()> {
        let (mut area, memory) = written(500, 0)?;
        area.replay(Writer::Device, DEVICE, 501..=501);
        let all = area.compare(&memory)?;
        let page = DEVICE.page(501);
        assert_eq!(all.different, 1);
        let first = all.first.ok_or(io::ErrorKind::NotFound)?;
        assert_eq!((first.page, first.word), (page, 0));
        assert_eq!(first.last, Some((Writer::Device, 501)));
        let before = (1..=500).rev().find(|&n| DEVICE.page(n) == page);
        assert_eq!(first.holds, before);
        assert_eq!((Some(first.found), first.expected), (before, 501));
        Ok(())
    }

    #[test]
    fn a_page_as_it_was_before_every_write_is_noticed() -> io::Result<()> {
        let (area, memory) = written(500, 500)?;
        let fresh = written(0, 0)?.1;
        let page = PROCESSOR.page(500);
        let mut words = [0; PAGE_WORDS];
        fresh.read(page, &mut words)?;
        memory.write(page, &words)?;
        let all = area.compare(&memory)?;
        assert_eq!(all.different, 1);
        // Its device words come first, if the device wrote there.
        let first = all.first.ok_or(io::ErrorKind::NotFound)?;
        assert_eq!(first.holds, None);
        let writer = match page < DEVICE.pages {
            true => Writer::Device,
            false => Writer::Processor,
        };
        assert_eq!(first.last.map(|(w, _)| w), Some(writer));
        Ok(())
    }

    #[test]
    fn a_write_too_many_is_noticed() -> io::Result<()> {
        let (area, memory) = written(500, 300)?;
        memory.apply(Writer::Processor, PROCESSOR, 301..=301);
        let first = area
            .compare(&memory)?
            .first
            .ok_or(io::ErrorKind::NotFound)?;
        assert_eq!(first.page, PROCESSOR.page(301));
        assert_eq!(first.holds, Some(301));
        Ok(())
    }

    #[test]
    fn the_next_rule_goes_on_from_what_the_last_one_left() -> io::Result<()> {
        let (mut area, memory) = written(100, 0)?;
        let next = Rule { seed: 99, pages: 4 };
        memory.apply(Writer::Device, next, 1..=3);
        assert!(area.compare(&memory)?.different > 0);
        area.replay(Writer::Device, next, 1..=3);
        assert_eq!(area.compare(&memory)?.different, 0);
        Ok(())
    }

    #[test]
    fn a_page_in_the_place_of_another_differs() -> io::Result<()> {
        let (area, memory) = written(0, 0)?;
        memory.0.borrow_mut().swap(30, 31);
        let all = area.compare(&memory)?;
        assert_eq!((all.different, all.first.map(|d| d.page)), (2, Some(30)));
        Ok(())
    }

    #[test]
    fn part_of_a_page_is_no_area() {
        for (base, length) in [(0x800, 0x1000), (0x1000, 0x800), (0x1000, 0)] {
            assert!(Area::new(base, length).is_err());
        }
    }

    proptest! {
        #[test]
        fn every_changed_bit_is_found(page in 0..PAGES, word in 0..PAGE_WORDS, bit in 0..64u32, n in 0u64..600) {
            let (area, memory) = written(n, n / 2)?;
            memory.0.borrow_mut()[page as usize][word] ^= 1 << bit;
            let all = area.compare(&memory)?;
            prop_assert_eq!(all.different, 1);
            let first = all.first.ok_or_else(|| TestCaseError::fail("no difference"))?;
            prop_assert_eq!((first.page, first.word), (page, word));
            prop_assert_eq!(first.found ^ first.expected, 1 << bit);
            // Only the places of the two writers have one.
            prop_assert!(first.last.is_none() || [0, 1, 256, 257].contains(&word));
        }
    }
}
