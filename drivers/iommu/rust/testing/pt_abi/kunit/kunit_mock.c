// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's KUnit suite of IOMMU page tables, on those of iommufd's mock in Rust.
 */
#define AMDV1_IOMMUFD_SELFTEST 1
#define PT_FMT amdv1
#define PT_FMT_VARIANT mock_rust
#define PT_SUPPORTED_FEATURES 0

#include "../../../../generic_pt/fmt/amdv1.h"
#include "template.h"
