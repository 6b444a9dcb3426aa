// SPDX-License-Identifier: GPL-2.0

//! What is shown, scenario by scenario.

use std::time::Duration;

use anyhow::{
    bail,
    ensure,
    Context,
    Result, //
};
use qapi_qmp::{
    balloon,
    calc_dirty_rate,
    migrate_cancel,
    qom_get,
    qom_set,
    query_balloon,
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
    guest::Check,
    qemu::VIRTIO_MEM,
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
        Seen,
        Stage,
        STEP, //
    },
    vm::{
        wait,
        Vm, //
    },
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
        Scenario::Blocked => {
            let message = blocked(&mut stage);
            return message.map(Outcome::Blocked).map_err(|e| stage.explain(e));
        }
    };
    match played {
        Ok(check) => {
            stage.vm.quit()?;
            Ok(Outcome::Migrated(check))
        }
        Err(e) => match e.downcast::<Lost>() {
            Ok(lost) => Ok(Outcome::Lost(lost.0)),
            Err(e) => Err(stage.explain(e)),
        },
    }
}

/// There, or there and back as often as asked for.
fn hops(stage: &mut Stage<'_>) -> Result<Check> {
    let count = stage.options.bounces().map_or(1, |bounces| 2 * bounces);
    for _ in 1..count {
        stage.hop()?;
    }
    stage.hop()
}

/// Prepares a migration and watches it until it is half-way.
fn half_way(stage: &mut Stage<'_>) -> Result<()> {
    stage.prepare()?;
    stage.begin()?;
    match stage.watch(Some(HALF_WAY))? {
        Seen::Pass => Ok(()),
        Seen::Completed(_) => bail!("the migration was over before it could be disturbed"),
    }
}

/// Nothing of an attempt is left, and the next one succeeds.
fn recover(stage: &mut Stage<'_>) -> Result<Check> {
    stage.goes_on()?;
    stage.tracks_no_more()?;
    stage.check()?;
    stage
        .report
        .note("the guest goes on, tracking is off; the next attempt:");
    stage.hop()
}

fn cancel(stage: &mut Stage<'_>) -> Result<Check> {
    half_way(stage)?;
    stage.vm.qmp.execute(&migrate_cancel {})?;
    stage.vm.wait_migration(&["cancelled"], STEP)?;
    stage.report.note("cancelled");
    if let Some(destination) = stage.destination.take() {
        destination.ended()?;
    }
    recover(stage)
}

