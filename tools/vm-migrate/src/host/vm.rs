// SPDX-License-Identifier: GPL-2.0

//! A running QEMU with its monitor and its guest.

use std::{
    fs::{
        self,
        File, //
    },
    io,
    os::unix::process::{
        CommandExt,
        ExitStatusExt, //
    },
    path::Path,
    process::{
        Child,
        Command,
        ExitStatus,
        Stdio, //
    },
    thread,
    time::{
        Duration,
        Instant, //
    },
};

use anyhow::{
    bail,
    ensure,
    Context,
    Result, //
};
use rustix::process::{
    set_parent_process_death_signal,
    Signal, //
};

use crate::{
    cli::Options,
    guest::Guest,
    lines::Lines,
    qemu::{
        arguments,
        Files,
        Plugged, //
    },
    qmp::{
        Qmp,
        QueryMigrate,
        QueryStatus, //
    },
    trace::Trace,
};

/// How long QEMU may take until it can be talked to, and to end.
const START: Duration = Duration::from_secs(60);
const END: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// How often a processor is looked at that may stand still.
const PROCESSOR_LOOKS: usize = 3;
/// Bytes of a log that are shown when something went wrong.
const TAIL: usize = 2000;

/// A QEMU, which ends with this value.
pub(crate) struct Vm {
    /// What it is called in messages and names of files.
    pub(crate) name: String,
    pub(crate) qmp: Qmp,
    pub(crate) guest: Guest,
    process: Process,
    files: Files,
}

/// A child, which is killed and waited for when this value goes.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already takes no signal, and is waited for all the same.
        let _ = self.0.kill();
        if let Err(e) = self.ended(END) {
            eprintln!("vm-migrate: process {}: {e:#}", self.0.id());
        }
    }
}

impl Process {
    /// Starts QEMU.
    #[expect(unsafe_code, reason = "what a child does before QEMU begins")]
    fn start(qemu: &Path, words: &[String], errors: File) -> io::Result<Self> {
        let mut command = Command::new(qemu);
        command
            .args(words)
            .stdin(Stdio::null())
            .stdout(errors.try_clone()?)
            .stderr(errors);
        // SAFETY: The closure makes one system call: nothing in it depends on other threads, which
        // the child does not have, or allocates memory.
        unsafe {
            // A program that is killed takes its virtual machines along.
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        command.spawn().map(Self)
    }

    /// Fails if it has ended.
    fn alive(&mut self, files: &Files) -> Result<()> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("QEMU ended ({status}): {}", tail(&files.errors)),
        }
    }

    /// Waits for its end.
    fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            ensure!(
                begin.elapsed() < limit,
                "QEMU does not end in {} seconds",
                limit.as_secs()
            );
            thread::sleep(POLL);
        }
    }
}

impl Vm {
    /// Starts QEMU and connects to it.
    ///
    /// # Errors
    ///
    /// It does not start, with its own message.
    pub(crate) fn start(
        options: &Options,
        name: &str,
        plugged: &Plugged,
        incoming: bool,
    ) -> Result<Self> {
        let files = Files::new(options.logs(), name);
        for file in [&files.monitor, &files.serial, &files.trace, &files.console] {
            match fs::remove_file(file) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(e).with_context(|| format!("cannot remove {file}"));
                }
                _ => (),
            }
        }
        let errors = File::create(&files.errors)
            .with_context(|| format!("cannot write to {}", files.errors))?;
        let words = arguments(options, &files, plugged, incoming)?;
        let mut process = Process::start(&options.qemu, &words, errors)
            .with_context(|| format!("cannot start {}", options.qemu.display()))?;
        let mut connect =
            |path: &str| Lines::connect(Path::new(path), START, || process.alive(&files));
        let guest = Guest::new(connect(&files.serial)?);
        let qmp = Qmp::new(connect(&files.monitor)?);
        Ok(Self {
            name: name.into(),
            qmp: qmp.with_context(|| format!("{name}: {}", tail(&files.errors)))?,
            guest,
            process,
            files,
        })
    }

    /// What can be read about it, for a message of failure.
    pub(crate) fn diagnosis(&mut self) -> String {
        let state = match self.process.0.try_wait() {
            Ok(Some(status)) => format!("ended ({status})"),
            _ => "runs".into(),
        };
        let console = tail(&self.files.console);
        let errors = tail(&self.files.errors);
        let processor = self.processor();
        format!(
            "{} {state}{processor}; QEMU: {errors}; the guest's console: {console}",
            self.name
        )
    }

    /// Where the processor is, a few times one after the other, if QEMU can say it.
    fn processor(&mut self) -> String {
        let mut lines = vec![];
        for _ in 0..PROCESSOR_LOOKS {
            let registers = self.qmp.attempt(&qapi_qmp::human_monitor_command {
                cpu_index: None,
                command_line: "info registers".into(),
            });
            let Ok(Ok(registers)) = registers else { break };
            lines.extend(
                registers
                    .lines()
                    .find(|l| l.starts_with("RIP="))
                    .map(String::from),
            );
            thread::sleep(POLL);
        }
        lines.dedup();
        lines
            .iter()
            .map(|line| format!(", {}", line.trim()))
            .collect()
    }

    /// Waits until the virtual machine is in a state.
    ///
    /// # Errors
    ///
    /// It is not in time.
    pub(crate) fn wait_status(&mut self, wanted: &str, limit: Duration) -> Result<()> {
        wait(&format!("{} is not {wanted}", self.name), limit, || {
            Ok((self.qmp.execute(&QueryStatus {})?.status == wanted).then_some(()))
        })
    }

    /// Waits until the migration is in one of these states; returns which.
    ///
    /// # Errors
    ///
    /// It is not in time.
    pub(crate) fn wait_migration(&mut self, wanted: &[&str], limit: Duration) -> Result<String> {
        let what = format!(
            "the migration of {} is not {}",
            self.name,
            wanted.join(" or ")
        );
        wait(&what, limit, || {
            let status = self.qmp.execute(&QueryMigrate {})?.status;
            Ok(wanted.contains(&status.as_str()).then_some(status))
        })
    }

    /// What QEMU asked of the IOMMU so far.
    ///
    /// # Errors
    ///
    /// Its trace cannot be read.
    pub(crate) fn trace(&self) -> Result<Trace> {
        Trace::read(Path::new(&self.files.trace))
    }

    /// Has QEMU end.
    ///
    /// # Errors
    ///
    /// It does not in time, or not well; or the guest's kernel was in trouble.
    pub(crate) fn quit(mut self) -> Result<()> {
        // It may end before it has answered.
        let asked = self.qmp.attempt(&qapi_qmp::quit {});
        let status = self.process.ended(END);
        let status = status.with_context(|| format!("{}: {asked:?}", self.name))?;
        ensure!(
            status.success(),
            "{} ended badly ({status}): {}",
            self.name,
            tail(&self.files.errors)
        );
        match trouble(&self.files.console) {
            Some(line) => bail!("the kernel of {} says: {line}", self.name),
            None => Ok(()),
        }
    }

    /// Waits until QEMU has ended by itself, as a destination does whose source is gone.
    ///
    /// # Errors
    ///
    /// It does not in time, or by a signal.
    pub(crate) fn ended(&mut self) -> Result<()> {
        let status = self.process.ended(END)?;
        ensure!(
            status.signal().is_none(),
            "{} ended badly ({status}): {}",
            self.name,
            tail(&self.files.errors)
        );
        Ok(())
    }

    /// Kills QEMU with SIGKILL, and waits for its end.
    ///
    /// # Errors
    ///
    /// It has ended before, or does not.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.process.alive(&self.files)?;
        self.process.0.kill()?;
        self.process.ended(END).map(drop)
    }
}

