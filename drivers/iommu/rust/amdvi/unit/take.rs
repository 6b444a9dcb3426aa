// SPDX-License-Identifier: GPL-2.0

//! Taking a unit over: claims and reads its registers, and stops what was left on.
//!
//! The driver takes a unit only if no other driver of this kernel uses it, which would have claimed
//! the registers. A refusal names the reason and what to change at boot.
//!
//! A kernel that started this one by kexec, or firmware that protects memory, may have left
//! translation and rings on. The order of switching them off is that of C (`iommu_disable()`): the
//! rings stop, and translation goes off last, so that memory stays protected if they do not. A
//! kernel that has ended normally has shut its devices down. A crashed kernel has not: the driver
//! takes no unit in the kernel that collects the dump (see
//! [`lifecycle`](kernel::iommu::lifecycle)).

use kernel::{
    io::Io,
    iommu::{
        counters::UnitCounters,
        domain_id::IdSet,
        hw::{
            mmio::PhysMem,
            pages, //
        },
        pci::unit::UnitFunction,
        ratelimit::RateLimit,
        raw_lock::new_raw_spinlock, //
    },
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        atomic::AtomicFlag,
        new_spinlock_irq,
        Arc, //
    }, //
};

use super::{
    Unit,
    FIRST_ID,
    IDS,
    PASS_THROUGH,
    REGISTER_BYTES, //
};

use crate::{
    acpi::Ivhd,
    caps::Caps,
    cmd::Queue,
    dte::DeviceTable,
    event::Log,
    regs::{
        cap::{
            Header,
            EFR,
            EFR2, //
        },
        control::CONTROL, //
    }, //
};

/// The id of a unit's capability block (3.2.1).
const SECURE_DEVICE: u32 = 0x0f;

/// What the kernel or the processor lacks.
fn unsuited(pairs: bool, encrypted: bool) -> Option<&'static str> {
    if !pairs {
        Some("the processor cannot write 128 bits at once (cmpxchg16b)")
    } else if encrypted {
        Some("the kernel's memory is encrypted; boot with mem_encrypt=off")
    } else {
        None
    }
}

/// Claims the registers of a unit.
fn claim(number: usize, info: &Ivhd) -> Result<PhysMem<REGISTER_BYTES>> {
    let name = CString::try_from_fmt(fmt!("rust_amdvi ivhd{}", number))?;
    PhysMem::request(info.base, REGISTER_BYTES, name).inspect_err(|error| match *error {
        EBUSY => pr_err!(
            "ivhd{}: its registers belong to another driver; boot with amd_iommu=off\n",
            number
        ),
        error => pr_err!("ivhd{}: cannot map its registers: {:?}\n", number, error),
    })
}

