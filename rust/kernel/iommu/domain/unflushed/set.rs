// SPDX-License-Identifier: GPL-2.0

//! A few ranges of addresses, which need no allocation.
//!
//! Pure: depends on `core`, the kernel's error type and [`Range`] only.

use kernel::prelude::*;

use super::super::super::pt::{
    Iova,
    Range, //
};

/// How many ranges are told apart. User space asks for one range at a time, mostly a bank of a
/// guest's memory, so that a handful is enough.
const MOST: usize = 8;

/// A set of addresses: up to [`MOST`] ranges.
///
/// # Invariants
///
/// The first `len` of `ranges` are ascending; between two of them there is at least one address. At
/// most [`MOST`] are in use, except within a method.
#[derive(Clone, Copy)]
pub(super) struct RangeSet {
    /// One more than there may be, for the time before two are joined.
    ranges: [(Iova, Iova); MOST + 1],
    len: usize,
}

impl RangeSet {
    /// No address.
    // INVARIANT: There is no range.
    pub(super) const EMPTY: Self = Self {
        ranges: [(0, 0); MOST + 1],
        len: 0,
    };

    /// Whether there is no address.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The ranges, in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        let ranges = self.ranges.iter().take(self.len);
        ranges.filter_map(|(first, last)| Range::inclusive(*first, *last).ok())
    }

    /// What lies in `window` as well, in ascending order.
    pub(super) fn within(&self, window: Range) -> impl Iterator<Item = Range> + '_ {
        self.iter().filter_map(move |range| {
            let first = range.first().max(window.first());
            Range::inclusive(first, range.last().min(window.last())).ok()
        })
    }

    /// Adds a range behind all others.
    fn push(&mut self, first: Iova, last: Iova) {
        // INVARIANT: The caller goes through in order, and has joined what touches.
        if let Some(place) = self.ranges.get_mut(self.len) {
            *place = (first, last);
            self.len += 1;
        }
    }

    /// The same with the addresses of `new`, perhaps one range more than there may be.
    fn with(&self, new: Range) -> Self {
        let (mut first, mut last) = (new.first(), new.last());
        let mut all = Self::EMPTY;
        let mut rest = self.iter().peekable();

        while let Some(range) = rest.next_if(|range| is_apart(range.last(), first)) {
            all.push(range.first(), range.last());
        }
        while let Some(range) = rest.next_if(|range| !is_apart(last, range.first())) {
            first = first.min(range.first());
            last = last.max(range.last());
        }
        all.push(first, last);
        for range in rest {
            all.push(range.first(), range.last());
        }
        all
    }

    /// Adds a range, and nothing else.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there is no room; nothing has changed then.
    pub(super) fn insert(&mut self, new: Range) -> Result {
        let all = self.with(new);
        if all.len > MOST {
            return Err(ENOSPC);
        }
        // INVARIANT: Just checked.
        *self = all;
        Ok(())
    }

    /// Adds a range. If there is no room, the two that are nearest to each other become one, with
    /// all that lies between them.
    pub(super) fn insert_around(&mut self, new: Range) {
        *self = self.with(new);
        if self.len <= MOST {
            return;
        }
        let gap = |at: &usize| self.ranges[at + 1].0 - self.ranges[*at].1;
        if let Some(at) = (0..MOST).min_by_key(gap) {
            // INVARIANT: One less, still in order and apart.
            self.ranges[at].1 = self.ranges[at + 1].1;
            self.ranges.copy_within(at + 2.., at + 1);
            self.len -= 1;
        }
    }

    /// Removes a range, and nothing else.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there is no room for the two parts of a range that it splits; nothing has
    /// changed then.
    pub(super) fn remove(&mut self, gone: Range) -> Result {
        let mut left = Self::EMPTY;
        for range in self.iter() {
            if range.first() < gone.first() {
                left.push(range.first(), range.last().min(gone.first() - 1));
            }
            if range.last() > gone.last() {
                left.push(range.first().max(gone.last() + 1), range.last());
            }
        }
        if left.len > MOST {
            return Err(ENOSPC);
        }
        // INVARIANT: Just checked; what is left of ranges that were apart is.
        *self = left;
        Ok(())
    }
}

