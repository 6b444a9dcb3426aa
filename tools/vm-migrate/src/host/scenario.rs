// SPDX-License-Identifier: GPL-2.0

//! What is shown, scenario by scenario.

use anyhow::{
    bail,
    ensure,
    Context,
    Result, //
};
use qapi_qmp::{
    calc_dirty_rate,
    migrate_cancel,
    DirtyRateMeasureMode, //
};
use vm_rule::words::Words;

use crate::{
    cli::{
        Options,
        Scenario, //
    },
    functions::{
        self,
        Sides, //
    },
    qmp::{
        QueryDirtyRate,
        QueryMigrate, //
    },
    report::{
        Lost,
        Outcome,
        Report, //
    },
    stage::{
        Stage,
        STEP, //
    },
    vm::wait,
};

/// The pass over the memory in which something comes between.
const HALF_WAY: u64 = 3;

/// Plays the scenario that was asked for.
///
/// # Errors
///
/// It could not be played to its end.
pub(crate) fn play(options: &Options, report: &mut Report, sides: Sides) -> Result<Outcome> {
    report.heading(options, &sides)?;
    let tables = functions::table_pages()?;
    let mut stage = Stage::new(options, report, sides)?;
    let played = match options.scenario {
        Scenario::Basic | Scenario::Bounce => hops(&mut stage),
        Scenario::Cancel => cancel(&mut stage),
        Scenario::KillDestination => kill_destination(&mut stage),
        Scenario::Again => again(&mut stage),
        Scenario::Hotplug => hotplug(&mut stage),
        Scenario::Memory => memory(&mut stage),
        Scenario::Kill => kill(&mut stage, tables),
        Scenario::Blocked => blocked(&mut stage),
    };
    match played {
        Ok(outcome) => {
            stage.vm.quit()?;
            Ok(outcome)
        }
        Err(e) => match e.downcast::<Lost>() {
            Ok(lost) => Ok(Outcome::Lost(lost.0)),
            Err(e) => Err(stage.explain(e)),
        },
    }
}

/// There, or there and back as often as asked for.
fn hops(stage: &mut Stage<'_>) -> Result<Outcome> {
    let count = stage.options.bounces().map_or(1, |bounces| 2 * bounces);
    for _ in 1..count {
        stage.hop()?;
    }
    last_hop(stage)
}

/// The migration whose comparison is the scenario's result.
fn last_hop(stage: &mut Stage<'_>) -> Result<Outcome> {
    stage.hop().map(Outcome::Migrated)
}

/// Prepares a migration and watches it until it is half-way.
fn half_way(stage: &mut Stage<'_>) -> Result<()> {
    stage.prepare()?;
    stage.begin()?;
    stage.watch_until(HALF_WAY)
}

/// Nothing of an attempt is left, and the next one succeeds.
fn recover(stage: &mut Stage<'_>) -> Result<Outcome> {
    stage.goes_on()?;
    stage.tracks_no_more()?;
    stage.check()?;
    stage.report.note("the guest goes on; the next attempt:");
    last_hop(stage)
}

fn cancel(stage: &mut Stage<'_>) -> Result<Outcome> {
    half_way(stage)?;
    stage.vm.qmp.execute(&migrate_cancel {})?;
    stage.vm.wait_migration(&["cancelled"], STEP)?;
    stage.report.note("cancelled");
    if let Some(mut destination) = stage.destination.take() {
        destination.ended()?;
    }
    recover(stage)
}

fn kill_destination(stage: &mut Stage<'_>) -> Result<Outcome> {
    half_way(stage)?;
    let destination = stage
        .destination
        .take()
        .context("there is no destination")?;
    destination.kill()?;
    stage.vm.wait_migration(&["failed"], STEP)?;
    stage.report.note("the destination was killed");
    recover(stage)
}

/// The source is told to migrate while it does.
fn again(stage: &mut Stage<'_>) -> Result<Outcome> {
    half_way(stage)?;
    let command = stage.command();
    match stage.vm.qmp.attempt(&command)? {
        Ok(_) => bail!("QEMU begins a second migration beside the first"),
        Err(refusal) => {
            ensure!(
                refusal.desc.contains("in progress"),
                "QEMU refuses a second migration for another reason: {}",
                refusal.desc
            );
            stage.report.note(&format!("told again: {}", refusal.desc));
        }
    }
    stage.finish()?;
    last_hop(stage)
}

/// The last function is unplugged and plugged in again before a migration, unplugged during one, and
/// plugged in again while its new address space is tracked.
fn hotplug(stage: &mut Stage<'_>) -> Result<Outcome> {
    let last = stage.ports.len() - 1;
    stage.unplug(last)?;
    stage.plug(last)?;
    stage
        .report
        .note("one function unplugged, and plugged in again");
    stage.goes_on()?;
    stage.check()?;
    stage.hop()?;
    stage.unplug(last)?;
    stage.report.note("one function unplugged");
    stage.goes_on()?;
    stage.hop()?;
    stage.plug(last)?;
    stage.report.note("plugged in again");
    stage.goes_on()?;
    stage.check()?;
    // QEMU plugs nothing during a migration, but during a measurement, which the migration then
    // shares its tracking with: a function that comes back has to be tracked from the start.
    track(stage)?;
    stage.unplug(last)?;
    stage.plug(last)?;
    stage
        .report
        .note("unplugged and plugged in again while tracked");
    is_measuring(stage)?;
    last_hop(stage)
}