fn kill_destination(stage: &mut Stage<'_>) -> Result<Check> {
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
fn again(stage: &mut Stage<'_>) -> Result<Check> {
    half_way(stage)?;
    let command = stage.command();
    match stage.vm.qmp.attempt(&command)? {
        Ok(_) => bail!("QEMU begins a second migration beside the first"),
        Err(refusal) => stage.report.note(&format!("told again: {}", refusal.desc)),
    }
    stage.finish()?;
    stage.hop()
}

/// The last function is unplugged and plugged in again before a migration, and the other way round
/// about the next.
fn hotplug(stage: &mut Stage<'_>) -> Result<Check> {
    let last = stage.plugged.len() - 1;
    stage.unplug(last)?;
    stage.plug(last)?;
    stage
        .report
        .note("one function unplugged, and plugged in again");
    stage.check()?;
    stage.hop()?;
    stage.unplug(last)?;
    stage.report.note("one function unplugged");
    stage.hop()?;
    stage.plug(last)?;
    stage.report.note("plugged in again");
    stage.check()?;
    stage.hop()
}

/// Steps in which memory is plugged: what Linux adds at a time.
const BLOCK: u64 = 128 << 20;
/// What the guest takes of plugged memory, and what the balloon takes of the other.
const TAKEN: u64 = 16 << 20;
const BALLOON: u64 = 16 << 20;
/// How long memory may take to come or go: a guest that was told to wait asks again in 5 minutes at most.
const PLUG: Duration = Duration::from_secs(330);
/// Seconds for which QEMU measures how much is written, with tracking on.
const MEASURED: i64 = 45;

/// Asks for so much memory to be plugged.
fn request(vm: &mut Vm, size: u64) -> Result<()> {
    vm.qmp.execute(&qom_set {
        path: VIRTIO_MEM.into(),
        property: "requested-size".into(),
        value: size.into(),
    })?;
    Ok(())
}

/// Waits until so much memory is plugged.
fn wait_plugged(vm: &mut Vm, size: u64) -> Result<()> {
    wait(&format!("not {size:#x} bytes are plugged"), PLUG, || {
        let now = vm.qmp.execute(&qom_get {
            path: VIRTIO_MEM.into(),
            property: "size".into(),
        })?;
        Ok((now.as_u64() == Some(size)).then_some(()))
    })
}

/// Has the balloon leave so much memory to the guest, and waits for it.
fn set_balloon(vm: &mut Vm, size: u64) -> Result<()> {
    let value = i64::try_from(size)?;
    vm.qmp.execute(&balloon { value })?;
    wait("the balloon does not get its size", STEP, || {
        Ok((vm.qmp.execute(&query_balloon {})?.actual == value).then_some(()))
    })
}

/// Has the first function write to memory that was plugged; returns the number of the area.
fn use_plugged(stage: &mut Stage<'_>) -> Result<u64> {
    let seed = stage.seed();
    let words = Words::new().with_hex("take", TAKEN).with_hex("seed", seed);
    let area = stage.ask("plugged", words)?.number("area")?;
    stage.aim(0, area)?;
    Ok(area)
}

/// Gives the plugged memory back; the first function goes on where it began.
fn leave_plugged(stage: &mut Stage<'_>, area: u64) -> Result<()> {
    let first = stage.areas.first().copied();
    stage.aim(0, first.context("there is no area")?)?;
    stage.ask("drop", Words::new().with("area", area)).map(drop)
}

/// Memory comes and goes while tracking is on.
///
/// QEMU plugs no memory during a migration. It has tracking switched on outside of one as well: when
/// it measures how much is written.
fn memory(stage: &mut Stage<'_>) -> Result<Check> {
    let size = stage.options.memory()?;
    stage.vm.qmp.execute(&calc_dirty_rate {
        calc_time: MEASURED,
        calc_time_unit: None,
        mode: Some(DirtyRateMeasureMode::dirty_bitmap),
        sample_pages: None,
    })?;
    if !stage.options.container {
        let vm = &stage.vm;
        wait("tracking is not on", STEP, || {
            Ok(vm.trace()?.is_on().then_some(()))
        })?;
    }
    request(&mut stage.vm, BLOCK)?;
    wait_plugged(&mut stage.vm, BLOCK)?;
    let area = use_plugged(stage)?;
    set_balloon(&mut stage.vm, size - BALLOON)?;
    stage.check()?;
    set_balloon(&mut stage.vm, size)?;
    stage.ask("touch", Words::new().with_hex("length", BALLOON / 2))?;
    leave_plugged(stage, area)?;
    request(&mut stage.vm, 0)?;
    wait_plugged(&mut stage.vm, 0)?;
    request(&mut stage.vm, BLOCK)?;
    wait_plugged(&mut stage.vm, BLOCK)?;
    let area = use_plugged(stage)?;
    stage.check()?;
    let vm = &mut stage.vm;
    let measuring = vm.qmp.execute(&QueryDirtyRate {})?.status;
    ensure!(
        measuring == "measuring",
        "tracking was not on for all of this: QEMU's measurement is \"{measuring}\""
    );
    stage
        .report
        .note("memory plugged, unplugged and plugged while tracked; a balloon in and out");
    wait("QEMU goes on measuring", 2 * STEP, || {
        let status = vm.qmp.execute(&QueryDirtyRate {})?.status;
        Ok((status == "measured").then_some(()))
    })?;
    stage.tracks_no_more()?;

    half_way(stage)?;
    stage.vm.qmp.execute(&balloon {
        value: i64::try_from(size - BALLOON)?,
    })?;
    let check = stage.finish()?;
    ensure!(check.pages > 0, "nothing was compared");
    set_balloon(&mut stage.vm, size - BALLOON)?;
    set_balloon(&mut stage.vm, size)?;
    stage.ask("touch", Words::new().with_hex("length", BALLOON / 2))?;
    leave_plugged(stage, area)?;
    request(&mut stage.vm, 0)?;
    wait_plugged(&mut stage.vm, 0)?;
    stage
        .report
        .note("and unplugged after a migration during which the balloon grew");
    stage.hop()
}

/// QEMU is killed while pages are tracked, and nothing of it is left.
fn kill(stage: &mut Stage<'_>, tables: u64) -> Result<Check> {
    half_way(stage)?;
    if !stage.options.container {
        ensure!(stage.vm.trace()?.is_on(), "tracking is not on");
    }
    let used = functions::table_pages()?;
    // The place of the one that is killed has to be filled: the destination, which ends without it.
    let destination = stage
        .destination
        .take()
        .context("there is no destination")?;
    std::mem::replace(&mut stage.vm, destination).kill()?;
    // It may end by itself first.
    wait("the destination waits for its source", STEP, || {
        Ok(stage
            .vm
            .qmp
            .attempt(&QueryMigrate {})
            .is_err()
            .then_some(()))
    })?;
    wait("pages of the IOMMU's tables are left", STEP, || {
        Ok((functions::table_pages()? <= tables).then_some(()))
    })?;
    stage.report.note(&format!(
        "killed while tracking; the IOMMU's tables had {used} pages, and have {tables} again"
    ));
    stage.restart()?;
    stage.hop()
}

/// Looks whether QEMU refuses to migrate, and returns its message.
fn blocked(stage: &mut Stage<'_>) -> Result<String> {
    let reasons = stage.vm.qmp.execute(&QueryMigrate {})?.blocked_reasons;
    let first = reasons.first().cloned();
    let reason = first.context("nothing blocks a migration of this virtual machine")?;
    let command = stage.command();
    let refusal = match stage.vm.qmp.attempt(&command)? {
        Ok(_) => bail!("QEMU migrates although it says \"{reason}\""),
        Err(refusal) => refusal.desc,
    };
    ensure!(
        refusal.contains(&reason),
        "QEMU refuses with \"{refusal}\", and says that the reason is \"{reason}\""
    );
    stage.goes_on()?;
    stage.check()?;
    Ok(refusal)
}
