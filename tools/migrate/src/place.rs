// SPDX-License-Identifier: GPL-2.0

//! Where the device sees the memory: at one place to begin with, at others once it writes.
//!
//! The same memory may be mapped at several IOVAs (`--iova`). The device writes at all of them in
//! turn, and the IOMMU's reports on all of them are one report. Page tables that are too small for
//! a new place have to grow while the device uses them.

use std::sync::{
    Mutex,
    MutexGuard,
    PoisonError, //
};

use anyhow::{
    bail,
    ensure,
    Result, //
};

use crate::{
    cli::{
        show_size,
        Options, //
    },
    device::Model,
};

/// Where the device sees its window.
pub(crate) const WINDOW_IOVA: u64 = 1 << 20;
/// Where it sees the memory to migrate: behind the interrupt window of x86, or as low as a device with a
/// short reach needs it.
const MEMORY_IOVA: u64 = 4 << 30;
const MEMORY_IOVA_LOW: u64 = 32 << 20;

/// Chooses where the device sees a memory of `size` bytes: at the first place from the beginning, at
/// the others later.
///
/// # Errors
///
/// The device does not reach so far, or what was asked for does not go together.
pub(crate) fn choose(options: &Options, size: usize, model: &Model) -> Result<Vec<u64>> {
    let size = size as u64;
    let last = model.last_iova;
    let fits = |iova: u64| {
        iova.checked_add(size - 1)
            .is_some_and(|memory_last| memory_last <= last)
    };
    let Some(first) = [MEMORY_IOVA, MEMORY_IOVA_LOW]
        .into_iter()
        .find(|&iova| fits(iova))
    else {
        bail!(
            "{} cannot reach {} of memory; use at most --size {} with it",
            model.name,
            show_size(size),
            show_size((last + 1).saturating_sub(MEMORY_IOVA_LOW))
        );
    };
    let mut places = vec![first];
    for &iova in &options.iova {
        ensure!(
            iova % options.page_size.bytes() == 0,
            "--iova {iova:#x} is not a multiple of --page-size {}",
            options.page_size.name()
        );
        ensure!(
            fits(iova),
            "{} cannot reach --iova {iova:#x}: its addresses end at {last:#x}",
            model.name
        );
        ensure!(
            iova >= WINDOW_IOVA + model.window_size as u64
                && places.iter().all(|place| place.abs_diff(iova) >= size),
            "--iova {iova:#x} overlaps what the device sees already; use one from {:#x} on",
            first + size
        );
        places.push(iova);
    }
    Ok(places)
}

/// One place, and how many writes the device has made there.
struct Place {
    iova: u64,
    writes: u64,
}

/// All places, and whose turn it is.
struct State {
    places: Vec<Place>,
    turn: usize,
}

/// The places at which the device writes, shared by the two threads.
pub(crate) struct Places {
    state: Mutex<State>,
}

impl Places {
    /// One place.
    pub(crate) fn new(iova: u64) -> Self {
        Self {
            state: Mutex::new(State {
                places: vec![Place { iova, writes: 0 }],
                turn: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Consistent between any two statements below: a panic elsewhere spoils nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a place, at which the memory is mapped.
    pub(crate) fn add(&self, iova: u64) {
        self.lock().places.push(Place { iova, writes: 0 });
    }

    /// The place for the next writes: each in turn.
    pub(crate) fn next(&self) -> u64 {
        let mut state = self.lock();
        state.turn = (state.turn + 1) % state.places.len();
        state.places.get(state.turn).map_or(0, |place| place.iova)
    }

    /// The device has made so many writes at a place.
    pub(crate) fn count(&self, iova: u64, writes: u64) {
        let mut state = self.lock();
        if let Some(place) = state.places.iter_mut().find(|place| place.iova == iova) {
            place.writes += writes;
        }
    }

    /// The writes that it has made where it made the fewest.
    pub(crate) fn fewest(&self) -> u64 {
        let state = self.lock();
        state
            .places
            .iter()
            .map(|place| place.writes)
            .min()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::device::MODELS;

    const SIZE: usize = 64 << 20;

    fn chosen(words: &[&str]) -> Result<Vec<u64>> {
        let options = Options::try_parse_from([&["x"], words].concat())?;
        choose(&options, SIZE, &MODELS[0])
    }

    #[test]
    fn a_second_place_is_checked() -> Result<()> {
        assert_eq!(chosen(&[])?, [MEMORY_IOVA]);
        assert_eq!(chosen(&["--iova", "512G"])?, [MEMORY_IOVA, 512 << 30]);
        assert_eq!(
            chosen(&["--iova", "0x8000000000", "--iova", "16M"])?,
            [MEMORY_IOVA, 512 << 30, 16 << 20]
        );
        for (words, error) in [
            (&["--iova", "4097"][..], "not a multiple"),
            (&["--iova", "4100M"], "overlaps"),
            (&["--iova", "4032M", "--iova", "4040M"], "overlaps"),
            (&["--iova", "1M"], "overlaps"),
            (&["--iova", "0xfffffffffffff000"], "cannot reach"),
        ] {
            let said = chosen(words)
                .err()
                .map(|e| e.to_string())
                .unwrap_or_default();
            assert!(said.contains(error), "{words:?}: {said}");
        }
        Ok(())
    }

    #[test]
    fn places_take_turns() {
        let places = Places::new(1);
        assert_eq!((places.next(), places.next()), (1, 1));
        places.count(1, 8);
        places.add(2);
        assert_eq!((places.next(), places.next(), places.next()), (2, 1, 2));
        assert_eq!(places.fewest(), 0);
        places.count(2, 12);
        assert_eq!(places.fewest(), 8);
    }
}
