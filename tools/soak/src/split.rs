// SPDX-License-Identifier: GPL-2.0

//! The parameter `split` of the driver, which decides whether large leaves of page tables that are
//! allocated later are split.

use std::{
    fs,
    path::{
        Path,
        PathBuf, //
    },
};

use anyhow::{
    Context,
    Result, //
};

use crate::function::tell;

/// The drivers that have it.
const DRIVERS: [&str; 2] = ["rust_vtd", "rust_amdvi"];

/// The file of the driver that is loaded, if it is one of these.
fn file() -> Option<PathBuf> {
    DRIVERS
        .iter()
        .map(|driver| Path::new("/sys/kernel/debug").join(driver).join("split"))
        .find(|path| path.exists())
}

/// What it is now, if the driver has it.
///
/// # Errors
///
/// The file does not hold a number.
pub(crate) fn parameter() -> Result<Option<u32>> {
    let Some(path) = file() else { return Ok(None) };
    let text = fs::read_to_string(&path)?;
    let value = text.trim().parse();
    value
        .map(Some)
        .with_context(|| format!("{} does not hold a number", path.display()))
}

/// Changes it; says whether page tables that are allocated from now on have leaves that are split.
///
/// # Errors
///
/// The driver does not take the value.
pub(crate) fn choose(value: u32) -> Result<bool> {
    let Some(path) = file() else { return Ok(false) };
    tell(path, &value.to_string())?;
    Ok(value != 0)
}
