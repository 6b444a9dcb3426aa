// SPDX-License-Identifier: GPL-2.0

//! A unit whose registers are memory: it obeys, or does not, as the test has written down.
//!
//! What a unit does not do in time costs the second after which it is given up.

use super::{
    power::Powered,
    *, //
};
use crate::{
    acpi::tests::made_up_unit,
    event::Outcome,
    regs::{
        cap::{
            Header,
            EFR,
            EFR2, //
        },
        control::{
            DEVTAB,
            EXCLUSION,
            TIMEOUT_SECOND, //
        },
        queue::{
            CMDBUF,
            EVTHEAD,
            EVTLOG,
            EVTTAIL, //
        }, //
    }, //
};
use kernel::{
    iommu::{
        pci::msi::{
            self,
            Interrupt, //
        },
        units::Power, //
    },
    str::CString,
    sync::Arc, //
};

/// What an owner before us has left.
const OLD_TABLE: u64 = 0x1234_5001;
const OLD_COMMANDS: u64 = 0x6789_a000 | 8 << 56;
const OLD_EVENTS: u64 = 0xbcde_f000 | 8 << 56;
const OLD_EXCLUSION: u64 = 0x4321_0000 | 0b11;
/// What it has left on: PPRLogEn, PPRIntEn, PPREn, GAEn, GALogEn, DevTblSegEn, XTEn, IntCapXTEn,
/// IRTCacheDis; and COHERENT.
const OLD_CONTROL: u64 =
    0b111 << 13 | 1 << 17 | 1 << 28 | 0b11 << 34 | 0b11 << 50 | 1 << 59 | 1 << 10;

/// An event: a command is illegal, the one at 0x9000.
const EVENT: [u64; 2] = [0x5 << 60, 0x9000];

fn unit() -> Result<Arc<Unit>> {
    // Everything can be invalidated by one command.
    unit_with(1 << 6)
}

fn unit_with(efr: u64) -> Result<Arc<Unit>> {
    let (efr, efr2) = (EFR::from_raw(efr), EFR2::from_raw(0));
    let caps = Caps::new(Header::from_raw(1 << 27), efr, efr2, 0, false);
    let regs = PhysMem::in_memory()?;
    let control = CONTROL::from_raw(OLD_CONTROL);
    let (info, isolate) = (made_up_unit()?, |_: usize| Some(0));
    let unit = Unit::new(9, info, caps, None, regs, control, isolate, |_| false)?;
    unit.regs.try_write_reg(DEVTAB::from_raw(OLD_TABLE))?;
    unit.regs.try_write_reg(CMDBUF::from_raw(OLD_COMMANDS))?;
    unit.regs.try_write_reg(EVTLOG::from_raw(OLD_EVENTS))?;
    unit.regs
        .try_write_reg(EXCLUSION::from_raw(OLD_EXCLUSION))?;
    unit.regs.try_write_reg(control)?;
    Ok(unit)
}

/// A unit with GASup, dead or not.
pub(crate) fn remapping_unit(is_dead: bool) -> Result<Arc<Unit>> {
    let unit = unit_with(1 << 6 | 1 << 7)?;
    if is_dead {
        unit.commands.give_up();
    }
    Ok(unit)
}

/// A unit that carries out the first `batches` batches of commands, and no more.
pub(crate) fn unit_until(batches: u64) -> Result<Arc<Unit>> {
    let unit = unit()?;
    say_running(&unit, true)?;
    unit.commands.run(|| Ok(()))?;
    unit.commands.answer(batches)?;
    Ok(unit)
}

/// Has the unit say that it fetches commands and logs events, or that it has stopped.
fn say_running(unit: &Unit, runs: bool) -> Result {
    let status = STATUS::zeroed().with_commands(runs).with_events(runs);
    unit.regs.try_write_reg(status)
}

/// Whether the registers are as they were found.
fn is_as_found(unit: &Unit) -> Result<bool> {
    let regs = &unit.regs;
    Ok(regs.try_read(DEVTAB)?.into_raw() == OLD_TABLE
        && regs.try_read(CMDBUF)?.into_raw() == OLD_COMMANDS
        && regs.try_read(EVTLOG)?.into_raw() == OLD_EVENTS
        && regs.try_read(EXCLUSION)?.into_raw() == OLD_EXCLUSION
        && regs.try_read(CONTROL)?.into_raw() == OLD_CONTROL)
}

/// Whether there is a reference for ever.
fn is_leaked<T>(object: Arc<T>) -> bool {
    Arc::into_unique_or_drop(object).is_none()
}

