// SPDX-License-Identifier: GPL-2.0

//! Switches and queries dirty tracking, and renews page tables.

use anyhow::{
    ensure,
    Context,
    Result, //
};

use super::{
    Act,
    Hands, //
};
use crate::{
    bits::Bits,
    failing::{
        Failing,
        Outcome, //
    },
    model::Query,
    op::{
        Op,
        Step,
        AREA_PAGES, //
    },
    stage::{
        Stage,
        AREA_IOVA,
        PAGE, //
    },
    sys::iommufd::Ask, //
};

/// Words in a page, and around a bitmap that must not change.
const PAGE_WORDS: usize = PAGE / 8;
const GUARDS: usize = 8;
const GUARD: u64 = 0xa5a5_a5a5_a5a5_a5a5;

/// Keeps nothing: the model knows.
pub(super) struct Tracker;

impl Act for Tracker {
    fn step(&mut self, hands: &mut Hands<'_>, step: &Step) -> Result<()> {
        match step.op {
            Op::Track { slot, on } => track(hands, step, slot, on),
            Op::Renew { slot } => renew(hands, step, slot),
            Op::Query {
                slot,
                first,
                pages,
                unit,
                clear,
                shift,
            } => {
                let query = Query {
                    pages: first..first + pages,
                    unit,
                    clear,
                    failed: false,
                    loose: false,
                };
                let failing = &mut hands.failing;
                let count = self::query(hands.stage, failing, slot, query, shift, step.fail)?;
                hands.figures.queries += 1;
                hands.figures.reported += count as u64;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn track(hands: &mut Hands<'_>, step: &Step, slot: usize, on: bool) -> Result<()> {
    let stage = hands.stage;
    let switch = stage.model()?.begin_tracking(slot, on);
    let hwpt = stage.hwpt(slot);
    let outcome = hands
        .failing
        .run(step.fail, || stage.iommufd.track(hwpt, on));
    let done = matches!(outcome, Ok(Outcome::Done));
    stage.model()?.end_tracking(slot, on, done, switch);
    outcome.map(|_| ()).context("the kernel refuses")
}

fn renew(hands: &mut Hands<'_>, step: &Step, slot: usize) -> Result<()> {
    let stage = hands.stage;
    if !stage.model()?.begin_renew(slot) {
        return Ok(());
    }
    stage
        .iommufd
        .destroy(stage.hwpt(slot))
        .context("the table cannot be freed, which no device has")?;
    let device = stage.writers.first().context("there is no writer")?.id;
    let mut alloc = |nth| {
        hands
            .failing
            .call(nth, || stage.iommufd.hwpt_alloc(device, stage.ioas, false))
    };
    let hwpt = match alloc(step.fail)? {
        Some(hwpt) => hwpt,
        None => alloc(None)?.context("interrupted twice")?,
    };
    stage.set_hwpt(slot, hwpt);
    stage.model()?.end_renew(slot);
    Ok(())
}

/// Queries a table, and holds the report against the model; returns how many pages it has.
pub(super) fn query(
    stage: &Stage,
    failing: &mut Failing,
    slot: usize,
    mut query: Query,
    shift: usize,
    nth: Option<u32>,
) -> Result<usize> {
    let units = query.pages.len() / query.unit;
    let words = units.div_ceil(64);
    // One page may be before the first word of the bitmap that begins a page.
    let mut memory = vec![GUARD; 2 * PAGE_WORDS + shift + words + 2 * GUARDS];
    let to_page = (memory.as_ptr() as usize).wrapping_neg() % PAGE / 8;
    let first = to_page + PAGE_WORDS + shift;
    memory[first..first + words].fill(0);
    let ask = Ask {
        iova: AREA_IOVA + (query.pages.start * PAGE) as u64,
        length: (query.pages.len() * PAGE) as u64,
        unit: (query.unit * PAGE) as u64,
        clear: query.clear,
    };

    stage.model()?.begin_query(slot, query.pages.clone());
    let hwpt = stage.hwpt(slot);
    let outcome = failing.run(nth, || stage.iommufd.dirty(hwpt, &ask, &mut memory, first));
    let mut model = stage.model()?;
    query.failed = !matches!(outcome, Ok(Outcome::Done));
    query.loose = failing.reached;

    let mut report = Bits::new(AREA_PAGES);
    for unit in 0..units {
        if memory[first + unit / 64] >> (unit % 64) & 1 != 0 {
            let page = query.pages.start + unit * query.unit;
            (page..page + query.unit).for_each(|page| report.set(page));
        }
    }
    let stray = (units..words * 64).any(|bit| memory[first + bit / 64] >> (bit % 64) & 1 != 0);
    let count = model.end_query(slot, &query, &report)?;
    drop(model);
    outcome.context("the kernel refuses")?;
    let intact = |word: &u64| *word == GUARD;
    ensure!(
        !stray && memory[..first].iter().all(intact) && memory[first + words..].iter().all(intact),
        "bits outside of the query were set, in memory that is not the bitmap's"
    );
    Ok(count)
}
