// SPDX-License-Identifier: GPL-2.0

//! The units of the machine, and what firmware and the user say about them.

use kernel::{
    iommu::{
        pci::source_ids::SourceIds,
        registry::Registered,
        units::Units, //
    },
    prelude::*,
    sync::Arc, //
};

use crate::{
    acpi::{
        Ivmd,
        Ivrs, //
    },
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
    #[pin]
    pub(crate) units: Units<Powered>,
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
    pub(crate) fn new(ivrs: Ivrs, policy: Policy) -> Result<Arc<Self>> {
        let isolate = |number| Self::registry().isolate(number);
        let mut units = KVec::with_capacity(ivrs.units.len(), GFP_KERNEL)?;
        // Checks all units before it writes to any.
        for (number, info) in ivrs.units.into_iter().enumerate() {
            let unit = Unit::take(number, info, ivrs.info, isolate)?;
            units.push(unit, GFP_KERNEL)?;
        }
        for unit in &units {
            policy.explain(unit.number, &unit.caps)?;
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
                units <- Units::start(units),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// The number of PASIDs of a device behind `unit` that can be used.
    pub(crate) fn pasids(&self, unit: &Unit) -> u32 {
        self.policy.pasids(&unit.caps)
    }

    /// The unit that serves the device with `ids`.
    ///
    /// No unit serves the function of another, although firmware may name it in a range: it is not
    /// translated.
    pub(crate) fn unit_of(&self, ids: &SourceIds) -> Option<usize> {
        let is_here = |unit: &Unit| unit.info.segment == ids.segment;
        let is_itself = |unit: &Unit| is_here(unit) && unit.info.source == ids.source();
        if self.units.iter().any(|unit| is_itself(unit)) {
            return None;
        }
        self.units
            .iter()
            .position(|unit| is_here(unit) && unit.info.serves(ids.source()))
    }
}
