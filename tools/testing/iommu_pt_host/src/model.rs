// SPDX-License-Identifier: GPL-2.0

//! A page table as a plain map. It knows leaves and address spaces, but no tables.

use crate::{
    error::{
        code::*,
        Error, //
    },
    pt::{
        Iova,
        PhysAddr,
        Prot, //
    }, //
};
use std::collections::BTreeMap;

/// A leaf, without the details of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Output address of its first byte.
    pub phys: PhysAddr,
    /// Binary logarithm of its size.
    pub lg2: u32,
    /// Its permissions.
    pub prot: Prot,
    /// Whether a device has written through it since it was last clean.
    pub dirty: bool,
}

impl Leaf {
    /// Its size less one.
    pub fn span(&self) -> u64 {
        (1 << self.lg2) - 1
    }
}

/// Runs of addresses, ascending: first and last of each.
pub type Runs = Vec<(Iova, Iova)>;

/// Joins runs that touch; panics if they are not ascending.
pub fn joined(runs: &[(Iova, Iova)]) -> Runs {
    let mut joined: Runs = Vec::new();

    for (first, last) in runs {
        assert!(first <= last, "a run that ends before it begins");
        match joined.last_mut() {
            Some(run) if run.1 >= *first => panic!("runs are not ascending: {runs:x?}"),
            Some(run) if run.1 + 1 == *first => run.1 = *last,
            _ => joined.push((*first, *last)),
        }
    }
    joined
}

/// The expected content of a page table.
#[derive(Clone, Debug)]
pub struct Model {
    /// The leaves by their first address.
    pub leaves: BTreeMap<Iova, Leaf>,
    /// Binary logarithms of the sizes that may be used.
    pub sizes: Vec<u32>,
    /// The input addresses, first and last.
    pub apertures: Vec<(Iova, Iova)>,
    /// The last output address.
    pub output_last: PhysAddr,
}

impl Model {
    /// The leaf that covers `iova`.
    pub fn find(&self, iova: Iova) -> Option<(Iova, Leaf)> {
        let (first, leaf) = self.leaves.range(..=iova).next_back()?;

        (iova - first <= leaf.span()).then_some((*first, *leaf))
    }

    /// Whether a range lies in one of the apertures.
    pub fn is_inside(&self, first: Iova, last: Iova) -> bool {
        self.apertures
            .iter()
            .any(|aperture| aperture.0 <= first && last <= aperture.1)
    }

    fn is_free(&self, first: Iova, last: Iova) -> bool {
        self.leaves
            .range(..=last)
            .next_back()
            .is_none_or(|(other, leaf)| other + leaf.span() < first)
    }

    /// Maps as much as `enough` bytes of it, in the largest leaves that fit.
    ///
    /// Returns how many bytes were mapped and how it ended. Beyond `enough` memory has run out;
    /// it must end where a leaf ends.
    pub fn map(
        &mut self,
        (first, last): (Iova, Iova),
        phys: PhysAddr,
        prot: Option<Prot>,
        enough: u64,
    ) -> (u64, Result<(), Error>) {
        let smallest = (1 << self.sizes[0]) - 1;
        let Some(phys_last) = phys.checked_add(last - first) else {
            return (0, Err(ERANGE));
        };
        let Some(prot) = prot else {
            return (0, Err(EINVAL));
        };

        if !self.is_inside(first, last) || phys_last > self.output_last {
            return (0, Err(ERANGE));
        }
        if (first | phys | last.wrapping_add(1)) & smallest != 0 {
            return (0, Err(EINVAL));
        }

        let mut done = 0;

        loop {
            let (iova, phys) = (first + done, phys + done);
            let left = last - iova;
            let fits = |lg2: &&u32| {
                let span = (1 << **lg2) - 1;

                (iova | phys) & span == 0 && left >= span
            };
            let leaf = Leaf {
                phys,
                lg2: *self.sizes.iter().rev().find(fits).unwrap(),
                prot,
                dirty: false,
            };

            if done >= enough {
                assert_eq!(done, enough, "the end is not that of a leaf");
                return (done, Err(ENOMEM));
            }
            if !self.is_free(iova, iova + leaf.span()) {
                return (done, Err(EADDRINUSE));
            }
            self.leaves.insert(iova, leaf);
            done += leaf.span() + 1;
            if leaf.span() == left {
                return (done, Ok(()));
            }
        }
    }

    /// Unmaps whole leaves up to the first hole; returns how many bytes.
    pub fn unmap(&mut self, (first, last): (Iova, Iova)) -> u64 {
        let mut done = 0;

        if !self.is_inside(first, last) {
            return 0;
        }
        while let Some(leaf) = self.leaves.remove(&(first + done)) {
            done += leaf.span() + 1;
            if done > last - first {
                break;
            }
        }
        done
    }

    /// What an address translates to.
    pub fn translate(&self, iova: Iova) -> Option<PhysAddr> {
        self.find(iova)
            .map(|(first, leaf)| leaf.phys + (iova - first))
    }

    /// An access of a device; returns whether it is allowed.
    pub fn access(&mut self, iova: Iova, write: bool) -> bool {
        let needed = if write { Prot::WRITE } else { Prot::READ };
        let Some((first, leaf)) = self.find(iova) else {
            return false;
        };

        if leaf.prot.contains(needed) {
            self.leaves.insert(
                first,
                Leaf {
                    dirty: leaf.dirty || write,
                    ..leaf
                },
            );
        }
        leaf.prot.contains(needed)
    }

    /// The dirty runs of a query, and the leaves that become clean.
    pub fn harvest(&mut self, (first, last): (Iova, Iova), clear: bool) -> (Runs, Runs) {
        let from = self.find(first).map_or(first, |(start, _)| start);
        let (mut runs, mut cleaned) = (Runs::new(), Runs::new());

        for (start, leaf) in self.leaves.range_mut(from..=last) {
            let leaf_run = (*start, start + leaf.span());
            let part = (leaf_run.0.max(first), leaf_run.1.min(last));

            if !leaf.dirty {
                continue;
            }
            runs.push(part);
            if clear && part == leaf_run {
                leaf.dirty = false;
                cleaned.push(leaf_run);
            }
        }
        (joined(&runs), cleaned)
    }
}
