// SPDX-License-Identifier: GPL-2.0

//! Maps and unmaps beside the area, and pieces of the area.

use std::{io, thread::sleep, time::Duration};

use anyhow::{
    bail,
    Context,
    Result, //
};

use super::{
    Act,
    Hands, //
};
use crate::{
    failing::Outcome,
    op::{
        Op,
        Step,
        PLACES, //
    },
    stage::PAGE, //
};

/// How many pages are mapped in each place.
#[derive(Default)]
pub(super) struct Mapper {
    mapped: [usize; PLACES],
}

/// What a call must return: the error `expected`, or success.
fn check(result: io::Result<Outcome>, expected: Option<i32>) -> Result<Outcome> {
    match (result, expected) {
        (Ok(Outcome::Done), Some(number)) => bail!(
            "the call succeeds, which should fail: {}",
            io::Error::from_raw_os_error(number)
        ),
        (Err(e), Some(number)) if e.raw_os_error() == Some(number) => Ok(Outcome::Failed),
        (result, _) => result.context("the kernel refuses"),
    }
}

impl Act for Mapper {
    fn step(&mut self, hands: &mut Hands<'_>, step: &Step) -> Result<()> {
        let stage = hands.stage;
        hands.figures.mappings += 1;
        match step.op {
            Op::Map { place, pages } => {
                let iova = stage.place(place);
                let result = hands.failing.run(step.fail, || {
                    stage
                        .iommufd
                        .map(stage.ioas, iova, &stage.beside, 0, pages * PAGE)
                });
                let taken = (self.mapped[place] > 0).then_some(libc::EEXIST);
                if check(result, taken)? == Outcome::Done {
                    self.mapped[place] = pages;
                }
                Ok(())
            }
            Op::Unmap { place } => {
                let iova = stage.place(place);
                let pages = self.mapped[place];
                let length = pages.max(1) * PAGE;
                // Without a failed allocation: an unmap is not to fail for want of memory.
                let result = hands
                    .failing
                    .run(None, || stage.iommufd.unmap(stage.ioas, iova, length));
                let empty = (pages == 0).then_some(libc::ENOENT);
                if check(result, empty)? == Outcome::Done {
                    self.mapped[place] = 0;
                }
                Ok(())
            }
            Op::Hole {
                piece,
                microseconds,
            } => {
                let pages = stage.piece(piece);
                stage.model()?.begin_hole(pages.clone());
                stage
                    .unmap_piece(piece)
                    .context("a piece of the area cannot be unmapped")?;
                sleep(Duration::from_micros(microseconds));
                let mapped = hands.failing.run(step.fail, || stage.map_piece(piece))?;
                if mapped == Outcome::Failed {
                    stage
                        .map_piece(piece)
                        .context("the piece cannot be mapped again")?;
                }
                stage.model()?.end_hole(pages);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
