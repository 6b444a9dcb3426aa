// SPDX-License-Identifier: GPL-2.0

//! A unit whose registers are memory: the test decides which commands it obeys.
//!
//! Each command that the unit does not obey takes a second, until the driver gives up.

use super::{
    power::Powered,
    *, //
};
use crate::{
    endpoint::{
        self,
        Endpoint, //
    },
    pasid::writer,
    qi,
    regs::{
        cap::{
            CAP,
            ECAP, //
        },
        command::{
            GCMD,
            GSTS,
            PMEN,
            RTADDR, //
        },
        fault::FECTL,
        queue::IQA, //
    },
    topology::Path,
};
use kernel::{
    iommu::units::{
        Power,
        Unit as _, //
    },
    sync::atomic::Release, //
};

/// Setting the root table invalidates all (ESRTPS); two fault records at 0x200.
const CAPABILITIES: u64 = ENHANCED_SET_ROOT | 1 << 40 | 0x20 << 24;

/// Setting the root table invalidates all.
const ENHANCED_SET_ROOT: u64 = 1 << 63;

/// There are protected memory regions.
const PROTECTED: u64 = 1 << 5;

/// Requests can be drained.
const DRAINS: u64 = 3 << 54;

/// Devices can be passed through.
const PASS: u64 = 1 << 6;

/// Offset of the first fault record.
const RECORDS: usize = 0x200;

/// The state that an earlier owner has left.
const OLD_ROOT: u64 = 0x1234_5000;
const OLD_QUEUE: u64 = 0x6789_a001;

fn unit() -> Result<Arc<Unit>> {
    unit_with(CAPABILITIES, 0, KVec::new())
}

fn unit_with(cap: u64, ecap: u64, acpi_devices: KVec<u16>) -> Result<Arc<Unit>> {
    let caps = (CAP::from_raw(cap), ECAP::from_raw(ecap));
    let unit = made_up(caps, acpi_devices, Control::own(None)?, |_| Some(0))?;
    unit.regs.try_write_reg(RTADDR::from_raw(OLD_ROOT))?;
    unit.regs.try_write_reg(IQA::from_raw(OLD_QUEUE))?;
    unit.regs.write_reg(IQT::at(5));
    Ok(unit)
}

fn made_up(
    (cap, ecap): (CAP, ECAP),
    acpi_devices: KVec<u16>,
    control: Control,
    isolate: fn(usize) -> Option<usize>,
) -> Result<Arc<Unit>> {
    let info = Drhd {
        segment: 0,
        base: 0xfed9_0000,
        bytes: SZ_4K,
        include_all: true,
        scopes: KVec::new(),
        acpi_devices,
    };
    let regs = PhysMem::in_memory()?;
    Unit::new(9, info, Caps::new(cap, ecap), regs, control, None, isolate)
}

/// A unit whose queue is `control`.
pub(super) fn unit_of(control: Control, isolate: fn(usize) -> Option<usize>) -> Result<Arc<Unit>> {
    let caps = (CAP::from_raw(CAPABILITIES), ECAP::from_raw(0));
    made_up(caps, KVec::new(), control, isolate)
}

/// The driver's own queue.
fn own(unit: &Unit) -> &control::Own {
    let control::Control::Own(own) = &unit.control else {
        panic!("the unit of a test shares nothing");
    };
    own
}

/// Sets the unit's status: commands for this state succeed.
fn say(unit: &Unit, translation: bool, root: bool, queue: bool) {
    let status = GSTS::zeroed()
        .with_translation(translation)
        .with_root_set(root)
        .with_queue(queue);
    unit.regs.write_reg(status);
}

/// Whether the registers have their original values.
fn is_as_found(unit: &Unit) -> Result<bool> {
    let regs = &unit.regs;
    Ok(regs.try_read(RTADDR)?.into_raw() == OLD_ROOT
        && regs.try_read(IQA)?.into_raw() == OLD_QUEUE
        && regs.read(FECTL) == FECTL::zeroed())
}

