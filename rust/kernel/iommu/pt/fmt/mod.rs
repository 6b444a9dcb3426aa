// SPDX-License-Identifier: GPL-2.0

//! The formats, and the list of them.

mod amdv1;
mod armv8;
mod riscv;
mod shared;
mod vtdss;
mod x86_64;

pub use amdv1::{
    AmdV1,
    AmdV1Mock, //
};
pub use armv8::{
    Armv8S1,
    Armv8S2, //
};
pub use riscv::{
    Riscv,
    RiscvX4, //
};
pub use vtdss::VtdSs;
pub use x86_64::X86_64;

/// Calls the macro `$stamp` with the list of all formats: a name, and the
/// type that both the format and the reading of its specification (`tests/spec`) are called.
///
/// This is the one list of formats. From it come the KUnit suites, the tests of the host crate and
/// of loom, and the fuzz targets; `tools/testing/harness/host/fuzz` reads the lines as text. Behind
/// the semicolon are those whose smallest page is not 4 KiB, which the suites assume.
#[doc(hidden)]
#[macro_export]
macro_rules! iommu_pt_for_each_format {
    ($stamp:ident) => {
        $stamp! {
            vtdss: VtdSs,
            x86_64: X86_64,
            amdv1: AmdV1,
            riscv: Riscv,
            riscv_x4: RiscvX4,
            armv8_s1: Armv8S1,
            armv8_s2: Armv8S2,
            ;
            amdv1_mock: AmdV1Mock,
        }
    };
}
