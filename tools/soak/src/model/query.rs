// SPDX-License-Identifier: GPL-2.0

//! A query of the dirty bitmap, and what its report means.

use std::ops::Range;

use anyhow::{
    bail,
    ensure,
    Result, //
};

use super::{
    InFlight,
    Model,
    Tracking, //
};
use crate::bits::Bits;

/// What a query asked for, and how it went.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    /// The pages.
    pub(crate) pages: Range<usize>,
    /// How many of them a bit stands for.
    pub(crate) unit: usize,
    /// Whether the pages become clean.
    pub(crate) clear: bool,
    /// Whether the call failed: then what it has not reported may still be dirty.
    pub(crate) failed: bool,
    /// Whether it may report too much, since it had no memory.
    pub(crate) loose: bool,
}

impl Model {
    /// A query of a table is about to begin.
    pub(crate) fn begin_query(&mut self, table: usize, pages: Range<usize>) {
        self.moment += 1;
        self.tables[table].query = Some(InFlight {
            holed: self.holes.any_in(pages.clone()),
            pages,
            moment: self.moment,
            must: Bits::new(self.pages),
            may: Bits::new(self.pages),
        });
    }

    /// It has ended and reported a set of pages, each with all of its unit; returns how many.
    ///
    /// # Errors
    ///
    /// A page is missing from the report, or should not be in it.
    pub(crate) fn end_query(
        &mut self,
        table: usize,
        query: &Query,
        report: &Bits,
    ) -> Result<usize> {
        let Some(flight) = self.tables[table].query.take() else {
            bail!("a bug of this program: no query of table {table} has begun");
        };
        let query = &Query {
            failed: query.failed || flight.holed,
            ..query.clone()
        };
        if self.tables[table].tracking != Tracking::On {
            return Ok(0);
        }
        let lost = |page: &usize| self.tables[table].must.get(*page) && !report.get(*page);
        if let Some(page) = query.pages.clone().find(lost).filter(|_| !query.failed) {
            bail!("page {page} was written through table {table}, and was not reported: lost");
        }
        let count = self.check_report(table, query, &flight, report)?;
        self.clean(table, query, &flight, report);
        self.settle(table, query, &flight, report);
        self.check_either()?;
        Ok(count)
    }

    /// The leaf of a page.
    fn leaf_of(&self, page: usize) -> Range<usize> {
        let first = page / self.leaves.pages * self.leaves.pages;
        first..first + self.leaves.pages
    }

    /// Only what may be dirty is reported; returns how much.
    fn check_report(
        &self,
        table: usize,
        query: &Query,
        flight: &InFlight,
        report: &Bits,
    ) -> Result<usize> {
        let it = &self.tables[table];
        let may = |page: usize| {
            let leaf = self.leaf_of(page);
            it.may.any_in(leaf.clone()) || flight.may.any_in(leaf)
        };
        let mut count = 0;
        for first in query.pages.clone().step_by(query.unit) {
            let unit = first..first + query.unit;
            if !report.get(first) {
                continue;
            }
            count += query.unit;
            ensure!(
                query.loose || unit.clone().step_by(self.leaves.pages).any(may),
                "pages {unit:?} were reported by table {table}, and nothing has written them since \
                 they were clean"
            );
        }
        Ok(count)
    }

    /// What is dirty after the query.
    fn clean(&mut self, table: usize, query: &Query, flight: &InFlight, report: &Bits) {
        for page in query.pages.clone() {
            let leaf = self.leaf_of(page);
            let whole = query.pages.start <= leaf.start && leaf.end <= query.pages.end;
            let it = &mut self.tables[table];
            let reported = report.get(page);
            if query.failed {
                // What it has reported is copied; what it has not may be clean or dirty.
                if reported {
                    it.must.unset(page);
                }
            } else if query.clear && whole {
                it.must.unset(page);
                it.may.unset(page);
                // What was written meanwhile is in this report or in the next one.
                if flight.must.get(page) && !reported {
                    it.must.set(page);
                }
            }
            // In a part of it the page is clean now, or dirty with all that was the leaf.
            let in_part = query.clear && !query.failed && self.leaves.splits && reported;
            if in_part && !whole {
                it.must.unset(page);
            }
            let stays = query.failed || !query.clear || !(whole || in_part);
            if stays && flight.must.get(page) && !(query.failed && reported) {
                it.must.set(page);
            }
            if flight.may.get(page) {
                it.may.set(page);
            }
        }
    }

    /// Writes that are in one of two tables: not in this one, if it has not reported them.
    fn settle(&mut self, table: usize, query: &Query, flight: &InFlight, report: &Bits) {
        self.either.retain_mut(|e| {
            if !query.pages.contains(&e.page) || !e.through.contains(&table) {
                return true;
            }
            if report.get(e.page) {
                return false;
            }
            if e.moment < flight.moment && !query.failed {
                e.through.retain(|&other| other != table);
            }
            true
        });
    }
}
