// SPDX-License-Identifier: GPL-2.0

//! Switching a unit on, and off again with its original state.
//!
//! Specification, 3.4.1 and 3.4.3 for the registers, 2.4 and 2.5 for the command buffer and the
//! event log. A unit fetches commands only while it translates, so the driver sets everything up
//! before, and invalidates all caches right after.
//!
//! The unit loses its registers in a sleep of the machine. Before the sleep, the driver switches
//! the rings off, and translation last, so that a ring that does not stop leaves memory protected.
//! After the sleep, the order is that of C (`early_enable_iommu()`). C also repairs what the
//! firmware of one chipset leaves undone (RD890, `iommu_apply_resume_quirks()`), and this driver
//! does not: if the registers are gone, the unit is given up.

use kernel::{
    io::{
        poll::read_poll_timeout_atomic,
        Io, //
    },
    iommu::{
        pci::{
            msi::Interrupt,
            unit::UnitFunction, //
        },
        units::Power, //
    },
    prelude::*,
    str::CString,
    sync::{
        atomic::Relaxed,
        Arc, //
    },
    time::Delta, //
};

use super::Unit;

use crate::{
    cmd::desc::Command,
    iotlb::Tag,
    regs::{
        control::{
            CONTROL,
            DEVTAB,
            EXCLUSION,
            STATUS,
            TIMEOUT_SECOND, //
        },
        queue::{
            CMDBUF,
            CMDHEAD,
            CMDTAIL,
            EVTHEAD,
            EVTLOG,
            EVTTAIL, //
        }, //
    }, //
};

/// The number of polls of a status, ten microseconds apart: one second.
const STATUS_ROUNDS: usize = 100_000;

/// Time between two polls.
const STATUS_DELAY: Delta = Delta::from_micros(10);

/// The number of commands of a batch, if there are many.
const BATCH: usize = 32;

/// A unit whose tables and rings are set.
///
/// Dropping it switches everything off and restores the registers.
pub(crate) struct Powered {
    unit: Arc<Unit>,
    table: DEVTAB,
    commands: CMDBUF,
    events: EVTLOG,
    exclusion: EXCLUSION,
    control: CONTROL,
    /// For events; without it they are polled.
    interrupt: Option<Interrupt<Unit>>,
}

impl Power for Powered {
    type Unit = Unit;

    fn new(unit: Arc<Unit>) -> Result<Self> {
        let regs = &unit.regs;
        let mut powered = Self {
            table: regs.try_read(DEVTAB)?,
            commands: regs.try_read(CMDBUF)?,
            events: regs.try_read(EVTLOG)?,
            exclusion: regs.try_read(EXCLUSION)?,
            control: regs.try_read(CONTROL)?,
            interrupt: None,
            unit,
        };
        // From here on an error drops `powered`.
        powered.start().inspect_err(|error| {
            pr_err!(
                "ivhd{}: does not start: {:?}\n",
                powered.unit.number,
                *error
            );
        })?;
        powered.interrupt = powered.request_interrupt();
        Ok(powered)
    }

    fn unit(&self) -> &Arc<Unit> {
        &self.unit
    }

    fn enable_translation(&self) -> Result {
        let unit = &self.unit;
        unit.commands.run(|| {
            unit.set_control(|control| {
                control
                    .with_guest_translation(unit.caps.guest_translation())
                    .with_commands(true)
                    .with_events(true)
                    .with_event_interrupt(self.interrupt.is_some())
                    .with_enable(true)
            })
        })?;
        self.forget_all()?;
        unit.go_live()
    }

    /// Only if the PCI function of the unit has given no interrupt.
    fn needs_polling(&self) -> bool {
        self.interrupt.is_none()
    }

    fn complain(&self, what: &str) {
        pr_err!("ivhd{}: {}\n", self.unit.number, what);
    }

    fn suspend(&self) -> Result {
        let unit = &self.unit;
        if unit.live.load(Relaxed) {
            unit.check()?;
        }
        // A new log begins after it.
        unit.poll_events();
        // Runs all batches that a task has begun and does not wait for yet.
        unit.submit(&[])?;
        // Translation goes off last: if a ring does not stop the machine stays awake, and memory
        // protected.
        let halted = unit.end_events().and_then(|()| self.halt_commands());
        self.give_up_on_error(halted)?;
        unit.set_control(|control| control.with_enable(false))
    }

    fn resume(&self) -> Result {
        self.unit.check()?;
        self.give_up_on_error(self.reset().and_then(|()| self.wake()))
    }
}

impl Unit {
    /// Waits until the rings stand still.
    pub(super) fn wait_for_rings(&self) -> Result {
        read_poll_timeout_atomic(
            || self.regs.try_read(STATUS),
            |status| !status.commands() && !status.events(),
            STATUS_DELAY,
            STATUS_ROUNDS,
        )?;
        Ok(())
    }
}

impl Powered {
    /// Gives the unit up if `result` is an error.
    fn give_up_on_error(&self, result: Result) -> Result {
        result.inspect_err(|error| {
            let unit = &self.unit;
            if !unit.commands.give_up() {
                return;
            }
            pr_err!(
                "ivhd{}: does not obey around a sleep of the machine: {:?}\n",
                unit.number,
                *error
            );
            if unit.live.load(Relaxed) {
                unit.isolate("does not obey around a sleep of the machine");
            }
        })
    }

