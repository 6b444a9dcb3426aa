// SPDX-License-Identifier: GPL-2.0

//! The fuzz target of the format `x86_64`.

#![cfg_attr(feature = "libfuzzer", no_main)]

iommu_pt_fuzz::target!(X86_64);
