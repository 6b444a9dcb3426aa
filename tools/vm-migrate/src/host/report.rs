// SPDX-License-Identifier: GPL-2.0

//! What the user sees.

use std::{
    error::Error,
    fmt,
    io::{
        self,
        Write as _, //
    },
    time::Duration, //
};

use anyhow::Result;
use indicatif::{
    HumanBytes,
    ProgressBar,
    ProgressDrawTarget,
    ProgressStyle, //
};
use serde_json::{
    json,
    Value, //
};
use vm_rule::rule::PAGE_SIZE;

use crate::{
    cli::{
        show_size,
        Options,
        Progress, //
    },
    functions::Sides,
    guest::Check,
    qmp::Migration,
    trace::Trace,
};

/// Bytes of one write by a function.
const WRITE: u64 = 16;

/// Figures of one migration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// As QEMU sees it in the end.
    pub(crate) migration: Migration,
    /// What it asked of the IOMMU.
    pub(crate) trace: Trace,
    /// Writes by the functions between its begin and its end.
    pub(crate) writes: u64,
}

impl Figures {
    /// Bytes reported dirty by IOMMUs for each byte that the functions wrote.
    fn amplification(&self) -> f64 {
        // CAST: These numbers are far below 2^52.
        (self.trace.pages * PAGE_SIZE as u64) as f64 / (self.writes.max(1) * WRITE) as f64
    }
}

/// A guest's memory is not what it must be.
#[derive(Clone, Debug)]
pub(crate) struct Lost(pub(crate) Check);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pages differ", self.0.different)
    }
}

impl Error for Lost {}

/// How it ended.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// It was migrated, and compared.
    Migrated(Check),
    /// It was compared, and is not the same.
    Lost(Check),
    /// QEMU did not migrate, as it should not, and says why.
    Blocked(String),
}

/// Shows migrations as they go, or collects them for one JSON document.
pub(crate) struct Report {
    json: bool,
    bar: ProgressBar,
    figures: Vec<Figures>,
    notes: Vec<String>,
}

/// Prints a line. That nothing reads the output any more is no reason to stop.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
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
        let style = ProgressStyle::with_template("{spinner} {msg}");
        let bar = ProgressBar::with_draw_target(None, target)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self {
            json: options.json,
            bar,
            figures: vec![],
            notes: vec![],
        }
    }

    fn line(&self, line: &str) {
        if !self.json {
            self.bar.suspend(|| say(line));
        }
    }

    /// Says what is going to be migrated.
    ///
    /// # Errors
    ///
    /// The options do not go together.
    pub(crate) fn heading(&self, options: &Options, sides: &Sides) -> Result<()> {
        let behind = match &options.iommu {
            Some(name) => format!(" behind {name}"),
            None => String::new(),
        };
        let via = if options.container {
            "the type1 container"
        } else {
            "iommufd"
        };
        let [source, destination] = sides.each_ref().map(|side| side.join(" and "));
        self.line(&format!(
            "VM of {} on {} pages, by {via}{behind}; source {source}, destination {destination}; seed {}",
            show_size(options.memory()?),
            options.page_size.name(),
            options.seed
        ));
        Ok(())
    }

    /// Says what else happens.
    pub(crate) fn note(&mut self, text: &str) {
        self.line(&format!("      {text}"));
        self.notes.push(text.into());
    }

    /// A migration begins.
    pub(crate) fn begin(&self, source: &str, destination: &str) {
        self.line(&format!("{source} to {destination}"));
        self.line("pass     time       sent  remaining    dirty/s    devices   reported");
        self.bar.reset();
    }

    /// How it stands.
    pub(crate) fn progress(&self, now: &Migration, time: Duration, reported: u64) {
        self.bar.set_message(row(now, time, reported));
        self.bar.tick();
    }

    /// A pass over the memory is done.
    pub(crate) fn pass(&self, now: &Migration, time: Duration, reported: u64) {
        self.line(&row(now, time, reported));
    }

    /// A migration has ended well.
    pub(crate) fn end(&mut self, figures: Figures) {
        self.bar.finish_and_clear();
        self.line(&format!(
            "      {} ms, downtime {} ms, {} pages sent, {} reported by IOMMUs in {} queries: \
             {:.0} bytes for each byte written",
            figures.migration.total_time,
            figures.migration.downtime,
            figures.migration.ram.normal,
            figures.trace.pages,
            figures.trace.queries,
            figures.amplification()
        ));
        self.figures.push(figures);
    }

    /// Says how all of it ended, in one line.
    ///
    /// # Errors
    ///
    /// The options do not go together.
    pub(crate) fn verdict(&self, options: &Options, outcome: &Outcome) -> Result<()> {
        self.bar.finish_and_clear();
        match self.json {
            true => say(&document(options, &self.figures, &self.notes, outcome)?.to_string()),
            false => say(&sentence(options, &self.figures, outcome)?),
        }
        Ok(())
    }

    /// Says that it could not be done.
    pub(crate) fn failure(json: bool, message: &str) {
        if json {
            say(&json!({ "result": "error", "error": message }).to_string());
        } else {
            let _ = writeln!(io::stderr(), "vm-migrate: {message}");
        }
    }
}