/// Whether a leaked reference exists.
fn is_leaked<T>(object: Arc<T>) -> bool {
    Arc::into_unique_or_drop(object).is_none()
}

/// A unit that translates.
fn translating(cap: u64, ecap: u64) -> Result<(Arc<Unit>, Powered)> {
    let unit = unit_with(cap, ecap, KVec::new())?;
    say(&unit, true, true, true);
    let powered = Powered::new(unit.clone())?;
    powered.enable_translation()?;
    Ok((unit, powered))
}

/// A device behind `unit`.
fn endpoint(unit: &Arc<Unit>) -> Result<Endpoint> {
    let ids = SourceIds::of_requester(0, 0x108)?;
    Endpoint::new(unit.clone(), ids, Path::default(), false)
}

#[kunit_tests(rust_vtd_unit)]
mod suite {
    use super::*;

    #[test]
    fn a_unit_is_left_as_it_was_found() -> Result {
        let unit = unit()?;
        say(&unit, true, true, true);
        let powered = Powered::new(unit.clone())?;
        let regs = &unit.regs;
        assert_eq!(regs.try_read(RTADDR)?, RTADDR::scalable(unit.root.phys()));
        assert_eq!(regs.try_read(IQA)?, qi::address(own(&unit).ring()));
        assert!(regs.read(FECTL).masked());
        powered.enable_translation()?;
        // What was on before stays on.
        assert_eq!(
            regs.read(GCMD),
            GCMD::zeroed().with_translation(true).with_queue(true)
        );

        say(&unit, false, true, false);
        drop(powered);
        assert!(is_as_found(&unit)?);
        assert!(!unit.is_left_on());
        assert_eq!(unit.regs.read(GCMD), GCMD::zeroed());
        assert!(!is_leaked(unit));
        Ok(())
    }

    #[test]
    fn a_queue_that_does_not_start() -> Result {
        let unit = unit()?;
        say(&unit, false, true, false);
        assert_eq!(Powered::new(unit.clone()).err(), Some(ETIMEDOUT));
        assert!(is_as_found(&unit)?);
        assert!(!is_leaked(unit));
        Ok(())
    }

    #[test]
    fn translation_that_does_not_start() -> Result {
        let unit = unit()?;
        say(&unit, false, true, true);
        let powered = Powered::new(unit.clone())?;
        assert_eq!(powered.enable_translation(), Err(ETIMEDOUT));
        say(&unit, false, true, false);
        drop(powered);
        assert!(is_as_found(&unit)?);
        assert!(!is_leaked(unit));
        Ok(())
    }

    /// Hardware may still read the tables: they still exist, and the registers name them.
    #[test]
    fn a_unit_that_does_not_stop_keeps_its_tables() -> Result {
        let unit = unit()?;
        say(&unit, true, true, true);
        let powered = Powered::new(unit.clone())?;
        drop(powered);
        assert_eq!(
            unit.regs.try_read(RTADDR)?,
            RTADDR::scalable(unit.root.phys())
        );
        assert!(is_leaked(unit));
        Ok(())
    }

    #[test]
    fn a_unit_that_does_not_answer_is_given_up() -> Result {
        let (unit, powered) = translating(CAPABILITIES, 0)?;
        let device = endpoint(&unit)?;
        assert_eq!(unit.submit(&[Descriptor::pasid_cache_global()]), Err(EIO));
        assert!(unit.is_dead());
        // Nothing touches the ring any more.
        let tail = unit.regs.read(IQT);
        assert_eq!(unit.submit(&[Descriptor::pasid_cache_global()]), Err(EIO));
        assert_eq!(unit.regs.read(IQT), tail);
        // No device is accepted, and the table of a released one stays where the unit may
        // read it.
        assert_eq!(endpoint(&unit).err(), Some(EIO));
        let table = device.table.clone();
        device.retire();
        drop(device);
        assert!(is_leaked(table));
        // Translation stays on, so the tables stay.
        drop(powered);
        assert!(!is_as_found(&unit)?);
        assert!(unit.is_left_on());
        assert!(unit.regs.read(GCMD).translation());
        assert!(is_leaked(unit));
        Ok(())
    }

