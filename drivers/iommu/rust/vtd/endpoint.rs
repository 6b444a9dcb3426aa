// SPDX-License-Identifier: GPL-2.0

//! What the driver keeps for a device: its unit, its requester IDs, its PASID table.
//!
//! The context entries of a device are made when it is probed, with a PASID table in which nothing
//! is present: from then on the table alone decides what the device reaches. They go when the
//! device is released, unless it is passed through then, which is how the core leaves devices that
//! outlive the driver: their tables stay until translation is off ([`Unit::keep`]).

use kernel::{
    iommu::{
        attach::Slot,
        place::Place, //
    },
    prelude::*,
    sync::Arc, //
};

use crate::{
    pasid::{
        entry::Entry,
        flush::{
            self,
            Owner, //
        },
        Live,
        PasidTable, //
    },
    root::Context,
    topology::Path,
    unit::{
        kept::Kept,
        Unit, //
    }, //
};

/// The PASID of requests without one (`RID_PASID` of the context entry).
const NO_PASID: u32 = 0;

/// The index of a slot in the PASID table.
pub(crate) fn pasid_of(slot: Slot) -> u32 {
    match slot {
        Slot::Rid => NO_PASID,
        Slot::Pasid(pasid) => pasid,
    }
}

/// A device behind a unit.
pub(crate) struct Endpoint {
    /// The unit that translates for it.
    pub(crate) unit: Arc<Unit>,
    /// Where it is.
    pub(crate) place: Arc<Place>,
    /// The way there.
    pub(crate) path: Path,
    /// Its PASIDs.
    pub(crate) table: Arc<PasidTable>,
}

impl Endpoint {
    /// Makes the tables of a device at `place`, which `path` leads to, and shows them to `unit`. The
    /// device is blocked then, once translation is on.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or that the unit does not answer; nothing is left behind.
    pub(crate) fn new(unit: Arc<Unit>, place: Place, path: Path) -> Result<Self> {
        let table = Arc::pin_init(
            PasidTable::new(1, None, unit.caps.coherent_tables()),
            GFP_KERNEL,
        )?;
        table.prepare(NO_PASID)?;
        let place = Arc::new(place, GFP_KERNEL)?;
        let endpoint = Self {
            unit,
            place,
            path,
            table,
        };
        // An error drops `endpoint`, which gives up what was claimed.
        for source in endpoint.place.sources() {
            endpoint.unit.forget_kept(source);
            endpoint.unit.claim_source(source, endpoint.context())?;
        }
        Ok(endpoint)
    }

    fn context(&self) -> Context {
        Context {
            directory: self.table.phys(),
            directory_size: self.table.size_code(),
            pasid: false,
        }
    }

    /// Changes the entry of `pasid`, and makes the unit notice.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// Those of `change`.
    pub(crate) fn change(
        &self,
        pasid: u32,
        change: impl FnOnce(&mut Live<'_>) -> Result,
    ) -> Result {
        let owner = Owner {
            source: self.place.source(),
            pasid,
        };
        let unit = &self.unit;
        let forget = |what| {
            unit.flush_write_buffer()?;
            unit.submit(flush::batch(&unit.caps, owner, what).as_slice())
        };
        self.table.with(pasid, forget, change)
    }

    /// The entry of `pasid`.
    fn entry(&self, pasid: u32) -> Result<Entry> {
        self.table.with(pasid, |_| Ok(()), |live| Ok(live.read()))
    }

    /// Gives the context entries up, or leaves them to the unit while the device is passed
    /// through. Does nothing the second time.
    ///
    /// May sleep.
    pub(crate) fn retire(&self) {
        let through = self.entry(NO_PASID).is_ok_and(|entry| entry.is_present());
        let kept = if through {
            self.unit.keep(Kept::new(&self.place, &self.table))
        } else {
            Err(ENOENT)
        };
        if kept.is_err() {
            for source in self.place.sources() {
                self.unit.release_source(source, self.table.phys());
            }
        }
    }

    /// Prints something about the device that nobody can be told otherwise.
    pub(crate) fn report(&self, what: &str, error: Error) {
        pr_err!(
            "dmar{}: device {}: {}: {:?}\n",
            self.unit.number,
            self.place,
            what,
            error
        );
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if !self.unit.has_kept(&self.table) {
            for source in self.place.sources() {
                self.unit.release_source(source, self.table.phys());
            }
        }
    }
}
