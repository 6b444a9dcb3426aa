// SPDX-License-Identifier: GPL-2.0

//! The fuzz target of the page tables; `FORMAT` in the environment names the format.

#![cfg_attr(feature = "libfuzzer", no_main)]

iommu_pt_fuzz::target!(iommu_pt_fuzz::check);
