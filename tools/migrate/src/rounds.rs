// SPDX-License-Identifier: GPL-2.0

//! The migration itself: pre-copy, as QEMU and cloud-hypervisor do it.
//!
//! 1. Tracking on; then round 0 copies everything, while the device goes on writing.
//! 2. Each further round asks which pages became dirty meanwhile, and copies those. Before the first of
//!    them the device must have written while tracked: without that, nothing would be shown.
//! 3. When few are left, or after the last round allowed, the device is stopped, the bitmap is read once
//!    more, and the rest is copied: the only moment at which a guest would stand still.
//! 4. Both memories are compared.
//!
//! What the device is known to have written ([`Truth`]) is compared with every report on the way, so a
//! page that the IOMMU forgets is found even if it happens to be copied later for another reason.

use std::{
    thread,
    time::{
        Duration,
        Instant, //
    },
};

use anyhow::{
    Context,
    Result, //
};
use iommufd_dirty::Bitmap;

use crate::{
    none_of,
    truth::Truth,
    PAGE_SIZE, //
};

/// The memory that is migrated.
pub(crate) trait Source {
    /// Copies one page out, which the device may be writing to.
    ///
    /// # Errors
    ///
    /// There is no such page.
    fn read(&self, page: usize, to: &mut [u8; PAGE_SIZE]) -> Result<()>;
}

/// The source of dirty bitmaps: which pages the device has written.
pub(crate) trait Tracker {
    /// Turns tracking on or off; all pages are clean when it comes on.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    fn track(&mut self, on: bool) -> Result<()>;

    /// Adds to `report` the pages written since the last call, which are clean again.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    fn collect(&mut self, report: &mut Bitmap) -> Result<()>;
}

/// The device, at work.
pub(crate) trait Device {
    /// The record of its writes.
    fn truth(&self) -> &Truth;

    /// Notices if it no longer works.
    ///
    /// # Errors
    ///
    /// What it ended with.
    fn check(&mut self) -> Result<()>;

    /// Stops it: it makes no write afterwards. May sleep.
    ///
    /// # Errors
    ///
    /// It did not stop, or failed before.
    fn stop(&mut self) -> Result<()>;
}

/// The display of a migration in progress.
pub(crate) trait Observer {
    /// The device has not written while tracked: the migration waits for it, at most so long.
    fn wait(&mut self, limit: Duration);
    /// A round begins, which will copy so many pages.
    fn begin(&mut self, round: usize, pages: usize);
    /// So many pages of the round are copied.
    fn progress(&mut self, copied: usize);
    /// A round is over.
    fn end(&mut self, round: &Round);
}

/// How far to go.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Stop the device when at most so many pages are left.
    pub(crate) threshold: usize,
    /// Stop the device after so many rounds in any case.
    pub(crate) rounds: usize,
    /// Bytes copied in a second, as if over a network, or as many as possible.
    pub(crate) bandwidth: Option<u64>,
    /// How long to wait for a device that has not written while tracked.
    pub(crate) wait: Duration,
}

/// One round, as it went.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    /// Counted from 0, the copy of everything.
    pub(crate) number: usize,
    /// Whether the device was stopped.
    pub(crate) last: bool,
    /// What the IOMMU reported at its start; nothing in round 0.
    pub(crate) dirty: Bitmap,
    /// How many pages it reported.
    pub(crate) reported: usize,
    /// How many pages the device wrote since the report before.
    pub(crate) written: usize,
    /// How many reported pages the device did not write.
    pub(crate) extra: usize,
    /// How many pages were copied.
    pub(crate) copied: usize,
    /// How long the reading of the bitmap took.
    pub(crate) query: Duration,
    /// How long all of the round took.
    pub(crate) time: Duration,
}

/// The first place where the copy differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) page: usize,
    pub(crate) byte: usize,
    pub(crate) memory: u8,
    pub(crate) copy: u8,
}

/// All that came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) rounds: Vec<Round>,
    /// Pages that the device wrote and that no report in question named, in the order found.
    pub(crate) lost: Vec<usize>,
    /// How many pages of the copy differ.
    pub(crate) different: usize,
    pub(crate) difference: Option<Difference>,
    /// All writes of the device, and those made while tracking was on.
    pub(crate) writes: u64,
    pub(crate) writes_tracked: u64,
    /// How long the migration waited for the device to write while tracked.
    pub(crate) waited: Duration,
    /// How long the device stood still before the copy was complete.
    pub(crate) downtime: Duration,
    pub(crate) time: Duration,
}

impl Outcome {
    /// Whether the migration was a success, and proves something.
    pub(crate) fn is_good(&self) -> bool {
        self.lost.is_empty() && self.different == 0 && self.writes_tracked > 0
    }

    /// Pages copied in all rounds.
    pub(crate) fn copied(&self) -> usize {
        self.rounds.iter().map(|r| r.copied).sum()
    }

    /// Dirty pages reported in all rounds.
    pub(crate) fn reported(&self) -> usize {
        self.rounds.iter().map(|r| r.reported).sum()
    }
}

/// Copies pages at a limited speed.
struct Copier<'a> {
    source: &'a dyn Source,
    copy: Vec<u8>,
    bandwidth: Option<u64>,
}

