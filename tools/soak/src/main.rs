// SPDX-License-Identifier: GPL-2.0

//! Uses an IOMMU at random and from several sides at once, and holds each report of dirty pages
//! against a model.
//!
//! | module     | subject                                                             |
//! |------------|---------------------------------------------------------------------|
//! | `cli`      | the command line                                                    |
//! | `op`       | what can happen, and a sequence of it that follows from a seed      |
//! | `model`    | what must and what may be reported                                  |
//! | `stage`    | what a sequence plays with, `writer` and `function`: the devices    |
//! | `run`      | the threads that play it, `failing`: allocations that fail          |
//! | `split`    | whether the driver splits leaves                                    |
//! | `leaks`    | what must not be left                                               |
//! | `shorten`  | a sequence that fails made shorter                                  |
//! | `report`   | what is shown                                                       |
//! | `sys`      | the only `unsafe` code                                              |

mod bits;
mod cli;
mod failing;
mod function;
mod leaks;
mod model;
mod op;
mod random;
mod report;
mod run;
mod shorten;
mod split;
mod stage;
#[expect(
    unsafe_code,
    reason = "memory that a device writes, ioctls and signals"
)]
mod sys;
mod writer;

use std::{
    process::ExitCode,
    time::{
        Duration,
        Instant, //
    },
};

use anyhow::{
    ensure,
    Error,
    Result, //
};
use clap::Parser;

use crate::{
    cli::Options,
    function::Function,
    op::{
        Episode,
        WRITERS, //
    },
    random::mix,
    report::Report,
    run::{
        play,
        use_once,
        Functions,
        PASID_IDS, //
    },
    shorten::shorten,
    sys::signal, //
};

/// How often a shorter sequence may pass before it counts as one that does.
const TRIES: usize = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("iommu-soak: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Sets up, plays and gives everything back; says whether all passed.
fn run(options: &Options) -> Result<bool> {
    let writers = Function::all(writer::IDS.0, writer::IDS.1)?;
    ensure!(
        writers.len() >= WRITERS,
        "there are {} page writers (1234:11f1), and {WRITERS} are needed",
        writers.len()
    );
    let functions = Functions {
        writers: writers.into_iter().take(WRITERS).collect(),
        pasids: Function::all(PASID_IDS.0, PASID_IDS.1)?.into_iter().next(),
    };
    ensure!(
        functions.pasids.is_some() || !options.pasids,
        "there is no function that has PASIDs (pasid-dma, 1234:11ef), and --pasids was given"
    );
    if functions.pasids.is_none() && !options.json {
        println!("soak: no function has PASIDs (pasid-dma, 1234:11ef): no steps by PASID");
    }
    failing::set_up()?;
    signal::catch()?;
    let all = || functions.writers.iter().chain(&functions.pasids);
    all().try_for_each(Function::bind)?;
    let loaded = split::parameter()?;
    let passed = soak(options, &functions);
    if let Some(loaded) = loaded {
        split::choose(loaded)?;
    }
    all().try_for_each(Function::unbind)?;
    passed
}

fn soak(options: &Options, functions: &Functions) -> Result<bool> {
    let pasids = functions.pasids.is_some();
    use_once(functions)?;
    let mut report = Report::new(options.json);
    if let Some(seed) = options.episode {
        let whole = options.episode_of(seed, pasids);
        let episode = match options.keep.as_slice() {
            [] => whole,
            numbers => whole.only(numbers),
        };
        return match play(&episode, functions) {
            Ok(figures) => {
                report.episode(&episode, &figures);
                report.passed();
                Ok(true)
            }
            Err(e) => {
                report.found(seed, &options.repeat(seed, &options.keep), &e);
                Ok(false)
            }
        };
    }
    let mut number = 0;
    while number == 0 || !report.is_over(options.seconds, options.wall)? {
        let seed = mix(options.seed.wrapping_add(number));
        let episode = options.episode_of(seed, pasids);
        match play(&episode, functions) {
            Ok(figures) => report.episode(&episode, &figures),
            Err(e) => {
                report.found(seed, &options.repeat(seed, &[]), &e);
                explain(&episode, functions, options, &report, &e);
                return Ok(false);
            }
        }
        number += 1;
    }
    report.ensure_used()?;
    report.passed();
    Ok(true)
}

/// Makes what fails shorter, and shows it. A shorter sequence may fail with another error than
/// `first`.
fn explain(
    episode: &Episode,
    functions: &Functions,
    options: &Options,
    report: &Report,
    first: &Error,
) {
    let (begun, limit) = (Instant::now(), Duration::from_secs(options.shorten));
    let mut last = None;
    let fails = |numbers: &[usize]| {
        (0..TRIES).any(|_| match play(&episode.only(numbers), functions) {
            Ok(_) => false,
            Err(e) => {
                last = Some(e);
                true
            }
        })
    };
    let (numbers, tries) = shorten(episode.steps.len(), fails, || begun.elapsed() >= limit);
    let how = match begun.elapsed() >= limit {
        true => format!("{tries} shorter ones tried, and no more time"),
        false => format!("{tries} shorter ones tried"),
    };
    let errors = (first, last.as_ref().unwrap_or(first));
    let again = options.repeat(episode.seed, &numbers);
    report.shortened(episode, &numbers, errors, &how, &again);
}
