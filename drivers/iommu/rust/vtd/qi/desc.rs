// SPDX-License-Identifier: GPL-2.0

//! Invalidation descriptors, bit by bit (VT-d specification, 6.5.2).
//!
//! All descriptors are 256 bits wide, as scalable mode demands; the upper 128 bits are reserved in
//! every type that this driver uses and stay zero. Pure.
//!
//! Device TLBs are never switched on by this driver, so nothing here addresses them.

use kernel::{
    bitfield,
    prelude::*, //
};

/// What a wide descriptor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Context-cache invalidation.
    Context = 0x1,
    /// IOTLB invalidation.
    Iotlb = 0x2,
    /// Invalidation wait.
    Wait = 0x5,
    /// PASID-based IOTLB invalidation.
    PasidIotlb = 0x6,
    /// PASID-cache invalidation.
    PasidCache = 0x7,
}

bitfield! {
    /// Quadword 0 of a context-cache invalidation (6.5.2.1).
    struct Context0(u64) {
        47:32   source;
        31:16   domain;
        5:4     granularity;
        3:0     kind;
    }
}

bitfield! {
    /// Quadword 0 of an IOTLB invalidation (6.5.2.3).
    struct Iotlb0(u64) {
        31:16   domain;
        7:7     drain_reads => bool;
        6:6     drain_writes => bool;
        5:4     granularity;
        3:0     kind;
    }
}

bitfield! {
    /// Quadword 1 of both kinds of IOTLB invalidation.
    struct Address1(u64) {
        63:12   address;
        6:6     leaf_only => bool;
        5:0     mask;
    }
}

bitfield! {
    /// Quadword 0 of the invalidations that name a PASID (6.5.2.2, 6.5.2.4).
    struct Pasid0(u64) {
        51:32   pasid;
        31:16   domain;
        5:4     granularity;
        3:0     kind;
    }
}

bitfield! {
    /// Quadword 0 of an invalidation wait (6.5.2.8).
    struct Wait0(u64) {
        63:32   data;
        5:5     write_status => bool;
        3:0     kind;
    }
}

/// One wide descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor(pub(crate) [u64; 4]);

impl AsRef<[u64; 4]> for Descriptor {
    fn as_ref(&self) -> &[u64; 4] {
        &self.0
    }
}

impl Descriptor {
    fn new(qw0: u64, qw1: u64) -> Self {
        Self([qw0, qw1, 0, 0])
    }

    /// Drops every cached context entry.
    pub(crate) fn context_global() -> Self {
        let qw0 = Context0::zeroed()
            .with_const_kind::<{ Kind::Context as u64 }>()
            .with_const_granularity::<1>();
        Self::new(qw0.into_raw(), 0)
    }

    /// Drops the cached context entry of the device `source`, cached under `domain`.
    pub(crate) fn context_device(source: u16, domain: u16) -> Self {
        let qw0 = Context0::zeroed()
            .with_const_kind::<{ Kind::Context as u64 }>()
            .with_const_granularity::<3>()
            .with_domain(domain)
            .with_source(source);
        Self::new(qw0.into_raw(), 0)
    }

    fn iotlb0(drain: (bool, bool)) -> Iotlb0 {
        Iotlb0::zeroed()
            .with_const_kind::<{ Kind::Iotlb as u64 }>()
            .with_drain_reads(drain.0)
            .with_drain_writes(drain.1)
    }

    /// Drops every cached translation. `drain` says whether to drain reads and writes in flight.
    pub(crate) fn iotlb_global(drain: (bool, bool)) -> Self {
        Self::new(
            Self::iotlb0(drain).with_const_granularity::<1>().into_raw(),
            0,
        )
    }

    /// Drops every cached translation of `domain`.
    pub(crate) fn iotlb_domain(domain: u16, drain: (bool, bool)) -> Self {
        let qw0 = Self::iotlb0(drain)
            .with_const_granularity::<2>()
            .with_domain(domain);
        Self::new(qw0.into_raw(), 0)
    }

    /// Drops the cached translations of 2^`mask` pages of `domain` around `address`.
    ///
    /// `leaf_only` promises that no table above the leaves has changed.
    pub(crate) fn iotlb_pages(
        domain: u16,
        drain: (bool, bool),
        address: u64,
        mask: u8,
        leaf_only: bool,
    ) -> Self {
        let qw0 = Self::iotlb0(drain)
            .with_const_granularity::<3>()
            .with_domain(domain);
        Self::new(qw0.into_raw(), Self::address1(address, mask, leaf_only))
    }

