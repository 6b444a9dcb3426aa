// SPDX-License-Identifier: GPL-2.0

//! The ground truth: which pages the device is known to have written, and when.
//!
//! The thread that drives the device announces each write before it starts and after it is over. The
//! thread that reads the dirty bitmap brackets each reading. A write happened at an unknown moment between its two
//! announcements, so the readings that are allowed to report it are known:
//!
//! ```text
//! reading        |--- 1 ---|        |--- 2 ---|        |--- 3 ---|
//! write A                     <-->                                   2 must report it
//! write B               <------->                                    1 or 2 must
//! write C                                 <-------------->           2 or 3 must
//! ```
//!
//! A write that none of its readings reported is lost: a VMM would not have copied the page.

use std::sync::{
    Mutex,
    MutexGuard,
    PoisonError, //
};

use iommufd_dirty::Bitmap;

/// One page of one write.
struct Entry {
    page: usize,
    /// Number of the first reading that may report it; 0 if tracking was still off, when none has to.
    first: u64,
    /// Number of the last reading that may report it, once the write is over.
    last: Option<u64>,
    /// Whether one of its readings has reported it.
    seen: bool,
}

/// What is known at one moment.
struct State {
    /// Even between readings, odd during one: reading `n` is from `2n + 1` to `2n + 2`, counting from
    /// 1. While it is below 2, tracking is off.
    epoch: u64,
    entries: Vec<Entry>,
    /// Pages whose writing was announced as over since the last reading.
    written: Bitmap,
    writes: u64,
    writes_tracked: u64,
}

/// What one reading of the dirty bitmap amounts to, by the ground truth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    /// How many different pages the device wrote since the reading before.
    pub(crate) written: usize,
    /// How many reported pages the device is not known to have written: the rest of large leaves.
    pub(crate) extra: usize,
    /// Pages of writes that no reading reported and none can any more, ascending.
    pub(crate) lost: Vec<usize>,
}

/// The record of the device's writes, shared by the two threads.
pub(crate) struct Truth {
    state: Mutex<State>,
}

