// SPDX-License-Identifier: GPL-2.0

//! Taking a unit over: claims and reads its registers, writes nothing.
//!
//! The driver takes a unit only if no other driver of this kernel translates DMA with it, which
//! would have claimed the registers. If the kernel's interrupt remapping has claimed them, the
//! driver shares the unit with it. A refusal names the reason and what to change at boot.

use kernel::{
    io::Io,
    iommu::{
        counters::UnitCounters,
        domain_id::IdSet,
        hw::{
            dmar::SharedUnit,
            mmio::PhysMem, //
        },
        ratelimit::RateLimit, //
    },
    new_mutex,
    prelude::*,
    sizes::SZ_4K,
    str::CString,
    sync::{
        atomic::AtomicFlag,
        Arc, //
    }, //
};

use super::{
    control::Control,
    pass_through::PassedThroughDevices,
    Unit,
    FIRST_ID, //
};

use crate::{
    acpi::Drhd,
    caps::{
        Caps,
        Missing, //
    },
    regs::{
        cap::{
            CAP,
            ECAP,
            VER, //
        },
        command::GSTS,
        fault::RECORD_BYTES, //
    },
    root::RootTable, //
};

/// Why the driver does not take a unit. `shared`: the kernel remaps interrupts with it.
///
/// Interrupts would stop if it went off. What else an earlier kernel has left on does not matter:
/// [`Unit::stop_leftovers`].
fn owner(status: GSTS, shared: bool) -> Option<&'static str> {
    (status.interrupt_remapping() && !shared).then_some(
        "interrupt remapping is on, but this kernel did not switch it on; boot without \
         intremap=off, and a kernel with CONFIG_IRQ_REMAP",
    )
}

/// Maps the registers of a unit, all that its capabilities name. Claims them, unless the kernel has
/// done so because it remaps interrupts with the unit.
fn map(number: usize, info: &Drhd, shared: Option<&SharedUnit>) -> Result<PhysMem<SZ_4K>> {
    let request = |bytes| -> Result<PhysMem<SZ_4K>> {
        let mapped = if let Some(unit) = shared {
            PhysMem::share(unit)
        } else {
            let name = CString::try_from_fmt(fmt!("rust_vtd dmar{}", number))?;
            PhysMem::request(info.base, bytes, name)
        };
        mapped.inspect_err(|error| match *error {
            EBUSY => pr_err!(
                "dmar{}: its registers belong to another driver; boot with intel_iommu=off\n",
                number
            ),
            error => pr_err!("dmar{}: cannot map its registers: {:?}\n", number, error),
        })
    };
    let regs = request(info.bytes)?;
    let cap = regs.try_read(CAP)?;
    if cap.into_raw() == u64::MAX {
        pr_err!("dmar{}: there is no unit at {:#x}\n", number, info.base);
        return Err(ENODEV);
    }
    let (offset, records) = Caps::new(cap, regs.try_read(ECAP)?).fault_records();
    let needed = offset + records * RECORD_BYTES;
    // The kernel maps all that the capabilities name.
    if needed <= info.bytes || shared.is_some() {
        return Ok(regs);
    }
    // Older firmware always says one page.
    drop(regs);
    request(needed.next_multiple_of(SZ_4K))
}

/// Finds the unit number `number` among those that the kernel remaps interrupts with. [`None`] if
/// the kernel does not use the unit.
///
/// # Errors
///
/// `EBUSY` if the C driver has the unit, `ENODEV` if it has no scalable mode, those of
/// [`SharedUnit::get`]; the log names each error.
fn share(number: usize, info: &Drhd) -> Result<Option<SharedUnit>> {
    match SharedUnit::get(info.base) {
        Ok(unit) => Ok(Some(unit)),
        Err(ENODEV) => Ok(None),
        Err(EOPNOTSUPP) => {
            say_missing(number, Missing::ScalableMode);
            Err(ENODEV)
        }
        Err(EBUSY) => {
            pr_err!(
                "dmar{}: the kernel's own driver has it; boot with intel_iommu=off\n",
                number
            );
            Err(EBUSY)
        }
        Err(error) => {
            pr_err!("dmar{}: cannot be shared: {:?}\n", number, error);
            Err(error)
        }
    }
}

fn say_missing(number: usize, missing: Missing) {
    pr_err!(
        "dmar{}: the unit {}; this driver cannot drive it\n",
        number,
        missing.reason()
    );
}

impl Unit {
    /// Claims the unit number `number` that firmware describes by `info`; it is near `node`.
    /// `isolate` takes bus mastering from the devices behind it.
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
        info: Drhd,
        node: Option<u32>,
        isolate: fn(usize) -> Option<usize>,
    ) -> Result<Arc<Self>> {
        let shared = share(number, &info)?;
        let regs = map(number, &info, shared.as_ref())?;
        if let Some(reason) = owner(regs.read(GSTS), shared.is_some()) {
            pr_err!("dmar{}: {}\n", number, reason);
            return Err(EBUSY);
        }
        let caps = Caps::new(regs.try_read(CAP)?, regs.try_read(ECAP)?);
        if let Err(missing) = caps.usable() {
            say_missing(number, missing);
            return Err(ENODEV);
        }
        let version = regs.read(VER);
        pr_info!(
            "dmar{}: version {}.{}, {:#x}, capabilities {:#x} {:#x}\n",
            number,
            version.major().get(),
            version.minor().get(),
            info.base,
            caps.raw_cap(),
            caps.raw_ecap()
        );
        let control = match shared {
            Some(unit) => {
                pr_info!(
                    "dmar{}: shares its queue with the kernel's interrupt remapping\n",
                    number
                );
                Control::shared(unit)
            }
            None => Control::own(node)?,
        };
        Self::new(number, info, caps, regs, control, node, isolate)
    }

    /// The unit behind `regs`, which are neither read nor written. May sleep.
    pub(super) fn new(
        number: usize,
        info: Drhd,
        caps: Caps,
        regs: PhysMem<SZ_4K>,
        control: Control,
        node: Option<u32>,
        isolate: fn(usize) -> Option<usize>,
    ) -> Result<Arc<Self>> {
        let ids = IdSet::new(FIRST_ID, caps.domains())?;
        Arc::pin_init(
            try_pin_init!(Unit {
                number,
                info,
                caps,
                regs,
                limit <- RateLimit::new(),
                isolate,
                translates: AtomicFlag::new(false),
                must_translate: AtomicFlag::new(false),
                root <- RootTable::new(node, caps.coherent_tables()),
                node,
                control,
                domains <- new_mutex!(ids),
                passed_through <- PassedThroughDevices::new(),
                counters: UnitCounters::default(),
            }),
            GFP_KERNEL,
        )
    }
}

#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
#[kunit_tests(rust_vtd_take)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_named() {
        const REMAPS: u32 = 1 << 25;
        let named = |bits, shared| owner(GSTS::from_raw(bits), shared);

        assert!(named(REMAPS, false).is_some_and(|text| text.contains("intremap=off")));
        assert!(named(REMAPS, true).is_none());
        // What an earlier kernel has left on.
        for shared in [false, true] {
            assert!(named(!REMAPS, shared).is_none());
        }
    }
}
