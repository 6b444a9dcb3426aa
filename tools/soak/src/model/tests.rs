// SPDX-License-Identifier: GPL-2.0

//! The model against a made-up IOMMU, which is right or has a bug.

use super::*;
use crate::random::Random;

const PAGES: usize = 64;
const TABLES: usize = 3;
const SMALL: Leaves = Leaves {
    pages: 1,
    splits: false,
};
const LARGE: Leaves = Leaves {
    pages: 8,
    splits: false,
};
const SPLIT: Leaves = Leaves {
    splits: true,
    ..LARGE
};

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// A page that is written again after its report, without a flush, is not dirty.
    NoFlush,
    /// The last page of a report is left out.
    NoLast,
    /// A query that is not to clear does.
    Clears,
    /// A query of a part of a leaf cleans all of it.
    NotClipped,
    /// What was written through the old table is forgotten by a move.
    Forgets,
    /// A device that is attached to a table that tracks is not tracked.
    Untracked,
    /// A query reports one page too many.
    TooMuch,
    /// A write goes elsewhere while the device moves.
    Astray,
}

struct Fake {
    bug: Bug,
    leaves: Leaves,
    /// Of each table, the first pages of leaves that are split.
    split: Vec<Bits>,
    dirty: Vec<Bits>,
    cached: Vec<Bits>,
    tracking: [bool; TABLES],
    via: [Option<usize>; 2],
    seen: [bool; 2],
    memory: Vec<[u64; 2]>,
    counters: [u64; 2],
    failed: [u64; 2],
    seeds: [u64; 2],
}

impl Fake {
    /// The leaf of a page, or what it has become.
    fn leaf_of(&self, table: usize, page: usize) -> Range<usize> {
        let first = page / self.leaves.pages * self.leaves.pages;
        match self.split[table].get(first) {
            true => page..page + 1,
            false => first..first + self.leaves.pages,
        }
    }

    /// Makes pages clean that have been reported. Until they are flushed, a write through what is
    /// cached is covered by this report.
    fn clean(&mut self, table: usize, pages: Range<usize>) {
        for page in pages {
            self.dirty[table].unset(page);
            if self.bug != Bug::NoFlush {
                self.cached[table].unset(page);
            }
        }
    }

    fn write(&mut self, device: usize, random: &mut Random, model: &mut Model) -> Result<()> {
        for _ in 0..random.below(6) {
            self.counters[device] += 1;
            let number = self.counters[device];
            let page = page_of(self.seeds[device], number, PAGES);
            let Some(table) = self.via[device] else {
                self.failed[device] += 1;
                continue;
            };
            self.memory[page] = words_of(self.seeds[device], number);
            let leaf = self.leaf_of(table, page);
            let ignored = self.bug == Bug::NoFlush && self.cached[table].get(leaf.start);
            if self.tracking[table] && self.seen[device] && !ignored {
                for page in leaf {
                    self.dirty[table].set(page);
                    self.cached[table].set(page);
                }
            }
        }
        model.advance(device, self.counters[device], self.failed[device])
    }
}

/// Plays some hundred events; the error is what the model has noticed.
fn play(bug: Bug, leaves: Leaves, seed: u64) -> Result<()> {
    let mut random = Random::new(seed);
    let mut model = Model::new(TABLES, 2, PAGES, leaves, PAGES);
    let mut fake = Fake {
        bug,
        leaves,
        split: vec![Bits::new(PAGES); TABLES],
        dirty: vec![Bits::new(PAGES); TABLES],
        cached: vec![Bits::new(PAGES); TABLES],
        tracking: [false; TABLES],
        via: [None; 2],
        seen: [true; 2],
        memory: vec![[0; 2]; PAGES],
        counters: [0; 2],
        failed: [0; 2],
        seeds: [random.next(), random.next()],
    };
    for device in 0..2 {
        model.start(device, fake.seeds[device]);
    }
    for _ in 0..600 {
        let table = random.below(TABLES);
        let device = random.below(2);
        fake.write(device, &mut random, &mut model)?;
        match random.below(8) {
            0 => {
                let on = random.below(4) > 0;
                let switch = model.begin_tracking(table, on);
                fake.write(device, &mut random, &mut model)?;
                fake.tracking[table] = on;
                fake.dirty[table].clear();
                fake.cached[table].clear();
                fake.split[table].clear();
                fake.write(device, &mut random, &mut model)?;
                model.end_tracking(table, on, true, switch);
            }
            1 | 2 => {
                let to = (random.below(4) > 0).then_some(table);
                assert!(model.begin_move(device, to));
                fake.write(device, &mut random, &mut model)?;
                if let (Bug::Forgets, Some(old)) = (bug, fake.via[device]) {
                    fake.dirty[old].clear();
                }
                let old = fake.via[device];
                fake.via[device] = to;
                if bug == Bug::Untracked && old != to {
                    fake.seen[device] = false;
                }
                if bug == Bug::Astray {
                    let dirty = fake.dirty.clone();
                    fake.write(device, &mut random, &mut model)?;
                    fake.dirty = dirty;
                }
                fake.write(device, &mut random, &mut model)?;
                model.end_move(device, true, |page| Ok(fake.memory[page]))?;
            }
            _ => query(&mut fake, table, device, &mut random, &mut model)?,
        }
    }
    for page in 0..PAGES {
        model.check_page(page, fake.memory[page])?;
    }
    Ok(())
}

