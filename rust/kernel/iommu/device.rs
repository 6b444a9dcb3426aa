// SPDX-License-Identifier: GPL-2.0

//! Devices behind remapping units: what a driver says about them.

use kernel::{
    bindings,
    device::Device,
    prelude::*,
    str::CString,
    sync::aref::ARef, //
};

/// A remapping unit, as it is registered.
pub struct UnitInfo {
    /// The name of its entry below `/sys/class/iommu`.
    pub name: CString,

    /// The number of PASIDs that it can tell apart, 0 if it knows of none. The core offers the
    /// smaller of this and what a device says (`dev->iommu->max_pasids`), and asks for domains that
    /// suit PASIDs wherever that is not 0. Without effect unless the driver's domains have
    /// [PASIDs](super::ops::PagingDomain::PASIDS).
    pub max_pasids: u32,

    /// The device that it is a function of, if it is one.
    pub parent: Option<ARef<Device>>,
}

/// A device that [`Driver::probe_device`](super::ops::Driver::probe_device) has taken.
pub struct Probed<E> {
    /// The unit that translates for it: an index of what was registered.
    pub unit: usize,

    /// The driver's data of the device.
    pub endpoint: E,
}

/// What a device behind its unit can do (`enum iommu_cap`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// DMA is coherent with the caches. iommufd refuses a device without it.
    CacheCoherency,
    /// Mappings can forbid execution.
    Noexec,
    /// Firmware says it used the unit to protect memory, and the kernel should too.
    PreBootProtection,
    /// Snooping can be enforced. Must not be claimed if
    /// [`PagingDomain::enforce_cache_coherency`](super::ops::PagingDomain::enforce_cache_coherency)
    /// can fail for a domain that was allocated for this device.
    EnforceCacheCoherency,
    /// Unmapping does not flush, so that the DMA API may collect flushes.
    DeferredFlush,
    /// Domains can track dirty pages.
    DirtyTracking,
    /// Address translation services may be enabled.
    PciAts,
}

impl Capability {
    /// Reads an `enum iommu_cap`; `None` for one that is not known here.
    pub(super) fn from_raw(raw: bindings::iommu_cap) -> Option<Self> {
        Some(match raw {
            bindings::iommu_cap_IOMMU_CAP_CACHE_COHERENCY => Self::CacheCoherency,
            bindings::iommu_cap_IOMMU_CAP_NOEXEC => Self::Noexec,
            bindings::iommu_cap_IOMMU_CAP_PRE_BOOT_PROTECTION => Self::PreBootProtection,
            bindings::iommu_cap_IOMMU_CAP_ENFORCE_CACHE_COHERENCY => Self::EnforceCacheCoherency,
            bindings::iommu_cap_IOMMU_CAP_DEFERRED_FLUSH => Self::DeferredFlush,
            bindings::iommu_cap_IOMMU_CAP_DIRTY_TRACKING => Self::DirtyTracking,
            bindings::iommu_cap_IOMMU_CAP_PCI_ATS_SUPPORTED => Self::PciAts,
            _ => return None,
        })
    }
}

/// The default domain that a device needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultDomain {
    /// What the kernel was booted with (`iommu=`, `iommu.passthrough=`).
    Any,
    /// The identity. Registration fails if the core insists on translation for the device, which
    /// it does for untrusted ones.
    Identity,
    /// A domain of the DMA API.
    Dma,
}

impl DefaultDomain {
    /// What the module parameter `default_domain` of a driver asks for: 0 is the identity, 1 a
    /// domain of the DMA API with a flush for each unmap, 2 what `iommu=`, `iommu.passthrough=`
    /// and `iommu.strict=` say, as for drivers in C.
    ///
    /// The kernel does not tell modules whether `iommu=nopt` was given or is merely the default of
    /// the architecture, so a module cannot find that out; loading it must not change a device's
    /// view of memory unless the administrator asked for that.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a value that has no meaning.
    pub fn from_parameter(value: u32) -> Result<Self> {
        match value {
            0 => Ok(Self::Identity),
            1 => Ok(Self::Dma),
            2 => Ok(Self::Any),
            _ => Err(EINVAL),
        }
    }

    /// The value that `def_domain_type` returns.
    pub(super) fn as_raw(self) -> u32 {
        match self {
            Self::Any => 0,
            Self::Identity => bindings::IOMMU_DOMAIN_IDENTITY,
            Self::Dma => bindings::IOMMU_DOMAIN_DMA,
        }
    }
}

/// What user space is told about a unit (`IOMMU_GET_HW_INFO`).
pub struct HwInfo {
    /// One of `enum iommu_hw_info_type`, never `NONE`.
    pub(super) kind: u32,
    /// The structure that belongs to it, from the allocator that `kfree()` gives back to.
    pub(super) data: KVec<u8>,
}

impl HwInfo {
    /// A structure of type `kind`, as bytes.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` if there are no bytes.
    pub fn new(kind: u32, bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() || u32::try_from(bytes.len()).is_err() {
            return Err(EINVAL);
        }
        let mut data = KVec::with_capacity(bytes.len(), GFP_KERNEL)?;
        data.extend_from_slice(bytes, GFP_KERNEL)?;
        Ok(Self { kind, data })
    }
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_device)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_says_what_the_core_is_told() {
        let told = |value| DefaultDomain::from_parameter(value).map(DefaultDomain::as_raw);
        assert_eq!(told(0), Ok(bindings::IOMMU_DOMAIN_IDENTITY));
        assert_eq!(told(1), Ok(bindings::IOMMU_DOMAIN_DMA));
        // The core reads zero as no wish.
        assert_eq!(told(2), Ok(0));
        assert_eq!(told(3), Err(EINVAL));
        assert_eq!(told(u32::MAX), Err(EINVAL));
    }
}
