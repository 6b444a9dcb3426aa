// SPDX-License-Identifier: GPL-2.0

//! QEMU's `page-writer`, a PCI function that writes memory by itself, and its interrupts.
//!
//! vfio is what gives a program the interrupts of a function. The virtual machine has no IOMMU, so it
//! is used without one, and the function is told guest-physical addresses.

use std::{
    ffi::CString,
    fs::{
        self,
        File, //
    },
    io,
    os::{
        fd::OwnedFd,
        unix::fs::FileExt, //
    },
    path::{
        Path,
        PathBuf, //
    },
    thread,
    time::{
        Duration,
        Instant, //
    },
};

use anyhow::{
    bail,
    ensure,
    Context,
    Result, //
};
use rustix::{
    event::{
        eventfd,
        EventfdFlags, //
    },
    io::Errno, //
};
use vm_rule::rule::Rule;

use crate::sys::{
    vfio,
    window::Window, //
};

const DEVICES: &str = "/sys/bus/pci/devices";
/// `vendor` and `device` of the function in sysfs.
const IDS: (&str, &str) = ("0x1234", "0x11f1");

/// Registers of BAR 0.
const ID: usize = 0x00;
const CONTROL: usize = 0x08;
const STATUS: usize = 0x10;
const BASE: usize = 0x18;
const LENGTH: usize = 0x20;
const SEED: usize = 0x28;
const RATE: usize = 0x30;
const LIMIT: usize = 0x38;
const COUNTER: usize = 0x40;
const PROGRESS: usize = 0x48;
const FAILED: usize = 0x50;
const FAILED_ADDRESS: usize = 0x58;

const ID_VALUE: u64 = 0x0001_5257_4547_4150;
const CONTROL_RUN: u64 = 1 << 0;
const STATUS_WRITES: u64 = 1 << 0;

/// In BAR 2: which page each of the last writes went to.
const JOURNAL: u64 = 0x10000;
const JOURNAL_ENTRIES: u64 = 8192;

/// The command register in configuration space: memory decoding and bus mastering.
const COMMAND: u64 = 4;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_MASTER: u16 = 1 << 2;

/// How long a function, its file or its last write may take to appear.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// What a function is told to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    /// The guest-physical address of the memory.
    pub(crate) base: u64,
    /// Which pages.
    pub(crate) rule: Rule,
    /// Writes in a second.
    pub(crate) rate: u64,
    /// Writes after which it interrupts.
    pub(crate) progress: u64,
}

/// A function that this program uses.
pub(crate) struct Function {
    /// Its address on the PCI bus.
    pub(crate) name: String,
    registers: Window,
    journal: Window,
    config: File,
    progress: OwnedFd,
    failure: OwnedFd,
    // In this order vfio's files are closed.
    _device: OwnedFd,
    _group: File,
    _container: File,
}

/// Waits for what `look` finds, for a bounded time.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(
            begin.elapsed() < PATIENCE,
            "{what}: waited {} seconds for it",
            PATIENCE.as_secs()
        );
        thread::sleep(POLL);
    }
}

/// Allows vfio to be used without an IOMMU.
///
/// # Errors
///
/// The kernel is not built with it.
pub(crate) fn allow_vfio() -> Result<()> {
    let switch = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
    fs::write(switch, "1").with_context(|| {
        format!("cannot write {switch}: build the kernel with CONFIG_VFIO_NOIOMMU")
    })
}

/// The function below a port, which is given by its address on the PCI bus.
fn below(port: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(DEVICES).with_context(|| format!("cannot read {DEVICES}"))? {
        // One that goes away meanwhile is none.
        let Ok(path) = fs::canonicalize(entry?.path()) else {
            continue;
        };
        let is = |file: &str, id: &str| {
            fs::read_to_string(path.join(file)).is_ok_and(|text| text.trim() == id)
        };
        let here = path.components().any(|part| part.as_os_str() == port);
        if here && is("vendor", IDS.0) && is("device", IDS.1) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn open(path: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).open(path);
    file.with_context(|| format!("cannot open {}", path.display()))
}

/// An eventfd that does not block.
fn event() -> Result<OwnedFd> {
    eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).context("cannot make an eventfd")
}

/// Takes what has been added to an eventfd.
fn take(event: &OwnedFd) -> Result<u64> {
    let mut count = [0; 8];
    match rustix::io::read(event, &mut count) {
        Ok(_) => Ok(u64::from_ne_bytes(count)),
        Err(Errno::AGAIN) => Ok(0),
        Err(e) => Err(io::Error::from(e)).context("cannot read an eventfd"),
    }
}

