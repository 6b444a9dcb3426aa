// SPDX-License-Identifier: GPL-2.0

//! The units of the machine, and what firmware and the user say about them.

use kernel::{
    iommu::{
        firmware::acpi::AcpiTable,
        irq::{
            devices::Watched,
            parent, //
        },
        pci::source_ids::SourceIds,
        registry::Registered,
        split_parameter::SplitParameter,
        units::Units, //
    },
    prelude::*,
    sync::Arc, //
};

use crate::{
    acpi::{
        self,
        madt::Madt,
        Ivhd,
        Ivmd,
        Ivrs,
        Passing, //
    },
    interrupts::{
        Source,
        Unremapped, //
    },
    irte,
    policy::Policy,
    quirks,
    unit::{
        power::Powered,
        Unit, //
    }, //
};

/// The object of the driver.
#[pin_data]
pub(crate) struct AmdVi {
    pub(crate) reserved: KVec<Ivmd>,
    pub(crate) policy: Policy,
    pub(crate) split: Arc<SplitParameter>,
    /// Why interrupts are not remapped.
    pub(crate) unremapped: Option<Unremapped>,
    /// Whose interrupts are not remapped in any case.
    pub(crate) passing: Passing,
    #[pin]
    pub(crate) interrupts: Watched<Source>,
    #[pin]
    pub(crate) units: Units<Powered>,
}

/// Says what of interrupts a module cannot help, and returns why none can be remapped.
fn look_at_interrupts<'a>(units: impl Iterator<Item = &'a Ivhd> + Clone) -> Option<Unremapped> {
    let madt = AcpiTable::find(*b"APIC").and_then(|table| Madt::parse(table.bytes()));
    let madt = madt.unwrap_or_default();
    if madt.far_cpus > 0 {
        pr_warn!(
            "{} CPUs have APIC ids above 254, and can be used only if interrupts are remapped \
             before any driver runs, which a module cannot do: to use them boot without \
             amd_iommu=off and without this driver\n",
            madt.far_cpus
        );
    }
    let is_named = |id| units.clone().any(|unit| unit.has_io_apic(id));
    if !parent::can_remap(irte::LAST_DESTINATION) {
        Some(Unremapped::Kernel)
    } else if !madt.are_io_apics(is_named) {
        Some(Unremapped::IoApic)
    } else {
        None
    }
}

impl AmdVi {
    /// Takes over and starts all units that `ivrs` names. Translation is still off.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// The log names each error. All units have their original state then, except that an erratum
    /// stays mended, and that what an earlier kernel has left on stays off.
    pub(crate) fn new(ivrs: Ivrs, policy: Policy, split: Arc<SplitParameter>) -> Result<Arc<Self>> {
        let isolate = |number| Self::registry().isolate(number);
        let unremapped = look_at_interrupts(ivrs.units.iter());
        let passing = Passing::new(&ivrs.units)?;
        let mut units = KVec::with_capacity(ivrs.units.len(), GFP_KERNEL)?;
        // Checks all units before it writes to any.
        for (number, info) in ivrs.units.into_iter().enumerate() {
            let segment = info.segment;
            let refuses = |source| unremapped.is_none() && !passing.holds(segment, source);
            let unit = Unit::take(number, info, ivrs.info, isolate, refuses)?;
            units.push(unit, GFP_KERNEL)?;
        }
        for unit in &units {
            policy.explain(unit.number, &unit.caps, split.splits())?;
        }
        for unit in &units {
            unit.stop_leftovers()?;
        }
        for unit in &units {
            quirks::mend(unit.number, unit.info.segment, unit.info.source)?;
        }
        let reserved = ivrs.reserved;
        Arc::pin_init(
            try_pin_init!(Self {
                reserved,
                policy,
                split,
                unremapped,
                passing,
                interrupts <- Watched::new(),
                units <- Units::start(units),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Remaps interrupts from now on, and says which are not.
    pub(crate) fn remap_interrupts(&self) {
        if let Some(why) = self.unremapped {
            pr_warn!(
                "interrupts are not remapped, so iommufd assigns no device unless \
                 iommufd.allow_unsafe_interrupts=1 is set: {}\n",
                why.reason()
            );
            return;
        }
        let left = self.interrupts.open();
        let is_able = |unit: &Unit| unit.caps.remaps_interrupts();
        for unit in self.units.iter().filter(|unit| !is_able(unit)) {
            pr_warn!(
                "ivhd{}: cannot remap interrupts for this driver (no EFR.GASup): iommufd assigns \
                 no device behind it unless iommufd.allow_unsafe_interrupts=1 is set\n",
                unit.number
            );
        }
        if self.units.iter().any(|unit| is_able(unit)) {
            pr_info!("remaps interrupts of devices\n");
        }
        if left > 0 {
            pr_info!(
                "does not remap interrupts of {} devices that already had a driver: unbind it \
                 before you assign such a device or another one of its IOMMU group\n",
                left
            );
        }
    }

    /// The number of PASIDs of a device behind `unit` that can be used.
    pub(crate) fn pasids(&self, unit: &Unit) -> u32 {
        self.policy.pasids(&unit.caps)
    }

    /// The unit that serves the device with `ids`.
    pub(crate) fn unit_of(&self, ids: &SourceIds) -> Option<usize> {
        let units = self.units.iter().map(|unit| &unit.info);
        acpi::unit_of(units, ids.segment, ids.source())
    }
}
