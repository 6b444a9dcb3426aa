// SPDX-License-Identifier: GPL-2.0

//! The command line.

use std::path::{
    Path,
    PathBuf, //
};

use anyhow::{
    bail,
    ensure,
    Result, //
};
use clap::{
    Parser,
    ValueEnum, //
};

/// What `--help` says after the options.
const LONG_HELP: &str = "\
Scenarios:
  basic             one migration
  bounce            there and back, three times or as often as --bounce says
  cancel            cancelled half-way; the next attempt succeeds
  kill-destination  the destination is killed half-way; the next attempt succeeds
  again             the source is told to migrate while it does
  hotplug           two functions; one is unplugged and plugged in before, after and while pages are
                    tracked
  memory            memory is plugged and unplugged while pages are tracked
  kill              the source is killed with SIGKILL while pages are tracked
  blocked           no migration, because the IOMMU does not track; QEMU's message is shown

Columns: pass over the memory; time since the start; bytes sent; bytes that remain; pages that become \
dirty in a second; bytes of the functions' state; pages that IOMMUs reported dirty so far.

--json prints an object whose \"result\" is \"migrated\", \"blocked\", \"not migrated\" or \"error\" (then \
there is an \"error\"). \"migrations\" has for each \"rounds\", \"pages_sent\", \"sent\", \"vfio\" \
(bytes), \"time_ms\", \"downtime_ms\", \"queries\" (of the dirty bitmap), \"pages_reported\" by IOMMUs, \
and \"writes\" by the devices in the meantime.";

/// Migrate a virtual machine while PCI functions that are assigned to it write to its memory.
///
/// Starts two unmodified QEMUs, each with functions of this machine that are bound to
/// page_writer_vfio_pci, and migrates a running Linux from one to the other. The functions and the
/// processor of the virtual machine write to its memory all the time. In the end every page is compared,
/// byte by byte, with what must be there.
///
/// Ends with one line, "migrated: ... 0 lost, memory identical", and exit code 0; anything else is
/// exit code 1.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "vm-migrate",
    version,
    after_help = "Without --device it takes functions that are bound to page_writer_vfio_pci.",
    after_long_help = LONG_HELP
)]
pub(crate) struct Options {
    /// What happens besides the migration: see the end of --help.
    #[arg(long, value_enum, default_value_t = Scenario::Basic)]
    pub(crate) scenario: Scenario,

    /// Memory of the virtual machine: a number with K, M or G [default: 256M, or 1G with --page-size 1g].
    #[arg(long, value_parser = parse_size)]
    pub(crate) memory: Option<u64>,

    /// Pages of the virtual machine's memory; 2m and 1g are hugetlb pages.
    #[arg(long, value_enum, default_value_t = PageSize::Small)]
    pub(crate) page_size: PageSize,

    /// Functions that the virtual machine has [default: 1, or 2 with --scenario hotplug].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(crate) devices: Option<u32>,

    /// A function, like 0000:00:0c.0; twice as often as --devices says: first those of the source, then
    /// those of the destination.
    #[arg(long, value_name = "BDF")]
    pub(crate) device: Vec<String>,

    /// Go there and back so many times.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) bounce: Option<u32>,

    /// Writes that each function makes in a second.
    #[arg(long, default_value_t = 4000, value_name = "WRITES",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) rate: u64,

    /// Writes that the processor makes in a second.
    #[arg(long, default_value_t = 1000, value_name = "WRITES",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) processor_rate: u64,

    /// Memory that each function writes to, from the start of its part on: the less, the more often the
    /// same page is written again, through a translation that it still caches.
    #[arg(long, default_value = "16M", value_parser = parse_size)]
    pub(crate) span: u64,

    /// Decides which pages are written.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// Passes over the memory before the virtual machine may be stopped. If as many more are not enough
    /// for --downtime, it is stopped in any case.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=1000))]
    pub(crate) rounds: u64,

    /// Bytes sent in a second.
    #[arg(long, default_value = "128M", value_name = "SIZE", value_parser = parse_size)]
    pub(crate) bandwidth: u64,

    /// How long the virtual machine may stand still, in milliseconds.
    #[arg(long, default_value_t = 1000, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(1..=2_000_000))]
    pub(crate) downtime: u64,

    /// Use the type1 container instead of iommufd. It reports every mapped page, and asks no IOMMU.
    #[arg(long)]
    pub(crate) container: bool,

