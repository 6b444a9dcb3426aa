// SPDX-License-Identifier: GPL-2.0

//! Rings of commands that a unit fetches, and the CPUs that wait for them.
//!
//! Both drivers have their rings in a [`Memory`], where a batch of commands is followed by one that
//! makes the unit write a number, and a CPU that waits for the number [pauses](pause) in between.
//! AMD-Vi shares no more than that: its unit goes through batches in order and never drops one, so
//! its own queue counts numbers (`amdvi/cmd.rs`).
//!
//! The rest is [`Queue`], for a unit that can stop at one batch and drop others, as VT-d does. The
//! [`Port`] of the unit knows what the commands are, how to tell the unit of them, and what stops
//! it.
//!
//! Each batch has its own word for its number, so batches of several CPUs are in flight at once and
//! end in any order. A CPU holds the lock of a ring while it adds a batch, handles an error, or
//! removes a batch; never while the unit works.
//!
//! Interrupts stay disabled from when a CPU adds a batch until it removes it, as in the C driver
//! (`qi_submit_sync()`). Otherwise an interrupt handler that finds the ring full could wait for the
//! CPU that it interrupted, and so could a task that preempts the owner of a batch. So every owner
//! of a batch runs, and there are no more batches than CPUs.
//!
//! Every wait has a bound. A unit that does not answer within it is *dead* from then on: each later
//! batch fails at once, and nothing touches the ring any more. What the unit may still use must
//! stay as it is.
//!
//! # Locks
//!
//! The lock of a ring is innermost. A [`Port`] takes no other lock of its driver but those that are
//! innermost as well.

use kernel::{
    interrupt::{
        local_interrupt_disable,
        LocalInterruptDisabled, //
    },
    prelude::*,
    sync::{
        atomic::{
            AtomicFlag,
            Full,
            Relaxed, //
        },
        SpinLockIrq, //
    },
    time::{
        delay::udelay,
        Delta, //
    }, //
};

use super::super::lock_class;

mod memory;
mod occupancy;

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
mod concurrent;
#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
mod tests;

pub use memory::Memory;

use occupancy::{
    Occupancy,
    Standing,
    Ticket, //
};

/// Looks at a completion before pauses of a microsecond begin.
const EAGER_ROUNDS: u32 = 200;

/// Looks at a completion between two looks at the error bits, which are slow to read.
const CHECK_ROUNDS: u32 = 64;

/// How often a completion is looked at before the unit counts as dead; see [`Port::pause`].
const ROUNDS: u32 = 1_000_000;

/// How often a CPU submits a batch that the unit drops.
const ATTEMPTS: u32 = 3;

/// How often a CPU looks for room in the ring: longer than any owner of a batch keeps its slots.
const ROOM_ROUNDS: u32 = (ATTEMPTS + 1) * ROUNDS;

/// A unit, as far as its ring is concerned.
pub trait Port<const WORDS: usize> {
    /// Tells the unit that there are commands up to the slot `index`, which is not one of them.
    ///
    /// Context: any; under the lock of the ring.
    fn set_tail(&self, index: usize);

    /// The command that makes the unit write `number` to the physical address `status` when all
    /// commands before it are done.
    fn wait_command(&self, status: u64, number: u32) -> [u64; WORDS];

    /// Whether the unit has stopped, or reports an error that concerns the ring.
    ///
    /// Context: any.
    fn has_error(&self) -> bool;

    /// Handles the error and lets the unit continue. Called after [`Self::has_error`] returned
    /// true; another CPU may have handled the error since.
    ///
    /// Context: any; under the lock of the ring.
    ///
    /// # Errors
    ///
    /// If the unit cannot go on: it counts as dead then.
    fn recover(&self, pending: &mut Pending<'_, WORDS>) -> Result;

    /// Waits about a microsecond, less in the first rounds.
    ///
    /// Context: any.
    fn pause(&self, round: u32) {
        pause(round);
    }
}

/// The batches that are under way, for [`Port::recover`].
pub struct Pending<'a, const WORDS: usize> {
    memory: &'a Memory<WORDS>,
    slots: &'a mut Occupancy,
}

