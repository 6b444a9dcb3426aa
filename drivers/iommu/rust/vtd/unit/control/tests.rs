// SPDX-License-Identifier: GPL-2.0

//! The queue of the machine's first unit, which the driver uses at the same time: shared where the
//! kernel remaps interrupts, elsewhere the driver's own.

use super::*;
use crate::{
    acpi::Dmar,
    machine::Vtd,
    qi::desc::Kind,
    regs::{
        fault::{
            FSTS,
            RECORD_HIGH, //
        },
        queue::{
            IQERCD,
            IQH,
            IQT, //
        }, //
    },
    unit::{
        tests::unit_of,
        Unit, //
    }, //
};
use core::cell::Cell;
use kernel::{
    iommu::{
        firmware::acpi::AcpiTable,
        kunit::skip,
        pci::unit::UnitFunction,
        registry::Registered,
        units::Unit as _, //
    },
    str::CString,
    sync::{
        atomic::Atomic,
        Arc, //
    },
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// Counts messages. The registers are those of another code.
struct Messages(Cell<usize>);

impl Messages {
    fn new() -> Self {
        Self(Cell::new(0))
    }
}

impl Port for Messages {
    fn head(&self) -> usize {
        0
    }

    fn set_tail(&self, _index: usize) {}

    fn fault(&self) -> FSTS {
        FSTS::from_raw(0)
    }

    fn acknowledge(&self, _fault: FSTS) {}

    fn error_record(&self) -> IQERCD {
        IQERCD::from_raw(0)
    }

    fn report(&self, _what: &str, _descriptor: Option<Descriptor>) {
        self.0.set(self.0.get() + 1);
    }
}

/// The machine's first unit, if the kernel remaps interrupts with it.
fn shared_unit() -> Result<Option<SharedUnit>> {
    let table = AcpiTable::find(*b"DMAR")?;
    let dmar = Dmar::parse(table.bytes()).map_err(Error::from)?;
    let unit = dmar.units.first().ok_or(ENODEV)?;
    match SharedUnit::get(unit.base) {
        Ok(unit) => Ok(Some(unit)),
        Err(ENODEV) => {
            skip(c"no unit is shared, since interrupts are not remapped");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn good() -> Descriptor {
    Descriptor::iotlb_global((false, false))
}

/// Its granularity is reserved (6.5.2.3).
const BAD: Descriptor = Descriptor([Kind::Iotlb as u64, 0, 0, 0]);

/// Whether batches with refused descriptors fail, at which the unit stops, and good ones after them
/// do not. `said` says whether there were so many messages.
fn fail_alone(control: &Control, port: &impl Port, said: impl Fn(usize) -> bool) -> bool {
    let good = good();
    let batches: [&[Descriptor]; 4] = [&[BAD], &[good, BAD], &[BAD, good], &[good, BAD, good, BAD]];
    for (count, batch) in batches.into_iter().enumerate() {
        let failed = control.submit(port, batch) == Err(EINVAL) && said(count + 1);
        // More than one submission, where the queue is shared.
        let ran = control.submit(port, &[good; 20]) == Ok(()) && said(count + 1);
        if !failed || !ran {
            return false;
        }
    }
    true
}

/// A function of QEMU's that stops units (`tools/qemu/README.md`). The unit goes on when this is
/// dropped.
struct Stall(PhysMem<0x40>);

impl Stall {
    /// Device and vendor ID.
    const IDS: u32 = 0x11f0_1234;
    /// Offsets and bits of the configuration space.
    const COMMAND: u16 = 0x04;
    const MEMORY: u32 = 1 << 1;
    const BAR: u16 = 0x10;
    /// The register that stops the first unit.
    const STOP: usize = 0x18;

    /// Finds it on the first bus.
    fn find() -> Result<Option<Self>> {
        let mut functions = (0..=0xff).filter_map(|source| UnitFunction::find(0, source));
        let is_it = |function: &UnitFunction| function.read_config(0) == Ok(Self::IDS);
        let Some(function) = functions.find(is_it) else {
            skip(c"no function can stop the unit");
            return Ok(None);
        };
        // Not the status bits above, which a one clears.
        let command = function.read_config(Self::COMMAND)? & 0xffff;
        function.write_config(Self::COMMAND, command | Self::MEMORY)?;
        let base = u64::from(function.read_config(Self::BAR)? & !0xf);
        let name = CString::try_from(c"rust_vtd_shared")?;
        Ok(Some(Self(PhysMem::request(base, SZ_4K, name)?)))
    }

    fn stop(&self, on: bool) -> Result {
        self.0.try_write64(u64::from(on), Self::STOP)
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        let _ = self.stop(false);
    }
}

/// Descriptors that are in the ring and were not fetched.
fn waiting(regs: &PhysMem<SZ_4K>) -> usize {
    let tail = IQH::from_raw(regs.read(IQT).into_raw()).index();
    (tail + RING - regs.read(IQH).index()) % RING
}

/// Slots of the kernel's ring.
const RING: usize = 256;

/// The most descriptors of a submission: room stays for one of the kernel's, with its wait and the
/// slot that is never used.
const MOST: usize = RING - 2 - 3;

/// The number of the unit that was isolated last, plus one.
static ISOLATED: Atomic<usize> = Atomic::new(0);

/// A unit of the driver's whose queue is `control`. Devices depend on it.
fn in_use(control: Control) -> Result<Arc<Unit>> {
    let isolate = |number| {
        ISOLATED.store(number + 1, Relaxed);
        Some(0)
    };
    let unit = unit_of(control, isolate)?;
    unit.translates.store(true, Relaxed);
    Ok(unit)
}

#[kunit_tests(rust_vtd_shared)]
mod shared {
    use super::*;

    /// By the unit itself, which stops at each such descriptor.
    #[test]
    fn a_refused_descriptor_fails_its_batch_and_no_other() -> Result {
        let Some(unit) = shared_unit()? else {
            return Ok(());
        };
        let (control, messages) = (Control::shared(unit), Messages::new());
        let said = |count| messages.0.get() == count;
        assert!(fail_alone(&control, &messages, said));
        assert!(!control.is_dead());
        Ok(())
    }

    /// The unit would carry these out.
    #[test]
    fn what_is_not_about_dma_is_refused() -> Result {
        let Some(unit) = shared_unit()? else {
            return Ok(());
        };
        let (control, messages) = (Control::shared(unit), Messages::new());
        // A wait that writes no status, and an invalidation of cached interrupt entries (6.5.2.7).
        for other in [[Kind::Wait as u64, 0, 0, 0], [0x4, 0, 0, 0]] {
            let batch = [good(), Descriptor(other)];
            assert_eq!(control.submit(&messages, &batch), Err(EINVAL));
        }
        assert_eq!(messages.0.get(), 2);
        Ok(())
    }

    /// Its handler reads them. The registers are memory, so it has not.
    #[test]
    fn fault_records_are_left_to_the_kernel() -> Result {
        const FAULT: u64 = 1 << 63 | 0x5 << 32 | 0x210;
        let Some(unit) = shared_unit()? else {
            return Ok(());
        };
        let unit = in_use(Control::shared(unit))?;
        let (records, _) = unit.caps.fault_records();
        unit.regs.try_write64(FAULT, records + RECORD_HIGH)?;
        unit.regs.write_reg(FSTS::zeroed().with_pending(true));
        unit.poll();
        assert_eq!(unit.regs.try_read64(records + RECORD_HIGH)?, FAULT);
        Ok(())
    }

    /// The unit has stopped, and what many CPUs have entered fills the ring.
    #[test]
    fn no_room_is_waited_for_and_given_up() -> Result {
        let (Some(full), Some(unit), Some(stall)) =
            (shared_unit()?, shared_unit()?, Stall::find()?)
        else {
            return Ok(());
        };
        let regs = PhysMem::share(&full)?;
        let many = KVec::from_elem(good().0, MOST, GFP_KERNEL)?;
        let unit = in_use(Control::shared(unit))?;

        stall.stop(true)?;
        assert_eq!(full.submit_any(&many), Err(ETIMEDOUT));
        assert_eq!(waiting(&regs), MOST + 2);
        let begun = Instant::<Monotonic>::now();
        let ended = unit.submit(&[good()]);
        let took = begun.elapsed();
        // Nothing was written over what waits.
        assert_eq!(waiting(&regs), MOST + 2);
        assert_eq!(ended, Err(EIO));
        assert!(took >= Delta::from_secs(1) && took < Delta::from_secs(2));
        // The log says so, devices can do no more DMA, and no call waits again.
        assert!(unit.is_dead());
        assert_eq!(ISOLATED.load(Relaxed), unit.number + 1);
        let begun = Instant::<Monotonic>::now();
        assert_eq!(unit.submit(&[good()]), Err(EIO));
        assert!(begun.elapsed() < Delta::from_millis(100));
        stall.stop(false)?;

        // The kernel goes on to use the ring: what had filled it is done.
        for _ in 0..RING {
            full.submit(&[good().0])?;
        }
        assert_eq!(waiting(&regs), 0);
        Ok(())
    }
}

#[kunit_tests(rust_vtd_own_queue)]
mod own_queue {
    use super::*;

    /// By the unit itself, as above.
    #[test]
    fn a_refused_descriptor_fails_its_batch_and_no_other() -> Result {
        let driver = Vtd::registry().driver().ok_or(ENODEV)?;
        let unit: &Unit = driver.units.first().ok_or(ENODEV)?;
        if unit.control.as_own().is_none() {
            skip(c"the unit's queue is shared");
            return Ok(());
        }
        assert!(fail_alone(&unit.control, &unit, |_| true));
        // All is invalidated in the place of what was refused.
        assert_eq!(unit.submit(&[BAD]), Ok(()));
        assert!(!unit.is_dead());
        Ok(())
    }
}
