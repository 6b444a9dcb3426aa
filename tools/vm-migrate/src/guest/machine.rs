// SPDX-License-Identifier: GPL-2.0

//! The devices and areas at work, and what they have done so far.

use std::{
    ops::Range,
    sync::Arc,
    thread,
    time::{
        Duration,
        Instant, //
    },
};

use anyhow::{
    ensure,
    Context,
    Result, //
};
use vm_rule::{
    area::{
        Area,
        Difference,
        Writer, //
    },
    rule::{
        Rule,
        PAGE_SIZE, //
    },
};

use crate::{
    function::{
        self,
        Function,
        Program, //
    },
    memory::{
        self,
        Pages, //
    },
    processor::Processor,
};

/// How long an interrupt may take to arrive.
const INTERRUPT: Duration = Duration::from_secs(20);

/// A piece of memory that is written.
struct Piece {
    pages: Arc<Pages>,
    area: Area,
    /// What the processor writes there, and what of it the area knows.
    processor: Rule,
    replayed: u64,
}

/// What a function does at present.
struct Task {
    piece: usize,
    program: Program,
    /// Writes that the area knows.
    replayed: u64,
    /// The counter when it was last read.
    seen: u64,
    interrupts: u64,
}

impl Task {
    /// Takes note of the counter, which never goes back: not in a migration either.
    fn advance(&mut self, function: &Function, counter: u64) -> Result<()> {
        ensure!(
            counter >= self.seen,
            "the counter of {} has gone back from {} to {counter}",
            function.name,
            self.seen
        );
        self.seen = counter;
        Ok(())
    }

    /// Takes note of the interrupts that have arrived; returns how many.
    fn count_interrupts(&mut self, function: &Function) -> Result<u64> {
        let (progress, failures) = function.interrupts()?;
        ensure!(
            failures == 0,
            "{} told {failures} failed writes by interrupts, and counted none",
            function.name
        );
        self.interrupts += progress;
        Ok(progress)
    }

