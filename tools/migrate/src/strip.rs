// SPDX-License-Identifier: GPL-2.0

//! A picture of a bitmap that fits into a line.

use iommufd_dirty::Bitmap;

/// From no page of a cell to all of them.
const BLOCKS: [char; 9] = ['·', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws the bitmap in `cells` characters, the higher the more of the cell's pages it holds.
///
/// The scale is logarithmic, so that a single page can be told from none and from a few.
pub(crate) fn strip(bitmap: &Bitmap, cells: usize) -> String {
    let pages = bitmap.pages();
    let cells = cells.min(pages);
    (0..cells)
        .map(|cell| {
            let range = cell * pages / cells..(cell + 1) * pages / cells;
            let all = range.len();
            height(range.filter(|&page| bitmap.contains(page)).count(), all)
        })
        .map(|height| BLOCKS.get(height).copied().unwrap_or(' '))
        .collect()
}

/// How high a cell with `count` of `all` pages is: 0 without a page, 8 with all.
fn height(count: usize, all: usize) -> usize {
    match count {
        0 => 0,
        n if n >= all => 8,
        // CAST: Page counts are exact enough in a float, and the result is from 1 to 7.
        n => 1 + (((n as f64).ln() / (all as f64).ln()) * 7.0) as usize,
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;
    use crate::bitmap_of;

    #[test]
    fn shows_where_pages_are() {
        assert_eq!(
            strip(&bitmap_of(64, iter::once(0).chain(16..36)), 4),
            "▁█▄·"
        );
        assert_eq!(strip(&bitmap_of(3, 0..3), 10), "███");
        assert_eq!(strip(&bitmap_of(1000, []), 7), "·······");
    }

    #[test]
    fn heights_stay_inside_and_grow() {
        for all in 1..300 {
            let heights: Vec<_> = (0..=all).map(|count| height(count, all)).collect();
            assert!(heights.is_sorted());
            assert_eq!((heights[0], heights[all]), (0, 8));
        }
    }
}