    /// The device's entry is absent, but the unit may still use the old one.
    #[test]
    fn no_device_of_a_dead_unit_counts_as_blocked() -> Result {
        let unit = unit()?;
        let device = endpoint(&unit)?;
        let change = || {
            let entry = endpoint::pass_through_entry(&unit.caps);
            device.change(0, |live| writer::replace(live, entry))
        };
        change()?;
        device.block(0)?;
        change()?;
        say(&unit, true, true, true);
        let powered = Powered::new(unit.clone())?;
        powered.enable_translation()?;

        assert_eq!(change(), Err(EIO));
        assert_eq!(device.block(0), Err(EIO));
        drop(powered);
        Ok(())
    }

    #[test]
    fn a_table_is_freed_when_the_unit_has_forgotten_it() -> Result {
        let unit = unit()?;
        let device = endpoint(&unit)?;
        let table = device.table.clone();
        assert_eq!(unit.root.entry(0x108)[0] & 1, 1);
        device.retire();
        drop(device);
        assert_eq!(unit.root.entry(0x108)[0] & 1, 0);
        assert!(!is_leaked(table));
        Ok(())
    }

    #[test]
    fn a_command_that_is_not_obeyed_is_the_end() -> Result {
        const BUFFERS: u64 = 1 << 4;
        let (unit, powered) = translating(CAPABILITIES | BUFFERS, 0)?;
        unit.flush_write_buffer()?;
        let flushing = GSTS::zeroed()
            .with_translation(true)
            .with_flushing_write_buffer(true);
        unit.regs.write_reg(flushing);
        assert_eq!(unit.flush_write_buffer(), Err(ETIMEDOUT));
        assert_eq!(unit.flush_write_buffer(), Err(EIO));
        assert_eq!(unit.submit(&[Descriptor::pasid_cache_global()]), Err(EIO));
        drop(powered);
        assert!(is_leaked(unit));
        Ok(())
    }

    /// The completion values are known in advance, so the test writes them first.
    #[test]
    fn nothing_of_scalable_mode_in_legacy_mode() -> Result {
        let unit = unit_with(CAPABILITIES & !ENHANCED_SET_ROOT, 0, KVec::new())?;
        say(&unit, true, true, true);
        let status = &own(&unit).ring().status;
        for (slot, number) in [(3, 1), (7, 2), (10, 3)] {
            status.word(slot)?.store(number, Release);
        }
        let powered = Powered::new(unit.clone())?;
        powered.enable_translation()?;
        say(&unit, false, true, false);
        // The head already covers all descriptors that will be submitted.
        unit.regs.write_reg(IQH::from_raw(IQT::at(11).into_raw()));
        drop(powered);
        assert!(is_as_found(&unit)?);
        let memory = own(&unit).ring();
        let scalable = [
            Descriptor::context_global(),
            Descriptor::pasid_cache_global(),
            Descriptor::iotlb_global((false, false)),
        ];
        // After the root table was set, before the old one is restored, and after that.
        for (slot, expected) in scalable.iter().enumerate() {
            assert_eq!(memory.load(slot), Some(expected.0));
            assert_eq!(memory.load(4 + slot), Some(expected.0));
        }
        assert_eq!(memory.load(8), Some(scalable[0].0));
        assert_eq!(memory.load(9), Some(scalable[2].0));
        assert!(!is_leaked(unit));
        Ok(())
    }

