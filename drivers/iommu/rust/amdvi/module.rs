// SPDX-License-Identifier: GPL-2.0

//! Loading the driver, release of the hardware, unloading: see [`lifecycle`].

use kernel::{
    fmt,
    iommu::{
        firmware::acpi::AcpiTable,
        hw::mmio,
        lifecycle::{
            self,
            Lifecycle, //
        },
        split_parameter::SplitParameter,
        units::Units, //
    },
    prelude::*,
    sync::Arc,
    ModuleMetadata, //
};

use crate::{
    acpi::Ivrs,
    machine::AmdVi,
    module_parameters,
    policy::Policy,
    quirks,
    unit::{
        power::Powered,
        Unit,
        REGISTER_BYTES, //
    }, //
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
    type Module = Module;
    type Power = Powered;

    const C_DRIVER: &'static str = "without amd_iommu=off";

    fn take_over() -> Result<Arc<Self>> {
        let policy = Policy::new(
            *module_parameters::tables.value_ref(),
            *module_parameters::default_domain.value_ref(),
        )?;
        let split = SplitParameter::new(*module_parameters::split.value_ref(), Self::log_error)?;
        let ivrs = parse()?;
        quirks::check()?;
        AmdVi::new(ivrs, policy, split)
    }

    fn units(&self) -> &Units<Powered> {
        &self.units
    }

    fn split(&self) -> &Arc<SplitParameter> {
        &self.split
    }

    fn max_pasids(&self, unit: &Unit) -> u32 {
        self.pasids(unit)
    }

    fn registers_are_free() -> Result<bool> {
        let units = parse()?.units;
        Ok(units
            .iter()
            .all(|unit| mmio::is_free(unit.base, REGISTER_BYTES, Module::NAME)))
    }

    fn translating(&self) {
        self.remap_interrupts();
    }

    fn log_error(message: fmt::Arguments<'_>) {
        pr_err!("{}", message);
    }

    fn log_info(message: fmt::Arguments<'_>) {
        pr_info!("{}", message);
    }
}

/// The module.
pub(crate) struct Module {
    _life: lifecycle::Life<AmdVi>,
}

impl kernel::Module for Module {
    fn init(module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _life: lifecycle::Life::begin(module)?,
        })
    }
}
