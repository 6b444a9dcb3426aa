// SPDX-License-Identifier: GPL-2.0

//! The driver object: finds the unit of a device, and answers the IOMMU core.

use core::mem::offset_of;

use kernel::{
    bindings,
    device::Device,
    iommu::{
        device::{
            Capability,
            DefaultDomain,
            HwInfo,
            Probed, //
        },
        firmware::acpi::node_of,
        ops::{
            Confirms,
            Driver, //
        },
        pci::source_ids::SourceIds,
        pt::{
            Prot,
            Range, //
        },
        registry::{
            Registered,
            Registry, //
        },
        resv::{
            RegionKind,
            ReservedRegions, //
        },
        values::{
            AllocFlags,
            Slot, //
        }, //
    },
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

use crate::{
    acpi::{
        scope,
        CachedInfo,
        Dmar,
        ReservedInfo, //
    },
    caps::{
        Caps,
        Stage, //
    },
    domain::Domain,
    endpoint::{
        self,
        Endpoint, //
    },
    pasid::writer,
    policy::Policy,
    topology::Path,
    unit::{
        power::Powered,
        Unit, //
    }, //
};

/// Writes there are interrupts; units never translate them (VT-d specification, 3.14).
const INTERRUPTS: (u64, u64) = (0xfee0_0000, 0xfeef_ffff);

/// Layout of the structure that user space gets from `IOMMU_GET_HW_INFO`.
const INFO_BYTES: usize = size_of::<bindings::iommu_hw_info_vtd>();
const INFO_CAP: usize = offset_of!(bindings::iommu_hw_info_vtd, cap_reg);
const INFO_ECAP: usize = offset_of!(bindings::iommu_hw_info_vtd, ecap_reg);

/// Where the callbacks of the IOMMU core find the driver.
static REGISTRY: Registry<Vtd> = Registry::new();

/// Takes bus mastering from all devices behind the unit number `unit`, which is dead.
///
/// Returns the number of devices that had it, [`None`] if an earlier call did this. Context: any.
pub(crate) fn isolate(unit: usize) -> Option<usize> {
    REGISTRY.isolate(unit)
}

/// All units of the machine.
#[pin_data]
pub(crate) struct Vtd {
    /// The units, in the order of the firmware's table.
    units: KVec<Arc<Unit>>,
    reserved: KVec<ReservedInfo>,
    cached: KVec<CachedInfo>,
    platform_opt_in: bool,
    policy: Policy,
    /// Emptied by `shutdown()`: dropping these switches the units off.
    #[pin]
    power: Mutex<KVec<Powered>>,
}

impl Vtd {
    /// Takes over and starts all units that `dmar` names. Translation is still off.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// The log names each error. All units have their original state then.
    pub(crate) fn new(dmar: Dmar, policy: Policy) -> Result<Arc<Self>> {
        let node = |base| {
            let affinity = dmar
                .affinities
                .iter()
                .find(|affinity| affinity.base == base);
            affinity.and_then(|affinity| node_of(affinity.proximity))
        };
        let mut units = KVec::with_capacity(dmar.units.len(), GFP_KERNEL)?;
        // Checks all units before it writes to any.
        for (number, info) in dmar.units.into_iter().enumerate() {
            let node = node(info.base);
            units.push(Unit::take(number, info, node)?, GFP_KERNEL)?;
        }
        for unit in &units {
            policy.explain(unit.number, &unit.caps)?;
        }
        let mut power = KVec::with_capacity(units.len(), GFP_KERNEL)?;
        for unit in &units {
            power.push(Powered::new(unit.clone())?, GFP_KERNEL)?;
            endpoint::pass_acpi_devices(unit)?;
        }
        let (reserved, cached) = (dmar.reserved, dmar.cached);
        let platform_opt_in = dmar.platform_opt_in;
        Arc::pin_init(
            try_pin_init!(Self {
                units,
                reserved,
                cached,
                platform_opt_in,
                policy,
                power <- new_mutex!(power),
            }),
            GFP_KERNEL,
        )
    }

    /// The units.
    pub(crate) fn units(&self) -> &[Arc<Unit>] {
        &self.units
    }

    /// Switches translation on. Every device in scope has its entries by now.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT`; the caller drops the registration then.
    pub(crate) fn enable_translation(&self) -> Result {
        for powered in self.power.lock().iter() {
            powered.enable_translation().inspect_err(|_| {
                pr_err!(
                    "dmar{}: does not switch translation on\n",
                    powered.unit().number
                );
            })?;
        }
        Ok(())
    }

    /// The unit that serves the device at `place`, which `path` leads to.
    ///
    /// A unit that names it, or a bridge above it, takes precedence over the one that serves all
    /// others.
    fn unit_of(&self, place: &SourceIds, path: &Path) -> Option<usize> {
        let named = self.units.iter().position(|unit| {
            unit.info.segment == place.segment && scope::any_serves(&unit.info.scopes, &path.chain)
        });
        named.or_else(|| {
            self.units
                .iter()
                .position(|unit| unit.info.segment == place.segment && unit.info.include_all)
        })
    }

    /// The stage of new domains for devices of a unit.
    fn stage(&self, caps: &Caps, flags: AllocFlags) -> Stage {
        self.policy.stage(caps, flags.dirty_tracking)
    }
}

// SAFETY:
// 1. Only `install()` enters the address of a domain's tables into a PASID entry. Each change of an
//    entry goes through `Endpoint::change()`, which fails unless the unit has completed the
//    invalidations that the writer asks for: of the old entry and of all translations made with it.
//    Of an absent entry it asks for none: the unit has completed them before, or it is dead, and
//    `prepare()`, `attach_identity()` and `attach_blocked()` fail.
// 2. A tag is the unit and the domain id (and the PASID in the first stage) of an attachment: what
//    the unit tags its caches with. No device TLB is switched on. `sync()` submits an invalidation
//    for each tag, and `Unit::submit()` returns `Ok` only when the wait descriptor behind it has
//    completed.
// 3. The page tables are given the gather of the call, and nothing else.
// 4. A domain has its tables until it is dropped. Tables of units and devices are dropped only
//    after the unit was switched off or has forgotten them; those of a dead unit are leaked.
unsafe impl Confirms for Vtd {}

impl Registered for Vtd {
    fn registry() -> &'static Registry<Self> {
        &REGISTRY
    }
}

