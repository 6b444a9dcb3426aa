// SPDX-License-Identifier: GPL-2.0

//! The callbacks of the IOMMU core.

use core::mem::offset_of;

use kernel::{
    bindings,
    device::Device,
    fmt,
    iommu::{
        device::{
            Capability,
            DefaultDomain,
            HwInfo,
            Probed, //
        },
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
            DeviceSlot, //
        }, //
    },
    prelude::*,
    sync::Arc, //
};

use crate::{
    acpi::scope,
    domain::Domain,
    endpoint::{
        self,
        Endpoint, //
    },
    machine::Vtd,
    pasid::writer,
    topology::Path, //
};

/// Layout of the structure that user space gets from `IOMMU_GET_HW_INFO`.
const INFO_BYTES: usize = size_of::<bindings::iommu_hw_info_vtd>();
const INFO_CAP: usize = offset_of!(bindings::iommu_hw_info_vtd, cap_reg);
const INFO_ECAP: usize = offset_of!(bindings::iommu_hw_info_vtd, ecap_reg);

/// Where the callbacks of the IOMMU core find the driver.
static REGISTRY: Registry<Vtd> = Registry::new();

// SAFETY:
// 1. Only `install()` enters the address of a domain's tables into a PASID entry. Each change of an
//    entry goes through `Endpoint::change()`, which fails unless the unit has completed the
//    invalidations of the old entry and of all translations made with it. An absent entry needs
//    none: the unit has completed them before, or it is dead, and each kind of attach fails.
// 2. A tag is the unit and the domain id (and the PASID in the first stage) of an attachment: what
//    the unit tags its caches with. No device TLB is switched on. `sync()` submits an invalidation
//    for each tag, and `Unit::submit()` returns `Ok` only when the wait descriptor behind it has
//    completed.
// 3. The page tables are given the gather of the call, and nothing else.
// 4. A domain has its tables until it is dropped. Tables of units and devices are dropped only
//    after the unit was switched off or has forgotten them; those of a dead unit are leaked.
unsafe impl Confirms for Vtd {}

// SAFETY: It is one static.
unsafe impl Registered for Vtd {
    fn registry() -> &'static Registry<Self> {
        &REGISTRY
    }
}

impl Driver for Vtd {
    type Endpoint = Endpoint;
    type Domain = Domain;

    fn probe_device(&self, dev: &Device) -> Result<Probed<Endpoint>> {
        let (ids, path) = (SourceIds::of(dev)?, Path::of(dev)?);
        let index = self.unit_of(&ids, &path).ok_or(ENODEV)?;
        let unit = self.units.get(index).ok_or(ENODEV)?;
        if path.needs_translation {
            unit.note_fragile_device();
        }
        let needs_cache = self.cached.iter().any(|cached| {
            cached.segment == ids.segment && scope::any_serves(&cached.scopes, &path.chain)
        });
        if needs_cache && !unit.caps.pass_through() {
            // With translation on it could do no DMA.
            pr_err!(
                "dmar{}: serves the device {}, which needs its translation cache (SATC), and \
                 cannot pass it through (ECAP.PT); this driver cannot drive it\n",
                unit.number,
                ids
            );
            return Err(EOPNOTSUPP);
        }
        Ok(Probed {
            unit: index,
            endpoint: Endpoint::new(unit.clone(), ids, path, needs_cache)?,
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
        let (ids, path) = (&endpoint.ids, &endpoint.path);
        let kind = if path.relaxable {
            RegionKind::DirectRelaxable
        } else {
            RegionKind::Direct
        };
        for region in &self.reserved {
            if region.segment == ids.segment && scope::any_serves(&region.scopes, &path.own) {
                let range = Range::inclusive(region.first, region.last)?;
                regions.add(range, Prot::READ | Prot::WRITE, kind)?;
            }
        }
        regions.add_x86_interrupts()
    }

    fn default_domain(&self, endpoint: &Endpoint) -> DefaultDomain {
        if !endpoint.unit.caps.pass_through() {
            return DefaultDomain::Dma;
        }
        if endpoint.needs_cache {
            return DefaultDomain::Identity;
        }
        endpoint.ids.default_domain(self.policy.default_domain)
    }

    fn alloc_paging(&self, endpoint: &Endpoint, flags: AllocFlags) -> impl PinInit<Domain, Error> {
        let caps = &endpoint.unit.caps;
        let stage = self.policy.stage(caps, flags.dirty_tracking);
        let unit = endpoint.unit.clone();
        let refused = endpoint.check_translatable();
        let splits = self.split.splits();
        pin_init::pin_init_scope(move || {
            refused?;
            Ok(Domain::new(unit, stage, flags, splits))
        })
    }

    fn attach_identity(&self, endpoint: &Arc<Endpoint>, slot: DeviceSlot) -> Result {
        let caps = &endpoint.unit.caps;
        if !caps.pass_through() {
            return Err(EOPNOTSUPP);
        }
        if endpoint.unit.is_dead() {
            return Err(EIO);
        }
        let pasid = slot.pasid();
        endpoint.table.prepare(pasid)?;
        let entry = endpoint::pass_through_entry(caps);
        endpoint.change(pasid, |live| writer::replace(live, entry))
    }

    fn attach_blocked(&self, endpoint: &Arc<Endpoint>, slot: DeviceSlot) -> Result {
        endpoint.block(slot.pasid())
    }

    fn show_endpoint(endpoint: &Endpoint, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!("{}", endpoint.ids))
    }

    fn show_entries(endpoint: &Endpoint, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        endpoint.show(f)
    }

    fn shutdown(&self) {
        if self.units.stop() {
            pr_info!("all units are as they were found\n");
        }
    }
}
