// SPDX-License-Identifier: GPL-2.0

//! QEMU's teaching device (`-device edu`) as a DMA engine: one transfer at a time, each 100 ms long.
//!
//! It copies between its own buffer of 4 KiB and memory, so each batch is one transfer of all bytes
//! into the buffer, and one transfer out of it for each write. `docs/specs/edu.rst` of QEMU describes
//! the registers.

use std::{
    ops::RangeInclusive,
    time::Duration, //
};

use anyhow::{
    ensure,
    Result, //
};
use device_memory::Registers;

use super::{
    wait_for,
    Engine,
    Model,
    Window, //
};
use crate::pattern::Write;

pub(super) const MODEL: Model = Model {
    id: (0x1234, 0x11e8),
    name: "edu",
    bar_size: 0x1000,
    window_size: BUFFER_SIZE,
    // The device's default `dma_mask`.
    last_iova: (1 << 28) - 1,
    start: |bar, window| {
        let edu = Edu { bar, window };
        ensure!(
            edu.bar.read32(ID)? & 0xff == 0xed,
            "the function with edu's PCI number does not identify itself as edu; use igb"
        );
        Ok(Box::new(edu))
    },
};

const ID: usize = 0x00;
const DMA_SRC: usize = 0x80;
const DMA_DST: usize = 0x88;
const DMA_COUNT: usize = 0x90;
const DMA_COMMAND: usize = 0x98;
const DMA_RUN: u32 = 1 << 0;
/// Out of the device's buffer, to memory.
const DMA_TO_PCI: u32 = 1 << 1;

/// Where the device's own buffer is, as its DMA engine sees it.
const BUFFER: u64 = 0x4_0000;
const BUFFER_SIZE: usize = 4096;

/// Writes in a batch, and how long one may be so that they all fit into the buffer.
const BATCH: usize = 8;
const LONGEST: usize = BUFFER_SIZE / BATCH;

/// A hundred times what a transfer takes.
const LIMIT: Duration = Duration::from_secs(10);

struct Edu {
    bar: Registers,
    window: Window,
}

impl Edu {
    fn set(&self, register: usize, value: u64) -> Result<()> {
        // A write of 32 bits sets the whole register, with zeroes above: enough for `last_iova`.
        Ok(self.bar.write32(register, u32::try_from(value)?)?)
    }

    fn transfer(&self, from: u64, to: u64, count: usize, direction: u32) -> Result<()> {
        self.set(DMA_SRC, from)?;
        self.set(DMA_DST, to)?;
        self.set(DMA_COUNT, count as u64)?;
        self.bar.write32(DMA_COMMAND, DMA_RUN | direction)?;
        ensure!(
            wait_for(LIMIT, || Ok(self.bar.read32(DMA_COMMAND)? & DMA_RUN == 0))?,
            "edu did not end a transfer within {LIMIT:?}; look for DMA faults in the kernel's log"
        );
        Ok(())
    }
}

impl Engine for Edu {
    fn lengths(&self) -> RangeInclusive<usize> {
        8..=LONGEST
    }

    fn batch(&self) -> usize {
        BATCH
    }

    fn dma_write(&mut self, iova: u64, writes: &[Write]) -> Result<()> {
        ensure!(
            writes.len() <= BATCH
                && writes
                    .iter()
                    .all(|w| self.lengths().contains(&w.data.len())),
            "edu was asked for {} transfers at once or for one of a wrong length",
            writes.len()
        );
        for (i, write) in writes.iter().enumerate() {
            self.window.memory.copy_in(i * LONGEST, &write.data)?;
        }
        self.transfer(self.window.iova, BUFFER, BUFFER_SIZE, 0)?;
        for (i, write) in writes.iter().enumerate() {
            self.transfer(
                BUFFER + (i * LONGEST) as u64,
                iova + write.offset as u64,
                write.data.len(),
                DMA_TO_PCI,
            )?;
        }
        Ok(())
    }

    /// A transfer ends before `write` returns, and the device starts none by itself.
    fn stop(&mut self) -> Result<()> {
        Ok(())
    }
}
