// SPDX-License-Identifier: GPL-2.0

//! PASIDs of a device (`pasid-dma` of this project's QEMU), each in one of two page tables.
//!
//! The device makes a write while the program waits for it, so each report must be exact.

use std::fs::File;

use anyhow::{
    ensure,
    Context,
    Result, //
};
use device_memory::{
    Memory,
    Registers, //
};

use super::{
    Act,
    Hands, //
};
use crate::{
    bits::Bits,
    failing::Outcome,
    function::Function,
    op::{
        Op,
        Step,
        LANES,
        LANE_PAGES,
        PASIDS, //
    },
    stage::{
        Stage,
        AREA_IOVA,
        PAGE, //
    },
    sys::{
        iommufd::Ask,
        vfio, //
    },
    writer, //
};

/// Vendor and device, as sysfs writes them.
pub(crate) const IDS: (&str, &str) = ("0x1234", "0x11ef");

/// What the register ID holds.
const PASID_DMA_ID: u64 = 0x414d_442d_4453_4150;

/// The registers of BAR 0.
const BAR_SIZE: usize = 0x2000;
const ID: usize = 0x00;
const TARGET: usize = 0x10;
const LENGTH: usize = 0x18;
const PASID: usize = 0x20;
const COMMAND: usize = 0x28;
const STATUS: usize = 0x30;
const BUFFER: usize = 0x1000;

const HAS_PASID: u64 = 1 << 31;
const COMMAND_WRITE: u64 = 1 << 1;
/// It failed, and it was the write.
const WRITE_REFUSED: u64 = 1 << 0 | 1 << 2;

/// A page table and its memory.
struct Lane {
    ioas: u32,
    hwpt: u32,
    memory: Memory,
    tracks: bool,
    dirty: Bits,
    /// The last word written to each page.
    words: Vec<u64>,
}

/// The device, its lanes, and which of them each PASID has.
pub(super) struct Pasids {
    file: File,
    bar: Registers,
    numbers: [u32; PASIDS],
    lanes: Vec<Lane>,
    attached: [Option<usize>; PASIDS],
    stamp: u64,
}

impl Pasids {
    /// Opens the device.
    ///
    /// # Errors
    ///
    /// The kernel refuses, or it has no PASIDs.
    pub(super) fn open(stage: &Stage, function: &Function) -> Result<Self> {
        let name = &function.name;
        let iommufd = &stage.iommufd;
        let file = function.open()?;
        let id = vfio::bind(&file, iommufd.file())
            .with_context(|| format!("cannot bind {name} to iommufd"))?;
        writer::enable(&file)?;
        let (offset, _) = vfio::region(&file, vfio::REGION_BAR0)?;
        let bar = Registers::map(&file, offset, BAR_SIZE)?;
        ensure!(bar.read64(ID)? == PASID_DMA_ID, "{name} is no pasid-dma");
        let bits = iommufd.pasid_bits(id)?;
        ensure!(bits > 0, "{name} has no PASIDs");
        let lanes = (0..LANES)
            .map(|_| {
                let ioas = iommufd.ioas_alloc()?;
                iommufd.forbid_large_leaves(ioas)?;
                let memory = Memory::new(c"soak", LANE_PAGES * PAGE, None)?;
                iommufd.map(ioas, AREA_IOVA, &memory, 0, memory.len())?;
                Ok(Lane {
                    ioas,
                    hwpt: iommufd.hwpt_alloc(id, ioas, true)?,
                    memory,
                    tracks: false,
                    dirty: Bits::new(LANE_PAGES),
                    words: vec![0; LANE_PAGES],
                })
            })
            .collect::<Result<Vec<_>>>()
            .context("cannot make page tables for PASIDs")?;
        Ok(Self {
            file,
            bar,
            numbers: [1, (1 << bits) - 1],
            lanes,
            attached: [None; PASIDS],
            stamp: 0,
        })
    }

    fn attach(
        &mut self,
        hands: &mut Hands<'_>,
        step: &Step,
        pasid: usize,
        to: Option<usize>,
    ) -> Result<()> {
        if to.is_none() && self.attached[pasid].is_none() {
            return Ok(());
        }
        let number = Some(self.numbers[pasid]);
        let outcome = hands
            .failing
            .run(step.fail, || match to {
                Some(lane) => vfio::attach(&self.file, number, self.lanes[lane].hwpt),
                None => vfio::detach(&self.file, number),
            })
            .context("the kernel refuses")?;
        if outcome == Outcome::Done {
            self.attached[pasid] = to;
        }
        hands.figures.moves += 1;
        Ok(())
    }

