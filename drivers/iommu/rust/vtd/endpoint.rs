// SPDX-License-Identifier: GPL-2.0

//! What the driver keeps for a device: its unit, its requester IDs, its PASID table.
//!
//! When the core probes a device, the driver makes its context entries, with a PASID table in which
//! all entries are absent: from then on only the table decides what the device can reach. The
//! driver removes the entries when the core releases the device, unless the device is passed
//! through. The core leaves devices passed through if they outlive the driver: their tables stay
//! until translation is off ([`Unit::keep_table`]).

use kernel::{
    fmt,
    iommu::pci::source_ids::SourceIds,
    prelude::*,
    sync::Arc, //
};

use crate::{
    caps::Caps,
    pasid::{
        entry::{
            Common,
            Entry, //
        },
        flush::{
            self,
            Owner, //
        },
        writer,
        Live,
        PasidTable, //
    },
    root::Context,
    topology::Path,
    unit::{
        pass_through::PassedThrough,
        Unit,
        PASS_THROUGH, //
    },
    view, //
};

/// The PASID of requests without one (`RID_PASID` of the context entry).
const NO_PASID: u32 = 0;

/// A device behind a unit.
pub(crate) struct Endpoint {
    /// The unit that translates for it.
    pub(crate) unit: Arc<Unit>,
    /// Its requester IDs.
    pub(crate) ids: Arc<SourceIds>,
    /// The path to it.
    pub(crate) path: Path,
    /// Its PASIDs.
    pub(crate) table: Arc<PasidTable>,
    /// Whether firmware says that it does not work without its translation cache (SATC, 8.8). The C
    /// driver enables the cache (`dmar_ats_supported()`). This driver enables none, so such a
    /// device can only be passed through; if its unit cannot pass through, the driver refuses the
    /// device when it finds it.
    pub(crate) needs_cache: bool,
}

/// The entry of a device that is passed through by a unit with `caps`.
pub(crate) fn pass_through_entry(caps: &Caps) -> Entry {
    Entry::pass_through(
        caps.widest(),
        Common {
            domain: PASS_THROUGH,
            walk_snoop: caps.coherent_walk(),
            page_snoop: false,
        },
    )
}

/// Passes through the devices of `unit` that are not on a PCI bus: the IOMMU core does not know
/// them as devices of this driver, so they keep access to all memory, as without translation.
///
/// May sleep. Translation is off.
///
/// # Errors
///
/// `ENOMEM`, `EIO` if the unit is dead; `EOPNOTSUPP` if the unit cannot, which has been reported.
pub(crate) fn pass_acpi_devices(unit: &Arc<Unit>) -> Result {
    for source in &unit.info.acpi_devices {
        if !unit.caps.pass_through() {
            pr_err!(
                "dmar{}: serves the ACPI device {:#06x}, and cannot pass it through (ECAP.PT); \
                 this driver cannot drive it\n",
                unit.number,
                source
            );
            return Err(EOPNOTSUPP);
        }
        let ids = SourceIds::of_requester(unit.info.segment, *source)?;
        let endpoint = Endpoint::new(unit.clone(), ids, Path::default(), false)?;
        endpoint.change(NO_PASID, |live| {
            writer::replace(live, pass_through_entry(&unit.caps))
        })?;
        pr_info!(
            "dmar{}: passes the ACPI device {} through\n",
            unit.number,
            endpoint.ids
        );
        unit.keep_table(PassedThrough::new(&endpoint.ids, &endpoint.table))?;
    }
    Ok(())
}

impl Endpoint {
    /// Makes the tables of a device with `ids`, which `path` leads to, and enters them in
    /// `unit`. Once translation is on, the device is blocked.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EIO` if the unit is dead.
    pub(crate) fn new(
        unit: Arc<Unit>,
        ids: SourceIds,
        path: Path,
        needs_cache: bool,
    ) -> Result<Self> {
        let table = Arc::pin_init(
            PasidTable::new(1, unit.node, unit.caps.coherent_tables()),
            GFP_KERNEL,
        )?;
        table.prepare(NO_PASID)?;
        let ids = Arc::new(ids, GFP_KERNEL)?;
        let endpoint = Self {
            unit,
            ids,
            path,
            table,
            needs_cache,
        };
        // An error drops `endpoint`, which releases its claims.
        for source in endpoint.ids.sources() {
            endpoint.unit.release_kept_tables(source);
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

    /// Changes the entry of `pasid`, and invalidates the unit's caches.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// The errors of `change`.
    pub(crate) fn change(
        &self,
        pasid: u32,
        change: impl FnOnce(&mut Live<'_>) -> Result,
    ) -> Result {
        let owner = Owner {
            source: self.ids.source(),
            pasid,
        };
        let unit = &self.unit;
        let forget = |what| {
            unit.flush_write_buffer()?;
            unit.submit(flush::batch(&unit.caps, owner, what).as_slice())
        };
        self.table.with(pasid, forget, change)
    }

    /// Makes the entry of `pasid` absent.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `EIO` if the unit is dead: it may still cache translations of an earlier entry, even if the
    /// entry is absent since a change that the unit did not confirm.
    pub(crate) fn block(&self, pasid: u32) -> Result {
        self.change(pasid, |live| writer::clear(live))
            .inspect_err(|error| {
                self.report("may not be blocked yet: the unit does not answer", *error);
            })?;
        if self.unit.is_dead() {
            return Err(EIO);
        }
        Ok(())
    }

    /// The entry of `pasid`.
    fn entry(&self, pasid: u32) -> Result<Entry> {
        self.table.with(pasid, |_| Ok(()), |live| Ok(live.read()))
    }

    /// Writes how the unit treats requests without PASID.
    ///
    /// May sleep.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "unit: dmar{}", self.unit.number)?;
        match self.entry(NO_PASID) {
            Ok(entry) => view::show_entry(NO_PASID, &entry, f),
            Err(_) => writeln!(f, "PASID table entry {NO_PASID}: none"),
        }
    }

    /// Releases the context entries, or leaves them to the unit while the device is passed through.
    /// A second call does nothing.
    ///
    /// May sleep.
    pub(crate) fn retire(&self) {
        let through = self.entry(NO_PASID).is_ok_and(|entry| entry.is_present());
        let kept = if through {
            self.unit
                .keep_table(PassedThrough::new(&self.ids, &self.table))
        } else {
            Err(ENOENT)
        };
        if kept.is_err() {
            self.unit.release_table(&self.ids, &self.table);
        }
    }

    /// Whether the device can be attached to a paging domain.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP`, which has been reported.
    pub(crate) fn check_translatable(&self) -> Result {
        if !self.needs_cache {
            return Ok(());
        }
        pr_warn!(
            "dmar{}: device {}: needs its translation cache (SATC), which this driver does not \
             switch on; it can be passed through only\n",
            self.unit.number,
            self.ids
        );
        Err(EOPNOTSUPP)
    }

    /// Prints a message about the device.
    pub(crate) fn report(&self, what: &str, error: Error) {
        pr_err!(
            "dmar{}: device {}: {}: {:?}\n",
            self.unit.number,
            self.ids,
            what,
            error
        );
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if !self.unit.keeps_table(&self.table) {
            self.unit.release_table(&self.ids, &self.table);
        }
    }
}
