// SPDX-License-Identifier: GPL-2.0

//! Moves a writer between page tables, resets it, and has its interrupts.

use std::{
    sync::atomic::Ordering,
    thread::sleep,
    time::{
        Duration,
        Instant, //
    },
};

use anyhow::{
    ensure,
    Context,
    Result, //
};

use super::{
    Act,
    Hands, //
};
use crate::{
    failing::Outcome,
    function::tell,
    op::{
        Op,
        Step, //
    },
    sys::vfio, //
};

/// How long a writer may take for the writes after which it interrupts, and how late an interrupt
/// may be: much longer than the emulator needs.
const PATIENCE: Duration = Duration::from_secs(20);
const LATE: Duration = Duration::from_secs(1);

/// The state of one writer.
pub(super) struct Mover {
    number: usize,
    attached: bool,
    interrupts: bool,
}

impl Mover {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            attached: false,
            interrupts: false,
        }
    }

    fn attach(&mut self, hands: &mut Hands<'_>, step: &Step, to: Option<usize>) -> Result<()> {
        let stage = hands.stage;
        if (to.is_none() && !self.attached) || !stage.model()?.begin_move(self.number, to) {
            return Ok(());
        }
        let file = stage.writers[self.number].file();
        let outcome = hands.failing.run(step.fail, || match to {
            Some(slot) => vfio::attach(file, None, stage.hwpt(slot)),
            None => vfio::detach(file, None),
        });
        let done = matches!(outcome, Ok(Outcome::Done));
        stage
            .model()?
            .end_move(self.number, done, |page| stage.words(page))?;
        outcome.context("the kernel refuses")?;
        if done {
            self.attached = to.is_some();
        }
        hands.figures.moves += 1;
        Ok(())
    }

    fn reset(&mut self, hands: &mut Hands<'_>, seed: u64) -> Result<()> {
        let stage = hands.stage;
        stage.stop(self.number)?;
        vfio::reset(stage.writers[self.number].file()).context("the kernel refuses")?;
        hands.figures.resets += 1;
        stage.start(self.number, seed)
    }

    fn switch(&mut self, hands: &mut Hands<'_>, on: bool) -> Result<()> {
        if on == self.interrupts {
            return Ok(());
        }
        // Without a failed allocation: Linux 7.3.4 warns when it removes files of an interrupt in
        // /proc that it had no memory to make (`register_irq_proc()`).
        let outcome = hands
            .failing
            .run(None, || hands.stage.writers[self.number].interrupts(on))
            .context("the kernel refuses")?;
        self.interrupts = on && outcome == Outcome::Done;
        Ok(())
    }

    fn affinity(&self, hands: &Hands<'_>, cpus: usize) -> Result<()> {
        let function = &hands.stage.writers[self.number].function;
        for number in function.interrupts() {
            tell(
                format!("/proc/irq/{number}/smp_affinity"),
                &format!("{cpus:x}"),
            )?;
        }
        Ok(())
    }

    /// An interrupt must come when the writer has made enough writes.
    fn wait(&self, hands: &mut Hands<'_>) -> Result<()> {
        if !self.interrupts {
            return Ok(());
        }
        let writer = &hands.stage.writers[self.number];
        let made = || Ok::<_, anyhow::Error>(writer.counts()?.context("it was stopped")?.made);
        hands.figures.interrupts += writer.interrupts_seen();
        let (begun, since) = (made()?, Instant::now());
        // An interrupt that was about to be raised before does not count.
        while made()? < begun + 2 * hands.stage.target.progress() {
            if hands.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            ensure!(
                since.elapsed() < PATIENCE,
                "the writer has stopped by itself"
            );
            sleep(Duration::from_millis(1));
        }
        let since = Instant::now();
        loop {
            let seen = writer.interrupts_seen();
            hands.figures.interrupts += seen;
            if seen > 0 {
                return Ok(());
            }
            ensure!(since.elapsed() < LATE, "no interrupt has come");
            sleep(Duration::from_micros(100));
        }
    }
}

impl Act for Mover {
    fn step(&mut self, hands: &mut Hands<'_>, step: &Step) -> Result<()> {
        match step.op {
            Op::Move { to } => self.attach(hands, step, to),
            Op::Reset { seed } => self.reset(hands, seed),
            Op::Interrupts { on } => self.switch(hands, on),
            Op::Affinity { cpus } => self.affinity(hands, cpus),
            Op::Await => self.wait(hands),
            _ => Ok(()),
        }
    }

    fn end(&mut self, hands: &mut Hands<'_>) -> Result<()> {
        if !self.interrupts {
            return Ok(());
        }
        hands.stage.writers[self.number]
            .interrupts(false)
            .context("cannot switch interrupts off")
    }
}
