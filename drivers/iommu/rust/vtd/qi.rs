// SPDX-License-Identifier: GPL-2.0

//! The invalidation queue: a ring of descriptors and its recovery from errors.
//!
//! VT-d specification, 6.5.2 and 6.5.2.10 (errors). A batch of descriptors is followed by an
//! invalidation wait, which makes the hardware write a sequence number once everything before it
//! is done. One batch is under way at a time: whoever holds the ring waits for it, so the ring is
//! empty between batches unless a batch ran out of time.
//!
//! Every wait has a bound. What an error costs:
//!
//! - a refused descriptor (IQE) stops the hardware: it is replaced by one that does nothing, the
//!   rest of the batch runs, and the batch fails with `EINVAL`;
//! - a device that does not answer (ITE) makes the hardware drop the waits that are pending: the
//!   batch is submitted again, a few times;
//! - an unexpected completion (ICE) is reported and cleared.
//!
//! The ring is used under a lock that disables interrupts, in [`crate::unit`].

pub(crate) mod desc;
#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
mod tests;

use kernel::{
    iommu::ring,
    prelude::*,
    sizes::SZ_8K, //
};

use crate::regs::{
    fault::FSTS,
    queue::{
        DESCRIPTOR_BYTES,
        IQA,
        IQERCD, //
    }, //
};

use desc::Descriptor;

/// Bytes of the ring: two pages.
const RING_BYTES: usize = SZ_8K;

/// `IQA.QS` for [`RING_BYTES`].
const RING_ORDER: u8 = 1;

/// Descriptors that the ring holds.
pub(crate) const SLOTS: usize = RING_BYTES / DESCRIPTOR_BYTES;

/// 64-bit words of a descriptor.
const WORDS: usize = DESCRIPTOR_BYTES / 8;

/// The most descriptors of one batch: the wait and a free slot need room as well.
pub(crate) const BATCH: usize = SLOTS - 2;

/// How often a batch is submitted if a device does not answer.
const ATTEMPTS: u32 = 3;

/// How often the completion is looked at before the batch is given up; see [`Port::pause`].
const ROUNDS: u32 = 1_000_000;

/// Rounds between two looks at the error bits, which are slow to read.
const FAULT_ROUNDS: u32 = 8;

/// The registers of the queue, and a way to let time pass.
pub(crate) trait Port {
    /// Index of the descriptor that the hardware fetches next.
    fn head(&self) -> usize;
    /// Tells the hardware that there are descriptors up to `index`, which is not one of them.
    fn set_tail(&self, index: usize);
    /// The error bits.
    fn fault(&self) -> FSTS;
    /// Clears error bits.
    fn acknowledge(&self, fault: FSTS);
    /// Details of an error.
    fn error_record(&self) -> IQERCD;
    /// Waits about a microsecond, less in the first rounds.
    fn pause(&self, round: u32);
    /// Says something about an error.
    fn report(&self, what: &str, descriptor: Option<Descriptor>);
}

/// How one submission ended.
enum Outcome {
    /// Everything was done.
    Done,
    /// Some descriptor was refused, the others were done.
    Refused,
    /// The hardware has dropped the wait: submit again.
    Dropped,
    /// Nothing happened for too long.
    Silent,
}

/// The memory of a ring. Waits write 32 bits of its status word; the others stay zero.
pub(crate) type Memory = ring::Memory<WORDS>;

/// What to write to `IQA`.
pub(crate) fn address(memory: &Memory) -> IQA {
    IQA::wide_queue(memory.slots.phys(), RING_ORDER)
}

/// Where the ring stands.
pub(crate) struct Ring {
    tail: usize,
    sequence: u32,
}

impl Ring {
    /// An empty ring; the tail register must be zero when it is used first.
    pub(crate) const fn new() -> Self {
        Self {
            tail: 0,
            sequence: 0,
        }
    }

    /// Runs `batch` and waits until the hardware is done with it.
    ///
    /// Context: any; the caller keeps others from the ring and does not sleep.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if the hardware refused a descriptor, or the batch is longer than [`BATCH`];
    /// - `ETIMEDOUT` if the hardware or a device did not answer in time;
    /// - `EBUSY` if an earlier batch that was given up still fills the ring.
    pub(crate) fn submit(
        &mut self,
        memory: &Memory,
        port: &impl Port,
        batch: &[Descriptor],
    ) -> Result {
        if batch.len() > BATCH {
            return Err(EINVAL);
        }
        for _ in 0..ATTEMPTS {
            let head = port.head();
            let used = (self.tail + SLOTS - head % SLOTS) % SLOTS;
            if used + batch.len() + 2 > SLOTS {
                return Err(EBUSY);
            }
            self.fill(memory, batch)?;
            port.set_tail(self.tail);
            match self.wait(memory, port) {
                Outcome::Done => return Ok(()),
                Outcome::Refused => return Err(EINVAL),
                Outcome::Dropped => continue,
                Outcome::Silent => break,
            }
        }
        port.report("gave up on an invalidation", batch.first().copied());
        Err(ETIMEDOUT)
    }

    /// Writes `batch` and a wait with a new sequence number to the ring.
    fn fill(&mut self, memory: &Memory, batch: &[Descriptor]) -> Result {
        // Zero is what the status word held before the first batch.
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let wait = Descriptor::wait(memory.status.phys(), self.sequence);
        for descriptor in batch {
            self.push(memory, descriptor)?;
        }
        self.push(memory, &wait)
    }

    fn push(&mut self, memory: &Memory, descriptor: &Descriptor) -> Result {
        memory.store(self.tail, &descriptor.0)?;
        self.tail = (self.tail + 1) % SLOTS;
        Ok(())
    }

    fn wait(&self, memory: &Memory, port: &impl Port) -> Outcome {
        let mut refused = false;
        for round in 0..ROUNDS {
            if memory.completed() == u64::from(self.sequence) {
                return if refused {
                    Outcome::Refused
                } else {
                    Outcome::Done
                };
            }
            if round % FAULT_ROUNDS == FAULT_ROUNDS - 1 {
                let fault = port.fault();
                if fault.queue_error() {
                    let (bad, dropped) = recover(memory, port, fault);
                    refused |= bad;
                    if dropped && memory.completed() != u64::from(self.sequence) {
                        return Outcome::Dropped;
                    }
                }
            }
            port.pause(round);
        }
        Outcome::Silent
    }
}

/// Handles the error bits. Returns whether a descriptor was refused and whether waits were
/// dropped.
fn recover(memory: &Memory, port: &impl Port, fault: FSTS) -> (bool, bool) {
    let refused = fault.invalidation_queue().into_bool();
    let dropped = fault.invalidation_timeout().into_bool();
    let record = port.error_record();

    if refused {
        // The head stands at the culprit, and nothing is fetched until the bit is cleared.
        let slot = port.head() % SLOTS;
        port.report(record.queue_error_text(), memory.load(slot).map(Descriptor));
        // A wait that writes to a word that nobody reads does nothing. It must not be a copy
        // of this batch's own wait: that would end the batch before the rest of it has run.
        let nothing = Descriptor::wait(memory.status.phys() + 8, 0);
        if memory.store(slot, &nothing.0).is_ok() {
            port.acknowledge(FSTS::acknowledge_queue_error());
        }
    }
    if dropped {
        port.report("a device did not answer an invalidation in time", None);
        port.acknowledge(FSTS::acknowledge_timeout());
    }
    if fault.invalidation_completion().into_bool() {
        port.report("an unexpected invalidation completion arrived", None);
        port.acknowledge(FSTS::acknowledge_completion());
    }
    (refused, dropped)
}
