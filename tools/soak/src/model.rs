// SPDX-License-Identifier: GPL-2.0

//! What the dirty bitmap of each table must and may report.
//!
//! The clock of the model is the writers' own: a writer counts its writes, and which page a write
//! goes to follows from its number. Each event (an attach, a query, an unmap) tells the model of
//! the counters when it begins and when it ends, so each write is known to lie before, in or after
//! it:
//!
//! - A write through a table that was attached, mapped and tracked all the time *must* be reported
//!   by a query that begins later; after a report of its page, that report has it.
//! - A write while one of these changed *may* be reported.
//! - A write during a query must be in this report or in the next one.
//! - A write while its device moved from one table to the other is in the report of one of the two,
//!   if memory shows that it arrived.
//!
//! A page that is reported and may not be is an error, too.
//!
//! Where leaves may be split, a query that clears and covers a part of a leaf makes the pages clean
//! that it reports. It may also make none of them clean, if there was no memory; and pages that
//! were in a dirty leaf may be dirty until a query covers all that was the leaf.

mod query;
#[cfg(test)]
mod tests;

use std::ops::Range;

use anyhow::{
    bail,
    ensure,
    Result, //
};

pub(crate) use self::query::Query;
use crate::{
    bits::Bits,
    random::mix, //
};

/// Which table a device's accesses go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    /// This one, or none.
    Table(Option<usize>),
    /// One of the two: it is being moved.
    Between(Option<usize>, Option<usize>),
}

/// Whether a table tracks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tracking {
    Off,
    On,
    Switching,
}

/// A query in progress.
struct InFlight {
    pages: Range<usize>,
    /// Its place among all events.
    moment: u64,
    /// Whether a part of it was unmapped: iommufd ends such a query there, without an error.
    holed: bool,
    /// Pages written since it began.
    must: Bits,
    may: Bits,
}

struct Table {
    tracking: Tracking,
    /// Devices that are attached, or are being attached.
    users: usize,
    /// Whether it is not there.
    gone: bool,
    must: Bits,
    may: Bits,
    query: Option<InFlight>,
}

/// A write through one of the tables in `through`.
struct Either {
    device: usize,
    run: usize,
    number: u64,
    page: usize,
    moment: u64,
    through: Vec<usize>,
    /// Whether it has arrived; not known while the device moves.
    arrived: bool,
}

struct Device {
    via: Via,
    /// The seed of each run: a reset begins another one.
    seeds: Vec<u64>,
    /// Of the current run.
    counter: u64,
    /// Writes of it that may have failed.
    doubtful: u64,
    /// Of each page, run and number of the last write that cannot have failed.
    certain: Vec<Option<(usize, u64)>>,
}

/// The leaves that pages are mapped with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaves {
    /// Pages of each.
    pub(crate) pages: usize,
    /// Whether a table that tracks may have smaller ones instead.
    pub(crate) splits: bool,
}

/// What is known of everything.
pub(crate) struct Model {
    pages: usize,
    leaves: Leaves,
    /// Pages, from the first on, that devices write to.
    span: usize,
    tables: Vec<Table>,
    devices: Vec<Device>,
    /// Pages that are unmapped, or may be.
    holes: Bits,
    either: Vec<Either>,
    moment: u64,
    /// Writes that had to be reported.
    tracked: u64,
    writes: u64,
}

impl Model {
    /// `tables` tables that do not track, of `pages` pages in `leaves`; `devices` devices that are
    /// not attached, and write to the first `span` pages.
    pub(crate) fn new(
        tables: usize,
        devices: usize,
        pages: usize,
        leaves: Leaves,
        span: usize,
    ) -> Self {
        Self {
            pages,
            leaves,
            span,
            tables: (0..tables)
                .map(|_| Table {
                    tracking: Tracking::Off,
                    users: 0,
                    gone: false,
                    must: Bits::new(pages),
                    may: Bits::new(pages),
                    query: None,
                })
                .collect(),
            devices: (0..devices)
                .map(|_| Device {
                    via: Via::Table(None),
                    seeds: vec![],
                    counter: 0,
                    doubtful: 0,
                    certain: vec![None; pages],
                })
                .collect(),
            holes: Bits::new(pages),
            either: vec![],
            moment: 0,
            tracked: 0,
            writes: 0,
        }
    }

