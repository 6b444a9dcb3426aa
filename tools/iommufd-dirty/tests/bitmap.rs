// SPDX-License-Identifier: GPL-2.0

//! Bitmaps beside sets of numbers: the same operations on both, for ranges anywhere below 2^64,
//! pages of 4 KiB to 1 GiB.

use std::collections::BTreeSet;

use iommufd_dirty::{
    Bitmap,
    RangeError, //
};
use proptest::{
    prelude::*,
    sample::Index, //
};

/// A range: address, number and size of its pages.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    iova: u64,
    pages: u64,
    page_size: u64,
}

impl Geometry {
    fn length(self) -> u64 {
        self.pages * self.page_size
    }

    fn bitmap(self) -> Result<Bitmap, TestCaseError> {
        Bitmap::new(self.iova, self.length(), self.page_size).map_err(fail)
    }

    /// The bytes of some pages: the first, and the one behind.
    fn bytes(self, first: usize, last: usize) -> (u128, u128) {
        let at = |page: usize| u128::from(self.iova) + page as u128 * u128::from(self.page_size);
        (at(first), at(last + 1))
    }
}

fn fail(error: RangeError) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}

fn is_outside(result: Result<(), RangeError>) -> bool {
    matches!(result, Err(RangeError::Outside { .. }))
}

/// Numbers of pages around those where words and blocks of memory end.
fn counts() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 1..200u64,
        8 => (1..5u64, 0..3u64).prop_map(|(n, d)| n * 64 + d - 1),
        1 => (1..3u64, 0..3u64).prop_map(|(n, d)| n * 32_768 + d - 1),
    ]
}

fn geometry() -> impl Strategy<Value = Geometry> {
    (12..=30u32, counts(), any::<u64>(), 0..4u8).prop_map(|(shift, pages, at, kind)| {
        let page_size = 1 << shift;
        let highest = (1 << (64 - shift)) - pages;
        let iova = match kind {
            0 => 0,
            1 => highest,
            _ => at % (highest + 1),
        } << shift;
        Geometry {
            iova,
            pages,
            page_size,
        }
    })
}

#[derive(Clone, Debug)]
enum Change {
    Set(Index),
    Unset(Index),
    /// From a byte of one page to a byte of another.
    Mark(Index, Index, u64, u64),
    Clear,
    SetAll,
    /// Numbers that no page has.
    Miss(usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        4 => any::<Index>().prop_map(Change::Set),
        2 => any::<Index>().prop_map(Change::Unset),
        4 => any::<(Index, Index, u64, u64)>().prop_map(|(a, b, c, d)| Change::Mark(a, b, c, d)),
        1 => any::<usize>().prop_map(Change::Miss),
        1 => prop_oneof![Just(Change::Clear), Just(Change::SetAll)],
    ];
    proptest::collection::vec(change, 0..12)
}

