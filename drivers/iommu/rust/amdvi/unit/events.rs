// SPDX-License-Identifier: GPL-2.0

//! The event log of a unit: its registers, its interrupt, and when it ends.

use kernel::{
    io::Io,
    iommu::pci::msi,
    prelude::*,
    time::{
        delay::{
            fsleep,
            udelay, //
        },
        Delta, //
    }, //
};

use super::Unit;

use crate::{
    event::{
        self,
        Outcome, //
    },
    regs::{
        control::STATUS,
        queue::{
            EVTHEAD,
            EVTTAIL, //
        }, //
    }, //
};

/// Pauses of a microsecond for an event that the unit has announced and not written yet.
const EVENT_ROUNDS: u32 = 100;

/// The pause for other work while events keep coming.
const EVENT_PAUSE: Delta = Delta::from_millis(1);

impl Unit {
    /// Prints the events that the unit has logged and frees their entries, while the log is on.
    ///
    /// Context: any.
    pub(crate) fn poll_events(&self) -> Outcome {
        let _events = self.events.lock();
        // Once the log is off, the registers may have the values of an earlier owner.
        if self.logs_events() {
            event::drain(&self)
        } else {
            Outcome::Done
        }
    }

    /// Switches the log and its interrupt off. When this returns, no CPU reads the log or switches
    /// it on again.
    ///
    /// Context: any.
    pub(super) fn end_events(&self) -> Result {
        let _events = self.events.lock();
        self.set_control(|control| control.with_event_interrupt(false).with_events(false))
    }

    /// Whether events are logged. It stays so under the lock of the log.
    fn logs_events(&self) -> bool {
        self.control.lock().events()
    }
}

impl event::Source for &Unit {
    fn flags(&self) -> STATUS {
        // The offset is valid, so there is no error.
        self.regs.try_read(STATUS).unwrap_or(STATUS::zeroed())
    }

    fn acknowledge(&self) {
        // As above.
        let _ = self.regs.try_write_reg(STATUS::acknowledge_events());
    }

    fn read(&self) -> bool {
        let mut head = self.regs.read(EVTHEAD).index();
        let tail = self.regs.read(EVTTAIL).index();
        while head != tail {
            let event = (0..EVENT_ROUNDS).find_map(|_| {
                self.log.take(head).or_else(|| {
                    udelay(Delta::from_micros(1));
                    None
                })
            });
            head = EVTHEAD::at(head + 1).index();
            self.regs.write_reg(EVTHEAD::at(head));
            let Some(event) = event else {
                // The wait may be as long for the next, and interrupts are disabled.
                return false;
            };
            self.counters.faults.add(1);
            if self.limit.allows() {
                pr_err!("ivhd{}: {}\n", self.number, event);
            }
        }
        true
    }

    /// An overflow has stopped the log (2.5.1).
    fn restart(&self) {
        if self.limit.allows() {
            pr_err!("ivhd{}: more events than the log holds\n", self.number);
        }
        // As above.
        let _ = self.set_control(|control| control.with_events(false));
        self.regs.write_reg(EVTHEAD::at(0));
        self.regs.write_reg(EVTTAIL::from_raw(0));
        let _ = self.regs.try_write_reg(STATUS::acknowledge_overflow());
        let _ = self.set_control(|control| control.with_events(true));
    }
}

impl msi::Handler for Unit {
    fn handle(&self) {
        if event::drain_all(|| self.poll_events(), || fsleep(EVENT_PAUSE)).is_ok() {
            return;
        }
        // The offset is valid, so there is no error.
        let _ = self.end_events();
        pr_err!(
            "ivhd{}: does not stop its event log after an overflow, so no more events are shown: \
             reload the driver to see more; if it happens again, update the firmware\n",
            self.number
        );
    }
}
