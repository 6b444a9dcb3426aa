// SPDX-License-Identifier: GPL-2.0

//! `page-writer`, a function of this project's QEMU that writes memory by itself
//! (`tools/qemu/README.md`), behind vfio.

use std::{
    fs::File,
    io::Read,
    os::{
        fd::AsRawFd,
        unix::fs::FileExt, //
    },
    sync::{
        Mutex,
        MutexGuard,
        PoisonError, //
    },
};

use anyhow::{
    ensure,
    Context,
    Result, //
};
use device_memory::Registers;

use crate::{
    function::Function,
    sys::{
        signal,
        vfio, //
    },
};

/// Vendor and device, as sysfs writes them.
pub(crate) const IDS: (&str, &str) = ("0x1234", "0x11f1");

/// What the register ID holds.
const WRITER_ID: u64 = 0x0001_5257_4547_4150;

/// The registers of BAR 0.
const ID: usize = 0x00;
const CONTROL: usize = 0x08;
const BASE: usize = 0x18;
const LENGTH: usize = 0x20;
const SEED: usize = 0x28;
const RATE: usize = 0x30;
const LIMIT: usize = 0x38;
const COUNTER: usize = 0x40;
const PROGRESS: usize = 0x48;
const FAILED: usize = 0x50;

/// Offset and bits of the command register in PCI configuration space.
const PCI_COMMAND: u64 = 0x04;
const PCI_COMMAND_MEMORY: u16 = 1 << 1;
const PCI_COMMAND_MASTER: u16 = 1 << 2;

/// What a writer writes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// The first address.
    pub(crate) iova: u64,
    /// Bytes.
    pub(crate) length: u64,
    /// Writes in a second.
    pub(crate) rate: u64,
}

impl Target {
    /// After how many writes there is an interrupt.
    pub(crate) fn progress(&self) -> u64 {
        (self.rate / 20).max(1)
    }
}

/// How many writes were made, and how many failed by the time before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) failed: u64,
    pub(crate) made: u64,
}

/// An open function.
pub(crate) struct Writer {
    /// Which one it is.
    pub(crate) function: Function,
    /// Its number in iommufd.
    pub(crate) id: u32,
    file: File,
    bar: Registers,
    eventfd: File,
    /// Whether it writes. Its registers are read only then: a reset empties them.
    runs: Mutex<bool>,
}

impl Writer {
    /// Opens a function, binds it to `iommufd` and lets it access memory. It does not write yet.
    ///
    /// # Errors
    ///
    /// The kernel refuses, or it is another device.
    pub(crate) fn open(function: &Function, iommufd: &File) -> Result<Self> {
        let file = function.open()?;
        let name = &function.name;
        let id =
            vfio::bind(&file, iommufd).with_context(|| format!("cannot bind {name} to iommufd"))?;
        let (offset, _) = vfio::region(&file, vfio::REGION_BAR0)?;
        enable(&file)?;
        let bar = Registers::map(&file, offset, 4096)
            .with_context(|| format!("cannot map BAR 0 of {name}"))?;
        ensure!(bar.read64(ID)? == WRITER_ID, "{name} is no page writer");
        Ok(Self {
            function: function.clone(),
            id,
            file,
            bar,
            eventfd: signal::eventfd()?,
            runs: Mutex::new(false),
        })
    }

    /// The device file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    fn runs(&self) -> MutexGuard<'_, bool> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to write.
    ///
    /// # Errors
    ///
    /// It does not.
    pub(crate) fn start(&self, target: &Target, seed: u64) -> Result<()> {
        let mut runs = self.runs();
        enable(&self.file)?;
        let registers = [
            (BASE, target.iova),
            (LENGTH, target.length),
            (SEED, seed),
            (RATE, target.rate),
            (LIMIT, 0),
            (PROGRESS, target.progress()),
            (CONTROL, 1),
        ];
        for (register, value) in registers {
            self.bar.write64(register, value)?;
        }
        ensure!(
            self.bar.read64(CONTROL)? == 1,
            "{} does not start",
            self.function.name
        );
        *runs = true;
        Ok(())
    }

    /// What it has counted, if it writes.
    ///
    /// # Errors
    ///
    /// None is expected.
    pub(crate) fn counts(&self) -> Result<Option<Counts>> {
        let runs = self.runs();
        if !*runs {
            return Ok(None);
        }
        self.read().map(Some)
    }

    /// In this order: each write that is known to have failed is counted, too.
    fn read(&self) -> Result<Counts> {
        let failed = self.bar.read64(FAILED)?;
        Ok(Counts {
            failed,
            made: self.bar.read64(COUNTER)?,
        })
    }

    /// Stops, and tells the last counts if it wrote.
    ///
    /// # Errors
    ///
    /// None is expected.
    pub(crate) fn stop(&self) -> Result<Option<Counts>> {
        let mut runs = self.runs();
        if !*runs {
            return Ok(None);
        }
        self.bar.write64(CONTROL, 0)?;
        *runs = false;
        self.read().map(Some)
    }

    /// Switches its interrupts.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn interrupts(&self, on: bool) -> std::io::Result<()> {
        vfio::interrupt(&self.file, on.then(|| self.eventfd.as_raw_fd()))
    }

    /// How many interrupts came since the last call.
    pub(crate) fn interrupts_seen(&self) -> u64 {
        let mut count = [0; 8];
        match (&self.eventfd).read(&mut count) {
            Ok(8) => u64::from_ne_bytes(count),
            // Nothing to read.
            _ => 0,
        }
    }
}

/// Lets a function be accessed and access memory.
pub(crate) fn enable(file: &File) -> Result<()> {
    let (config, _) = vfio::region(file, vfio::REGION_CONFIG)?;
    let mut command = [0; 2];
    file.read_exact_at(&mut command, config + PCI_COMMAND)?;
    let enabled = u16::from_le_bytes(command) | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    file.write_all_at(&enabled.to_le_bytes(), config + PCI_COMMAND)?;
    Ok(())
}
