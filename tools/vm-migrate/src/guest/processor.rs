// SPDX-License-Identifier: GPL-2.0

//! The thread that writes as the processor does: to the middle of pages drawn from a seed, beside what
//! devices write to their start.

use std::{
    io,
    sync::{
        Arc,
        Mutex,
        MutexGuard,
        PoisonError, //
    },
    thread,
    time::Duration, //
};

use vm_rule::{
    area::Writer,
    rule::Rule, //
};

use crate::memory::Pages;

/// How often it writes: so many writes at once as the rate asks for.
const TICK: Duration = Duration::from_millis(2);

/// What it writes to.
struct Job {
    pages: Arc<Pages>,
    rule: Rule,
    /// The last write.
    number: u64,
}

struct State {
    /// Whether it writes nothing for now.
    paused: bool,
    /// Writes in a second, to all areas together.
    rate: u64,
    jobs: Vec<Option<Job>>,
    /// Whose turn it is.
    turn: usize,
    /// What went wrong in the thread.
    error: Option<String>,
}

/// The processor as a writer.
pub(crate) struct Processor(Arc<Mutex<State>>);

impl Processor {
    /// Starts the thread, paused.
    ///
    /// # Errors
    ///
    /// There is no thread to be had.
    pub(crate) fn start() -> io::Result<Self> {
        let state = Arc::new(Mutex::new(State {
            paused: true,
            rate: 0,
            jobs: vec![],
            turn: 0,
            error: None,
        }));
        let shared = Arc::clone(&state);
        thread::Builder::new()
            .name("processor".into())
            .spawn(move || loop {
                thread::sleep(TICK);
                let mut state = lock(&shared);
                if !state.paused {
                    if let Err(e) = state.write() {
                        state.error = Some(e.to_string());
                        state.paused = true;
                    }
                }
            })?;
        Ok(Self(state))
    }

    /// Adds an area, as number `index`.
    pub(crate) fn add(&self, index: usize, pages: Arc<Pages>, rule: Rule) {
        let mut state = lock(&self.0);
        if state.jobs.len() <= index {
            state.jobs.resize_with(index + 1, || None);
        }
        if let Some(job) = state.jobs.get_mut(index) {
            *job = Some(Job {
                pages,
                rule,
                number: 0,
            });
        }
    }

    /// Forgets an area, and returns the number of its last write.
    pub(crate) fn remove(&self, index: usize) -> u64 {
        let mut state = lock(&self.0);
        let job = state.jobs.get_mut(index).and_then(Option::take);
        job.map_or(0, |job| job.number)
    }

    /// The number of the last write to an area.
    ///
    /// # Errors
    ///
    /// The thread has failed.
    pub(crate) fn number(&self, index: usize) -> io::Result<u64> {
        let state = lock(&self.0);
        if let Some(error) = &state.error {
            return Err(io::Error::other(format!("the processor's writes: {error}")));
        }
        let job = state.jobs.get(index).and_then(Option::as_ref);
        Ok(job.map_or(0, |job| job.number))
    }

    /// Writes, so many times a second.
    pub(crate) fn run(&self, rate: u64) {
        let mut state = lock(&self.0);
        state.rate = rate;
        state.paused = false;
    }

    /// Stops writing; no write is under way when it returns. Returns the rate that it had.
    pub(crate) fn pause(&self) -> u64 {
        let mut state = lock(&self.0);
        state.paused = true;
        state.rate
    }
}

/// Takes the lock. A thread that died while it had it has left numbers that the comparing will doubt.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Makes the writes of one tick, to the areas in turn.
    fn write(&mut self) -> io::Result<()> {
        // CAST: A tick has a few milliseconds.
        let writes = (self.rate * TICK.as_millis() as u64).div_ceil(1000);
        for _ in 0..writes {
            self.turn = (self.turn + 1) % self.jobs.len().max(1);
            if let Some(Some(job)) = self.jobs.get_mut(self.turn) {
                job.number += 1;
                job.pages.store(
                    job.rule.page(job.number),
                    Writer::Processor.word(),
                    job.rule.words(job.number),
                )?;
            }
        }
        Ok(())
    }
}
