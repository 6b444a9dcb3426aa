// SPDX-License-Identifier: GPL-2.0

//! One remapping unit: its registers, command buffer, event log and device table.
//!
//! A unit that does not run a command in time is *dead*: it is unknown what it caches.
//!
//! - It gets no more commands, so each call that depends on it fails with `EIO`.
//! - The devices behind it lose bus mastering.
//! - The driver neither frees nor reuses its tables, domain ids and GCR3 tables.
//!
//! Only a reset of the machine ends this.
//!
//! Lock order: the device table, then the command buffer, then the control register, each with
//! interrupts disabled. They are taken in any context, under any other lock of the driver. The
//! last two are raw spinlocks: interrupts change under raw spinlocks. The lock of the event log is
//! taken under none of them; the lock of the control register is taken under it. The holder of the
//! lock of the domain ids may sleep, and takes no lock under it.

mod events;
pub(crate) mod power;
mod take;
#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
pub(crate) mod tests;

use kernel::{
    device::Device,
    fmt,
    io::Io,
    iommu::{
        counters::UnitCounters,
        domain_id::{
            HasDomainIds,
            IdSet, //
        },
        files::yes,
        hw::{
            mmio::PhysMem,
            ring, //
        },
        pci::unit::UnitFunction,
        ratelimit::RateLimit,
        raw_lock::RawSpinLock,
        trace,
        units::{
            self,
            Unit as _, //
        }, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            AtomicFlag,
            Full,
            Relaxed, //
        },
        Mutex,
        SpinLockIrq, //
    }, //
};

use crate::{
    acpi::Ivhd,
    caps::Caps,
    cmd::{
        desc::Command,
        Fault,
        Port,
        Queue,
        Ticket, //
    },
    dte::{
        entry::{
            Entry,
            Translation, //
        },
        DeviceTable, //
    },
    event::Log,
    iotlb::Tag,
    regs::{
        control::{
            CONTROL,
            STATUS, //
        },
        queue::{
            CMDHEAD,
            CMDTAIL, //
        }, //
    },
    view, //
};

/// Bytes of the registers that the driver uses: all but the performance counters.
pub(crate) const REGISTER_BYTES: usize = 0x4000;

/// The domain id of entries that let requests pass.
pub(crate) const PASS_THROUGH: u16 = 1;

/// The first id of domains. The lower ids are that of pass-through entries, and 0, that of entries
/// that block.
const FIRST_ID: u16 = PASS_THROUGH + 1;

/// The number of commands of a batch for interrupts.
const INTERRUPT_BATCH: usize = 16;

/// The number of domain ids: units have no other.
const IDS: u32 = 1 << 16;

/// One remapping unit.
#[pin_data]
pub(crate) struct Unit {
    /// Its number, for messages: `ivhd0` is the first of the firmware's table.
    pub(crate) number: usize,
    /// Firmware's description of it.
    pub(crate) info: Ivhd,
    /// Its capabilities.
    pub(crate) caps: Caps,
    /// Its NUMA node, for all tables that it reads.
    pub(crate) node: Option<u32>,
    regs: PhysMem<REGISTER_BYTES>,
    log: Log,
    #[pin]
    limit: RateLimit,
    /// Takes bus mastering from the devices behind the unit with this number: see
    /// [`Registry::isolate`](kernel::iommu::registry::Registry::isolate).
    isolate: fn(usize) -> Option<usize>,
    /// Its device table.
    pub(crate) table: Pin<KBox<DeviceTable>>,
    /// Whether translation is on, and the unit has answered since.
    live: AtomicFlag,
    #[pin]
    commands: Queue,
    /// The value that was last written to the control register.
    #[pin]
    control: RawSpinLock<CONTROL>,
    /// The lock of the event log: the CPU that holds it reads the log, and only under it is the log
    /// switched off, or on again.
    #[pin]
    events: SpinLockIrq<()>,
    #[pin]
    domains: Mutex<IdSet>,
    counters: UnitCounters,
}

impl Unit {
    /// Changes the control register.
    fn set_control(&self, change: impl FnOnce(CONTROL) -> CONTROL) -> Result {
        let mut control = self.control.lock();
        *control = change(*control);
        self.regs.try_write_reg(*control)
    }

    /// Runs commands and waits until they are done.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// `EIO` if the unit is dead; the log says so.
    pub(crate) fn submit(&self, batch: &[Command]) -> Result {
        let ticket = self.start(batch)?;
        self.wait(ticket)
    }

    /// Makes the unit begin to run commands.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// As for [`Self::submit`].
    pub(crate) fn start(&self, batch: &[Command]) -> Result<Ticket> {
        self.counters.flushes.add(1);
        let started = self.commands.start(&self, batch);
        started.map_err(|fault| self.give_up(fault))
    }

    /// Waits until commands are done.
    ///
    /// Context: any; other CPUs wait for the locks that the caller holds.
    ///
    /// # Errors
    ///
    /// As for [`Self::submit`].
    pub(crate) fn wait(&self, ticket: Ticket) -> Result {
        let done = self.commands.wait(&self, ticket);
        done.map_err(|fault| self.give_up(fault))
    }

    /// Whether the unit is dead: it is unknown what it caches, and it may read its tables.
    ///
    /// Context: any.
    pub(crate) fn is_dead(&self) -> bool {
        self.commands.is_dead()
    }

    /// Refuses a dead unit.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// `EIO`.
    pub(crate) fn check(&self) -> Result {
        if self.is_dead() {
            return Err(EIO);
        }
        Ok(())
    }

