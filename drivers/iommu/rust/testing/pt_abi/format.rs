// SPDX-License-Identifier: GPL-2.0

//! The formats as C instantiates them: what C accepts for each, and its names for that.
//!
//! The counterpart of `drivers/iommu/generic_pt/fmt/iommu_*.c` and of the limits in `fmt/*.h`.

use core::ops::RangeInclusive;

use kernel::{
    bindings,
    iommu::pt::{
        fmt,
        Attrs,
        Entry,
        Format,
        Level,
        PhysAddr,
        Prot, //
    },
    prelude::*, //
};

use super::table::{
    resolved_lg2,
    RawConfig,
    RawTable,
    ENTRIES_LG2, //
};

/// A set of features: of `enum pt_features`, and of those that a format adds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Features(u32);

impl Features {
    pub(super) const NONE: Self = Self(0);

    pub(super) const DMA_INCOHERENT: Self = Self::bit(bindings::pt_features_PT_FEAT_DMA_INCOHERENT);
    pub(super) const FULL_VA: Self = Self::bit(bindings::pt_features_PT_FEAT_FULL_VA);
    pub(super) const DYNAMIC_TOP: Self = Self::bit(bindings::pt_features_PT_FEAT_DYNAMIC_TOP);
    pub(super) const SIGN_EXTEND: Self = Self::bit(bindings::pt_features_PT_FEAT_SIGN_EXTEND);
    const FLUSH_RANGE: Self = Self::bit(bindings::pt_features_PT_FEAT_FLUSH_RANGE);
    pub(super) const FLUSH_RANGE_NO_GAPS: Self =
        Self::bit(bindings::pt_features_PT_FEAT_FLUSH_RANGE_NO_GAPS);
    pub(super) const DETAILED_GATHER: Self =
        Self::bit(bindings::pt_features_PT_FEAT_DETAILED_GATHER);

    const AMDV1_ENCRYPT: Self = Self::bit(bindings::PT_FEAT_AMDV1_ENCRYPT_TABLES);
    const AMDV1_COHERENCE: Self = Self::bit(bindings::PT_FEAT_AMDV1_FORCE_COHERENCE);
    const VTDSS_COHERENCE: Self = Self::bit(bindings::PT_FEAT_VTDSS_FORCE_COHERENCE);
    const VTDSS_WRITEABLE: Self = Self::bit(bindings::PT_FEAT_VTDSS_FORCE_WRITEABLE);
    const X86_64_ENCRYPT: Self = Self::bit(bindings::PT_FEAT_X86_64_AMD_ENCRYPT_TABLES);

    const fn bit(number: u32) -> Self {
        Self(1 << number)
    }

    /// Takes over the features of a C struct.
    pub(super) const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The features as C knows them.
    pub(super) const fn as_raw(self) -> u32 {
        self.0
    }

