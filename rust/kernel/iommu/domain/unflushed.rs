// SPDX-License-Identifier: GPL-2.0

//! What a failed flush leaves behind in a domain that tracks dirty pages.
//!
//! A harvest makes leaves clean and has the caller flush them. If that flush fails, hardware may
//! keep translations that it has seen dirty: it writes through them and sets no dirty bit, and the
//! core has no way to tell user space. So the domain remembers the range. From then on each harvest
//! reports all that is mapped and writable there, and has it flushed again.
//!
//! A range is forgotten when a harvest has reported it and *after that* a flush of it began and
//! succeeded. The order matters:
//!
//! - A flush ends the unseen writes, but it reports none of them. What was written between the last
//!   report and the flush would be lost if the flush alone were enough.
//! - A flush that began before the report, or before another one failed, says nothing about what
//!   hardware cached since.
//!
//! A query that leaves pages dirty (`IOMMU_DIRTY_NO_CLEAR`) reports the range as well, and changes
//! nothing: the core flushes nothing after it.
//!
//! # Locks
//!
//! The lock of [`Unflushed`] is innermost, and is taken in any context. It is not taken at all
//! while no flush has failed.

mod set;

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            AtomicFlag,
            Release, //
        },
        SpinLockIrq, //
    }, //
};

use super::super::{
    lock_class,
    pt::Range,
    values::Flush, //
};

use set::RangeSet;

/// The ranges that a flush left behind.
struct State {
    /// The ranges that hardware may write unseen; perhaps more.
    marks: RangeSet,
    /// The part of them that was reported since the last flush failed; perhaps less.
    reported: RangeSet,
    /// How many flushes have failed.
    failures: u64,
}

/// The ranges that hardware may write unseen, because a flush of them has failed.
#[pin_data]
pub(in super::super) struct Unflushed {
    /// Whether there is any range. The fast path reads only this.
    any: AtomicFlag,
    #[pin]
    state: SpinLockIrq<State>,
}

/// The ranges that had to be reported at some time.
pub(in super::super) struct Marks {
    set: RangeSet,
    failures: u64,
}

/// A flush on its way: what was reported before it began.
struct Began {
    reported: RangeSet,
    failures: u64,
}

impl Unflushed {
    /// Creates an empty record.
    pub(in super::super) fn new() -> impl PinInit<Self> {
        let (name, key) = lock_class::unflushed_state();
        let nothing = State {
            marks: RangeSet::EMPTY,
            reported: RangeSet::EMPTY,
            failures: 0,
        };
        pin_init!(Self {
            any: AtomicFlag::new(false),
            state <- SpinLockIrq::new(nothing, name, key),
        })
    }

    /// Runs a flush of `flush`, and draws the conclusions from its result, which it returns.
    ///
    /// Context: any.
    #[inline]
    pub(in super::super) fn watch(&self, flush: Flush, run: impl FnOnce() -> Result) -> Result {
        let began = self.begin();
        let result = run();
        match result {
            Ok(()) => self.succeeded(began, flush),
            Err(_) => self.failed(flush),
        }
        result
    }

    /// Notes that a flush begins.
    #[inline]
    fn begin(&self) -> Option<Began> {
        // Nothing was reported if there was nothing to report.
        if !self.any.load(Acquire) {
            return None;
        }
        let state = self.state.lock();
        Some(Began {
            reported: state.reported,
            failures: state.failures,
        })
    }

    /// Forgets what a flush reached that has succeeded.
    #[inline]
    fn succeeded(&self, began: Option<Began>, flush: Flush) {
        if let Some(began) = began {
            self.forget(&began, reach(flush));
        }
    }

    fn forget(&self, began: &Began, reach: Range) {
        let mut state = self.state.lock();
        if state.failures != began.failures {
            return;
        }
        for part in began.reported.within(reach) {
            // If there is no room to split a range, it stays: too much is reported then.
            let _ = state.marks.remove(part);
            if state.reported.remove(part).is_err() {
                state.reported = RangeSet::EMPTY;
            }
        }
        self.any.store(!state.marks.is_empty(), Release);
    }

    /// Remembers what a flush was to reach that has failed.
    fn failed(&self, flush: Flush) {
        let reach = reach(flush);
        let mut state = self.state.lock();
        state.failures = state.failures.wrapping_add(1);
        state.marks.insert_around(reach);
        if state.reported.remove(reach).is_err() {
            state.reported = RangeSet::EMPTY;
        }
        self.any.store(true, Release);
    }

    /// What a harvest of `range` has to report, `None` if nothing.
    ///
    /// Context: any.
    #[inline]
    pub(in super::super) fn marks(&self, range: Range) -> Option<Marks> {
        if !self.any.load(Acquire) {
            return None;
        }
        let state = self.state.lock();
        let mut set = RangeSet::EMPTY;
        for part in state.marks.within(range) {
            // Fits: it has no more parts than what it is taken from.
            let _ = set.insert(part);
        }
        (!set.is_empty()).then_some(Marks {
            set,
            failures: state.failures,
        })
    }

    /// Notes that a harvest has reported all of `marks`.
    ///
    /// Context: any.
    pub(in super::super) fn reported(&self, marks: &Marks) {
        let mut state = self.state.lock();
        // What failed since then may not have been reported.
        if state.failures != marks.failures {
            return;
        }
        for part in marks.set.iter() {
            // If there is no room, it is reported once more another time.
            let _ = state.reported.insert(part);
        }
    }
}

