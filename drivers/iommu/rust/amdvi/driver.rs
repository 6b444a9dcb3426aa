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
        irq::devices::Devices,
        ops::{
            Confirms,
            Driver, //
        },
        pci::{
            function::Function,
            source_ids::SourceIds,
            unit::UnitFunction, //
        },
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
    sync::{
        aref::ARef,
        Arc, //
    }, //
};

use crate::{
    domain::Domain,
    endpoint::Endpoint,
    interrupts::{
        Namesake,
        Source, //
    },
    machine::AmdVi,
    pasids::sequence::Untagged, //
};

/// Addresses that HyperTransport reserves.
const HYPERTRANSPORT: (u64, u64) = (0xfd_0000_0000, 0xff_ffff_ffff);

/// Layout of the structure that user space gets from `IOMMU_GET_HW_INFO`.
const INFO_BYTES: usize = size_of::<bindings::iommu_hw_info_amd>();
const INFO_EFR: usize = offset_of!(bindings::iommu_hw_info_amd, efr);
const INFO_EFR2: usize = offset_of!(bindings::iommu_hw_info_amd, efr2);

/// Where the callbacks of the IOMMU core find the driver.
static REGISTRY: Registry<AmdVi> = Registry::new();

// SAFETY:
// 1. Only `install()` enters the address of a domain's tables into a device table entry or a GCR3
//    table, and `change_top()` where the entry has a top of the same domain. Each change of an
//    entry goes through `Endpoint::change()` and those of a GCR3 table through `Pasids`, which fail
//    unless the unit has completed the commands that invalidate the old one and all translations
//    made with it.
// 2. A tag is the unit and the domain id (and the PASID of guest tables) of an attachment: what the
//    unit tags its caches with. No device TLB is switched on. `sync()` queues an invalidation for
//    each tag, and returns `Ok` only when the COMPLETION_WAIT behind each has completed.
// 3. The page tables are given the gather of the call, or one that passes tables on to it.
// 4. A domain has its tables until it is dropped. Tables of units and devices are dropped only
//    after the unit was switched off or has forgotten them; those of a dead unit are leaked.
unsafe impl Confirms for AmdVi {}

// SAFETY: It is one static.
unsafe impl Registered for AmdVi {
    fn registry() -> &'static Registry<Self> {
        &REGISTRY
    }
}

impl Driver for AmdVi {
    type Endpoint = Endpoint;
    type Domain = Domain;

    fn probe_device(&self, dev: &Device) -> Result<Probed<Endpoint>> {
        Devices::<Source>::found(dev);
        let ids = SourceIds::of(dev)?;
        let index = self.unit_of(&ids).ok_or(ENODEV)?;
        let unit = self.units.get(index).ok_or(ENODEV)?;
        let endpoint = Endpoint::new(unit.clone(), ids, dev, self.pasids(unit))?;
        let is_chipset = Function::of(dev).is_some_and(|function| function.is_southbridge());
        let namesake = Namesake::of(&endpoint.ids, is_chipset, &self.passing);
        let interrupts = Source::new(unit, &endpoint.ids, namesake)?;
        self.interrupts.add(dev, interrupts)?;
        Ok(Probed {
            unit: index,
            endpoint,
        })
    }

    fn inseparable(&self, endpoint: &Endpoint) -> Option<ARef<Device>> {
        let (unit, ids) = (&endpoint.unit, &endpoint.ids);
        let other = unit.table.sharer(ids.source(), ids.sources())?;
        UnitFunction::find(ids.segment, other).map(|function| function.device())
    }

    fn release_device(&self, dev: &Device, endpoint: &Endpoint) {
        // While the requester IDs are claimed.
        self.interrupts.remove(dev);
        endpoint.retire();
    }