/// A line of the table.
fn row(now: &Migration, time: Duration, reported: u64) -> String {
    let bytes = |n| HumanBytes(n).to_string();
    let page = PAGE_SIZE as u64;
    format!(
        "{:>4} {:>6.2} s {:>10} {:>10} {:>10} {:>10} {:>10}",
        now.ram.dirty_sync_count,
        time.as_secs_f64(),
        bytes(now.ram.transferred),
        bytes(now.ram.remaining),
        bytes(now.ram.dirty_pages_rate * page),
        bytes(now.vfio.transferred),
        bytes(reported * page)
    )
}

/// The last line.
fn sentence(options: &Options, figures: &[Figures], outcome: &Outcome) -> Result<String> {
    let (word, check) = match outcome {
        Outcome::Migrated(check) => ("migrated", check),
        Outcome::Lost(check) => ("not migrated", check),
        Outcome::Blocked(message) => return Ok(format!("blocked: {message}")),
    };
    let count = options.devices()?;
    let (devices, writers) = match count {
        1 => ("1 device".into(), "device"),
        _ => (format!("{count} devices"), "devices"),
    };
    let rounds: u64 = figures
        .iter()
        .map(|f| f.migration.ram.dirty_sync_count)
        .sum();
    let downtime = figures
        .iter()
        .map(|f| f.migration.downtime)
        .max()
        .unwrap_or(0);
    let (rounds, downtime) = match figures.len() {
        0 | 1 => (
            format!("{rounds} rounds"),
            format!("downtime {downtime} ms"),
        ),
        n => (
            format!("{rounds} rounds in {n} migrations"),
            format!("downtime at most {downtime} ms"),
        ),
    };
    let memory = match &check.first {
        Some(first) => format!("memory differs: {first}"),
        None => "memory identical".into(),
    };
    Ok(format!(
        "{word}: VM of {}, {devices}, {rounds}, {downtime}, {} writes by the {writers}, {} lost, \
         {memory}",
        show_size(options.memory()?),
        check.writes,
        check.different
    ))
}