/// Makes the changes to a bitmap and to a set.
fn made(place: Geometry, changes: &[Change]) -> Result<(Bitmap, BTreeSet<usize>), TestCaseError> {
    let (mut bitmap, mut set) = (place.bitmap()?, BTreeSet::new());
    let pages = place.pages as usize;
    for change in changes {
        match change {
            Change::Set(page) => {
                bitmap.set(page.index(pages));
                set.insert(page.index(pages));
            }
            Change::Unset(page) => {
                bitmap.unset(page.index(pages));
                set.remove(&page.index(pages));
            }
            Change::Mark(a, b, c, d) => {
                let (a, b) = (a.index(pages), b.index(pages));
                let first = place.bytes(a.min(b), 0).0 + u128::from(c % place.page_size);
                let last = place.bytes(a.max(b), 0).0 + u128::from(d % place.page_size);
                let last = last.max(first);
                bitmap
                    .mark(first as u64, (last - first + 1) as u64)
                    .map_err(fail)?;
                set.extend(a.min(b)..=a.max(b));
            }
            Change::Clear => {
                bitmap.clear();
                set.clear();
            }
            Change::SetAll => {
                bitmap.set_all();
                set.extend(0..pages);
            }
            Change::Miss(number) => {
                let page = pages.saturating_add(*number);
                bitmap.set(page);
                bitmap.unset(page);
                prop_assert!(!bitmap.contains(page));
            }
        }
    }
    Ok((bitmap, set))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_bitmap_is_a_set_of_pages(place in geometry(), changes in changes()) {
        let (bitmap, set) = made(place, &changes)?;
        prop_assert_eq!(bitmap.length(), place.length());
        prop_assert_eq!(bitmap.count(), set.len());
        prop_assert!(bitmap.iter().eq(set.iter().copied()));
        prop_assert_eq!(bitmap.words().count() as u64, place.pages.div_ceil(64));
        for (i, word) in bitmap.words().enumerate() {
            let bits = (0..64).filter(|bit| set.contains(&(i * 64 + bit)));
            prop_assert_eq!(word, bits.fold(0, |word, bit| word | 1 << bit));
        }
        for page in set.iter().flat_map(|page| page.saturating_sub(1)..=page + 1) {
            prop_assert_eq!(bitmap.contains(page), set.contains(&page));
        }
    }

    #[test]
    fn ranges_are_the_dirty_bytes(place in geometry(), changes in changes()) {
        let (bitmap, set) = made(place, &changes)?;
        let mut pages = BTreeSet::new();
        let mut before = None;
        for range in bitmap.ranges() {
            let (first, last) = (*range.start(), *range.end());
            prop_assert!(first >= place.iova && last - place.iova < place.length());
            prop_assert_eq!(first % place.page_size, 0);
            prop_assert_eq!(last % place.page_size, place.page_size - 1);
            // Ascending, and no two of them touch.
            prop_assert!(before.is_none_or(|before| first > before && first - before > 1));
            before = Some(last);
            let page = |iova: u64| ((iova - place.iova) / place.page_size) as usize;
            pages.extend(page(first)..=page(last));
        }
        prop_assert_eq!(pages, set);
    }

    #[test]
    fn a_merge_marks_each_page_with_a_dirty_byte(
        outer in geometry(),
        shift in 12..=30u32,
        (from, to) in any::<(Index, Index)>(),
        (mine, theirs) in (changes(), changes()),
    ) {
        // A range inside, with pages of another size where they fit.
        let length = outer.length();
        let shift = shift.min(length.trailing_zeros()).min(outer.iova.trailing_zeros());
        // 2^17 of the smallest pages take long enough.
        let shift = shift.max((length >> 17).checked_ilog2().map_or(12, |log| (log + 1).max(12)));
        prop_assume!(outer.iova % (1 << shift) == 0 && length % (1 << shift) == 0);
        let units = (length >> shift) as usize;
        let (a, b) = (from.index(units), to.index(units));
        let inner = Geometry {
            iova: outer.iova + ((a.min(b) as u64) << shift),
            pages: a.abs_diff(b) as u64 + 1,
            page_size: 1 << shift,
        };
        let (mut bitmap, mut set) = made(outer, &mine)?;
        let (other, dirty) = made(inner, &theirs)?;
        bitmap.merge(&other).map_err(fail)?;
        let (start, size) = (u128::from(outer.iova), u128::from(outer.page_size));
        let page = |byte: u128| ((byte - start) / size) as usize;
        for unit in dirty {
            let (first, behind) = inner.bytes(unit, unit);
            set.extend(page(first)..=page(behind - 1));
        }
        prop_assert!(bitmap.iter().eq(set.iter().copied()));
    }

    #[test]
    fn outside_is_refused_and_changes_nothing(
        place in geometry(), changes in changes(), iova: u64, length: u64,
    ) {
        let (mut bitmap, _) = made(place, &changes)?;
        let before = bitmap.clone();
        let end = place.bytes(0, place.pages as usize - 1).1;
        let inside = length == 0
            || iova >= place.iova && u128::from(iova) + u128::from(length) <= end;
        if !inside {
            prop_assert_eq!(bitmap.mark(iova, length), Err(RangeError::Outside { iova, length }));
        }
        // One page more, on either side.
        if let Some(iova) = place.iova.checked_sub(place.page_size) {
            let other = Geometry { iova, ..place }.bitmap()?;
            prop_assert!(is_outside(bitmap.merge(&other)));
        }
        let more = Geometry { pages: place.pages + 1, ..place };
        if let Ok(other) = Bitmap::new(more.iova, more.length(), more.page_size) {
            prop_assert!(is_outside(bitmap.merge(&other)));
        }
        prop_assert!(bitmap == before);
    }

    #[test]
    fn only_whole_pages_below_the_end_are_taken(
        (iova, length, page_size) in (near(), near(), near()),
    ) {
        let big = |number: u64| u128::from(number);
        let good = page_size.is_power_of_two() && page_size >= 4096;
        let whole = good && length > 0 && iova % page_size == 0 && length % page_size == 0;
        let below = big(iova) + big(length) <= 1 << 64;
        let pages = length.checked_div(page_size).unwrap_or(0);
        // Larger ones only take memory.
        prop_assume!(!(whole && below) || pages <= 1 << 20 || pages > Bitmap::MAX_PAGES as u64);
        let short = pages <= Bitmap::MAX_PAGES as u64;
        let made = Bitmap::new(iova, length, page_size);
        match &made {
            Ok(bitmap) => prop_assert_eq!(
                (bitmap.iova(), bitmap.length(), bitmap.page_size(), bitmap.pages() as u64),
                (iova, length, page_size, pages)
            ),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
        prop_assert_eq!(made.is_ok(), whole && below && short, "{:?}", made);
    }

    #[test]
    fn a_range_moves_to_where_it_fits(place in geometry(), changes in changes(), to in near()) {
        let (mut bitmap, set) = made(place, &changes)?;
        let fits = to % place.page_size == 0
            && u128::from(to) + u128::from(place.length()) <= 1 << 64;
        prop_assert_eq!(bitmap.move_to(to).is_ok(), fits);
        prop_assert_eq!(bitmap.iova(), if fits { to } else { place.iova });
        prop_assert!(bitmap.iter().eq(set.iter().copied()));
    }
}

/// Numbers around powers of two and sums of two of them.
fn near() -> impl Strategy<Value = u64> {
    (0..64u32, 0..64u32, 0..3u64, any::<bool>()).prop_map(|(a, b, delta, both)| {
        let number = 1u64 << a | if both { 1 << b } else { 0 };
        number.wrapping_add(delta).wrapping_sub(1)
    })
}

#[test]
fn a_bitmap_has_a_limit() {
    let most = Bitmap::MAX_PAGES as u64;
    assert_eq!(
        Bitmap::new(0, (most + 1) << 12, 4096),
        Err(RangeError::TooLong(most + 1))
    );
    // All addresses but the last page, in pages of 1 GiB and of 8 TiB.
    assert_eq!(
        Bitmap::new(0, u64::MAX << 30, 1 << 30),
        Err(RangeError::TooLong((1 << 34) - 1))
    );
    let pages = Bitmap::new(0, u64::MAX << 43, 1 << 43).map(|all| all.pages());
    assert_eq!(pages, Ok((1 << 21) - 1));
}