impl Function {
    /// Takes the function below a port, which may still be on its way, from a state without history.
    ///
    /// # Errors
    ///
    /// It does not come, or the kernel does not hand it out.
    pub(crate) fn take(port: &str) -> Result<Self> {
        let path = wait_for(&format!("no function 1234:11f1 below {port}"), || {
            below(port)
        })?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let bind = || -> io::Result<()> {
            fs::write(path.join("driver_override"), "vfio-pci")?;
            if !path.join("driver").exists() {
                fs::write("/sys/bus/pci/drivers_probe", name.as_bytes())?;
            }
            Ok(())
        };
        bind().with_context(|| format!("cannot bind {name} to vfio-pci"))?;
        let group = wait_for(&format!("{name} gets no group of vfio"), || {
            Ok(fs::canonicalize(path.join("iommu_group")).ok())
        })?;
        let number = group.file_name().unwrap_or_default().to_string_lossy();
        let file = PathBuf::from(format!("/dev/vfio/noiommu-{number}"));
        wait_for(&format!("no {}", file.display()), || {
            Ok(file.exists().then_some(()))
        })?;

        let (group, container) = (open(&file)?, open(Path::new("/dev/vfio/vfio"))?);
        vfio::set_container(&group, &container).context("the group gets no container")?;
        vfio::set_no_iommu(&container).context("vfio does not do without an IOMMU")?;
        // The group appears before its function does, where the kernel binds a function that has just
        // been plugged in.
        let c_name = CString::new(name.as_bytes())?;
        let device = wait_for(
            &format!("vfio does not open {name}"),
            || match vfio::open_device(&group, &c_name) {
                Err(e) if e.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(None),
                opened => opened
                    .map(Some)
                    .with_context(|| format!("vfio does not open {name}")),
            },
        )?;
        let (progress, failure) = (event()?, event()?);
        vfio::set_msix(&device, [&progress, &failure])
            .with_context(|| format!("{name} gets no MSI-X interrupts"))?;

        // CAST: The journal has 64 KiB.
        let journal = (JOURNAL_ENTRIES * 8) as usize;
        let function = Self {
            registers: Window::of_file(&open(&path.join("resource0"))?, 0, 4096)
                .with_context(|| format!("cannot map BAR 0 of {name}"))?,
            journal: Window::of_file(&open(&path.join("resource2"))?, JOURNAL, journal)
                .with_context(|| format!("cannot map BAR 2 of {name}"))?,
            config: open(&path.join("config"))?,
            name: name.into_owned(),
            progress,
            failure,
            _device: device,
            _group: group,
            _container: container,
        };
        function.set_master(true)?;
        let id = function.registers.load(ID)?;
        ensure!(
            id == ID_VALUE,
            "{} is no page writer of version 1: its ID is {id:#x}",
            function.name
        );
        Ok(function)
    }

    /// Has it write, from number 1 on.
    ///
    /// # Errors
    ///
    /// It does not want to.
    pub(crate) fn start(&self, program: &Program) -> Result<()> {
        let registers = &self.registers;
        registers.store(CONTROL, 0)?;
        for (register, value) in [
            (BASE, program.base),
            (LENGTH, program.rule.pages * vm_rule::rule::PAGE_SIZE as u64),
            (SEED, program.rule.seed),
            (RATE, program.rate),
            (LIMIT, 0),
            (PROGRESS, program.progress),
        ] {
            registers.store(register, value)?;
        }
        registers.store(CONTROL, CONTROL_RUN)?;
        ensure!(
            registers.load(CONTROL)? & CONTROL_RUN != 0,
            "{} does not run with {program:?}",
            self.name
        );
        Ok(())
    }

    /// Ends what `start` began. The counter stands.
    pub(crate) fn stop(&self) -> Result<()> {
        Ok(self.registers.store(CONTROL, 0)?)
    }

    /// Lets it write, or holds it up without a change to what it is to do.
    ///
    /// # Errors
    ///
    /// Its configuration space cannot be accessed.
    pub(crate) fn set_master(&self, on: bool) -> Result<()> {
        let access = || -> io::Result<()> {
            let mut bytes = [0; 2];
            self.config.read_exact_at(&mut bytes, COMMAND)?;
            let command = u16::from_le_bytes(bytes) | COMMAND_MEMORY;
            let command = match on {
                true => command | COMMAND_MASTER,
                false => command & !COMMAND_MASTER,
            };
            self.config.write_all_at(&command.to_le_bytes(), COMMAND)
        };
        access().with_context(|| format!("cannot access the configuration of {}", self.name))
    }

    /// Waits until it writes nothing, and returns the number of its last write.
    ///
    /// # Errors
    ///
    /// It goes on although it is held up.
    pub(crate) fn settle(&self) -> Result<u64> {
        let mut last = None;
        wait_for(&format!("{} goes on", self.name), || {
            let counter = self.counter()?;
            let writes = self.registers.load(STATUS)? & STATUS_WRITES != 0;
            let stands = !writes && last.replace(counter) == Some(counter);
            Ok(stands.then_some(counter))
        })
    }

    /// The number of its last write.
    pub(crate) fn counter(&self) -> Result<u64> {
        Ok(self.registers.load(COUNTER)?)
    }

    /// Waits until it has made so many writes.
    ///
    /// # Errors
    ///
    /// It does not go on.
    pub(crate) fn await_counter(&self, number: u64) -> Result<()> {
        wait_for(&format!("write {number} of {}", self.name), || {
            Ok((self.counter()? >= number).then_some(()))
        })
    }

    /// How many writes failed, and where the first of them went.
    pub(crate) fn failed(&self) -> Result<(u64, u64)> {
        Ok((
            self.registers.load(FAILED)?,
            self.registers.load(FAILED_ADDRESS)?,
        ))
    }

    /// Interrupts since the last call: of progress, and of failed writes.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn interrupts(&self) -> Result<(u64, u64)> {
        Ok((take(&self.progress)?, take(&self.failure)?))
    }

    /// Compares the journal with the pages that the last writes up to `counter` must have gone to.
    ///
    /// # Errors
    ///
    /// The first entry that differs.
    pub(crate) fn check_journal(&self, rule: &Rule, counter: u64) -> Result<()> {
        for number in counter.saturating_sub(JOURNAL_ENTRIES - 1).max(1)..=counter {
            // CAST: The journal has 64 KiB.
            let entry = self.journal.load((number % JOURNAL_ENTRIES * 8) as usize)?;
            if entry != rule.page(number) {
                bail!(
                    "the journal of {} says that write {number} of {counter} went to page {entry}, not {}",
                    self.name,
                    rule.page(number)
                );
            }
        }
        Ok(())
    }
}
