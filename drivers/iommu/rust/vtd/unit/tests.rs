// SPDX-License-Identifier: GPL-2.0

//! A unit whose registers are memory: it obeys, or does not, as the test has written down.
//!
//! Each command that is not obeyed costs the second after which it is given up.

use super::{
    power::Powered,
    *, //
};
use crate::regs::{
    cap::{
        CAP,
        ECAP, //
    },
    command::RTADDR,
    fault::FECTL,
    queue::IQA, //
};
use kernel::sync::Arc;

/// Setting the root table forgets all (ESRTPS); two fault records at 0x200.
const CAPABILITIES: u64 = 1 << 63 | 1 << 40 | 0x20 << 24;

/// Offset of the first fault record.
const RECORDS: usize = 0x200;

/// What an owner before us has left.
const OLD_ROOT: u64 = 0x1234_5000;
const OLD_QUEUE: u64 = 0x6789_a001;

fn unit() -> Result<Arc<Unit>> {
    let info = UnitInfo {
        segment: 0,
        base: 0xfed9_0000,
        bytes: SZ_4K,
        include_all: true,
        scopes: KVec::new(),
    };
    let caps = Caps::new(CAP::from_raw(CAPABILITIES), ECAP::from_raw(0));
    let unit = Unit::new(9, info, caps, PhysMem::in_memory()?)?;
    unit.regs.try_write_reg(RTADDR::from_raw(OLD_ROOT))?;
    unit.regs.try_write_reg(IQA::from_raw(OLD_QUEUE))?;
    unit.regs.write_reg(IQT::at(5));
    Ok(unit)
}

/// Has the unit say that this is so: commands that ask for it are obeyed.
fn say(unit: &Unit, translation: bool, root: bool, queue: bool) {
    let status = GSTS::zeroed()
        .with_translation(translation)
        .with_root_set(root)
        .with_queue(queue);
    unit.regs.write_reg(status);
}

/// Whether the registers are as they were found.
fn is_as_found(unit: &Unit) -> Result<bool> {
    let regs = &unit.regs;
    Ok(regs.try_read(RTADDR)?.into_raw() == OLD_ROOT
        && regs.try_read(IQA)?.into_raw() == OLD_QUEUE
        && regs.read(FECTL) == FECTL::zeroed())
}

/// Whether somebody holds on to the unit for ever.
fn is_leaked(unit: Arc<Unit>) -> bool {
    Arc::into_unique_or_drop(unit).is_none()
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
        assert_eq!(regs.try_read(IQA)?, qi::address(&unit.memory));
        assert!(regs.read(FECTL).masked().into_bool());
        powered.enable_translation()?;
        // What was switched on before stays on.
        assert_eq!(
            regs.read(GCMD),
            GCMD::zeroed().with_translation(true).with_queue(true)
        );

        say(&unit, false, true, false);
        drop(powered);
        assert!(is_as_found(&unit)?);
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

    /// Hardware may read the tables still: they are there, and the registers name them.
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
    fn fault_records_are_given_back() -> Result {
        let unit = unit()?;
        let regs = &unit.regs;
        let fault = 1u64 << 63 | 0x5 << 32 | 0x210;
        let record = |index| RECORDS + index * RECORD_BYTES + RECORD_HIGH;
        let given_back = RecordHigh::acknowledge().into_raw();
        regs.try_write64(fault, record(1))?;

        // Nothing is pending: nothing is looked at.
        unit.poll_faults();
        assert_eq!(regs.try_read64(record(1))?, fault);

        // The first that is pending is the last in memory; the other one is empty.
        let status = FSTS::zeroed().with_pending(true);
        regs.write_reg(status.with_const_record_index::<1>());
        unit.poll_faults();
        assert_eq!(regs.try_read64(record(1))?, given_back);
        assert_eq!(regs.try_read64(record(0))?, 0);

        // Around the end, and an overflow that is acknowledged last.
        for index in 0..2 {
            regs.try_write64(fault, record(index))?;
        }
        regs.write_reg(status.with_const_record_index::<1>().with_overflow(true));
        unit.poll_faults();
        for index in 0..2 {
            assert_eq!(regs.try_read64(record(index))?, given_back);
        }
        assert_eq!(regs.read(FSTS), FSTS::acknowledge_overflow());
        Ok(())
    }
}
