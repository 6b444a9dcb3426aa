// SPDX-License-Identifier: GPL-2.0

//! The command line.

use anyhow::{
    bail,
    ensure,
    Result, //
};
use clap::{
    Parser,
    ValueEnum, //
};

use crate::PAGE_SIZE;

/// What `--help` says after the options.
const LONG_HELP: &str = "\
Binding a function to vfio-pci:
  echo vfio-pci > /sys/bus/pci/devices/0000:01:00.0/driver_override
  echo 0000:01:00.0 > /sys/bus/pci/devices/0000:01:00.0/driver/unbind
  echo 0000:01:00.0 > /sys/bus/pci/drivers_probe

Without --device the first suitable function that is bound is taken: an Intel 82576 (igb), or \
QEMU's edu, which makes only about ten writes in a second. If a device has not written while tracked \
when everything is copied, the program waits for it, at most 20 seconds. The program works on any IOMMU \
that tracks dirty pages, whichever driver serves it.

Columns: pages that the device wrote since the round before; pages that the IOMMU reported dirty, \
which are more if leaves are large; pages copied; duration; where the dirty pages are, from the lowest \
address to the highest, with a block as high as the logarithm of their number.

--json prints an object whose \"result\" is \"migrated\", \"not migrated\" or \"error\" (then there is an \
\"error\"). \"rounds\" has for each round \"written\", \"dirty\", \"extra\" (dirty, but not written), \
\"copied\", \"query_ms\" (reading the bitmap) and \"time_ms\". \"lost\" names the pages that were written \
and not reported, \"first_difference\" the first place where the copy differs.";

/// Migrate memory while a PCI device keeps writing to it, as a VMM does.
///
/// Takes a PCI function that is bound to vfio-pci, maps memory for it through iommufd, has it write at random
/// pages without pause, and copies the memory to a second buffer at the same time: tracking on, a copy of
/// everything, rounds of what the IOMMU reports dirty until little is left, device stopped, last round. Then
/// both memories are compared, and each report with what the device is known to have written.
///
/// Ends with one line, "migrated: ... 0 lost, memory identical", and exit code 0; anything else is
/// exit code 1.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "iommu-migrate",
    version,
    after_help = "Without --device it takes the first suitable function that is bound to vfio-pci. \
                  It works on any IOMMU that tracks dirty pages, whichever driver serves it.",
    after_long_help = LONG_HELP
)]
pub(crate) struct Options {
    /// PCI function that writes, like 0000:01:00.0; bound to vfio-pci.
    #[arg(long, value_name = "BDF")]
    pub(crate) device: Option<String>,

    /// Bytes of memory to migrate: a number with K, M or G [default: 64M, or one 1G page].
    #[arg(long, value_parser = parse_size)]
    pub(crate) size: Option<u64>,

    /// Leaf size of the mapping; 2M and 1G take their memory from hugetlb pages.
    #[arg(long, value_enum, default_value_t = PageSize::Small)]
    pub(crate) page_size: PageSize,

    /// Map the memory here as well, once the device writes at the usual place, and have it write at
    /// both: a number like 0x8000000000 or 512G. May be given several times.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    pub(crate) iova: Vec<u64>,

    /// Rounds of copying dirty pages before the device is stopped in any case.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,

    /// Stop the device when at most so many 4K pages are dirty.
    #[arg(long, default_value_t = 32, value_name = "PAGES")]
    pub(crate) threshold: u32,

    /// Bytes copied in a second, as over a network; 0: as fast as possible.
    #[arg(long, default_value = "64M", value_name = "SIZE", value_parser = parse_size)]
    pub(crate) bandwidth: u64,

    /// Writes that the device makes in a second; 0: as many as it can.
    #[arg(long, default_value_t = 4000, value_name = "WRITES")]
    pub(crate) rate: u32,

    /// Decides which pages are written, and what.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// How rounds are shown; "auto" is "live" on a terminal of known size, else "plain".
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    pub(crate) progress: Progress,

    /// Print one JSON document at the end instead of anything else.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Size of the leaves that memory is mapped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PageSize {
    /// Ordinary pages; contiguous ones are not combined.
    #[value(name = "4K", alias = "4k")]
    Small,
    /// 2 MiB hugetlb pages.
    #[value(name = "2M", alias = "2m")]
    Large,
    /// 1 GiB hugetlb pages.
    #[value(name = "1G", alias = "1g")]
    Huge,
}

