// SPDX-License-Identifier: GPL-2.0

//! Which interrupts of which devices are remapped, and by what.
//!
//! Interrupt remapping is a matter of each device table entry (IV, specification 2.2.2.1 and
//! 2.2.5): the interrupts of a device whose entry has no table pass as they are. So a module can
//! remap those of devices whose drivers come after it, while the I/O APIC and the devices of
//! drivers that were there before stay as they were. [`devices`](kernel::iommu::irq::devices) says
//! when a device changes over.
//!
//! What remains is what a kernel has to do before any driver runs: the entry of the I/O APIC, and
//! CPUs whose APIC id does not fit a message of a device that is not remapped.

use kernel::{
    iommu::{
        irq::devices::Remapped,
        pci::source_ids::{
            RequesterId,
            SourceIds, //
        }, //
    },
    prelude::*,
    str::CString,
    sync::Arc, //
};

use crate::{
    dte::entry::Interrupts,
    interrupt_table::InterruptTable,
    unit::Unit, //
};

/// Why units cannot remap the interrupts of any device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unremapped {
    /// The kernel has interrupts of another kind.
    Kernel,
    /// Firmware does not name all I/O APICs.
    IoApic,
}

impl Unremapped {
    /// One clause for the log.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Kernel => {
                "a CPU has an APIC id above 255, or interrupts are those of a hypervisor: boot \
                 with fewer CPUs, or without a hypervisor's interrupts"
            }
            Self::IoApic => {
                "firmware (IVRS) does not say which requester ID each I/O APIC has, whose \
                 interrupts must pass: turn interrupt remapping on in its set-up, or update it"
            }
        }
    }
}

/// What the interrupts of a device have to do with units.
pub(crate) struct Source {
    unit: Arc<Unit>,
    segment: u16,
    ids: KVec<u16>,
    /// Why none are remapped on this machine.
    unremapped: Option<Unremapped>,
}

impl Source {
    /// The interrupts of the device with `ids` behind `unit`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        unit: &Arc<Unit>,
        ids: &SourceIds,
        unremapped: Option<Unremapped>,
    ) -> Result<Self> {
        let mut list = KVec::new();
        for source in ids.sources() {
            list.push(source, GFP_KERNEL)?;
        }
        Ok(Self {
            unit: unit.clone(),
            segment: ids.segment,
            ids: list,
            unremapped,
        })
    }

    /// Changes what the device table entries of `sources` say of interrupts.
    fn change(&self, sources: &[u16], interrupts: impl Fn(u16) -> Interrupts) -> Result {
        let unit = &self.unit;
        unit.table.set_interrupts(
            sources,
            |source| unit.forget_interrupt_entry(source),
            interrupts,
        )
    }
}

/// The IDs of `own` that are in none of `others`.
fn exclusive<'a>(
    own: &[u16],
    others: impl Iterator<Item = &'a [u16]> + Clone,
) -> Result<KVec<u16>> {
    let mut list = KVec::new();
    for source in own {
        if !others.clone().any(|other| other.contains(source)) {
            list.push(*source, GFP_KERNEL)?;
        }
    }
    Ok(list)
}

impl Remapped for Source {
    type Table = InterruptTable;

    fn obstacle(&self) -> Option<&'static str> {
        if let Some(why) = self.unremapped {
            return Some(why.reason());
        }
        if !self.unit.caps.remaps_interrupts() {
            return Some(
                "its unit has no entries of 128 bits (EFR.GASup), and this driver uses no others",
            );
        }
        // A function of the chipset may have the requester ID of the I/O APIC or the timer: the
        // interrupts of those would have no entry.
        let passes = |source: &u16| self.unit.info.passes_interrupts(*source);
        if self.ids.iter().any(passes) {
            return Some(
                "firmware (IVRS) says that an I/O APIC, a timer or an ACPI device has its \
                 requester ID: it cannot be given away safely in this machine",
            );
        }
        None
    }

    fn shares_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.unit, &other.unit) && self.ids.iter().any(|id| other.ids.contains(id))
    }

    fn name(&self) -> Result<CString> {
        let first = self.ids.first().copied().unwrap_or(0);
        CString::try_from_fmt(fmt!("Rust-IR-{:04x}:{}", self.segment, RequesterId(first)))
    }

    fn new_table(&self) -> Result<Arc<InterruptTable>> {
        InterruptTable::new(self.unit.clone(), self.unit.node)
    }

    fn enter(&self, table: &Arc<InterruptTable>) -> Result {
        self.unit.check()?;
        table.add_sources(&self.ids)?;
        self.change(&self.ids, |_| table.in_device_entry())
    }

    fn leave<'a>(
        &self,
        table: &Arc<InterruptTable>,
        others: impl Iterator<Item = &'a Self> + Clone,
    ) -> Result
    where
        Self: 'a,
    {
        let sources = exclusive(&self.ids, others.map(|other| &other.ids[..]))?;
        self.change(&sources, |source| {
            Interrupts::Unmapped(self.unit.info.settings(source))
        })?;
        table.remove_sources(&sources);
        Ok(())
    }
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
#[kunit_tests(rust_amdvi_interrupts)]
mod tests {
    use super::*;
    use crate::unit::tests::unit_until;

    fn source(unit: &Arc<Unit>, ids: &[u16]) -> Result<Source> {
        let mut all = SourceIds::of_requester(0, ids[0])?;
        for id in ids {
            all.add(*id)?;
        }
        Source::new(unit, &all, None)
    }

    #[test]
    fn devices_behind_one_bridge_share() -> Result {
        let (unit, other) = (unit_until(0)?, unit_until(0)?);
        let one = source(&unit, &[0x108, 0x100])?;
        assert!(one.shares_with(&source(&unit, &[0x110, 0x100])?));
        // Either may come first: the one with the alias, or the one that it is.
        assert!(source(&unit, &[0x100])?.shares_with(&one));
        assert!(!one.shares_with(&source(&unit, &[0x110])?));
        // The same numbers of another segment.
        assert!(!one.shares_with(&source(&other, &[0x108, 0x100])?));
        Ok(())
    }

    #[test]
    fn what_is_shared_stays_for_the_others() -> Result {
        let left = |others: &[&[u16]]| exclusive(&[0x108, 0x100], others.iter().copied());
        assert_eq!(left(&[])?[..], [0x108, 0x100]);
        assert_eq!(left(&[&[0x110, 0x100]])?[..], [0x108]);
        assert_eq!(left(&[&[0x110], &[0x100], &[0x108]])?[..], [0u16; 0]);
        Ok(())
    }

    #[test]
    fn a_unit_without_wide_entries_remaps_nothing() -> Result {
        let unit = unit_until(0)?;
        let why = source(&unit, &[0x108])?.obstacle();
        assert!(why.is_some_and(|why| why.contains("GASup")));
        let ids = SourceIds::of_requester(0, 0x108)?;
        let why = Source::new(&unit, &ids, Some(Unremapped::IoApic))?.obstacle();
        assert!(why.is_some_and(|why| why.contains("I/O APIC")));
        Ok(())
    }
}
