// SPDX-License-Identifier: GPL-2.0

//! Plain values that the IOMMU core, these modules and a driver exchange.

use kernel::{
    bindings,
    ffi::c_int,
    prelude::*, //
};

use super::pt::{
    Iova,
    Prot,
    Range, //
};

/// Which requests of a device a domain translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceSlot {
    /// Those without PASID.
    Rid,
    /// Those with this PASID, which is never zero.
    Pasid(u32),
}

impl DeviceSlot {
    /// The PASID, 0 for requests without one (`IOMMU_NO_PASID`).
    pub fn pasid(self) -> u32 {
        match self {
            Self::Rid => 0,
            Self::Pasid(pasid) => pasid,
        }
    }
}

/// What a paging domain must be able to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocFlags {
    /// Track which pages devices write (`IOMMU_HWPT_ALLOC_DIRTY_TRACKING`). A domain without it
    /// never tracks; one with it attaches only to devices that are capable of it.
    pub dirty_tracking: bool,

    /// Attach to a PASID of a device, or to a device whose PASIDs are used
    /// (`IOMMU_HWPT_ALLOC_PASID`).
    pub pasid: bool,

    /// Be the parent of nested domains (`IOMMU_HWPT_ALLOC_NEST_PARENT`).
    pub nest_parent: bool,
}

impl AllocFlags {
    /// Reads the flags of `domain_alloc_paging_flags`.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if there are others.
    pub(super) fn from_raw(raw: u32) -> Result<Self> {
        const DIRTY: u32 = bindings::iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
        const PASID: u32 = bindings::iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_PASID;
        const NEST_PARENT: u32 = bindings::iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_NEST_PARENT;

        if raw & !(DIRTY | PASID | NEST_PARENT) != 0 {
            return Err(EOPNOTSUPP);
        }
        Ok(Self {
            dirty_tracking: raw & DIRTY != 0,
            pasid: raw & PASID != 0,
            nest_parent: raw & NEST_PARENT != 0,
        })
    }
}

/// The addresses and page sizes of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The first address that can be mapped.
    pub first: Iova,

    /// The last address that can be mapped.
    pub last: Iova,

    /// The page sizes, a bit for each power of two. The smallest must not exceed the CPU's.
    pub page_sizes: u64,
}

/// How large leaves of a domain that tracks dirty pages are split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Splits {
    /// They stay.
    #[default]
    Off,

    /// Those that a query finds dirty are split by one level, until tracking ends.
    Lazy,

    /// When tracking begins, all are split into leaves of at most `1 << lg2` bytes. What is mapped
    /// later is split as with [`Splits::Lazy`].
    Eager {
        /// The binary logarithm of the largest size that stays.
        lg2: u32,
    },
}

impl Splits {
    /// Reads the module parameter `split`: 0 (off), 1 (lazy), or the size of a leaf in bytes, a
    /// power of two from 4096 on (eager).
    ///
    /// # Errors
    ///
    /// `EINVAL` for any other value.
    pub fn from_parameter(value: u32) -> Result<Self> {
        match value {
            0 => Ok(Self::Off),
            1 => Ok(Self::Lazy),
            size if size.is_power_of_two() && size >= 4096 => Ok(Self::Eager {
                lg2: size.trailing_zeros(),
            }),
            _ => Err(EINVAL),
        }
    }

    /// The value of the module parameter.
    pub(super) fn parameter(self) -> u32 {
        match self {
            Self::Off => 0,
            Self::Lazy => 1,
            Self::Eager { lg2 } => 1 << lg2,
        }
    }

    /// The same for a domain that was allocated with `flags`: one that never tracks splits nothing.
    pub fn of_domain(self, flags: AllocFlags) -> Self {
        if flags.dirty_tracking {
            self
        } else {
            Self::Off
        }
    }

    /// What a driver's message says about domains that track, as the end of a sentence.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Off => "by leaf; split=1 splits large ones",
            Self::Lazy => "large leaves are split where they are dirty",
            Self::Eager { .. } => "large leaves are split when tracking begins",
        }
    }
}

/// What hardware has to invalidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// All translations of the domain.
    All,

    /// Those of a range.
    Range {
        /// The range: it covers all that was changed, and perhaps more.
        range: Range,
        /// Whether tables were removed, so that hardware has to drop its copies of table entries
        /// too.
        tables: bool,
    },
}

/// Reads the protection bits that the core passes to `map_pages`.
///
/// - `IOMMU_READ` and `IOMMU_WRITE` are [`Prot::READ`] and [`Prot::WRITE`].
/// - `IOMMU_CACHE` asks for coherent accesses. The DMA of a PCI device is coherent unless the
///   device asks for the opposite, and enforcing it is a property of a domain. So the bit changes
///   no entry of a page table.
/// - `IOMMU_NOEXEC`, `IOMMU_PRIV` and `IOMMU_MMIO` are hints for IOMMUs of other kinds.
#[inline]
pub(super) fn prot_from_raw(raw: c_int) -> Prot {
    // CAST: The bits of a set.
    let raw = raw as u32;
    let mut prot = Prot::NONE;
    if raw & bindings::IOMMU_READ != 0 {
        prot |= Prot::READ;
    }
    if raw & bindings::IOMMU_WRITE != 0 {
        prot |= Prot::WRITE;
    }
    prot
}

/// Returns the protection bits that C wants for a reserved region.
pub(super) fn prot_to_raw(prot: Prot) -> c_int {
    let mut raw = 0;
    if prot.contains(Prot::READ) {
        raw |= bindings::IOMMU_READ;
    }
    if prot.contains(Prot::WRITE) {
        raw |= bindings::IOMMU_WRITE;
    }
    // CAST: Two low bits.
    raw as c_int
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_values)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_says_what_is_split() {
        assert_eq!(Splits::from_parameter(0), Ok(Splits::Off));
        assert_eq!(Splits::from_parameter(1), Ok(Splits::Lazy));
        for lg2 in 12..32 {
            let eager = Splits::from_parameter(1 << lg2);
            assert_eq!(eager, Ok(Splits::Eager { lg2 }));
        }
        for value in [0, 1, 4096, 1 << 31] {
            let splits = Splits::from_parameter(value);
            assert_eq!(splits.map(Splits::parameter), Ok(value));
        }
        for value in [2, 3, 2048, 4095, 4097, u32::MAX] {
            assert_eq!(Splits::from_parameter(value), Err(EINVAL));
        }
    }
}
