// SPDX-License-Identifier: GPL-2.0

//! What the driver keeps for a device: its unit, its requester IDs, its PASIDs.
//!
//! The device table entries of a device exist, and block, before the core probes it. They stay when
//! the core releases the device, blocking or passing requests through, as the core leaves devices
//! that outlive the driver. Neither kind names memory of the device.

use core::cell::Cell;

use kernel::{
    device::Device,
    fmt,
    iommu::pci::source_ids::SourceIds,
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
        DeviceEntries,
        Pasids, //
    },
    unit::{
        Unit,
        PASS_THROUGH, //
    },
    view, //
};

/// A device behind a unit.
pub(crate) struct Endpoint {
    /// The unit that translates for it.
    pub(crate) unit: Arc<Unit>,
    /// Its requester IDs.
    pub(crate) ids: SourceIds,
    /// Its PASIDs, if it has any and the driver could enable them.
    pub(crate) pasids: Option<Pin<KBox<Pasids>>>,
}

impl Endpoint {
    /// Claims the requester IDs `ids` of the device `dev`, and enables its PASIDs, at most
    /// `most` of them.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENODEV` if the unit has no entry for one of the IDs; `EIO` if it does not answer.
    /// Nothing stays claimed.
    pub(crate) fn new(
        unit: Arc<Unit>,
        mut ids: SourceIds,
        dev: &Device,
        most: u32,
    ) -> Result<Self> {
        if let Some(alias) = unit.info.alias(ids.source()) {
            ids.add(alias)?;
        }
        let mut endpoint = Self {
            unit,
            ids,
            pasids: None,
        };
        // An error drops `endpoint`, which releases its claims.
        for source in endpoint.ids.sources() {
            let owner = endpoint.ids.source();
            let forget = |source, old: Entry| endpoint.unit.forget(source, &old);
            endpoint.unit.table.claim(source, owner, forget)?;
        }
        if most > 0 {
            let pasids = Pasids::new(dev, &endpoint.unit, most);
            endpoint.use_pasids(pasids)?;
        }
        Ok(endpoint)
    }

    /// Enables the PASIDs, if the device has any. It is not an error if they cannot be used.
    fn use_pasids(&mut self, found: Result<Pin<KBox<Pasids>>>) -> Result {
        let begun = match found {
            // Stored first: if the unit does not answer, `drop()` must not free them.
            Ok(pasids) => {
                self.pasids = Some(pasids);
                self.pasids
                    .as_ref()
                    .map_or(Ok(()), |pasids| pasids.begin(&*self))
            }
            // It has none.
            Err(ENODEV) => return Ok(()),
            Err(error) => Err(error),
        };
        match begun {
            Ok(()) => {
                pr_info!(
                    "ivhd{}: device {}: {} PASIDs\n",
                    self.unit.number,
                    self.ids,
                    self.pasids.as_ref().map_or(0, |pasids| pasids.count())
                );
                Ok(())
            }
            Err(error @ (ENOMEM | EIO)) => Err(error),
            // The unit may still read them: `drop()` leaks them.
            Err(_) if self.unit.is_dead() => Err(EIO),
            Err(error) => {
                self.pasids = None;
                pr_info!(
                    "ivhd{}: device {}: its PASIDs cannot be used: {:?}\n",
                    self.unit.number,
                    self.ids,
                    error
                );
                Ok(())
            }
        }
    }

    /// Changes how the unit treats requests without PASID; not to a host table.
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
        self.replace(entry)
    }

    /// Changes the entries of the device, and invalidates the unit's caches.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// The errors of `change`.
    pub(crate) fn change(&self, change: impl Fn(&mut Live<'_>) -> Result) -> Result {
        let forget = |source, old: Entry| self.unit.forget(source, &old);
        self.unit
            .table
            .with(self.ids.source(), self.ids.sources(), forget, change)
    }

    /// Disables the PASIDs and releases the requester IDs. A second call does nothing.
    ///
    /// May sleep.
    pub(crate) fn retire(&self) {
        if let Some(pasids) = &self.pasids {
            // A unit that does not answer is dead: see `drop()`.
            let _ = pasids.end(self);
        }
        let forget = |source, old: Entry| self.unit.forget(source, &old);
        self.unit.table.release(self.ids.source(), forget);
    }

    /// Writes the device table entry.
    ///
    /// Context: any.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.ids.source();
        let found = Cell::new(None);
        let take = |live: &mut Live<'_>| {
            found.set(Some(writer::read(live)));
            Ok(())
        };
        // Without an entry nothing is found.
        let _ = self
            .unit
            .table
            .with(source, core::iter::once(source), |_, _| Ok(()), take);
        writeln!(f, "unit: ivhd{}", self.unit.number)?;
        match found.get() {
            Some(entry) => view::show_entry(source, &entry, f),
            None => writeln!(f, "device table entry {source:#06x}: another device has it"),
        }
    }

    /// Prints why a domain is refused.
    pub(crate) fn explain_refusal(&self, why: &str) {
        self.unit
            .explain_refusal(fmt!("device {}: {}", self.ids, why));
    }
}

impl DeviceEntries for Endpoint {
    fn replace(&self, entry: Entry) -> Result {
        self.change(|live| writer::replace(live, entry))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.retire();
        if self.unit.is_dead() {
            // The unit may read the GCR3 table, and caches translations under the domain id.
            core::mem::forget(self.pasids.take());
        }
    }
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
#[kunit_tests(rust_amdvi_endpoint)]
mod tests {
    use super::*;
    use crate::unit::tests::unit_until;
    use kernel::iommu::pci::unit::UnitFunction;

    /// The requester ID of a device that there is not.
    const SOURCE: u16 = 0x108;

    /// Finds PASIDs of a function that has none to switch on, behind a unit that carries out the
    /// first `answered` batches. Returns what that returned, and whether the GCR3 table is kept for
    /// ever.
    fn find(answered: u64) -> Result<(Result, bool)> {
        let unit = unit_until(answered)?;
        let function = UnitFunction::find(0, 0).ok_or(ENODEV)?;
        let pasids = Pasids::with(&function.device(), &unit, 512)?;
        let id = pasids.id().clone();
        let mut endpoint = Endpoint {
            unit: unit.clone(),
            ids: SourceIds::of_requester(0, SOURCE)?,
            pasids: None,
        };
        endpoint.unit.table.claim(SOURCE, SOURCE, |_, _| Ok(()))?;
        let begun = endpoint.use_pasids(Ok(pasids));
        drop(endpoint);
        Ok((begun, Arc::into_unique_or_drop(id).is_none()))
    }

    /// The unit may read it if it did not say that it has forgotten the entry.
    #[test]
    fn the_table_of_a_silent_unit_is_kept() -> Result {
        // It is silent when the entry gets the table, when it is to lose it again, never.
        for (answered, expected) in [
            (0, (Err(EIO), true)),
            (1, (Err(EIO), true)),
            (2, (Ok(()), false)),
        ] {
            assert_eq!(find(answered)?, expected);
        }
        Ok(())
    }
}
