// SPDX-License-Identifier: GPL-2.0

//! Plays an episode: a thread for each actor, which makes its steps, and a check of what is left.

mod mapper;
mod pasids;
mod tracker;
mod writers;

use std::{
    sync::{
        atomic::{
            AtomicBool,
            AtomicI32,
            Ordering, //
        },
        Mutex,
        PoisonError, //
    },
    thread,
    time::Duration,
};

use anyhow::{
    ensure,
    Context,
    Error,
    Result, //
};

pub(crate) use self::pasids::IDS as PASID_IDS;
use crate::{
    failing::Failing,
    function::Function,
    leaks::Counts,
    model::Query,
    op::{
        Actor,
        Episode,
        Step,
        AREA_PAGES,
        SLOTS, //
    },
    random::{
        mix,
        Random, //
    },
    stage::{
        Stage,
        PAGE, //
    },
    sys::signal, //
};

/// Queries at the end of an episode, when nothing writes any more: of each table, the second of
/// which must report nothing.
const LAST_ROUNDS: usize = 2;
pub(crate) const LAST_QUERIES: u64 = (LAST_ROUNDS * SLOTS) as u64;

/// The functions of the machine.
pub(crate) struct Functions {
    /// Those that write by themselves.
    pub(crate) writers: Vec<Function>,
    /// One with PASIDs, if there is one.
    pub(crate) pasids: Option<Function>,
}

/// What has been done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Writes of devices.
    pub(crate) writes: u64,
    /// Of these, those that had to be reported.
    pub(crate) tracked: u64,
    /// Queries of the dirty bitmap.
    pub(crate) queries: u64,
    /// Pages in the reports.
    pub(crate) reported: u64,
    /// Attaches and detaches.
    pub(crate) moves: u64,
    /// Maps and unmaps.
    pub(crate) mappings: u64,
    /// Resets of devices.
    pub(crate) resets: u64,
    /// Interrupts.
    pub(crate) interrupts: u64,
    /// Calls that failed since an allocation did, or a signal came.
    pub(crate) failures: u64,
}

impl Figures {
    /// Adds those of another thread or episode.
    pub(crate) fn add(&mut self, other: &Self) {
        self.writes += other.writes;
        self.tracked += other.tracked;
        self.queries += other.queries;
        self.reported += other.reported;
        self.moves += other.moves;
        self.mappings += other.mappings;
        self.resets += other.resets;
        self.interrupts += other.interrupts;
        self.failures += other.failures;
    }
}

/// What an actor has in its hands.
struct Hands<'a> {
    stage: &'a Stage,
    failing: Failing,
    figures: Figures,
    stop: &'a AtomicBool,
}