    fn capable(&self, endpoint: &Endpoint, capability: Capability) -> bool {
        let caps = &endpoint.unit.caps;
        match capability {
            // Devices snoop unless they ask not to, on every machine with AMD-Vi.
            Capability::CacheCoherency => true,
            // Unmapping only gathers.
            Capability::DeferredFlush => true,
            Capability::EnforceCacheCoherency => {
                self.policy.always_snoops(caps, endpoint.pasids.is_some())
            }
            Capability::PreBootProtection => caps.protected(),
            Capability::DirtyTracking => caps.dirty(self.policy.tables(caps, true)).is_ok(),
            Capability::Noexec | Capability::PciAts => false,
        }
    }

    fn hw_info(&self, endpoint: &Endpoint) -> Result<HwInfo> {
        let caps = &endpoint.unit.caps;
        let mut info = [0u8; INFO_BYTES];
        info[INFO_EFR..INFO_EFR + 8].copy_from_slice(&caps.raw_efr().to_ne_bytes());
        info[INFO_EFR2..INFO_EFR2 + 8].copy_from_slice(&caps.raw_efr2().to_ne_bytes());
        HwInfo::new(bindings::iommu_hw_info_type_IOMMU_HW_INFO_TYPE_AMD, &info)
    }

    fn reserved_regions(&self, endpoint: &Endpoint, regions: &mut ReservedRegions<'_>) -> Result {
        let ids = &endpoint.ids;
        for region in &self.reserved {
            let named = region.first_source..=region.last_source;
            if region.segment != ids.segment || !named.contains(&ids.source()) {
                continue;
            }
            let mut prot = Prot::NONE;
            if region.read {
                prot |= Prot::READ;
            }
            if region.write {
                prot |= Prot::WRITE;
            }
            let range = Range::inclusive(region.first, region.last)?;
            regions.add(range, prot, RegionKind::Direct)?;
        }
        regions.add_x86_interrupts()?;
        if endpoint.unit.caps.ignores_hypertransport() {
            return Ok(());
        }
        let hypertransport = Range::inclusive(HYPERTRANSPORT.0, HYPERTRANSPORT.1)?;
        regions.add(hypertransport, Prot::NONE, RegionKind::Reserved)
    }

    fn default_domain(&self, endpoint: &Endpoint) -> DefaultDomain {
        endpoint.ids.default_domain(self.policy.default_domain)
    }

    fn alloc_paging(&self, endpoint: &Endpoint, flags: AllocFlags) -> impl PinInit<Domain, Error> {
        let unit = endpoint.unit.clone();
        let tables = if flags.pasid {
            // All domains of the device must have what `capable()` promises.
            match endpoint.pasids {
                Some(_) => self.policy.tables_for_pasid(),
                None => Err(EOPNOTSUPP),
            }
        } else {
            Ok(self.policy.tables(&unit.caps, flags.dirty_tracking))
        };
        let splits = self.split.splits();
        pin_init::pin_init_scope(move || Ok(Domain::new(unit, tables?, flags, splits)))
    }

    fn attach_identity(&self, endpoint: &Arc<Endpoint>, slot: DeviceSlot) -> Result {
        endpoint.unit.check()?;
        match slot {
            DeviceSlot::Rid => endpoint.set_untagged(Untagged::PassThrough),
            // A GCR3 table names page tables; it has no entry for the identity.
            DeviceSlot::Pasid(_) => Err(EOPNOTSUPP),
        }
    }

    fn attach_blocked(&self, endpoint: &Arc<Endpoint>, slot: DeviceSlot) -> Result {
        match (slot, &endpoint.pasids) {
            (DeviceSlot::Rid, _) => endpoint.set_untagged(Untagged::Blocked),
            (DeviceSlot::Pasid(pasid), Some(pasids)) => pasids.detach(&**endpoint, pasid),
            // The unit has always refused its requests with PASID.
            (DeviceSlot::Pasid(_), None) => Ok(()),
        }?;
        // If the entry did not change, a dead unit may still cache translations of it.
        endpoint.unit.check()
    }

    fn withdraw(&self) -> Result {
        self.interrupts.close()?;
        for unit in self.units.iter() {
            unit.table.spare_interrupts();
        }
        Ok(())
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
