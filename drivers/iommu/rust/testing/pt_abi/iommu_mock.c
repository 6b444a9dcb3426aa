// SPDX-License-Identifier: GPL-2.0
/*
 * Defines the functions of generic_pt/fmt/iommu_mock.c, on the Rust page tables.
 */
#include "alias.h"

RUST_IOMMU_PT_ALIAS(amdv1_mock);
