// SPDX-License-Identifier: GPL-2.0

//! The only process of the virtual machine that is migrated.
//!
//! It has devices write to memory, writes itself meanwhile, and knows at any time which bytes each page
//! must hold. `vm-migrate` tells it what to do over the second serial port.
//!
//! | module      | subject                                                             |
//! |-------------|---------------------------------------------------------------------|
//! | `commands`  | what can be told, and what it answers                               |
//! | `machine`   | the devices and areas at work                                       |
//! | `function`  | a PCI function that writes                                          |
//! | `processor` | the thread that writes                                              |
//! | `memory`    | what is written to                                                  |
//! | `sys`       | the only `unsafe` code                                              |

mod commands;
mod function;
mod machine;
mod memory;
mod processor;
#[expect(unsafe_code, reason = "memory that a device writes, and calls of vfio")]
mod sys;

use std::{
    convert::Infallible,
    ffi::CStr,
    fs::{
        self,
        File, //
    },
    io::{
        BufRead,
        BufReader,
        Write as _, //
    },
    process::ExitCode, //
};

use anyhow::{
    ensure,
    Context,
    Result, //
};
use rustix::{
    mount::{
        mount,
        MountFlags, //
    },
    system::{
        reboot,
        RebootCommand, //
    },
    termios::{
        tcgetattr,
        tcsetattr,
        ControlModes,
        OptionalActions, //
    },
};
use vm_rule::words::Words;

use crate::machine::Machine;

/// The serial port at which `vm-migrate` is.
const PORT: &str = "/dev/ttyS1";

fn main() -> ExitCode {
    let Err(e) = run();
    // The console is the virtual machine's log.
    eprintln!("vm-guest: {e:#}");
    // The first process may not end: the kernel takes that for a crash. As any other it can.
    if std::process::id() == 1 {
        let _ = reboot(RebootCommand::PowerOff);
    }
    ExitCode::FAILURE
}

/// Does what it is told, as long as there is a serial port.
fn run() -> Result<Infallible> {
    mount_all()?;
    let port = open_port().with_context(|| format!("cannot use {PORT}"))?;
    let mut lines = BufReader::new(port.try_clone()?);
    let mut machine = match Machine::new() {
        Ok(machine) => machine,
        Err(e) => {
            say(&port, &Words::new().with("error", format!("{e:#}")))?;
            return Err(e);
        }
    };
    say(&port, &commands::greeting(&machine)?)?;
    loop {
        let mut line = String::new();
        let read = lines.read_line(&mut line);
        let read = read.with_context(|| format!("cannot read {PORT}"))?;
        ensure!(read > 0, "{PORT} has come to its end");
        if line.trim().is_empty() {
            continue;
        }
        say(&port, &commands::execute(&mut machine, &line))?;
    }
}

fn say(mut port: &File, words: &Words) -> Result<()> {
    port.write_all(format!("{words}\n").as_bytes())
        .with_context(|| format!("cannot write to {PORT}"))
}

/// Mounts what the kernel tells in files.
fn mount_all() -> Result<()> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        fs::create_dir_all(place).with_context(|| format!("cannot make {place}"))?;
        let no_data: Option<&CStr> = None;
        mount(kind, place, kind, MountFlags::empty(), no_data)
            .with_context(|| format!("cannot mount {place}"))?;
    }
    Ok(())
}

/// Opens the serial port and takes everything out of the way of bytes.
fn open_port() -> Result<File> {
    let port = File::options().read(true).write(true).open(PORT)?;
    let mut modes = tcgetattr(&port)?;
    modes.make_raw();
    modes.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
    tcsetattr(&port, OptionalActions::Now, &modes)?;
    Ok(port)
}
