// SPDX-License-Identifier: GPL-2.0

//! The KUnit suites of the page tables, in user space.

macro_rules! suite {
    ($suite:ident, $spec:ident; $($file:ident::$test:ident)*) => {
        mod $suite {
            use iommu_pt_host::{
                error::Result,
                pt::tests, //
            };

            $(
                #[test]
                fn $test() -> Result {
                    tests::$file::$test::<tests::spec::$spec>()
                }
            )*
        }
    };
}

macro_rules! suites {
    ($($name:ident: $spec:ident,)* ; $($other:ident: $other_spec:ident,)*) => {
        $(iommu_pt_host::iommu_pt_for_each_test!(suite, $name, $spec);)*
    };
}

iommu_pt_host::iommu_pt_for_each_format!(suites);
