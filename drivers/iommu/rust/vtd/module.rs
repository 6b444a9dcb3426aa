// SPDX-License-Identifier: GPL-2.0

//! Loading the driver, release of the hardware, unloading: see [`lifecycle`].

use kernel::{
    fmt,
    iommu::{
        firmware::acpi::AcpiTable,
        hw::{
            dmar::SharedUnit,
            mmio, //
        },
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
    acpi::Dmar,
    machine::Vtd,
    module_parameters,
    policy::Policy,
    unit::power::Powered, //
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
    type Module = Module;
    type Power = Powered;

    const C_DRIVER: &'static str = "with intel_iommu=on,sm_on";

    fn take_over() -> Result<Arc<Self>> {
        let policy = Policy::new(
            *module_parameters::stage.value_ref(),
            *module_parameters::default_domain.value_ref(),
        )?;
        let split = SplitParameter::new(*module_parameters::split.value_ref(), Self::log_error)?;
        let dmar = parse()?;
        for (first, last) in &dmar.inverted {
            pr_warn!(
                "the DMAR table has reserved memory that ends before it begins, {:#x} to {:#x}: \
                 ignored; newer firmware may fix this\n",
                first,
                last
            );
        }
        Vtd::new(dmar, policy, split)
    }

    fn units(&self) -> &Units<Powered> {
        &self.units
    }

    fn split(&self) -> &Arc<SplitParameter> {
        &self.split
    }

    fn registers_are_free() -> Result<bool> {
        let units = parse()?.units;
        // Interrupt remapping claims the registers of the units that it shares.
        Ok(units.iter().all(|unit| {
            SharedUnit::get(unit.base).is_ok() || mmio::is_free(unit.base, unit.bytes, Module::NAME)
        }))
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
    _life: lifecycle::Life<Vtd>,
}

impl kernel::Module for Module {
    fn init(module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _life: lifecycle::Life::begin(module)?,
        })
    }
}
