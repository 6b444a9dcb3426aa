// SPDX-License-Identifier: GPL-2.0

//! The tests as KUnit suites, one for each format.

use kernel::prelude::*;

macro_rules! suite {
    ($suite:ident, $spec:ident; $($file:ident::$test:ident)*) => {
        #[kunit_tests($suite)]
        mod $suite {
            use kernel::{
                error::Result,
                iommu::pt::tests, //
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
        kernel::macros::paste! {
            $(kernel::iommu_pt_for_each_test!(suite, [<rust_iommu_pt_ $name>], $spec);)*
        }
    };
}

kernel::iommu_pt_for_each_format!(suites);
