// SPDX-License-Identifier: GPL-2.0

//! The command buffer: a ring of commands, and the wait until they are done.
//!
//! Specification, 2.4 and 2.5.7 (illegal commands). A batch of commands is followed by a
//! COMPLETION_WAIT, which makes the hardware write a sequence number once everything before it is
//! done. The numbers only grow, and the hardware works in order: a batch is done once the number in
//! memory is not below its own. So a CPU holds the lock of the ring while it writes commands, not
//! while the hardware runs them, and the batches of several CPUs run at once, as in the C driver
//! (`iommu_completion_wait()`).
//!
//! A CPU that finds the ring full waits under the lock: otherwise other CPUs could take all room
//! that becomes free.
//!
//! Every wait has a bound. A unit that exceeds it, or that stops at a command which it finds
//! illegal (CmdBufRun is cleared), is *dead*: it is unknown which later commands it has run, and
//! what it still caches. The driver does not restart it, and all later commands fail at once.
//!
//! A unit fetches no commands before it translates. It caches nothing until then either, so before
//! [`Queue::run`] a batch is done at once.
//!
//! Lock order: the lock of the ring is innermost. It is a raw spinlock and disables interrupts: the
//! interrupt core changes interrupts under raw spinlocks.

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
mod concurrent;
pub(crate) mod desc;
#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
mod tests;

use kernel::{
    iommu::{
        hw::ring,
        raw_lock::{
            new_raw_spinlock,
            RawSpinLock, //
        }, //
    },
    prelude::*,
    sync::atomic::{
        AtomicFlag,
        Full,
        Relaxed, //
    }, //
};

use crate::regs::queue::{
    CMDBUF,
    ENTRIES,
    ENTRY_BYTES, //
};

use desc::Command;

/// Commands that the ring holds.
pub(crate) const SLOTS: usize = ENTRIES;

/// 64-bit words of a command.
const WORDS: usize = ENTRY_BYTES / 8;

/// The number of polls before the driver gives the unit up; see [`Port::pause`].
pub(crate) const ROUNDS: u32 = 1_000_000;

/// Rounds between two reads of the status register, which is slow.
const STATUS_ROUNDS: u32 = 1024;

/// The registers of the ring, and a way to let time pass.
pub(crate) trait Port {
    /// Index of the command that the hardware fetches next.
    fn head(&self) -> usize;
    /// Tells the hardware to run the commands before `index`.
    fn set_tail(&self, index: usize);
    /// Whether the hardware fetches commands.
    fn is_running(&self) -> bool;
    /// Waits about a microsecond, less in the first rounds.
    fn pause(&self, round: u32);
}

/// Why commands do not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The unit is dead already.
    GivenUp,
    /// The unit has stopped at this command.
    Stopped(Command),
    /// The unit does not finish this command or one before it.
    Silent(Command),
    /// The ring stays full.
    Full,
}

impl Fault {
    /// What the unit has done, or not done.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::GivenUp => "is dead already",
            Self::Stopped(_) => "takes a command for illegal and has stopped",
            Self::Silent(_) => "does not finish a command",
            Self::Full => "fetches no commands",
        }
    }
}

/// What to wait for until a batch is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what the batch is about is forgotten once it is done"]
pub(crate) struct Ticket {
    /// The number of the batch; [`None`] if there is nothing to wait for.
    sequence: Option<u64>,
    /// The first command of the batch, for messages.
    first: Command,
}

/// The memory of a ring.
type Memory = ring::Memory<WORDS>;

/// What the hardware does with the ring.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It does not fetch commands.
    Off,
    /// It fetches them.
    Runs,
    /// The unit is dead.
    Dead,
}

/// Where the ring stands.
struct Ring {
    phase: Phase,
    /// The slot that is written next.
    tail: usize,
    /// The slot that the hardware had reached at the last poll.
    head: usize,
    /// The number of the last batch. Zero is what the status word held before the first.
    sequence: u64,
}

/// A command buffer.
#[pin_data]
pub(crate) struct Queue {
    memory: Memory,
    /// Whether the unit is dead, as [`Phase::Dead`], for readers without the lock.
    dead: AtomicFlag,
    #[pin]
    ring: RawSpinLock<Ring>,
}

