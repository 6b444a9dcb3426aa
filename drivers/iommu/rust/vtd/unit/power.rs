// SPDX-License-Identifier: GPL-2.0

//! Switching a unit on, and off again with its original state.
//!
//! VT-d specification, 6.5.2 (queue), 11.4.4 (commands) and 11.4.8 (protected memory).
//!
//! The unit loses its registers in a sleep of the machine. Before the sleep, the driver switches
//! the queue off, and translation last, so that a queue that does not stop leaves memory protected.
//! After the sleep, the order is that of C (`init_iommu_hw()`): the queue comes first, then the
//! root table, the invalidations, translation, and the protected memory. By then the kernel has
//! resumed its interrupt remapping with the local APIC, and on a shared unit the queue with it: the
//! kernel registers that call early at boot.

use kernel::{
    io::{
        poll::read_poll_timeout_atomic,
        Io, //
    },
    iommu::units::Power,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc, //
    }, //
};

use super::{
    control::{
        Command,
        Own,
        COMMAND_DELAY,
        COMMAND_ROUNDS, //
    },
    Unit, //
};

use crate::{
    qi,
    regs::{
        command::{
            PMEN,
            RTADDR, //
        },
        fault::{
            FAULT_EVENT,
            FECTL, //
        },
        queue::{
            IQA,
            IQT, //
        }, //
    }, //
};

/// A unit whose queue runs and whose root table is set.
///
/// Dropping it switches off what this has switched on, and restores the registers.
pub(crate) struct Powered {
    unit: Arc<Unit>,
    root: RTADDR,
    queue: IQA,
    protected: PMEN,
    events: FECTL,
    /// What [`FAULT_EVENT`] held before a sleep, on a shared unit: the kernel's.
    fault_event: [Atomic<u32>; FAULT_EVENT.len()],
}

impl Power for Powered {
    type Unit = Unit;

    fn new(unit: Arc<Unit>) -> Result<Self> {
        let regs = &unit.regs;
        let powered = Self {
            root: regs.try_read(RTADDR)?,
            queue: regs.try_read(IQA)?,
            protected: regs.read(PMEN),
            events: regs.read(FECTL),
            fault_event: [const { Atomic::new(0) }; FAULT_EVENT.len()],
            unit,
        };
        // From here on an error drops `powered`.
        powered.start().inspect_err(|error| {
            pr_err!(
                "dmar{}: does not start: {:?}\n",
                powered.unit.number,
                *error
            );
        })?;
        Ok(powered)
    }

    fn unit(&self) -> &Arc<Unit> {
        &self.unit
    }

    fn enable_translation(&self) -> Result {
        let unit = &self.unit;
        unit.command(Command::Translation(true))?;
        // Full, against `Control::kill()`: a CPU that marks the unit dead sees this store, or this
        // CPU sees the mark.
        unit.translates.xchg(true, Full);
        if unit.is_dead() {
            unit.isolate("does not answer an invalidation");
            return Err(EIO);
        }
        let regions = unit.regs.read(PMEN);
        if unit.caps.protected_memory() && regions.enable() {
            // The regions block DMA to part of the kernel's own memory, whatever the tables say.
            // They stay enabled until translation is on (11.4.8), so memory is protected at
            // every moment.
            self.set_protected(regions.with_enable(false))?;
            pr_info!("dmar{}: lifted the protection of memory\n", unit.number);
        }
        Ok(())
    }

    /// A unit reports faults by a message-signalled interrupt. The unit is not a PCI function, so
    /// on x86 a module cannot request its interrupt.
    ///
    /// A shared unit has a handler: the kernel's.
    fn needs_polling(&self) -> bool {
        self.unit.control.as_own().is_some()
    }

    fn complain(&self, what: &str) {
        pr_err!("dmar{}: {}\n", self.unit.number, what);
    }

    fn suspend(&self) -> Result {
        let unit = &self.unit;
        if unit.is_dead() && unit.translates.load(Relaxed) {
            return Err(EIO);
        }
        if unit.control.as_own().is_none() {
            self.save_fault_event()?;
        }
        // As in C (`iommu_disable_translation()`). The sleep switches it off.
        if self.unit.must_stay_on() {
            return Ok(());
        }
        // Translation goes off last: if the queue does not stop the machine stays awake, and memory
        // protected.
        if let Some(own) = unit.control.as_own() {
            self.give_up_on_error(self.halt_queue(own))?;
        }
        unit.command(Command::Translation(false))
    }

    fn resume(&self) -> Result {
        if self.unit.is_dead() {
            return Err(EIO);
        }
        self.give_up_on_error(self.unit.reset().and_then(|()| self.wake()))
    }
}

impl Powered {
    /// Gives the unit up if `result` is an error.
    fn give_up_on_error(&self, result: Result) -> Result {
        result.inspect_err(|_| {
            if self.unit.control.kill() {
                self.unit
                    .isolate("does not obey around a sleep of the machine");
            }
        })
    }

