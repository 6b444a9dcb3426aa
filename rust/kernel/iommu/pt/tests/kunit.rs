// SPDX-License-Identifier: GPL-2.0

//! The tests as KUnit suites: a line for each format.

use kernel::prelude::*;

macro_rules! suite {
    ($suite:ident, $case:ident; $($file:ident::$test:ident)*) => {
        #[kunit_tests($suite)]
        mod $suite {
            use kernel::{
                error::Result,
                iommu::pt::tests, //
            };

            $(
                #[test]
                fn $test() -> Result {
                    tests::$file::$test::<tests::cases::$case>()
                }
            )*
        }
    };
}

kernel::iommu_pt_for_each_test!(suite, rust_iommu_pt_vtdss, VtdSs);
kernel::iommu_pt_for_each_test!(suite, rust_iommu_pt_x86_64, X86_64);
kernel::iommu_pt_for_each_test!(suite, rust_iommu_pt_amdv1, AmdV1);