impl Unit {
    /// Claims the unit number `number` that firmware describes by `info`; `ivinfo` is what it says
    /// about all units. `isolate` takes bus mastering from the devices behind the unit. `refuses`
    /// says whether interrupts with a requester ID may be refused while no device has it.
    ///
    /// Only reads: an error leaves the hardware unchanged. May sleep.
    ///
    /// # Errors
    ///
    /// The log names each error.
    /// - `EBUSY` if another driver has the unit;
    /// - `ENODEV` if the unit does not exist, or lacks what the driver needs;
    /// - `ENOMEM`.
    pub(crate) fn take(
        number: usize,
        info: Ivhd,
        ivinfo: u32,
        isolate: fn(usize) -> Option<usize>,
        refuses: impl Fn(u16) -> bool,
    ) -> Result<Arc<Self>> {
        if let Some(reason) = unsuited(pages::can_store_pairs(), pages::are_encrypted()) {
            pr_err!("ivhd{}: {}\n", number, reason);
            return Err(ENODEV);
        }
        let Some(function) = UnitFunction::find(info.segment, info.source) else {
            pr_err!(
                "ivhd{}: there is no PCI function {:04x}:{:04x}\n",
                number,
                info.segment,
                info.source
            );
            return Err(ENODEV);
        };
        let header = function
            .read_config(info.capability)
            .map(Header::from_raw)
            .ok()
            .filter(|header| header.id().get() == SECURE_DEVICE);
        let Some(header) = header else {
            pr_err!(
                "ivhd{}: its PCI function has no capability of such units at {:#x}\n",
                number,
                info.capability
            );
            return Err(ENODEV);
        };

        let regs = claim(number, &info)?;
        let control = regs.try_read(CONTROL)?;
        if control.into_raw() == u64::MAX {
            pr_err!("ivhd{}: there is no unit at {:#x}\n", number, info.base);
            return Err(ENODEV);
        }
        let (efr, efr2) = (regs.try_read(EFR)?, regs.try_read(EFR2)?);
        let caps = Caps::new(header, efr, efr2, ivinfo, info.no_host).limited_by(info.features);
        if (caps.raw_efr(), caps.raw_efr2()) != (efr.into_raw(), efr2.into_raw()) {
            pr_info!(
                "ivhd{}: firmware (IVRS) withholds some of its features {:#x} {:#x}\n",
                number,
                efr.into_raw(),
                efr2.into_raw()
            );
        }
        if let Err(missing) = caps.usable() {
            pr_err!(
                "ivhd{}: the unit {}; this driver cannot drive it\n",
                number,
                missing.reason()
            );
            return Err(ENODEV);
        }
        pr_info!(
            "ivhd{}: {:#x}, features {:#x} {:#x}\n",
            number,
            info.base,
            caps.raw_efr(),
            caps.raw_efr2()
        );
        let remaps = caps.remaps_interrupts();
        let refuses = |source| remaps && refuses(source);
        let node = function.node();
        Self::new(number, info, caps, node, regs, control, isolate, refuses)
    }

    /// Switches off what was on without an owner when the unit was taken. May sleep.
    ///
    /// # Errors
    ///
    /// If the rings do not stop; the log says so. Translation is on then, if it was.
    pub(crate) fn stop_leftovers(&self) -> Result {
        let found = self.regs.try_read(CONTROL)?;
        if !found.is_running() {
            return Ok(());
        }
        self.set_control(|_| found.without_rings())?;
        self.wait_for_rings().inspect_err(|error| {
            pr_err!(
                "ivhd{}: was left on by an earlier kernel or by firmware, and does not stop: {:?}; \
                 reset the machine\n",
                self.number,
                *error
            );
        })?;
        self.set_control(|_| found.without_rings().with_enable(false))?;
        pr_warn!(
            "ivhd{}: stopped {}, left on by an earlier kernel or by firmware\n",
            self.number,
            if found.enable() {
                "translation"
            } else {
                "the rings"
            }
        );
        Ok(())
    }

    /// The unit behind `regs`, which are neither read nor written; `control` is the value of its
    /// control register. May sleep.
    #[expect(clippy::too_many_arguments, reason = "what `take()` has found")]
    pub(super) fn new(
        number: usize,
        info: Ivhd,
        caps: Caps,
        node: Option<u32>,
        regs: PhysMem<REGISTER_BYTES>,
        control: CONTROL,
        isolate: fn(usize) -> Option<usize>,
        refuses: impl Fn(u16) -> bool,
    ) -> Result<Arc<Self>> {
        let (log, commands) = (Log::new(node)?, Queue::new(node));
        let ids = IdSet::new(FIRST_ID, IDS)?;
        let table = DeviceTable::new(&info, node, PASS_THROUGH, refuses);
        let table = KBox::pin_init(table, GFP_KERNEL)?;
        Arc::pin_init(
            try_pin_init!(Unit {
                number,
                info,
                caps,
                node,
                regs,
                log,
                counters: UnitCounters::default(),
                limit <- RateLimit::new(),
                isolate,
                table,
                live: AtomicFlag::new(false),
                commands <- commands,
                control <- new_raw_spinlock!(control, "rust_amdvi::unit::Unit::control"),
                events <- new_spinlock_irq!((), "rust_amdvi::unit::Unit::events"),
                domains <- new_mutex!(ids),
            }),
            GFP_KERNEL,
        )
    }
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
#[kunit_tests(rust_amdvi_take)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert!(unsuited(true, false).is_none());
        assert!(unsuited(false, false).is_some_and(|text| text.contains("cmpxchg16b")));
        assert!(unsuited(true, true).is_some_and(|text| text.contains("mem_encrypt=off")));
    }
}
