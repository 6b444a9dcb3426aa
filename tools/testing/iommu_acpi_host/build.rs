// SPDX-License-Identifier: GPL-2.0

//! Names the options that the kernel's configuration
//! would enable.

fn main() {
    for name in [
        "CONFIG_RUST_IOMMU_KUNIT_TEST",
        "CONFIG_RUST_INTEL_VTD_KUNIT_TEST",
        "CONFIG_RUST_AMD_VI_KUNIT_TEST",
    ] {
        println!("cargo:rustc-check-cfg=cfg({name})");
    }
}
