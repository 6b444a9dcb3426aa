// SPDX-License-Identifier: GPL-2.0

//! The command buffer against hardware that misbehaves on demand.

use core::cell::Cell;
use kernel::sync::atomic::Relaxed;

use super::*;
use crate::iotlb::Block;

/// What the fake hardware does.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    /// Runs everything.
    Well,
    /// Refuses the command with this index in the ring, once.
    Refuse(usize),
    /// Does nothing at all.
    Dead,
}

/// Hardware that reads the ring's memory.
struct Fake<'a> {
    memory: &'a Memory,
    mood: Cell<Mood>,
    head: Cell<usize>,
    tail: Cell<usize>,
    running: Cell<bool>,
    ran: Cell<usize>,
    reports: Cell<usize>,
    rounds: Cell<u32>,
}

impl<'a> Fake<'a> {
    fn new(memory: &'a Memory, mood: Mood) -> Self {
        Self {
            memory,
            mood: Cell::new(mood),
            head: Cell::new(0),
            tail: Cell::new(0),
            running: Cell::new(true),
            ran: Cell::new(0),
            reports: Cell::new(0),
            rounds: Cell::new(0),
        }
    }

    /// Runs commands until the ring is empty or an error stops it.
    fn run(&self) {
        while self.running.get() && self.head.get() != self.tail.get() {
            let slot = self.head.get();
            if self.mood.get() == Mood::Dead {
                return;
            }
            if self.mood.get() == Mood::Refuse(slot) {
                self.mood.set(Mood::Well);
                self.running.set(false);
                return;
            }
            self.head.set((slot + 1) % SLOTS);
            let Some(command) = self.memory.load(slot).map(Command) else {
                return;
            };
            if command.0[0] >> 60 != desc::Kind::Wait as u64 {
                self.ran.set(self.ran.get() + 1);
                continue;
            }
            let address = command.0[0] & 0x000f_ffff_ffff_fff8;
            let offset = (address - self.memory.status.phys()) as usize;
            self.memory.status.words()[offset / 8].store(command.0[1], Relaxed);
        }
    }
}

impl Port for Fake<'_> {
    fn head(&self) -> usize {
        self.head.get()
    }

    fn set_tail(&self, index: usize) {
        self.tail.set(index);
        self.run();
    }

    fn is_running(&self) -> bool {
        self.running.get()
    }

    fn restart(&self) {
        self.head.set(0);
        self.tail.set(0);
        self.running.set(true);
    }

    fn pause(&self, round: u32) {
        self.rounds.set(round + 1);
    }

    fn report(&self, _what: &str, _command: Option<Command>) {
        self.reports.set(self.reports.get() + 1);
    }
}

fn batch() -> [Command; 3] {
    [
        Command::device_entry(1),
        Command::pages(2, None, Block::ALL, true),
        Command::all(),
    ]
}

fn running() -> Ring {
    let mut ring = Ring::new();
    ring.run(true);
    ring
}

#[kunit_tests(rust_amdvi_cmd)]
mod suite {
    use super::*;

    #[test]
    fn batches_go_round_the_ring() -> Result {
        let memory = Memory::new(SLOTS, None)?;
        let fake = Fake::new(&memory, Mood::Well);
        let mut ring = running();
        for _ in 0..2 * SLOTS {
            ring.submit(&memory, &fake, &batch())?;
        }
        assert_eq!(fake.ran.get(), 3 * 2 * SLOTS);
        assert_eq!(fake.reports.get(), 0);
        // The longest batch fits, one more does not.
        let long = [Command::all(); BATCH + 1];
        ring.submit(&memory, &fake, &long[1..])?;
        assert_eq!(ring.submit(&memory, &fake, &long), Err(EINVAL));
        Ok(())
    }

    #[test]
    fn nothing_is_asked_of_a_unit_that_does_not_fetch() -> Result {
        let memory = Memory::new(SLOTS, None)?;
        let fake = Fake::new(&memory, Mood::Well);
        let mut ring = Ring::new();
        ring.submit(&memory, &fake, &batch())?;
        assert_eq!((fake.ran.get(), fake.tail.get()), (0, 0));
        ring.run(true);
        ring.submit(&memory, &fake, &batch())?;
        assert_eq!(fake.ran.get(), 3);
        Ok(())
    }

    #[test]
    fn a_refused_command_fails_only_its_batch() -> Result {
        for bad in 0..3 {
            let memory = Memory::new(SLOTS, None)?;
            let fake = Fake::new(&memory, Mood::Refuse(bad));
            let mut ring = running();
            assert_eq!(ring.submit(&memory, &fake, &batch()), Err(EINVAL));
            assert_eq!(fake.ran.get(), bad);
            assert_eq!(fake.reports.get(), 1);
            // The next batch finds a working ring.
            ring.submit(&memory, &fake, &batch())?;
            assert_eq!(fake.ran.get(), bad + 3);
        }
        Ok(())
    }

    #[test]
    fn dead_hardware_is_given_up() -> Result {
        let memory = Memory::new(SLOTS, None)?;
        let fake = Fake::new(&memory, Mood::Dead);
        let mut ring = running();
        assert_eq!(ring.submit(&memory, &fake, &batch()), Err(ETIMEDOUT));
        assert_eq!(fake.rounds.get(), ROUNDS);
        // What was given up stays in the ring; once it is full that is said at once.
        let long = [Command::all(); BATCH];
        assert_eq!(ring.submit(&memory, &fake, &long), Err(EBUSY));
        Ok(())
    }
}
