// SPDX-License-Identifier: GPL-2.0

//! The units of the machine, and what firmware and the user say about them.

use kernel::{
    iommu::{
        firmware::acpi::node_of,
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
        scope,
        Dmar,
        Rmrr,
        Satc, //
    },
    endpoint,
    policy::Policy,
    topology::Path,
    unit::{
        power::Powered,
        Unit, //
    }, //
};

/// The object of the driver.
#[pin_data]
pub(crate) struct Vtd {
    pub(crate) reserved: KVec<Rmrr>,
    pub(crate) cached: KVec<Satc>,
    pub(crate) platform_opt_in: bool,
    pub(crate) policy: Policy,
    pub(crate) split: Arc<SplitParameter>,
    #[pin]
    pub(crate) units: Units<Powered>,
}

impl Vtd {
    /// Takes over and starts all units that `dmar` names. Translation is still off.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// The log names each error. All units have their original state then, except that what an
    /// earlier kernel has left on stays off.
    pub(crate) fn new(dmar: Dmar, policy: Policy, split: Arc<SplitParameter>) -> Result<Arc<Self>> {
        let node = |base| {
            let affinity = dmar
                .affinities
                .iter()
                .find(|affinity| affinity.base == base);
            affinity.and_then(|affinity| node_of(affinity.proximity))
        };
        let isolate = |number| Self::registry().isolate(number);
        let mut units = KVec::with_capacity(dmar.units.len(), GFP_KERNEL)?;
        // Checks all units before it writes to any.
        for (number, info) in dmar.units.into_iter().enumerate() {
            let node = node(info.base);
            units.push(Unit::take(number, info, node, isolate)?, GFP_KERNEL)?;
        }
        for unit in &units {
            policy.explain(unit.number, &unit.caps, split.splits())?;
        }
        for unit in &units {
            unit.stop_leftovers()?;
        }
        let (reserved, cached) = (dmar.reserved, dmar.cached);
        let platform_opt_in = dmar.platform_opt_in;
        let driver = Arc::pin_init(
            try_pin_init!(Self {
                reserved,
                cached,
                platform_opt_in,
                policy,
                split,
                units <- Units::start(units),
            }? Error),
            GFP_KERNEL,
        )?;
        for unit in driver.units.iter() {
            endpoint::pass_acpi_devices(unit)?;
        }
        Ok(driver)
    }

    /// The unit that serves the device with `ids`, which `path` leads to.
    ///
    /// A unit that names it, or a bridge above it, takes precedence over the one that serves all
    /// others.
    pub(crate) fn unit_of(&self, ids: &SourceIds, path: &Path) -> Option<usize> {
        let named = self.units.iter().position(|unit| {
            unit.info.segment == ids.segment && scope::any_serves(&unit.info.scopes, &path.chain)
        });
        named.or_else(|| {
            self.units
                .iter()
                .position(|unit| unit.info.segment == ids.segment && unit.info.include_all)
        })
    }
}
