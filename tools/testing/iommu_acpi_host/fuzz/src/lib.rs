// SPDX-License-Identifier: GPL-2.0

//! What the fuzz targets have in common: bytes become a firmware table, and what a parser says of
//! it is held against a second reading of the same bytes (`iommu_acpi_host::check`).

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
/// They are the table from its first record on, with four bytes of the fixed part in front, and
/// once the table itself. With `TRACE` in the environment the table is printed.
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