impl Truth {
    /// An empty record for a memory, of whose pages `written` has none, with tracking off.
    pub(crate) fn new(written: Bitmap) -> Self {
        Self {
            state: Mutex::new(State {
                epoch: 0,
                entries: Vec::new(),
                written,
                writes: 0,
                writes_tracked: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements below: a panic elsewhere spoils nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces a write to `pages`, before the device is told of it.
    pub(crate) fn begin(&self, pages: impl IntoIterator<Item = usize>) {
        let mut state = self.lock();
        let first = state.epoch / 2;
        state.entries.extend(pages.into_iter().map(|page| Entry {
            page,
            first,
            last: None,
            seen: false,
        }));
    }

    /// Announces that all `writes` writes begun so far are over.
    pub(crate) fn end(&self, writes: u64) {
        let mut state = self.lock();
        let last = state.epoch.div_ceil(2);
        let mut tracked = false;
        let State {
            entries, written, ..
        } = &mut *state;
        // Writes under way are at the end: entries are added in order, and removed only when over.
        for entry in entries.iter_mut().rev().take_while(|e| e.last.is_none()) {
            entry.last = Some(last);
            written.set(entry.page);
            tracked |= entry.first > 0;
        }
        state.writes += writes;
        state.writes_tracked += if tracked { writes } else { 0 };
    }

    /// Announces that tracking is on: from here on every write has to be reported.
    pub(crate) fn tracking_on(&self) {
        let mut state = self.lock();
        state.epoch = 2;
        // Of the writes before, only those still under way may turn up in a report.
        state.entries.retain(|e| e.last.is_none());
        state.written.clear();
    }

    /// Announces a reading of the dirty bitmap.
    pub(crate) fn reading(&self) {
        self.lock().epoch += 1;
    }

    /// Judges what the reading announced last has reported.
    pub(crate) fn read(&self, report: &Bitmap) -> Audit {
        let mut state = self.lock();
        let reading = state.epoch / 2;
        state.epoch += 1;
        let mut known = report.clone();
        known.clear();
        let mut lost = Vec::new();
        state.entries.retain_mut(|e| {
            if e.first > reading {
                return true;
            }
            known.set(e.page);
            e.seen |= report.contains(e.page);
            let over = e.last.is_some_and(|last| last <= reading);
            if over && !e.seen && e.first > 0 {
                lost.push(e.page);
            }
            !over
        });
        lost.sort_unstable();
        lost.dedup();
        let written = state.written.count();
        state.written.clear();
        Audit {
            written,
            extra: report.iter().filter(|&page| !known.contains(page)).count(),
            lost,
        }
    }

    /// How many writes the device has made, and how many of them while tracking was on.
    pub(crate) fn writes(&self) -> (u64, u64) {
        let state = self.lock();
        (state.writes, state.writes_tracked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitmap_of;

    const NONE: [usize; 0] = [];

    fn report(pages: &[usize]) -> Bitmap {
        bitmap_of(64, pages.iter().copied())
    }

    fn read(truth: &Truth, pages: &[usize]) -> Audit {
        truth.reading();
        truth.read(&report(pages))
    }

    fn write(truth: &Truth, page: usize) {
        truth.begin([page]);
        truth.end(1);
    }

    fn started() -> Truth {
        let truth = Truth::new(report(&[]));
        truth.tracking_on();
        truth
    }

    #[test]
    fn a_write_between_readings_belongs_to_the_next_one() {
        let truth = started();
        write(&truth, 5);
        assert_eq!(read(&truth, &[5]).lost, NONE);
        write(&truth, 5);
        let audit = read(&truth, &[]);
        assert_eq!((audit.written, audit.lost), (1, vec![5]));
        assert_eq!(read(&truth, &[5]).extra, 1);
    }

    #[test]
    fn a_write_that_ends_during_a_reading_may_be_in_the_next_one() {
        for (first, second, lost) in [
            (&[7][..], &[][..], &[][..]),
            (&[], &[7], &[]),
            (&[], &[], &[7]),
        ] {
            let truth = started();
            truth.begin([7]);
            truth.reading();
            truth.end(1);
            assert_eq!(truth.read(&report(first)).lost, NONE);
            assert_eq!(read(&truth, second).lost, lost);
        }
    }

    #[test]
    fn a_write_that_starts_during_a_reading_may_be_in_that_one() {
        for (first, second, lost) in [
            (&[7][..], &[][..], &[][..]),
            (&[], &[7], &[]),
            (&[], &[], &[7]),
        ] {
            let truth = started();
            truth.reading();
            truth.begin([7]);
            assert_eq!(truth.read(&report(first)).lost, NONE);
            truth.end(1);
            assert_eq!(read(&truth, second).lost, lost);
        }
    }

    #[test]
    fn a_write_that_starts_after_a_reading_is_not_credited_with_it() {
        let truth = started();
        assert_eq!(read(&truth, &[7]).extra, 1);
        write(&truth, 7);
        assert_eq!(read(&truth, &[]).lost, [7]);
    }

    #[test]
    fn nothing_has_to_be_reported_while_tracking_is_off() {
        let truth = Truth::new(report(&[]));
        write(&truth, 1);
        truth.begin([2]);
        truth.tracking_on();
        truth.end(1);
        assert_eq!(read(&truth, &[]).lost, NONE);
        assert_eq!(truth.writes(), (2, 0));
        write(&truth, 3);
        assert_eq!(truth.writes(), (3, 1));
    }

    #[test]
    fn large_leaves_report_more_than_was_written() {
        let truth = started();
        write(&truth, 3);
        let audit = read(&truth, &(0..32).collect::<Vec<_>>());
        assert_eq!((audit.written, audit.extra, audit.lost), (1, 31, vec![]));
    }
}
