// SPDX-License-Identifier: GPL-2.0

//! The virtual machine as it goes from one QEMU to the next.

use std::{
    thread,
    time::{
        Duration,
        Instant, //
    },
};

use anyhow::{
    bail,
    ensure,
    Context,
    Result, //
};
use qapi_qmp::{
    device_add,
    device_del,
    migrate,
    migrate_incoming,
    migrate_set_capabilities,
    migrate_set_parameters,
    MigrateSetParameters,
    MigrationCapability,
    MigrationCapabilityStatus, //
};
use vm_rule::{
    rule::mix,
    words::Words, //
};

use crate::{
    cli::Options,
    functions::Sides,
    guest::Check,
    qemu,
    qmp::{
        Migration,
        QueryMigrate, //
    },
    report::{
        Figures,
        Lost,
        Report, //
    },
    trace::Trace,
    vm::{
        wait,
        Vm, //
    },
};

/// How long the guest may take until it is up, and for a command.
const BOOT: Duration = Duration::from_secs(120);
pub(crate) const COMMAND: Duration = Duration::from_secs(60);
/// How long a migration may take, and parts of it.
const MIGRATION: Duration = Duration::from_secs(300);
pub(crate) const STEP: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(25);

/// In milliseconds: no pass over the memory leaves so little while something writes.
const NO_DOWNTIME: u64 = 1;
/// The longest that QEMU takes.
const ANY_DOWNTIME: u64 = 2_000_000;

/// What a migration has come to.
#[derive(Debug)]
pub(crate) enum Seen {
    /// It is in that pass over the memory.
    Pass,
    /// It has completed.
    Completed(Migration),
}

/// A virtual machine at work.
pub(crate) struct Stage<'a> {
    pub(crate) options: &'a Options,
    pub(crate) report: &'a mut Report,
    pub(crate) vm: Vm,
    /// The one that it goes to.
    pub(crate) destination: Option<Vm>,
    sides: Sides,
    /// Where it is.
    side: usize,
    /// QEMUs so far.
    started: usize,
    /// For each port, whether a function is plugged in, its number in the guest, and its area there.
    pub(crate) plugged: Vec<bool>,
    units: Vec<u64>,
    pub(crate) areas: Vec<u64>,
    /// Seeds given out so far.
    seeds: u64,
    begin: Instant,
    /// What was seen when the migration began.
    writes_before: u64,
    trace_before: Trace,
}

/// Starts a virtual machine on one side, and its guest.
fn boot(options: &Options, sides: &Sides, side: usize, name: &str) -> Result<Vm> {
    let hosts: Vec<_> = sides
        .get(side)
        .into_iter()
        .flatten()
        .cloned()
        .map(Some)
        .collect();
    let mut vm = Vm::start(options, name, &hosts, false)?;
    match vm.guest.ready(BOOT) {
        Ok(_) => Ok(vm),
        Err(e) => bail!("{e:#}; {}", vm.diagnosis()),
    }
}

impl<'a> Stage<'a> {
    /// Starts the virtual machine, and has everything write.
    ///
    /// # Errors
    ///
    /// It does not come up.
    pub(crate) fn new(options: &'a Options, report: &'a mut Report, sides: Sides) -> Result<Self> {
        let vm = boot(options, &sides, 0, "vm-1")?;
        let count = options.devices()?;
        let mut stage = Self {
            options,
            report,
            vm,
            destination: None,
            sides,
            side: 0,
            started: 1,
            plugged: vec![true; count],
            units: vec![0; count],
            areas: vec![0; count],
            seeds: 0,
            begin: Instant::now(),
            writes_before: 0,
            trace_before: Trace::default(),
        };
        match stage.set_up() {
            Ok(()) => Ok(stage),
            Err(e) => Err(stage.explain(e)),
        }
    }

