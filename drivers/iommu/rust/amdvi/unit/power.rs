// SPDX-License-Identifier: GPL-2.0

//! Switching a unit on, and off again to the state in which it was found.
//!
//! Specification, 3.4.1 and 3.4.3 for the registers, 2.4 and 2.5 for the command buffer and the
//! event log. A unit fetches commands only while it translates, so all is set up before, and it is
//! made to forget everything right after.

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

/// How often a status is looked at, ten microseconds apart: a second.
const STATUS_ROUNDS: usize = 100_000;

/// Time between two looks.
const STATUS_DELAY: Delta = Delta::from_micros(10);

/// Commands that are submitted at once where there are many.
const BATCH: usize = 256;

/// A unit whose tables and rings are set.
///
/// Dropping it switches everything off and puts the registers back.
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
}

impl Powered {
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
        // Nothing of what was found: an earlier kernel may have left a segmented device table on,
        // logs of which this driver knows nothing, or interrupts that take another way.
        unit.set_control(|_| {
            CONTROL::zeroed()
                .with_firmware_flags(unit.info.flags)
                .with_coherent(true)
                .with_const_invalidation_timeout::<TIMEOUT_SECOND>()
        })?;
        // Accesses to such a range would pass the unit, those of all devices if ALLOW is set.
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

    /// Makes the unit forget everything.
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
        }
        // Emulated units look at a device's way past them again only for its own entry.
        unit.table
            .for_each_claim(|source| unit.submit(&[Command::device_entry(source)]))
    }

    fn stop(&mut self) -> Result {
        self.unit.end_events()?;
        // Waits for a handler that is under way. The control register that is put back below may
        // have the interrupt on.
        self.interrupt = None;

        let unit = &self.unit;
        let regs = &unit.regs;
        if unit.is_dead() && unit.live.load(Relaxed) {
            // Without translation its devices would reach all memory as soon as they are given bus
            // mastering again.
            return Err(EIO);
        }
        unit.commands.end();
        unit.set_control(|control| control.with_commands(false))?;
        let stopped = read_poll_timeout_atomic(
            || regs.try_read(STATUS),
            |status| !status.commands() && !status.events(),
            STATUS_DELAY,
            STATUS_ROUNDS,
        );
        // Devices do without translation from now on, whether or not the rings stop; the memory of
        // rings that do not is kept.
        unit.set_control(|control| control.with_enable(false))?;
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

/// Submits any number of commands.
fn submit_all(unit: &Unit, commands: impl Iterator<Item = Command>) -> Result {
    let mut batch = KVec::with_capacity(BATCH, GFP_KERNEL)?;
    for command in commands {
        if batch.push_within_capacity(command).is_err() {
            unit.submit(&batch)?;
            batch.clear();
            batch.push_within_capacity(command).map_err(|_| EINVAL)?;
        }
    }
    unit.submit(&batch)
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