/// Everything, for programs.
fn document(
    options: &Options,
    figures: &[Figures],
    notes: &[String],
    outcome: &Outcome,
) -> Result<Value> {
    let migrations: Vec<_> = figures
        .iter()
        .map(|f| {
            json!({
                "rounds": f.migration.ram.dirty_sync_count,
                "pages_sent": f.migration.ram.normal,
                "sent": f.migration.ram.transferred,
                "vfio": f.migration.vfio.transferred,
                "time_ms": f.migration.total_time,
                "setup_ms": f.migration.setup_time,
                "downtime_ms": f.migration.downtime,
                "queries": f.trace.queries,
                "pages_reported": f.trace.pages,
                "writes": f.writes,
                "bytes_reported_for_each_written": f.amplification(),
            })
        })
        .collect();
    let (result, check, message) = match outcome {
        Outcome::Migrated(check) => ("migrated", Some(check), None),
        Outcome::Lost(check) => ("not migrated", Some(check), None),
        Outcome::Blocked(message) => ("blocked", None, Some(message)),
    };
    let check = check.map(|check| {
        json!({
            "writes": check.writes,
            "writes_by_the_processor": check.processor,
            "interrupts": check.interrupts,
            "pages_compared": check.pages,
            "pages_different": check.different,
            "first_difference": check.first,
        })
    });
    Ok(json!({
        "result": result,
        "sentence": sentence(options, figures, outcome)?,
        "message": message,
        "iommu": options.iommu,
        "memory": options.memory()?,
        "page_size": options.page_size.name(),
        "devices": options.devices()?,
        "container": options.container,
        "rate": options.rate,
        "span": options.span,
        "seed": options.seed,
        "migrations": migrations,
        "notes": notes,
        "guest": check,
    }))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::qmp::{
        Ram,
        Vfio, //
    };

    fn figures(rounds: u64, downtime: u64) -> Figures {
        Figures {
            migration: Migration {
                ram: Ram {
                    dirty_sync_count: rounds,
                    transferred: 5 << 20,
                    remaining: 4096,
                    normal: 100,
                    dirty_pages_rate: 2,
                },
                vfio: Vfio { transferred: 65760 },
                downtime,
                ..Migration::default()
            },
            trace: Trace {
                pages: 1024,
                queries: 7,
                ..Trace::default()
            },
            writes: 512,
        }
    }

    fn check() -> Check {
        Check {
            writes: 12345,
            interrupts: 3,
            ..Check::default()
        }
    }

    fn said(words: &[&str], figures: &[Figures], outcome: &Outcome) -> Result<String> {
        let options = Options::try_parse_from([&["vm-migrate"], words].concat())?;
        let document = document(&options, figures, &[], outcome)?;
        let sentence = sentence(&options, figures, outcome)?;
        assert_eq!(document["sentence"], sentence);
        Ok(sentence)
    }

    #[test]
    fn success_is_one_known_line() -> Result<()> {
        let outcome = Outcome::Migrated(check());
        assert_eq!(
            said(&[], &[figures(9, 75)], &outcome)?,
            "migrated: VM of 256M, 1 device, 9 rounds, downtime 75 ms, 12345 writes by the device, \
             0 lost, memory identical"
        );
        assert_eq!(
            said(
                &["--devices", "2"],
                &[figures(9, 75), figures(8, 80)],
                &outcome
            )?,
            "migrated: VM of 256M, 2 devices, 17 rounds in 2 migrations, downtime at most 80 ms, \
             12345 writes by the devices, 0 lost, memory identical"
        );
        Ok(())
    }

    #[test]
    fn failure_names_the_first_page() -> Result<()> {
        let lost = Check {
            different: 3,
            first: Some("page 2 at 0x4002000".into()),
            ..check()
        };
        let line = said(&[], &[figures(9, 75)], &Outcome::Lost(lost))?;
        assert!(line.starts_with("not migrated: VM of 256M"), "{line}");
        assert!(
            line.ends_with("3 lost, memory differs: page 2 at 0x4002000"),
            "{line}"
        );
        Ok(())
    }

    #[test]
    fn what_blocks_is_quoted() -> Result<()> {
        let line = said(&[], &[], &Outcome::Blocked("0000:00:0c.0: no".into()))?;
        assert_eq!(line, "blocked: 0000:00:0c.0: no");
        Ok(())
    }

    #[test]
    fn a_row_fits_a_console() {
        let now = figures(12, 0).migration;
        let row = row(&now, Duration::from_millis(61234), 70000);
        assert!(
            row.len() < 80 && row.starts_with("  12  61.23 s   5.00 MiB"),
            "{row}"
        );
    }

    #[test]
    fn reported_bytes_are_set_against_written_ones() {
        assert!((figures(1, 1).amplification() - 512.0).abs() < 1e-9);
    }
}
