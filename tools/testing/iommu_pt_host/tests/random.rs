// SPDX-License-Identifier: GPL-2.0

//! Compares random operations with the model, and the raw tables with both, on every format, number
//! of levels, set of leaf sizes and kind of hardware: see `sequence`.

use iommu_pt_host::{
    sequence::{
        check,
        decode,
        run,
        Maps, //
    },
    spec::{
        self,
        Spec, //
    }, //
};
use proptest::{
    prelude::*,
    test_runner::{
        TestCaseResult,
        TestError,
        TestRunner, //
    }, //
};

/// The number of sequences for each format and number of levels.
const CASES: u32 = 200;

/// The number of sequences that are looked at for what they do.
const SEQUENCES: usize = 40;

/// Sequences on trees of `levels` levels, if the format has any.
fn each_sequence<S: Spec>(levels: u8) {
    if !(S::LEVELS.0..=S::LEVELS.1).contains(&levels) {
        return;
    }

    let config = ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let first = levels - S::LEVELS.0;
    let bytes = prop::collection::vec(any::<u8>(), 40..700);
    let result = TestRunner::new(config).run(&bytes, |mut bytes| -> TestCaseResult {
        bytes[0] = first;
        check::<S>(&bytes);
        Ok(())
    });

    if let Err(TestError::Fail(reason, bytes)) = result {
        let (setup, ops) = decode::<S>(&bytes);

        panic!("{reason}; the shortest sequence is {ops:#x?} on {setup:x?}");
    }
}

/// The sequences are effective: there are many operations, and maps are mostly accepted.
fn bytes_make_sense<S: Spec>() {
    let mut random = 1u64;
    let mut bytes = vec![0u8; 600];
    let mut ops = 0;
    let mut all = Maps::default();

    for byte in &mut bytes {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        *byte = (random >> 40) as u8;
    }
    for _ in 0..SEQUENCES {
        bytes.rotate_left(13);

        let (setup, sequence) = decode::<S>(&bytes);
        let maps = run::<S>(setup, &sequence);

        ops += sequence.len();
        all.tried += maps.tried;
        all.done += maps.done;
    }
    assert!(ops > SEQUENCES * 40);
    // About a quarter is meant to be refused: no permissions, unaligned, beyond an end.
    assert!(all.done * 100 > all.tried * 45, "{all:?}");
}

macro_rules! formats {
    ($($name:ident: $spec:ident,)* ; $($other:ident: $other_spec:ident,)*) => {
        $(formats!(@one $name $spec);)*
        $(formats!(@one $other $other_spec);)*
    };
    (@one $name:ident $spec:ident) => {
        mod $name {
            use super::*;

            formats!(@levels $spec one 1 two 2 three 3 four 4 five 5 six 6);

            #[test]
            fn bytes_make_sense() {
                super::bytes_make_sense::<spec::$spec>();
            }
        }
    };
    (@levels $spec:ident $($level:ident $levels:literal)*) => {
        $(
            #[test]
            fn $level() {
                each_sequence::<spec::$spec>($levels);
            }
        )*
    };
}

iommu_pt_host::iommu_pt_for_each_format!(formats);