impl<const WORDS: usize> Pending<'_, WORDS> {
    /// The memory of the ring.
    pub fn memory(&self) -> &Memory<WORDS> {
        self.memory
    }

    /// The slot behind the last command: what the unit was told last.
    pub fn tail(&self) -> usize {
        self.slots.next()
    }

    /// Fails the batch that the command in `slot` is of. Its other commands are not affected.
    ///
    /// Returns whether that is new: `false` if the unit has refused what is in the slot before, or
    /// if the slot is in no batch.
    pub fn refuse(&mut self, slot: usize) -> bool {
        self.slots.refuse(slot)
    }

    /// Says that the unit has dropped the ends of all batches that it has fetched, those before the
    /// slot `head`, and goes on with the others. The batches are entered again.
    pub fn drop_before(&mut self, head: usize) {
        let memory = self.memory;
        self.slots
            .drop_before(head, |slot, number| is_done(memory, slot, number));
    }

    /// Says that the unit has dropped all batches and fetches from the first slot on. Those that
    /// have no refused command are entered again.
    pub fn drop_all(&mut self) {
        let memory = self.memory;
        self.slots
            .drop_all(|slot, number| is_done(memory, slot, number));
    }
}

/// Whether the unit has written the number of the batch that ends in `slot`.
#[inline]
fn is_done<const WORDS: usize>(memory: &Memory<WORDS>, slot: usize, number: u32) -> bool {
    memory.completed(slot) == u64::from(number)
}

/// The result of one attempt to run a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Everything was done.
    Done,
    /// Some command was refused.
    Refused,
    /// The unit has dropped it.
    Dropped,
}

/// A ring, and whether its unit is alive.
#[pin_data]
pub struct Queue<const WORDS: usize> {
    memory: Memory<WORDS>,
    dead: AtomicFlag,
    #[pin]
    slots: SpinLockIrq<Occupancy>,
}

impl<const WORDS: usize> Queue<WORDS> {
    /// An empty ring in `memory`, which the unit does not fetch from yet.
    ///
    /// Context: may sleep.
    pub fn new(memory: Memory<WORDS>) -> impl PinInit<Self, Error> {
        let (name, key) = lock_class::ring_slots();
        pin_init::pin_init_scope(move || {
            let slots = Occupancy::new(memory.count())?;
            Ok(try_pin_init!(Self {
                memory,
                dead: AtomicFlag::new(false),
                slots <- SpinLockIrq::new(slots, name, key),
            }? Error))
        })
    }

    /// The memory of the ring.
    pub fn memory(&self) -> &Memory<WORDS> {
        &self.memory
    }

    /// Says that the unit fetches commands from the first slot on, or no longer. A unit that does
    /// not fetch has cached nothing: until then, and after it, a batch is done at once.
    ///
    /// Context: any. No batch is under way.
    pub fn run(&self, on: bool) {
        self.slots.lock().run(on);
    }

    /// Whether the unit fetches commands.
    ///
    /// Context: any.
    pub fn is_running(&self) -> bool {
        self.slots.lock().is_running()
    }

    /// Whether the unit was given up.
    ///
    /// Context: any.
    #[inline]
    pub fn is_dead(&self) -> bool {
        self.dead.load(Relaxed)
    }

    /// Gives the unit up, for ever. Returns whether it was alive.
    ///
    /// Context: any.
    pub fn kill(&self) -> bool {
        !self.dead.xchg(true, Full)
    }

    /// Runs `batch` and waits until the unit is done with it.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if the unit refused a command, or the batch is longer than the ring;
    /// - `ETIMEDOUT` if the unit does not answer. It is dead now, and only this caller
    ///   is told so: it has to tell the administrator, and to keep devices from memory;
    /// - `EIO` if it is dead since before.
    pub fn submit<C>(&self, port: &impl Port<WORDS>, batch: &[C]) -> Result
    where
        C: AsRef<[u64; WORDS]>,
    {
        if batch.len() + 2 > self.memory.count() {
            return Err(EINVAL);
        }
        let irq = local_interrupt_disable();
        for _ in 0..ATTEMPTS {
            let Some(ticket) = self.wait_for_room(&irq, port, batch)? else {
                return Ok(());
            };
            match self.wait(&irq, port, ticket)? {
                Outcome::Done => return Ok(()),
                Outcome::Refused => return Err(EINVAL),
                Outcome::Dropped => {}
            }
        }
        Err(self.give_up())
    }