    /// How many writes there were, and how many had to be reported.
    pub(crate) fn writes(&self) -> (u64, u64) {
        (self.writes, self.tracked)
    }

    /// A device begins to write with a seed, and counts from 0.
    pub(crate) fn start(&mut self, device: usize, seed: u64) {
        let device = &mut self.devices[device];
        device.seeds.push(seed);
        device.counter = 0;
        device.doubtful = 0;
    }

    /// A device has made `counter` writes, `failed` of which, or fewer, have failed.
    ///
    /// # Errors
    ///
    /// More have failed than can have.
    pub(crate) fn advance(&mut self, device: usize, counter: u64, failed: u64) -> Result<()> {
        for number in self.devices[device].counter + 1..=counter {
            self.write(device, number);
        }
        let it = &mut self.devices[device];
        it.counter = counter;
        ensure!(
            failed <= it.doubtful,
            "writer {device}: {failed} of {counter} writes failed, and only {} were made while its \
             table or the mapping changed",
            it.doubtful
        );
        Ok(())
    }

    fn write(&mut self, device: usize, number: u64) {
        let it = &mut self.devices[device];
        let Some(&seed) = it.seeds.last() else { return };
        let run = it.seeds.len() - 1;
        let page = page_of(seed, number, self.span);
        let hole = self.holes.get(page);
        let through: Vec<usize> = match it.via {
            Via::Table(table) => table.into_iter().collect(),
            Via::Between(old, new) => {
                let new = new.filter(|_| new != old);
                old.into_iter().chain(new).collect()
            }
        };
        let certain = matches!(it.via, Via::Table(Some(_))) && !hole;
        self.writes += 1;
        if certain {
            it.certain[page] = Some((run, number));
        } else {
            it.doubtful += 1;
        }
        let mut tracked = certain;
        for &table in &through {
            let table = &mut self.tables[table];
            let sure = certain && table.tracking == Tracking::On;
            tracked &= sure;
            if table.tracking == Tracking::Off {
                continue;
            }
            let (must, may) = match &mut table.query {
                Some(query) if query.pages.contains(&page) => (&mut query.must, &mut query.may),
                _ => (&mut table.must, &mut table.may),
            };
            may.set(page);
            if sure {
                must.set(page);
            }
        }
        self.tracked += u64::from(tracked);
        let on = |&table: &usize| self.tables[table].tracking == Tracking::On;
        if !certain && !hole && !through.is_empty() && through.iter().all(on) {
            self.moment += 1;
            self.either.push(Either {
                device,
                run,
                number,
                page,
                moment: self.moment,
                through,
                arrived: false,
            });
        }
    }

    /// A device is about to be attached to another table, or detached; false if that is not there.
    pub(crate) fn begin_move(&mut self, device: usize, to: Option<usize>) -> bool {
        if let Some(table) = to {
            if self.tables[table].gone {
                return false;
            }
            self.tables[table].users += 1;
        }
        let it = &mut self.devices[device];
        if let Via::Table(from) = it.via {
            it.via = Via::Between(from, to);
        }
        true
    }

    /// It has been, if `done`; else it is where it was. `word` tells the first words of a page.
    ///
    /// # Errors
    ///
    /// A write that arrived meanwhile is in no report; or those of `word`.
    pub(crate) fn end_move(
        &mut self,
        device: usize,
        done: bool,
        word: impl Fn(usize) -> Result<[u64; 2]>,
    ) -> Result<()> {
        let it = &mut self.devices[device];
        let Via::Between(from, to) = it.via else {
            bail!("a bug of this program: writer {device} was not being moved");
        };
        let (now, left) = if done { (to, from) } else { (from, to) };
        it.via = Via::Table(now);
        if let Some(table) = left {
            self.tables[table].users -= 1;
        }
        for entry in self
            .either
            .iter_mut()
            .filter(|e| e.device == device && !e.arrived)
        {
            let seed = self.devices[device].seeds[entry.run];
            entry.arrived = word(entry.page)? == words_of(seed, entry.number);
        }
        self.either.retain(|e| e.device != device || e.arrived);
        self.check_either()
    }

