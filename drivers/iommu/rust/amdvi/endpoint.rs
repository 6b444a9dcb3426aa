// SPDX-License-Identifier: GPL-2.0

//! What the driver keeps for a device: its unit, its requester IDs, its PASIDs.
//!
//! The device table entries of a device exist, and block, before it is probed. They stay when it is
//! released: blocking, or passing requests on, which is how the core leaves devices that outlive
//! the driver. Neither names memory of the device.

use kernel::{
    device::Device,
    iommu::place::Place,
    prelude::*,
    sync::Arc, //
};

use crate::{
    dte::{
        entry::Entry,
        writer,
        Live, //
    },
    pasids::{
        sequence::Untagged,
        Pasids, //
    },
    unit::{
        Unit,
        PASS_THROUGH, //
    }, //
};

/// A device behind a unit.
pub(crate) struct Endpoint {
    /// The unit that translates for it.
    pub(crate) unit: Arc<Unit>,
    /// Where it is.
    pub(crate) place: Place,
    /// Its PASIDs, if it has any and they could be switched on.
    pub(crate) pasids: Option<Pin<KBox<Pasids>>>,
}

impl Endpoint {
    /// Claims the requester IDs of the device `dev` at `place`, and switches its PASIDs on, of
    /// which `most` may be used.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENODEV` if the unit has no entry for one of the IDs. Nothing is left behind.
    pub(crate) fn new(unit: Arc<Unit>, mut place: Place, dev: &Device, most: u32) -> Result<Self> {
        if let Some(alias) = unit.info.alias(place.source()) {
            place.add(alias)?;
        }
        let mut endpoint = Self {
            unit,
            place,
            pasids: None,
        };
        // An error drops `endpoint`, which gives up what was claimed.
        for source in endpoint.place.sources() {
            let owner = endpoint.place.source();
            endpoint.unit.table.claim(source, owner)?;
        }
        if most > 0 {
            endpoint.pasids = endpoint.find_pasids(dev, most)?;
        }
        Ok(endpoint)
    }

    /// Switches the PASIDs on, if there are any. It is no error if they cannot be used.
    fn find_pasids(&self, dev: &Device, most: u32) -> Result<Option<Pin<KBox<Pasids>>>> {
        match Pasids::new(dev, &self.unit, most) {
            Ok(pasids) => {
                pr_info!(
                    "ivhd{}: device {}: {} PASIDs\n",
                    self.unit.number,
                    self.place,
                    pasids.count()
                );
                Ok(Some(pasids))
            }
            // It has none.
            Err(ENODEV) => Ok(None),
            Err(ENOMEM) => Err(ENOMEM),
            Err(error) => {
                pr_info!(
                    "ivhd{}: device {}: its PASIDs cannot be used: {:?}\n",
                    self.unit.number,
                    self.place,
                    error
                );
                Ok(None)
            }
        }
    }

    /// Changes what requests without PASID meet; not to a host table.
    ///
    /// May sleep; under the attach lock.
    ///
    /// # Errors
    ///
    /// If the unit does not answer; the device is blocked then, with all of its PASIDs.
    pub(crate) fn set_untagged(&self, new: Untagged) -> Result {
        if let Some(pasids) = &self.pasids {
            return pasids.set_untagged(self, new, &|| Err(EINVAL));
        }
        let entry = match new {
            Untagged::PassThrough => Entry::pass_through(PASS_THROUGH),
            _ => Entry::BLOCKED,
        };
        self.change(|live| writer::replace(live, entry))
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

    /// Gives the requester IDs up, and switches the PASIDs off. Does nothing the second time.
    ///
    /// May sleep.
    pub(crate) fn retire(&self) {
        if let Some(pasids) = &self.pasids {
            pasids.retire();
        }
        let forget = |source, old: Entry| self.unit.forget(source, &old);
        self.unit.table.release(self.place.source(), forget);
    }

    /// Prints why a domain is refused.
    pub(crate) fn explain_refusal(&self, why: &str) {
        self.unit
            .explain_refusal(fmt!("device {}: {}", self.place, why));
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