impl Queue {
    /// An empty buffer near the NUMA node `node`, which is not fetched from yet. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(node: Option<u32>) -> impl PinInit<Self, Error> {
        let ring = Ring {
            phase: Phase::Off,
            tail: 0,
            head: 0,
            sequence: 0,
        };
        try_pin_init!(Self {
            memory: Memory::new(SLOTS, node)?,
            dead: AtomicFlag::new(false),
            ring <- new_raw_spinlock!(ring, "rust_amdvi::cmd::Queue::ring"),
        }? Error)
    }

    /// What to write to `CMDBUF`.
    pub(crate) fn address(&self) -> CMDBUF {
        CMDBUF::at(self.memory.slots.phys())
    }

    /// Runs `enable`, which makes the hardware fetch commands from the start of the ring. A
    /// concurrent batch waits for the lock: either nothing is cached yet, or the hardware runs it.
    /// Numbers go on from those of an earlier run.
    ///
    /// # Errors
    ///
    /// The errors of `enable`, `EIO` if the unit is dead.
    pub(crate) fn run(&self, enable: impl FnOnce() -> Result) -> Result {
        let mut ring = self.ring.lock();
        if ring.phase == Phase::Dead {
            return Err(EIO);
        }
        (ring.tail, ring.head) = (0, 0);
        enable()?;
        ring.phase = Phase::Runs;
        Ok(())
    }

    /// Stops writing commands: the driver is about to switch the hardware off. Nothing is attached.
    pub(crate) fn end(&self) {
        let mut ring = self.ring.lock();
        if ring.phase == Phase::Runs {
            ring.phase = Phase::Off;
        }
    }

    /// Whether the unit is dead. It stays so.
    ///
    /// Context: any.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Relaxed)
    }

    /// Marks the unit dead: the driver writes no more commands. Returns whether this call was the
    /// first.
    ///
    /// Context: any.
    pub(crate) fn give_up(&self) -> bool {
        // First, so that a CPU that waits for room under the lock sees it. Full, against
        // `Unit::go_live()`.
        let was_dead = self.dead.xchg(true, Full);
        self.ring.lock().phase = Phase::Dead;
        !was_dead
    }

    /// Writes `batch` into the ring and makes the hardware begin.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// Why the unit has to be given up, or that it was.
    pub(crate) fn start(&self, port: &impl Port, batch: &[Command]) -> Result<Ticket, Fault> {
        let mut ring = self.ring.lock();
        let first = batch.first().copied().unwrap_or(Command::NOTHING);
        match ring.phase {
            Phase::Off => {
                return Ok(Ticket {
                    sequence: None,
                    first,
                })
            }
            Phase::Runs => {}
            Phase::Dead => return Err(Fault::GivenUp),
        }
        ring.sequence = ring.sequence.wrapping_add(1);
        let wait = Command::wait(self.memory.status_of(0), ring.sequence);
        for command in batch {
            self.push(&mut ring, port, command)?;
        }
        self.push(&mut ring, port, &wait)?;
        port.set_tail(ring.tail);
        Ok(Ticket {
            sequence: Some(ring.sequence),
            first,
        })
    }

    fn push(&self, ring: &mut Ring, port: &impl Port, command: &Command) -> Result<(), Fault> {
        if ring.is_full() {
            self.wait_for_room(ring, port)?;
        }
        // There is such a slot.
        let _ = self.memory.store(ring.tail, &command.0);
        ring.tail = (ring.tail + 1) % SLOTS;
        Ok(())
    }

    /// Waits until the batch that `ticket` was given for is done, and all batches before it.
    ///
    /// Context: any; holds no lock.
    ///
    /// # Errors
    ///
    /// As for [`Self::start`].
    pub(crate) fn wait(&self, port: &impl Port, ticket: Ticket) -> Result<(), Fault> {
        let Some(sequence) = ticket.sequence else {
            return Ok(());
        };
        for round in 0..ROUNDS {
            if self.is_done(sequence) {
                return Ok(());
            }
            if round % STATUS_ROUNDS == STATUS_ROUNDS - 1 {
                let fault = self.fault(port);
                // What stopped the unit may have come after this batch.
                if fault.is_some() && !self.is_done(sequence) {
                    return fault.map_or(Ok(()), Err);
                }
            }
            port.pause(round);
        }
        Err(Fault::Silent(ticket.first))
    }

    /// Writes what the hardware writes once the batch `sequence` is done.
    #[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
    pub(crate) fn answer(&self, sequence: u64) -> Result {
        self.memory.status.word(0)?.store(sequence, Relaxed);
        Ok(())
    }

    /// Whether the hardware has written `sequence` or a later number. They may have wrapped.
    fn is_done(&self, sequence: u64) -> bool {
        // CAST: The distance, in either direction.
        self.memory.completed(0).wrapping_sub(sequence) as i64 >= 0
    }

    /// Why nothing more is to be expected of the unit.
    fn fault(&self, port: &impl Port) -> Option<Fault> {
        if self.is_dead() {
            return Some(Fault::GivenUp);
        }
        if port.is_running() {
            return None;
        }
        // The head stands at the culprit.
        let culprit = self.memory.load(port.head() % SLOTS);
        Some(Fault::Stopped(culprit.map_or(Command::NOTHING, Command)))
    }

    /// Waits until the hardware has fetched a command of a full ring.
    fn wait_for_room(&self, ring: &mut Ring, port: &impl Port) -> Result<(), Fault> {
        // It may not have been told of those that are there.
        port.set_tail(ring.tail);
        for round in 0..ROUNDS {
            ring.head = port.head() % SLOTS;
            if !ring.is_full() {
                return Ok(());
            }
            if round % STATUS_ROUNDS == STATUS_ROUNDS - 1 {
                if let Some(fault) = self.fault(port) {
                    return Err(fault);
                }
            }
            port.pause(round);
        }
        Err(Fault::Full)
    }
}

impl Ring {
    /// Whether there is no room for a command, as far as is known. A slot stays free, for a ring
    /// whose head and tail are equal is empty.
    fn is_full(&self) -> bool {
        (self.tail + 1) % SLOTS == self.head
    }
}
