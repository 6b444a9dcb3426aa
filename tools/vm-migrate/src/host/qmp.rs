// SPDX-License-Identifier: GPL-2.0

//! QEMU's monitor.
//!
//! Commands are those of the `qapi-qmp` crate, which knows the schema of QEMU 9.2. What a later QEMU
//! answers may have states and events that it does not know, so events, and the answers that this
//! program looks into, are read here, and what is new in them is passed over.

use std::{
    collections::VecDeque,
    io,
    time::{
        Duration,
        Instant, //
    },
};

use anyhow::{
    bail,
    Context,
    Result, //
};
use qapi_spec::{
    Any,
    Command,
    Execute, //
};
use serde::{
    Deserialize,
    Serialize, //
};

use crate::lines::Lines;

/// How long QEMU may take for an answer: some commands wait for devices.
const ANSWER: Duration = Duration::from_secs(30);

/// Something that QEMU told unasked.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Event {
    /// Its name, like `DEVICE_DELETED`.
    pub(crate) event: String,
    /// What it says.
    #[serde(default)]
    pub(crate) data: Any,
}

/// Why a command was refused.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Refusal {
    /// QEMU's own message.
    pub(crate) desc: String,
}

/// A line of QEMU's.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Message {
    Event(Event),
    Error { error: Refusal },
    Return { r#return: Any },
}

/// `query-migrate`, whose answer a newer QEMU may have new states in.
#[derive(Debug, Serialize)]
pub(crate) struct QueryMigrate {}

impl Command for QueryMigrate {
    type Ok = Migration;
    const NAME: &'static str = "query-migrate";
    const ALLOW_OOB: bool = false;
}

/// `query-status`, likewise.
#[derive(Debug, Serialize)]
pub(crate) struct QueryStatus {}

impl Command for QueryStatus {
    type Ok = Status;
    const NAME: &'static str = "query-status";
    const ALLOW_OOB: bool = false;
}

/// `query-dirty-rate`, likewise.
#[derive(Debug, Serialize)]
pub(crate) struct QueryDirtyRate {}

impl Command for QueryDirtyRate {
    type Ok = Status;
    const NAME: &'static str = "query-dirty-rate";
    const ALLOW_OOB: bool = false;
}

/// Whether the virtual machine runs, or a measurement.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) status: String,
}

/// A migration as its source sees it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Migration {
    #[serde(default)]
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) ram: Ram,
    #[serde(default)]
    pub(crate) vfio: Vfio,
    /// In milliseconds, as the following ones.
    #[serde(default)]
    pub(crate) total_time: u64,
    #[serde(default)]
    pub(crate) setup_time: u64,
    #[serde(default)]
    pub(crate) downtime: u64,
    #[serde(default)]
    pub(crate) error_desc: Option<String>,
    #[serde(default)]
    pub(crate) blocked_reasons: Vec<String>,
}

/// Its memory.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct Ram {
    /// In bytes, as the following one.
    pub(crate) transferred: u64,
    pub(crate) remaining: u64,
    /// In pages in a second.
    pub(crate) dirty_pages_rate: u64,
    /// How often the dirty bitmap was read.
    pub(crate) dirty_sync_count: u64,
    /// Pages sent with their contents.
    pub(crate) normal: u64,
}

/// Its devices.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Vfio {
    /// In bytes.
    pub(crate) transferred: u64,
}

/// A connection to a monitor.
pub(crate) struct Qmp {
    lines: Lines,
    events: VecDeque<Event>,
}

impl Qmp {
    /// Reads the greeting, and asks for commands to be taken.
    ///
    /// # Errors
    ///
    /// What is there is no monitor.
    pub(crate) fn new(lines: Lines) -> Result<Self> {
        let mut qmp = Self {
            lines,
            events: VecDeque::new(),
        };
        let greeting = qmp.line(Instant::now() + ANSWER)?;
        let value: Any = serde_json::from_str(&greeting)
            .with_context(|| format!("QEMU's greeting is \"{greeting}\""))?;
        if value.get("QMP").is_none() {
            bail!("QEMU's greeting is \"{greeting}\"");
        }
        qmp.execute(&qapi_qmp::qmp_capabilities { enable: None })?;
        Ok(qmp)
    }

    fn line(&mut self, deadline: Instant) -> Result<String> {
        self.lines
            .next(deadline)
            .context("QEMU says nothing to its monitor")
    }

    /// Executes a command.
    ///
    /// # Errors
    ///
    /// QEMU refuses it, with its message; or it does not answer as it should.
    pub(crate) fn execute<C: Command>(&mut self, command: &C) -> Result<C::Ok> {
        match self.attempt(command)? {
            Ok(value) => Ok(value),
            Err(refusal) => bail!("QEMU refuses {}: {}", C::NAME, refusal.desc),
        }
    }

    /// Executes a command that QEMU may refuse.
    ///
    /// # Errors
    ///
    /// It does not answer as it should.
    pub(crate) fn attempt<C: Command>(&mut self, command: &C) -> Result<Result<C::Ok, Refusal>> {
        let line = serde_json::to_string(&Execute::<&C>::from(command))?;
        let deadline = Instant::now() + ANSWER;
        let sent = self.lines.send(&line, ANSWER);
        sent.with_context(|| format!("QEMU does not take {}", C::NAME))?;
        loop {
            match self.message(deadline).with_context(|| C::NAME)? {
                Message::Event(event) => self.events.push_back(event),
                Message::Error { error } => return Ok(Err(error)),
                Message::Return { r#return: value } => {
                    let text = value.to_string();
                    let value = serde_json::from_value(value);
                    return Ok(Ok(value.with_context(|| {
                        format!("QEMU answers {} to {}", text, C::NAME)
                    })?));
                }
            }
        }
    }