impl Driver for Vtd {
    type Endpoint = Endpoint;
    type Domain = Domain;

    fn probe_device(&self, dev: &Device) -> Result<Probed<Endpoint>> {
        let (place, path) = (SourceIds::of(dev)?, Path::of(dev)?);
        let index = self.unit_of(&place, &path).ok_or(ENODEV)?;
        let unit = self.units.get(index).ok_or(ENODEV)?;
        if path.needs_translation {
            unit.note_fragile_device();
        }
        let needs_cache = self.cached.iter().any(|cached| {
            cached.segment == place.segment && scope::any_serves(&cached.scopes, &path.chain)
        });
        if needs_cache && !unit.caps.pass_through() {
            // With translation on it could do no DMA.
            pr_err!(
                "dmar{}: serves the device {}, which needs its translation cache (SATC), and \
                 cannot pass it through (ECAP.PT); this driver cannot drive it\n",
                unit.number,
                place
            );
            return Err(EOPNOTSUPP);
        }
        Ok(Probed {
            unit: index,
            endpoint: Endpoint::new(unit.clone(), place, path, needs_cache)?,
        })
    }

    fn release_device(&self, _dev: &Device, endpoint: &Endpoint) {
        endpoint.retire();
    }

    fn capable(&self, endpoint: &Endpoint, capability: Capability) -> bool {
        let caps = &endpoint.unit.caps;
        match capability {
            // Devices snoop unless they ask not to, on every machine with VT-d.
            Capability::CacheCoherency => true,
            // Unmapping only gathers.
            Capability::DeferredFlush => true,
            Capability::EnforceCacheCoherency => caps.snoop_control(),
            Capability::PreBootProtection => self.platform_opt_in,
            Capability::DirtyTracking => caps.dirty(self.policy.stage(caps, true)).is_ok(),
            Capability::Noexec | Capability::PciAts => false,
        }
    }

    fn hw_info(&self, endpoint: &Endpoint) -> Result<HwInfo> {
        let caps = &endpoint.unit.caps;
        // `struct iommu_hw_info_vtd`: no flags are set, for none of the errata that they name
        // concerns what this driver offers.
        let mut info = [0u8; INFO_BYTES];
        info[INFO_CAP..INFO_CAP + 8].copy_from_slice(&caps.raw_cap().to_ne_bytes());
        info[INFO_ECAP..INFO_ECAP + 8].copy_from_slice(&caps.raw_ecap().to_ne_bytes());
        HwInfo::new(
            bindings::iommu_hw_info_type_IOMMU_HW_INFO_TYPE_INTEL_VTD,
            &info,
        )
    }

    fn reserved_regions(&self, endpoint: &Endpoint, regions: &mut ReservedRegions<'_>) -> Result {
        let (place, path) = (&endpoint.place, &endpoint.path);
        let kind = if path.relaxable {
            RegionKind::DirectRelaxable
        } else {
            RegionKind::Direct
        };
        for region in &self.reserved {
            if region.segment == place.segment && scope::any_serves(&region.scopes, &path.own) {
                let range = Range::inclusive(region.first, region.last)?;
                regions.add(range, Prot::READ | Prot::WRITE, kind)?;
            }
        }
        let interrupts = Range::inclusive(INTERRUPTS.0, INTERRUPTS.1)?;
        regions.add(interrupts, Prot::NONE, RegionKind::Msi)
    }

    fn default_domain(&self, endpoint: &Endpoint) -> DefaultDomain {
        if !endpoint.unit.caps.pass_through() {
            return DefaultDomain::Dma;
        }
        if endpoint.needs_cache {
            return DefaultDomain::Identity;
        }
        endpoint.place.default_domain(self.policy.default_domain())
    }

    fn alloc_paging(&self, endpoint: &Endpoint, flags: AllocFlags) -> impl PinInit<Domain, Error> {
        let stage = self.stage(&endpoint.unit.caps, flags);
        let unit = endpoint.unit.clone();
        let refused = endpoint.check_translatable();
        pin_init::pin_init_scope(move || {
            refused?;
            Ok(Domain::new(unit, stage, flags))
        })
    }

    fn attach_identity(&self, endpoint: &Arc<Endpoint>, slot: Slot) -> Result {
        let caps = &endpoint.unit.caps;
        if !caps.pass_through() {
            return Err(EOPNOTSUPP);
        }
        if endpoint.unit.is_dead() {
            return Err(EIO);
        }
        let pasid = endpoint::pasid_of(slot);
        endpoint.table.prepare(pasid)?;
        let entry = endpoint::pass_through(caps);
        endpoint.change(pasid, |live| writer::replace(live, entry))
    }

    fn attach_blocked(&self, endpoint: &Arc<Endpoint>, slot: Slot) -> Result {
        endpoint.block(endpoint::pasid_of(slot))
    }

    fn shutdown(&self) {
        let mut power = self.power.lock();
        let mut running = 0;
        // Stops the units in reverse order.
        while let Some(powered) = power.pop() {
            let unit = powered.unit().clone();
            drop(powered);
            running += usize::from(unit.is_powered());
        }
        if running == 0 {
            pr_info!("all units are as they were found\n");
        }
    }
}
