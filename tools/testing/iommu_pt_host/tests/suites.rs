// SPDX-License-Identifier: GPL-2.0

//! The KUnit suites of the page tables, in user space.

macro_rules! suite {
    ($suite:ident, $case:ident; $($file:ident::$test:ident)*) => {
        mod $suite {
            use iommu_pt_host::{
                error::Result,
                pt::tests, //
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

iommu_pt_host::iommu_pt_for_each_test!(suite, vtdss, VtdSs);
iommu_pt_host::iommu_pt_for_each_test!(suite, x86_64, X86_64);
iommu_pt_host::iommu_pt_for_each_test!(suite, amdv1, AmdV1);
