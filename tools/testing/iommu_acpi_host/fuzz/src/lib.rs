// SPDX-License-Identifier: GPL-2.0

//! The common part of the fuzz targets: bytes become a firmware table, and the parser's result is
//! compared with a second reading of the same bytes (`iommu_acpi_host::check`).

#[cfg(not(feature = "libfuzzer"))]
#[path = "../../../iommu_pt_host/fuzz/src/driver.rs"]
mod driver;

#[cfg(not(feature = "libfuzzer"))]
pub use driver::run;

#[doc(hidden)]
pub use iommu_acpi_host;
#[cfg(feature = "libfuzzer")]
#[doc(hidden)]
pub use libfuzzer_sys;

/// Runs one of `iommu_acpi_host::check` on the table that `bytes` stand for.
///
/// Runs it twice: with the bytes as four bytes of the fixed part and the records, and with the
/// bytes as the whole table. With `TRACE` in the environment the table is printed.
pub fn check(signature: &[u8; 4], check: fn(&[u8]), bytes: &[u8]) {
    let table = iommu_acpi_host::check::with_fixed_part(signature, bytes);

    if std::env::var_os("TRACE").is_some() {
        for (line, bytes) in table.chunks(16).enumerate() {
            println!("{:04x}  {bytes:02x?}", 16 * line);
        }
    }
    check(&table);
    check(bytes);
}

/// A target for one of `iommu_acpi_host::check`: for libFuzzer, or a program by itself.
#[cfg(feature = "libfuzzer")]
#[macro_export]
macro_rules! target {
    ($signature:literal, $check:ident) => {
        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
            $crate::check($signature, $crate::iommu_acpi_host::check::$check, bytes)
        });
    };
}

/// A target for one of `iommu_acpi_host::check`: for libFuzzer, or a program by itself.
#[cfg(not(feature = "libfuzzer"))]
#[macro_export]
macro_rules! target {
    ($signature:literal, $check:ident) => {
        fn main() -> std::process::ExitCode {
            $crate::run(|bytes| {
                $crate::check($signature, $crate::iommu_acpi_host::check::$check, bytes)
            })
        }
    };
}
