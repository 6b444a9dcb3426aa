// SPDX-License-Identifier: GPL-2.0

//! The CPU, which x86 remapping units are a part of: their errata go by its model.

use super::super::ffi;

/// Vendor, family and model of the CPU, packed as by `VFM_MAKE()` of `asm/cpu_device_id.h`; 0 on
/// architectures without such a number.
pub fn model() -> u32 {
    ffi::processor()
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kernel::prelude::kunit_tests(rust_iommu_hw_cpu)]
mod tests {
    use super::*;

    /// What `CPUID` says of the CPU: vendor, family and model, each in eight bits.
    #[cfg(all(CONFIG_X86_64, not(CONFIG_UML)))]
    fn by_cpuid() -> u32 {
        use core::arch::x86_64::__cpuid;
        use kernel::bindings;

        // SAFETY: Each CPU of 64 bits has the instruction.
        #[allow(unused_unsafe)]
        let (first, second) = unsafe { (__cpuid(0), __cpuid(1)) };
        let vendor = match &first.ebx.to_le_bytes() {
            b"Auth" => bindings::X86_VENDOR_AMD,
            b"Genu" => bindings::X86_VENDOR_INTEL,
            b"Hygo" => bindings::X86_VENDOR_HYGON,
            b"Cent" => bindings::X86_VENDOR_CENTAUR,
            b"  Sh" => bindings::X86_VENDOR_ZHAOXIN,
            _ => bindings::X86_VENDOR_UNKNOWN,
        };
        let of = |shift: u32, bits: u32| second.eax >> shift & ((1 << bits) - 1);
        let (mut family, mut model) = (of(8, 4), of(4, 4));
        if family == 0xf {
            family += of(20, 8);
        }
        if family >= 6 {
            model |= of(16, 4) << 4;
        }
        vendor << 16 | family << 8 | model
    }

    #[cfg(not(all(CONFIG_X86_64, not(CONFIG_UML))))]
    fn by_cpuid() -> u32 {
        0
    }

    #[test]
    fn the_cpu_is_the_one_that_runs_this() {
        assert_eq!(model(), by_cpuid());
    }
}