/// A unit that logs events.
fn logging() -> Result<Arc<Unit>> {
    let unit = unit()?;
    unit.set_control(|control| control.with_events(true))?;
    Ok(unit)
}

#[kunit_tests(rust_amdvi_unit)]
mod suite {
    use super::*;

    #[test]
    fn a_unit_is_left_as_it_was_found() -> Result {
        let unit = unit()?;
        let powered = Powered::new(unit.clone())?;
        let regs = &unit.regs;
        assert_eq!(regs.try_read(DEVTAB)?, unit.table.address());
        assert_eq!(regs.try_read(CMDBUF)?, unit.commands.address());
        assert_eq!(regs.try_read(EVTLOG)?, unit.log.address());
        // All devices would reach what is excluded.
        assert_eq!(regs.try_read(EXCLUSION)?, EXCLUSION::zeroed());
        // Nothing runs before translation does, and nothing that was found on stays on.
        let known = CONTROL::zeroed()
            .with_firmware_flags(unit.info.flags)
            .with_coherent(true)
            .with_const_invalidation_timeout::<TIMEOUT_SECOND>();
        assert_eq!(regs.try_read(CONTROL)?, known);

        drop(powered);
        assert!(is_as_found(&unit)?);
        assert!(!is_leaked(unit));
        Ok(())
    }

    /// Hardware may read the tables still: they are there, and the registers name them.
    #[test]
    fn a_unit_that_does_not_stop_keeps_its_tables() -> Result {
        let unit = unit()?;
        let powered = Powered::new(unit.clone())?;
        say_running(&unit, true)?;
        unit.commands.answer(1000)?;
        powered.enable_translation()?;
        drop(powered);
        assert_eq!(unit.regs.try_read(DEVTAB)?, unit.table.address());
        // Devices that outlive the driver reach memory without it.
        assert!(!unit.regs.try_read(CONTROL)?.enable());
        assert!(is_leaked(unit));
        Ok(())
    }

    /// The unit stops at the first command. Nothing depends on it yet, so it is left as it was.
    #[test]
    fn a_unit_that_takes_the_first_command_for_illegal() -> Result {
        let unit = unit()?;
        let powered = Powered::new(unit.clone())?;
        assert_eq!(powered.enable_translation(), Err(EIO));
        assert!(unit.is_dead());
        let control = unit.regs.try_read(CONTROL)?;
        assert!(control.enable() && control.commands());

        drop(powered);
        assert!(is_as_found(&unit)?);
        assert!(!is_leaked(unit));
        Ok(())
    }

    #[test]
    fn a_unit_that_does_not_run_commands() -> Result {
        let unit = unit()?;
        let powered = Powered::new(unit.clone())?;
        say_running(&unit, true)?;
        assert_eq!(powered.enable_translation(), Err(EIO));
        assert!(unit.is_dead());
        say_running(&unit, false)?;
        drop(powered);
        assert!(is_as_found(&unit)?);
        assert!(!is_leaked(unit));
        Ok(())
    }

    /// The CPU that gives it up has not seen that devices depend on it.
    #[test]
    fn a_unit_that_is_given_up_while_it_goes_live() -> Result {
        let unit = unit()?;
        let powered = Powered::new(unit.clone())?;
        assert!(unit.commands.give_up());
        assert_eq!(unit.go_live(), Err(EIO));
        // Translation may be all that keeps them from memory, and stays as it is.
        drop(powered);
        assert!(!is_as_found(&unit)?);
        assert!(is_leaked(unit));
        Ok(())
    }

    /// A unit that has answered, and does not any more.
    #[test]
    fn a_unit_that_was_given_up_stays_on() -> Result {
        let unit = unit()?;
        let powered = Powered::new(unit.clone())?;
        let regs = &unit.regs;
        say_running(&unit, true)?;
        // Whatever it is asked for was done long ago, and then nothing is any more.
        unit.commands.answer(1000)?;
        assert_eq!(powered.enable_translation(), Ok(()));
        assert_eq!(unit.check(), Ok(()));
        unit.commands.answer(0)?;
        assert_eq!(unit.submit(&[Command::all()]), Err(EIO));

        // From now on all that depends on it fails, at once and without a command.
        let tail = regs.read(CMDTAIL);
        assert_eq!(unit.check(), Err(EIO));
        assert_eq!(unit.submit(&[Command::all()]), Err(EIO));
        assert_eq!(unit.forget(8, &Entry::BLOCKED), Err(EIO));
        assert_eq!(unit.forget_pasid(7, 5), Err(EIO));
        assert_eq!(regs.read(CMDTAIL), tail);

        // It would let devices pass if it were switched off, and may read its tables.
        say_running(&unit, false)?;
        drop(powered);
        let control = regs.try_read(CONTROL)?;
        assert!(control.enable() && !control.event_interrupt());
        assert_eq!(regs.try_read(DEVTAB)?, unit.table.address());
        assert!(is_leaked(unit));
        Ok(())
    }

