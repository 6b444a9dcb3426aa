// SPDX-License-Identifier: GPL-2.0

//! What an episode consists of: steps of several threads, all of which follow from a seed.
//!
//! Any selection of the steps is an episode, too: a step that has nothing to work on does nothing.
//! So a sequence that fails can be shortened by leaving out steps.

use std::fmt;

use crate::random::Random;

/// Pages of the memory that devices write to.
pub(crate) const AREA_PAGES: usize = 1024;
/// Page tables that devices move between.
pub(crate) const SLOTS: usize = 3;
/// Functions that write by themselves.
pub(crate) const WRITERS: usize = 2;
/// Places beside the area where something is mapped and unmapped.
pub(crate) const PLACES: usize = 16;
/// Pages of a place.
pub(crate) const PLACE_PAGES: usize = 512;
/// Parts of the area that are mapped and unmapped as a whole.
pub(crate) const PIECES: usize = 8;
/// Page tables for PASIDs, pages of the memory of each, and PASIDs.
pub(crate) const LANES: usize = 2;
pub(crate) const LANE_PAGES: usize = 64;
pub(crate) const PASIDS: usize = 2;

/// Who makes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    /// Switches and queries dirty tracking, and renews page tables.
    Tracker,
    /// Maps and unmaps.
    Mapper,
    /// Moves and resets a writer, and has its interrupts.
    Writer(usize),
    /// Attaches, writes and queries by PASID.
    Pasids,
}

impl Actor {
    /// All of them; the last only where devices have PASIDs.
    pub(crate) const ALL: [Self; 5] = [
        Self::Tracker,
        Self::Mapper,
        Self::Writer(0),
        Self::Writer(1),
        Self::Pasids,
    ];
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tracker => f.pad("tracker"),
            Self::Mapper => f.pad("mapper"),
            Self::Writer(number) => f.pad(&format!("writer {number}")),
            Self::Pasids => f.pad("pasids"),
        }
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Switches tracking of a page table.
    Track { slot: usize, on: bool },
    /// Queries pages `first..first + pages`, `unit` pages to a bit, with the bitmap `shift` words
    /// behind the start of a page.
    Query {
        slot: usize,
        first: usize,
        pages: usize,
        unit: usize,
        clear: bool,
        shift: usize,
    },
    /// Frees a page table that no device uses, and allocates it again.
    Renew { slot: usize },
    /// Maps pages of a place beside the area, from the first on.
    Map { place: usize, pages: usize },
    /// Unmaps what is mapped there.
    Unmap { place: usize },
    /// Unmaps a piece of the area, and maps it again.
    Hole { piece: usize, microseconds: u64 },
    /// Attaches the writer to a page table, or detaches it.
    Move { to: Option<usize> },
    /// Resets the writer, which then writes with another seed.
    Reset { seed: u64 },
    /// Switches the writer's interrupts.
    Interrupts { on: bool },
    /// Moves them to the CPUs of a mask.
    Affinity { cpus: usize },
    /// Waits for one.
    Await,
    /// Attaches a PASID to a lane, or detaches it.
    PasidMove { pasid: usize, to: Option<usize> },
    /// Writes a page with a PASID.
    PasidWrite { pasid: usize, page: usize },
    /// Switches tracking of a lane.
    PasidTrack { lane: usize, on: bool },
    /// Queries a lane.
    PasidQuery {
        lane: usize,
        first: usize,
        pages: usize,
        clear: bool,
    },
    /// Resets the device, which keeps its PASIDs.
    PasidReset,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on_off = |on: bool| if on { "on" } else { "off" };
        let kept = |clear: bool| if clear { "" } else { ", which stay dirty" };
        match self {
            Self::Track { slot, on } => write!(f, "tracking of table {slot} {}", on_off(*on)),
            Self::Query {
                slot,
                first,
                pages,
                unit,
                clear,
                shift,
            } => write!(
                f,
                "query table {slot}, {pages} pages from {first}, {unit} to a bit, bitmap at word \
                 {shift}{}",
                kept(*clear)
            ),
            Self::Renew { slot } => write!(f, "free and allocate table {slot}"),
            Self::Map { place, pages } => write!(f, "map {pages} pages at place {place}"),
            Self::Unmap { place } => write!(f, "unmap place {place}"),
            Self::Hole {
                piece,
                microseconds,
            } => {
                write!(
                    f,
                    "unmap piece {piece}, map it again after {microseconds} us"
                )
            }
            Self::Move { to: Some(slot) } => write!(f, "attach to table {slot}"),
            Self::Move { to: None } => write!(f, "detach"),
            Self::Reset { seed } => write!(f, "reset, then write with seed {seed:#x}"),
            Self::Interrupts { on } => write!(f, "interrupts {}", on_off(*on)),
            Self::Affinity { cpus } => write!(f, "interrupts to CPUs {cpus:#x}"),
            Self::Await => write!(f, "wait for an interrupt"),
            Self::PasidMove {
                pasid,
                to: Some(lane),
            } => {
                write!(f, "attach PASID {pasid} to lane {lane}")
            }
            Self::PasidMove { pasid, to: None } => write!(f, "detach PASID {pasid}"),
            Self::PasidWrite { pasid, page } => write!(f, "write page {page} with PASID {pasid}"),
            Self::PasidTrack { lane, on } => write!(f, "tracking of lane {lane} {}", on_off(*on)),
            Self::PasidQuery {
                lane,
                first,
                pages,
                clear,
            } => {
                write!(
                    f,
                    "query lane {lane}, {pages} pages from {first}{}",
                    kept(*clear)
                )
            }
            Self::PasidReset => write!(f, "reset"),
        }
    }
}