    /// The kernel restores these only if its own driver translates.
    fn save_fault_event(&self) -> Result {
        for (offset, value) in FAULT_EVENT.iter().zip(&self.fault_event) {
            value.store(self.unit.regs.try_read32(*offset)?, Relaxed);
        }
        Ok(())
    }

    fn restore_fault_event(&self) -> Result {
        // The mask comes last.
        for (offset, value) in FAULT_EVENT.iter().zip(&self.fault_event).rev() {
            self.unit.regs.try_write32(value.load(Relaxed), *offset)?;
        }
        Ok(())
    }

    /// Switches on again what was on before a sleep.
    pub(super) fn wake(&self) -> Result {
        let unit = &self.unit;
        if unit.control.as_own().is_none() {
            self.restore_fault_event()?;
        }
        self.start()?;
        if unit.translates.load(Relaxed) {
            self.enable_translation()?;
        }
        Ok(())
    }

    /// Starts the queue and sets the root table.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` if the unit does not obey.
    fn start(&self) -> Result {
        let unit = &self.unit;
        if let Some(own) = unit.control.as_own() {
            self.start_queue(own)?;
        }
        unit.flush_write_buffer()?;

        self.set_root(RTADDR::scalable(unit.root.phys()))?;
        self.forget_all(true)
    }

    fn start_queue(&self, own: &Own) -> Result {
        let regs = &self.unit.regs;
        // Faults are polled: no handler would receive the interrupt.
        regs.write_reg(self.events.with_masked(true));

        regs.write_reg(IQT::at(0));
        regs.try_write_reg(qi::address(own.ring()))?;
        self.unit.command(Command::Queue(true))?;
        own.run(true);
        Ok(())
    }

    fn set_root(&self, root: RTADDR) -> Result {
        self.unit.regs.try_write_reg(root)?;
        self.unit.command(Command::SetRoot)
    }

    /// Invalidates what the unit cached under an earlier root table; on some units, setting the
    /// root table does that by itself. PASID caches and their descriptors exist only in scalable
    /// mode (6.5.2.2).
    fn forget_all(&self, scalable: bool) -> Result {
        let unit = &self.unit;
        if unit.caps.enhanced_set_root() {
            return Ok(());
        }
        let [context, pasid, iotlb] = unit.everything();
        if scalable {
            unit.submit(&[context, pasid, iotlb])
        } else {
            unit.submit(&[context, iotlb])
        }
    }

    /// Whether the unit was found with protected regions.
    fn is_protected(&self) -> bool {
        self.unit.caps.protected_memory() && self.protected.enable()
    }

    fn set_protected(&self, value: PMEN) -> Result {
        let regs = &self.unit.regs;
        let wanted = value.enable();
        regs.write_reg(value);
        read_poll_timeout_atomic(
            || Ok(regs.read(PMEN)),
            |now| now.in_force() == wanted,
            COMMAND_DELAY,
            COMMAND_ROUNDS,
        )?;
        Ok(())
    }

    fn stop(&self) -> Result {
        let unit = &self.unit;
        let regs = &unit.regs;
        if unit.is_dead() && unit.translates.load(Relaxed) {
            // Translation may be the only protection of memory from devices.
            return Err(EIO);
        }
        if self.is_protected() && !regs.read(PMEN).enable() {
            self.set_protected(self.protected)?;
        }
        unit.command(Command::Translation(false))?;
        unit.translates.store(false, Relaxed);

        if unit.fetches() {
            self.forget_all(true)?;
        }
        self.set_root(self.root)?;
        if unit.fetches() {
            self.forget_all(self.root.is_scalable())?;
        }
        match unit.control.as_own() {
            Some(own) => self.stop_queue(own),
            None => Ok(()),
        }
    }

    fn halt_queue(&self, own: &Own) -> Result {
        own.run(false);
        if own.was_enabled() {
            // The queue may be switched off only while it is empty.
            self.unit.drain_queue()?;
            self.unit.command(Command::Queue(false))?;
        }
        Ok(())
    }

    fn stop_queue(&self, own: &Own) -> Result {
        let regs = &self.unit.regs;
        self.halt_queue(own)?;
        regs.write_reg(IQT::at(0));
        regs.try_write_reg(self.queue)?;
        regs.write_reg(self.events);
        Ok(())
    }
}

impl Drop for Powered {
    fn drop(&mut self) {
        let number = self.unit.number;
        if self.unit.must_stay_on() {
            pr_warn!(
                "dmar{}: stays on, and keeps its tables: its graphics device hangs if translation \
                 is switched off; reset the machine before another driver takes the unit\n",
                number
            );
        } else if let Err(error) = self.stop() {
            pr_err!(
                "dmar{}: does not stop: {:?}; its tables are kept, as it may still read them: \
                 restart the machine before another driver uses the unit\n",
                number,
                error
            );
        } else {
            return;
        }
        // One reference that is never dropped.
        core::mem::forget(self.unit.clone());
    }
}