    /// Starts the virtual machine anew where it was, after QEMU was killed.
    ///
    /// # Errors
    ///
    /// It does not come up.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.started += 1;
        let name = format!("vm-{}", self.started);
        self.vm = boot(self.options, &self.sides, self.side, &name)?;
        self.plugged.fill(true);
        self.set_up()
    }

    /// Adds what can be read about the QEMUs to an error.
    pub(crate) fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        if error.is::<Lost>() {
            return error;
        }
        let vms = [Some(&mut self.vm), self.destination.as_mut()];
        let all: Vec<_> = vms.into_iter().flatten().map(Vm::diagnosis).collect();
        anyhow::anyhow!("{error:#}; {}", all.join("; "))
    }

    /// Gives each function its part of the memory, and has it write there.
    fn set_up(&mut self) -> Result<()> {
        let (start, length) = self.options.region()?;
        let count = self.plugged.len();
        let part = length / count as u64 / (2 << 20) * (2 << 20);
        for index in 0..count {
            let base = start + index as u64 * part;
            let seed = self.seed();
            let words = Words::new()
                .with_hex("base", base)
                .with_hex("length", part)
                .with_hex("seed", seed);
            let area = self.ask("area", words)?.number("area")?;
            self.take(index)?;
            self.set_area(index, area);
            self.aim(index, area)?;
        }
        self.ask(
            "run",
            Words::new().with("rate", self.options.processor_rate),
        )?;
        Ok(())
    }

    fn set_area(&mut self, index: usize, area: u64) {
        if let Some(place) = self.areas.get_mut(index) {
            *place = area;
        }
    }

    /// A seed that none had before.
    pub(crate) fn seed(&mut self) -> u64 {
        self.seeds += 1;
        mix(self.options.seed ^ mix(self.seeds))
    }

    /// Has the guest do something.
    ///
    /// # Errors
    ///
    /// It cannot.
    pub(crate) fn ask(&mut self, name: &str, words: Words) -> Result<Words> {
        self.vm.guest.ask(name, words, COMMAND)
    }

    /// Has the guest take the function at a port.
    fn take(&mut self, index: usize) -> Result<()> {
        let answer = self.ask("take", Words::new().with("port", qemu::port(index)))?;
        if let Some(unit) = self.units.get_mut(index) {
            *unit = answer.number("unit")?;
        }
        Ok(())
    }

    fn unit(&self, index: usize) -> u64 {
        self.units.get(index).copied().unwrap_or(0)
    }

    /// Has a function write to an area.
    ///
    /// # Errors
    ///
    /// The guest cannot.
    pub(crate) fn aim(&mut self, index: usize, area: u64) -> Result<()> {
        let seed = self.seed();
        let words = Words::new()
            .with("unit", self.unit(index))
            .with("area", area)
            .with_hex("span", self.options.span)
            .with_hex("seed", seed)
            .with("rate", self.options.rate)
            // Ten interrupts in a second: each can be told from the next.
            .with("progress", self.options.rate.div_ceil(10));
        self.ask("aim", words).map(drop)
    }

    /// Unplugs a function.
    ///
    /// # Errors
    ///
    /// It does not go.
    pub(crate) fn unplug(&mut self, index: usize) -> Result<()> {
        self.ask("release", Words::new().with("unit", self.unit(index)))?;
        let id = qemu::writer(index);
        self.vm.qmp.execute(&device_del { id: id.clone() })?;
        self.vm.qmp.wait(&format!("end of {id}"), STEP, |event| {
            event.event == "DEVICE_DELETED" && event.data["device"] == id.as_str()
        })?;
        if let Some(plugged) = self.plugged.get_mut(index) {
            *plugged = false;
        }
        Ok(())
    }

    /// Plugs a function in, and has it write where it did before.
    ///
    /// # Errors
    ///
    /// It does not come.
    pub(crate) fn plug(&mut self, index: usize) -> Result<()> {
        let side = self.sides.get(self.side);
        let host = side.and_then(|side| side.get(index));
        let host = host.context("there is no such function")?;
        let properties = qemu::function(self.options, index, host);
        let properties = properties
            .into_iter()
            .map(|(key, value)| (key, value.into()));
        let mut words: qapi_spec::Dictionary = properties.collect();
        let mut take = |key: &str| Some(words.remove(key)?.as_str()?.to_string());
        let (id, bus) = (take("id"), take("bus"));
        self.vm.qmp.execute(&device_add {
            driver: "vfio-pci".into(),
            id,
            bus,
            arguments: words,
        })?;
        if let Some(plugged) = self.plugged.get_mut(index) {
            *plugged = true;
        }
        self.take(index)?;
        let area = self.areas.get(index).copied();
        self.aim(index, area.context("there is no such area")?)
    }

    /// The guest's counters.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub(crate) fn totals(&mut self) -> Result<Check> {
        Check::totals(&self.ask("status", Words::new())?)
    }

    /// Compares all memory, and goes on.
    ///
    /// # Errors
    ///
    /// `Lost` if it is not what it must be.
    pub(crate) fn check(&mut self) -> Result<Check> {
        let check = Check::read(&self.ask("check", Words::new())?)?;
        if !check.is_good() {
            return Err(Lost(check).into());
        }
        self.ask("run", Words::new())?;
        Ok(check)
    }

    /// Looks whether the guest goes on as if nothing had been.
    ///
    /// # Errors
    ///
    /// Its counters stand.
    pub(crate) fn goes_on(&mut self) -> Result<()> {
        self.vm.wait_status("running", STEP)?;
        let before = self.totals()?;
        let plugged = self.plugged.contains(&true);
        wait("the guest writes nothing any more", STEP, || {
            let now = Check::totals(&self.vm.guest.ask("status", Words::new(), COMMAND)?)?;
            let writes = now.writes > before.writes || !plugged;
            Ok((writes && now.processor > before.processor).then_some(()))
        })
    }

    /// Looks whether QEMU has switched tracking off again.
    ///
    /// # Errors
    ///
    /// It has not, or the kernel did not take it.
    pub(crate) fn tracks_no_more(&mut self) -> Result<()> {
        if self.options.container {
            // The calls of the container are in no trace.
            return Ok(());
        }
        wait("tracking is still on", STEP, || {
            let trace = self.vm.trace()?;
            ensure!(trace.on > 0, "tracking was never on");
            ensure!(
                trace.failed == 0,
                "{} calls to iommufd failed",
                trace.failed
            );
            Ok((!trace.is_on()).then_some(()))
        })
    }

    /// Starts a QEMU on the other side that waits for the virtual machine.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub(crate) fn prepare(&mut self) -> Result<()> {
        self.started += 1;
        let name = format!("vm-{}", self.started);
        let side = self.sides.get(1 - self.side).into_iter().flatten();
        let hosts: Vec<_> = side
            .zip(&self.plugged)
            .map(|(host, plugged)| plugged.then(|| host.clone()))
            .collect();
        let mut vm = Vm::start(self.options, &name, &hosts, true)?;
        tell_events(&mut vm)?;
        vm.qmp.execute(&migrate_incoming {
            channels: None,
            exit_on_error: None,
            uri: Some(self.uri()),
        })?;
        self.destination = Some(vm);
        Ok(())
    }

    /// Where the destination listens.
    fn uri(&self) -> String {
        format!(
            "unix:{}/vm-{}.sock",
            self.options.logs.display(),
            self.started
        )
    }

    /// The command that migrates.
    pub(crate) fn command(&self) -> migrate {
        migrate {
            channels: None,
            detach: None,
            resume: None,
            uri: Some(self.uri()),
        }
    }

    /// Begins to migrate to the QEMU that waits.
    ///
    /// # Errors
    ///
    /// QEMU refuses.
    pub(crate) fn begin(&mut self) -> Result<()> {
        tell_events(&mut self.vm)?;
        self.writes_before = self.totals()?.writes;
        self.trace_before = self.vm.trace()?;
        self.vm
            .qmp
            .execute(&migrate_set_parameters(MigrateSetParameters {
                max_bandwidth: Some(self.options.bandwidth),
                ..Default::default()
            }))?;
        self.set_downtime(NO_DOWNTIME)?;
        let name = self.destination.as_ref().map_or("nothing", |vm| &vm.name);
        self.report.begin(&self.vm.name, name);
        self.begin = Instant::now();
        let command = self.command();
        self.vm.qmp.execute(&command).map(drop)
    }

    fn set_downtime(&mut self, limit: u64) -> Result<()> {
        let parameters = MigrateSetParameters {
            downtime_limit: Some(limit),
            ..Default::default()
        };
        self.vm
            .qmp
            .execute(&migrate_set_parameters(parameters))
            .map(drop)
    }

    /// Watches the migration until it is in pass `until` over the memory, or else until its end.
    ///
    /// The virtual machine keeps running for as many passes as the options say, so that what the
    /// IOMMU reports is needed; then it may stand still for as long as they say, and if that is not
    /// enough either, for as long as it takes.
    ///
    /// # Errors
    ///
    /// The migration fails, with QEMU's message, or takes too long.
    pub(crate) fn watch(&mut self, until: Option<u64>) -> Result<Seen> {
        let mut shown = 0;
        let mut downtime = NO_DOWNTIME;
        loop {
            let now = self.vm.qmp.execute(&QueryMigrate {})?;
            let reported = self.vm.trace()?.since(&self.trace_before).pages;
            let (pass, time) = (now.ram.dirty_sync_count, self.begin.elapsed());
            self.report.progress(&now, time, reported);
            if pass > shown {
                self.report.pass(&now, time, reported);
                shown = pass;
            }
            match now.status.as_str() {
                "completed" => return Ok(Seen::Completed(now)),
                "failed" | "failing" | "cancelled" | "cancelling" => bail!(
                    "the migration has {}: {}",
                    now.status,
                    now.error_desc.unwrap_or_else(|| "QEMU says no more".into())
                ),
                "active" if until.is_some_and(|until| pass >= until) => return Ok(Seen::Pass),
                _ => (),
            }
            let wanted = match pass.checked_sub(self.options.rounds) {
                None => NO_DOWNTIME,
                Some(more) if more < self.options.rounds => self.options.downtime,
                Some(_) => ANY_DOWNTIME,
            };
            if wanted > downtime && until.is_none() {
                self.set_downtime(wanted)?;
                downtime = wanted;
            }
            ensure!(
                time < MIGRATION,
                "the migration is {} after {} seconds",
                now.status,
                MIGRATION.as_secs()
            );
            thread::sleep(POLL);
        }
    }

    /// After a migration has completed: the other QEMU has the virtual machine, and the old one ends.
    ///
    /// # Errors
    ///
    /// The destination does not run it.
    pub(crate) fn arrive(&mut self, migration: Migration) -> Result<()> {
        let destination = self.destination.as_mut();
        let destination = destination.context("there is no destination")?;
        destination.wait_status("running", STEP)?;
        destination.guest.follow(&self.vm.guest);
        let trace = self.vm.trace()?.since(&self.trace_before);
        ensure!(
            trace.failed == 0,
            "{} calls to iommufd failed",
            trace.failed
        );
        if let Some(destination) = self.destination.take() {
            std::mem::replace(&mut self.vm, destination).quit()?;
        }
        self.side = 1 - self.side;
        let writes = self.totals()?.writes.saturating_sub(self.writes_before);
        self.report.end(Figures {
            migration,
            trace,
            writes,
        });
        Ok(())
    }

    /// Migrates to the other side, and compares.
    ///
    /// # Errors
    ///
    /// It does not succeed.
    pub(crate) fn hop(&mut self) -> Result<Check> {
        self.prepare()?;
        self.begin()?;
        self.finish()
    }

    /// Migrates from here to the end, and compares.
    ///
    /// # Errors
    ///
    /// It does not succeed.
    pub(crate) fn finish(&mut self) -> Result<Check> {
        match self.watch(None)? {
            Seen::Completed(migration) => self.arrive(migration)?,
            Seen::Pass => bail!("the migration was given up"),
        }
        self.check()
    }
}

/// Has QEMU tell what happens in a migration.
fn tell_events(vm: &mut Vm) -> Result<()> {
    let events = MigrationCapabilityStatus {
        capability: MigrationCapability::events,
        state: true,
    };
    let capabilities = vec![events];
    vm.qmp
        .execute(&migrate_set_capabilities { capabilities })
        .map(drop)
}