    /// The features of both together.
    pub(super) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The features that both have.
    const fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The features that only `self` has.
    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` is in `self`.
    pub(super) const fn includes(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the feature `other` is in `self`. A format has the empty set for a feature that it
    /// lacks: this is false then.
    pub(super) const fn has(self, other: Self) -> bool {
        other.0 != 0 && self.includes(other)
    }
}

/// A format with what its C instantiation is made for.
///
/// # Safety
///
/// `Table` and `Config` have the layouts of [`RawTable`] and [`RawConfig`].
pub(super) unsafe trait CFormat: 'static {
    /// The format.
    type Format: Format;

    /// `struct pt_iommu_<format>`.
    type Table;

    /// `struct pt_iommu_<format>_cfg`.
    type Config;

    /// `PT_SUPPORTED_FEATURES` of the C file: what a driver may ask for.
    const OFFERED: Features;

    /// `PT_FORCE_ENABLED_FEATURES`: what it must ask for, and has in any case.
    const FORCED: Features = Features::NONE;

    /// The feature that has the addresses in entries encrypted.
    const ENCRYPT: Features = Features::NONE;

    /// The feature that has all accesses snoop.
    const FORCE_COHERENCE: Features = Features::NONE;

    /// The feature that refuses read-only leaves.
    const FORCE_WRITEABLE: Features = Features::NONE;

    /// `PT_MAX_VA_ADDRESS_LG2`: all that the highest top resolves, of 64 bits at most.
    const INPUT_LG2: u32 = {
        let resolved = resolved_lg2::<Self::Format>(Self::Format::MAX_LEVELS - 1);

        if resolved < u64::BITS {
            resolved
        } else {
            u64::BITS
        }
    };

    /// The lowest level that a table may start with.
    const LOWEST_TOP: u8 = Self::Format::MIN_LEVELS - 1;

    /// The levels that a table may start with.
    // CAST: From 8 bits to 32.
    const TOPS: RangeInclusive<u32> =
        Self::LOWEST_TOP as u32..=(Self::Format::MAX_LEVELS - 1) as u32;

    /// The error for a driver that asks for another.
    const BAD_TOP: Error;

    /// Whether a driver that asks for more addresses than the levels have gets fewer, rather than
    /// an error.
    const CUT_TO_TOP: bool = false;

    /// Whether C offers dirty pages: it has no dirty functions for `x86_64`.
    const TRACKS: bool = true;

    /// The features that are compiled in. A kernel for debugging has nearly all of them in each
    /// format.
    const SUPPORTED: Features = if cfg!(CONFIG_DEBUG_GENERIC_PT) {
        let missing = if Self::OFFERED.has(Features::DMA_INCOHERENT) {
            Features::NONE
        } else {
            Features::DMA_INCOHERENT
        };
        let clashing = if Self::OFFERED.has(Features::SIGN_EXTEND) {
            Features::DYNAMIC_TOP.with(Features::FULL_VA)
        } else {
            Features::SIGN_EXTEND
        };

        Features(u32::MAX).without(missing).without(clashing)
    } else {
        Self::OFFERED
    };

    /// The features of a table for which a driver asked for `asked`.
    #[inline]
    fn effective(asked: Features) -> Features {
        let features = asked.only(Self::SUPPORTED).with(Self::FORCED);

        // The format decides whether a top can grow, a kernel for debugging or not.
        if Self::Format::GROWS {
            features
        } else {
            features.without(Features::DYNAMIC_TOP)
        }
    }

    /// The level that the top can grow to, for `input_lg2` bits of address: the highest at which
    /// they have more than one entry.
    #[inline]
    fn top_max(input_lg2: u32) -> u8 {
        let level = input_lg2.saturating_sub(1 + Self::Format::PAGE_LG2) / ENTRIES_LG2;

        // CAST: At most the last of `TOPS`.
        level.min(*Self::TOPS.end()) as u8
    }
}

/// Implements [`CFormat`], after checking the layouts.
macro_rules! c_format {
    (
        $(#[$doc:meta])*
        $name:ident, $format:ty, $table:ident.$common:ident, $config:ident.$top:ident, {
            $($items:tt)*
        }
    ) => {
        $(#[$doc])*
        pub(super) enum $name {}

        const _: () = {
            use bindings::{
                $config,
                $table, //
            };
            use core::mem::{
                offset_of,
                size_of, //
            };

            assert!(size_of::<$table>() == size_of::<RawTable>());
            assert!(offset_of!($table, iommu) == offset_of!(RawTable, iommu));
            assert!(offset_of!($table, $common.common) == offset_of!(RawTable, common));
            assert!(size_of::<$config>() == size_of::<RawConfig>());
            assert!(offset_of!($config, common) == offset_of!(RawConfig, common));
            assert!(offset_of!($config, $top) == offset_of!(RawConfig, top_level));
        };

        // SAFETY: The layouts were just compared; the fields have the same types in all C structs.
        unsafe impl CFormat for $name {
            type Format = $format;
            type Table = bindings::$table;
            type Config = bindings::$config;

            $($items)*
        }
    };
}

c_format!(
    /// AMD v1, as the AMD-Vi driver uses it.
    AmdV1, fmt::AmdV1, pt_iommu_amdv1.amdpt, pt_iommu_amdv1_cfg.starting_level, {
        const OFFERED: Features = Features::FULL_VA
            .with(Features::FLUSH_RANGE)
            .with(Features::FLUSH_RANGE_NO_GAPS)
            .with(Self::FORCED);
        const FORCED: Features = Features::DYNAMIC_TOP
            .with(Self::ENCRYPT)
            .with(Self::FORCE_COHERENCE);
        const ENCRYPT: Features = Features::AMDV1_ENCRYPT;
        const FORCE_COHERENCE: Features = Features::AMDV1_COHERENCE;
        const LOWEST_TOP: u8 = 1;
        const BAD_TOP: Error = EINVAL;
        const CUT_TO_TOP: bool = true;
    }
);

c_format!(
    /// AMD v1 with pages of 2 KiB, as iommufd's self-test uses it.
    AmdV1Mock, fmt::AmdV1Mock, pt_iommu_amdv1.amdpt, pt_iommu_amdv1_cfg.starting_level, {
        const OFFERED: Features = Features::NONE;
        const ENCRYPT: Features = Features::AMDV1_ENCRYPT;
        const FORCE_COHERENCE: Features = Features::AMDV1_COHERENCE;
        const LOWEST_TOP: u8 = 1;
        const BAD_TOP: Error = EINVAL;
        const CUT_TO_TOP: bool = true;
    }
);

c_format!(
    /// VT-d second stage.
    VtdSs, fmt::VtdSs, pt_iommu_vtdss.vtdss_pt, pt_iommu_vtdss_cfg.top_level, {
        const OFFERED: Features = Features::FLUSH_RANGE
            .with(Features::DMA_INCOHERENT)
            .with(Self::FORCE_COHERENCE)
            .with(Self::FORCE_WRITEABLE);
        const FORCE_COHERENCE: Features = Features::VTDSS_COHERENCE;
        const FORCE_WRITEABLE: Features = Features::VTDSS_WRITEABLE;
        const BAD_TOP: Error = EOPNOTSUPP;
    }
);

c_format!(
    /// x86-64: VT-d first stage and AMD v2.
    X86_64, UsedX86_64, pt_iommu_x86_64.x86_64_pt, pt_iommu_x86_64_cfg.top_level, {
        const OFFERED: Features = Features::SIGN_EXTEND
            .with(Features::FLUSH_RANGE)
            .with(Features::FLUSH_RANGE_NO_GAPS)
            .with(Features::DMA_INCOHERENT)
            .with(Self::ENCRYPT);
        const ENCRYPT: Features = Features::X86_64_ENCRYPT;
        const BAD_TOP: Error = EOPNOTSUPP;
        const TRACKS: bool = false;
    }
);

/// x86-64 tables whose leaves are marked as accessed, and as written to if that is allowed, before
/// a driver has done so.
///
/// No caller asks C for the dirty pages of such tables. So hardware need not mark leaves, and
/// hardware whose walks do not snoop writes nothing to memory that the CPU has cached.
pub(super) enum UsedX86_64 {}

/// A: the entry was used.
const A: u64 = 1 << 5;

// SAFETY: The words are those of `fmt::X86_64`; leaves also have bits that the hardware may set,
// which do not change what `decode()` returns.
unsafe impl Format for UsedX86_64 {
    const NAME: &'static str = "x86_64";
    const MIN_LEVELS: u8 = fmt::X86_64::MIN_LEVELS;
    const MAX_LEVELS: u8 = fmt::X86_64::MAX_LEVELS;
    const PAGE_SIZES: u64 = fmt::X86_64::PAGE_SIZES;
    const OUTPUT_LG2: u32 = fmt::X86_64::OUTPUT_LG2;
    const DIRTY: u64 = 0;
    const WRITABLE: u64 = fmt::X86_64::WRITABLE;
    const SIGN_EXTENDS: bool = fmt::X86_64::SIGN_EXTENDS;

    #[inline]
    fn input_lg2(levels: u8) -> u32 {
        fmt::X86_64::input_lg2(levels)
    }

    #[inline(always)]
    fn decode(word: u64, level: Level) -> Entry {
        fmt::X86_64::decode(word, level)
    }

    #[inline]
    fn attrs(prot: Prot) -> Result<Attrs> {
        fmt::X86_64::attrs(prot)
    }

    #[inline(always)]
    fn leaf(phys: PhysAddr, lg2: u32, level: Level, attrs: Attrs) -> u64 {
        let word = fmt::X86_64::leaf(phys, lg2, level, attrs);

        if word & fmt::X86_64::WRITABLE != 0 {
            word | A | fmt::X86_64::DIRTY
        } else {
            word | A
        }
    }

    #[inline]
    fn leaf_attrs(word: u64, level: Level) -> Attrs {
        fmt::X86_64::leaf_attrs(word, level)
    }

    #[inline]
    fn table(phys: PhysAddr, level: Level) -> u64 {
        fmt::X86_64::table(phys, level)
    }

    #[inline(always)]
    fn has_no_table(_any: u64, _all: u64, _level: Level) -> bool {
        // There is no harvest.
        false
    }

    #[inline]
    fn may_replace_live(old: u64, new: u64, level: Level) -> bool {
        fmt::X86_64::may_replace_live(old, new, level)
    }
}
