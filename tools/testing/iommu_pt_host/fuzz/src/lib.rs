// SPDX-License-Identifier: GPL-2.0

//! The common part of the fuzz targets: bytes become operations on page tables, which are
//! compared with a model and with a reader of the raw tables (`iommu_pt_host::sequence`).

#[cfg(not(feature = "libfuzzer"))]
mod driver;

#[cfg(not(feature = "libfuzzer"))]
pub use driver::run;

use iommu_pt_host::{
    sequence,
    spec, //
};
use std::sync::OnceLock;

#[cfg(feature = "libfuzzer")]
#[doc(hidden)]
pub use libfuzzer_sys;

macro_rules! checks {
    ($($name:ident: $spec:ident,)* ; $($other:ident: $other_spec:ident,)*) => {
        &[
            $((stringify!($name), sequence::check::<spec::$spec>),)*
            $((stringify!($other), sequence::check::<spec::$other_spec>),)*
        ]
    };
}

/// Runs the sequence in some bytes.
type Check = fn(&[u8]);

/// The formats.
const CHECKS: &[(&str, Check)] = iommu_pt_host::iommu_pt_for_each_format!(checks);

/// Runs the sequence in `bytes` in the format that `FORMAT` in the environment names.
pub fn check(bytes: &[u8]) {
    static CHECK: OnceLock<Check> = OnceLock::new();

    let check = CHECK.get_or_init(|| {
        let format = std::env::var("FORMAT").unwrap_or_default();

        match CHECKS.iter().find(|check| check.0 == format) {
            Some(check) => check.1,
            None => panic!("FORMAT='{format}' is none"),
        }
    });

    check(bytes);
}

/// A target that runs a function: for libFuzzer, or a program by itself.
#[cfg(feature = "libfuzzer")]
#[macro_export]
macro_rules! target {
    ($check:path) => {
        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| { $check(bytes) });
    };
}

/// A target that runs a function: for libFuzzer, or a program by itself.
#[cfg(not(feature = "libfuzzer"))]
#[macro_export]
macro_rules! target {
    ($check:path) => {
        fn main() -> std::process::ExitCode {
            $crate::run($check)
        }
    };
}
