// SPDX-License-Identifier: GPL-2.0

//! What QEMU asked of the IOMMU, from its trace: when tracking was on, and how many pages were reported.
//!
//! QEMU does not tell these through its monitor. Names of events change from version to version, so
//! they are asked for by patterns, and read by the words that they hold.

use std::{
    fs,
    path::Path, //
};

use anyhow::{
    Context,
    Result, //
};

/// The events to trace: QEMU enables those that it has.
pub(crate) const EVENTS: [&str; 2] = ["iommufd_backend_*dirty*", "vfio_*dirty_bitmap*"];

/// What QEMU asked so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    /// How often tracking was switched on, and off, through iommufd.
    pub(crate) on: u64,
    pub(crate) off: u64,
    /// Calls to iommufd that failed.
    pub(crate) failed: u64,
    /// How often the bitmap was read, and how many pages that are not of the processor were in it.
    pub(crate) queries: u64,
    pub(crate) pages: u64,
    /// Those of them that are where memory is plugged.
    pub(crate) plugged: u64,
}

/// Where QEMU plugs memory: above all that a virtual machine has at first.
const PLUGGED: u64 = 4 << 30;

impl Trace {
    /// Reads QEMU's log.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("QEMU has written no trace to {}", path.display()))?;
        Ok(Self::of(&text))
    }

    fn of(text: &str) -> Self {
        let mut trace = Self::default();
        for line in text.lines() {
            if line.contains("iommufd_backend_") {
                // The result is the number in parentheses at the end.
                let result = line
                    .rsplit_once('(')
                    .map(|(_, end)| end.trim_end_matches(')'));
                trace.failed += u64::from(result.is_some_and(|result| result != "0"));
            }
            if line.contains("iommufd_backend_set_dirty") {
                match word(line, "enable=") {
                    Some(1) => trace.on += 1,
                    Some(0) => trace.off += 1,
                    _ => (),
                }
            } else if let Some(pages) = word(line, "dirty_pages=") {
                trace.queries += 1;
                trace.pages += pages;
                if hexadecimal(line, "iova=0x").is_some_and(|iova| iova >= PLUGGED) {
                    trace.plugged += pages;
                }
            }
        }
        trace
    }

    /// Whether tracking is on at each domain where it was switched on.
    pub(crate) fn is_on(&self) -> bool {
        self.on > self.off
    }

    /// What was asked since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            on: self.on.saturating_sub(before.on),
            off: self.off.saturating_sub(before.off),
            failed: self.failed.saturating_sub(before.failed),
            queries: self.queries.saturating_sub(before.queries),
            pages: self.pages.saturating_sub(before.pages),
            plugged: self.plugged.saturating_sub(before.plugged),
        }
    }
}

/// The number after a word.
fn word(line: &str, key: &str) -> Option<u64> {
    after(line, key)?.parse().ok()
}

fn hexadecimal(line: &str, key: &str) -> Option<u64> {
    u64::from_str_radix(after(line, key)?, 16).ok()
}

fn after<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split_once(key)?.1.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
iommufd_backend_set_dirty  iommufd=12 hwpt=2 enable=1 (0)
iommufd_backend_get_dirty_bitmap  iommufd=12 hwpt=2 iova=0x0 size=0x10000000 page_size=0x1000 (0)
vfio_get_dirty_bitmap iova=0x0 size= 0x10000000 bitmap_size=0x2000 start=0x0 dirty_pages=512
iommufd_backend_get_dirty_bitmap  iommufd=12 hwpt=2 iova=0x0 size=0x1000 page_size=0x1000 (0)
vfio_container_query_dirty_bitmap iova=0x100000000 size= 0x1000 bitmap_size=0x8 start=0x0 dirty_pages=1
";

    #[test]
    fn tracking_and_reports_are_counted() {
        let trace = Trace::of(LOG);
        assert_eq!((trace.on, trace.off, trace.failed), (1, 0, 0));
        assert_eq!((trace.queries, trace.pages, trace.plugged), (2, 513, 1));
        assert!(trace.is_on());
        let end = Trace::of(&format!(
            "{LOG}iommufd_backend_set_dirty  iommufd=12 hwpt=2 enable=0 (0)\n"
        ));
        assert!(!end.is_on() && end.since(&trace).off == 1);
    }

    #[test]
    fn failures_are_counted() {
        let line = "iommufd_backend_set_dirty  iommufd=12 hwpt=2 enable=1 (-95)\n";
        assert_eq!(Trace::of(line).failed, 1);
    }
}
