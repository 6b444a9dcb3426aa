// SPDX-License-Identifier: GPL-2.0

//! What `vm-migrate` can tell this program, and what it answers.
//!
//! The first line comes from here, once the machine is ready: `ready=1 base=... length=...`, with the
//! memory that the kernel leaves alone. Then each line is a command, and has one answer with the same
//! `seq`: with `done`, which repeats the command, or with `error`.
//!
//! | command   | takes                                           | answers                           |
//! |-----------|-------------------------------------------------|-----------------------------------|
//! | `area`    | `base length seed`                              | `area`                            |
//! | `plugged` | `take seed`: memory that was plugged            | `area base length`                |
//! | `drop`    | `area`                                          | `length`                          |
//! | `take`    | `port`: where the function is                   | `unit name`                       |
//! | `aim`     | `unit area span seed rate progress`: write there|                                   |
//! | `release` | `unit`                                          |                                   |
//! | `run`     | `rate` of the processor (optional)              |                                   |
//! | `listen`  |                                                 |                                   |
//! | `status`  |                                                 | totals                            |
//! | `check`   | everything is held up until `run`               | totals, `pages same`, difference  |
//!
//! `listen` is answered when each function has written more and has interrupted. Totals are
//! `writes processor interrupts`, and `counters` of the functions at work. A difference is
//! `different` pages, and of the first of them its `address` in the guest's memory, its number
//! `page` in its area, the byte `offset`, `found` and `expected`, and, where known, `by` (the writer
//! that wrote there last) with `number` (of that write), `function`, and `holds`: the number of the
//! older write that is still there.

use anyhow::{
    bail,
    Result, //
};
use vm_rule::{
    area::Writer,
    rule::PAGE_SIZE,
    words::Words, //
};

use crate::machine::{
    Machine,
    Totals,
    Wrong, //
};

/// The line that says that commands are taken.
pub(crate) fn greeting(machine: &Machine) -> Result<Words> {
    let region = machine.region();
    Ok(Words::new()
        .with("ready", 1)
        .with_hex("base", region.start)
        .with_hex("length", region.end.saturating_sub(region.start)))
}

/// Does what a line says; returns its answer.
pub(crate) fn execute(machine: &mut Machine, line: &str) -> Words {
    let command = match line.parse::<Words>() {
        Ok(command) => command,
        Err(e) => return Words::new().with("error", e),
    };
    let answer = match command.get("seq") {
        Some(seq) => Words::new().with("seq", seq),
        None => Words::new(),
    };
    let name = command.get("do").unwrap_or("");
    match perform(machine, name, &command, answer.clone()) {
        Ok(answer) => answer.with("done", name),
        Err(e) => answer.with("error", format!("{e:#}")),
    }
}

fn perform(machine: &mut Machine, name: &str, command: &Words, answer: Words) -> Result<Words> {
    let number = |key| command.number(key);
    let index = |key| Ok::<_, anyhow::Error>(usize::try_from(command.number(key)?)?);
    Ok(match name {
        "area" => {
            let area = machine.add_area(number("base")?, number("length")?, number("seed")?)?;
            answer.with("area", area)
        }
        "plugged" => {
            let area = machine.add_plugged(number("take")?, number("seed")?)?;
            let range = machine.area(area)?;
            answer
                .with("area", area)
                .with_hex("base", range.start)
                .with_hex("length", range.end - range.start)
        }
        "drop" => {
            let area = index("area")?;
            let range = machine.area(area)?;
            machine.drop_area(area)?;
            answer.with_hex("length", range.end - range.start)
        }
        "take" => {
            let (unit, name) = machine.take(command.text("port")?)?;
            answer.with("unit", unit).with("name", name)
        }
        "aim" => {
            machine.aim(
                index("unit")?,
                index("area")?,
                number("span")?,
                number("seed")?,
                (number("rate")?, number("progress")?),
            )?;
            answer
        }
        "release" => {
            machine.release(index("unit")?)?;
            answer
        }
        "run" => {
            let rate = command.get("rate").map(|_| number("rate")).transpose()?;
            machine.resume(rate)?;
            answer
        }
        "listen" => {
            machine.listen()?;
            answer
        }
        "status" => {
            let totals = machine.totals()?;
            with_totals(answer, &totals, &machine.counters())
        }
        "check" => {
            let (totals, wrong) = machine.check()?;
            let answer = with_totals(answer, &totals, &machine.counters())
                .with("pages", totals.pages)
                .with("same", u8::from(wrong.is_none()));
            wrong.iter().fold(answer, with_difference)
        }
        _ => bail!("there is no command \"{name}\""),
    })
}

fn with_totals(answer: Words, totals: &Totals, counters: &[u64]) -> Words {
    let counters: Vec<_> = counters.iter().map(u64::to_string).collect();
    answer
        .with("counters", counters.join(","))
        .with("writes", totals.device)
        .with("processor", totals.processor)
        .with("interrupts", totals.interrupts)
}

fn with_difference(answer: Words, wrong: &Wrong) -> Words {
    let first = &wrong.first;
    let mut answer = answer
        .with("different", wrong.different)
        .with("page", first.page)
        .with_hex("address", wrong.base + first.page * PAGE_SIZE as u64)
        .with("offset", first.word * 8)
        .with_hex("found", first.found)
        .with_hex("expected", first.expected);
    if let Some((writer, number)) = first.last {
        answer = answer.with("by", writer).with("number", number);
        if let (Writer::Device, Some(function)) = (writer, &wrong.function) {
            answer = answer.with("function", function);
        }
    }
    match first.holds {
        Some(number) => answer.with("holds", number),
        None => answer,
    }
}

#[cfg(test)]
mod tests {
    use vm_rule::area::Difference;

    use super::*;

    fn wrong(last: Option<(Writer, u64)>, holds: Option<u64>) -> Wrong {
        Wrong {
            different: 3,
            base: 0x400_0000,
            first: Difference {
                page: 2,
                word: 1,
                found: 0xab,
                expected: 0xcd,
                last,
                holds,
            },
            function: Some("0000:01:00.0".into()),
        }
    }

    #[test]
    fn a_difference_says_who_wrote_last() {
        let line = with_difference(Words::new(), &wrong(Some((Writer::Device, 77)), Some(40)));
        assert_eq!(
            line.to_string(),
            "different=3 page=2 address=0x4002000 offset=8 found=0xab expected=0xcd by=device \
             number=77 function=0000:01:00.0 holds=40"
        );
        let line = with_difference(Words::new(), &wrong(Some((Writer::Processor, 5)), None));
        assert!(
            line.to_string().ends_with("by=processor number=5"),
            "{line}"
        );
        let line = with_difference(Words::new(), &wrong(None, None));
        assert!(line.get("by").is_none() && line.get("holds").is_none());
    }
}
