// SPDX-License-Identifier: GPL-2.0

//! The capabilities of a unit, as the driver uses them.
//!
//! VT-d specification, 11.4.2 and 11.4.3 for the bits; 3.6 and 3.7 for the widths of first-stage
//! and second-stage translation. Pure: [`crate::unit`] reads the values once.

use kernel::{
    iommu::pt::Config,
    prelude::*,
    sizes::SizeConstants, //
};

use crate::regs::cap::{
    CAP,
    ECAP, //
};

/// Bits of an output address that the tables can hold.
const OUTPUT_WIDTH: u32 = 52;

/// The two kinds of tables that translate the addresses of a paging domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// x86-64 tables; accessed and dirty flags are always active.
    First,
    /// VT-d's own tables; the PASID entry enables the dirty flags.
    Second,
}

/// A missing capability, without which the driver cannot drive the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Queued invalidation.
    Queue,
    /// Scalable mode.
    ScalableMode,
    /// A usable stage of translation.
    Stage,
}

impl Missing {
    /// One clause for the log.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Queue => "has no queued invalidation (ECAP.QI)",
            Self::ScalableMode => "has no scalable mode (ECAP.SMTS)",
            Self::Stage => "translates in neither stage (ECAP.FSTS, ECAP.SSTS, CAP.SAGAW)",
        }
    }
}

/// Why a stage cannot track what devices write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoDirty {
    /// The stage itself is missing.
    NoStage,
    /// The stage has no dirty flags.
    NoFlags,
    /// Walks are incoherent: the unit's write of D and the driver's cache flush race.
    Incoherent,
}

impl NoDirty {
    /// One clause for the log.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::NoStage => "the stage is not supported",
            Self::NoFlags => "second-stage tables have no dirty flags (ECAP.SSADS)",
            Self::Incoherent => "page walks are not coherent (ECAP.SMPWC)",
        }
    }
}

/// The capabilities of one unit.
#[derive(Clone, Copy)]
pub(crate) struct Caps {
    cap: CAP,
    ecap: ECAP,
}

impl Caps {
    /// Decodes the two registers.
    pub(crate) fn new(cap: CAP, ecap: ECAP) -> Self {
        Self { cap, ecap }
    }

    /// `CAP` as the unit reports it, for user space.
    pub(crate) fn raw_cap(&self) -> u64 {
        self.cap.into_raw()
    }

    /// `ECAP` as the unit reports it, for user space.
    pub(crate) fn raw_ecap(&self) -> u64 {
        self.ecap.into_raw()
    }

    /// Whether this driver can drive the unit.
    ///
    /// # Errors
    ///
    /// Says what is missing.
    pub(crate) fn usable(&self) -> Result<(), Missing> {
        if !self.ecap.queued_invalidation() {
            return Err(Missing::Queue);
        }
        if !self.ecap.scalable_mode() {
            return Err(Missing::ScalableMode);
        }
        if self.shape(Stage::First).is_none() && self.shape(Stage::Second).is_none() {
            return Err(Missing::Stage);
        }
        Ok(())
    }

    /// The shape of the tables of `stage`, or [`None`] if the unit does not offer it.
    pub(crate) fn shape(&self, stage: Stage) -> Option<Config> {
        match stage {
            Stage::First => self.first_stage(),
            Stage::Second => self.second_stage(),
        }
    }

    /// Bits of an address that the unit accepts.
    fn guest_width(&self) -> u8 {
        // CAST: the field is 6 bits wide.
        self.cap.guest_width().get() as u8 + 1
    }

    fn config(&self, levels: u8, width: u8, page_sizes: u64) -> Config {
        Config {
            levels,
            max_levels: levels,
            page_sizes,
            input_lg2: width.into(),
            output_lg2: OUTPUT_WIDTH,
            coherent: self.coherent_walk(),
            // Neither format needs to know.
            marks: true,
            splits: false,
        }
    }

    fn first_stage(&self) -> Option<Config> {
        if !self.ecap.first_stage() {
            return None;
        }
        let five = self.guest_width() > 48 && self.cap.first_stage_five_levels();
        let levels: u8 = if five { 5 } else { 4 };
        // An address with the top bit set would be sign-extended by the walk, so only the lower
        // canonical half is offered (3.6).
        let width = self.guest_width().min(12 + 9 * levels - 1);
        let mut page_sizes = u64::SZ_4K | u64::SZ_2M;
        if self.cap.first_stage_1g() {
            page_sizes |= u64::SZ_1G;
        }
        Some(self.config(levels, width, page_sizes))
    }

