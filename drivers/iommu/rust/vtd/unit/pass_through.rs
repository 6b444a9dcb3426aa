// SPDX-License-Identifier: GPL-2.0

//! Tables of devices that were released while they are passed through.
//!
//! When the driver releases the hardware, the core leaves devices on the identity: they must
//! keep working until translation is off. So their context entries stay, with the tables that
//! these name, until the unit is dropped, or until one of the requester IDs is claimed again.

use kernel::{
    iommu::pci::source_ids::SourceIds,
    prelude::*,
    sync::Arc, //
};

use crate::pasid::PasidTable;

use super::Unit;

/// The table of a device, and the requester IDs whose entries name it.
pub(crate) struct Kept {
    place: Arc<SourceIds>,
    table: Arc<PasidTable>,
}

impl Kept {
    /// The `table` of a device at `place`.
    pub(crate) fn new(place: &Arc<SourceIds>, table: &Arc<PasidTable>) -> Self {
        Self {
            place: place.clone(),
            table: table.clone(),
        }
    }
}

impl Unit {
    /// Keeps tables. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn keep(&self, kept: Kept) -> Result {
        let mut all = self.kept.lock();
        if all.iter().any(|old| Arc::ptr_eq(&old.table, &kept.table)) {
            return Ok(());
        }
        Ok(all.push(kept, GFP_KERNEL)?)
    }

    /// Whether `table` is kept. May sleep.
    pub(crate) fn has_kept(&self, table: &Arc<PasidTable>) -> bool {
        let all = self.kept.lock();
        all.iter().any(|old| Arc::ptr_eq(&old.table, table))
    }

    /// Releases the claims of a device at `place`, whose directory is in `table`. If the unit is
    /// dead, the table is leaked, since the unit may still read it.
    ///
    /// May sleep. A second call does nothing.
    pub(crate) fn release_table(&self, place: &SourceIds, table: &Arc<PasidTable>) {
        for source in place.sources() {
            if self.release_source(source, table.phys()).is_err() {
                // One reference that is never dropped.
                core::mem::forget(table.clone());
            }
        }
    }

    /// Releases the kept tables that `source` leads to. May sleep.
    pub(crate) fn forget_kept(&self, source: u16) {
        loop {
            let mut all = self.kept.lock();
            let Some(index) = all
                .iter()
                .position(|old| old.place.sources().any(|known| known == source))
            else {
                return;
            };
            let Ok(old) = all.remove(index) else {
                return;
            };
            drop(all);
            self.release_table(&old.place, &old.table);
        }
    }
}
