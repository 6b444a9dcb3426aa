// SPDX-License-Identifier: GPL-2.0

//! The command buffer against hardware that misbehaves on demand.

use core::cell::{
    Cell,
    RefCell, //
};
use kernel::sync::atomic::Relaxed;

use super::*;
use kernel::iommu::block::Block;

/// What the fake hardware does.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    /// Runs everything at once.
    Well,
    /// Runs this many commands at each wait.
    Slow(usize),
    /// Begins to run after this many waits.
    Late(u32),
    /// Stops at the command with this index in the ring.
    Refuse(usize),
    /// Does nothing at all.
    Dead,
}

/// Hardware that reads the ring's memory.
struct Fake<'a> {
    queue: &'a Queue,
    mood: Cell<Mood>,
    head: Cell<usize>,
    tail: Cell<usize>,
    running: Cell<bool>,
    ran: Cell<usize>,
    rounds: Cell<u32>,
    /// What is written before the first wait: batches of other CPUs.
    others: RefCell<KVec<Command>>,
}

impl<'a> Fake<'a> {
    fn new(queue: &'a Queue, mood: Mood) -> Self {
        Self {
            queue,
            mood: Cell::new(mood),
            head: Cell::new(0),
            tail: Cell::new(0),
            running: Cell::new(true),
            ran: Cell::new(0),
            rounds: Cell::new(0),
            others: RefCell::new(KVec::new()),
        }
    }

    /// Runs up to `most` commands, until the ring is empty or one stops it.
    fn run(&self, most: usize) {
        for _ in 0..most {
            let slot = self.head.get();
            if !self.running.get() || slot == self.tail.get() {
                return;
            }
            if self.mood.get() == Mood::Refuse(slot) {
                self.running.set(false);
                return;
            }
            self.head.set((slot + 1) % SLOTS);
            let memory = &self.queue.memory;
            let Some(command) = memory.load(slot).map(Command) else {
                return;
            };
            if command.0[0] >> 60 != desc::Kind::Wait as u64 {
                self.ran.set(self.ran.get() + 1);
                continue;
            }
            let address = command.0[0] & 0x000f_ffff_ffff_fff8;
            let offset = (address - memory.status_of(0)) as usize;
            memory.status.words()[offset / 8].store(command.0[1], Relaxed);
        }
    }

    fn submit(&self, batch: &[Command]) -> Result<(), Fault> {
        let ticket = self.queue.start(self, batch)?;
        self.queue.wait(self, ticket)
    }
}

impl Port for Fake<'_> {
    fn head(&self) -> usize {
        self.head.get()
    }

    fn set_tail(&self, index: usize) {
        self.tail.set(index);
        if matches!(self.mood.get(), Mood::Well | Mood::Refuse(_)) {
            self.run(SLOTS);
        }
    }

    fn is_running(&self) -> bool {
        self.running.get()
    }

    fn pause(&self, round: u32) {
        self.rounds.set(round + 1);
        // Waiting is done without the lock: another CPU gets its batches in.
        let others = core::mem::take(&mut *self.others.borrow_mut());
        for command in others {
            assert!(self.queue.start(self, &[command]).is_ok());
        }
        match self.mood.get() {
            Mood::Slow(commands) => self.run(commands),
            Mood::Late(rounds) if round >= rounds => self.run(SLOTS),
            _ => {}
        }
    }
}

fn batch() -> [Command; 3] {
    [
        Command::device_entry(1),
        Command::pages(2, None, Block::ALL, true),
        Command::all(),
    ]
}

fn idle() -> Result<Pin<KBox<Queue>>> {
    KBox::pin_init(Queue::new(None), GFP_KERNEL)
}

fn running() -> Result<Pin<KBox<Queue>>> {
    let queue = idle()?;
    queue.run(|| Ok(()))?;
    Ok(queue)
}

#[kunit_tests(rust_amdvi_cmd)]
mod suite {
    use super::*;

    #[test]
    fn batches_go_round_the_ring() -> Result {
        let queue = running()?;
        let fake = Fake::new(&queue, Mood::Well);
        for _ in 0..2 * SLOTS {
            assert_eq!(fake.submit(&batch()), Ok(()));
        }
        assert_eq!(fake.ran.get(), 3 * 2 * SLOTS);
        assert_eq!(fake.rounds.get(), 0);
        Ok(())
    }

    /// The ring has room for all but one of its slots; more than that waits for room.
    #[test]
    fn a_batch_may_be_longer_than_the_ring() -> Result {
        let queue = running()?;
        let fake = Fake::new(&queue, Mood::Slow(1));
        let long = KVec::from_elem(Command::all(), 3 * SLOTS, GFP_KERNEL)?;
        assert_eq!(fake.submit(&long), Ok(()));
        assert_eq!(fake.ran.get(), 3 * SLOTS);
        Ok(())
    }

    #[test]
    fn nothing_is_asked_of_a_unit_that_does_not_fetch() -> Result {
        let queue = idle()?;
        let fake = Fake::new(&queue, Mood::Well);
        assert_eq!(fake.submit(&batch()), Ok(()));
        assert_eq!((fake.ran.get(), fake.tail.get()), (0, 0));
        assert_eq!(queue.run(|| Err(ENODEV)), Err(ENODEV));
        assert_eq!(fake.submit(&batch()), Ok(()));
        assert_eq!(fake.ran.get(), 0);
        queue.run(|| Ok(()))?;
        assert_eq!(fake.submit(&batch()), Ok(()));
        assert_eq!(fake.ran.get(), 3);
        queue.end();
        assert_eq!(fake.submit(&batch()), Ok(()));
        assert_eq!(fake.ran.get(), 3);
        Ok(())
    }