/// Whether there is an address between `last` and `first`, which are in this order then.
fn is_apart(last: Iova, first: Iova) -> bool {
    last.checked_add(1).is_some_and(|next| next < first)
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_range_set)]
mod tests {
    use super::*;

    fn range(first: Iova, last: Iova) -> Result<Range> {
        Range::inclusive(first, last)
    }

    fn is(set: &RangeSet, ranges: &[(Iova, Iova)]) -> bool {
        set.iter()
            .map(|range| (range.first(), range.last()))
            .eq(ranges.iter().copied())
    }

    #[test]
    fn ranges_that_touch_are_one() -> Result {
        let mut set = RangeSet::EMPTY;
        assert!(set.is_empty());
        for (first, last) in [(10, 19), (40, 49), (0, 3)] {
            set.insert(range(first, last)?)?;
        }
        assert!(is(&set, &[(0, 3), (10, 19), (40, 49)]));
        set.insert(range(20, 29)?)?;
        set.insert(range(5, 8)?)?;
        assert!(is(&set, &[(0, 3), (5, 8), (10, 29), (40, 49)]));
        set.insert(range(4, 45)?)?;
        assert!(is(&set, &[(0, 49)]));
        set.insert(range(Iova::MAX, Iova::MAX)?)?;
        set.insert(range(100, Iova::MAX)?)?;
        assert!(is(&set, &[(0, 49), (100, Iova::MAX)]));
        assert!(set
            .within(range(40, 120)?)
            .eq([range(40, 49)?, range(100, 120)?]));
        set.insert(Range::ALL)?;
        assert!(is(&set, &[(0, Iova::MAX)]));
        Ok(())
    }

    #[test]
    fn what_is_removed_is_gone_and_nothing_else() -> Result {
        let mut set = RangeSet::EMPTY;
        set.insert(Range::ALL)?;
        set.remove(range(10, 19)?)?;
        assert!(is(&set, &[(0, 9), (20, Iova::MAX)]));
        set.remove(range(0, 4)?)?;
        set.remove(range(30, Iova::MAX)?)?;
        assert!(is(&set, &[(5, 9), (20, 29)]));
        set.remove(range(9, 20)?)?;
        assert!(is(&set, &[(5, 8), (21, 29)]));
        set.remove(range(9, 20)?)?;
        assert!(is(&set, &[(5, 8), (21, 29)]));
        set.remove(Range::ALL)?;
        assert!(set.is_empty());
        Ok(())
    }

    /// One range less than there may be: of eight, each 16 behind the one before, the fourth is
    /// moved to the third, and the two become one.
    fn nearly_full() -> Result<RangeSet> {
        let mut set = RangeSet::EMPTY;
        for index in 0..MOST as Iova {
            let first = if index == 3 { 34 } else { 16 * index };
            set.insert(range(first, first + 3)?)?;
        }
        Ok(set)
    }

    #[test]
    fn without_room_the_nearest_are_joined() -> Result {
        // 0-3, 16-19, 32-37, 64-67 and so on: there is room for one more.
        let mut set = nearly_full()?;
        set.insert(range(200, 203)?)?;
        let before = set;
        // Inserting exactly fails, and changes nothing.
        assert_eq!(set.insert(range(72, 73)?), Err(ENOSPC));
        assert!(set.iter().eq(before.iter()));
        set.insert_around(range(72, 73)?);
        assert_eq!(set.iter().count(), MOST);
        assert!(set
            .iter()
            .any(|part| part == Range::inclusive(64, 73).unwrap_or(Range::ALL)));
        // Every address of before is still there.
        for part in before.iter() {
            assert!(set.within(part).eq([part]));
        }
        Ok(())
    }

    #[test]
    fn without_room_nothing_is_split() -> Result {
        let mut set = nearly_full()?;
        set.insert(range(200, 203)?)?;
        let before = set;
        assert_eq!(set.remove(range(201, 202)?), Err(ENOSPC));
        assert!(set.iter().eq(before.iter()));
        set.remove(range(200, 202)?)?;
        set.remove(range(0, 31)?)?;
        set.remove(range(65, 66)?)?;
        assert!(set
            .within(range(60, 70)?)
            .eq([range(64, 64)?, range(67, 67)?]));
        Ok(())
    }
}