impl Copier<'_> {
    /// Copies the pages of `set`, and says how many those were. May sleep.
    fn copy(&mut self, set: &Bitmap, observer: &mut dyn Observer) -> Result<usize> {
        let start = Instant::now();
        let mut page_copy = [0; PAGE_SIZE];
        let mut copied = 0;
        for page in set.iter() {
            self.source.read(page, &mut page_copy)?;
            self.copy
                .get_mut(page * PAGE_SIZE..(page + 1) * PAGE_SIZE)
                .with_context(|| format!("the report names page {page}, which does not exist"))?
                .copy_from_slice(&page_copy);
            copied += 1;
            if copied % 64 == 0 {
                self.wait(start, copied);
                observer.progress(copied);
            }
        }
        self.wait(start, copied);
        observer.progress(copied);
        Ok(copied)
    }

    /// Waits until a network would have taken so many pages.
    fn wait(&self, start: Instant, copied: usize) {
        if let Some(bandwidth) = self.bandwidth {
            let due =
                Duration::from_secs_f64((copied * PAGE_SIZE) as f64 / bandwidth.max(1) as f64);
            if let Some(rest) = due.checked_sub(start.elapsed()) {
                thread::sleep(rest);
            }
        }
    }

    /// Counts the pages that differ, and says where the first difference is.
    fn compare(&self) -> Result<(usize, Option<Difference>)> {
        let mut memory = [0; PAGE_SIZE];
        let (mut different, mut first) = (0, None);
        for (page, copy) in self.copy.chunks_exact(PAGE_SIZE).enumerate() {
            self.source.read(page, &mut memory)?;
            let place = memory
                .iter()
                .zip(copy)
                .enumerate()
                .find(|(_, (m, c))| m != c);
            if let Some((byte, (&memory, &copy))) = place {
                different += 1;
                first.get_or_insert(Difference {
                    page,
                    byte,
                    memory,
                    copy,
                });
            }
        }
        Ok((different, first))
    }
}

/// Migrates `pages` pages of `source` into a new buffer. May sleep.
///
/// # Errors
///
/// A part could not do its work. A lost page is no error here: it is in the outcome.
pub(crate) fn migrate(
    pages: usize,
    source: &dyn Source,
    tracker: &mut dyn Tracker,
    device: &mut dyn Device,
    limits: &Limits,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let start = Instant::now();
    let mut copier = Copier {
        source,
        copy: vec![0; pages * PAGE_SIZE],
        bandwidth: limits.bandwidth,
    };
    let mut rounds: Vec<Round> = Vec::new();
    let mut lost = Vec::new();
    // Pages that the copy does not have yet.
    let mut rest = none_of(pages)?;
    rest.set_all();
    let mut stopped = None;
    let mut waited = Duration::ZERO;

    tracker.track(true)?;
    device.truth().tracking_on();
    loop {
        let begin = Instant::now();
        let number = rounds.len();
        let mut dirty = none_of(pages)?;
        let mut audit = Default::default();
        let mut query = Duration::ZERO;
        if number == 1 {
            waited = wait(device, limits.wait, observer)?;
        }
        if number > 0 {
            (audit, query) = collect(tracker, device, &mut dirty)?;
            rest.merge(&dirty)?;
            if stopped.is_none() && (rest.count() <= limits.threshold || number >= limits.rounds) {
                stopped = Some(Instant::now());
                device.stop()?;
                // What it wrote since the reading above.
                let mut late = none_of(pages)?;
                let (more, more_query) = collect(tracker, device, &mut late)?;
                rest.merge(&late)?;
                dirty.merge(&late)?;
                query += more_query;
                audit.written += more.written;
                audit.extra += more.extra;
                audit.lost.extend(more.lost);
            } else {
                device.check()?;
            }
        }
        observer.begin(number, rest.count());
        let copied = copier.copy(&rest, observer)?;
        rest.clear();
        lost.extend(audit.lost);
        let round = Round {
            number,
            last: stopped.is_some(),
            reported: dirty.count(),
            dirty,
            written: audit.written,
            extra: audit.extra,
            copied,
            query,
            time: begin.elapsed(),
        };
        observer.end(&round);
        rounds.push(round);
        if stopped.is_some() {
            break;
        }
    }
    let downtime = stopped.map_or(Duration::ZERO, |at| at.elapsed());
    let time = start.elapsed();
    tracker.track(false)?;

    let (different, difference) = copier.compare()?;
    let (writes, writes_tracked) = device.truth().writes();
    Ok(Outcome {
        rounds,
        lost,
        different,
        difference,
        writes,
        writes_tracked,
        waited,
        downtime,
        time,
    })
}

/// Waits until the device has written while tracked, at most for `limit`; says how long it waited. May
/// sleep.
///
/// A slow device, whose writes take longer than the first copy, would otherwise be stopped before its
/// next write.
fn wait(device: &mut dyn Device, limit: Duration, observer: &mut dyn Observer) -> Result<Duration> {
    let wrote = |device: &dyn Device| device.truth().writes().1 > 0;
    if wrote(device) {
        return Ok(Duration::ZERO);
    }
    observer.wait(limit);
    let begin = Instant::now();
    while !wrote(device) && begin.elapsed() < limit {
        device.check()?;
        thread::sleep(Duration::from_millis(1));
    }
    Ok(begin.elapsed())
}

/// Reads the bitmap once and judges it.
fn collect(
    tracker: &mut dyn Tracker,
    device: &mut dyn Device,
    report: &mut Bitmap,
) -> Result<(crate::truth::Audit, Duration)> {
    device.truth().reading();
    let begin = Instant::now();
    tracker.collect(report)?;
    let time = begin.elapsed();
    Ok((device.truth().read(report), time))
}

#[cfg(test)]
mod tests;