    /// What a sleep of the machine does to the registers.
    fn lose_registers(unit: &Unit) -> Result {
        (0..0x2028)
            .step_by(8)
            .try_for_each(|at| unit.regs.try_write64(0, at))
    }

    /// A unit that has done long ago whatever it is asked for.
    fn translating() -> Result<(Arc<Unit>, Powered)> {
        let unit = unit()?;
        let powered = Powered::new(unit.clone())?;
        unit.commands.answer(1000)?;
        powered.enable_translation()?;
        Ok((unit, powered))
    }

    #[test]
    fn registers_come_back_after_a_sleep() -> Result {
        let (unit, powered) = translating()?;
        let regs = &unit.regs;
        let (control, tail) = (regs.try_read(CONTROL)?, regs.read(CMDTAIL));
        assert!(control.enable() && control.commands() && control.events());

        powered.suspend()?;
        let off = regs.try_read(CONTROL)?;
        assert!(!off.enable() && !off.commands() && !off.events());
        assert_eq!(unit.check(), Ok(()));

        lose_registers(&unit)?;
        // An earlier kernel has left its own.
        regs.try_write_reg(EXCLUSION::from_raw(OLD_EXCLUSION))?;
        regs.try_write_reg(CONTROL::from_raw(OLD_CONTROL).with_enable(true))?;
        regs.write_reg(CMDTAIL::at(77));
        powered.resume()?;
        assert_eq!(regs.try_read(CONTROL)?, control);
        assert_eq!(regs.try_read(DEVTAB)?, unit.table.address());
        assert_eq!(regs.try_read(CMDBUF)?, unit.commands.address());
        assert_eq!(regs.try_read(EVTLOG)?, unit.log.address());
        assert_eq!(regs.try_read(EXCLUSION)?, EXCLUSION::zeroed());
        // The same commands, from the first slot on.
        assert_eq!(regs.read(CMDTAIL), tail);
        drop(powered);
        assert!(is_as_found(&unit)?);
        Ok(())
    }

    #[test]
    fn a_unit_that_does_not_come_back_is_given_up() -> Result {
        let stuck = STATUS::zeroed().with_commands(true).into_raw();
        // It stops at the first command; it does not stop the ring that another kernel has left; it
        // is gone.
        for (control, status) in [(0, 0), (0, stuck), (u64::MAX, 0)] {
            let (unit, powered) = translating()?;
            powered.suspend()?;
            lose_registers(&unit)?;
            unit.commands.answer(0)?;
            unit.regs.try_write_reg(CONTROL::from_raw(control))?;
            unit.regs.try_write_reg(STATUS::from_raw(status))?;
            assert!(powered.resume().is_err());
            assert!(unit.is_dead());
            // Neither is tried again.
            assert_eq!(powered.suspend(), Err(EIO));
            assert_eq!(powered.resume(), Err(EIO));
            drop(powered);
            assert!(is_leaked(unit));
        }
        Ok(())
    }

    #[test]
    fn what_an_earlier_kernel_has_left_on_stays_off() -> Result {
        let unit = unit()?;
        let regs = &unit.regs;
        let left_on = CONTROL::from_raw(OLD_CONTROL)
            .with_enable(true)
            .with_commands(true)
            .with_event_interrupt(true)
            .with_events(true);
        regs.try_write_reg(left_on)?;
        say_running(&unit, true)?;
        assert_eq!(unit.stop_leftovers(), Err(ETIMEDOUT));
        // Memory stays protected.
        let control = regs.try_read(CONTROL)?;
        assert!(control.enable() && !control.commands() && !control.events());

        regs.try_write_reg(left_on)?;
        say_running(&unit, false)?;
        unit.stop_leftovers()?;
        let off = CONTROL::from_raw(OLD_CONTROL).without_rings();
        assert_eq!(regs.try_read(CONTROL)?, off);
        assert!(!off.is_running());
        // This is the state that the driver finds, and leaves.
        drop(Powered::new(unit.clone())?);
        assert_eq!(regs.try_read(CONTROL)?, off);
        Ok(())
    }