impl Marks {
    /// Cuts `range` into parts, in ascending order, with whether each is marked.
    pub(in super::super) fn cut(&self, range: Range) -> impl Iterator<Item = (Range, bool)> + '_ {
        let mut next = Some(range.first());
        let mut marked = self.set.within(range).peekable();
        core::iter::from_fn(move || {
            let first = next?;
            let (last, is_marked) = match marked.peek() {
                Some(part) if part.first() <= first => (part.last(), true),
                Some(part) => (part.first() - 1, false),
                None => (range.last(), false),
            };
            if is_marked {
                marked.next();
            }
            next = last.checked_add(1).filter(|next| *next <= range.last());
            Some((Range::inclusive(first, last).ok()?, is_marked))
        })
    }
}

/// The addresses that a flush reaches.
fn reach(flush: Flush) -> Range {
    match flush {
        Flush::All => Range::ALL,
        Flush::Range { range, .. } => range,
    }
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_unflushed)]
mod tests {
    use super::*;

    fn new() -> Result<Pin<KBox<Unflushed>>> {
        KBox::pin_init(Unflushed::new(), GFP_KERNEL)
    }

    fn flush(first: u64, last: u64) -> Result<Flush> {
        Ok(Flush::Range {
            range: Range::inclusive(first, last)?,
            tables: false,
        })
    }

    /// Reports what is marked of everything, and returns whether there was something.
    fn report(unflushed: &Unflushed) -> bool {
        let marks = unflushed.marks(Range::ALL);
        if let Some(marks) = &marks {
            unflushed.reported(marks);
        }
        marks.is_some()
    }

    #[test]
    fn a_flush_that_began_before_the_report_forgets_nothing() -> Result {
        let unflushed = new()?;
        assert_eq!(unflushed.watch(flush(0, 9)?, || Err(EIO)), Err(EIO));
        let reported_meanwhile = || {
            assert!(report(&unflushed));
            Ok(())
        };
        unflushed.watch(Flush::All, reported_meanwhile)?;
        assert!(unflushed.marks(Range::ALL).is_some());
        unflushed.watch(Flush::All, || Ok(()))?;
        assert!(unflushed.marks(Range::ALL).is_none());
        Ok(())
    }

    #[test]
    fn a_flush_that_began_before_another_failed_forgets_nothing() -> Result {
        let unflushed = new()?;
        let before_all = unflushed.begin();
        unflushed.failed(flush(0, 9)?);
        assert!(report(&unflushed));
        unflushed.succeeded(before_all, Flush::All);
        assert!(unflushed.marks(Range::ALL).is_some());

        let early = unflushed.begin();
        unflushed.failed(flush(5, 14)?);
        assert!(report(&unflushed));
        unflushed.succeeded(early, Flush::All);
        let marks = unflushed.marks(Range::ALL).ok_or(EINVAL)?;
        assert!(marks.set.iter().eq([Range::inclusive(0, 14)?]));
        Ok(())
    }

    /// Two queries at once: the flush of the first fails while the second is on its way.
    #[test]
    fn a_report_that_began_before_a_failure_does_not_count() -> Result {
        let unflushed = new()?;
        unflushed.failed(flush(0, 9)?);
        let seen = unflushed.marks(Range::ALL).ok_or(EINVAL)?;
        unflushed.failed(flush(0, 9)?);
        unflushed.reported(&seen);
        unflushed.succeeded(unflushed.begin(), Flush::All);
        assert!(report(&unflushed));
        // The first report counted until the flush failed.
        unflushed.failed(flush(0, 9)?);
        unflushed.succeeded(unflushed.begin(), Flush::All);
        assert!(unflushed.marks(Range::ALL).is_some());
        Ok(())
    }

    #[test]
    fn a_flush_forgets_what_it_reached() -> Result {
        let unflushed = new()?;
        unflushed.failed(flush(0, 9)?);
        unflushed.failed(flush(20, 29)?);
        assert!(report(&unflushed));
        unflushed.succeeded(unflushed.begin(), flush(5, 24)?);
        let marks = unflushed.marks(Range::ALL).ok_or(EINVAL)?;
        let left = [Range::inclusive(0, 4)?, Range::inclusive(25, 29)?];
        assert!(marks.set.iter().eq(left));
        assert!(unflushed.marks(Range::inclusive(5, 24)?).is_none());
        Ok(())
    }

    #[test]
    fn a_query_is_cut_where_marks_begin_and_end() -> Result {
        let range = |first, last| Range::inclusive(first, last);
        let unflushed = new()?;
        unflushed.failed(flush(10, 19)?);
        unflushed.failed(flush(30, u64::MAX)?);
        let cut = |asked: Range| {
            let marks = unflushed.marks(asked).ok_or(EINVAL)?;
            let mut parts = KVec::new();
            for part in marks.cut(asked) {
                parts.push(part, GFP_KERNEL)?;
            }
            Ok::<_, Error>(parts)
        };
        assert_eq!(
            &cut(Range::ALL)?[..],
            &[
                (range(0, 9)?, false),
                (range(10, 19)?, true),
                (range(20, 29)?, false),
                (range(30, u64::MAX)?, true)
            ]
        );
        assert_eq!(
            &cut(range(15, 25)?)?[..],
            &[(range(15, 19)?, true), (range(20, 25)?, false)]
        );
        assert_eq!(&cut(range(12, 12)?)?[..], &[(range(12, 12)?, true)]);
        assert!(unflushed.marks(range(20, 29)?).is_none());
        Ok(())
    }
}
