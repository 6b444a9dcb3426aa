// SPDX-License-Identifier: GPL-2.0

//! The invalidation queue: descriptors, and recovery from errors.
//!
//! VT-d specification, 6.5.2 and 6.5.2.10 (errors). Batches of several CPUs are in flight at once:
//! see [`ring`]. The effects of an error:
//!
//! - a descriptor that the unit refuses (IQE) stops the unit: the driver replaces the descriptor by
//!   one that does nothing, all others run, and the batch of the refused one fails with `EINVAL`.
//!   If the unit refuses the replacement as well, or refuses the queue instead of a descriptor, it
//!   is dead;
//! - a device that does not answer (ITE) makes the unit abort the waits that it has fetched: each
//!   CPU submits its batch again, a few times. This driver enables no device TLB, so a unit that
//!   keeps doing that is dead;
//! - the driver reports and clears an unexpected completion (ICE).

pub(crate) mod desc;
#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
mod tests;

use kernel::{
    iommu::hw::ring,
    prelude::*,
    sizes::SZ_8K, //
};

use crate::regs::{
    fault::FSTS,
    queue::{
        QueueError,
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

/// The registers of the queue.
pub(crate) trait Port {
    /// Index of the descriptor that the unit fetches next.
    fn head(&self) -> usize;
    /// Tells the unit that there are descriptors up to `index`, which is not one of them.
    fn set_tail(&self, index: usize);
    /// The error bits.
    fn fault(&self) -> FSTS;
    /// Clears error bits.
    fn acknowledge(&self, fault: FSTS);
    /// Details of an error.
    fn error_record(&self) -> IQERCD;
    /// Prints a message about an error.
    fn report(&self, what: &str, descriptor: Option<Descriptor>);
    /// Waits about a microsecond, less in the first rounds.
    fn pause(&self, round: u32) {
        ring::pause(round);
    }
}

/// The memory of a ring. Waits write 32 bits of the word of their slot; the others stay zero.
pub(crate) type Memory = ring::Memory<WORDS>;

/// A ring of wide descriptors.
pub(crate) type Queue = ring::Queue<WORDS>;

/// What to write to `IQA`.
pub(crate) fn address(memory: &Memory) -> IQA {
    IQA::wide_queue(memory.slots.phys(), RING_ORDER)
}

/// A unit as its ring sees it.
pub(crate) struct Hardware<'a, P>(pub(crate) &'a P);

impl<P: Port> ring::Port<WORDS> for Hardware<'_, P> {
    fn set_tail(&self, index: usize) {
        self.0.set_tail(index);
    }

    fn wait_command(&self, status: u64, number: u32) -> [u64; WORDS] {
        Descriptor::wait(status, number).0
    }

    fn has_error(&self) -> bool {
        self.0.fault().queue_error()
    }

    fn recover(&self, pending: &mut ring::Pending<'_, WORDS>) -> Result {
        let port = self.0;
        let fault = port.fault();
        if fault.invalidation_completion() {
            port.report("an unexpected invalidation completion arrived", None);
            port.acknowledge(FSTS::acknowledge_completion());
        }
        if fault.invalidation_timeout() {
            port.report("a device did not answer an invalidation in time", None);
            // The unit fetches nothing until the bit is cleared, so the head does not move.
            pending.drop_before(port.head() % SLOTS);
            port.acknowledge(FSTS::acknowledge_timeout());
        }
        if fault.invalidation_queue() {
            // The head is at the refused descriptor, and the unit fetches nothing until the bit is
            // cleared.
            let slot = port.head() % SLOTS;
            let error = QueueError::from(port.error_record().queue_error());
            let culprit = pending.memory().load(slot).map(Descriptor);
            port.report(error.text(), culprit);
            if !error.is_about_descriptor() || !pending.refuse(slot) {
                return Err(EIO);
            }
            // A wait whose status word is never read does nothing.
            let nothing = Descriptor::wait(pending.memory().nowhere(), 0);
            pending.memory().store(slot, &nothing.0)?;
            port.acknowledge(FSTS::acknowledge_queue_error());
            // The unit goes on when the bit is cleared, but QEMU's only when the tail is written.
            // The specification (11.4.9.2) does not speak of writing the value that the register
            // has: this says only that there is nothing new.
            port.set_tail(pending.tail());
        }
        Ok(())
    }

    fn pause(&self, round: u32) {
        self.0.pause(round);
    }
}