/// Fails if QEMU's measurement, and with it tracking, is over.
fn is_measuring(stage: &mut Stage<'_>) -> Result<()> {
    let status = stage.vm.qmp.execute(&QueryDirtyRate {})?.status;
    ensure!(
        status == "measuring",
        "tracking was not on for all of this: QEMU's measurement is \"{status}\""
    );
    Ok(())
}

/// Has QEMU switch tracking on without a migration: it measures how much is written.
fn track(stage: &mut Stage<'_>) -> Result<()> {
    stage.vm.qmp.execute(&calc_dirty_rate {
        calc_time: MEASURED,
        calc_time_unit: None,
        mode: Some(DirtyRateMeasureMode::dirty_bitmap),
        sample_pages: None,
    })?;
    if stage.options.container {
        // The calls of the container are in no trace.
        return Ok(());
    }
    let vm = &stage.vm;
    wait("tracking is not on", STEP, || {
        Ok(vm.trace()?.is_on().then_some(()))
    })
}

/// What the guest takes of plugged memory.
const TAKEN: u64 = 16 << 20;
/// Seconds for which QEMU measures how much is written, with tracking on.
const MEASURED: i64 = 60;

/// Plugs memory, and has the first function write there; returns the number of the area.
fn plug_memory(stage: &mut Stage<'_>) -> Result<u64> {
    stage.plug_dimm()?;
    let seed = stage.seed();
    let words = Words::new().with_hex("take", TAKEN).with_hex("seed", seed);
    let answer = stage.ask("plugged", words)?;
    let area = answer.number("area")?;
    stage.bytes += answer.number("length")?;
    stage.aim(0, area)?;
    stage.goes_on()?;
    Ok(area)
}

/// Has the function go where it began, and unplugs the memory.
fn unplug_memory(stage: &mut Stage<'_>, area: u64) -> Result<()> {
    let first = stage.ports.first().context("there is no port")?.area;
    stage.aim(0, first)?;
    let answer = stage.ask("drop", Words::new().with("area", area))?;
    stage.bytes -= answer.number("length")?;
    stage.unplug_dimm()
}

/// Memory comes and goes while tracking is on.
///
/// QEMU plugs no memory during a migration. It has tracking switched on outside of one as well: when
/// it measures how much is written.
fn memory(stage: &mut Stage<'_>) -> Result<Outcome> {
    track(stage)?;
    let before = stage.vm.trace()?;
    let area = plug_memory(stage)?;
    unplug_memory(stage, area)?;
    let area = plug_memory(stage)?;
    is_measuring(stage)?;
    stage.check()?;
    stage
        .report
        .note("memory plugged, unplugged and plugged while tracked");
    let vm = &mut stage.vm;
    wait("QEMU goes on measuring", 3 * STEP, || {
        let status = vm.qmp.execute(&QueryDirtyRate {})?.status;
        Ok((status == "measured").then_some(()))
    })?;
    // At its end QEMU asks for what was written.
    let plugged = vm.trace()?.since(&before).plugged;
    ensure!(
        plugged > 0,
        "nothing was reported of memory that was plugged while tracked"
    );
    stage
        .report
        .note(&format!("{plugged} pages of it were reported"));
    stage.tracks_no_more()?;

    stage.hop()?;
    unplug_memory(stage, area)?;
    stage.report.note("and unplugged after a migration");
    last_hop(stage)
}

/// QEMU is killed while pages are tracked, and nothing of it is left.
fn kill(stage: &mut Stage<'_>, tables: u64) -> Result<Outcome> {
    half_way(stage)?;
    if !stage.options.container {
        ensure!(stage.vm.trace()?.is_on(), "tracking is not on");
    }
    let used = functions::table_pages()?;
    ensure!(
        used > tables,
        "the IOMMU's tables have {used} pages, and had {tables} without a virtual machine"
    );
    // The place of the one that is killed has to be filled: the destination, which ends without it.
    let destination = stage
        .destination
        .take()
        .context("there is no destination")?;
    std::mem::replace(&mut stage.vm, destination).kill()?;
    stage.vm.ended()?;
    wait("pages of the IOMMU's tables are left", STEP, || {
        Ok((functions::table_pages()? <= tables).then_some(()))
    })?;
    stage.report.note(&format!(
        "killed while tracking; the IOMMU's tables had {used} pages, and have {tables} again"
    ));
    stage.restart()?;
    last_hop(stage)
}

/// Looks whether QEMU refuses to migrate because nothing tracks.
fn blocked(stage: &mut Stage<'_>) -> Result<Outcome> {
    let reasons = stage.vm.qmp.execute(&QueryMigrate {})?.blocked_reasons;
    let reason = reasons
        .iter()
        .find(|reason| reason.contains("dirty tracking"))
        .with_context(|| format!("QEMU names no lack of dirty tracking, but {reasons:?}"))?;
    let command = stage.command();
    let refusal = match stage.vm.qmp.attempt(&command)? {
        Ok(_) => bail!("QEMU migrates although it says \"{reason}\""),
        Err(refusal) => refusal.desc,
    };
    ensure!(
        refusal.contains(reason),
        "QEMU refuses with \"{refusal}\", and says that the reason is \"{reason}\""
    );
    stage.report.note("refused; the guest goes on");
    stage.goes_on()?;
    stage.check()?;
    Ok(Outcome::Blocked(refusal))
}
