// SPDX-License-Identifier: GPL-2.0

//! Devices that were released while they are passed through.
//!
//! When the driver releases the hardware, the core leaves devices on the identity: they must
//! keep working until translation is off. So their context entries stay, with the tables that
//! these name, until the unit is dropped, or until one of the requester IDs is claimed again.

use kernel::{
    iommu::pci::source_ids::SourceIds,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

use crate::pasid::PasidTable;

/// A device, and the table that the entries of its requester IDs name.
pub(crate) struct PassedThrough {
    /// Its requester IDs.
    pub(super) ids: Arc<SourceIds>,
    /// Its table.
    pub(super) table: Arc<PasidTable>,
}

impl PassedThrough {
    /// The device with `ids` and `table`.
    pub(crate) fn new(ids: &Arc<SourceIds>, table: &Arc<PasidTable>) -> Self {
        Self {
            ids: ids.clone(),
            table: table.clone(),
        }
    }
}

/// Such devices of one unit.
#[pin_data]
pub(super) struct PassedThroughDevices {
    #[pin]
    list: Mutex<KVec<PassedThrough>>,
}

impl PassedThroughDevices {
    /// Creates an empty list.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            list <- new_mutex!(KVec::new()),
        })
    }

    /// Adds a device, unless its table is known. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn add(&self, device: PassedThrough) -> Result {
        let mut list = self.list.lock();
        if list
            .iter()
            .any(|old| Arc::ptr_eq(&old.table, &device.table))
        {
            return Ok(());
        }
        Ok(list.push(device, GFP_KERNEL)?)
    }

    /// Whether one of them has `table`. May sleep.
    pub(super) fn contain(&self, table: &Arc<PasidTable>) -> bool {
        let list = self.list.lock();
        list.iter().any(|old| Arc::ptr_eq(&old.table, table))
    }

    /// Removes a device that has the requester ID `source`. May sleep.
    pub(super) fn remove(&self, source: u16) -> Option<PassedThrough> {
        let mut list = self.list.lock();
        let index = list
            .iter()
            .position(|old| old.ids.sources().any(|known| known == source))?;
        list.remove(index).ok()
    }

    /// How many there are.
    #[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
    pub(super) fn len(&self) -> usize {
        self.list.lock().len()
    }
}
