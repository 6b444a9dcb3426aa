// SPDX-License-Identifier: GPL-2.0

//! What the user sees.

use std::{
    io::{
        self,
        Write as _, //
    },
    time::Duration, //
};

use indicatif::{
    ProgressBar,
    ProgressDrawTarget,
    ProgressStyle, //
};
use serde_json::{
    json,
    Value, //
};

use crate::{
    cli::{
        show_size,
        Options,
        Progress, //
    },
    function::Function,
    rounds::{
        Observer,
        Outcome,
        Round, //
    },
    strip::strip,
    PAGE_SIZE, //
};

/// Characters of the strip picture: what is left of 80 columns, less one, in which a console wraps.
const STRIP: usize = 35;

/// What is migrated, for the heading.
pub(crate) struct Subject<'a> {
    pub(crate) function: &'a Function,
    /// Name of the IOMMU in sysfs.
    pub(crate) iommu: String,
    /// The IOVAs that the memory is mapped at.
    pub(crate) places: &'a [u64],
    pub(crate) size: usize,
}

/// Shows a migration as it goes, or collects it for one JSON document.
pub(crate) struct Report {
    json: bool,
    bar: ProgressBar,
}

/// Prints a line. The migration goes on if the reader of the output has closed it.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A duration in at most eight characters.
fn show_time(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

impl Report {
    /// Chooses how to show things.
    pub(crate) fn new(options: &Options) -> Self {
        let terminal = console::Term::stderr();
        let live = match options.progress {
            Progress::Live => true,
            Progress::Plain => false,
            // A serial console is a terminal too, but one that does not know its size.
            Progress::Auto => terminal.is_term() && terminal.size_checked().is_some(),
        };
        let target = match live && !options.json {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let style =
            ProgressStyle::with_template("{prefix:>5} {bar:40} {pos}/{len} pages, {elapsed}");
        let bar = ProgressBar::with_draw_target(None, target)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self {
            json: options.json,
            bar,
        }
    }

    fn line(&self, line: &str) {
        if !self.json {
            say(line);
        }
    }

    /// Says what is going to be migrated.
    pub(crate) fn heading(&self, options: &Options, subject: &Subject<'_>) {
        let places: Vec<_> = subject
            .places
            .iter()
            .map(|iova| format!("{iova:#x}"))
            .collect();
        self.line(&format!(
            "{} ({}) behind {}: {} in {} leaves at IOVA {}, seed {}",
            subject.function.name,
            subject.function.model.name,
            subject.iommu,
            show_size(subject.size as u64),
            options.page_size.name(),
            places.join(" and "),
            options.seed
        ));
        self.line("round  written   dirty  copied     time  where the dirty pages are");
    }

    /// Says how it ended, in one line.
    pub(crate) fn verdict(&self, options: &Options, subject: &Subject<'_>, outcome: &Outcome) {
        if self.json {
            say(&document(options, subject, outcome).to_string());
        } else {
            say(&format!(
                "{} writes by the device, {} of them while tracked; it stood still for {}",
                outcome.writes,
                outcome.writes_tracked,
                show_time(outcome.downtime)
            ));
            let first = subject.places.first().copied().unwrap_or(0);
            say(&sentence(first, outcome));
        }
    }

    /// Says that it could not be done.
    pub(crate) fn failure(json: bool, message: &str) {
        if json {
            say(&json!({ "result": "error", "error": message }).to_string());
        } else {
            let _ = writeln!(io::stderr(), "iommu-migrate: {message}");
        }
    }
}

impl Observer for Report {
    fn wait(&mut self, limit: Duration) {
        self.line(&format!(
            "    1  the device has written nothing yet while tracked: waiting for it, at most {}",
            show_time(limit)
        ));
    }

    fn begin(&mut self, round: usize, pages: usize) {
        self.bar.reset();
        self.bar.set_length(pages as u64);
        self.bar.set_prefix(round.to_string());
    }

    fn progress(&mut self, copied: usize) {
        self.bar.set_position(copied as u64);
    }

    fn end(&mut self, round: &Round) {
        self.bar.finish_and_clear();
        let (written, dirty, picture) = match round.number {
            0 => ("-".into(), "-".into(), "(everything)".into()),
            _ => (
                round.written.to_string(),
                round.reported.to_string(),
                strip(&round.dirty, STRIP),
            ),
        };
        self.line(&format!(
            "{:>5} {written:>8} {dirty:>7} {:>7} {:>8}  {picture}",
            round.number,
            round.copied,
            show_time(round.time)
        ));
    }
}

/// The last line.
fn sentence(iova: u64, outcome: &Outcome) -> String {
    let place = |page: usize| format!("page {page}, IOVA {:#x}", iova + (page * PAGE_SIZE) as u64);
    let mut lost = format!("{} lost", outcome.lost.len());
    if let Some(&page) = outcome.lost.first() {
        lost += &format!(" (first: {})", place(page));
    }
    let memory = match &outcome.difference {
        None => "memory identical".to_string(),
        Some(d) => format!(
            "memory differs in {} pages, first in {}, byte {}: {:#04x} was copied as {:#04x}",
            outcome.different,
            place(d.page),
            d.byte,
            d.memory,
            d.copy
        ),
    };
    let nothing = match outcome.writes_tracked {
        0 => format!(
            "; the device wrote nothing while tracking was on, {} of waiting included: look for \
             what holds it up, or use a higher --rate",
            show_time(outcome.waited)
        ),
        _ => String::new(),
    };
    format!(
        "{}: {} rounds, {} pages copied, {} dirty pages reported, {lost}, {memory}{nothing}",
        if outcome.is_good() {
            "migrated"
        } else {
            "not migrated"
        },
        outcome.rounds.len(),
        outcome.copied(),
        outcome.reported(),
    )
}

/// Everything, for programs. Times are in milliseconds.
fn document(options: &Options, subject: &Subject<'_>, outcome: &Outcome) -> Value {
    let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let rounds: Vec<_> = outcome
        .rounds
        .iter()
        .map(|r| {
            json!({
                "round": r.number,
                "device_stopped": r.last,
                "written": r.written,
                "dirty": r.reported,
                "extra": r.extra,
                "copied": r.copied,
                "query_ms": ms(r.query),
                "time_ms": ms(r.time),
                "strip": if r.number > 0 { strip(&r.dirty, STRIP) } else { String::new() },
            })
        })
        .collect();
    let difference = outcome
        .difference
        .as_ref()
        .map(|d| json!({ "page": d.page, "byte": d.byte, "memory": d.memory, "copy": d.copy }));
    json!({
        "result": if outcome.is_good() { "migrated" } else { "not migrated" },
        "device": subject.function.name,
        "model": subject.function.model.name,
        "iommu": subject.iommu,
        "iova": subject.places.first(),
        "more_iovas": subject.places.get(1..),
        "size": subject.size,
        "page_size": options.page_size.bytes(),
        "seed": options.seed,
        "threshold": options.threshold,
        "bandwidth": options.bandwidth,
        "rate": options.rate,
        "writes": outcome.writes,
        "writes_while_tracking": outcome.writes_tracked,
        "rounds": rounds,
        "pages_copied": outcome.copied(),
        "dirty_pages_reported": outcome.reported(),
        "lost": outcome.lost,
        "pages_different": outcome.different,
        "first_difference": difference,
        "waited_ms": ms(outcome.waited),
        "downtime_ms": ms(outcome.downtime),
        "time_ms": ms(outcome.time),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bitmap_of,
        rounds::Difference, //
    };

    fn outcome() -> Outcome {
        let round = |number, reported, copied| Round {
            number,
            last: number == 1,
            dirty: bitmap_of(64, []),
            reported,
            written: reported,
            extra: 0,
            copied,
            query: Duration::ZERO,
            time: Duration::ZERO,
        };
        Outcome {
            rounds: vec![round(0, 0, 64), round(1, 5, 5)],
            lost: vec![],
            different: 0,
            difference: None,
            writes: 20,
            writes_tracked: 10,
            waited: Duration::ZERO,
            downtime: Duration::ZERO,
            time: Duration::ZERO,
        }
    }

    #[test]
    fn success_is_one_known_line() {
        assert_eq!(
            sentence(0x1000, &outcome()),
            "migrated: 2 rounds, 69 pages copied, 5 dirty pages reported, 0 lost, memory identical"
        );
    }

    #[test]
    fn failure_names_the_first_page() {
        let mut o = outcome();
        o.lost = vec![2];
        assert!(sentence(0x1000, &o).starts_with("not migrated: 2 rounds"));
        assert!(
            sentence(0x1000, &o).contains("1 lost (first: page 2, IOVA 0x3000), memory identical")
        );
        o.different = 3;
        o.difference = Some(Difference {
            page: 1,
            byte: 9,
            memory: 0xab,
            copy: 0,
        });
        assert!(sentence(0x1000, &o).ends_with(
            "memory differs in 3 pages, first in page 1, IOVA 0x2000, byte 9: 0xab was copied as 0x00"
        ));
    }

    #[test]
    fn nothing_written_is_a_failure() {
        let mut o = outcome();
        o.writes_tracked = 0;
        o.waited = Duration::from_secs(20);
        let said = sentence(0, &o);
        assert!(said.starts_with("not migrated"), "{said}");
        assert!(said.contains("20.00 s of waiting"), "{said}");
    }
}
