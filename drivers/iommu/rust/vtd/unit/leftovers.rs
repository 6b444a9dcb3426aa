// SPDX-License-Identifier: GPL-2.0

//! Switching off what another kernel, or firmware, has left on.
//!
//! A kernel that was started by kexec may find the queue on, and translation with it: the C driver
//! leaves the queue on. The order is that of C (`init_dmars()`): drain the queue and switch it off,
//! translation last. If the queue does not stop, memory stays protected.
//!
//! Once translation is off, a request for an IOVA reaches memory at that physical address. A kernel
//! that has ended normally has shut its devices down. A crashed kernel has not: the driver takes no
//! unit in the kernel that collects the dump (see [`lifecycle`](kernel::iommu::lifecycle)).
//!
//! VT-d specification, 6.5.2 (queue) and 11.4.4 (commands).

use kernel::{
    io::{
        poll::read_poll_timeout_atomic,
        Io, //
    },
    prelude::*,
    sync::atomic::Relaxed, //
};

use super::{
    control::{
        Command,
        COMMAND_DELAY,
        COMMAND_ROUNDS, //
    },
    Unit, //
};

use crate::regs::{
    command::GSTS,
    fault::FSTS,
    queue::{
        IQH,
        IQT, //
    }, //
};

/// The parts of the unit that are on without an owner. `shared`: the queue is the kernel's.
fn found_on(status: GSTS, shared: bool) -> Option<&'static str> {
    match (status.translation(), status.queue() && !shared) {
        (false, false) => None,
        (false, true) => Some("the invalidation queue"),
        (true, false) => Some("translation"),
        (true, true) => Some("translation and the invalidation queue"),
    }
}

impl Unit {
    /// Whether translation is on and must stay on.
    pub(super) fn must_stay_on(&self) -> bool {
        self.must_translate.load(Relaxed) && self.translates.load(Relaxed)
    }

    /// Waits until the queue is empty.
    pub(super) fn drain_queue(&self) -> Result {
        let regs = &self.regs;
        read_poll_timeout_atomic(
            || Ok((regs.read(IQH).index(), regs.read(IQT))),
            |(head, tail)| IQT::at(*head) == *tail,
            COMMAND_DELAY,
            COMMAND_ROUNDS,
        )?;
        Ok(())
    }

    /// Switches off what another kernel has left on. The queue of a shared unit is this kernel's.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no unit any more; `ETIMEDOUT` if it does not obey: it is dead then.
    pub(super) fn reset(&self) -> Result {
        let status = self.regs.read(GSTS);
        if status.into_raw() == u32::MAX {
            return Err(ENODEV);
        }
        if let Some(own) = self.control.as_own() {
            own.adopt(status);
            if status.queue() {
                // As in C, a queue that does not become empty is switched off as well.
                let _ = self.drain_queue();
                self.command(Command::Queue(false))?;
            }
            self.regs.write_reg(FSTS::acknowledge_queue());
        }
        if status.translation() && !self.must_stay_on() {
            self.command(Command::Translation(false))?;
        }
        Ok(())
    }

    /// Switches off what was on without an owner when the unit was taken. May sleep.
    ///
    /// # Errors
    ///
    /// The errors of [`Self::reset`]; the log names each error.
    pub(crate) fn stop_leftovers(&self) -> Result {
        let shared = self.control.as_own().is_none();
        let Some(what) = found_on(self.regs.read(GSTS), shared) else {
            return Ok(());
        };
        self.reset().inspect_err(|error| {
            pr_err!(
                "dmar{}: {} was left on by an earlier kernel or by firmware, and does not stop: \
                 {:?}; reset the machine\n",
                self.number,
                what,
                *error
            );
        })?;
        pr_warn!(
            "dmar{}: stopped {}, left on by an earlier kernel or by firmware\n",
            self.number,
            what
        );
        Ok(())
    }
}

#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
#[kunit_tests(rust_vtd_leftovers)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_is_named() {
        const QUEUE: u32 = 1 << 26;
        const TRANSLATION: u32 = 1 << 31;
        let found = |bits, shared| found_on(GSTS::from_raw(bits), shared);

        // The root pointer alone has no effect, nor have interrupts.
        assert_eq!(found(1 << 30 | 1 << 25, false), None);
        assert_eq!(found(QUEUE, false), Some("the invalidation queue"));
        assert_eq!(found(QUEUE, true), None);
        assert_eq!(found(QUEUE | TRANSLATION, true), Some("translation"));
        assert_eq!(found(TRANSLATION, false), Some("translation"));
        assert!(found(QUEUE | TRANSLATION, false).is_some_and(|text| text.contains(" and ")));
    }
}
