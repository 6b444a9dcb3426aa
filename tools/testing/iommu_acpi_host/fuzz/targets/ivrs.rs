// SPDX-License-Identifier: GPL-2.0

//! The fuzz target of the parser of IVRS tables.

#![cfg_attr(feature = "libfuzzer", no_main)]

iommu_acpi_fuzz::target!(b"IVRS", ivrs);