    /// Whether a table has no device, so that it can be freed; it counts as gone then.
    pub(crate) fn begin_renew(&mut self, table: usize) -> bool {
        if self.tables[table].users > 0 {
            return false;
        }
        self.forget_table(table);
        let it = &mut self.tables[table];
        it.gone = true;
        it.tracking = Tracking::Off;
        it.must.clear();
        it.may.clear();
        true
    }

    /// It was allocated again.
    pub(crate) fn end_renew(&mut self, table: usize) {
        self.tables[table].gone = false;
    }

    /// Tracking of a table is about to be switched.
    pub(crate) fn begin_tracking(&mut self, table: usize, on: bool) -> Switch {
        // To switch it on means to forget what is dirty.
        if on {
            self.forget_table(table);
            self.tables[table].must.clear();
        }
        let it = &mut self.tables[table];
        let switch = Switch {
            before: it.tracking,
            may: it.may.clone(),
        };
        if on {
            it.may.clear();
        }
        it.tracking = Tracking::Switching;
        switch
    }

    /// It was switched, if `done`.
    pub(crate) fn end_tracking(&mut self, table: usize, on: bool, done: bool, switch: Switch) {
        if done && !on {
            self.forget_table(table);
        }
        let it = &mut self.tables[table];
        match (done, on) {
            (true, true) => it.tracking = Tracking::On,
            (true, false) => {
                it.tracking = Tracking::Off;
                it.must.clear();
                it.may.clear();
            }
            (false, _) => {
                it.tracking = switch.before;
                (0..self.pages)
                    .filter(|&page| switch.may.get(page))
                    .for_each(|page| it.may.set(page));
            }
        }
    }

    /// Pages are about to be unmapped.
    pub(crate) fn begin_hole(&mut self, pages: Range<usize>) {
        for page in pages.clone() {
            self.holes.set(page);
            for table in &mut self.tables {
                table.must.unset(page);
                if let Some(query) = &mut table.query {
                    query.must.unset(page);
                    query.holed |= query.pages.contains(&page);
                }
            }
        }
        self.either.retain(|e| !pages.contains(&e.page));
    }

    /// They are mapped again.
    pub(crate) fn end_hole(&mut self, pages: Range<usize>) {
        pages.for_each(|page| self.holes.unset(page));
    }

    /// Whether a page holds what one of the writes has left that can be its last one.
    ///
    /// # Errors
    ///
    /// It does not.
    pub(crate) fn check_page(&self, page: usize, words: [u64; 2]) -> Result<()> {
        let [number, _] = words;
        for device in &self.devices {
            for (run, &seed) in device.seeds.iter().enumerate() {
                let is_its = number > 0
                    && words == words_of(seed, number)
                    && page == page_of(seed, number, self.span);
                if is_its {
                    let since = device.certain[page];
                    ensure!(
                        since <= Some((run, number)),
                        "page {page} has write {number} of run {run}, and a later one was made"
                    );
                    return Ok(());
                }
            }
        }
        let written = self.devices.iter().any(|it| it.certain[page].is_some());
        ensure!(
            words == [0, 0] && !written,
            "page {page} holds {words:x?}, which no write has left there"
        );
        Ok(())
    }

    /// Nothing has to be reported any more because of this table.
    fn forget_table(&mut self, table: usize) {
        self.either.retain(|e| !e.through.contains(&table));
    }

    /// A write that arrived must still be able to turn up somewhere.
    fn check_either(&self) -> Result<()> {
        match self
            .either
            .iter()
            .find(|e| e.arrived && e.through.is_empty())
        {
            None => Ok(()),
            Some(e) => bail!(
                "page {} was written (write {} of writer {}) while the writer moved, and no table \
                 that it moved from or to has reported it",
                e.page,
                e.number,
                e.device
            ),
        }
    }
}

/// What a table was before its tracking was switched.
pub(crate) struct Switch {
    before: Tracking,
    may: Bits,
}

/// The page of a write.
pub(crate) fn page_of(seed: u64, number: u64, pages: usize) -> usize {
    // CAST: A remainder of a `usize` is a `usize`.
    (mix(seed.wrapping_add(number)) % pages as u64) as usize
}

/// What a write leaves at the start of its page.
pub(crate) fn words_of(seed: u64, number: u64) -> [u64; 2] {
    [number, mix(seed ^ number)]
}
