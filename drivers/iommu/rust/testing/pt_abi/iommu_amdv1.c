// SPDX-License-Identifier: GPL-2.0
/*
 * Defines the functions of generic_pt/fmt/iommu_amdv1.c, on the Rust page tables.
 */
#include "alias.h"

RUST_IOMMU_PT_ALIAS(amdv1);
RUST_IOMMU_PT_ALIAS_HW_INFO(amdv1);
