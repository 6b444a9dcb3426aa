// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's KUnit suites of the page tables of iommufd's self-test, on those
 * in Rust.  As generic_pt/fmt/iommu_mock.c, which has a variant already.
 */
#include <linux/rust_iommu_pt.h>

#define AMDV1_IOMMUFD_SELFTEST 1
#define PT_FMT amdv1
#define PT_FMT_VARIANT mock_rust
#define PT_SUPPORTED_FEATURES 0

#include "../../../generic_pt/fmt/iommu_template.h"
