// SPDX-License-Identifier: GPL-2.0

//! Enables the options that the kernel's
//! configuration would enable.

fn main() {
    println!("cargo:rustc-check-cfg=cfg(CONFIG_KUNIT)");
    println!("cargo:rustc-check-cfg=cfg(CONFIG_RUST_IOMMU_PT_KUNIT_TEST)");
    println!("cargo:rustc-check-cfg=cfg(tsan)");
    println!("cargo:rustc-cfg=CONFIG_RUST_IOMMU_PT_KUNIT_TEST");
}
