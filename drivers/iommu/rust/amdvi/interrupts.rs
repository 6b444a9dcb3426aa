// SPDX-License-Identifier: GPL-2.0

//! Which interrupts of which devices are remapped, and by what.
//!
//! Each device table entry decides on interrupt remapping (IV, specification 2.2.2.1 and 2.2.5):
//! the interrupts of a device whose entry has no table pass as they are. So a module can remap
//! those of devices whose drivers are bound after it, while the I/O APIC and the devices that had a
//! driver before stay as they were. [`devices`](kernel::iommu::irq::devices) says when a device
//! changes over.
//!
//! A module cannot do what a kernel has to do before any driver runs: set up the entry of the I/O
//! APIC, and use CPUs whose APIC id does not fit a message of a device that is not remapped.

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
    acpi::Passing,
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
                "a CPU in use has an APIC id above 255, or interrupts are a hypervisor's: boot \
                 with fewer CPUs, or without a hypervisor's interrupts"
            }
            Self::IoApic => {
                "firmware (IVRS) does not say which requester ID each I/O APIC has, whose \
                 interrupts must pass: turn interrupt remapping on in its set-up, or update it \
                 (the parameter ivrs_ioapic is not read)"
            }
        }
    }
}

/// What else may send interrupts with a requester ID of a device, which must pass as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namesake {
    /// If firmware names a wrong requester ID for the I/O APIC, the right one is that of such a
    /// function: the bridge to ISA, or the SMBus controller. They have no MSIs.
    Chipset,
    /// What firmware names.
    Named,
}

impl Namesake {
    /// What may have a requester ID of the device with `ids`. `is_chipset` says whether the device
    /// is the bridge to ISA or the SMBus controller.
    pub(crate) fn of(ids: &SourceIds, is_chipset: bool, passing: &Passing) -> Option<Self> {
        let is_named = |source| passing.holds(ids.segment, source);
        if is_chipset {
            Some(Self::Chipset)
        } else if ids.sources().any(is_named) {
            Some(Self::Named)
        } else {
            None
        }
    }

    /// One clause for the log.
    fn reason(self) -> &'static str {
        match self {
            Self::Chipset => "the I/O APIC or a timer may have the requester ID of this function",
            Self::Named => {
                "firmware (IVRS) says that an I/O APIC, a timer or an ACPI device has its \
                 requester ID"
            }
        }
    }
}

/// What the interrupts of a device have to do with units.
pub(crate) struct Source {
    unit: Arc<Unit>,
    segment: u16,
    ids: KVec<u16>,
    namesake: Option<Namesake>,
}

impl Source {
    /// The interrupts of the device with `ids` behind `unit`, with which those of `namesake` may be
    /// confused.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        unit: &Arc<Unit>,
        ids: &SourceIds,
        namesake: Option<Namesake>,
    ) -> Result<Self> {
        let mut list = KVec::new();
        for source in ids.sources() {
            list.push(source, GFP_KERNEL)?;
        }
        Ok(Self {
            unit: unit.clone(),
            segment: ids.segment,
            ids: list,
            namesake,
        })
    }

    /// Changes what the device table entries of `sources` say of interrupts.
    fn change(
        &self,
        sources: impl Iterator<Item = u16> + Clone,
        interrupts: impl Fn(u16) -> Interrupts,
    ) -> Result {
        let unit = &self.unit;
        unit.table.set_interrupts(
            sources,
            |source| unit.forget_interrupt_entry(source),
            interrupts,
        )
    }
}

/// Whether `source` is in none of `others`.
fn is_exclusive<'a>(source: u16, mut others: impl Iterator<Item = &'a [u16]>) -> bool {
    !others.any(|other| other.contains(&source))
}

impl Remapped for Source {
    type Table = InterruptTable;

