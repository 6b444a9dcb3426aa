// SPDX-License-Identifier: GPL-2.0

//! Calls in which an allocation fails (`Documentation/fault-injection`).

use std::{
    fs::{
        File,
        OpenOptions, //
    },
    io,
    os::unix::fs::FileExt,
};

use anyhow::{
    Context,
    Result, //
};

use crate::function::tell;

/// By default only allocations that cannot wait fail, and no single pages.
const SETTINGS: [(&str, &str); 6] = [
    ("failslab/ignore-gfp-wait", "N"),
    ("failslab/verbose", "0"),
    ("fail_page_alloc/ignore-gfp-wait", "N"),
    ("fail_page_alloc/ignore-gfp-highmem", "N"),
    ("fail_page_alloc/min-order", "0"),
    ("fail_page_alloc/verbose", "0"),
];

/// Sets up the kernel for it.
///
/// # Errors
///
/// The kernel cannot.
pub(crate) fn set_up() -> Result<()> {
    for (file, value) in SETTINGS {
        tell(format!("/sys/kernel/debug/{file}"), value)
            .context("build the kernel with CONFIG_FAILSLAB and CONFIG_FAIL_PAGE_ALLOC")?;
    }
    // It exists only with CONFIG_IOMMUFD_TEST, and has one message less.
    let _ = tell("/sys/kernel/debug/fail_iommufd/verbose", "0");
    Ok(())
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As if nothing had failed in it.
    Done,
    /// With an error, as an allocation failed in it, or a signal came: nothing has changed.
    Failed,
}

/// The allocations of one thread.
pub(crate) struct Failing {
    nth: File,
    /// Whether signals interrupt calls.
    signals: bool,
    /// How many calls failed.
    pub(crate) failures: u64,
    /// Whether one failed in the last call, which may have succeeded all the same.
    pub(crate) reached: bool,
}

impl Failing {
    /// Those of this thread.
    ///
    /// # Errors
    ///
    /// The kernel does not have fault injection.
    pub(crate) fn new(signals: bool) -> Result<Self> {
        let nth = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/proc/thread-self/fail-nth")
            .context("build the kernel with CONFIG_FAULT_INJECTION")?;
        Ok(Self {
            nth,
            signals,
            failures: 0,
            reached: false,
        })
    }

    /// Makes a call in which allocation `nth` fails, if that is given.
    ///
    /// # Errors
    ///
    /// The call's, unless this is the reason.
    pub(crate) fn call<T>(
        &mut self,
        nth: Option<u32>,
        call: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        if let Some(nth) = nth {
            self.nth.write_all_at(nth.to_string().as_bytes(), 0)?;
        }
        let result = call();
        self.reached = nth.is_some() && self.disarm()?;
        match result {
            Ok(value) => Ok(Some(value)),
            Err(e) if self.reached || (self.signals && e.kind() == io::ErrorKind::Interrupted) => {
                self.failures += 1;
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// The same for a call without a result.
    ///
    /// # Errors
    ///
    /// As of [`Self::call`].
    pub(crate) fn run(
        &mut self,
        nth: Option<u32>,
        call: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Outcome> {
        Ok(match self.call(nth, call)? {
            Some(()) => Outcome::Done,
            None => Outcome::Failed,
        })
    }

    /// No more allocations fail; whether one has.
    fn disarm(&self) -> io::Result<bool> {
        let mut text = [0; 16];
        // If the failure hits this read or the write behind it, it did not hit the call.
        let reached = self.nth.read_at(&mut text, 0).is_ok() && text.starts_with(b"0");
        if self.nth.write_all_at(b"0", 0).is_err() {
            self.nth.write_all_at(b"0", 0)?;
        }
        Ok(reached)
    }
}