fn query(
    fake: &mut Fake,
    table: usize,
    device: usize,
    random: &mut Random,
    model: &mut Model,
) -> Result<()> {
    let first = random.below(PAGES);
    let pages = match random.below(3) {
        0 => 0..PAGES,
        _ => first..first + 1 + random.below(PAGES - first),
    };
    let clear = random.below(3) > 0;
    model.begin_query(table, pages.clone());
    fake.write(device, random, model)?;
    let mut report = Bits::new(PAGES);
    let mut last = None;
    for page in pages.clone() {
        if fake.dirty[table].get(page) {
            report.set(page);
            last = Some(page);
        }
    }
    for first in (0..PAGES).step_by(fake.leaves.pages) {
        let leaf = first..first + fake.leaves.pages;
        let whole = pages.start <= leaf.start && leaf.end <= pages.end;
        let clears = clear || fake.bug == Bug::Clears;
        if !report.any_in(leaf.clone()) || !clears {
            continue;
        }
        if whole || fake.bug == Bug::NotClipped {
            fake.clean(table, leaf);
        } else if fake.leaves.splits {
            fake.clean(table, leaf.start.max(pages.start)..leaf.end.min(pages.end));
        }
        if fake.leaves.splits {
            fake.split[table].set(first);
        }
    }
    match (fake.bug, last) {
        (Bug::NoLast, Some(last)) => report.unset(last),
        (Bug::TooMuch, _) => report.set(pages.start),
        _ => {}
    }
    fake.write(device, random, model)?;
    let query = Query {
        pages,
        unit: 1,
        clear,
        failed: false,
        loose: false,
    };
    model.end_query(table, &query, &report).map(|_| ())
}

#[test]
fn accepts_what_is_right() -> Result<()> {
    for seed in 0..60 {
        play(Bug::None, SMALL, seed)?;
        play(Bug::None, LARGE, seed)?;
        play(Bug::None, SPLIT, seed)?;
    }
    Ok(())
}

#[test]
fn notices_each_bug() {
    for bug in [
        Bug::NoFlush,
        Bug::NoLast,
        Bug::Clears,
        Bug::Forgets,
        Bug::Untracked,
        Bug::TooMuch,
        Bug::Astray,
    ] {
        for leaves in [SMALL, SPLIT] {
            assert!(
                (0..20).any(|seed| play(bug, leaves, seed).is_err()),
                "{bug:?} is not noticed with {leaves:?}"
            );
        }
    }
    for leaves in [LARGE, SPLIT] {
        assert!((0..20).any(|seed| play(Bug::NotClipped, leaves, seed).is_err()));
    }
}

#[test]
fn writes_that_fail_without_a_reason_are_noticed() {
    let mut model = Model::new(1, 1, PAGES, SMALL, PAGES);
    model.start(0, 1);
    assert!(model.advance(0, 3, 3).is_ok());
    assert!(model.begin_move(0, Some(0)) && !model.begin_renew(0));
    assert!(model.end_move(0, true, |_| Ok([0; 2])).is_ok());
    assert!(model.advance(0, 9, 3).is_ok());
    assert!(model.advance(0, 10, 4).is_err());
}

#[test]
fn nothing_is_asked_of_pages_that_were_unmapped() -> Result<()> {
    let mut model = Model::new(1, 1, PAGES, SMALL, PAGES);
    model.start(0, 1);
    model.begin_move(0, Some(0));
    model.end_move(0, true, |_| Ok([0; 2]))?;
    let switch = model.begin_tracking(0, true);
    model.end_tracking(0, true, true, switch);
    model.advance(0, 100, 0)?;
    model.begin_hole(0..PAGES);
    model.end_hole(0..PAGES);
    let query = Query {
        pages: 0..PAGES,
        unit: 1,
        clear: true,
        failed: false,
        loose: false,
    };
    model.begin_query(0, 0..PAGES);
    model.end_query(0, &query, &Bits::new(PAGES))?;
    model.advance(0, 200, 0)?;
    model.begin_query(0, 0..PAGES);
    assert!(model.end_query(0, &query, &Bits::new(PAGES)).is_err());
    Ok(())
}
