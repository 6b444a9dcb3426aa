// SPDX-License-Identifier: GPL-2.0

//! The memory that is written, with guest-physical addresses that a device can be told.

use std::{
    fs::{
        self,
        File, //
    },
    io,
    ops::Range,
    os::unix::fs::FileExt, //
};

use anyhow::{
    bail,
    ensure,
    Context,
    Result, //
};
use vm_rule::{
    area::Memory,
    rule::{
        PAGE_SIZE,
        PAGE_WORDS, //
    },
};

use crate::sys::window::Window;

/// Pages that follow each other in the guest's physical memory.
pub(crate) struct Pages {
    window: Window,
    /// The guest-physical address of the first.
    base: u64,
    /// Where each page starts in the window.
    offsets: Vec<usize>,
}

impl Pages {
    /// Memory that the kernel was told to leave alone.
    ///
    /// # Errors
    ///
    /// The kernel does not map it.
    pub(crate) fn reserved(base: u64, length: u64) -> Result<Self> {
        let length = usize::try_from(length)?;
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/mem")
            .context("cannot open /dev/mem")?;
        let window = Window::of_file(&file, base, length)
            .with_context(|| format!("cannot map {length:#x} bytes at {base:#x} of /dev/mem"))?;
        Ok(Self {
            window,
            base,
            offsets: (0..length).step_by(PAGE_SIZE).collect(),
        })
    }

    /// The most pages in a row that can be had in `range`, by taking `take` bytes of new memory.
    ///
    /// The kernel gives pages in an order of its own; in the order of their addresses most of them
    /// are neighbours.
    ///
    /// # Errors
    ///
    /// The kernel gives no memory there.
    pub(crate) fn plugged(range: &Range<u64>, take: u64) -> Result<Self> {
        let window = Window::of_memory(usize::try_from(take)?)
            .with_context(|| format!("cannot get {take:#x} bytes of memory"))?;
        let mut pages = physical_addresses(&window)?;
        pages.retain(|(address, _)| range.contains(address));
        pages.sort_unstable();
        let run = longest_run(&pages);
        let Some((base, _)) = run.first() else {
            bail!(
                "none of {take:#x} bytes of memory lies from {:#x} to {:#x}",
                range.start,
                range.end
            );
        };
        Ok(Self {
            base: *base,
            offsets: run.iter().map(|(_, offset)| *offset).collect(),
            window,
        })
    }

    /// The guest-physical address of the first page.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Bytes that it has.
    pub(crate) fn length(&self) -> u64 {
        // CAST: A `usize` has at most 64 bits.
        (self.offsets.len() * PAGE_SIZE) as u64
    }

    /// Writes two words of a page.
    ///
    /// # Errors
    ///
    /// There is no such page.
    pub(crate) fn store(&self, page: u64, word: usize, words: [u64; 2]) -> io::Result<()> {
        let offset = self.offset(page)? + word * 8;
        self.window.store(offset, words[0])?;
        self.window.store(offset + 8, words[1])
    }

    fn offset(&self, page: u64) -> io::Result<usize> {
        let page = usize::try_from(page).map_err(io::Error::other)?;
        let offset = self.offsets.get(page).copied();
        offset.ok_or_else(|| io::Error::other(format!("there is no page {page}")))
    }
}

impl Memory for Pages {
    fn read(&self, page: u64, to: &mut [u64; PAGE_WORDS]) -> io::Result<()> {
        let offset = self.offset(page)?;
        for (i, word) in to.iter_mut().enumerate() {
            *word = self.window.load(offset + i * 8)?;
        }
        Ok(())
    }

    fn write(&self, page: u64, from: &[u64; PAGE_WORDS]) -> io::Result<()> {
        let offset = self.offset(page)?;
        for (i, word) in from.iter().enumerate() {
            self.window.store(offset + i * 8, *word)?;
        }
        Ok(())
    }
}

/// What is plugged is nowhere below.
const PLUGGED: u64 = 4 << 30;