    /// The regions protect memory until the tables do.
    #[test]
    fn regions_are_not_lifted_before_translation_is_on() -> Result {
        let protected = PMEN::zeroed().with_enable(true);
        let found = || -> Result<_> {
            let unit = unit_with(CAPABILITIES | PROTECTED, 0, KVec::new())?;
            unit.regs.write_reg(protected);
            say(&unit, false, true, true);
            Ok((Powered::new(unit.clone())?, unit))
        };

        let (powered, unit) = found()?;
        assert_eq!(powered.enable_translation(), Err(ETIMEDOUT));
        assert_eq!(unit.regs.read(PMEN), protected);
        // The unit is dead then, whatever its status becomes later.
        say(&unit, true, true, true);
        assert_eq!(powered.enable_translation(), Err(EIO));
        assert_eq!(unit.regs.read(PMEN), protected);

        let (powered, unit) = found()?;
        say(&unit, true, true, true);
        powered.enable_translation()?;
        assert!(!unit.regs.read(PMEN).enable());
        Ok(())
    }

    #[test]
    fn acpi_devices_are_passed_through() -> Result {
        let mut devices = KVec::new();
        devices.push(0xf3, GFP_KERNEL)?;
        let unit = unit_with(CAPABILITIES, PASS, devices)?;
        endpoint::pass_acpi_devices(&unit)?;
        assert_eq!(unit.root.entry(0xf3)[0] & 1, 1);
        assert_eq!(unit.passed_through.len(), 1);
        let mut devices = KVec::new();
        devices.push(0xf3, GFP_KERNEL)?;
        let unit = unit_with(CAPABILITIES, 0, devices)?;
        assert_eq!(endpoint::pass_acpi_devices(&unit), Err(EOPNOTSUPP));
        Ok(())
    }

    #[test]
    fn translation_stays_on_for_a_device_that_hangs_without() -> Result {
        for (caps, stays) in [(CAPABILITIES, false), (CAPABILITIES | DRAINS, true)] {
            let (unit, powered) = translating(caps, 0)?;
            unit.note_fragile_device();
            // A unit that also serves all other devices is switched off.
            assert!(!unit.must_translate.load(Relaxed));
            unit.must_translate.store(stays, Relaxed);
            if !stays {
                say(&unit, false, true, false);
            }
            drop(powered);
            assert_eq!(unit.regs.read(GCMD).translation(), stays);
            assert_eq!(is_leaked(unit), stays);
        }
        Ok(())
    }

    /// What a sleep of the machine does to the registers.
    fn lose_registers(unit: &Unit) -> Result {
        (0..RECORDS)
            .step_by(8)
            .try_for_each(|at| unit.regs.try_write64(0, at))
    }

    /// The completion values are known in advance, as above.
    #[test]
    fn registers_come_back_after_a_sleep() -> Result {
        let cap = CAPABILITIES & !ENHANCED_SET_ROOT | PROTECTED;
        let unit = unit_with(cap, 0, KVec::new())?;
        let (regs, status) = (&unit.regs, &own(&unit).ring().status);
        say(&unit, true, true, true);
        status.word(3)?.store(1, Release);
        let powered = Powered::new(unit.clone())?;
        powered.enable_translation()?;
        let before = (regs.read(GCMD), regs.read(FECTL), regs.read(IQT));
        assert_eq!(before.2, IQT::at(4));

        say(&unit, false, true, false);
        regs.write_reg(IQH::from_raw(IQT::at(4).into_raw()));
        powered.suspend()?;
        // Nothing that could come on without its tables.
        assert_eq!(regs.read(GCMD), GCMD::zeroed());
        assert!(!unit.is_dead());

        lose_registers(&unit)?;
        unit.reset()?;
        assert_eq!(regs.read(GCMD), GCMD::zeroed());
        // Firmware protects memory again. The number of the batch is the next, in the first slots.
        regs.write_reg(PMEN::zeroed().with_enable(true));
        say(&unit, true, true, true);
        status.word(3)?.store(2, Release);
        powered.wake()?;
        let after = (regs.read(GCMD), regs.read(FECTL), regs.read(IQT));
        assert_eq!(after, before);
        assert_eq!(regs.try_read(RTADDR)?, RTADDR::scalable(unit.root.phys()));
        assert_eq!(regs.try_read(IQA)?, qi::address(own(&unit).ring()));
        assert!(!regs.read(PMEN).enable());

        unit.must_translate.store(true, Relaxed);
        powered.suspend()?;
        assert!(regs.read(GCMD).translation());
        Ok(())
    }

