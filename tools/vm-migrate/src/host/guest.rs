// SPDX-License-Identifier: GPL-2.0

//! The program in the virtual machine, to which commands go over its second serial port.
//!
//! What can be told stands in `vm-guest`'s `commands`.

use std::time::{
    Duration,
    Instant, //
};

use anyhow::{
    bail,
    ensure,
    Context,
    Result, //
};
use vm_rule::words::Words;

use crate::lines::Lines;

/// A connection to the guest.
pub(crate) struct Guest {
    lines: Lines,
    sequence: u64,
}

/// What the guest counted, and whether its memory is what it must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Check {
    /// Writes by the devices, and by the processor.
    pub(crate) writes: u64,
    pub(crate) processor: u64,
    /// Interrupts that arrived.
    pub(crate) interrupts: u64,
    /// What each function at work has written.
    pub(crate) counters: Vec<u64>,
    /// Pages that were compared, and that differ.
    pub(crate) pages: u64,
    pub(crate) different: u64,
    /// What is known of the first that differs, in one sentence.
    pub(crate) first: Option<String>,
}

impl Guest {
    /// Talks over a serial port.
    pub(crate) fn new(lines: Lines) -> Self {
        Self { lines, sequence: 0 }
    }

    /// Waits until the guest takes commands; returns what it says of itself.
    ///
    /// # Errors
    ///
    /// It says nothing in time, or that it cannot.
    pub(crate) fn ready(&mut self, limit: Duration) -> Result<Words> {
        let line = self.lines.next(Instant::now() + limit);
        let line = line.context("the guest does not come up")?;
        let words: Words = line.parse()?;
        if let Some(error) = words.get("error") {
            bail!("the guest: {error}");
        }
        words.number("ready")?;
        Ok(words)
    }

    /// Goes on with the numbers of the connection before: the guest moved.
    pub(crate) fn follow(&mut self, before: &Self) {
        self.sequence = before.sequence;
    }

    /// Has the guest do something; returns its answer.
    ///
    /// # Errors
    ///
    /// It cannot, with its message; or it does not answer in time.
    pub(crate) fn ask(&mut self, name: &str, command: Words, limit: Duration) -> Result<Words> {
        let line = self.tell(name, command, limit)?;
        self.answer(name, &line, limit)
    }

    /// Tells the guest to do something; returns the line.
    ///
    /// # Errors
    ///
    /// Its port takes nothing.
    pub(crate) fn tell(&mut self, name: &str, command: Words, limit: Duration) -> Result<String> {
        self.sequence += 1;
        // The order of words means nothing.
        let line = command
            .with("do", name)
            .with("seq", self.sequence)
            .to_string();
        self.lines
            .send(&line, limit)
            .with_context(|| format!("the guest does not take \"{name}\""))?;
        Ok(line)
    }

    /// The answer to the line that was told last.
    ///
    /// # Errors
    ///
    /// As those of `ask`.
    pub(crate) fn answer(&mut self, name: &str, line: &str, limit: Duration) -> Result<Words> {
        let sequence = self.sequence.to_string();
        let deadline = Instant::now() + limit;
        loop {
            let answer = self.lines.next(deadline);
            let answer = answer
                .with_context(|| format!("the guest does not answer to \"{line}\" in {limit:?}"))?;
            let answer: Words = answer.parse()?;
            // One to a command that was given up is passed over.
            let old = answer.get("seq").is_some_and(|seq| seq != sequence);
            if !old {
                if let Some(error) = answer.get("error") {
                    bail!("the guest cannot do \"{line}\": {error}");
                }
                ensure!(
                    answer.get("done") == Some(name),
                    "the guest answers \"{answer}\" to \"{line}\""
                );
                return Ok(answer);
            }
        }
    }
}

impl Check {
    /// Reads the totals in an answer.
    ///
    /// # Errors
    ///
    /// It has none.
    pub(crate) fn totals(answer: &Words) -> Result<Self> {
        Ok(Self {
            writes: answer.number("writes")?,
            processor: answer.number("processor")?,
            interrupts: answer.number("interrupts")?,
            counters: counters(answer.text("counters")?)?,
            ..Self::default()
        })
    }

    /// Reads the answer to `check`.
    ///
    /// # Errors
    ///
    /// It is none.
    pub(crate) fn read(answer: &Words) -> Result<Self> {
        let check = Self {
            pages: answer.number("pages")?,
            ..Self::totals(answer)?
        };
        match answer.number("same")? {
            1 => Ok(check),
            _ => Ok(Self {
                different: answer.number("different")?,
                first: Some(sentence(answer)?),
                ..check
            }),
        }
    }

    /// Whether the processor and each function have written since `before`.
    pub(crate) fn all_moved(&self, before: &Self) -> bool {
        let mut pairs = self.counters.iter().zip(&before.counters);
        self.processor > before.processor
            && self.counters.len() == before.counters.len()
            && pairs.all(|(now, before)| now > before)
    }

    /// Whether nothing is lost.
    pub(crate) fn is_good(&self) -> bool {
        self.different == 0 && self.first.is_none()
    }
}

/// Reads numbers with commas between them.
fn counters(text: &str) -> Result<Vec<u64>> {
    let numbers = text.split(',').filter(|number| !number.is_empty());
    numbers
        .map(|number| {
            number
                .parse()
                .with_context(|| format!("\"{text}\" are no counters"))
        })
        .collect()
}