    fn message(&mut self, deadline: Instant) -> Result<Message> {
        let line = self.line(deadline)?;
        serde_json::from_str(&line).with_context(|| format!("QEMU says \"{line}\""))
    }

    /// Waits for an event that `matches`; those before it are forgotten.
    ///
    /// # Errors
    ///
    /// It does not come in time.
    pub(crate) fn wait(
        &mut self,
        what: &str,
        limit: Duration,
        mut matches: impl FnMut(&Event) -> bool,
    ) -> Result<Event> {
        let deadline = Instant::now() + limit;
        loop {
            while let Some(event) = self.events.pop_front() {
                if matches(&event) {
                    return Ok(event);
                }
            }
            let line = match self.lines.next(deadline) {
                Ok(line) => line,
                Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                    bail!("no {what} in {} seconds", limit.as_secs())
                }
                Err(e) => return Err(e).with_context(|| format!("no {what}")),
            };
            match serde_json::from_str(&line).with_context(|| format!("QEMU says \"{line}\""))? {
                Message::Event(event) => self.events.push_back(event),
                _ => bail!("QEMU answers what it was not asked: \"{line}\""),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{
            BufRead,
            BufReader,
            Write, //
        },
        os::unix::net::UnixStream,
        thread, //
    };

    use super::*;

    /// A monitor whose other side says these lines, one after each that it hears.
    fn scripted(answers: &'static [&'static str]) -> Result<Qmp> {
        let (ours, theirs) = UnixStream::pair()?;
        thread::spawn(move || -> io::Result<()> {
            let mut out = theirs.try_clone()?;
            let mut heard = BufReader::new(theirs).lines();
            out.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\n")?;
            for answer in ["{\"return\": {}}"].iter().chain(answers) {
                let _ = heard.next();
                out.write_all(format!("{answer}\r\n").as_bytes())?;
            }
            let _ = heard.next();
            Ok(())
        });
        Qmp::new(Lines::new(ours))
    }

    #[test]
    fn a_migration_is_read_with_what_is_new_in_it() -> Result<()> {
        let mut qmp = scripted(&[concat!(
            r#"{"return": {"status": "quite-new", "new": [1], "#,
            r#""ram": {"transferred": 7, "remaining": 8, "dirty-pages-rate": 9, "#,
            r#""dirty-sync-count": 3, "normal": 5, "newer": 1}, "#,
            r#""vfio": {"transferred": 65}, "total-time": 10, "downtime": 2}}"#
        )])?;
        let now = qmp.execute(&QueryMigrate {})?;
        assert_eq!(now.status, "quite-new");
        assert_eq!((now.ram.transferred, now.ram.remaining), (7, 8));
        assert_eq!((now.ram.dirty_pages_rate, now.ram.dirty_sync_count), (9, 3));
        assert_eq!((now.vfio.transferred, now.downtime), (65, 2));
        Ok(())
    }

    #[test]
    fn before_a_migration_there_is_nothing() -> Result<()> {
        let mut qmp = scripted(&[r#"{"return": {}}"#])?;
        assert_eq!(qmp.execute(&QueryMigrate {})?, Migration::default());
        Ok(())
    }

    #[test]
    fn a_refusal_has_qemus_message() -> Result<()> {
        const REFUSAL: &str = r#"{"error": {"class": "GenericError", "desc": "0000:00:0c.0: no"}}"#;
        let mut qmp = scripted(&[REFUSAL, REFUSAL])?;
        let refused = qmp.attempt(&QueryStatus {})?;
        assert!(refused.is_err_and(|e| e.desc == "0000:00:0c.0: no"));
        let said = qmp
            .execute(&QueryStatus {})
            .map(|_| ())
            .map_err(|e| e.to_string());
        assert_eq!(
            said,
            Err("QEMU refuses query-status: 0000:00:0c.0: no".to_string())
        );
        Ok(())
    }

    #[test]
    fn events_are_kept_until_they_are_waited_for() -> Result<()> {
        let mut qmp = scripted(&[concat!(
            r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "FUTURE", "data": {}}"#,
            "\n",
            r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "DEVICE_DELETED", "#,
            r#""data": {"device": "writer0"}}"#,
            "\n",
            r#"{"event": "STOP"}"#,
            "\n",
            r#"{"return": {"status": "running"}}"#
        )])?;
        assert_eq!(qmp.execute(&QueryStatus {})?.status, "running");
        let limit = Duration::from_millis(50);
        let event = qmp.wait("event", limit, |e| e.event == "DEVICE_DELETED")?;
        assert_eq!(event.data["device"], "writer0");
        let late = qmp.wait("resumption", limit, |e| e.event == "RESUME");
        assert!(late.is_err_and(|e| e.to_string().starts_with("no resumption in")));
        Ok(())
    }

    #[test]
    fn what_is_no_answer_is_an_error() -> Result<()> {
        for answer in ["rubbish", "{}", r#"{"return": {"status": 5}}"#] {
            let answers: &'static [&'static str] = Box::leak(Box::new([answer]));
            assert!(
                scripted(answers)?.execute(&QueryStatus {}).is_err(),
                "{answer}"
            );
        }
        Ok(())
    }
}