    /// Stops the rings that another kernel has left on, which has restored this one from disk.
    fn reset(&self) -> Result {
        let found = self.unit.regs.try_read(CONTROL)?;
        if found.into_raw() == u64::MAX {
            return Err(ENODEV);
        }
        self.unit
            .set_control(|_| found.with_commands(false).with_events(false))?;
        self.unit.wait_for_rings()
    }

    /// Switches on again what was on before a sleep.
    fn wake(&self) -> Result {
        self.start()?;
        if let Some(interrupt) = &self.interrupt {
            interrupt.restore();
        }
        if self.unit.live.load(Relaxed) {
            self.enable_translation()?;
        }
        Ok(())
    }

    /// Switches the command buffer off; the event log is off.
    fn halt_commands(&self) -> Result {
        let unit = &self.unit;
        unit.commands.end();
        unit.set_control(|control| control.with_commands(false))?;
        self.unit.wait_for_rings()
    }

    fn request_interrupt(&self) -> Option<Interrupt<Unit>> {
        let unit = &self.unit;
        let function = UnitFunction::find(unit.info.segment, unit.info.source)?;
        let name = CString::try_from_fmt(fmt!("rust_amdvi ivhd{}", unit.number)).ok()?;
        Interrupt::request(function, name, unit.clone())
            .inspect_err(|error| {
                pr_info!(
                    "ivhd{}: no interrupt for events, polling instead: {:?}\n",
                    unit.number,
                    *error
                );
            })
            .ok()
    }

    /// Sets the tables and rings.
    fn start(&self) -> Result {
        let unit = &self.unit;
        let regs = &unit.regs;
        // Keeps no bit: an earlier kernel may have left a segmented device table on, or logs and
        // interrupts that this driver does not handle.
        unit.set_control(|_| {
            CONTROL::zeroed()
                .with_firmware_flags(unit.info.flags)
                .with_coherent(true)
                .with_wide_interrupts(unit.caps.remaps_interrupts())
                .with_const_invalidation_timeout::<TIMEOUT_SECOND>()
        })?;
        // Accesses to such a range bypass the unit, those of all devices if ALLOW is set.
        regs.try_write_reg(EXCLUSION::zeroed())?;
        regs.try_write_reg(unit.table.address())?;
        regs.try_write_reg(unit.commands.address())?;
        regs.write_reg(CMDHEAD::from_raw(0));
        regs.write_reg(CMDTAIL::at(0));
        regs.try_write_reg(unit.log.address())?;
        regs.write_reg(EVTHEAD::at(0));
        regs.write_reg(EVTTAIL::from_raw(0));
        Ok(())
    }

    /// Invalidates all caches of the unit.
    fn forget_all(&self) -> Result {
        let unit = &self.unit;
        if unit.caps.invalidate_all() {
            unit.submit(&[Command::all()])?;
        } else {
            // CAST: The table has at most 2^16 entries.
            let entries =
                (0..unit.table.sources()).map(|source| Command::device_entry(source as u16));
            submit_all(unit, entries)?;
            let host = (0..=u16::MAX).map(|domain| {
                Tag {
                    domain,
                    pasid: None,
                }
                .all()
            });
            submit_all(unit, host)?;
            let interrupts =
                (0..unit.table.sources()).map(|source| Command::interrupt_table(source as u16));
            submit_all(unit, interrupts)?;
        }
        // An emulated unit reconsiders a device that bypasses it only on a command for its entry.
        unit.table
            .for_each_claim(|source| unit.submit(&[Command::device_entry(source)]))
    }

    fn stop(&mut self) -> Result {
        self.unit.end_events()?;
        // Waits for a running handler. The original control register may have the interrupt on.
        self.interrupt = None;

        let unit = &self.unit;
        let regs = &unit.regs;
        if unit.is_dead() && unit.live.load(Relaxed) {
            // Without translation its devices would reach all memory as soon as they get bus
            // mastering again.
            return Err(EIO);
        }
        let stopped = self.halt_commands();
        // Translation goes off whether or not the rings stop; the memory of rings that do not stop
        // is kept.
        unit.set_control(|control| control.with_enable(false))?;
        unit.live.store(false, Relaxed);
        stopped?;
        regs.write_reg(CMDHEAD::from_raw(0));
        regs.write_reg(CMDTAIL::at(0));
        regs.write_reg(EVTHEAD::at(0));
        regs.write_reg(EVTTAIL::from_raw(0));
        regs.try_write_reg(self.commands)?;
        regs.try_write_reg(self.events)?;
        regs.try_write_reg(self.exclusion)?;
        regs.try_write_reg(self.table)?;
        unit.set_control(|_| self.control)
    }
}

/// Submits any number of commands. Does not allocate.
fn submit_all(unit: &Unit, mut commands: impl Iterator<Item = Command>) -> Result {
    let mut batch = [Command::NOTHING; BATCH];
    loop {
        let mut count = 0;
        for (place, command) in batch.iter_mut().zip(&mut commands) {
            *place = command;
            count += 1;
        }
        if count == 0 {
            return Ok(());
        }
        unit.submit(batch.get(..count).unwrap_or(&[]))?;
    }
}

impl Drop for Powered {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            let unit = &self.unit;
            unit.commands.give_up();
            pr_err!(
                "ivhd{}: does not stop: {:?}; its tables are kept, as it may still read them: \
                 restart the machine before another driver uses the unit\n",
                unit.number,
                error
            );
            // One reference that is never dropped.
            core::mem::forget(unit.clone());
        }
    }
}