/// What is known of the first page that differs.
fn sentence(answer: &Words) -> Result<String> {
    let page = format!(
        "page {} at {:#x}, byte {}: {:#018x} instead of {:#018x}",
        answer.number("page")?,
        answer.number("address")?,
        answer.number("offset")?,
        answer.number("found")?,
        answer.number("expected")?
    );
    let Some(writer) = answer.get("by") else {
        return Ok(format!("{page}; nothing ever wrote there"));
    };
    let writer = match (writer, answer.get("function")) {
        ("device", Some(function)) => format!("the device {function}"),
        _ => format!("the {writer}"),
    };
    let holds = match answer.get("holds") {
        Some(_) => format!("; its write {} is there", answer.number("holds")?),
        None => String::new(),
    };
    let number = answer.number("number")?;
    Ok(format!(
        "{page}; {writer} wrote there last, with write {number}{holds}"
    ))
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

    const SOON: Duration = Duration::from_secs(5);

    /// A guest that says these lines, one after each that it hears.
    fn scripted(answers: &'static [&'static str]) -> Result<Guest> {
        let (ours, theirs) = UnixStream::pair()?;
        thread::spawn(move || -> std::io::Result<()> {
            let mut out = theirs.try_clone()?;
            let mut heard = BufReader::new(theirs).lines();
            for answer in answers {
                let _ = heard.next();
                out.write_all(format!("{answer}\n").as_bytes())?;
            }
            let _ = heard.next();
            Ok(())
        });
        Ok(Guest::new(Lines::new(ours)))
    }

    #[test]
    fn an_answer_belongs_to_its_command() -> Result<()> {
        let mut guest = scripted(&["seq=0 done=old\nseq=1 done=take unit=3"])?;
        let answer = guest.ask("take", Words::new().with("port", "p"), SOON)?;
        assert_eq!(answer.number("unit")?, 3);
        Ok(())
    }

    #[test]
    fn refusals_silence_and_nonsense_are_errors() -> Result<()> {
        for (answer, error) in [
            ("seq=1 error=no such area", "no such area"),
            ("seq=1 done=drop", "answers \"seq=1 done=drop\""),
            ("Kernel panic - not syncing", "is no word"),
            ("seq=7 done=take", "does not answer"),
            ("seq=7 error=of another", "does not answer"),
        ] {
            let answers: &'static [&'static str] = Box::leak(Box::new([answer]));
            let limit = Duration::from_millis(100);
            let asked = scripted(answers)?.ask("take", Words::new(), limit);
            let said = asked
                .map_err(|e| format!("{e:#}"))
                .err()
                .unwrap_or_default();
            assert!(said.contains(error), "{answer}: {said}");
        }
        Ok(())
    }

    #[test]
    fn a_machine_without_what_it_needs_says_so() -> Result<()> {
        let (ours, mut theirs) = UnixStream::pair()?;
        theirs.write_all(b"error=build the kernel with CONFIG_X\n")?;
        let ready = Guest::new(Lines::new(ours)).ready(SOON);
        assert!(ready.is_err_and(|e| e.to_string().contains("CONFIG_X")));
        Ok(())
    }

    fn read(line: &str) -> Result<Check> {
        Check::read(&line.parse()?)
    }

    #[test]
    fn the_same_memory_is_good() -> Result<()> {
        let good = read("writes=9 processor=8 interrupts=2 counters=4,5 pages=7 same=1")?;
        assert!(good.is_good() && good.pages == 7 && good.counters == [4, 5]);
        Ok(())
    }

    #[test]
    fn each_function_has_to_move() {
        let check = |processor, counters: &[u64]| Check {
            processor,
            counters: counters.to_vec(),
            ..Check::default()
        };
        let before = check(1, &[5, 6]);
        assert!(check(2, &[6, 7]).all_moved(&before));
        for now in [check(1, &[6, 7]), check(2, &[6, 6]), check(2, &[6])] {
            assert!(!now.all_moved(&before), "{now:?}");
        }
    }

    #[test]
    fn a_difference_becomes_a_sentence() -> Result<()> {
        let totals = "writes=9 processor=8 interrupts=2 counters= pages=7 same=0 different=3";
        let place = "page=2 address=0x4002000 offset=8 found=0xab expected=0xcd";
        let check = read(&format!(
            "{totals} {place} by=device number=77 function=0000:01:00.0 holds=40"
        ))?;
        assert!(!check.is_good() && check.different == 3);
        assert_eq!(
            check.first.as_deref(),
            Some(
                "page 2 at 0x4002000, byte 8: 0x00000000000000ab instead of 0x00000000000000cd; \
                 the device 0000:01:00.0 wrote there last, with write 77; its write 40 is there"
            )
        );
        let check = read(&format!("{totals} {place} by=processor number=5"))?;
        let first = check.first.unwrap_or_default();
        assert!(first.ends_with("the processor wrote there last, with write 5"));
        let first = read(&format!("{totals} {place}"))?
            .first
            .unwrap_or_default();
        assert!(first.ends_with("nothing ever wrote there"));
        assert!(read(totals).is_err());
        Ok(())
    }
}