    fn obstacle(&self) -> Option<&'static str> {
        if !self.unit.caps.remaps_interrupts() {
            return Some(
                "its unit has no entries of 128 bits (EFR.GASup), and this driver uses no others",
            );
        }
        if self.unit.is_dead() {
            return Some("its unit does not answer any more");
        }
        // The interrupts of a namesake would have no entry.
        self.namesake.map(Namesake::reason)
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
        table.add_sources(&self.ids)?;
        self.change(self.ids.iter().copied(), |_| table.in_device_entry())
    }

    fn leave<'a>(
        &self,
        table: &Arc<InterruptTable>,
        others: impl Iterator<Item = &'a Self> + Clone,
    ) -> Result
    where
        Self: 'a,
    {
        let others = others.map(|other| &other.ids[..]);
        let is_exclusive = |source| is_exclusive(source, others.clone());
        let sources = self.ids.iter().copied();
        self.change(sources.filter(|source| is_exclusive(*source)), |source| {
            Interrupts::Unmapped(self.unit.info.settings(source))
        })?;
        table.remove_sources(|source| self.ids.contains(&source) && is_exclusive(source));
        Ok(())
    }
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
#[kunit_tests(rust_amdvi_interrupts)]
mod tests {
    use super::*;
    use crate::{
        acpi::{
            scope::{
                Kind,
                Scope, //
            },
            tests::made_up_unit,
            Ivhd, //
        },
        unit::tests::{
            remapping_unit,
            unit_until, //
        },
    };

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
    fn what_is_shared_stays_for_the_others() {
        let left = |others: &[&[u16]]| {
            [0x108, 0x100].map(|source| is_exclusive(source, others.iter().copied()))
        };
        assert_eq!(left(&[]), [true, true]);
        assert_eq!(left(&[&[0x110, 0x100]]), [true, false]);
        assert_eq!(left(&[&[0x110], &[0x100], &[0x108]]), [false, false]);
    }

    #[test]
    fn a_device_is_not_remapped_for_a_reason() -> Result {
        let ids = SourceIds::of_requester(0, 0x108)?;
        let why = |unit: &Arc<Unit>, namesake| -> Result<&'static str> {
            Ok(Source::new(unit, &ids, namesake)?.obstacle().unwrap_or(""))
        };
        assert!(why(&unit_until(0)?, None)?.contains("GASup"));
        assert_eq!(why(&remapping_unit(false)?, None)?, "");
        let unit = remapping_unit(false)?;
        assert!(why(&unit, Some(Namesake::Chipset))?.contains("of this function"));
        assert!(why(&unit, Some(Namesake::Named))?.contains("firmware (IVRS)"));
        assert!(why(&remapping_unit(true)?, None)?.contains("does not answer"));
        Ok(())
    }

    /// The caller must keep the table then.
    #[test]
    fn a_unit_that_does_not_answer_is_no_success() -> Result {
        let unit = unit_until(1)?;
        let source = source(&unit, &[0x108])?;
        let table = source.new_table()?;
        source.enter(&table)?;
        assert_eq!(source.enter(&table), Err(EIO));
        assert_eq!(source.leave(&table, core::iter::empty()), Err(EIO));
        Ok(())
    }

    /// It does not matter which unit of the segment firmware names the I/O APIC by.
    #[test]
    fn a_requester_id_may_be_that_of_something_else() -> Result {
        let unit = |segment, source, kind| -> Result<Ivhd> {
            let mut unit = made_up_unit()?;
            (unit.segment, unit.source) = (segment, source);
            let scope = Scope {
                kind,
                first: 0x108,
                last: 0x108,
                alias: None,
                settings: 0,
            };
            unit.scopes.push(scope, GFP_KERNEL)?;
            Ok(unit)
        };
        let serves = unit(0, 0x10, Kind::Pci)?;
        let names = unit(0, 0x18, Kind::IoApic(2))?;
        let elsewhere = unit(1, 0x10, Kind::Special)?;

        let mut ids = SourceIds::of_requester(0, 0x110)?;
        let of = |ids: &SourceIds, is_chipset, units: &[Ivhd]| -> Result<_> {
            Ok(Namesake::of(ids, is_chipset, &Passing::new(units)?))
        };
        assert_eq!(of(&ids, true, &[])?, Some(Namesake::Chipset));
        let both = [serves, names];
        assert_eq!(of(&ids, false, &both)?, None);
        // Its requests carry the ID of an alias.
        ids.add(0x108)?;
        assert_eq!(of(&ids, false, &both)?, Some(Namesake::Named));
        let [serves, _] = both;
        assert_eq!(of(&ids, false, &[serves, elsewhere])?, None);
        Ok(())
    }
}