/// An actor makes its steps.
trait Act {
    fn step(&mut self, hands: &mut Hands<'_>, step: &Step) -> Result<()>;

    /// After the last step, or after another actor has failed.
    fn end(&mut self, _hands: &mut Hands<'_>) -> Result<()> {
        Ok(())
    }
}

/// Uses everything once, so that what a driver keeps is there before anything is counted.
///
/// # Errors
///
/// As of [`play`].
pub(crate) fn use_once(functions: &Functions) -> Result<()> {
    let episode = Episode::first_use();
    let stage = Stage::open(&episode, &functions.writers)?;
    act(&episode, &stage, functions)?;
    stage.close()
}

/// Plays an episode; nothing of it may be left.
///
/// # Errors
///
/// What was found, or the kernel refuses something that it should not.
pub(crate) fn play(episode: &Episode, functions: &Functions) -> Result<Figures> {
    let before = Counts::now()?;
    if episode.replug {
        Function::replug(&functions.writers)?;
    }
    let stage = Stage::open(episode, &functions.writers)?;
    let played = act(episode, &stage, functions);
    let figures = match played {
        Ok(mut figures) => {
            settle(&stage, &mut figures)?;
            figures
        }
        // What was found first is the reason, not what is left of it.
        Err(e) => {
            let _ = stage.close();
            return Err(e);
        }
    };
    stage.close()?;
    before.check().context("something is left at the end")?;
    Ok(figures)
}

/// Runs the actors.
fn act(episode: &Episode, stage: &Stage, functions: &Functions) -> Result<Figures> {
    let stop = AtomicBool::new(false);
    let found = Mutex::new((None::<Error>, Figures::default()));
    let actors: Vec<_> = Actor::ALL
        .into_iter()
        .filter(|actor| *actor != Actor::Pasids || functions.pasids.is_some())
        .collect();
    let numbers: Vec<_> = actors.iter().map(|_| AtomicI32::new(0)).collect();
    for writer in 0..stage.writers.len() {
        stage.start(writer, mix(episode.seed ^ (writer as u64 + 1)))?;
    }
    thread::scope(|scope| {
        let mut threads = vec![];
        for (&actor, number) in actors.iter().zip(&numbers) {
            let (stop, found) = (&stop, &found);
            threads.push(scope.spawn(move || {
                number.store(signal::this_thread(), Ordering::Relaxed);
                let mut figures = Figures::default();
                let result = perform(actor, episode, stage, functions, stop, &mut figures);
                number.store(0, Ordering::Relaxed);
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                found.1.add(&figures);
                if let Err(e) = result {
                    found.0.get_or_insert(e.context(actor.to_string()));
                    stop.store(true, Ordering::Relaxed);
                }
            }));
        }
        let mut random = Random::new(!episode.seed);
        while threads.iter().any(|thread| !thread.is_finished()) {
            thread::sleep(Duration::from_micros(random.next() % 4_000 + 500));
            let number = numbers[random.below(numbers.len())].load(Ordering::Relaxed);
            if episode.signals && number != 0 {
                signal::interrupt(number);
            }
        }
    });
    let (error, figures) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    error.map_or(Ok(figures), Err)
}

/// Makes the steps of one actor.
fn perform(
    actor: Actor,
    episode: &Episode,
    stage: &Stage,
    functions: &Functions,
    stop: &AtomicBool,
    figures: &mut Figures,
) -> Result<()> {
    let mut hands = Hands {
        stage,
        failing: Failing::new(episode.signals)?,
        figures: Figures::default(),
        stop,
    };
    let mut act: Box<dyn Act> = match (actor, &functions.pasids) {
        (Actor::Tracker, _) => Box::new(tracker::Tracker),
        (Actor::Mapper, _) => Box::new(mapper::Mapper::default()),
        (Actor::Writer(number), _) => Box::new(writers::Mover::new(number)),
        (Actor::Pasids, Some(function)) => Box::new(pasids::Pasids::open(stage, function)?),
        (Actor::Pasids, None) => return Ok(()),
    };
    let mut result = Ok(());
    for step in episode.steps.iter().filter(|step| step.actor == actor) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(Duration::from_micros(step.pause_us));
        result = act
            .step(&mut hands, step)
            .with_context(|| step.op.to_string());
        if result.is_err() {
            break;
        }
    }
    let ended = act.end(&mut hands);
    hands.figures.failures = hands.failing.failures;
    *figures = hands.figures;
    result.and(ended)
}

/// Stops the writers, and checks the rest: the last reports, and what memory holds.
fn settle(stage: &Stage, figures: &mut Figures) -> Result<()> {
    for writer in 0..stage.writers.len() {
        stage.stop(writer)?;
    }
    let all = Query {
        pages: 0..AREA_PAGES,
        unit: 1,
        clear: true,
        failed: false,
        loose: false,
    };
    for slot in 0..SLOTS {
        for _ in 0..LAST_ROUNDS {
            let mut failing = Failing::new(false)?;
            let count = tracker::query(stage, &mut failing, slot, all.clone(), 0, None)
                .with_context(|| format!("the last queries of table {slot}"))?;
            figures.reported += count as u64;
            figures.queries += 1;
        }
    }
    let model = stage.model()?;
    for page in 0..AREA_PAGES {
        model.check_page(page, stage.words(page)?)?;
    }
    for at in (0..stage.beside.len()).step_by(PAGE) {
        ensure!(
            stage.beside.load(at)? == 0,
            "page {} of the memory beside the area was written",
            at / PAGE
        );
    }
    let (writes, tracked) = model.writes();
    figures.writes += writes;
    figures.tracked += tracked;
    Ok(())
}
