// SPDX-License-Identifier: GPL-2.0

//! How a virtual machine moves to another QEMU.

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
    cont,
    migrate,
    migrate_incoming,
    migrate_set_capabilities,
    migrate_set_parameters,
    MigrateSetParameters,
    MigrationCapability,
    MigrationCapabilityStatus, //
};
use vm_rule::words::Words;

use crate::{
    guest::Check,
    qemu::Plugged,
    qmp::{
        Migration,
        QueryMigrate, //
    },
    report::Figures,
    stage::{
        Stage,
        COMMAND,
        STEP, //
    },
    trace::Trace,
    vm::Vm,
};

/// How long a migration may take.
const LIMIT: Duration = Duration::from_secs(150);
const POLL: Duration = Duration::from_millis(25);

/// The virtual machine may stand still for as long as the named bandwidth needs for what is left: with
/// these, for less than a page. So no pass over the memory ends the migration.
const NO_DOWNTIME: Limits = Limits {
    milliseconds: 1,
    bandwidth: 1 << 20,
};
/// The pass at which tracking must be on, and the guest is asked for the first time.
const TRACKED: u64 = 2;

/// When QEMU may stop the virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    milliseconds: u64,
    /// Bytes in a second that QEMU shall reckon with; 0 if it is to measure.
    bandwidth: u64,
}

impl Limits {
    fn downtime(milliseconds: u64) -> Self {
        Self {
            milliseconds,
            bandwidth: 0,
        }
    }

    /// The longest that QEMU takes.
    fn any() -> Self {
        Self::downtime(2_000_000)
    }
}

/// What is known of a migration.
#[derive(Default)]
pub(crate) struct Attempt {
    /// When it began, and what was seen then.
    begin: Option<Instant>,
    before: Check,
    trace_before: Trace,
    /// The last pass that was shown, and the pages that had been reported then.
    shown: u64,
    reported: u64,
    /// The guest at pass `TRACKED`, and the pass in which it was seen to have gone on: from there on
    /// the virtual machine may be stopped.
    early: Option<Check>,
    late: Option<u64>,
}

