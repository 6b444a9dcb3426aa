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
    /// Refuses every descriptor with this index in the ring.
    RefuseAlways(usize),
    /// Drops the wait and sets ITE, this many times.
    TimeOut(u32),
    /// Does nothing.
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
    /// The error code of the record (IQEI).
    reason: Cell<u64>,
    /// Whether it goes on after an error only when the tail is written.
    needs_tail: Cell<bool>,
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
            reason: Cell::new(4),
            needs_tail: Cell::new(false),
        }
    }

    /// Runs descriptors until the ring is empty or an error stops it.
    fn run(&self) {
        while self.head.get() != self.tail.get() && self.fault.get() == 0 {
            let slot = self.head.get();
            if self.mood.get() == Mood::Dead {
                return;
            }
            if self.mood.get() == Mood::RefuseAlways(slot) {
                self.fault.set(FSTS::INVALIDATION_QUEUE_MASK);
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
        if !self.needs_tail.get() {
            self.run();
        }
    }

    fn error_record(&self) -> IQERCD {
        IQERCD::from_raw(self.reason.get())
    }

    fn pause(&self, _round: u32) {}

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

fn queue() -> Result<Pin<KBox<Queue>>> {
    let queue = KBox::pin_init(Queue::new(Memory::new(SLOTS, None)?), GFP_KERNEL)?;
    queue.run(true);
    Ok(queue)
}

#[kunit_tests(rust_vtd_qi)]
mod suite {
    use super::*;

    #[test]
    fn batches_go_round_the_ring() -> Result {
        let queue = queue()?;
        let fake = Fake::new(queue.memory(), Mood::Well);
        for _ in 0..2 * SLOTS {
            queue.submit(&Hardware(&fake), &batch())?;
        }
        assert_eq!(fake.ran.get(), 3 * 2 * SLOTS);
        assert_eq!(fake.reports.get(), 0);
        Ok(())
    }

    #[test]
    fn a_refused_descriptor_fails_only_its_batch() -> Result {
        for (bad, needs_tail) in [(0, false), (1, false), (2, false), (1, true)] {
            let queue = queue()?;
            let fake = Fake::new(queue.memory(), Mood::Refuse(bad));
            fake.needs_tail.set(needs_tail);
            assert_eq!(queue.submit(&Hardware(&fake), &batch()), Err(EINVAL));
            // The two others have run, and the next batch finds a working queue.
            assert_eq!(fake.ran.get(), 2);
            assert_eq!(fake.reports.get(), 1);
            queue.submit(&Hardware(&fake), &batch())?;
            assert_eq!(fake.ran.get(), 5);
            assert!(!queue.is_dead());
        }
        Ok(())
    }

    /// A unit that refuses a wait that does nothing refuses everything.
    #[test]
    fn a_slot_that_is_always_refused_is_the_end() -> Result {
        let queue = queue()?;
        let fake = Fake::new(queue.memory(), Mood::RefuseAlways(1));
        assert_eq!(queue.submit(&Hardware(&fake), &batch()), Err(ETIMEDOUT));
        assert_eq!(fake.reports.get(), 2);
        assert_eq!(queue.submit(&Hardware(&fake), &batch()), Err(EIO));
        Ok(())
    }

    #[test]
    fn an_error_that_no_descriptor_mends_is_the_end() -> Result {
        for reason in [1, 2, 5, 6, 7] {
            let queue = queue()?;
            let fake = Fake::new(queue.memory(), Mood::Refuse(0));
            fake.reason.set(reason);
            assert_eq!(queue.submit(&Hardware(&fake), &batch()), Err(ETIMEDOUT));
            assert!(queue.is_dead());
            // The bit stays set, so the unit stays stopped.
            assert!(fake.fault().queue_error());
        }
        Ok(())
    }

    #[test]
    fn a_silent_device_is_asked_again() -> Result {
        let queue = queue()?;
        let fake = Fake::new(queue.memory(), Mood::TimeOut(2));
        queue.submit(&Hardware(&fake), &batch())?;
        assert_eq!(fake.ran.get(), 9);
        assert!(!queue.is_dead());
        // A unit that never answers is dead.
        fake.mood.set(Mood::TimeOut(100));
        assert_eq!(queue.submit(&Hardware(&fake), &batch()), Err(ETIMEDOUT));
        assert_eq!(fake.ran.get(), 18);
        Ok(())
    }

    #[test]
    fn dead_hardware_is_given_up() -> Result {
        let queue = queue()?;
        let fake = Fake::new(queue.memory(), Mood::Dead);
        assert_eq!(queue.submit(&Hardware(&fake), &batch()), Err(ETIMEDOUT));
        // Nothing touches the ring any more.
        let tail = fake.tail.get();
        assert_eq!(queue.submit(&Hardware(&fake), &batch()), Err(EIO));
        assert_eq!(fake.tail.get(), tail);
        Ok(())
    }
}
