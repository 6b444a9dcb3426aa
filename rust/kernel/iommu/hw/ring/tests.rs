// SPDX-License-Identifier: GPL-2.0

//! A ring against a unit that works when the test lets time pass.
//!
//! A second CPU is played by [`Port::pause`]: what it submits there runs while the batch of the
//! first is under way.

use core::cell::Cell;
use kernel::sync::atomic::Release;

use super::*;

/// Slots of the ring.
const SLOTS: usize = 16;

/// What the unit is told to do.
const WORK: u64 = 1;
const WAIT: u64 = 2;
const ILLEGAL: u64 = 3;
/// What a command that was refused is replaced by.
const NOTHING: u64 = 4;

#[derive(Clone, Copy)]
struct Command([u64; 2]);

impl AsRef<[u64; 2]> for Command {
    fn as_ref(&self) -> &[u64; 2] {
        &self.0
    }
}

fn work(what: u64) -> Command {
    Command([WORK, what])
}

/// A unit, and the CPUs next to the one that a test is about.
struct Fake<'a> {
    queue: &'a Queue<2>,
    head: Cell<usize>,
    tail: Cell<usize>,
    stopped: Cell<bool>,
    /// The round in which the unit begins to work.
    starts: Cell<u32>,
    /// How many ends of batches it drops at once, and stops then.
    drops: Cell<u32>,
    /// Whether it drops the next as well.
    always_drops: Cell<bool>,
    /// Whether it begins with the first slot after an error.
    restarts: bool,
    worked: Cell<usize>,
    told: Cell<usize>,
    rounds: Cell<u32>,
    /// What another CPU submits in the first pause, and how that ends.
    other: Cell<Option<Command>>,
    ended: Cell<Option<Result>>,
    /// The slots of a batch that another CPU gives back in the third pause.
    leaves: Cell<Option<Ticket>>,
}

impl<'a> Fake<'a> {
    fn new(queue: &'a Queue<2>) -> Self {
        queue.run(true);
        Self {
            queue,
            head: Cell::new(0),
            tail: Cell::new(0),
            stopped: Cell::new(false),
            starts: Cell::new(0),
            drops: Cell::new(0),
            always_drops: Cell::new(false),
            restarts: false,
            worked: Cell::new(0),
            told: Cell::new(0),
            rounds: Cell::new(0),
            other: Cell::new(None),
            ended: Cell::new(None),
            leaves: Cell::new(None),
        }
    }

    fn run(&self) {
        while self.head.get() != self.tail.get() && !self.stopped.get() {
            let slot = self.head.get();
            let Some([kind, address]) = self.queue.memory.load(slot) else {
                return;
            };
            if kind == ILLEGAL {
                self.stopped.set(true);
                return;
            }
            self.head.set((slot + 1) % SLOTS);
            if kind == WORK {
                self.worked.set(self.worked.get() + 1);
            }
            if kind & 0xff != WAIT {
                continue;
            }
            if self.drops.get() > 0 {
                self.drops.set(self.drops.get() - 1);
                self.stopped.set(self.drops.get() == 0);
                continue;
            }
            let index = (address - self.queue.memory.status.phys()) as usize / 8;
            if let Ok(word) = self.queue.memory.status.word(index) {
                word.store(kind >> 32, Release);
            }
        }
    }
}

impl Port<2> for Fake<'_> {
    fn set_tail(&self, index: usize) {
        self.told.set(self.told.get() + 1);
        if self.always_drops.get() {
            self.drops.set(1);
        }
        self.tail.set(index);
    }

    fn wait_command(&self, status: u64, number: u32) -> [u64; 2] {
        [WAIT | u64::from(number) << 32, status]
    }

    fn has_error(&self) -> bool {
        self.stopped.get()
    }

    fn recover(&self, pending: &mut Pending<'_, 2>) -> Result {
        let slot = self.head.get();
        if let Some([ILLEGAL, _]) = pending.memory().load(slot) {
            assert!(pending.refuse(slot));
            pending.memory().store(slot, &[NOTHING, 0])?;
        } else {
            pending.drop_before(slot);
        }
        if self.restarts {
            pending.drop_all();
            self.head.set(0);
            self.tail.set(0);
        }
        self.stopped.set(false);
        Ok(())
    }

    fn pause(&self, round: u32) {
        self.rounds.set(self.rounds.get() + 1);
        if let Some(command) = self.other.take() {
            self.ended
                .set(Some(self.queue.submit(self, &[command, work(9)])));
        }
        if round == 2 {
            if let Some(ticket) = self.leaves.take() {
                self.queue.slots.lock().give_back(ticket);
            }
        }
        if round >= self.starts.get() {
            self.run();
        }
    }
}

fn queue() -> Result<Pin<KBox<Queue<2>>>> {
    KBox::pin_init(Queue::new(Memory::new(SLOTS, None)?), GFP_KERNEL)
}

#[kunit_tests(rust_iommu_ring)]
mod suite {
    use super::*;

    #[test]
    fn batches_go_round_the_ring() -> Result {
        let queue = queue()?;
        let unit = Fake::new(&queue);
        for _ in 0..3 * SLOTS {
            queue.submit(&unit, &[work(1), work(2)])?;
        }
        assert_eq!(unit.worked.get(), 2 * 3 * SLOTS);
        // The longest batch fits, one more does not.
        queue.submit(&unit, &[work(1); SLOTS - 2])?;
        assert_eq!(queue.submit(&unit, &[work(1); SLOTS - 1]), Err(EINVAL));
        Ok(())
    }

