// SPDX-License-Identifier: GPL-2.0

//! Loading the driver, release of the hardware, unloading: see [`lifecycle`].

use kernel::{
    iommu::{
        device::UnitInfo,
        firmware::acpi::AcpiTable,
        hw::mmio,
        lifecycle::{
            self,
            Lifecycle, //
        },
        registry::{
            Registered,
            Registration, //
        }, //
    },
    prelude::*,
    str::CString, //
};

use crate::{
    acpi::Dmar,
    driver::Vtd,
    module_parameters,
    policy::Policy, //
};

/// Reads the firmware's table.
fn parse() -> Result<Dmar> {
    let table = AcpiTable::find(*b"DMAR").inspect_err(|_| {
        if AcpiTable::find(*b"IVRS").is_ok() {
            pr_err!("there is no DMAR table but an IVRS table: rust_amdvi drives this machine\n");
        } else {
            pr_err!("there is no DMAR table: turn VT-d on in the firmware's set-up\n");
        }
    })?;
    let dmar = Dmar::parse(table.bytes()).map_err(|error| {
        pr_err!("the DMAR table is not usable: {}\n", error);
        Error::from(error)
    })?;
    if dmar.units.is_empty() {
        pr_err!("the DMAR table names no remapping unit\n");
        return Err(ENODEV);
    }
    if dmar.opt_out {
        // In the C driver the user cannot override this either.
        pr_err!("firmware forces DMA remapping off: turn VT-d on in the firmware's set-up\n");
        return Err(ENODEV);
    }
    Ok(dmar)
}

impl Lifecycle for Vtd {
    const NAME: &'static CStr = c"rust_vtd";

    fn start(module: &'static ThisModule) -> Result<Registration<Self>> {
        let policy = Policy::new(
            *module_parameters::stage.value_ref(),
            *module_parameters::default_domain.value_ref(),
        )?;
        let dmar = parse()?;
        for (first, last) in &dmar.inverted {
            pr_warn!(
                "the DMAR table has reserved memory that ends before it begins, {:#x} to {:#x}: it \
                 is left out; a newer firmware may mend this\n",
                first,
                last
            );
        }
        let driver = Vtd::new(dmar, policy)?;

        let mut infos = KVec::with_capacity(driver.units().len(), GFP_KERNEL)?;
        for unit in driver.units() {
            infos.push(
                UnitInfo {
                    name: CString::try_from_fmt(fmt!("rust-dmar{}", unit.number))?,
                    // Requests with PASID need a switch in the device, which the driver does not
                    // set yet.
                    max_pasids: 0,
                    parent: None,
                },
                GFP_KERNEL,
            )?;
        }
        let registration = Vtd::registry()
            .register(module, driver, infos)
            .inspect_err(|error| pr_err!("the IOMMU core refuses the units: {:?}\n", *error))?;
        // Every device in scope has its entries now. An error drops the registration.
        registration.driver().enable_translation()?;
        pr_info!("driving {} units\n", registration.driver().units().len());
        Ok(registration)
    }

    fn registers_are_free() -> Result<bool> {
        let units = parse()?.units;
        Ok(units
            .iter()
            .all(|unit| mmio::is_free(unit.base, unit.bytes, Self::NAME)))
    }

    /// A unit reports faults by a message-signalled interrupt. The unit is not a PCI function, so
    /// on x86 a module cannot request its interrupt.
    fn needs_polling(&self) -> bool {
        true
    }

    fn poll(&self) {
        for unit in self.units() {
            unit.poll_faults();
        }
    }
}

/// The module.
pub(crate) struct Module {
    _life: lifecycle::Life<Vtd>,
}

impl kernel::Module for Module {
    fn init(module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _life: lifecycle::Life::begin(module, cfg!(MODULE))?,
        })
    }
}