    /// Two batches are under way, and a wait for either ends with that one: the first is
    /// not done when nothing is, and both are when the second is.
    #[test]
    fn batches_of_two_are_under_way_at_once() -> Result {
        let queue = running()?;
        let fake = Fake::new(&queue, Mood::Dead);
        let first = queue.start(&fake, &batch()).map_err(|_| EIO)?;
        let second = queue.start(&fake, &batch()).map_err(|_| EIO)?;
        assert_eq!(fake.tail.get(), 8);
        // The first batch and what follows it, and one command of the second.
        fake.run(5);
        fake.rounds.set(0);
        assert_eq!(queue.wait(&fake, first), Ok(()));
        assert_eq!(fake.rounds.get(), 0);
        assert!(matches!(queue.wait(&fake, second), Err(Fault::Silent(_))));
        fake.run(SLOTS);
        // In either order.
        assert_eq!(queue.wait(&fake, second), Ok(()));
        assert_eq!(queue.wait(&fake, first), Ok(()));
        Ok(())
    }

    /// Others write batches while one is waited for, and the number that it waits for is passed.
    #[test]
    fn others_may_come_while_one_waits() -> Result {
        let queue = running()?;
        let fake = Fake::new(&queue, Mood::Slow(SLOTS));
        for _ in 0..5 {
            fake.others.borrow_mut().push(Command::all(), GFP_KERNEL)?;
        }
        assert_eq!(fake.submit(&batch()), Ok(()));
        assert_eq!(fake.ran.get(), 8);
        assert_eq!(fake.rounds.get(), 1);
        Ok(())
    }

    #[test]
    fn numbers_may_wrap() -> Result {
        let queue = running()?;
        let fake = Fake::new(&queue, Mood::Slow(2));
        queue.ring.lock().sequence = u64::MAX - 2;
        queue.memory.status.word(0)?.store(u64::MAX - 2, Relaxed);
        for count in 1..6 {
            assert_eq!(fake.submit(&batch()), Ok(()));
            assert_eq!(fake.ran.get(), 3 * count);
        }
        Ok(())
    }

    #[test]
    fn a_unit_may_be_late() -> Result {
        let queue = running()?;
        let fake = Fake::new(&queue, Mood::Late(ROUNDS - 2));
        assert_eq!(fake.submit(&batch()), Ok(()));
        assert!(!queue.is_dead());
        fake.mood.set(Mood::Well);
        assert_eq!(fake.submit(&batch()), Ok(()));
        assert_eq!(fake.ran.get(), 6);
        Ok(())
    }

    #[test]
    fn a_refused_command_is_named() -> Result {
        for bad in 0..3 {
            let queue = running()?;
            let fake = Fake::new(&queue, Mood::Refuse(bad));
            assert_eq!(fake.submit(&batch()), Err(Fault::Stopped(batch()[bad])));
            assert_eq!(fake.ran.get(), bad);
            // Long before a second is over.
            assert!(fake.rounds.get() <= 2 * STATUS_ROUNDS);
        }
        Ok(())
    }

    /// A batch that was done when another one stopped the unit.
    #[test]
    fn what_is_done_stays_done() -> Result {
        let queue = running()?;
        let fake = Fake::new(&queue, Mood::Refuse(5));
        let first = queue.start(&fake, &batch()).map_err(|_| EIO)?;
        let second = queue.start(&fake, &batch()).map_err(|_| EIO)?;
        assert_eq!(queue.wait(&fake, first), Ok(()));
        assert_eq!(queue.wait(&fake, second), Err(Fault::Stopped(batch()[1])));
        Ok(())
    }

    #[test]
    fn a_silent_unit_is_waited_for_a_bounded_time() -> Result {
        let queue = running()?;
        let fake = Fake::new(&queue, Mood::Dead);
        assert_eq!(fake.submit(&batch()), Err(Fault::Silent(batch()[0])));
        assert_eq!(fake.rounds.get(), ROUNDS);
        // And so is room in its ring.
        let long = KVec::from_elem(Command::all(), 2 * SLOTS, GFP_KERNEL)?;
        fake.rounds.set(0);
        assert_eq!(fake.submit(&long), Err(Fault::Full));
        assert_eq!(fake.rounds.get(), ROUNDS);
        Ok(())
    }

    /// One that was given up is not waited for, and no command is written for it.
    #[test]
    fn a_unit_that_was_given_up_is_left_alone() -> Result {
        let queue = running()?;
        let fake = Fake::new(&queue, Mood::Dead);
        let ticket = queue.start(&fake, &batch()).map_err(|_| EIO)?;
        assert!(queue.give_up());
        assert!(queue.is_dead() && !queue.give_up());
        fake.mood.set(Mood::Well);
        let tail = fake.tail.get();
        assert_eq!(fake.submit(&batch()), Err(Fault::GivenUp));
        assert_eq!(fake.tail.get(), tail);
        // Another CPU that was waiting notices, if its batch is not done after all.
        assert_eq!(queue.wait(&fake, ticket), Err(Fault::GivenUp));
        assert_eq!(fake.rounds.get(), STATUS_ROUNDS - 1);
        fake.run(SLOTS);
        assert_eq!(queue.wait(&fake, ticket), Ok(()));
        // It stays so.
        queue.end();
        assert_eq!(fake.submit(&batch()), Err(Fault::GivenUp));
        Ok(())
    }
}
