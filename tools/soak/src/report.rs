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
    Context,
    Error,
    Result, //
};
use serde_json::json;

use crate::{
    op::Episode,
    run::Figures, //
};

/// How often there is a line, by either clock.
const EVERY: Duration = Duration::from_secs(60);
const EVERY_WALL: u64 = 10;

/// Counts episodes, and time by both clocks.
pub(crate) struct Report {
    json: bool,
    started: Instant,
    wall_started: Option<u64>,
    last: (Instant, Option<u64>),
    episodes: u64,
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
    pub(crate) fn episode(&mut self, figures: &Figures) {
        self.episodes += 1;
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

    /// What an episode has found.
    pub(crate) fn found(&self, episode: &Episode, error: &Error) {
        if !self.json {
            println!(
                "FAILED: episode {} after {:.1} s: {error:#}",
                episode.seed,
                self.started.elapsed().as_secs_f64()
            );
        }
    }

    /// The shorter sequence, and how to repeat it.
    pub(crate) fn shortened(
        &self,
        episode: &Episode,
        options: &str,
        numbers: &[usize],
        error: &Error,
        how: &str,
    ) {
        let short = episode.only(numbers);
        let list: Vec<_> = numbers.iter().map(usize::to_string).collect();
        let again = format!(
            "iommu-soak --episode {}{options} --keep {}",
            episode.seed,
            list.join(",")
        );
        if self.json {
            let steps: Vec<_> = short.steps.iter().map(ToString::to_string).collect();
            println!(
                "{}",
                json!({
                    "result": "failed",
                    "episodes": self.episodes,
                    "writes": self.figures.writes,
                    "seed": episode.seed,
                    "error": format!("{error:#}"),
                    "steps": steps,
                    "again": again,
                })
            );
            return;
        }
        println!(
            "{} of {} steps are enough ({how}); leaves {:?}, {} writes/s to {} pages{}{}:",
            numbers.len(),
            episode.steps.len(),
            episode.leaf,
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
        println!("then: {error:#}");
        println!("again: {again}");
        println!(
            "soak failed: seed {}, after {} episodes and {} writes",
            episode.seed, self.episodes, self.figures.writes
        );
    }
}
