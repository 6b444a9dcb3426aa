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
    acpi::Ivrs,
    driver::AmdVi,
    module_parameters,
    policy::Policy,
    quirks,
    unit::REGISTER_BYTES, //
};

/// Reads the firmware's table.
fn parse() -> Result<Ivrs> {
    let table = AcpiTable::find(*b"IVRS").inspect_err(|_| {
        if AcpiTable::find(*b"DMAR").is_ok() {
            pr_err!("there is no IVRS table but a DMAR table: rust_vtd drives this machine\n");
        } else {
            pr_err!(
                "there is no IVRS table: turn the IOMMU (AMD-Vi) on in the firmware's set-up\n"
            );
        }
    })?;
    let ivrs = Ivrs::parse(table.bytes()).map_err(|error| {
        pr_err!("the IVRS table is not usable: {}\n", error);
        Error::from(error)
    })?;
    if ivrs.units.is_empty() {
        pr_err!("the IVRS table names no remapping unit\n");
        return Err(ENODEV);
    }
    Ok(ivrs)
}

impl Lifecycle for AmdVi {
    const NAME: &'static CStr = c"rust_amdvi";

    fn start(module: &'static ThisModule) -> Result<Registration<Self>> {
        let policy = Policy::new(
            *module_parameters::tables.value_ref(),
            *module_parameters::default_domain.value_ref(),
        )?;
        let ivrs = parse()?;
        quirks::check()?;
        let driver = AmdVi::new(ivrs, policy)?;

        let mut infos = KVec::with_capacity(driver.units().len(), GFP_KERNEL)?;
        for unit in driver.units() {
            infos.push(
                UnitInfo {
                    name: CString::try_from_fmt(fmt!("rust-ivhd{}", unit.number))?,
                    max_pasids: driver.pasids(unit),
                    parent: unit.device(),
                },
                GFP_KERNEL,
            )?;
        }
        let registration = AmdVi::registry()
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
            .all(|unit| mmio::is_free(unit.base, REGISTER_BYTES, Self::NAME)))
    }

    /// Only units whose PCI function gave no interrupt.
    fn needs_polling(&self) -> bool {
        self.polls()
    }

    fn poll(&self) {
        for unit in self.units() {
            unit.poll_events();
        }
    }
}

/// The module.
pub(crate) struct Module {
    _life: lifecycle::Life<AmdVi>,
}

impl kernel::Module for Module {
    fn init(module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _life: lifecycle::Life::begin(module, cfg!(MODULE))?,
        })
    }
}