    #[test]
    fn a_unit_that_does_not_come_back_is_given_up() -> Result {
        // It does not start its queue; it does not stop the one that another kernel has left; it is
        // gone.
        for status in [0, 1 << 26, u32::MAX] {
            let (unit, powered) = translating(CAPABILITIES, 0)?;
            say(&unit, false, true, false);
            powered.suspend()?;
            lose_registers(&unit)?;
            unit.regs.write_reg(GSTS::from_raw(status));
            assert!(powered.resume().is_err());
            assert!(unit.is_dead());
            assert_eq!(unit.submit(&[Descriptor::pasid_cache_global()]), Err(EIO));
            // Neither is tried again.
            assert_eq!(powered.suspend(), Err(EIO));
            assert_eq!(powered.resume(), Err(EIO));
            drop(powered);
            assert!(is_leaked(unit));
        }
        Ok(())
    }

    /// The queue stops first: if it does not, translation goes on protecting memory.
    #[test]
    fn a_queue_of_an_earlier_kernel_that_does_not_stop() -> Result {
        let unit = unit()?;
        say(&unit, true, true, true);
        assert_eq!(unit.stop_leftovers(), Err(ETIMEDOUT));
        assert!(unit.regs.read(GCMD).translation());
        assert!(!unit.regs.read(GCMD).queue());
        assert!(is_as_found(&unit)?);
        assert!(!is_leaked(unit));
        Ok(())
    }

    #[test]
    fn nothing_is_written_if_nothing_was_left_on() -> Result {
        let unit = unit()?;
        unit.regs.write_reg(GCMD::zeroed().with_translation(true));
        say(&unit, false, true, false);
        unit.stop_leftovers()?;
        // No command was written.
        assert!(unit.regs.read(GCMD).translation());
        Ok(())
    }

    #[test]
    fn a_unit_that_does_not_go_to_sleep_is_given_up() -> Result {
        let (unit, powered) = translating(CAPABILITIES, 0)?;
        assert_eq!(powered.suspend(), Err(ETIMEDOUT));
        assert!(unit.is_dead());
        drop(powered);
        assert!(is_leaked(unit));
        Ok(())
    }

    #[test]
    fn fault_records_are_given_back() -> Result {
        let unit = unit()?;
        let regs = &unit.regs;
        let fault = 1u64 << 63 | 0x5 << 32 | 0x210;
        let record = |index| RECORDS + index * RECORD_BYTES + RECORD_HIGH;
        let given_back = RecordHigh::acknowledge().into_raw();
        regs.try_write64(fault, record(1))?;

        // Nothing is pending: no record is read.
        unit.poll();
        assert_eq!(regs.try_read64(record(1))?, fault);

        // The first pending record is the last in memory; the other one is empty.
        let status = FSTS::zeroed().with_pending(true);
        regs.write_reg(status.with_const_record_index::<1>());
        unit.poll();
        assert_eq!(regs.try_read64(record(1))?, given_back);
        assert_eq!(regs.try_read64(record(0))?, 0);

        // Wraps around the end; the overflow is acknowledged last.
        for index in 0..2 {
            regs.try_write64(fault, record(index))?;
        }
        regs.write_reg(status.with_const_record_index::<1>().with_overflow(true));
        unit.poll();
        for index in 0..2 {
            assert_eq!(regs.try_read64(record(index))?, given_back);
        }
        assert_eq!(regs.read(FSTS), FSTS::acknowledge_overflow());
        Ok(())
    }
}