/// One step of one actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Who makes it.
    pub(crate) actor: Actor,
    /// How long the actor waits before.
    pub(crate) pause_us: u64,
    /// Which allocation of the call fails, counted from 1.
    pub(crate) fail: Option<u32>,
    /// What it does.
    pub(crate) op: Op,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<9} after {:>5} us: {}",
            self.actor, self.pause_us, self.op
        )?;
        match self.fail {
            Some(nth) => write!(f, "; allocation {nth} fails"),
            None => Ok(()),
        }
    }
}

/// The leaves that map the area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaf {
    /// 4 KiB.
    Small,
    /// 2 MiB, each on a huge page.
    Large,
}

impl Leaf {
    /// Pages of 4 KiB in it.
    pub(crate) fn pages(self) -> usize {
        match self {
            Self::Small => 1,
            Self::Large => 512,
        }
    }
}

/// All that happens from an open to a close of everything.
#[derive(Clone, Debug)]
pub(crate) struct Episode {
    /// What everything follows from.
    pub(crate) seed: u64,
    /// The leaves of the area.
    pub(crate) leaf: Leaf,
    /// The driver's parameter of that name: whether it splits these leaves, if it is one that can.
    pub(crate) split: u32,
    /// Writes in a second of each writer.
    pub(crate) rate: u64,
    /// Pages that they write to: few are written again soon, through what the unit caches.
    pub(crate) span: usize,
    /// Whether system calls are interrupted by signals.
    pub(crate) signals: bool,
    /// Whether the functions are removed from their bus before, and found again.
    pub(crate) replug: bool,
    /// The steps; those of one actor in their order.
    pub(crate) steps: Vec<Step>,
}

/// Pages that a unit can cache all at once.
const FEW_PAGES: usize = 64;

/// The smallest leaf.
const PAGE_BYTES: u32 = 4096;

/// Steps of an actor in an episode.
const STEPS: usize = 80;

impl Episode {
    /// The episode of a seed. `pace` multiplies its pauses.
    pub(crate) fn new(seed: u64, pasids: bool, pace: u64) -> Self {
        let mut random = Random::new(seed);
        let leaf = if random.one_in(4) {
            Leaf::Large
        } else {
            Leaf::Small
        };
        let split = [0, 1, PAGE_BYTES][random.below(3)];
        // CAST: Below 20000.
        let rate = (5_000 + random.below(20_000) as u64) / pace.max(1);
        let span = if random.one_in(2) {
            FEW_PAGES
        } else {
            AREA_PAGES
        };
        let signals = random.one_in(4);
        let replug = random.one_in(8);
        let failures = random.one_in(2);
        let actors = Actor::ALL.len() - usize::from(!pasids);
        let mut steps = Vec::new();
        for number in 0..STEPS {
            for &actor in &Actor::ALL[..actors] {
                // A machine that tracks nothing yet would not notice much.
                let op = match (actor, number) {
                    (Actor::Tracker, 0..SLOTS) => Op::Track {
                        slot: number,
                        on: true,
                    },
                    (Actor::Pasids, 0..LANES) => Op::PasidTrack {
                        lane: number,
                        on: true,
                    },
                    (Actor::Writer(at), 0) => Op::Move { to: Some(at) },
                    _ => op_of(actor, &mut random),
                };
                steps.push(Step {
                    actor,
                    // CAST: Below 8000.
                    pause_us: random.below(8_000) as u64 * pace.max(1),
                    // CAST: Below 40.
                    fail: (failures && random.one_in(6)).then(|| 1 + random.below(40) as u32),
                    op,
                });
            }
        }
        Self {
            seed,
            leaf,
            split,
            rate,
            span,
            signals,
            replug,
            steps,
        }
    }

    /// Uses everything once that a driver makes at its first use, and keeps for as long as the
    /// device is there: the table that leads to a PASID.
    pub(crate) fn first_use() -> Self {
        let uses = [
            (Actor::Writer(0), Op::Move { to: Some(0) }),
            (Actor::Writer(1), Op::Move { to: Some(1) }),
            (
                Actor::Pasids,
                Op::PasidMove {
                    pasid: 0,
                    to: Some(0),
                },
            ),
            (
                Actor::Pasids,
                Op::PasidMove {
                    pasid: 1,
                    to: Some(1),
                },
            ),
        ];
        let step = |(actor, op)| Step {
            actor,
            pause_us: 0,
            fail: None,
            op,
        };
        Self {
            seed: 0,
            leaf: Leaf::Small,
            split: 0,
            rate: 1000,
            span: FEW_PAGES,
            signals: false,
            replug: false,
            steps: uses.into_iter().map(step).collect(),
        }
    }