    /// Gives the unit up. Returns the error of the caller.
    fn give_up(&self) -> Error {
        if self.kill() {
            ETIMEDOUT
        } else {
            EIO
        }
    }

    /// Enters `batch` when there is room. [`None`] if the unit does not fetch.
    fn wait_for_room<C>(
        &self,
        irq: &LocalInterruptDisabled,
        port: &impl Port<WORDS>,
        batch: &[C],
    ) -> Result<Option<Ticket>>
    where
        C: AsRef<[u64; WORDS]>,
    {
        for round in 0..ROOM_ROUNDS {
            {
                let mut slots = self.slots.lock_with(irq);
                // Under the lock: another CPU may have given the unit up in between.
                if self.is_dead() {
                    return Err(EIO);
                }
                if !slots.is_running() {
                    return Ok(None);
                }
                if let Some(ticket) = slots.reserve(batch.len()) {
                    self.fill(&slots, &ticket, port, batch)?;
                    port.set_tail(slots.next());
                    return Ok(Some(ticket));
                }
            }
            port.pause(round);
        }
        Err(self.give_up())
    }

    /// Writes `batch` and its end to the slots of `ticket`.
    fn fill<C>(
        &self,
        slots: &Occupancy,
        ticket: &Ticket,
        port: &impl Port<WORDS>,
        batch: &[C],
    ) -> Result
    where
        C: AsRef<[u64; WORDS]>,
    {
        for (index, command) in batch.iter().enumerate() {
            self.memory
                .store(slots.slot(ticket, index), command.as_ref())?;
        }
        let end = port.wait_command(self.memory.status_of(ticket.last), ticket.number);
        self.memory.store(ticket.last, &end)
    }

    /// Waits until the batch of `ticket` has ended, and gives its slots back. They stay in use if
    /// the unit is dead.
    fn wait(
        &self,
        irq: &LocalInterruptDisabled,
        port: &impl Port<WORDS>,
        ticket: Ticket,
    ) -> Result<Outcome> {
        for round in 0..ROUNDS {
            if is_done(&self.memory, ticket.last, ticket.number) {
                return Ok(self.take_out(irq, ticket, Outcome::Done));
            }
            if round % CHECK_ROUNDS == CHECK_ROUNDS - 1 {
                if self.is_dead() {
                    return Err(EIO);
                }
                match self.check(irq, port, &ticket)? {
                    Standing::Pending => {}
                    Standing::Refused => return Ok(self.take_out(irq, ticket, Outcome::Refused)),
                    Standing::Dropped => return Ok(self.take_out(irq, ticket, Outcome::Dropped)),
                }
            }
            port.pause(round);
        }
        Err(self.give_up())
    }

    /// Looks for an error, of whichever batch, and how the batch of `ticket` stands.
    fn check(
        &self,
        irq: &LocalInterruptDisabled,
        port: &impl Port<WORDS>,
        ticket: &Ticket,
    ) -> Result<Standing> {
        let mut slots = self.slots.lock_with(irq);
        if port.has_error() {
            let mut pending = Pending {
                memory: &self.memory,
                slots: &mut slots,
            };
            if port.recover(&mut pending).is_err() {
                return Err(self.give_up());
            }
        }
        Ok(slots.standing(ticket))
    }

    fn take_out(&self, irq: &LocalInterruptDisabled, ticket: Ticket, outcome: Outcome) -> Outcome {
        if self.slots.lock_with(irq).give_back(ticket) {
            Outcome::Refused
        } else {
            outcome
        }
    }
}

/// Waits about a microsecond between two looks at a completion, less in the first rounds.
///
/// Context: any.
pub fn pause(round: u32) {
    if round < EAGER_ROUNDS {
        core::hint::spin_loop();
    } else {
        udelay(Delta::from_micros(1));
    }
}
