// SPDX-License-Identifier: GPL-2.0

//! The tables of callbacks that C calls: the top layer, which hands all others to the IOMMU core.
//!
//! # Contracts of the callbacks
//!
//! The files of this folder use these words for what the core grants:
//!
//! - A device is *under the control* of a driver if `probe_device` has succeeded for it and the
//!   core does not call `release_device` for it before the callback returns.
//! - A *live domain* of type `P` is a pointer to the start of a `Domain<P>`, as
//!   `Domain::into_raw()` returns it, that the core does not `free` before the callback returns.

use kernel::{
    prelude::*,
    sync::Arc,
    ThisModule, //
};

use super::{
    device::UnitInfo,
    files::Directory,
    registry::{
        DriverCallbacks,
        Registered,
        Registration, //
    }, //
};

pub(super) mod device;
pub(super) mod dirty;
pub(super) mod domain;
mod lookup;
mod static_domains;

use device::DeviceTable;
use static_domains::StaticTable;

impl<D: Registered> Registration<D> {
    /// Registers the units of `driver`, and takes all devices in their scope under its control.
    ///
    /// When this returns, each of them is attached to its default domain. `units` are in the order
    /// of the indices that [`Driver::probe_device`](super::ops::Driver::probe_device) returns.
    /// `directory` is where domains and devices are shown.
    ///
    /// Context: may sleep; takes the locks of the IOMMU core.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the driver is registered already, otherwise what the core says. The registration
    /// is dropped then (see [`Self`]), except that
    /// [`Driver::shutdown`](super::ops::Driver::shutdown) is not called: nothing was handed over.
    pub fn new(
        module: &'static ThisModule,
        driver: Arc<D>,
        units: KVec<UnitInfo>,
        directory: Option<Directory>,
    ) -> Result<Self> {
        let callbacks = DriverCallbacks {
            ops: DeviceTable::<D>::table,
            identity: StaticTable::<D>::identity_domain(),
            blocked: StaticTable::<D>::blocked_domain(),
        };
        // SAFETY: Both tables are those of `D`. Their callbacks look in `D::registry()`, which is
        // this registry at each call (contract of `Registered`).
        unsafe { D::registry().register_with(module, driver, units, callbacks, directory) }
    }
}