    /// A write arrives in the lane of its PASID, or nowhere.
    fn write(&mut self, hands: &mut Hands<'_>, pasid: usize, page: usize) -> Result<()> {
        self.stamp += 1;
        let registers = [
            (BUFFER, self.stamp),
            (TARGET, AREA_IOVA + (page * PAGE) as u64),
            (LENGTH, 8),
            (PASID, u64::from(self.numbers[pasid]) | HAS_PASID),
            (COMMAND, COMMAND_WRITE),
        ];
        for (register, value) in registers {
            self.bar.write64(register, value)?;
        }
        let status = self.bar.read64(STATUS)?;
        let expected = self.attached[pasid].map_or(WRITE_REFUSED, |_| 0);
        ensure!(
            status == expected,
            "the device has status {status:#x}, not {expected:#x}"
        );
        if let Some(lane) = self.attached[pasid] {
            let lane = &mut self.lanes[lane];
            lane.words[page] = self.stamp;
            if lane.tracks {
                lane.dirty.set(page);
                hands.figures.tracked += 1;
            }
        }
        hands.figures.writes += 1;
        for (number, lane) in self.lanes.iter().enumerate() {
            let word = lane.memory.load(page * PAGE)?;
            ensure!(
                word == lane.words[page],
                "page {page} of lane {number} has write {word}, not {}",
                lane.words[page]
            );
        }
        Ok(())
    }

    fn track(&mut self, hands: &mut Hands<'_>, step: &Step, lane: usize, on: bool) -> Result<()> {
        let lane = &mut self.lanes[lane];
        let outcome = hands
            .failing
            .run(step.fail, || hands.stage.iommufd.track(lane.hwpt, on))
            .context("the kernel refuses")?;
        if outcome == Outcome::Done {
            lane.tracks = on;
            lane.dirty.clear();
        } else if on && lane.tracks {
            // It may have forgotten what was dirty, or a part of that: begin anew.
            hands.stage.iommufd.track(lane.hwpt, true)?;
            lane.dirty.clear();
        }
        Ok(())
    }

    fn query(&mut self, hands: &mut Hands<'_>, step: &Step) -> Result<()> {
        let Op::PasidQuery {
            lane,
            first,
            pages,
            clear,
        } = step.op
        else {
            return Ok(());
        };
        let lane = &mut self.lanes[lane];
        let mut bitmap = [0; LANE_PAGES.div_ceil(64)];
        let ask = Ask {
            iova: AREA_IOVA + (first * PAGE) as u64,
            length: (pages * PAGE) as u64,
            unit: PAGE as u64,
            clear,
        };
        // With all its memory: a failed allocation may make the report inexact.
        hands
            .stage
            .iommufd
            .dirty(lane.hwpt, &ask, &mut bitmap, 0)
            .context("the kernel refuses")?;
        hands.figures.queries += 1;
        if !lane.tracks {
            return Ok(());
        }
        for bit in 0..pages {
            let page = first + bit;
            let reported = bitmap[bit / 64] >> (bit % 64) & 1 != 0;
            match (lane.dirty.get(page), reported) {
                (true, false) => anyhow::bail!("page {page} was written and not reported: lost"),
                (false, true) => anyhow::bail!("page {page} was reported and not written"),
                (_, reported) => hands.figures.reported += u64::from(reported),
            }
            if clear {
                lane.dirty.unset(page);
            }
        }
        Ok(())
    }

    fn reset(&mut self, hands: &mut Hands<'_>) -> Result<()> {
        vfio::reset(&self.file).context("the kernel refuses")?;
        hands.figures.resets += 1;
        writer::enable(&self.file)
    }
}

impl Act for Pasids {
    fn step(&mut self, hands: &mut Hands<'_>, step: &Step) -> Result<()> {
        match step.op {
            Op::PasidMove { pasid, to } => self.attach(hands, step, pasid, to),
            Op::PasidWrite { pasid, page } => self.write(hands, pasid, page),
            Op::PasidTrack { lane, on } => self.track(hands, step, lane, on),
            Op::PasidQuery { .. } => self.query(hands, step),
            Op::PasidReset => self.reset(hands),
            _ => Ok(()),
        }
    }

    /// Frees everything: each must be free to go.
    fn end(&mut self, hands: &mut Hands<'_>) -> Result<()> {
        for (number, attached) in self.numbers.iter().zip(&mut self.attached) {
            if attached.take().is_some() {
                vfio::detach(&self.file, Some(*number)).context("cannot detach a PASID")?;
            }
        }
        for lane in self.lanes.drain(..) {
            for id in [lane.hwpt, lane.ioas] {
                hands
                    .stage
                    .iommufd
                    .destroy(id)
                    .context("cannot free the table of a PASID")?;
            }
        }
        Ok(())
    }
}