    /// Name of this machine's configuration, to be shown.
    #[arg(long, value_name = "NAME")]
    pub(crate) iommu: Option<String>,

    /// QEMU.
    #[arg(long, default_value = "/vm/qemu", value_name = "PATH")]
    pub(crate) qemu: PathBuf,

    /// The virtual machine's kernel.
    #[arg(long, default_value = "/vm/kernel", value_name = "PATH")]
    pub(crate) kernel: PathBuf,

    /// Its archive, with vm-guest as /init.
    #[arg(long, default_value = "/vm/initrd", value_name = "PATH")]
    pub(crate) initrd: PathBuf,

    /// QEMU's accelerator.
    #[arg(long, default_value = "kvm", value_name = "NAME")]
    pub(crate) accel: String,

    /// More words for the kernel's command line.
    #[arg(long, default_value = "", value_name = "WORDS")]
    pub(crate) append: String,

    /// Where QEMU's logs and sockets go [default: a folder in /tmp, which is removed after success].
    #[arg(long, value_name = "PATH")]
    pub(crate) logs: Option<PathBuf>,

    /// How the migration is shown; "auto" is "live" on a terminal of known size, else "plain".
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    pub(crate) progress: Progress,

    /// Print one JSON document at the end instead of anything else.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    Basic,
    Bounce,
    Cancel,
    KillDestination,
    Again,
    Hotplug,
    Memory,
    Kill,
    Blocked,
}

/// Pages of the virtual machine's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PageSize {
    /// Ordinary pages of a memfd.
    #[value(name = "4k", alias = "4K")]
    Small,
    /// Anonymous memory, of which the kernel makes large pages where it can.
    #[value(name = "thp")]
    Transparent,
    /// 2 MiB hugetlb pages.
    #[value(name = "2m", alias = "2M")]
    Large,
    /// 1 GiB hugetlb pages.
    #[value(name = "1g", alias = "1G")]
    Huge,
}

impl PageSize {
    /// In bytes, if they are hugetlb pages.
    pub(crate) fn hugetlb(self) -> Option<u64> {
        match self {
            Self::Small | Self::Transparent => None,
            Self::Large => Some(2 << 20),
            Self::Huge => Some(1 << 30),
        }
    }

    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "4k",
            Self::Transparent => "thp",
            Self::Large => "2m",
            Self::Huge => "1g",
        }
    }
}

/// How a migration is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// Decided by where the output goes.
    Auto,
    /// With a line that is drawn over itself.
    Live,
    /// One line a pass, nothing else.
    Plain,
}

/// The least memory that a kernel, and something to write to, fit into.
const LEAST_MEMORY: u64 = 96 << 20;
/// The most that fits below the hole for PCI.
const MOST_MEMORY: u64 = 2 << 30;
/// The most that is written and compared: more takes time and shows nothing new.
const MOST_REGION: u64 = 128 << 20;

impl Options {
    /// Bytes of the virtual machine's memory.
    ///
    /// # Errors
    ///
    /// There cannot be so much, or it is not made of pages of the size asked for.
    pub(crate) fn memory(&self) -> Result<u64> {
        let page = self.page_size.hugetlb().unwrap_or(2 << 20);
        let memory = self.memory.unwrap_or(page.max(256 << 20));
        ensure!(
            memory % page == 0,
            "--memory {} is not a multiple of the page size; use --memory {}",
            show_size(memory),
            show_size(memory.next_multiple_of(page))
        );
        ensure!(
            (LEAST_MEMORY..=MOST_MEMORY).contains(&memory),
            "--memory {} is not from {} to {}",
            show_size(memory),
            show_size(LEAST_MEMORY),
            show_size(MOST_MEMORY)
        );
        Ok(memory)
    }

    /// The part of the memory that the functions and the processor write to, and the kernel leaves
    /// alone: where it starts, and its length. It is in the middle, because firmware has its tables at
    /// the end.
    ///
    /// # Errors
    ///
    /// As `memory`.
    pub(crate) fn region(&self) -> Result<(u64, u64)> {
        let memory = self.memory()?;
        let align = 2 << 20;
        let length = (memory / 2).min(MOST_REGION) / align * align;
        Ok((memory / 4 / align * align, length))
    }

    /// Where logs and sockets go.
    pub(crate) fn logs(&self) -> &Path {
        self.logs.as_deref().unwrap_or(Path::new("/tmp"))
    }

