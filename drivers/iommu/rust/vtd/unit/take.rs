// SPDX-License-Identifier: GPL-2.0

//! Taking a unit over: claims and reads its registers, writes nothing.
//!
//! The driver takes a unit only if no other driver uses it. There are two signs of use: another
//! driver has claimed the registers, or something is switched on. A refusal names the reason and
//! what to change at boot.

use kernel::{
    io::Io,
    iommu::{
        domain_id::IdSet,
        hw::mmio::PhysMem,
        ratelimit::RateLimit, //
    },
    new_mutex,
    prelude::*,
    sizes::SZ_4K,
    str::CString,
    sync::{
        atomic::AtomicFlag,
        new_spinlock_irq,
        Arc, //
    }, //
};

use super::{
    pass_through::PassedThroughDevices,
    Unit,
    FIRST_ID, //
};

use crate::{
    acpi::Drhd,
    caps::Caps,
    qi::{
        self,
        Queue, //
    },
    regs::{
        cap::{
            CAP,
            ECAP,
            VER, //
        },
        command::{
            CommandState,
            GSTS, //
        },
        fault::RECORD_BYTES, //
    },
    root::RootTable, //
};

/// Why the driver does not take a unit that is switched on.
fn owner(status: GSTS) -> Option<&'static str> {
    // Interrupt remapping comes first: it implies the queue.
    if status.interrupt_remapping() {
        Some("interrupt remapping is on and shares the invalidation queue; boot with intremap=off")
    } else if status.translation() {
        Some(
            "DMA is translated already, by firmware or an earlier kernel; boot with \
             intel_iommu=off, and turn off pre-boot DMA protection in the firmware's set-up",
        )
    } else if status.queue() {
        Some("the invalidation queue is in use; boot with intel_iommu=off intremap=off")
    } else {
        None
    }
}

/// Claims the registers of a unit, all that its capabilities name.
fn claim(number: usize, info: &Drhd) -> Result<PhysMem<SZ_4K>> {
    let request = |bytes| -> Result<PhysMem<SZ_4K>> {
        let name = CString::try_from_fmt(fmt!("rust_vtd dmar{}", number))?;
        PhysMem::request(info.base, bytes, name).inspect_err(|error| match *error {
            EBUSY => pr_err!(
                "dmar{}: its registers belong to another driver; boot with intel_iommu=off \
                 intremap=off\n",
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
    if needed <= info.bytes {
        return Ok(regs);
    }
    // Older firmware always says one page.
    drop(regs);
    request(needed.next_multiple_of(SZ_4K))
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
        let regs = claim(number, &info)?;
        if let Some(reason) = owner(regs.read(GSTS)) {
            pr_err!("dmar{}: {}\n", number, reason);
            return Err(EBUSY);
        }
        let caps = Caps::new(regs.try_read(CAP)?, regs.try_read(ECAP)?);
        if let Err(missing) = caps.usable() {
            pr_err!(
                "dmar{}: the unit {}; this driver cannot drive it\n",
                number,
                missing.reason()
            );
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
        Self::new(number, info, caps, regs, node, isolate)
    }

    /// The unit behind `regs`, which are neither read nor written. May sleep.
    pub(super) fn new(
        number: usize,
        info: Drhd,
        caps: Caps,
        regs: PhysMem<SZ_4K>,
        node: Option<u32>,
        isolate: fn(usize) -> Option<usize>,
    ) -> Result<Arc<Self>> {
        let memory = qi::Memory::new(qi::SLOTS, node)?;
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
                queue <- Queue::new(memory),
                command <- new_spinlock_irq!(CommandState::zeroed()),
                domains <- new_mutex!(ids),
                passed_through <- PassedThroughDevices::new(),
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
        assert!(owner(GSTS::zeroed()).is_none());
        // The root pointer alone has no effect.
        assert!(owner(GSTS::from_raw(1 << 30)).is_none());
        for (bits, word) in [
            (1u32 << 31, "translated"),
            (1 << 26, "queue"),
            (1 << 25 | 1 << 26, "intremap=off"),
        ] {
            assert!(owner(GSTS::from_raw(bits)).is_some_and(|text| text.contains(word)));
        }
    }
}