    /// Marks the unit dead because of `fault`. Returns the error for the caller.
    ///
    /// Context: any.
    fn give_up(&self, fault: Fault) -> Error {
        if fault == Fault::GivenUp || !self.commands.give_up() {
            return EIO;
        }
        let number = self.number;
        match fault {
            Fault::GivenUp => {}
            Fault::Stopped(command) => {
                pr_err!(
                    "ivhd{}: takes {} for illegal and has stopped\n",
                    number,
                    command
                );
            }
            Fault::Silent(command) => pr_err!("ivhd{}: does not finish {}\n", number, command),
            Fault::Full => pr_err!("ivhd{}: fetches no commands\n", number),
        }
        if self.live.load(Relaxed) {
            self.isolate(fault.what());
        }
        EIO
    }

    /// Records that devices depend on the unit from now on: translation is on, and the unit has
    /// answered since.
    ///
    /// Context: any, without a lock of the unit.
    ///
    /// # Errors
    ///
    /// `EIO` if the unit has died in between.
    fn go_live(&self) -> Result {
        // Full, against `Queue::give_up()`: a CPU that marks the unit dead sees this store, or this
        // CPU sees the mark.
        self.live.xchg(true, Full);
        self.check()
            .inspect_err(|_| self.isolate("has died before translation was on"))
    }

    /// Takes bus mastering from the devices behind the dead unit, and prints a message. `what` is
    /// what the unit did not do.
    ///
    /// Context: any.
    fn isolate(&self, what: &str) {
        let number = self.number;
        // A unit may die just when it goes live.
        let Some(devices) = (self.isolate)(number) else {
            return;
        };
        pr_err!(
            "ivhd{}: is given up, and {} devices behind it can do no more DMA: restart the \
             machine; if it happens again, update the firmware\n",
            number,
            devices
        );
        trace::unit_dead(Self::KIND, number, what, devices);
    }

    /// Invalidates the entry of the requester ID `source`, which was `old`, and its translations of
    /// requests without PASID: the entry first, because the unit could make new translations from
    /// it (2.4.2).
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// As for [`Self::submit`].
    pub(crate) fn forget(&self, source: u16, old: &Entry) -> Result {
        let entry = Command::device_entry(source);
        let all = |pasid| {
            let domain = old.domain();
            Tag { domain, pasid }.all()
        };
        match old.translation() {
            // Nothing is cached under an entry that blocks.
            Translation::Blocked => self.submit(&[entry]),
            Translation::PassThrough | Translation::Host => self.submit(&[entry, all(None)]),
            Translation::Guest if old.is_guest_untagged() => self.submit(&[entry, all(Some(0))]),
            // Requests without PASID passed; there is no PASID 0.
            Translation::Guest => self.submit(&[entry, all(None)]),
        }
    }

    /// Invalidates the translations for `pasid` under the id `domain`.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// As for [`Self::submit`].
    pub(crate) fn forget_pasid(&self, domain: u16, pasid: u32) -> Result {
        let pasid = Some(pasid);
        self.submit(&[Tag { domain, pasid }.all()])
    }

    /// Invalidates the entry of the requester ID `source`, whose interrupts have changed, and what
    /// is cached of its interrupt remapping table.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// As for [`Self::submit`].
    pub(crate) fn forget_interrupt_entry(&self, source: u16) -> Result {
        self.submit(&[
            Command::device_entry(source),
            Command::interrupt_table(source),
        ])
    }

    /// Invalidates what is cached of the interrupt remapping tables of `sources`.
    ///
    /// Context: any; under raw spinlocks.
    ///
    /// # Errors
    ///
    /// As for [`Self::submit`].
    pub(crate) fn forget_interrupts(&self, sources: &[u16]) -> Result {
        for some in sources.chunks(INTERRUPT_BATCH) {
            let mut batch = [Command::NOTHING; INTERRUPT_BATCH];
            for (command, source) in batch.iter_mut().zip(some) {
                *command = Command::interrupt_table(*source);
            }
            self.submit(batch.get(..some.len()).unwrap_or(&[]))?;
        }
        Ok(())
    }

    /// Prints why a request is refused, at a limited rate.
    pub(crate) fn explain_refusal(&self, what: fmt::Arguments<'_>) {
        if self.limit.allows() {
            pr_info!("ivhd{}: {}\n", self.number, what);
        }
    }
}

impl units::Unit for Unit {
    const KIND: &'static str = "ivhd";

    fn number(&self) -> usize {
        self.number
    }

    fn function(&self) -> Option<ARef<Device>> {
        UnitFunction::find(self.info.segment, self.info.source).map(|function| function.device())
    }

    /// The driver marks a unit that does not stop dead.
    fn is_left_on(&self) -> bool {
        self.is_dead()
    }

    fn poll(&self) {
        self.poll_events();
    }

    fn show_caps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        view::show_caps(&self.caps, f)
    }

    fn show_state(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let translates = if self.live.load(Relaxed) { "on" } else { "off" };
        writeln!(f, "translation: {translates}")?;
        writeln!(f, "dead: {}", yes(self.is_dead()))
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
        self.regs.read(CMDHEAD).index()
    }

    fn set_tail(&self, index: usize) {
        self.regs.write_reg(CMDTAIL::at(index));
    }

    fn is_running(&self) -> bool {
        // The offset is valid, so there is no error.
        self.regs
            .try_read(STATUS)
            .is_ok_and(|status| status.commands())
    }

    fn pause(&self, round: u32) {
        ring::pause(round);
    }
}