    /// Functions of the virtual machine.
    ///
    /// # Errors
    ///
    /// The scenario needs more.
    pub(crate) fn devices(&self) -> Result<usize> {
        let least = match self.scenario {
            Scenario::Hotplug => 2,
            _ => 1,
        };
        let count = usize::try_from(self.devices.unwrap_or(least))?;
        let needed = usize::try_from(least)?;
        ensure!(count >= needed, "this scenario needs --devices {needed}");
        ensure!(
            self.bounce.is_none() || matches!(self.scenario, Scenario::Basic | Scenario::Bounce),
            "--bounce goes with no other scenario than \"bounce\""
        );
        Ok(count)
    }

    /// How often to go there and back; none: there only.
    pub(crate) fn bounces(&self) -> Option<u32> {
        match self.scenario {
            Scenario::Bounce => Some(self.bounce.unwrap_or(3)),
            _ => self.bounce,
        }
    }
}

/// Reads a number of bytes like `64M`.
fn parse_size(text: &str) -> Result<u64> {
    let text = text.trim();
    let (digits, shift) = match text.char_indices().last() {
        Some((end, 'k' | 'K')) => (text.get(..end), 10),
        Some((end, 'm' | 'M')) => (text.get(..end), 20),
        Some((end, 'g' | 'G')) => (text.get(..end), 30),
        _ => (Some(text), 0),
    };
    let number = digits.and_then(|digits| digits.parse::<u64>().ok());
    match number.and_then(|n| n.checked_mul(1 << shift)) {
        Some(size) => Ok(size),
        None => bail!("write a number of bytes, or one with K, M or G after it, like 64M"),
    }
}

/// Writes a number of bytes like `64M`.
pub(crate) fn show_size(size: u64) -> String {
    let units = [(30, 'G'), (20, 'M'), (10, 'K')];
    let fits = |&(shift, _): &(u32, char)| size >> shift > 0 && size.trailing_zeros() >= shift;
    match units.into_iter().find(fits) {
        Some((shift, unit)) => format!("{}{unit}", size >> shift),
        None => format!("{size}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn options(words: &[&str]) -> Result<Options> {
        Ok(Options::try_parse_from([&["vm-migrate"], words].concat())?)
    }

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
        for (size, text) in [
            (4096, "4K"),
            (256 << 20, "256M"),
            (1 << 30, "1G"),
            (5, "5"),
            (0, "0"),
        ] {
            assert_eq!(show_size(size), text);
        }
        Ok(())
    }

    #[test]
    fn the_region_is_in_the_middle() -> Result<()> {
        assert_eq!(options(&[])?.region()?, (64 << 20, 128 << 20));
        assert_eq!(
            options(&["--memory", "128M"])?.region()?,
            (32 << 20, 64 << 20)
        );
        let huge = options(&["--page-size", "1g"])?;
        assert_eq!(
            (huge.memory()?, huge.region()?),
            (1 << 30, (256 << 20, 128 << 20))
        );
        Ok(())
    }

    #[test]
    fn memory_must_be_of_whole_pages_and_enough() -> Result<()> {
        for (words, error) in [
            (&["--memory", "257M"][..], "use --memory 258M"),
            (
                &["--memory", "256M", "--page-size", "1g"],
                "use --memory 1G",
            ),
            (&["--memory", "64M"], "from 96M to 2G"),
            (&["--memory", "4G"], "from 96M to 2G"),
        ] {
            let said = options(words)?.memory().map_err(|e| e.to_string());
            assert!(said.as_ref().is_err_and(|e| e.contains(error)), "{said:?}");
        }
        Ok(())
    }

    #[test]
    fn scenarios_have_what_they_need() -> Result<()> {
        let hotplug = options(&["--scenario", "hotplug"])?;
        assert_eq!((hotplug.devices()?, hotplug.bounces()), (2, None));
        assert!(options(&["--scenario", "hotplug", "--devices", "1"])?
            .devices()
            .is_err());
        assert_eq!(options(&["--scenario", "bounce"])?.bounces(), Some(3));
        assert_eq!(options(&["--bounce", "2"])?.bounces(), Some(2));
        assert!(options(&["--scenario", "unknown"]).is_err());
        assert!(options(&["--rate", "0"]).is_err());
        Ok(())
    }
}