    /// A register that is memory has its flag set for ever.
    #[test]
    fn a_flag_that_stays_ends_with_the_log() -> Result {
        let unit = logging()?;
        unit.regs.try_write_reg(STATUS::acknowledge_events())?;
        assert_eq!(unit.poll_events(), Outcome::More);
        unit.end_events()?;
        // The unit logs nothing, so its interrupt is done.
        assert_eq!(unit.poll_events(), Outcome::Done);
        msi::Handler::handle(&*unit);
        Ok(())
    }

    /// What comes after the log was switched off is left alone, and does not switch it on.
    #[test]
    fn a_log_that_is_off_is_not_touched() -> Result {
        let unit = logging()?;
        let regs = &unit.regs;
        regs.write_reg(EVTHEAD::at(3));
        regs.write_reg(EVTTAIL::from_raw(4 << 4));
        unit.log.put(3, EVENT)?;
        let status = STATUS::zeroed().with_event_logged(true);
        let status = status.with_event_overflow(true);
        regs.try_write_reg(status)?;
        unit.end_events()?;
        assert_eq!(unit.poll_events(), Outcome::Done);
        assert_eq!(regs.read(EVTHEAD), EVTHEAD::at(3));
        assert_eq!(regs.try_read(STATUS)?, status);
        assert_eq!(regs.try_read(CONTROL)?, CONTROL::from_raw(OLD_CONTROL));
        Ok(())
    }

    #[test]
    fn events_are_taken_as_far_as_the_unit_says() -> Result {
        let unit = logging()?;
        let regs = &unit.regs;
        let last = crate::regs::queue::ENTRIES - 1;
        regs.write_reg(EVTHEAD::at(last));
        regs.write_reg(EVTTAIL::from_raw(2 << 4));
        // The second of three is never written: the first look ends there.
        unit.log.put(last, EVENT)?;
        unit.log.put(1, EVENT)?;
        unit.log.put(2, EVENT)?;
        assert_eq!(unit.poll_events(), Outcome::More);
        assert_eq!(regs.read(EVTHEAD), EVTHEAD::at(1));
        unit.poll_events();
        assert_eq!(regs.read(EVTHEAD), EVTHEAD::at(2));
        assert_eq!(regs.try_read(STATUS)?, STATUS::acknowledge_events());
        assert!(unit.log.take(last).is_none() && unit.log.take(1).is_none());
        assert!(unit.log.take(2).is_some());
        Ok(())
    }

    #[test]
    fn the_event_log_begins_anew_after_an_overflow() -> Result {
        let unit = logging()?;
        let regs = &unit.regs;
        regs.write_reg(EVTHEAD::at(7));
        regs.write_reg(EVTTAIL::from_raw(8 << 4));
        unit.log.put(7, EVENT)?;
        let status = STATUS::zeroed().with_event_logged(true);
        let status = status.with_event_overflow(true);
        // The unit has not stopped yet: its events are taken, and it begins anew later.
        regs.try_write_reg(status.with_events(true))?;
        assert_eq!(unit.poll_events(), Outcome::More);
        assert!(unit.log.take(7).is_none());
        assert_eq!(regs.read(EVTHEAD), EVTHEAD::at(8));
        assert_eq!(regs.try_read(STATUS)?, STATUS::acknowledge_events());

        regs.try_write_reg(status)?;
        unit.poll_events();
        assert_eq!(regs.read(EVTHEAD), EVTHEAD::at(0));
        assert_eq!(regs.read(EVTTAIL), EVTTAIL::from_raw(0));
        assert_eq!(regs.try_read(STATUS)?, STATUS::acknowledge_overflow());
        let control = regs.try_read(CONTROL)?;
        assert_eq!(control, CONTROL::from_raw(OLD_CONTROL).with_events(true));
        Ok(())
    }

    #[test]
    fn without_an_interrupt_events_are_polled() -> Result {
        let unit = unit()?;
        // There is no such function.
        let powered = Powered::new(unit.clone())?;
        assert!(powered.needs_polling());
        drop(powered);

        // A host bridge has no message-signalled interrupts.
        if let Some(function) = UnitFunction::find(0, 0) {
            let name = CString::try_from(c"rust_amdvi_unit")?;
            assert!(Interrupt::request(function, name, unit.clone()).is_err());
        }
        assert!(!is_leaked(unit));
        Ok(())
    }
}
