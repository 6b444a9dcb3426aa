// SPDX-License-Identifier: GPL-2.0

//! The fuzz target of the format `amdv1_mock`.

#![cfg_attr(feature = "libfuzzer", no_main)]

iommu_pt_fuzz::target!(AmdV1Mock);
