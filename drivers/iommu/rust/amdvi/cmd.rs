// SPDX-License-Identifier: GPL-2.0

//! The command buffer: a ring of commands and its recovery from errors.
//!
//! Specification, 2.4 and 2.5.7 (illegal commands). A batch of commands is followed by a
//! COMPLETION_WAIT, which makes the hardware write a sequence number once everything before it is
//! done. One batch is under way at a time: whoever holds the ring waits for it, so the ring is
//! empty between batches unless a batch ran out of time.
//!
//! Every wait has a bound. A command that the hardware refuses stops it (CmdBufRun goes away, and
//! the event log says which one it was): the ring is started anew, empty, and the batch fails with
//! `EINVAL`.
//!
//! A unit fetches no commands before it translates. It has cached nothing then either, so until
//! [`Ring::run`] a batch is done at once.
//!
//! The ring is used under a lock that disables interrupts, in [`crate::unit`].

pub(crate) mod desc;
#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
mod tests;

use kernel::{
    iommu::ring,
    prelude::*, //
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

/// The most commands of one batch: the wait and a free slot need room as well.
pub(crate) const BATCH: usize = SLOTS - 2;

/// How often the completion is looked at before the batch is given up; see [`Port::pause`].
const ROUNDS: u32 = 1_000_000;

/// Rounds between two looks at the status register, which is slow to read.
const STATUS_ROUNDS: u32 = 1024;

/// The registers of the ring, and a way to let time pass.
pub(crate) trait Port {
    /// Index of the command that the hardware fetches next.
    fn head(&self) -> usize;
    /// Tells the hardware that there are commands up to `index`, which is not one of them.
    fn set_tail(&self, index: usize);
    /// Whether the hardware fetches commands.
    fn is_running(&self) -> bool;
    /// Makes the hardware fetch commands from the start of the ring, which is empty.
    fn restart(&self);
    /// Waits about a microsecond, less in the first rounds.
    fn pause(&self, round: u32);
    /// Says something about an error.
    fn report(&self, what: &str, command: Option<Command>);
}

/// How one submission ended.
enum Outcome {
    /// Everything was done.
    Done,
    /// Some command was refused, and those behind it were not looked at.
    Refused,
    /// Nothing happened for too long.
    Silent,
}

/// The memory of a ring.
pub(crate) type Memory = ring::Memory<WORDS>;

/// What to write to `CMDBUF`.
pub(crate) fn address(memory: &Memory) -> CMDBUF {
    CMDBUF::at(memory.slots.phys())
}

/// Where the ring stands.
pub(crate) struct Ring {
    tail: usize,
    sequence: u64,
    runs: bool,
}

impl Ring {
    /// An empty ring that does not run yet.
    pub(crate) const fn new() -> Self {
        Self {
            tail: 0,
            sequence: 0,
            runs: false,
        }
    }

    /// From now on, or no longer, the hardware fetches commands. Head and tail are at the start.
    pub(crate) fn run(&mut self, on: bool) {
        self.tail = 0;
        self.runs = on;
    }

    /// Runs `batch` and waits until the hardware is done with it.
    ///
    /// Context: any; the caller keeps others from the ring and does not sleep.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if the hardware refused a command, or the batch is longer than [`BATCH`];
    /// - `ETIMEDOUT` if the hardware did not answer in time;
    /// - `EBUSY` if an earlier batch that was given up still fills the ring.
    pub(crate) fn submit(
        &mut self,
        memory: &Memory,
        port: &impl Port,
        batch: &[Command],
    ) -> Result {
        if batch.len() > BATCH {
            return Err(EINVAL);
        }
        if !self.runs {
            return Ok(());
        }
        let used = (self.tail + SLOTS - port.head() % SLOTS) % SLOTS;
        if used + batch.len() + 2 > SLOTS {
            return Err(EBUSY);
        }
        // Zero is what the status word held before the first batch.
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let wait = Command::wait(memory.status.phys(), self.sequence);
        for command in batch {
            self.push(memory, command)?;
        }
        self.push(memory, &wait)?;
        port.set_tail(self.tail);

        match self.wait(memory, port) {
            Outcome::Done => Ok(()),
            Outcome::Refused => {
                // The head stands at the culprit.
                port.report("refused", memory.load(port.head() % SLOTS).map(Command));
                self.tail = 0;
                port.restart();
                Err(EINVAL)
            }
            Outcome::Silent => {
                port.report("gave up on a batch", batch.first().copied());
                Err(ETIMEDOUT)
            }
        }
    }

    fn push(&mut self, memory: &Memory, command: &Command) -> Result {
        memory.store(self.tail, &command.0)?;
        self.tail = (self.tail + 1) % SLOTS;
        Ok(())
    }

    fn wait(&self, memory: &Memory, port: &impl Port) -> Outcome {
        for round in 0..ROUNDS {
            if memory.completed(0) == self.sequence {
                return Outcome::Done;
            }
            if round % STATUS_ROUNDS == STATUS_ROUNDS - 1
                && !port.is_running()
                // It may have stopped after this.
                && memory.completed(0) != self.sequence
            {
                return Outcome::Refused;
            }
            port.pause(round);
        }
        Outcome::Silent
    }
}
