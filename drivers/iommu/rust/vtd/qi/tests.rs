// SPDX-License-Identifier: GPL-2.0

//! The invalidation queue against hardware that misbehaves on demand.

use core::cell::Cell;
use kernel::sync::atomic::Relaxed;

use super::*;

/// What the fake hardware does.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    /// Runs everything.
    Well,
    /// Refuses the descriptor with this index in the ring, once.
    Refuse(usize),
    /// Drops the wait and sets ITE, this many times.
    TimeOut(u32),
    /// Does nothing at all.
    Dead,
}

/// Hardware that reads the ring's memory.
struct Fake<'a> {
    memory: &'a Memory,
    mood: Cell<Mood>,
    head: Cell<usize>,
    tail: Cell<usize>,
    fault: Cell<u32>,
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
            fault: Cell::new(0),
            ran: Cell::new(0),
            reports: Cell::new(0),
            rounds: Cell::new(0),
        }
    }

    /// Runs descriptors until the ring is empty or an error stops it.
    fn run(&self) {
        while self.head.get() != self.tail.get() && self.fault.get() == 0 {
            let slot = self.head.get();
            if self.mood.get() == Mood::Dead {
                return;
            }
            if self.mood.get() == Mood::Refuse(slot) {
                self.mood.set(Mood::Well);
                self.fault.set(FSTS::INVALIDATION_QUEUE_MASK);
                return;
            }
            self.head.set((slot + 1) % SLOTS);
            let Some(descriptor) = self.memory.load(slot).map(Descriptor) else {
                return;
            };
            if descriptor.0[0] & 0xf != desc::Kind::Wait as u64 {
                self.ran.set(self.ran.get() + 1);
                continue;
            }
            if let Mood::TimeOut(times) = self.mood.get() {
                self.mood.set(match times {
                    0 | 1 => Mood::Well,
                    more => Mood::TimeOut(more - 1),
                });
                self.fault.set(FSTS::INVALIDATION_TIMEOUT_MASK);
                return;
            }
            let offset = (descriptor.0[1] - self.memory.status.phys()) as usize;
            self.memory.status.words()[offset / 8].store(descriptor.0[0] >> 32, Relaxed);
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

    fn fault(&self) -> FSTS {
        FSTS::from_raw(self.fault.get())
    }

    fn acknowledge(&self, fault: FSTS) {
        self.fault.set(self.fault.get() & !fault.into_raw());
        self.run();
    }

    fn error_record(&self) -> IQERCD {
        IQERCD::from_raw(4)
    }

    fn pause(&self, round: u32) {
        self.rounds.set(round + 1);
    }

    fn report(&self, _what: &str, _descriptor: Option<Descriptor>) {
        self.reports.set(self.reports.get() + 1);
    }
}

fn batch() -> [Descriptor; 3] {
    [
        Descriptor::context_global(),
        Descriptor::pasid_cache_global(),
        Descriptor::iotlb_global((false, false)),
    ]
}

#[kunit_tests(rust_vtd_qi)]
mod suite {
    use super::*;

    #[test]
    fn batches_go_round_the_ring() -> Result {
        let memory = Memory::new(SLOTS, None)?;
        let fake = Fake::new(&memory, Mood::Well);
        let mut ring = Ring::new();
        for _ in 0..2 * SLOTS {
            ring.submit(&memory, &fake, &batch())?;
        }
        assert_eq!(fake.ran.get(), 3 * 2 * SLOTS);
        assert_eq!(fake.reports.get(), 0);
        // The longest batch fits, one more does not.
        let long = [Descriptor::context_global(); BATCH + 1];
        ring.submit(&memory, &fake, &long[1..])?;
        assert_eq!(ring.submit(&memory, &fake, &long), Err(EINVAL));
        Ok(())
    }

    #[test]
    fn a_refused_descriptor_fails_only_its_batch() -> Result {
        let memory = Memory::new(SLOTS, None)?;
        for bad in 0..3 {
            let fake = Fake::new(&memory, Mood::Refuse(bad));
            let mut ring = Ring::new();
            assert_eq!(ring.submit(&memory, &fake, &batch()), Err(EINVAL));
            // The two others have run, and the next batch finds a working queue.
            assert_eq!(fake.ran.get(), 2);
            assert_eq!(fake.reports.get(), 1);
            ring.submit(&memory, &fake, &batch())?;
            assert_eq!(fake.ran.get(), 5);
        }
        Ok(())
    }

    #[test]
    fn a_silent_device_is_asked_again() -> Result {
        let memory = Memory::new(SLOTS, None)?;
        let fake = Fake::new(&memory, Mood::TimeOut(2));
        let mut ring = Ring::new();
        ring.submit(&memory, &fake, &batch())?;
        assert_eq!(fake.ran.get(), 9);
        // One that never answers is given up. The memory is new, as its numbers start anew.
        let memory = Memory::new(SLOTS, None)?;
        let fake = Fake::new(&memory, Mood::TimeOut(100));
        let mut ring = Ring::new();
        assert_eq!(ring.submit(&memory, &fake, &batch()), Err(ETIMEDOUT));
        assert_eq!(fake.ran.get(), 9);
        Ok(())
    }

    #[test]
    fn dead_hardware_is_given_up() -> Result {
        let memory = Memory::new(SLOTS, None)?;
        let fake = Fake::new(&memory, Mood::Dead);
        let mut ring = Ring::new();
        // A sequence number that was not used yet, lest the page of an earlier test match.
        ring.sequence = 7;
        assert_eq!(ring.submit(&memory, &fake, &batch()), Err(ETIMEDOUT));
        assert_eq!(fake.rounds.get(), ROUNDS);
        // What was given up stays in the ring; once it is full that is said at once.
        let long = [Descriptor::context_global(); BATCH];
        assert_eq!(ring.submit(&memory, &fake, &long), Err(EBUSY));
        Ok(())
    }
}