    #[test]
    fn a_unit_that_does_not_fetch_has_nothing_to_do() -> Result {
        let queue = queue()?;
        let unit = Fake::new(&queue);
        queue.run(false);
        queue.submit(&unit, &[work(1)])?;
        assert_eq!((unit.told.get(), unit.worked.get()), (0, 0));
        Ok(())
    }

    #[test]
    fn another_cpu_does_not_wait_for_the_first() -> Result {
        let queue = queue()?;
        let unit = Fake::new(&queue);
        unit.other.set(Some(work(1)));
        queue.submit(&unit, &[work(1)])?;
        assert_eq!(unit.ended.get(), Some(Ok(())));
        assert_eq!((unit.told.get(), unit.worked.get()), (2, 3));
        Ok(())
    }

    #[test]
    fn a_refused_command_fails_its_own_batch_only() -> Result {
        let illegal = Command([ILLEGAL, 0]);
        // A unit that restarts has the second CPU wait for the first, which stands still here.
        for (first, second, restarts) in [
            (illegal, work(2), false),
            (work(1), illegal, false),
            (work(1), illegal, true),
        ] {
            let queue = queue()?;
            let mut unit = Fake::new(&queue);
            unit.restarts = restarts;
            unit.other.set(Some(second));
            let ended = |command: Command| match command.0 {
                [ILLEGAL, _] => Err(EINVAL),
                _ => Ok(()),
            };
            // Both are in the ring before the unit finds the culprit.
            unit.starts.set(1);
            assert_eq!(queue.submit(&unit, &[work(1), first]), ended(first));
            assert_eq!(unit.ended.get(), Some(ended(second)));
            // The ring goes on.
            let before = unit.worked.get();
            queue.submit(&unit, &[work(3)])?;
            assert_eq!(unit.worked.get(), before + 1);
        }
        Ok(())
    }

    #[test]
    fn each_cpu_enters_again_what_was_dropped() -> Result {
        let queue = queue()?;
        let unit = Fake::new(&queue);
        unit.other.set(Some(work(2)));
        unit.starts.set(1);
        unit.drops.set(2);
        queue.submit(&unit, &[work(1)])?;
        assert_eq!(unit.ended.get(), Some(Ok(())));
        // Both batches, twice.
        assert_eq!((unit.told.get(), unit.worked.get()), (4, 6));
        assert!(!queue.is_dead());
        Ok(())
    }

    #[test]
    fn a_batch_that_is_always_dropped_is_given_up() -> Result {
        let queue = queue()?;
        let unit = Fake::new(&queue);
        unit.always_drops.set(true);
        assert_eq!(queue.submit(&unit, &[work(1)]), Err(ETIMEDOUT));
        assert_eq!(unit.told.get(), ATTEMPTS as usize);
        assert!(queue.is_dead());
        Ok(())
    }

    #[test]
    fn a_unit_that_answers_late_stays_alive() -> Result {
        let queue = queue()?;
        let unit = Fake::new(&queue);
        unit.starts.set(ROUNDS - 2);
        queue.submit(&unit, &[work(1)])?;
        assert_eq!(unit.rounds.get(), ROUNDS - 1);
        assert!(!queue.is_dead());
        unit.starts.set(0);
        queue.submit(&unit, &[work(1)])
    }

    #[test]
    fn one_cpu_is_told_that_the_unit_is_dead() -> Result {
        let queue = queue()?;
        let unit = Fake::new(&queue);
        unit.starts.set(u32::MAX);
        unit.other.set(Some(work(2)));
        assert_eq!(queue.submit(&unit, &[work(1)]), Err(EIO));
        assert_eq!(unit.ended.get(), Some(Err(ETIMEDOUT)));
        // The one was patient, the other looked once.
        assert_eq!(unit.rounds.get(), ROUNDS + CHECK_ROUNDS - 1);
        // Nothing touches the ring any more, though the unit would work now.
        unit.starts.set(0);
        assert_eq!(queue.submit(&unit, &[work(1)]), Err(EIO));
        assert_eq!((unit.told.get(), unit.worked.get()), (2, 0));
        assert!(!queue.kill());
        Ok(())
    }

    #[test]
    fn a_full_ring_is_waited_for() -> Result {
        let queue = queue()?;
        let unit = Fake::new(&queue);
        let ticket = queue.slots.lock().reserve(13).ok_or(EINVAL)?;
        // The unit is done with it, its owner has not looked yet.
        unit.head.set(14);
        unit.tail.set(14);
        unit.leaves.set(Some(ticket));
        queue.submit(&unit, &[work(1), work(2)])?;
        assert_eq!((unit.told.get(), unit.worked.get()), (1, 2));
        // The one that never leaves is no reason to wait for ever.
        let _ticket = queue.slots.lock().reserve(13).ok_or(EINVAL)?;
        unit.rounds.set(0);
        assert_eq!(queue.submit(&unit, &[work(1), work(2)]), Err(ETIMEDOUT));
        assert_eq!(unit.rounds.get(), ROOM_ROUNDS);
        Ok(())
    }
}