    /// The same with only the steps of these numbers.
    pub(crate) fn only(&self, numbers: &[usize]) -> Self {
        Self {
            steps: numbers
                .iter()
                .filter_map(|&n| self.steps.get(n).cloned())
                .collect(),
            ..*self
        }
    }
}

/// A query of any shape: all, a part, a page; from a boundary of `unit` pages to another one.
fn range(random: &mut Random, pages: usize, unit: usize) -> (usize, usize) {
    let units = pages / unit;
    let (first, count) = match random.below(4) {
        0 => (0, units),
        1 => (random.below(units), 1),
        _ => {
            let first = random.below(units);
            (first, 1 + random.below(units - first))
        }
    };
    (first * unit, count * unit)
}

/// A table; the first one often, so that both writers are often attached to the same one.
fn slot(random: &mut Random) -> usize {
    if random.one_in(2) {
        0
    } else {
        random.below(SLOTS)
    }
}

fn op_of(actor: Actor, random: &mut Random) -> Op {
    match actor {
        Actor::Tracker => match random.below(20) {
            0 => Op::Renew {
                slot: random.below(SLOTS),
            },
            1 | 2 => Op::Track {
                slot: slot(random),
                on: false,
            },
            // What was switched off does not stay so for long.
            3..=6 => Op::Track {
                slot: slot(random),
                on: true,
            },
            _ => {
                let unit = [1, 1, 1, 2, 16, 512][random.below(6)];
                let (first, pages) = range(random, AREA_PAGES, unit);
                Op::Query {
                    slot: slot(random),
                    first,
                    pages,
                    unit,
                    clear: !random.one_in(4),
                    shift: random.below(512),
                }
            }
        },
        Actor::Mapper => match random.below(12) {
            0 => Op::Hole {
                piece: random.below(PIECES),
                // CAST: Below 3000.
                microseconds: random.below(3_000) as u64,
            },
            1..=6 => Op::Map {
                place: random.below(PLACES),
                // All of it frees a table with the unmap.
                pages: match random.below(3) {
                    0 => PLACE_PAGES,
                    _ => 1 + random.below(PLACE_PAGES),
                },
            },
            _ => Op::Unmap {
                place: random.below(PLACES),
            },
        },
        Actor::Writer(_) => match random.below(16) {
            0 => Op::Reset {
                seed: random.next(),
            },
            1 => Op::Move { to: None },
            2..=8 => Op::Move {
                to: Some(slot(random)),
            },
            9 | 10 => Op::Interrupts {
                on: !random.one_in(3),
            },
            11 | 12 => Op::Affinity {
                cpus: 1 + random.below(3),
            },
            _ => Op::Await,
        },
        Actor::Pasids => match random.below(16) {
            0 => Op::PasidReset,
            1 => Op::PasidTrack {
                lane: random.below(LANES),
                on: random.one_in(2),
            },
            2 => Op::PasidTrack {
                lane: random.below(LANES),
                on: true,
            },
            3 => Op::PasidMove {
                pasid: random.below(PASIDS),
                to: None,
            },
            4 | 5 => Op::PasidMove {
                pasid: random.below(PASIDS),
                to: Some(random.below(LANES)),
            },
            6..=9 => {
                let (first, pages) = range(random, LANE_PAGES, 1);
                Op::PasidQuery {
                    lane: random.below(LANES),
                    first,
                    pages,
                    clear: !random.one_in(4),
                }
            }
            _ => Op::PasidWrite {
                pasid: random.below(PASIDS),
                page: random.below(LANE_PAGES),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_follows_from_its_seed() {
        let (one, same) = (Episode::new(5, true, 1), Episode::new(5, true, 1));
        assert_eq!(one.steps, same.steps);
        assert_ne!(one.steps, Episode::new(6, true, 1).steps);
        assert_eq!(one.steps.len(), STEPS * Actor::ALL.len());
        let without = Episode::new(5, false, 1);
        assert!(without.steps.iter().all(|step| step.actor != Actor::Pasids));
        assert_eq!(
            one.only(&[7, 3, 9999]).steps,
            [one.steps[7].clone(), one.steps[3].clone()]
        );
    }

    #[test]
    fn queries_stay_inside_on_boundaries_of_their_unit() {
        let mut random = Random::new(1);
        let mut whole = false;
        for _ in 0..5000 {
            let Op::Query {
                first, pages, unit, ..
            } = op_of(Actor::Tracker, &mut random)
            else {
                continue;
            };
            assert!(pages > 0 && first + pages <= AREA_PAGES);
            assert!(first % unit == 0 && pages % unit == 0);
            whole |= pages == AREA_PAGES;
        }
        assert!(whole);
    }
}