    fn address1(address: u64, mask: u8, leaf_only: bool) -> u64 {
        Address1::from_raw(
            (address & Address1::ADDRESS_MASK) | (u64::from(mask) & Address1::MASK_MASK),
        )
        .with_leaf_only(leaf_only)
        .into_raw()
    }

    fn pasid0(kind: Kind, granularity: u64, domain: u16, pasid: u32) -> u64 {
        // CAST: the kind is four bits wide. The PASID is masked to its twenty bits.
        Pasid0::from_raw(
            kind as u64
                | (granularity << Pasid0::GRANULARITY_SHIFT & Pasid0::GRANULARITY_MASK)
                | (u64::from(pasid) << Pasid0::PASID_SHIFT & Pasid0::PASID_MASK),
        )
        .with_domain(domain)
        .into_raw()
    }

    /// Drops every cached translation of `domain` and `pasid`.
    pub(crate) fn pasid_iotlb_all(domain: u16, pasid: u32) -> Self {
        Self::new(Self::pasid0(Kind::PasidIotlb, 2, domain, pasid), 0)
    }

    /// Drops the cached translations of 2^`mask` pages of `domain` and `pasid` around `address`.
    pub(crate) fn pasid_iotlb_pages(
        domain: u16,
        pasid: u32,
        address: u64,
        mask: u8,
        leaf_only: bool,
    ) -> Self {
        Self::new(
            Self::pasid0(Kind::PasidIotlb, 3, domain, pasid),
            Self::address1(address, mask, leaf_only),
        )
    }

    /// Drops every cached PASID entry.
    pub(crate) fn pasid_cache_global() -> Self {
        Self::new(Self::pasid0(Kind::PasidCache, 3, 0, 0), 0)
    }

    /// Drops the cached entries of `pasid` that carry `domain`.
    pub(crate) fn pasid_cache(domain: u16, pasid: u32) -> Self {
        Self::new(Self::pasid0(Kind::PasidCache, 1, domain, pasid), 0)
    }

    /// Makes the hardware write `data` to the physical address `status` once everything before
    /// this descriptor has completed.
    pub(crate) fn wait(status: u64, data: u32) -> Self {
        let qw0 = Wait0::zeroed()
            .with_const_kind::<{ Kind::Wait as u64 }>()
            .with_write_status(true)
            .with_data(data);
        Self::new(qw0.into_raw(), status & !0x3)
    }

    /// The type of the descriptor in words, for the log.
    pub(crate) fn name(&self) -> &'static str {
        match self.0[0] & 0xf {
            0x1 => "context-cache invalidation",
            0x2 => "IOTLB invalidation",
            0x5 => "invalidation wait",
            0x6 => "PASID-based IOTLB invalidation",
            0x7 => "PASID-cache invalidation",
            _ => "unknown descriptor",
        }
    }
}

#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
#[kunit_tests(rust_vtd_desc)]
mod tests {
    use super::*;

    const BOTH: (bool, bool) = (true, true);
    #[test]
    fn context_cache() {
        assert_eq!(Descriptor::context_global().0, [0x11, 0, 0, 0]);
        assert_eq!(
            Descriptor::context_device(0x1234, 0xabcd).0,
            [0x0000_1234_abcd_0031, 0, 0, 0]
        );
    }

    #[test]
    fn iotlb() {
        assert_eq!(Descriptor::iotlb_global((false, false)).0, [0x12, 0, 0, 0]);
        assert_eq!(
            Descriptor::iotlb_domain(0x0102, BOTH).0,
            [0x0102_00e2, 0, 0, 0]
        );
        assert_eq!(
            Descriptor::iotlb_pages(0xffff, (false, true), 0x12_3456_7fff, 9, true).0,
            [0xffff_0072, 0x12_3456_7049, 0, 0]
        );
    }

    #[test]
    fn pasid_iotlb() {
        assert_eq!(
            Descriptor::pasid_iotlb_all(0x0102, 0xfffff).0,
            [0x000f_ffff_0102_0026, 0, 0, 0]
        );
        assert_eq!(
            Descriptor::pasid_iotlb_pages(1, 0, 0x20_0000, 9, false).0,
            [0x0001_0036, 0x20_0009, 0, 0]
        );
    }

    #[test]
    fn pasid_cache() {
        assert_eq!(Descriptor::pasid_cache_global().0, [0x37, 0, 0, 0]);
        assert_eq!(
            Descriptor::pasid_cache(7, 5).0,
            [0x0000_0005_0007_0017, 0, 0, 0]
        );
    }

    #[test]
    fn wait() {
        assert_eq!(
            Descriptor::wait(0x1_2345_6004, 0xdead_beef).0,
            [0xdead_beef_0000_0025, 0x1_2345_6004, 0, 0]
        );
    }
}
