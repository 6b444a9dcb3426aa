// SPDX-License-Identifier: GPL-2.0
/*
 * What generic_pt/fmt/iommu_mock.c defines, from the Rust page tables.
 */
#include "alias.h"

RUST_IOMMU_PT_ALIAS(amdv1_mock);
