// SPDX-License-Identifier: GPL-2.0

//! Migrates a virtual machine while PCI functions that are assigned to it write to its memory.
//!
//! | module      | subject                                                           |
//! |-------------|-------------------------------------------------------------------|
//! | `cli`       | the command line                                                  |
//! | `functions` | the functions of this machine                                     |
//! | `scenario`  | what is shown                                                     |
//! | `stage`     | the virtual machine as it goes from one QEMU to the next          |
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
mod qemu;
mod qmp;
mod report;
mod scenario;
mod stage;
mod trace;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
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
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            Report::failure(options.json, &format!("{e:#}"));
            ExitCode::FAILURE
        }
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
