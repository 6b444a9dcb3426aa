// SPDX-License-Identifier: GPL-2.0
/*
 * Defines the functions of generic_pt/fmt/iommu_x86_64.c, on the Rust page tables.
 */
#include "alias.h"

RUST_IOMMU_PT_ALIAS(x86_64);
RUST_IOMMU_PT_ALIAS_HW_INFO(x86_64);