impl PageSize {
    /// In bytes.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::Small => PAGE_SIZE as u64,
            Self::Large => 2 << 20,
            Self::Huge => 1 << 30,
        }
    }

    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "4K",
            Self::Large => "2M",
            Self::Huge => "1G",
        }
    }

    /// The hugetlb pages to take the memory from.
    pub(crate) fn hugetlb(self) -> Option<u64> {
        (self != Self::Small).then(|| self.bytes())
    }
}

/// How rounds are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// Decided by where the output goes.
    Auto,
    /// With a bar that is drawn over itself.
    Live,
    /// One line a round, nothing else.
    Plain,
}

impl Options {
    /// Bytes to migrate.
    ///
    /// # Errors
    ///
    /// The size asked for cannot be made of pages of the size asked for.
    pub(crate) fn memory_size(&self) -> Result<usize> {
        let page = self.page_size.bytes();
        let size = self.size.unwrap_or(page.max(64 << 20));
        ensure!(
            size > 0 && size % page == 0,
            "--size {size} is not a multiple of --page-size {}; use --size {}",
            self.page_size.name(),
            show_size(size.div_ceil(page).max(1) * page)
        );
        ensure!(
            size <= 1 << 40,
            "--size {} is more than this program migrates; use at most 1024G",
            show_size(size)
        );
        Ok(usize::try_from(size)?)
    }
}

/// Reads a number of bytes like `64M`.
fn parse_size(text: &str) -> Result<u64> {
    let (digits, shift) = match text.trim().to_uppercase() {
        t if t.ends_with('K') => (t, 10),
        t if t.ends_with('M') => (t, 20),
        t if t.ends_with('G') => (t, 30),
        t => (t, 0),
    };
    let number = digits.trim_end_matches(['K', 'M', 'G']).parse::<u64>();
    match number.ok().and_then(|n| n.checked_mul(1 << shift)) {
        Some(size) if digits.len() - digits.trim_end_matches(['K', 'M', 'G']).len() < 2 => Ok(size),
        _ => bail!("write a number of bytes, or one with K, M or G after it, like 64M"),
    }
}

/// Reads an address like `0x8000000000`, or like a number of bytes.
fn parse_address(text: &str) -> Result<u64> {
    match text.trim().strip_prefix("0x") {
        Some(digits) => Ok(u64::from_str_radix(digits, 16)?),
        None => parse_size(text),
    }
}

/// Writes a number of bytes like `64M`.
pub(crate) fn show_size(size: u64) -> String {
    match size {
        s if s >= 1 << 30 && s % (1 << 30) == 0 => format!("{}G", s >> 30),
        s if s >= 1 << 20 && s % (1 << 20) == 0 => format!("{}M", s >> 20),
        s if s >= 1 << 10 && s % (1 << 10) == 0 => format!("{}K", s >> 10),
        s => format!("{s}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn sizes_are_read_and_written() -> Result<()> {
        for (text, size) in [("4096", 4096), ("64M", 64 << 20), ("1g", 1 << 30), ("0", 0)] {
            assert_eq!(parse_size(text)?, size);
        }
        for text in [
            "",
            "M",
            "-1",
            "1.5G",
            "64MM",
            "64MB",
            "18446744073709551615K",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(
            (show_size(64 << 20), show_size(4097)),
            ("64M".into(), "4097".into())
        );
        Ok(())
    }

    #[test]
    fn addresses_are_read() -> Result<()> {
        for (text, address) in [
            ("0x8000000000", 512 << 30),
            ("512G", 512 << 30),
            ("0xF000", 0xf000),
        ] {
            assert_eq!(parse_address(text)?, address);
        }
        for text in ["0x", "0xg", "x10", "-0x1", "0x10000000000000000"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
        Ok(())
    }

    #[test]
    fn memory_is_whole_pages() -> Result<()> {
        let parse = |args: &[&str]| Options::try_parse_from([&["x"], args].concat());
        assert_eq!(parse(&[])?.memory_size()?, 64 << 20);
        assert_eq!(parse(&["--page-size", "1G"])?.memory_size()?, 1 << 30);
        let error = parse(&["--page-size", "2M", "--size", "3M"])?.memory_size();
        let error = error.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.ends_with("use --size 4M"), "{error}");
        assert!(parse(&["--size", "0"])?.memory_size().is_err());
        assert!(parse(&["--page-size", "8K"]).is_err());
        assert!(parse(&["--rounds", "0"]).is_err());
        Ok(())
    }
}
