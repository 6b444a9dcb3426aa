// SPDX-License-Identifier: GPL-2.0

//! The common part of the fuzz targets: bytes become operations on page tables, which are
//! compared with a model and with a reader of the raw tables (`iommu_pt_host::sequence`).

#[cfg(not(feature = "libfuzzer"))]
mod driver;

#[cfg(not(feature = "libfuzzer"))]
pub use driver::run;

#[doc(hidden)]
pub use iommu_pt_host;
#[cfg(feature = "libfuzzer")]
#[doc(hidden)]
pub use libfuzzer_sys;

/// A target for one of `iommu_pt_host::spec`: for libFuzzer, or a program by itself.
#[cfg(feature = "libfuzzer")]
#[macro_export]
macro_rules! target {
    ($spec:ident) => {
        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
            $crate::iommu_pt_host::sequence::check::<$crate::iommu_pt_host::spec::$spec>(bytes)
        });
    };
}

/// A target for one of `iommu_pt_host::spec`: for libFuzzer, or a program by itself.
#[cfg(not(feature = "libfuzzer"))]
#[macro_export]
macro_rules! target {
    ($spec:ident) => {
        fn main() -> std::process::ExitCode {
            $crate::run(
                $crate::iommu_pt_host::sequence::check::<$crate::iommu_pt_host::spec::$spec>,
            )
        }
    };
}