    /// Waits until the function has made the writes after which it interrupts next, and the
    /// interrupt has arrived.
    ///
    /// Messages of one vector become one while the processor is slow to take them, so their number
    /// says nothing.
    fn await_interrupt(&mut self, function: &Function) -> Result<()> {
        self.count_interrupts(function)?;
        let progress = self.program.progress;
        let Some(steps) = function.counter()?.checked_div(progress) else {
            return Ok(());
        };
        let step = (steps + 1) * progress;
        function.await_counter(step)?;
        let begin = Instant::now();
        while self.count_interrupts(function)? == 0 {
            ensure!(
                begin.elapsed() < INTERRUPT,
                "{} has made {step} writes, and does not interrupt in {} seconds",
                function.name,
                INTERRUPT.as_secs()
            );
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// A function at work.
struct Unit {
    function: Function,
    task: Option<Task>,
}

/// What was found wrong.
pub(crate) struct Wrong {
    /// Pages that differ, in all areas.
    pub(crate) different: u64,
    /// Where the area of the first begins, in the guest's memory.
    pub(crate) base: u64,
    /// The first.
    pub(crate) first: Difference,
    /// The function that writes there.
    pub(crate) function: Option<String>,
}

/// What has been done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Writes by devices.
    pub(crate) device: u64,
    /// Writes by the processor.
    pub(crate) processor: u64,
    /// Interrupts that arrived.
    pub(crate) interrupts: u64,
    /// Pages compared.
    pub(crate) pages: u64,
}

/// Everything that writes, and is written to.
pub(crate) struct Machine {
    region: Range<u64>,
    processor: Processor,
    pieces: Vec<Option<Piece>>,
    units: Vec<Option<Unit>>,
    /// Of tasks and pieces that have ended.
    past: Totals,
    /// What the processor goes on with after a pause.
    rate: u64,
}

impl Machine {
    /// Nothing is at work yet.
    ///
    /// # Errors
    ///
    /// The kernel lacks something.
    pub(crate) fn new() -> Result<Self> {
        function::allow_vfio()?;
        Ok(Self {
            region: memory::reserved_region()?,
            processor: Processor::start().context("cannot start a thread")?,
            pieces: vec![],
            units: vec![],
            past: Totals::default(),
            rate: 0,
        })
    }

    /// The memory that the kernel leaves alone.
    pub(crate) fn region(&self) -> &Range<u64> {
        &self.region
    }

    /// Adds an area of the region that the kernel leaves alone; returns its number.
    ///
    /// # Errors
    ///
    /// It is not in there.
    pub(crate) fn add_area(&mut self, base: u64, length: u64, seed: u64) -> Result<usize> {
        let end = base.checked_add(length).context("the area has no end")?;
        ensure!(
            self.region.start <= base && end <= self.region.end,
            "{base:#x} to {end:#x} is not all reserved: {:#x} to {:#x} is",
            self.region.start,
            self.region.end
        );
        self.add_pages(Pages::reserved(base, length)?, seed)
    }

    /// Adds an area in memory that was plugged, by taking so many bytes; returns its number.
    ///
    /// # Errors
    ///
    /// There is no such memory, or none of it is to be had.
    pub(crate) fn add_plugged(&mut self, take: u64, seed: u64) -> Result<usize> {
        // The kernel adds it first, and uses it a little later.
        let mut why = String::new();
        let pages = function::wait_for("memory that was plugged", || {
            let ranges = memory::plugged_ranges()?;
            let Some((first, last)) = ranges.first().zip(ranges.last()) else {
                why = "the kernel has added none".into();
                return Ok(None);
            };
            let pages = Pages::plugged(&(first.start..last.end), take);
            Ok(pages.map_err(|e| why = format!("{e:#}")).ok())
        });
        let pages = pages.with_context(|| why)?;
        self.add_pages(pages, seed)
    }

    fn add_pages(&mut self, pages: Pages, seed: u64) -> Result<usize> {
        let area = Area::new(pages.base(), pages.length())?;
        area.fill(&pages)?;
        let processor = Rule {
            seed,
            pages: area.pages(),
        };
        let pages = Arc::new(pages);
        let index = self.pieces.len();
        self.processor.add(index, Arc::clone(&pages), processor);
        self.pieces.push(Some(Piece {
            pages,
            area,
            processor,
            replayed: 0,
        }));
        Ok(index)
    }

    /// An area's place in the guest's memory.
    pub(crate) fn area(&self, index: usize) -> Result<Range<u64>> {
        let pages = &self.piece(index)?.pages;
        Ok(pages.base()..pages.base() + pages.length())
    }

    fn piece(&self, index: usize) -> Result<&Piece> {
        let piece = self.pieces.get(index).and_then(Option::as_ref);
        piece.with_context(|| format!("there is no area {index}"))
    }

    /// Gives an area's memory back.
    ///
    /// # Errors
    ///
    /// A function writes there.
    pub(crate) fn drop_area(&mut self, index: usize) -> Result<()> {
        self.piece(index)?;
        for unit in self.units.iter().flatten() {
            ensure!(
                unit.task.as_ref().is_none_or(|task| task.piece != index),
                "{} writes to area {index}",
                unit.function.name
            );
        }
        self.past.processor += self.processor.remove(index);
        if let Some(piece) = self.pieces.get_mut(index) {
            *piece = None;
        }
        Ok(())
    }

    /// Takes the function below a port; returns its number and its name.
    ///
    /// # Errors
    ///
    /// It does not come, or cannot be used.
    pub(crate) fn take(&mut self, port: &str) -> Result<(usize, &str)> {
        let function = Function::take(port)?;
        let index = self.units.len();
        self.units.push(None);
        let unit = self.units.last_mut().context("no room")?;
        let unit = unit.insert(Unit {
            function,
            task: None,
        });
        Ok((index, &unit.function.name))
    }

    fn unit(&mut self, index: usize) -> Result<&mut Unit> {
        let unit = self.units.get_mut(index).and_then(Option::as_mut);
        unit.with_context(|| format!("there is no unit {index}"))
    }

    /// Has a function write to `span` bytes of an area, after what it did before is taken note of.
    ///
    /// # Errors
    ///
    /// The area is smaller, or what it did before was not right.
    pub(crate) fn aim(
        &mut self,
        index: usize,
        piece: usize,
        span: u64,
        seed: u64,
        (rate, progress): (u64, u64),
    ) -> Result<()> {
        self.end_task(index)?;
        let range = self.area(piece)?;
        let page = PAGE_SIZE as u64;
        let length = span.min(range.end - range.start);
        let program = Program {
            base: range.start,
            rule: Rule {
                seed,
                pages: length / page,
            },
            rate,
            progress,
        };
        let unit = self.unit(index)?;
        unit.function.set_master(true)?;
        unit.function.start(&program)?;
        unit.task = Some(Task {
            piece,
            program,
            replayed: 0,
            seen: 0,
            interrupts: 0,
        });
        Ok(())
    }

    /// Stops a function and gives it back to the kernel.
    ///
    /// # Errors
    ///
    /// What it did was not right.
    pub(crate) fn release(&mut self, index: usize) -> Result<()> {
        self.end_task(index)?;
        if let Some(unit) = self.units.get_mut(index) {
            *unit = None;
        }
        Ok(())
    }

    fn end_task(&mut self, index: usize) -> Result<()> {
        let unit = self.unit(index)?;
        if unit.task.is_none() {
            return Ok(());
        }
        unit.function.set_master(false)?;
        self.settle(index)?;
        let unit = self.unit(index)?;
        unit.function.stop()?;
        if let Some(task) = unit.task.take() {
            self.past.device += task.replayed;
            self.past.interrupts += task.interrupts;
        }
        Ok(())
    }

    /// Waits until a function that is held up writes nothing, and takes note of what it has done.
    fn settle(&mut self, index: usize) -> Result<()> {
        let unit = self.unit(index)?;
        let function = &unit.function;
        let Some(task) = &mut unit.task else {
            return Ok(());
        };
        let counter = function.settle()?;
        let (failed, address) = function.failed()?;
        ensure!(
            failed == 0,
            "{failed} writes of {} failed, the first at {address:#x}",
            function.name
        );
        task.advance(function, counter)?;
        function.check_journal(&task.program.rule, counter)?;
        let first = task.replayed + 1;
        task.replayed = counter;
        task.count_interrupts(function)?;
        let (piece, rule) = (task.piece, task.program.rule);
        let piece = self.pieces.get_mut(piece).and_then(Option::as_mut);
        if let Some(piece) = piece {
            piece.area.replay(Writer::Device, rule, first..=counter);
        }
        Ok(())
    }

    /// Has the processor write, and the functions go on.
    ///
    /// # Errors
    ///
    /// A function cannot be told.
    pub(crate) fn resume(&mut self, rate: Option<u64>) -> Result<()> {
        self.rate = rate.unwrap_or(self.rate);
        for unit in self.units.iter().flatten() {
            unit.function.set_master(true)?;
        }
        self.processor.run(self.rate);
        Ok(())
    }

    /// What each function has written since it was told where.
    pub(crate) fn counters(&self) -> Vec<u64> {
        let tasks = self.units.iter().flatten();
        let tasks = tasks.filter_map(|unit| unit.task.as_ref());
        tasks.map(|task| task.seen).collect()
    }

    /// The counters as they are, while everything goes on.
    ///
    /// # Errors
    ///
    /// A function or the processor's thread has failed.
    pub(crate) fn totals(&mut self) -> Result<Totals> {
        let mut totals = self.past;
        for unit in self.units.iter_mut().flatten() {
            if let Some(task) = &mut unit.task {
                task.count_interrupts(&unit.function)?;
                let counter = unit.function.counter()?;
                task.advance(&unit.function, counter)?;
                totals.device += counter;
                totals.interrupts += task.interrupts;
            }
        }
        for (index, piece) in self.pieces.iter().enumerate() {
            if piece.is_some() {
                totals.processor += self.processor.number(index)?;
            }
        }
        Ok(totals)
    }

    /// Waits until each function has gone on, and told it by an interrupt.
    ///
    /// # Errors
    ///
    /// One does not.
    pub(crate) fn listen(&mut self) -> Result<()> {
        for unit in self.units.iter_mut().flatten() {
            if let Some(task) = &mut unit.task {
                // The first may be late, of a step before.
                task.await_interrupt(&unit.function)?;
                task.await_interrupt(&unit.function)?;
            }
        }
        Ok(())
    }

    /// Holds up everything, and compares all memory with what it must hold.
    ///
    /// # Errors
    ///
    /// A function or the processor's thread has failed; memory that differs is no error.
    pub(crate) fn check(&mut self) -> Result<(Totals, Option<Wrong>)> {
        self.processor.pause();
        for unit in self.units.iter().flatten() {
            unit.function.set_master(false)?;
        }
        for index in 0..self.units.len() {
            if self.units.get(index).is_some_and(Option::is_some) {
                self.settle(index)?;
            }
        }
        let (mut pages, mut wrong) = (0, None::<Wrong>);
        for (index, piece) in self.pieces.iter_mut().enumerate() {
            let Some(piece) = piece else { continue };
            let number = self.processor.number(index)?;
            let new = piece.replayed + 1..=number;
            piece.area.replay(Writer::Processor, piece.processor, new);
            piece.replayed = number;

            let all = piece.area.compare(&*piece.pages)?;
            pages += all.pages;
            let writer = self.units.iter().flatten().find(|unit| {
                let task = unit.task.as_ref();
                task.is_some_and(|task| task.piece == index)
            });
            match (&mut wrong, all.first) {
                (Some(wrong), _) => wrong.different += all.different,
                (None, Some(first)) => {
                    wrong = Some(Wrong {
                        different: all.different,
                        base: piece.pages.base(),
                        first,
                        function: writer.map(|unit| unit.function.name.clone()),
                    });
                }
                (None, None) => (),
            }
        }
        let totals = self.totals()?;
        Ok((Totals { pages, ..totals }, wrong))
    }
}
