// SPDX-License-Identifier: GPL-2.0

//! What the driver keeps for a device: its unit and its requester IDs.
//!
//! The device table entries of a device exist, and block, before it is probed. They stay when it is
//! released: blocking, or passing requests on, which is how the core leaves devices that outlive
//! the driver. Neither names memory of the device.

use kernel::{
    iommu::place::Place,
    prelude::*,
    sync::Arc, //
};

use crate::{
    dte::{
        entry::Entry,
        Live, //
    },
    unit::Unit, //
};

/// A device behind a unit.
pub(crate) struct Endpoint {
    /// The unit that translates for it.
    pub(crate) unit: Arc<Unit>,
    /// Where it is.
    pub(crate) place: Place,
}

impl Endpoint {
    /// Claims the requester IDs of a device at `place`.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENODEV` if the unit has no entry for one of the IDs. Nothing is left behind.
    pub(crate) fn new(unit: Arc<Unit>, mut place: Place) -> Result<Self> {
        if let Some(alias) = unit.info.alias(place.source()) {
            place.add(alias)?;
        }
        let endpoint = Self { unit, place };
        // An error drops `endpoint`, which gives up what was claimed.
        for source in endpoint.place.sources() {
            let owner = endpoint.place.source();
            endpoint.unit.table.claim(source, owner)?;
        }
        Ok(endpoint)
    }

    /// Changes the entries of the device, and makes the unit notice.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// Those of `change`.
    pub(crate) fn change(&self, change: impl Fn(&mut Live<'_>) -> Result) -> Result {
        let forget = |source, old: Entry| self.unit.forget(source, &old);
        self.unit
            .table
            .with(self.place.source(), self.place.sources(), forget, change)
    }

    /// Gives the requester IDs up. Does nothing the second time.
    ///
    /// Context: any.
    pub(crate) fn retire(&self) {
        let forget = |source, old: Entry| self.unit.forget(source, &old);
        self.unit.table.release(self.place.source(), forget);
    }

    /// Prints something about the device that nobody can be told otherwise.
    pub(crate) fn report(&self, what: &str, error: Error) {
        pr_err!(
            "ivhd{}: device {}: {}: {:?}\n",
            self.unit.number,
            self.place,
            what,
            error
        );
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.retire();
    }
}
