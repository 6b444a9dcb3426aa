// SPDX-License-Identifier: GPL-2.0

//! Migrations of a memory, a device and an IOMMU that are all made up: each way in which an IOMMU
//! driver can lose a page has to be seen.

use std::cell::RefCell;

use anyhow::bail;

use super::*;
use crate::{
    bitmap_of,
    pattern::{
        Pattern,
        Write, //
    },
};

const PAGES: usize = 256;
const LIMITS: Limits = Limits {
    threshold: 4,
    rounds: 10,
    bandwidth: None,
    wait: Duration::from_secs(20),
};

/// What is wrong with the IOMMU.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// It forgets to report one page, once.
    Forgets(usize),
    /// Its dirty bits are cleared, but not its cache of which pages are dirty already.
    NeverFlushes,
    /// It clears the dirty bits when it has been read, with all that was set meanwhile.
    ClearsTooLate,
    /// It reports whole leaves of 32 pages.
    LargeLeaves,
    /// It reports nothing at all.
    Blind,
    /// Its second reading fails.
    Fails,
    /// The device fails when it is looked at.
    Breaks,
}

/// Memory, device and IOMMU in one: each page copied lets the device make some more writes.
struct World {
    memory: Vec<u8>,
    dirty: Bitmap,
    cached: Bitmap,
    tracking: bool,
    fault: Fault,
    readings: usize,
    running: bool,
    /// Writes made per page copied, in sixteenths.
    rate: usize,
    credit: usize,
    /// Writes that it makes while the migration waits for it, one a look.
    late: usize,
    pattern: Pattern,
}

struct Fake {
    world: RefCell<World>,
    truth: Truth,
}

impl Fake {
    fn new(fault: Fault) -> Self {
        Self {
            world: RefCell::new(World {
                memory: vec![0x55; PAGES * PAGE_SIZE],
                dirty: bitmap_of(PAGES, []),
                cached: bitmap_of(PAGES, []),
                tracking: false,
                fault,
                readings: 0,
                running: true,
                rate: 4,
                credit: 0,
                late: 0,
                pattern: Pattern::new(7, PAGES * PAGE_SIZE),
            }),
            truth: Truth::new(bitmap_of(PAGES, [])),
        }
    }

    /// Lets the device work for a while.
    fn tick(&self) {
        let mut world = self.world.borrow_mut();
        if !world.running {
            return;
        }
        world.credit += world.rate;
        while world.credit >= 16 {
            world.credit -= 16;
            world.make_one(&self.truth);
        }
    }

    /// A device that writes nothing while pages are copied, and `late` times when that is waited for.
    fn slow(fault: Fault, late: usize) -> Self {
        let fake = Self::new(fault);
        fake.world.borrow_mut().rate = 0;
        fake.world.borrow_mut().late = late;
        fake
    }

    fn migrate(&self, limits: &Limits) -> Result<Outcome> {
        self.watched(limits, &mut Watcher::default())
    }

    fn watched(&self, limits: &Limits, observer: &mut Watcher) -> Result<Outcome> {
        migrate(PAGES, &self, &mut &*self, &mut &*self, limits, observer)
    }
}

impl World {
    fn make_one(&mut self, truth: &Truth) {
        let write = self.pattern.next(&[], &(64..=512));
        truth.begin(write.pages());
        self.write(&write);
        truth.end(1);
    }

    fn write(&mut self, write: &Write) {
        self.memory[write.offset..write.offset + write.data.len()].copy_from_slice(&write.data);
        if !self.tracking {
            return;
        }
        for page in write.pages() {
            // Hardware sets the bit only on the first write through a translation.
            if !self.cached.contains(page) {
                self.cached.set(page);
                self.dirty.set(page);
            }
        }
    }
}

impl Source for &Fake {
    fn read(&self, page: usize, to: &mut [u8; PAGE_SIZE]) -> Result<()> {
        let at = page * PAGE_SIZE;
        to.copy_from_slice(&self.world.borrow().memory[at..at + PAGE_SIZE]);
        self.tick();
        Ok(())
    }
}

