// SPDX-License-Identifier: GPL-2.0

//! One remapping unit: its registers, commands, invalidation queue and tables.
//!
//! A unit that does not answer in time is *dead* (6.5.2.10 says what counts as no answer):
//!
//! - each later command fails at once;
//! - the devices behind it lose bus mastering, since the unit may still translate for them;
//! - the driver neither frees nor reuses what the unit may still use: PASID tables, context tables,
//!   domain ids; the abstractions keep page tables when a call fails;
//! - no device can be attached any more.
//!
//! Only a reset of the machine ends this.
//!
//! Lock order: the queue and the command register have one spinlock each, with interrupts
//! disabled, this driver's or, on a shared unit, the kernel's `q_lock` and `register_lock`; the two
//! are never held together. Both are innermost: they are taken in any context, under any other lock
//! of the driver. The holder of the lock of the domain ids may sleep, and takes no lock under it.

mod control;
mod leftovers;
pub(crate) mod pass_through;
pub(crate) mod power;
mod take;
#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
mod tests;

use kernel::{
    fmt,
    io::Io,
    iommu::{
        counters::UnitCounters,
        domain_id::{
            HasDomainIds,
            IdSet, //
        },
        files::yes,
        hw::mmio::PhysMem,
        pci::source_ids::SourceIds,
        ratelimit::RateLimit,
        trace,
        units::{
            self,
            Unit as _, //
        }, //
    },
    prelude::*,
    sizes::SZ_4K,
    sync::{
        atomic::{
            AtomicFlag,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};

use crate::{
    acpi::Drhd,
    caps::Caps,
    fault::Fault,
    pasid::PasidTable,
    qi::{
        desc::Descriptor,
        Port, //
    },
    regs::{
        fault::{
            RecordHigh,
            FSTS,
            RECORD_BYTES,
            RECORD_HIGH, //
        },
        queue::{
            IQERCD,
            IQH,
            IQT, //
        }, //
    },
    root::{
        Change,
        Context,
        RootTable, //
    },
    view, //
};

use control::{
    Command,
    Control,
    Own, //
};
use pass_through::{
    PassedThrough,
    PassedThroughDevices, //
};

/// The id of pass-through entries. They must not share one with second-stage entries (9.6).
pub(crate) const PASS_THROUGH: u16 = 1;

/// The first id of domains. The lower ids are that of pass-through entries, and 0, under which
/// units with caching mode cache absent entries (11.4.2).
const FIRST_ID: u16 = PASS_THROUGH + 1;

/// One remapping unit.
#[pin_data]
pub(crate) struct Unit {
    /// Its number, for messages: `dmar0` is the first of the firmware's table.
    pub(crate) number: usize,
    /// Firmware's description of it.
    pub(crate) info: Drhd,
    /// Its capabilities.
    pub(crate) caps: Caps,
    regs: PhysMem<SZ_4K>,
    #[pin]
    limit: RateLimit,
    /// Takes bus mastering from the devices behind the unit with this number: see
    /// [`Registry::isolate`](kernel::iommu::registry::Registry::isolate).
    isolate: fn(usize) -> Option<usize>,
    /// Its NUMA node, for all tables that it reads.
    pub(crate) node: Option<u32>,
    /// Whether devices reach memory only by its tables.
    translates: AtomicFlag,
    /// Whether its device hangs if translation is switched off.
    must_translate: AtomicFlag,
    #[pin]
    root: RootTable,
    control: Control,
    #[pin]
    domains: Mutex<IdSet>,
    #[pin]
    passed_through: PassedThroughDevices,
    counters: UnitCounters,
}

impl Unit {
    /// Issues a command, and waits until the unit has obeyed.
    fn command(&self, command: Command) -> Result {
        self.control.command(&self.regs, command).inspect_err(|_| {
            if self.control.kill() {
                self.isolate("does not obey a command");
            }
        })
    }

    /// Whether the unit is dead, because it did not answer.
    ///
    /// Context: any.
    pub(crate) fn is_dead(&self) -> bool {
        self.control.is_dead()
    }

    /// Handles the death of a unit: prints one message, and blocks the devices behind it. Devices
    /// do not depend on a unit before it translates and after it has stopped.
    ///
    /// Context: any, without a lock of the unit.
    fn isolate(&self, what: &str) {
        if !self.translates.load(Relaxed) {
            return;
        }
        // A unit may die just when it begins to translate.
        let Some(devices) = (self.isolate)(self.number) else {
            return;
        };
        pr_err!(
            "dmar{}: the unit {}; it is given up, and {} devices behind it lost bus mastering: \
             save what can be saved, then reset the machine\n",
            self.number,
            what,
            devices
        );
        trace::unit_dead(Self::KIND, self.number, what, devices);
    }

    /// Records that a device behind the unit hangs if translation is switched off. As in the C
    /// driver (`iommu_disable_translation()`), this matters only for a unit that serves no other
    /// device and can drain requests.
    pub(crate) fn note_fragile_device(&self) {
        let alone = !self.info.include_all && self.info.scopes.len() == 1;
        if alone && self.caps.drain() != (false, false) {
            self.must_translate.store(true, Relaxed);
        }
    }

    /// Flushes the write buffer, if the unit has one that needs it.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT`, `EIO` if the unit is dead.
    pub(crate) fn flush_write_buffer(&self) -> Result {
        if !self.caps.write_buffer() {
            return Ok(());
        }
        if self.is_dead() {
            return Err(EIO);
        }
        self.command(Command::FlushWriteBuffer)
    }

    /// Runs invalidations and waits until they are done.
    ///
    /// If a unit refuses one, the driver invalidates everything instead, which includes the
    /// request.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// `EIO`: the unit is dead.
    pub(crate) fn submit(&self, batch: &[Descriptor]) -> Result {
        let run = |batch: &[Descriptor]| self.control.submit(&self, batch);
        self.counters.flushes.add(1);
        let result = match run(batch) {
            Err(EINVAL) => {
                self.counters.retries.add(1);
                run(&self.everything())
            }
            other => other,
        };
        let Err(error) = result else {
            return Ok(());
        };
        // The caller that gets a timeout is the first. A unit that refuses even this is no better.
        if error == ETIMEDOUT || (error == EINVAL && self.control.kill()) {
            self.isolate("does not answer an invalidation");
        }
        Err(EIO)
    }

    /// The descriptors that drop everything the unit has cached, in the order of 6.5.3.3.
    fn everything(&self) -> [Descriptor; 3] {
        [
            Descriptor::context_global(),
            Descriptor::pasid_cache_global(),
            Descriptor::iotlb_global(self.caps.drain()),
        ]
    }

    /// Makes the unit find `context` for the requester ID `source`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `EIO` if the unit is dead. In both cases the caller releases the source.
    pub(crate) fn claim_source(&self, source: u16, context: Context) -> Result {
        if self.is_dead() {
            return Err(EIO);
        }
        let change = self.root.claim(source, context)?;
        self.root_changed(source, change)
    }

    /// Undoes [`Self::claim_source`], as far as that got. When this returns, the unit no longer
    /// caches `directory`.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// If the unit is dead: it may still use `directory` until a reset.
    pub(crate) fn release_source(&self, source: u16, directory: u64) -> Result {
        let change = self.root.release(source, directory);
        self.root_changed(source, change)?;
        if change == Change::Removed {
            let change = self.root.promote(source);
            self.root_changed(source, change)?;
        }
        Ok(())
    }

    fn root_changed(&self, source: u16, change: Change) -> Result {
        match change {
            Change::None => Ok(()),
            // A unit without caching mode never caches absent entries.
            Change::Added if !self.caps.caching_mode() => self.flush_write_buffer(),
            // The PASID cache is tagged by domain id, and memory no longer holds the entries' ids;
            // this is rare enough to drop all of them.
            Change::Added | Change::Removed => self.submit(&[
                Descriptor::context_device(source, 0),
                Descriptor::pasid_cache_global(),
                Descriptor::iotlb_global(self.caps.drain()),
            ]),
        }
    }

    /// Keeps the table of a device that stays passed through. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn keep_table(&self, device: PassedThrough) -> Result {
        self.passed_through.add(device)
    }

    /// Whether `table` is kept. May sleep.
    pub(crate) fn keeps_table(&self, table: &Arc<PasidTable>) -> bool {
        self.passed_through.contain(table)
    }

    /// Releases the claims of a device with `ids`, whose directory is in `table`. If the unit
    /// is dead, the table is leaked, since the unit may still read it.
    ///
    /// May sleep. A second call does nothing.
    pub(crate) fn release_table(&self, ids: &SourceIds, table: &Arc<PasidTable>) {
        for source in ids.sources() {
            if self.release_source(source, table.phys()).is_err() {
                // One reference that is never dropped.
                core::mem::forget(table.clone());
            }
        }
    }

    /// Releases the kept tables that `source` leads to. May sleep.
    pub(crate) fn release_kept_tables(&self, source: u16) {
        while let Some(device) = self.passed_through.remove(source) {
            self.release_table(&device.ids, &device.table);
        }
    }

    /// Whether the unit fetches descriptors.
    fn fetches(&self) -> bool {
        self.control.as_own().is_none_or(Own::is_running)
    }
}

impl units::Unit for Unit {
    const KIND: &'static str = "dmar";

    fn number(&self) -> usize {
        self.number
    }

    /// It still translates, or fetches descriptors of this driver.
    fn is_left_on(&self) -> bool {
        self.translates.load(Relaxed)
            || match self.control.as_own() {
                Some(own) => own.was_enabled(),
                None => self.is_dead(),
            }
    }

    /// Does nothing on a shared unit: there the kernel has an interrupt for faults.
    fn poll(&self) {
        if self.control.as_own().is_none() {
            return;
        }
        let status = self.regs.read(FSTS);
        if !status.pending() && !status.overflow() {
            return;
        }
        let (offset, records) = self.caps.fault_records();
        // CAST: the field is eight bits wide.
        let first = status.record_index().get() as usize;
        for step in 0..records {
            let at = offset + (first + step) % records * RECORD_BYTES;
            let (Ok(low), Ok(high)) = (
                self.regs.try_read64(at),
                self.regs.try_read64(at + RECORD_HIGH),
            ) else {
                break;
            };
            let Some(fault) = Fault::decode(low, RecordHigh::from_raw(high)) else {
                break;
            };
            self.counters.faults.add(1);
            if self.limit.allows() {
                pr_err!("dmar{}: {}\n", self.number, fault);
            }
            let acknowledge = RecordHigh::acknowledge().into_raw();
            if self
                .regs
                .try_write64(acknowledge, at + RECORD_HIGH)
                .is_err()
            {
                break;
            }
        }
        if status.overflow() {
            if self.limit.allows() {
                pr_err!("dmar{}: more faults than there are records\n", self.number);
            }
            self.regs.write_reg(FSTS::acknowledge_overflow());
        }
    }

    fn show_caps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        view::show_caps(&self.caps, f)
    }

    fn show_state(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let translates = if self.translates.load(Relaxed) {
            "on"
        } else {
            "off"
        };
        let queue = if self.control.as_own().is_some() {
            "this driver's"
        } else {
            "shared with interrupt remapping, and so are the faults"
        };
        writeln!(f, "translation: {translates}")?;
        writeln!(f, "dead: {}", yes(self.is_dead()))?;
        writeln!(f, "queue: {queue}")
    }

    fn counters(&self) -> &UnitCounters {
        &self.counters
    }
}

impl HasDomainIds for Unit {
    fn domain_ids(&self) -> &Mutex<IdSet> {
        &self.domains
    }
}

impl Port for &Unit {
    fn head(&self) -> usize {
        self.regs.read(IQH).index()
    }

    fn set_tail(&self, index: usize) {
        self.regs.write_reg(IQT::at(index));
    }

    fn fault(&self) -> FSTS {
        self.regs.read(FSTS)
    }

    fn acknowledge(&self, fault: FSTS) {
        self.regs.write_reg(fault);
    }

    fn error_record(&self) -> IQERCD {
        // The offset is valid, so there is no error; without details the message says so.
        self.regs.try_read(IQERCD).unwrap_or(IQERCD::from_raw(0))
    }

    fn report(&self, what: &str, descriptor: Option<Descriptor>) {
        if !self.limit.allows() {
            return;
        }
        match descriptor {
            Some(descriptor) => pr_err!(
                "dmar{}: invalidation queue: {} ({}: {:#x} {:#x})\n",
                self.number,
                what,
                descriptor.name(),
                descriptor.0[0],
                descriptor.0[1]
            ),
            None => pr_err!("dmar{}: invalidation queue: {}\n", self.number, what),
        }
    }
}
