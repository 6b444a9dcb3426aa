// SPDX-License-Identifier: GPL-2.0

//! The PCI functions that can be told to write given bytes to given addresses.

mod edu;
mod igb;

use std::{
    ops::RangeInclusive,
    time::{
        Duration,
        Instant, //
    },
};

use anyhow::Result;
use device_memory::{
    Memory,
    Registers, //
};

use crate::pattern::Write;

/// A device at work: it writes by DMA what it is told to.
pub(crate) trait Engine: Send {
    /// Bytes that each write has to start with.
    fn prefix(&self) -> &'static [u8] {
        &[]
    }

    /// How many bytes one write may have.
    fn lengths(&self) -> RangeInclusive<usize>;

    /// How many writes it takes at once.
    fn batch(&self) -> usize;

    /// Makes the device write all of `writes`, in this order, to the memory that it sees at `iova`;
    /// returns when it has. May sleep.
    ///
    /// # Errors
    ///
    /// The device did not do it within a bounded time.
    fn dma_write(&mut self, iova: u64, writes: &[Write]) -> Result<()>;

    /// Stops the device: it makes no access to memory afterwards.
    ///
    /// # Errors
    ///
    /// The device did not stop within a bounded time.
    fn stop(&mut self) -> Result<()>;
}

/// Memory of the program that the device reads and writes: descriptors and what they point to.
pub(crate) struct Window {
    /// The memory.
    pub(crate) memory: Memory,
    /// Where the device sees it.
    pub(crate) iova: u64,
}

/// A kind of device that this program can drive.
pub(crate) struct Model {
    /// PCI vendor and device number.
    pub(crate) id: (u16, u16),
    /// Name for messages.
    pub(crate) name: &'static str,
    /// How long the part of BAR 0 is that it is driven by.
    pub(crate) bar_size: usize,
    /// Size of the window that it needs.
    pub(crate) window_size: usize,
    /// The highest address that it can write to.
    pub(crate) last_iova: u64,
    /// Resets the device and makes it ready; it is allowed to access memory by now.
    pub(crate) start: fn(bar: Registers, window: Window) -> Result<Box<dyn Engine>>,
}

/// All of them.
pub(crate) const MODELS: [Model; 2] = [igb::MODEL, edu::MODEL];

/// The names of all of them, for messages.
pub(crate) fn names() -> String {
    MODELS
        .iter()
        .map(|m| format!("{} ({:04x}:{:04x})", m.name, m.id.0, m.id.1))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Waits until `done` says so, at most for `limit`; says whether it did. May sleep.
fn wait_for(limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<bool> {
    let start = Instant::now();
    loop {
        if done()? {
            return Ok(true);
        }
        let waited = start.elapsed();
        if waited >= limit {
            return Ok(false);
        }
        // Most devices answer at once; those that take long need not be asked often.
        let pause = (waited / 8).clamp(Duration::from_micros(5), Duration::from_millis(5));
        std::thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_bounded() -> Result<()> {
        assert!(!wait_for(Duration::from_millis(10), || Ok(false))?);
        let mut rest = 3;
        assert!(wait_for(Duration::from_secs(5), || {
            rest -= 1;
            Ok(rest == 0)
        })?);
        Ok(())
    }
}
