// SPDX-License-Identifier: GPL-2.0

//! One remapping unit: its registers, command buffer, event log and device table.
//!
//! Lock order: the device table, then the command buffer, then the control register, each a
//! spinlock with interrupts disabled. They are taken in any context, under any other lock of the
//! driver. The lock of the event log is taken under none of them, and the control register's under
//! it. The lock of the domain ids may be slept under and has none below it.

pub(crate) mod power;
mod take;
#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
mod tests;

use kernel::{
    device::Device,
    fmt,
    io::Io,
    iommu::{
        domain_id::HasDomainIds,
        function::UnitFunction,
        ids::IdSet,
        mmio::PhysMem,
        msi,
        ratelimit::RateLimit,
        ring, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        Mutex,
        SpinLockIrq, //
    },
    time::{
        delay::udelay,
        Delta, //
    }, //
};

use crate::{
    acpi::UnitInfo,
    caps::Caps,
    cmd::{
        self,
        desc::Command,
        Port,
        Ring, //
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
            CMDTAIL,
            EVTHEAD,
            EVTTAIL, //
        }, //
    }, //
};

/// Bytes of the registers that the driver uses: all but the performance counters.
pub(crate) const REGISTER_BYTES: usize = 0x4000;

/// The domain id of entries that let requests pass.
pub(crate) const PASS_THROUGH: u16 = 1;

/// The first id of domains. Below are the one of pass-through entries, and 0, which is that of
/// entries that block.
const FIRST_ID: u16 = PASS_THROUGH + 1;

/// The number of domain ids: units have no other.
const IDS: u32 = 1 << 16;

/// Pauses of a microsecond for an event that the unit has announced and not written yet.
const EVENT_ROUNDS: u32 = 100;

/// One remapping unit.
#[pin_data]
pub(crate) struct Unit {
    /// Its number, for messages: `ivhd0` is the first of the firmware's table.
    pub(crate) number: usize,
    /// What firmware says about it.
    pub(crate) info: UnitInfo,
    /// What it can do.
    pub(crate) caps: Caps,
    regs: PhysMem<REGISTER_BYTES>,
    memory: cmd::Memory,
    log: Log,
    limit: RateLimit,
    /// Its device table.
    pub(crate) table: Pin<KBox<DeviceTable>>,
    #[pin]
    ring: SpinLockIrq<Ring>,
    /// What was last written to the control register.
    #[pin]
    control: SpinLockIrq<CONTROL>,
    /// Whoever holds it reads the event log.
    #[pin]
    events: SpinLockIrq<()>,
    #[pin]
    domains: Mutex<IdSet>,
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
    /// Those of [`Ring::submit`]; they have been reported.
    pub(crate) fn submit(&self, batch: &[Command]) -> Result {
        self.ring.lock().submit(&self.memory, &self, batch)
    }

    /// The PCI function that the unit is.
    ///
    /// May sleep.
    pub(crate) fn device(&self) -> Option<ARef<Device>> {
        UnitFunction::find(self.info.segment, self.info.source).map(|function| function.device())
    }

    /// Makes the unit forget the entry of the requester ID `source`, which was `old`, and what it
    /// translated with it of requests without PASID: the entry first, for translations could be
    /// made anew from it (2.4.2).
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// Those of [`Ring::submit`].
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
            // What passed; there is no PASID 0.
            Translation::Guest => self.submit(&[entry, all(None)]),
        }
    }

    /// Makes the unit forget what it translated for `pasid` under the id `domain`.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// Those of [`Ring::submit`].
    pub(crate) fn forget_pasid(&self, domain: u16, pasid: u32) -> Result {
        let pasid = Some(pasid);
        self.submit(&[Tag { domain, pasid }.all()])
    }

    /// Prints why something is refused that somebody asks for, if he does not ask all the time.
    pub(crate) fn explain_refusal(&self, what: fmt::Arguments<'_>) {
        if self.limit.allows() {
            pr_info!("ivhd{}: {}\n", self.number, what);
        }
    }

    /// Prints the events that the unit has logged and gives their entries back.
    ///
    /// Context: any.
    pub(crate) fn poll_events(&self) {
        let _events = self.events.lock();
        let Ok(status) = self.regs.try_read(STATUS) else {
            return;
        };
        // Acknowledged first: what comes from now on signals again.
        let _ = self.regs.try_write_reg(STATUS::acknowledge_events());
        let mut head = self.regs.read(EVTHEAD).index();
        let tail = self.regs.read(EVTTAIL).index();
        while head != tail {
            let event = (0..EVENT_ROUNDS).find_map(|_| {
                self.log.take(head).or_else(|| {
                    udelay(Delta::from_micros(1));
                    None
                })
            });
            if let Some(event) = event {
                if self.limit.allows() {
                    pr_err!("ivhd{}: {}\n", self.number, event);
                }
            }
            head = EVTHEAD::at(head + 1).index();
            self.regs.write_reg(EVTHEAD::at(head));
        }
        if status.event_overflow().into_bool() {
            if self.limit.allows() {
                pr_err!("ivhd{}: more events than the log holds\n", self.number);
            }
            let _ = self.restart_log();
        }
    }

    /// Starts the event log anew after an overflow, which has stopped it (2.5.1).
    fn restart_log(&self) -> Result {
        self.set_control(|control| control.with_events(false))?;
        self.regs.write_reg(EVTHEAD::at(0));
        self.regs.write_reg(EVTTAIL::from_raw(0));
        self.regs.try_write_reg(STATUS::acknowledge_overflow())?;
        self.set_control(|control| control.with_events(true))
    }
}

impl HasDomainIds for Unit {
    fn domain_ids(&self) -> &Mutex<IdSet> {
        &self.domains
    }
}

impl msi::Handler for Unit {
    fn handle(&self) {
        self.poll_events();
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
            .is_ok_and(|status| status.commands().into_bool())
    }

    fn restart(&self) {
        // As above.
        let _ = self.set_control(|control| control.with_commands(false));
        self.regs.write_reg(CMDHEAD::from_raw(0));
        self.regs.write_reg(CMDTAIL::at(0));
        let _ = self.set_control(|control| control.with_commands(true));
    }

    fn pause(&self, round: u32) {
        ring::pause(round);
    }

    fn report(&self, what: &str, command: Option<Command>) {
        if !self.limit.allows() {
            return;
        }
        match command {
            Some(command) => pr_err!(
                "ivhd{}: command buffer: {} ({}: {:#x} {:#x})\n",
                self.number,
                what,
                command.name(),
                command.0[0],
                command.0[1]
            ),
            None => pr_err!("ivhd{}: command buffer: {}\n", self.number, what),
        }
    }
}
