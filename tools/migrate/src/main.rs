// SPDX-License-Identifier: GPL-2.0

//! Migrates memory while a PCI device keeps writing to it, as a VMM does.
//!
//! | module     | subject                                                             |
//! |------------|---------------------------------------------------------------------|
//! | `cli`      | the command line                                                    |
//! | `function` | the PCI function, in sysfs                                          |
//! | `iommu`    | vfio, iommufd, the tracker of dirty pages                           |
//! | `device`   | devices that can be told what to write                              |
//! | `pattern`  | what they are told                                                  |
//! | `place`    | where they see the memory                                           |
//! | `worker`   | the thread that keeps one writing                                   |
//! | `truth`    | what it has written, and whether that was reported                  |
//! | `rounds`   | the migration                                                       |
//! | `report`   | what is shown of it, with `strip`                                   |
//! | `sys`      | the only `unsafe` code                                              |

mod cli;
mod device;
mod function;
mod iommu;
mod pattern;
mod place;
mod report;
mod rounds;
mod strip;
#[expect(unsafe_code, reason = "memory that a device writes, and ioctls")]
mod sys;
mod truth;
mod worker;

use std::{
    fs,
    process::ExitCode,
    sync::Arc, //
};

use anyhow::{
    ensure,
    Context,
    Result, //
};
use clap::Parser;
use device_memory::Memory;
use iommufd_dirty::Bitmap;

use crate::{
    cli::{
        show_size,
        Options,
        PageSize, //
    },
    device::Window,
    function::Function,
    iommu::Attached,
    pattern::Pattern,
    place::{
        Places,
        WINDOW_IOVA, //
    },
    report::{
        Report,
        Subject, //
    },
    rounds::{
        Limits,
        Source, //
    },
    truth::Truth,
    worker::{
        Job,
        Worker, //
    },
};

/// The unit of the dirty bitmap: the smallest page of the CPU and of all IOMMUs of interest.
const PAGE_SIZE: usize = 4096;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(e) => {
            // Help and version come this way too, and are no failure. Nothing can be done about a
            // terminal that does not take the message.
            let _ = e.print();
            return if e.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            Report::failure(options.json, &format!("{e:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Migrates, and says whether that was a success.
fn run(options: &Options) -> Result<bool> {
    let size = options.memory_size()?;
    let pages = size / PAGE_SIZE;
    let function = Function::find(options.device.as_deref())?;
    let model = function.model;
    let places = place::choose(options, size, model)?;
    let iova = places.first().copied().unwrap_or(0);

    let memory = Arc::new(guest_memory(options, size)?);
    for page in 0..pages {
        let mut bytes = [0; PAGE_SIZE];
        pattern::fill(!options.seed, page as u64, &mut bytes);
        memory.copy_in(page * PAGE_SIZE, &bytes)?;
    }
    let window = Window {
        memory: Memory::new(c"device-window", model.window_size, None)
            .context("cannot get memory for the device's rings; free some memory")?,
        iova: WINDOW_IOVA,
    };

    let attached = Attached::new(&function, options.page_size)?;
    attached.map(iova, &memory)?;
    attached.map(window.iova, &window.memory)?;
    attached.set_bus_master(true)?;
    let truth = Arc::new(Truth::new(none_of(pages)?));
    let engine = (model.start)(attached.bar0(model.bar_size)?, window)?;
    let mut worker = Worker::start(
        Job {
            engine,
            memory: Arc::clone(&memory),
            places: Arc::new(Places::new(iova)),
            pattern: Pattern::new(options.seed, size),
            truth,
            rate: (options.rate > 0).then_some(options.rate),
        },
        32,
    )?;
    for &iova in places.iter().skip(1) {
        // The device writes meanwhile.
        attached.map(iova, &memory)?;
        worker.add_place(iova, 32)?;
    }

    let subject = Subject {
        iommu: fs::read_link(function.path.join("iommu"))
            .ok()
            .and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()))
            .unwrap_or_else(|| "an IOMMU".into()),
        function: &function,
        places: &places,
        size,
    };
    let mut report = Report::new(options);
    report.heading(options, &subject);
    let outcome = rounds::migrate(
        pages,
        &Guest(memory),
        &mut attached.tracker(&places),
        &mut worker,
        &Limits {
            // CAST: A `u32` fits into a `usize` of the supported targets.
            threshold: options.threshold as usize,
            rounds: options.rounds as usize,
            bandwidth: (options.bandwidth > 0).then_some(options.bandwidth),
            wait: worker::PATIENCE,
        },
        &mut report,
    )?;
    attached.set_bus_master(false)?;
    report.verdict(options, &subject, &outcome);
    Ok(outcome.is_good())
}

/// A bitmap of the memory, whose first page is number 0.
///
/// # Errors
///
/// There is no page, or there are too many.
fn none_of(pages: usize) -> Result<Bitmap> {
    let length = pages.saturating_mul(PAGE_SIZE);
    Ok(Bitmap::new(0, length as u64, PAGE_SIZE as u64)?)
}

/// A bitmap of a memory of so many pages, some of them dirty.
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests have memories that there can be")]
fn bitmap_of(pages: usize, dirty: impl IntoIterator<Item = usize>) -> Bitmap {
    let mut bitmap = none_of(pages).unwrap();
    dirty.into_iter().for_each(|page| bitmap.set(page));
    bitmap
}

/// The memory to migrate, on the pages asked for.
fn guest_memory(options: &Options, size: usize) -> Result<Memory> {
    let huge_page = options.page_size.hugetlb();
    // The copy is as large again. Without this check the kernel would rather kill the program.
    let wanted = if huge_page.is_some() { size } else { 2 * size } as u64;
    let available = available_memory();
    ensure!(
        available.is_none_or(|available| wanted < available),
        "a --size of {} takes {} of memory, of which {} MiB are left; use a smaller --size",
        show_size(size as u64),
        show_size(wanted),
        available.unwrap_or(0) >> 20
    );
    let page_name = options.page_size.name();
    Memory::new(c"guest-memory", size, huge_page).with_context(|| match huge_page {
        None => format!(
            "cannot get {} of memory; use a smaller --size",
            show_size(size as u64)
        ),
        // Runtime reservation rarely finds 1 GiB in one piece.
        Some(page) if options.page_size == PageSize::Huge => format!(
            "cannot get {size} of hugetlb pages of {page_name}; boot with \"hugepagesz={page_name} \
             hugepages={}\"",
            size as u64 / page,
            size = show_size(size as u64),
        ),
        Some(page) => format!(
            "cannot get {size} of hugetlb pages of {page_name}; reserve them with \
             \"echo {} > /sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages\"",
            size as u64 / page,
            page >> 10,
            size = show_size(size as u64),
        ),
    })
}

/// Bytes of memory that programs can still have, if the kernel says so.
fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The memory as the migration reads it.
struct Guest(Arc<Memory>);

impl Source for Guest {
    fn read(&self, page: usize, to: &mut [u8; PAGE_SIZE]) -> Result<()> {
        Ok(self.0.copy_out(page * PAGE_SIZE, to)?)
    }
}
