// SPDX-License-Identifier: GPL-2.0

//! The fuzz target of the parser of DMAR tables.

#![cfg_attr(feature = "libfuzzer", no_main)]

iommu_acpi_fuzz::target!(b"DMAR", dmar);
