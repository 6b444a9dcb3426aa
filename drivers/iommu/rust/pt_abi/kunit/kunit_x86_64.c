// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's KUnit suites of the page tables of x86-64, on those in Rust.
 */
#include <linux/rust_iommu_pt.h>

#define PT_FMT_VARIANT rust
#include "../../../generic_pt/fmt/iommu_x86_64.c"
