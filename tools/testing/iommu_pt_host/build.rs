// SPDX-License-Identifier: GPL-2.0

//! Switches on what the kernel's configuration would.

fn main() {
    println!("cargo:rustc-check-cfg=cfg(CONFIG_KUNIT)");
    println!("cargo:rustc-check-cfg=cfg(CONFIG_RUST_IOMMU_PT_KUNIT_TEST)");
    println!("cargo:rustc-check-cfg=cfg(tsan)");
    println!("cargo:rustc-cfg=CONFIG_RUST_IOMMU_PT_KUNIT_TEST");
}
