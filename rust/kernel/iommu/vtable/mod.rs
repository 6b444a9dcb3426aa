// SPDX-License-Identifier: GPL-2.0

//! The tables of callbacks that C calls: the top layer, which hands all others to the IOMMU core.

use kernel::{
    prelude::*,
    sync::Arc,
    ThisModule, //
};

use super::{
    device::UnitInfo,
    registry::{
        Callbacks,
        Registered,
        Registration,
        Registry, //
    }, //
};

pub(super) mod device;
pub(super) mod dirty;
pub(super) mod domain;
mod lookup;
mod static_domains;

use device::DeviceTable;
use static_domains::StaticTable;

impl<D: Registered> Registry<D> {
    /// Registers the units of `driver`, and takes all devices in their scope under its control.
    ///
    /// When this returns, each of them is attached to its default domain. `units` are in the order
    /// of the indices that [`Driver::probe_device`](super::ops::Driver::probe_device) returns.
    ///
    /// Context: may sleep; takes the locks of the IOMMU core.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the driver is registered already, otherwise what the core says. The registration
    /// is dropped then (see [`Registration`]), except that
    /// [`Driver::shutdown`](super::ops::Driver::shutdown) is not called: nothing was handed over.
    pub fn register(
        &'static self,
        module: &'static ThisModule,
        driver: Arc<D>,
        units: KVec<UnitInfo>,
    ) -> Result<Registration<D>> {
        let callbacks = Callbacks {
            ops: DeviceTable::<D>::table,
            identity: StaticTable::<D>::identity_domain(),
            blocked: StaticTable::<D>::blocked_domain(),
        };
        // SAFETY: Both tables are those of `D`. Their callbacks look in `D::registry()`, and
        // `Registered` says that there is only one registry of the driver.
        unsafe { self.register_with(module, driver, units, callbacks) }
    }
}