/// Waits for what `look` finds.
///
/// # Errors
///
/// It finds nothing in time, or fails.
pub(crate) fn wait<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(
            begin.elapsed() < limit,
            "{what} after {} seconds",
            limit.as_secs()
        );
        thread::sleep(POLL);
    }
}

/// The first line on a guest's console that says that something is wrong.
fn trouble(console: &str) -> Option<String> {
    const WORDS: [&str; 5] = [
        "BUG: ",
        "WARNING: ",
        "Oops: ",
        "Kernel panic",
        "rcu: INFO: ",
    ];
    let text = fs::read(console).ok()?;
    let text = String::from_utf8_lossy(&text);
    let line = text
        .lines()
        .find(|line| WORDS.iter().any(|word| line.contains(word)));
    line.map(|line| line.trim().to_string())
}

/// The end of a file, on one line.
fn tail(path: &str) -> String {
    let text = match fs::read(path) {
        Ok(bytes) => {
            let start = bytes.len().saturating_sub(TAIL);
            String::from_utf8_lossy(bytes.get(start..).unwrap_or(&[])).into_owned()
        }
        Err(e) => return format!("({path}: {e})"),
    };
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    match lines.is_empty() {
        true => "(nothing)".into(),
        false => lines.join(" | "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends() {
        let never = wait::<()>("nothing", Duration::from_millis(50), || Ok(None));
        assert!(never.is_err());
        let mut n = 0;
        let third = wait("three", Duration::from_secs(5), || {
            n += 1;
            Ok((n == 3).then_some(n))
        });
        assert!(third.is_ok_and(|n| n == 3));
    }

    #[test]
    fn a_qemu_that_does_not_start_is_quoted() -> Result<()> {
        use clap::Parser;
        let logs = std::env::temp_dir().join(format!("vm-migrate-{}", std::process::id()));
        fs::create_dir_all(&logs)?;
        let mut options = Options::try_parse_from(["vm-migrate"])?;
        options.logs = Some(logs.clone());
        // It has no such options either, and says so.
        options.qemu = "/bin/cat".into();
        let started = Vm::start(&options, "vm-1", &Plugged::default(), false).map(|_| ());
        fs::remove_dir_all(&logs)?;
        let said = started.map_err(|e| format!("{e:#}")).err();
        let said = said.unwrap_or_default();
        assert!(
            said.contains("exit status: 1") && said.contains("invalid option"),
            "{said}"
        );
        Ok(())
    }

    #[test]
    fn a_process_ends_with_its_value() -> Result<()> {
        let process = Process(Command::new("sleep").arg("1000").spawn()?);
        let path = format!("/proc/{}", process.0.id());
        assert!(Path::new(&path).exists());
        drop(process);
        assert!(!Path::new(&path).exists());
        Ok(())
    }
}
