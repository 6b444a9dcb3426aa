// SPDX-License-Identifier: GPL-2.0
/*
 * Defines the functions of generic_pt/fmt/iommu_vtdss.c, on the Rust page tables.
 */
#include "alias.h"

RUST_IOMMU_PT_ALIAS(vtdss);
RUST_IOMMU_PT_ALIAS_HW_INFO(vtdss);
