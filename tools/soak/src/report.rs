// SPDX-License-Identifier: GPL-2.0

//! What is shown: progress, the result, and what fails.

use std::{
    fs,
    time::{
        Duration,
        Instant, //
    },
};

use anyhow::{
    ensure,
    Context,
    Error,
    Result, //
};
use serde_json::json;

use crate::{
    op::Episode,
    run::{
        Figures,
        LAST_QUERIES, //
    },
};

/// How often there is a line, by either clock.
const EVERY: Duration = Duration::from_secs(60);
const EVERY_WALL: u64 = 10;

/// So many episodes make each kind of step dozens of times: too often for all to have no effect.
const ENOUGH: u64 = 3;

/// Counts episodes, and time by both clocks.
pub(crate) struct Report {
    json: bool,
    started: Instant,
    wall_started: Option<u64>,
    last: (Instant, Option<u64>),
    episodes: u64,
    /// Of these, those in which allocations were to fail.
    failing: u64,
    figures: Figures,
}

/// The time of the real-time clock, which is not the machine's in virtual time.
fn wall() -> Option<u64> {
    let text = fs::read_to_string("/sys/class/rtc/rtc0/since_epoch").ok()?;
    text.trim().parse().ok()
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        let (started, wall_started) = (Instant::now(), wall());
        Self {
            json,
            started,
            wall_started,
            last: (started, wall_started),
            episodes: 0,
            failing: 0,
            figures: Figures::default(),
        }
    }

    /// Whether `seconds` have passed by the machine's clock, or `wall_limit` by the other one.
    ///
    /// # Errors
    ///
    /// There is no other one.
    pub(crate) fn is_over(&self, seconds: u64, wall_limit: Option<u64>) -> Result<bool> {
        let over = self.started.elapsed() >= Duration::from_secs(seconds);
        let Some(limit) = wall_limit else {
            return Ok(over);
        };
        let passed = self
            .wall_seconds()
            .context("there is no real-time clock (/sys/class/rtc/rtc0): leave --wall out")?;
        Ok(over || passed >= limit)
    }

    fn wall_seconds(&self) -> Option<u64> {
        Some(wall()?.saturating_sub(self.wall_started?))
    }

    /// An episode is over.
    pub(crate) fn episode(&mut self, episode: &Episode, figures: &Figures) {
        self.episodes += 1;
        self.failing += u64::from(episode.steps.iter().any(|step| step.fail.is_some()));
        self.figures.add(figures);
        let wall = wall();
        let later = match (wall, self.last.1) {
            (Some(now), Some(last)) => now.saturating_sub(last) >= EVERY_WALL,
            _ => false,
        };
        if later || self.last.0.elapsed() >= EVERY {
            self.last = (Instant::now(), wall);
            self.line("soak");
        }
    }

    /// Ensures that the run has shown something.
    ///
    /// # Errors
    ///
    /// Something that episodes consist of has never happened.
    pub(crate) fn ensure_used(&self) -> Result<()> {
        let figures = &self.figures;
        let often = self.episodes >= ENOUGH;
        let queries = figures.queries.saturating_sub(LAST_QUERIES * self.episodes);
        let wanted = [
            (true, figures.tracked, "tracked writes"),
            (true, queries, "queries but the last ones"),
            (true, figures.reported, "reported pages"),
            (true, figures.moves, "moves"),
            (true, figures.mappings, "maps"),
            (often, figures.resets, "resets"),
            (often, figures.interrupts, "interrupts"),
            (self.failing >= ENOUGH, figures.failures, "failed calls"),
        ];
        let missing: Vec<_> = wanted
            .into_iter()
            .filter(|&(needed, number, _)| needed && number == 0)
            .map(|(_, _, what)| what)
            .collect();
        ensure!(
            missing.is_empty(),
            "nothing was found, but there were no {} in {} episodes: such a run shows nothing",
            missing.join(", no "),
            self.episodes
        );
        Ok(())
    }

    /// The last line of a success.
    pub(crate) fn passed(&self) {
        self.line("soak passed");
    }

    fn line(&self, what: &str) {
        let figures = &self.figures;
        let seconds = self.started.elapsed().as_secs_f64();
        if self.json {
            println!(
                "{}",
                json!({
                    "result": if what == "soak" { "running" } else { "passed" },
                    "episodes": self.episodes,
                    "seconds": seconds,
                    "wall_seconds": self.wall_seconds(),
                    "writes": figures.writes,
                    "tracked": figures.tracked,
                    "lost": 0,
                    "queries": figures.queries,
                    "reported": figures.reported,
                    "moves": figures.moves,
                    "mappings": figures.mappings,
                    "resets": figures.resets,
                    "interrupts": figures.interrupts,
                    "failures": figures.failures,
                })
            );
            return;
        }
        println!(
            "{what}: {} episodes in {seconds:.1} s{}, {} writes ({} tracked), 0 lost, {} queries \
             ({} pages reported), {} moves, {} maps, {} resets, {} interrupts, {} calls failed",
            self.episodes,
            self.wall_seconds()
                .map_or_else(String::new, |wall| format!(" (real time {wall} s)")),
            figures.writes,
            figures.tracked,
            figures.queries,
            figures.reported,
            figures.moves,
            figures.mappings,
            figures.resets,
            figures.interrupts,
            figures.failures,
        );
    }

    /// What the episode of a seed has found: shown at once, since the kernel may not survive a
    /// shorter one. `again` are the options that repeat it.
    pub(crate) fn found(&self, seed: u64, again: &str, error: &Error) {
        if self.json {
            self.failure(seed, (error, error), &[], again);
            return;
        }
        println!(
            "FAILED: episode {seed} after {:.1} s: {error:#}",
            self.started.elapsed().as_secs_f64()
        );
        println!("again: iommu-soak {again}");
    }

    /// A failure as JSON: the first error, and that of the shorter sequence of `steps`.
    fn failure(&self, seed: u64, errors: (&Error, &Error), steps: &[String], again: &str) {
        println!(
            "{}",
            json!({
                "result": "failed",
                "episodes": self.episodes,
                "writes": self.figures.writes,
                "episode": seed,
                "first": format!("{:#}", errors.0),
                "error": format!("{:#}", errors.1),
                "steps": steps,
                "again": again,
            })
        );
    }

    /// The shorter sequence: the first error and that of this sequence, how it was found, and the
    /// options that repeat it.
    pub(crate) fn shortened(
        &self,
        episode: &Episode,
        numbers: &[usize],
        errors: (&Error, &Error),
        how: &str,
        again: &str,
    ) {
        let short = episode.only(numbers);
        if self.json {
            let steps: Vec<_> = short.steps.iter().map(ToString::to_string).collect();
            self.failure(episode.seed, errors, &steps, again);
            return;
        }
        println!(
            "{} of {} steps are enough ({how}); leaves {:?}, split={}, {} writes/s to {} pages{}{}:",
            numbers.len(),
            episode.steps.len(),
            episode.leaf,
            episode.split,
            episode.rate,
            episode.span,
            if episode.signals { ", signals" } else { "" },
            if episode.replug {
                ", replugged before"
            } else {
                ""
            },
        );
        for step in &short.steps {
            println!("  {step}");
        }
        println!("then: {:#}", errors.1);
        println!("again: iommu-soak {again}");
        println!(
            "soak failed: episode {}, after {} episodes and {} writes: {:#}",
            episode.seed, self.episodes, self.figures.writes, errors.0
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures of an episode in which everything has happened.
    const ALL: Figures = Figures {
        writes: 9,
        tracked: 8,
        queries: LAST_QUERIES + 1,
        reported: 6,
        moves: 5,
        mappings: 4,
        resets: 3,
        interrupts: 2,
        failures: 1,
    };

    fn after(episode: &Episode, count: u64, figures: Figures) -> bool {
        let mut report = Report::new(true);
        for _ in 0..count {
            report.episode(episode, &figures);
        }
        report.ensure_used().is_ok()
    }

    #[test]
    fn a_run_without_effect_does_not_pass() {
        let quiet = Episode::first_use();
        assert!(after(&quiet, 1, ALL) && after(&quiet, ENOUGH, ALL));
        assert!(!after(&quiet, 0, ALL));
        assert!(!after(&quiet, 1, Figures { tracked: 0, ..ALL }));
        assert!(!after(
            &quiet,
            1,
            Figures {
                queries: LAST_QUERIES,
                ..ALL
            }
        ));
        assert!(!after(&quiet, 1, Figures { reported: 0, ..ALL }));
        assert!(!after(&quiet, ENOUGH, Figures { resets: 0, ..ALL }));
        assert!(!after(
            &quiet,
            ENOUGH,
            Figures {
                interrupts: 0,
                ..ALL
            }
        ));
        // No allocation was to fail.
        assert!(after(&quiet, ENOUGH, Figures { failures: 0, ..ALL }));
        let none = Figures { failures: 0, ..ALL };
        let failing = (0..)
            .map(|seed| Episode::new(seed, false, 1))
            .find(|episode| episode.steps.iter().any(|step| step.fail.is_some()));
        assert!(failing.is_some_and(|episode| {
            after(&episode, ENOUGH - 1, none) && !after(&episode, ENOUGH, none)
        }));
    }
}