/// The guest-physical address of each page of a window, and its offset there.
fn physical_addresses(window: &Window) -> Result<Vec<(u64, usize)>> {
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    let map = File::open("/proc/self/pagemap").context("cannot open /proc/self/pagemap")?;
    let first = window.address() / PAGE_SIZE;
    let mut entries = vec![0; window.len() / PAGE_SIZE * 8];
    map.read_exact_at(&mut entries, (first * 8) as u64)
        .context("cannot read /proc/self/pagemap")?;
    entries
        .chunks_exact(8)
        .enumerate()
        .map(|(i, bytes)| {
            let entry = u64::from_le_bytes(bytes.try_into()?);
            ensure!(
                entry & PRESENT != 0 && entry & FRAME != 0,
                "/proc/self/pagemap does not tell where page {i} is"
            );
            Ok(((entry & FRAME) * PAGE_SIZE as u64, i * PAGE_SIZE))
        })
        .collect()
}

/// The longest part of a sorted list in which each page follows the one before.
fn longest_run(pages: &[(u64, usize)]) -> &[(u64, usize)] {
    pages
        .chunk_by(|a, b| a.0 + PAGE_SIZE as u64 == b.0)
        .max_by_key(|run| run.len())
        .unwrap_or(&[])
}

/// The range that the kernel's command line reserves with `memmap=SIZE$START`.
///
/// # Errors
///
/// There is none, or it cannot be read.
pub(crate) fn reserved_region() -> Result<Range<u64>> {
    let line = fs::read_to_string("/proc/cmdline").context("cannot read /proc/cmdline")?;
    region_of(&line)
}

fn region_of(line: &str) -> Result<Range<u64>> {
    let words = line.split_whitespace();
    let Some((size, start)) = words
        .filter_map(|word| word.strip_prefix("memmap="))
        .find_map(|value| value.split_once('$'))
    else {
        bail!("the kernel's command line reserves no memory: give it \"memmap=SIZE$START\"");
    };
    let (size, start) = (hex(size)?, hex(start)?);
    Ok(start..start.checked_add(size).context("the region has no end")?)
}

/// Reads a number that may have `0x` before it; `vm-migrate` uses no other form in `memmap=`.
fn hex(text: &str) -> Result<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).with_context(|| format!("\"{text}\" is no number"))
}

/// Where memory was plugged: above all that there is at first.
///
/// # Errors
///
/// The kernel does not tell.
pub(crate) fn plugged_ranges() -> Result<Vec<Range<u64>>> {
    let text = fs::read_to_string("/proc/iomem").context("cannot read /proc/iomem")?;
    plugged_of(&text)
}

fn plugged_of(text: &str) -> Result<Vec<Range<u64>>> {
    let ranges = text
        .lines()
        .filter_map(|line| line.strip_suffix(" : System RAM"));
    let ranges = ranges.map(|range| {
        let (first, last) = range.split_once('-').context("a range has no end")?;
        Ok(hex(first)?..hex(last)? + 1)
    });
    let is_plugged =
        |range: &Result<Range<u64>>| range.as_ref().map_or(true, |r| r.start >= PLUGGED);
    ranges.filter(is_plugged).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_read_from_the_command_line() -> Result<()> {
        let line = "console=ttyS0 memmap=0x8000000$0x4000000 quiet\n";
        assert_eq!(region_of(line)?, 0x400_0000..0xc00_0000);
        for line in ["console=ttyS0", "memmap=0x10@0x20", "memmap=x$0x1000"] {
            assert!(region_of(line).is_err(), "{line}");
        }
        Ok(())
    }

    #[test]
    fn plugged_memory_is_found() -> Result<()> {
        let text = "\
00001000-0009fbff : System RAM
100000000-107ffffff : System RAM
";
        let ranges = plugged_of(text)?.into_iter().map(|r| (r.start, r.end));
        assert!(ranges.eq([(0x1_0000_0000, 0x1_0800_0000)]));
        assert_eq!(plugged_of("")?, []);
        Ok(())
    }

    #[test]
    fn the_longest_run_is_taken() {
        let pages = [
            (0x1000, 3),
            (0x4000, 1),
            (0x5000, 0),
            (0x6000, 9),
            (0x8000, 7),
        ];
        assert_eq!(longest_run(&pages), &pages[1..4]);
        assert_eq!(longest_run(&[]), &[]);
    }
}