    fn second_stage(&self) -> Option<Config> {
        if !self.ecap.second_stage() {
            return None;
        }
        // SAGAW bit n stands for n + 2 levels; the smallest one that reaches the guest width
        // makes the shortest walk.
        let supported = self.cap.second_stage_levels().get();
        let mut best = None;
        for levels in 3..=5u8 {
            if supported & (1 << (levels - 2)) == 0 {
                continue;
            }
            best = Some(levels);
            if 12 + 9 * levels >= self.guest_width() {
                break;
            }
        }
        let levels = best?;
        let width = self.guest_width().min(12 + 9 * levels);
        let mut page_sizes = u64::SZ_4K;
        if self.cap.second_stage_2m() {
            page_sizes |= u64::SZ_2M;
        }
        if self.cap.second_stage_1g() {
            page_sizes |= u64::SZ_1G;
        }
        Some(self.config(levels, width, page_sizes))
    }

    /// The largest number of levels in `SAGAW`, which pass-through entries must use (9.6).
    pub(crate) fn widest(&self) -> u8 {
        let supported = self.cap.second_stage_levels().get();
        (3..=5u8)
            .rev()
            .find(|levels| supported & (1 << (levels - 2)) != 0)
            .unwrap_or(4)
    }

    /// Whether `stage` can track what devices write.
    ///
    /// The flags of first-stage tables are always active. Second-stage tables need `SSADS`.
    /// Either needs coherent walks: an incoherent walker's write of D races with the driver's
    /// cache flush.
    ///
    /// # Errors
    ///
    /// Says what is missing.
    pub(crate) fn dirty(&self, stage: Stage) -> Result<(), NoDirty> {
        if self.shape(stage).is_none() {
            return Err(NoDirty::NoStage);
        }
        if stage == Stage::Second && !self.ecap.second_stage_dirty() {
            return Err(NoDirty::NoFlags);
        }
        if !self.coherent_walk() {
            return Err(NoDirty::Incoherent);
        }
        Ok(())
    }

    /// Whether walks of the domains' tables snoop the caches.
    pub(crate) fn coherent_walk(&self) -> bool {
        self.ecap.coherent_walk()
    }

    /// Whether accesses to root, context and PASID tables snoop the caches.
    pub(crate) fn coherent_tables(&self) -> bool {
        self.ecap.coherent_tables()
    }

    /// Whether devices can be passed through untranslated.
    pub(crate) fn pass_through(&self) -> bool {
        self.ecap.pass_through()
    }

    /// Whether the unit can be told to snoop on every access of a domain.
    pub(crate) fn snoop_control(&self) -> bool {
        self.ecap.snoop_control()
    }

    /// Whether the unit may cache absent entries, so that making one present needs an
    /// invalidation.
    pub(crate) fn caching_mode(&self) -> bool {
        self.cap.caching_mode()
    }

    /// Whether the driver must flush the write buffer explicitly.
    pub(crate) fn write_buffer(&self) -> bool {
        self.cap.write_buffer_flush()
    }

    /// Whether setting the root table pointer invalidates all caches by itself.
    pub(crate) fn enhanced_set_root(&self) -> bool {
        self.cap.enhanced_set_root()
    }

    /// Whether an IOTLB invalidation can drain reads and writes in flight.
    pub(crate) fn drain(&self) -> (bool, bool) {
        (self.cap.drain_reads(), self.cap.drain_writes())
    }

    /// Whether the unit has protected memory regions.
    pub(crate) fn protected_memory(&self) -> bool {
        self.cap.protected_low() || self.cap.protected_high()
    }

    /// Number of domain ids.
    pub(crate) fn domains(&self) -> u32 {
        // CAST: three bits; the largest count that is defined, 2^16, is at 6.
        1 << (4 + 2 * (self.cap.domains().get() as u32).min(6))
    }

    /// The largest address mask of a page-selective invalidation of `stage`, if it has any.
    pub(crate) fn address_mask(&self, stage: Stage) -> Option<u8> {
        let largest = self.cap.max_address_mask().get() as u8;
        match stage {
            // PASID-based invalidations are page-selective on every unit with a first stage.
            Stage::First => Some(largest),
            Stage::Second => self.cap.page_selective().then_some(largest),
        }
    }

    /// Byte offset and number of the fault recording registers.
    pub(crate) fn fault_records(&self) -> (usize, usize) {
        // CAST: ten and eight bits wide.
        (
            self.cap.fault_offset().get() as usize * 16,
            self.cap.fault_records().get() as usize + 1,
        )
    }
}

