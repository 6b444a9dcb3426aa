// SPDX-License-Identifier: GPL-2.0

//! Migrates a virtual machine while PCI functions that are assigned to it write to its memory.
//!
//! | module      | subject                                                           |
//! |-------------|-------------------------------------------------------------------|
//! | `cli`       | the command line                                                  |
//! | `functions` | the functions of this machine                                     |
//! | `scenario`  | what is shown                                                     |
//! | `migration` | how the virtual machine moves to another QEMU                     |
//! | `stage`     | the virtual machine and its functions at work                     |
//! | `vm`        | a running QEMU, with its command line in `qemu`                   |
//! | `qmp`       | its monitor                                                       |
//! | `guest`     | the program in the virtual machine                                |
//! | `lines`     | what both are talked to with                                      |
//! | `trace`     | what QEMU asked of the IOMMU                                      |
//! | `report`    | what is shown of it                                               |

mod cli;
mod functions;
mod guest;
mod lines;
mod migration;
mod qemu;
mod qmp;
mod report;
mod scenario;
mod stage;
mod trace;
mod vm;

use std::{
    fs,
    process::{
        self,
        ExitCode, //
    },
};

use anyhow::{
    Context,
    Result, //
};
use clap::Parser;

use crate::{
    cli::Options,
    report::{
        Outcome,
        Report, //
    },
};

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(e) => {
            // Help and version come this way too, and are no failure. Nothing can be done about a
            // terminal that does not take the message.
            let _ = e.print();
            return match e.use_stderr() {
                true => ExitCode::FAILURE,
                false => ExitCode::SUCCESS,
            };
        }
    };
    match run_with_logs(options.clone()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            Report::failure(options.json, &format!("{e:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs with a folder for logs, which stays if there is something to read in it.
fn run_with_logs(mut options: Options) -> Result<bool> {
    if options.logs.is_some() {
        return run(&options);
    }
    let logs = options.logs().join(format!("vm-migrate-{}", process::id()));
    // One that exists already is not ours.
    fs::create_dir(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    options.logs = Some(logs.clone());
    match run(&options).with_context(|| format!("logs in {}", logs.display()))? {
        true => fs::remove_dir_all(&logs).map(|()| true).map_err(Into::into),
        false => Ok(false),
    }
}

/// Plays the scenario, and says whether it went as it should.
fn run(options: &Options) -> Result<bool> {
    let sides = functions::choose(&options.device, options.devices()?)?;
    let mut report = Report::new(options);
    let outcome = scenario::play(options, &mut report, sides)?;
    report.verdict(options, &outcome)?;
    Ok(!matches!(outcome, Outcome::Lost(_)))
}
