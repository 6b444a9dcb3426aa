// SPDX-License-Identifier: GPL-2.0

//! Counters of domains and units, from their creation on.
//!
//! The counters are independent of each other: a reader may see one ahead of another.

use kernel::{
    fmt,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::Delta, //
};

/// A number of events.
pub struct Counter(Atomic<u64>);

impl Counter {
    /// Creates a counter at 0.
    pub const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Counts `number` of them. Context: any.
    #[inline]
    pub fn add(&self, number: u64) {
        self.0.add(number, Relaxed);
    }

    /// Returns the count. Context: any.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}

/// Counters of a domain.
#[derive(Default)]
pub(super) struct DomainCounters {
    /// Queries of dirty pages: calls of the core, one for each area that user space asks about.
    queries: Counter,
    /// Those that leave what is dirty as it is.
    no_clear: Counter,
    failed: Counter,
    /// What they have reported.
    dirty_bytes: Counter,
    nanoseconds: Counter,
    /// Flushes of hardware's caches, whatever for.
    pub(super) flushes: Counter,
    pub(super) failed_flushes: Counter,
    /// How often tracking was switched on or off.
    pub(super) switches: Counter,
}

impl DomainCounters {
    /// Counts a query.
    pub(super) fn count_query(&self, clear: bool, dirty: u64, time: Delta, result: &Result) {
        self.queries.add(1);
        self.no_clear.add(u64::from(!clear));
        self.failed.add(u64::from(result.is_err()));
        self.dirty_bytes.add(dirty);
        self.nanoseconds
            .add(u64::try_from(time.as_nanos()).unwrap_or(0));
    }

    /// Writes them, one a line.
    pub(super) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "queries: {}", self.queries.get())?;
        writeln!(f, "queries without clearing: {}", self.no_clear.get())?;
        writeln!(f, "failed queries: {}", self.failed.get())?;
        writeln!(f, "dirty: {} bytes", self.dirty_bytes.get())?;
        writeln!(f, "time in queries: {} ns", self.nanoseconds.get())?;
        writeln!(f, "flushes: {}", self.flushes.get())?;
        writeln!(f, "failed flushes: {}", self.failed_flushes.get())?;
        writeln!(f, "switches of tracking: {}", self.switches.get())
    }
}

/// Counters of a unit, which its driver keeps.
#[derive(Default)]
pub struct UnitCounters {
    /// Batches of invalidations that the unit was given.
    pub flushes: Counter,
    /// Batches that it refused, instead of which it was told to forget everything.
    pub retries: Counter,
    /// Requests of devices that it refused, as far as it has told this driver.
    pub faults: Counter,
}

impl UnitCounters {
    /// Writes them, one a line.
    pub(super) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "batches of invalidations: {}", self.flushes.get())?;
        writeln!(f, "batches refused and run again: {}", self.retries.get())?;
        writeln!(f, "faults: {}", self.faults.get())
    }
}