#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
#[kunit_tests(rust_vtd_caps)]
mod tests {
    use super::*;

    /// What QEMU's `intel-iommu,x-scalable-mode=on,aw-bits=48` reports in `CAP`.
    const CAP_48: u64 = 0x00d2_008c_222f_0606;

    const QI: u64 = 1 << 1;
    const PT: u64 = 1 << 6;
    const SMTS: u64 = 1 << 43;
    const SSADS: u64 = 1 << 45;
    const SSTS: u64 = 1 << 46;
    const FSTS: u64 = 1 << 47;
    const SMPWC: u64 = 1 << 48;

    fn caps(cap: u64, ecap: u64) -> Caps {
        Caps::new(CAP::from_raw(cap), ECAP::from_raw(ecap))
    }

    #[test]
    fn says_what_is_missing() {
        assert_eq!(caps(CAP_48, SMTS | SSTS).usable(), Err(Missing::Queue));
        assert_eq!(caps(CAP_48, QI | SSTS).usable(), Err(Missing::ScalableMode));
        assert_eq!(caps(CAP_48, QI | SMTS).usable(), Err(Missing::Stage));
        assert_eq!(caps(CAP_48, QI | SMTS | SSTS).usable(), Ok(()));
        // A second stage without any number of levels is unusable.
        let none = CAP_48 & !(0x1f << 8);
        assert_eq!(caps(none, QI | SMTS | SSTS).usable(), Err(Missing::Stage));
    }

    #[test]
    fn second_stage_shape() {
        let shape = caps(CAP_48, SSTS).shape(Stage::Second);
        let all = u64::SZ_4K | u64::SZ_2M | u64::SZ_1G;
        assert_eq!(
            shape.map(|s| (s.levels, s.input_lg2, s.page_sizes)),
            Some((4, 48, all))
        );
        // With a guest width of 39 bits, and three and four levels on offer, the stage has
        // three.
        let narrow = (CAP_48 & !(0x3f << 16)) | 38 << 16;
        let shape = caps(narrow, SSTS).shape(Stage::Second);
        assert_eq!(shape.map(|s| (s.levels, s.input_lg2)), Some((3, 39)));
        // With four levels only, the walk is four levels long and the width stays 39.
        let four = (narrow & !(0x1f << 8)) | 0b100 << 8;
        let shape = caps(four, SSTS).shape(Stage::Second);
        assert_eq!(shape.map(|s| (s.levels, s.input_lg2)), Some((4, 39)));
    }

    #[test]
    fn first_stage_is_the_lower_half() {
        let shape = caps(CAP_48, FSTS).shape(Stage::First);
        assert_eq!(shape.map(|s| (s.levels, s.input_lg2)), Some((4, 47)));
        let wide = (CAP_48 & !(0x3f << 16)) | 56 << 16 | 1 << 60;
        let shape = caps(wide, FSTS).shape(Stage::First);
        assert_eq!(shape.map(|s| (s.levels, s.input_lg2)), Some((5, 56)));
        assert_eq!(caps(CAP_48, SSTS).shape(Stage::First), None);
    }

    #[test]
    fn dirty_tracking_is_explained() {
        let flags = SSTS | SSADS | SMPWC;
        assert_eq!(caps(CAP_48, flags).dirty(Stage::Second), Ok(()));
        assert_eq!(
            caps(CAP_48, flags & !SSADS).dirty(Stage::Second),
            Err(NoDirty::NoFlags)
        );
        assert_eq!(
            caps(CAP_48, flags & !SMPWC).dirty(Stage::Second),
            Err(NoDirty::Incoherent)
        );
        assert_eq!(
            caps(CAP_48, flags).dirty(Stage::First),
            Err(NoDirty::NoStage)
        );
        assert_eq!(caps(CAP_48, FSTS | SMPWC).dirty(Stage::First), Ok(()));
        assert_eq!(
            caps(CAP_48, FSTS).dirty(Stage::First),
            Err(NoDirty::Incoherent)
        );
    }

    #[test]
    fn numbers() {
        let caps = caps(CAP_48, PT);
        assert_eq!(caps.domains(), 1 << 16);
        assert_eq!(caps.fault_records(), (0x220, 1));
        assert_eq!(caps.address_mask(Stage::Second), Some(18));
        assert_eq!(caps.widest(), 4);
        assert!(caps.pass_through());
        assert!(!caps.caching_mode());
    }
}
