// SPDX-License-Identifier: GPL-2.0

//! Messages of code that drivers share: with the name of the driver's module in front.

use kernel::{
    fmt,
    prelude::*,
    print::{
        call_printk,
        format_strings, //
    }, //
};

/// Prints an error of the module `module`.
///
/// Context: any.
pub(super) fn error(module: &'static CStr, message: fmt::Arguments<'_>) {
    print(&format_strings::ERR, module, message);
}

/// Prints information of the module `module`.
///
/// Context: any.
pub(super) fn info(module: &'static CStr, message: fmt::Arguments<'_>) {
    print(&format_strings::INFO, module, message);
}

fn print(
    format: &'static [u8; format_strings::LENGTH],
    module: &'static CStr,
    message: fmt::Arguments<'_>,
) {
    // SAFETY: Both callers pass a format string of `format_strings`; the name ends in NUL.
    unsafe { call_printk(format, module.to_bytes_with_nul(), message) };
}
