// SPDX-License-Identifier: GPL-2.0

//! Makes a sequence of steps that fails shorter: Zeller's delta debugging.

/// Returns numbers below `len` that still fail, of which none of the parts that were tried can be
/// left out; and how often it tried. `fails` says whether some of them fail; `ended` that there is
/// no more time.
pub(crate) fn shorten(
    len: usize,
    mut fails: impl FnMut(&[usize]) -> bool,
    mut ended: impl FnMut() -> bool,
) -> (Vec<usize>, usize) {
    let mut kept: Vec<usize> = (0..len).collect();
    let mut parts = 2;
    let mut tries = 0;
    while kept.len() > 1 {
        let size = kept.len().div_ceil(parts);
        let mut at = 0;
        let mut shorter = false;
        while at < kept.len() {
            if ended() {
                return (kept, tries);
            }
            let end = (at + size).min(kept.len());
            let rest: Vec<_> = kept[..at].iter().chain(&kept[end..]).copied().collect();
            tries += 1;
            if fails(&rest) {
                kept = rest;
                shorter = true;
            } else {
                at = end;
            }
        }
        if size == 1 && !shorter {
            break;
        }
        if !shorter {
            parts = (parts * 2).min(kept.len());
        }
    }
    (kept, tries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_needed() {
        let needed = [17, 18, 91];
        let all = |numbers: &[usize]| needed.iter().all(|n| numbers.contains(n));
        assert_eq!(shorten(100, all, || false).0, needed);
        // It fails without any.
        assert!(shorten(3, |_| true, || false).0.is_empty());
        assert_eq!(shorten(4, |_| false, || false).0, [0, 1, 2, 3]);
        assert_eq!(shorten(0, |_| true, || false).1, 0);
    }

    #[test]
    fn ends_when_there_is_no_more_time() {
        let mut left = 3;
        let (kept, tries) = shorten(
            100,
            |_| false,
            || {
                left -= 1;
                left < 0
            },
        );
        assert_eq!((kept.len(), tries), (100, 3));
    }
}