impl Tracker for &Fake {
    fn track(&mut self, on: bool) -> Result<()> {
        self.world.borrow_mut().tracking = on;
        Ok(())
    }

    fn collect(&mut self, report: &mut Bitmap) -> Result<()> {
        let fault = self.world.borrow().fault;
        let mut found = self.world.borrow().dirty.clone();
        if fault == Fault::ClearsTooLate {
            (0..40).for_each(|_| self.tick());
        }
        let mut world = self.world.borrow_mut();
        world.readings += 1;
        world.dirty.clear();
        if fault != Fault::NeverFlushes {
            world.cached.clear();
        }
        match fault {
            Fault::Forgets(reading) if reading == world.readings => {
                if let Some(page) = found.iter().last() {
                    found.unset(page);
                }
            }
            Fault::LargeLeaves => {
                for page in found.clone().iter() {
                    (page / 32 * 32..(page / 32 + 1) * 32).for_each(|p| found.set(p));
                }
            }
            Fault::Blind => found.clear(),
            Fault::Fails if world.readings == 2 => bail!("no"),
            _ => {}
        }
        Ok(report.merge(&found)?)
    }
}

impl Device for &Fake {
    fn truth(&self) -> &Truth {
        &self.truth
    }

    fn check(&mut self) -> Result<()> {
        let mut world = self.world.borrow_mut();
        if world.fault == Fault::Breaks {
            bail!("broken");
        }
        if world.late > 0 {
            world.late -= 1;
            world.make_one(&self.truth);
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        // Some last writes, between the last reading and the stop.
        (0..16).for_each(|_| self.tick());
        self.world.borrow_mut().running = false;
        Ok(())
    }
}

/// Remembers for how long it was told that the device is waited for.
#[derive(Default)]
struct Watcher {
    waits: Vec<Duration>,
}

impl Observer for Watcher {
    fn wait(&mut self, limit: Duration) {
        self.waits.push(limit);
    }
    fn begin(&mut self, _round: usize, _pages: usize) {}
    fn progress(&mut self, _copied: usize) {}
    fn end(&mut self, _round: &Round) {}
}

#[test]
fn an_honest_iommu_loses_nothing() -> Result<()> {
    let outcome = Fake::new(Fault::None).migrate(&LIMITS)?;
    assert!(outcome.is_good(), "{outcome:?}");
    assert_eq!(outcome.difference, None);
    assert!(outcome.rounds.len() > 3, "{outcome:?}");
    assert_eq!(outcome.rounds[0].copied, PAGES);
    assert!(outcome.rounds.iter().all(|r| r.extra == 0), "{outcome:?}");
    assert!(outcome
        .rounds
        .iter()
        .all(|r| r.last == (r.number + 1 == outcome.rounds.len())));
    Ok(())
}

#[test]
fn a_forgotten_page_is_lost() -> Result<()> {
    for reading in 1..4 {
        let outcome = Fake::new(Fault::Forgets(reading)).migrate(&LIMITS)?;
        assert!(!outcome.is_good(), "reading {reading}: {outcome:?}");
        assert_eq!(outcome.lost.len(), 1);
    }
    Ok(())
}

#[test]
fn a_page_forgotten_in_the_last_round_differs() -> Result<()> {
    let limits = Limits {
        rounds: 1,
        ..LIMITS
    };
    let fake = Fake::new(Fault::Forgets(2));
    let outcome = fake.migrate(&limits)?;
    let page = outcome.lost[0];
    assert_eq!((outcome.rounds.len(), outcome.different), (2, 1));
    let difference = outcome.difference.context("no difference")?;
    assert_eq!(difference.page, page);
    assert_ne!(difference.memory, difference.copy);
    let at = page * PAGE_SIZE + difference.byte;
    assert_eq!(fake.world.borrow().memory[at], difference.memory);
    Ok(())
}

#[test]
fn a_missing_flush_is_seen() -> Result<()> {
    let outcome = Fake::new(Fault::NeverFlushes).migrate(&LIMITS)?;
    assert!(!outcome.lost.is_empty() && !outcome.is_good());
    Ok(())
}

#[test]
fn bits_cleared_but_not_reported_are_seen() -> Result<()> {
    let outcome = Fake::new(Fault::ClearsTooLate).migrate(&LIMITS)?;
    assert!(!outcome.is_good(), "{outcome:?}");
    Ok(())
}

#[test]
fn a_blind_iommu_is_seen() -> Result<()> {
    let outcome = Fake::new(Fault::Blind).migrate(&LIMITS)?;
    assert!(!outcome.is_good() && outcome.different > 0);
    Ok(())
}

#[test]
fn large_leaves_cost_copies_but_lose_nothing() -> Result<()> {
    let outcome = Fake::new(Fault::LargeLeaves).migrate(&LIMITS)?;
    assert!(outcome.is_good());
    assert!(outcome.rounds.iter().any(|r| r.extra > 0));
    Ok(())
}

#[test]
fn a_device_that_is_too_fast_is_stopped_after_the_rounds_allowed() -> Result<()> {
    let fake = Fake::new(Fault::None);
    fake.world.borrow_mut().rate = 40;
    let outcome = fake.migrate(&Limits {
        rounds: 3,
        ..LIMITS
    })?;
    assert!(outcome.is_good(), "{outcome:?}");
    assert_eq!(outcome.rounds.len(), 4);
    assert!(outcome.rounds[3].last);
    Ok(())
}

#[test]
fn a_device_that_writes_nothing_proves_nothing() -> Result<()> {
    let limits = Limits {
        wait: Duration::from_millis(20),
        ..LIMITS
    };
    let mut watcher = Watcher::default();
    let outcome = Fake::slow(Fault::None, 0).watched(&limits, &mut watcher)?;
    assert!(outcome.different == 0 && !outcome.is_good(), "{outcome:?}");
    assert!(outcome.waited >= limits.wait, "{outcome:?}");
    assert_eq!(
        (watcher.waits, outcome.rounds.len()),
        (vec![limits.wait], 2)
    );
    Ok(())
}

#[test]
fn a_slow_device_is_waited_for() -> Result<()> {
    let mut watcher = Watcher::default();
    let outcome = Fake::slow(Fault::None, 1).watched(&LIMITS, &mut watcher)?;
    assert!(outcome.is_good(), "{outcome:?}");
    assert!(outcome.waited < LIMITS.wait, "{outcome:?}");
    assert_eq!(watcher.waits, [LIMITS.wait]);
    // Its write is in the round after, which is the last one.
    assert_eq!((outcome.rounds.len(), outcome.writes_tracked), (2, 1));
    assert_eq!(outcome.rounds[1].reported, outcome.rounds[1].written);
    assert!(outcome.rounds[1].written > 0, "{outcome:?}");
    Ok(())
}

#[test]
fn what_a_slow_device_writes_can_be_lost() -> Result<()> {
    let outcome = Fake::slow(Fault::Blind, 1).migrate(&LIMITS)?;
    assert!(
        !outcome.lost.is_empty() && outcome.different > 0,
        "{outcome:?}"
    );
    Ok(())
}

#[test]
fn a_device_that_writes_is_not_waited_for() -> Result<()> {
    let mut watcher = Watcher::default();
    let outcome = Fake::new(Fault::None).watched(&LIMITS, &mut watcher)?;
    assert_eq!((watcher.waits.len(), outcome.waited), (0, Duration::ZERO));
    Ok(())
}

#[test]
fn a_device_that_breaks_is_not_waited_for() {
    let result = Fake::slow(Fault::Breaks, 0).migrate(&LIMITS);
    assert_eq!(
        result.err().map(|e| e.to_string()).as_deref(),
        Some("broken")
    );
}

#[test]
fn an_error_ends_the_migration() {
    let result = Fake::new(Fault::Fails).migrate(&LIMITS);
    assert_eq!(result.err().map(|e| e.to_string()).as_deref(), Some("no"));
}