impl Stage<'_> {
    /// Starts a QEMU on the other side that waits for the virtual machine.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub(crate) fn prepare(&mut self) -> Result<()> {
        self.started += 1;
        let name = format!("vm-{}", self.started);
        let side = self.sides.get(1 - self.side).into_iter().flatten();
        let hosts = side.zip(&self.ports);
        let plugged = Plugged {
            hosts: hosts
                .map(|(host, port)| port.plugged.then(|| host.clone()))
                .collect(),
            dimm: self.dimm,
        };
        let mut vm = Vm::start(self.options, &name, &plugged, true)?;
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
            self.options.logs().display(),
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
        self.attempt = Attempt {
            before: self.totals()?,
            trace_before: self.vm.trace()?,
            ..Attempt::default()
        };
        self.vm
            .qmp
            .execute(&migrate_set_parameters(MigrateSetParameters {
                max_bandwidth: Some(self.options.bandwidth),
                ..Default::default()
            }))?;
        self.set_limits(NO_DOWNTIME)?;
        let name = self.destination.as_ref().map_or("nothing", |vm| &vm.name);
        self.report.begin(&self.vm.name, name);
        self.attempt.begin = Some(Instant::now());
        let command = self.command();
        self.vm.qmp.execute(&command).map(drop)
    }

    fn set_limits(&mut self, limits: Limits) -> Result<()> {
        let parameters = MigrateSetParameters {
            downtime_limit: Some(limits.milliseconds),
            avail_switchover_bandwidth: Some(limits.bandwidth),
            ..Default::default()
        };
        self.vm
            .qmp
            .execute(&migrate_set_parameters(parameters))
            .map(drop)
    }

    /// Looks at the migration, and shows it.
    fn look(&mut self) -> Result<Migration> {
        let now = self.vm.qmp.execute(&QueryMigrate {})?;
        let time = self
            .attempt
            .begin
            .map_or(Duration::ZERO, |begin| begin.elapsed());
        let pass = now.ram.dirty_sync_count;
        if pass > self.attempt.shown {
            self.attempt.reported = self.vm.trace()?.since(&self.attempt.trace_before).pages;
            self.report.pass(&now, time, self.attempt.reported);
            self.attempt.shown = pass;
        }
        self.report.progress(&now, time, self.attempt.reported);
        if matches!(
            now.status.as_str(),
            "failed" | "failing" | "cancelled" | "cancelling"
        ) {
            bail!(
                "the migration has {}: {}",
                now.status,
                now.error_desc.as_deref().unwrap_or("QEMU does not say why")
            );
        }
        ensure!(
            time < LIMIT,
            "the migration is {} after {} seconds",
            now.status,
            LIMIT.as_secs()
        );
        Ok(now)
    }

    /// Watches the migration until it is in a pass over the memory.
    ///
    /// # Errors
    ///
    /// It fails, with QEMU's message, takes too long, or is over before.
    pub(crate) fn watch_until(&mut self, pass: u64) -> Result<()> {
        loop {
            let now = self.look()?;
            ensure!(
                now.status != "completed",
                "the migration was over before it could be disturbed"
            );
            if now.status == "active" && now.ram.dirty_sync_count >= pass {
                return Ok(());
            }
            thread::sleep(POLL);
        }
    }

    /// Watches the migration until its end.
    ///
    /// The virtual machine keeps running for as many passes as the options say, so that what the
    /// IOMMU reports is needed; then it may stand still for as long as they say, and if that is not
    /// enough either, for as long as it takes.
    ///
    /// # Errors
    ///
    /// It fails, with QEMU's message, or takes too long; the guest writes nothing meanwhile, or is not
    /// tracked.
    fn watch_to_end(&mut self) -> Result<Migration> {
        let rounds = self.options.rounds;
        let mut limits = NO_DOWNTIME;
        loop {
            let now = self.look()?;
            let pass = now.ram.dirty_sync_count;
            if now.status == "completed" {
                ensure!(
                    pass >= rounds,
                    "the migration was over after {pass} passes, before the {rounds} that were asked for"
                );
                return Ok(now);
            }
            if now.status == "active" {
                self.question(pass)?;
            }
            let wanted = match self.attempt.late {
                None => NO_DOWNTIME,
                Some(late) if pass < late + rounds => Limits::downtime(self.options.downtime),
                Some(_) => Limits::any(),
            };
            if wanted != limits {
                self.set_limits(wanted)?;
                limits = wanted;
            }
            thread::sleep(POLL);
        }
    }

    /// Asks the guest twice whether everything writes while pages are tracked.
    fn question(&mut self, pass: u64) -> Result<()> {
        if self.attempt.early.is_none() && pass >= TRACKED {
            // In the trace of a container there is nothing.
            if self.has_function() && !self.options.container {
                ensure!(self.vm.trace()?.is_on(), "QEMU tracks nothing");
            }
            self.attempt.early = Some(self.totals()?);
        } else if self.attempt.late.is_none() && pass >= self.options.rounds {
            let now = self.totals()?;
            if let Some(early) = &self.attempt.early {
                // It may come so soon that nothing has been written: then the next look shows it.
                if now.all_moved(early) {
                    self.attempt.late = Some(pass);
                }
            }
        }
        Ok(())
    }

    /// After a migration has completed: the other QEMU has the virtual machine, which compares its
    /// memory before anything else, and the old one ends.
    ///
    /// # Errors
    ///
    /// `Lost` if the memory is not what it must be; or the destination does not run it.
    fn arrive(&mut self, migration: Migration) -> Result<Check> {
        let trace = self.vm.trace()?.since(&self.attempt.trace_before);
        ensure!(
            trace.failed == 0,
            "{} calls to iommufd failed",
            trace.failed
        );
        let destination = self.destination.as_mut();
        let destination = destination.context("there is no destination")?;
        destination.wait_status("paused", STEP)?;
        destination.guest.follow(&self.vm.guest);
        // What a function writes before the comparison covers what was lost. So the command is there
        // when the guest comes to life.
        let line = destination.guest.tell("check", Words::new(), COMMAND)?;
        destination.qmp.execute(&cont {})?;
        let destination = self.destination.take().context("there is no destination")?;
        let source = std::mem::replace(&mut self.vm, destination);
        self.side = 1 - self.side;
        let answer = self.vm.guest.answer("check", &line, COMMAND)?;
        self.report.end(Figures {
            migration,
            trace,
            writes: Check::totals(&answer)?
                .writes
                .saturating_sub(self.attempt.before.writes),
        });
        let check = self.judge(&answer)?;
        // What was not reported is rather seen in the memory.
        if self.has_function() {
            ensure!(
                trace.queries > 0 && trace.pages > 0,
                "{} pages were reported in {} queries",
                trace.pages,
                trace.queries
            );
        }
        source.quit()?;
        self.goes_on()?;
        Ok(check)
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
        let migration = self.watch_to_end()?;
        self.arrive(migration)
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
