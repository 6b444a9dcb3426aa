// SPDX-License-Identifier: GPL-2.0

//! The capabilities of a unit, as the driver uses them.
//!
//! Specification, 3.4.1 for the bits, 2.2.3 and 2.2.6 for the widths of host and guest translation.
//! Pure: [`crate::unit`] reads the values once.

use kernel::{
    iommu::pt::Config,
    prelude::*,
    sizes::SizeConstants, //
};

use crate::{
    acpi::Features,
    gcr3,
    regs::cap::{
        Header,
        Info,
        EFR,
        EFR2, //
    }, //
};

/// Bits of an output address that the tables can hold.
const OUTPUT_WIDTH: u32 = 52;

/// Bits of a PASID in a request.
const PASID_BITS: u32 = 20;

/// The two kinds of tables that translate the addresses of a paging domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableKind {
    /// AMD's own ("v1", host translation); the device entry enables the dirty flags.
    Host,
    /// x86-64 tables ("v2", guest translation); accessed and dirty flags are always active.
    Guest,
}

/// A missing capability, without which the driver cannot drive the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The register of extended features.
    Features,
    /// A usable kind of tables.
    Tables,
}

impl Missing {
    /// One clause for the log.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Features => "has no register of extended features (EFRSup)",
            Self::Tables => {
                "translates by neither kind of tables (EFR.HATS, IVHD HATDis; EFR.GTSup, GIoSup)"
            }
        }
    }
}

/// Why a kind of tables cannot track what devices write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoDirty {
    /// The tables themselves are missing.
    Unsupported,
    /// The unit sets no accessed bits in host tables.
    AccessedFlag,
    /// The unit sets no dirty bits in host tables.
    DirtyFlag,
}

impl NoDirty {
    /// One clause for the log.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Unsupported => "such tables are not supported",
            Self::AccessedFlag => "host tables have no accessed flags (EFR.HASup)",
            Self::DirtyFlag => "host tables have no dirty flags (EFR.HDSup)",
        }
    }
}

/// The capabilities of one unit.
#[derive(Clone, Copy)]
pub(crate) struct Caps {
    header: Header,
    efr: EFR,
    efr2: EFR2,
    info: Info,
    /// Firmware forbids host translation (HATDis).
    no_host: bool,
}

/// The valid address widths of firmware; with any other the driver assumes all bits.
const WIDTHS: [u8; 4] = [32, 40, 48, 64];

impl Caps {
    /// Decodes the registers and firmware's statements.
    pub(crate) fn new(header: Header, efr: EFR, efr2: EFR2, info: u32, no_host: bool) -> Self {
        Self {
            header,
            efr,
            efr2,
            info: Info::from_raw(info),
            no_host,
        }
    }

    /// Leaves out the features that firmware's `image` of the registers withholds. One flag of
    /// firmware tells whether the images are valid. As in C (`init_iommu_one()`), an image without
    /// GASUP is not: every unit that has images has GASUP, so firmware has not filled it in.
    pub(crate) fn limited_by(self, image: Option<Features>) -> Self {
        let count = self.info.features();
        let image = image.map(|[efr, efr2]| (EFR::from_raw(efr), efr2));
        let counted = image.filter(|(efr, _)| count && efr.guest_apic());
        let Some((efr, efr2)) = counted else {
            return self;
        };
        Self {
            efr: self.efr.limited_by(efr),
            efr2: self.efr2.limited_by(EFR2::from_raw(efr2)),
            ..self
        }
    }

    /// `EFR` as the driver uses it, for user space.
    pub(crate) fn raw_efr(&self) -> u64 {
        self.efr.into_raw()
    }

    /// `EFR2` as the driver uses it, for user space.
    pub(crate) fn raw_efr2(&self) -> u64 {
        self.efr2.into_raw()
    }

    /// Whether this driver can drive the unit.
    ///
    /// # Errors
    ///
    /// Tells what is missing.
    pub(crate) fn usable(&self) -> Result<(), Missing> {
        if !self.header.features() {
            return Err(Missing::Features);
        }
        if self.shape(TableKind::Host).is_none() && self.shape(TableKind::Guest).is_none() {
            return Err(Missing::Tables);
        }
        Ok(())
    }

    /// The shape of tables of a kind, or [`None`] if the unit does not walk them.
    pub(crate) fn shape(&self, tables: TableKind) -> Option<Config> {
        match tables {
            TableKind::Host => self.host(),
            TableKind::Guest => self.guest(),
        }
    }

    fn host(&self) -> Option<Config> {
        if self.no_host {
            return None;
        }
        let max_levels = self.efr.max_host_levels()?;
        // CAST: The field is seven bits wide.
        let stated = self.info.address_bits().get() as u8;
        let width = if WIDTHS.contains(&stated) { stated } else { 64 };
        // All sizes below the largest output address. The format leaves out those that fail.
        let page_sizes = (1 << 52) - u64::SZ_4K;
        Some(Config {
            // Half a terabyte; a mapping above it makes the table grow.
            levels: 3,
            max_levels,
            page_sizes,
            input_lg2: width.into(),
            output_lg2: OUTPUT_WIDTH,
            coherent: true,
            // The format does not need to know.
            marks: true,
            splits: false,
        })
    }

    fn guest(&self) -> Option<Config> {
        // Requests without PASID must be able to use guest tables: all devices send those.
        if !self.efr.guest_translation() || !self.efr.guest_untagged() {
            return None;
        }
        Some(Config {
            levels: 4,
            max_levels: 4,
            page_sizes: u64::SZ_4K | u64::SZ_2M | u64::SZ_1G,
            // Without PASID all 48 bits are translated; with one the upper half is the
            // sign-extended one. The lower half means the same in both.
            input_lg2: 47,
            output_lg2: OUTPUT_WIDTH,
            coherent: true,
            // The format does not need to know.
            marks: true,
            splits: false,
        })
    }

    /// Whether tables of a kind can track what devices write.
    ///
    /// The flags of guest tables are always active. Host tables need HASup and HDSup: one field of
    /// the entry enables both (HAD, 2.2.2.1). Walks are coherent on every unit.
    ///
    /// # Errors
    ///
    /// Tells what is missing.
    pub(crate) fn dirty(&self, tables: TableKind) -> Result<(), NoDirty> {
        if self.shape(tables).is_none() {
            return Err(NoDirty::Unsupported);
        }
        if tables == TableKind::Host {
            if !self.efr.host_accessed() {
                return Err(NoDirty::AccessedFlag);
            }
            if !self.efr.host_dirty() {
                return Err(NoDirty::DirtyFlag);
            }
        }
        Ok(())
    }

    /// How many PASIDs of a device the unit can tell apart, 0 if it has no guest tables.
    ///
    /// The limits are PASmax, the depth of a GCR3 table (GLXSup), and the 20 bits of PASIDs in PCI
    /// Express.
    pub(crate) fn pasids(&self) -> u32 {
        if self.shape(TableKind::Guest).is_none() {
            return 0;
        }
        // CAST: The fields have five bits and two.
        let stated = self.efr.pasid_bits().get() as u32 + 1;
        let depth = self.efr.guest_depth().get() as u8 + 1;
        let indexed = u32::from(depth.min(gcr3::MAX_LEVELS)) * gcr3::INDEX_BITS;
        1 << stated.min(indexed).min(PASID_BITS)
    }

    /// Whether guest translation can be switched on at all.
    pub(crate) fn guest_translation(&self) -> bool {
        self.efr.guest_translation()
    }

    /// Whether the unit may cache absent entries, so that making one present needs an invalidation.
    pub(crate) fn cache_absent(&self) -> bool {
        self.header.cache_absent()
    }

    /// Whether one command invalidates all caches.
    pub(crate) fn invalidate_all(&self) -> bool {
        self.efr.invalidate_all()
    }

    /// Whether entries of interrupt remapping tables can have 128 bits (GASup), which this driver
    /// needs. Old units have entries of 32 bits only.
    pub(crate) fn remaps_interrupts(&self) -> bool {
        self.efr.guest_apic()
    }

    /// Whether firmware has blocked DMA of devices until now.
    pub(crate) fn protected(&self) -> bool {
        self.info.protected()
    }

    /// Whether the addresses that HyperTransport reserves can be used like others.
    pub(crate) fn ignores_hypertransport(&self) -> bool {
        self.efr2.ignore_hypertransport()
    }
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
#[kunit_tests(rust_amdvi_caps)]
mod tests {
    use super::*;

    const GT: u64 = 1 << 4;
    const GA: u64 = 1 << 7;
    const GIO: u64 = 1 << 48;
    const HA: u64 = 1 << 49;
    const HD: u64 = 1 << 52;
    const NO_HATS: u64 = 3 << 10;

    const FEATURES: u32 = 1 << 27;

    fn caps(header: u32, efr: u64, info: u32) -> Caps {
        Caps::new(
            Header::from_raw(header),
            EFR::from_raw(efr),
            EFR2::from_raw(0),
            info,
            false,
        )
    }

    #[test]
    fn firmware_withholds_features() {
        const STATED: u32 = 1 << 0;
        let both = HA | HD;
        let limited = |efr, image| caps(FEATURES, efr, STATED).limited_by(Some([GA | image, 0]));
        assert_eq!(limited(both, both).dirty(TableKind::Host), Ok(()));
        let missing = Err(NoDirty::DirtyFlag);
        assert_eq!(limited(both, HA).dirty(TableKind::Host), missing);
        // What the unit does not have firmware cannot give it.
        assert_eq!(limited(HA, both).dirty(TableKind::Host), missing);
        // Fields: the lower value, and the one that says no.
        let levels = |caps: Caps| caps.shape(TableKind::Host).map(|shape| shape.max_levels);
        for (unit, image, most) in [
            (2, 1, Some(5)),
            (1, 2, Some(5)),
            (0, 2, Some(4)),
            (3, 0, None),
            (1, 3, None),
        ] {
            assert_eq!(levels(limited(unit << 10, image << 10)), most);
        }
        let guest = |pasmax: u64, glx: u64| GT | GIO | pasmax << 32 | glx << 14;
        let pasids = |unit, image| limited(unit, image).pasids();
        assert_eq!(pasids(guest(10, 1), guest(5, 2)), 1 << 6);
        assert_eq!(pasids(guest(19, 1), guest(19, 2)), 1 << 18);
        assert_eq!(pasids(guest(19, 2), 19 << 32), 0);

        let ranges = |caps: Caps, image| {
            let caps = Caps {
                efr2: EFR2::from_raw(1 << 11),
                ..caps
            };
            caps.limited_by(image).ignores_hypertransport()
        };
        assert!(ranges(caps(FEATURES, 0, STATED), Some([GA, 1 << 11])));
        assert!(!ranges(caps(FEATURES, 0, STATED), Some([GA, 0])));
        // Images that do not count, one that was not filled in, and a block that has none.
        assert!(ranges(caps(FEATURES, 0, 0), Some([GA, 0])));
        assert!(ranges(caps(FEATURES, 0, STATED), Some([0, 0])));
        assert!(ranges(caps(FEATURES, 0, STATED), None));
    }

    #[test]
    fn says_what_is_missing() {
        assert_eq!(caps(0, GT | GIO, 0).usable(), Err(Missing::Features));
        assert_eq!(caps(FEATURES, NO_HATS, 0).usable(), Err(Missing::Tables));
        assert_eq!(
            caps(FEATURES, NO_HATS | GT, 0).usable(),
            Err(Missing::Tables)
        );
        assert_eq!(caps(FEATURES, NO_HATS | GT | GIO, 0).usable(), Ok(()));
        assert_eq!(caps(FEATURES, 0, 0).usable(), Ok(()));
        let no_host = Caps::new(
            Header::from_raw(FEATURES),
            EFR::from_raw(0),
            EFR2::from_raw(0),
            0,
            true,
        );
        assert_eq!(no_host.usable(), Err(Missing::Tables));
    }

    #[test]
    fn host_shape() {
        for (code, most) in [(0, 4), (1, 5), (2, 6)] {
            let shape = caps(FEATURES, code << 10, 0).shape(TableKind::Host);
            assert_eq!(shape.map(|s| (s.levels, s.max_levels)), Some((3, most)));
            assert_eq!(shape.map(|s| s.input_lg2), Some(64));
        }
        let narrow = caps(FEATURES, 0, 0x30 << 15).shape(TableKind::Host);
        assert_eq!(narrow.map(|s| s.input_lg2), Some(48));
        // A width that the specification does not know says nothing.
        let odd = caps(FEATURES, 0, 0x31 << 15).shape(TableKind::Host);
        assert_eq!(odd.map(|s| s.input_lg2), Some(64));
        assert_eq!(caps(FEATURES, NO_HATS, 0).shape(TableKind::Host), None);
    }

    #[test]
    fn guest_shape() {
        assert_eq!(caps(FEATURES, GT, 0).shape(TableKind::Guest), None);
        assert_eq!(caps(FEATURES, GIO, 0).shape(TableKind::Guest), None);
        let shape = caps(FEATURES, GT | GIO, 0).shape(TableKind::Guest);
        assert_eq!(shape.map(|s| (s.levels, s.input_lg2)), Some((4, 47)));
    }

    #[test]
    fn pasids() {
        let of =
            |pasmax: u64, glx: u64| caps(FEATURES, GT | GIO | pasmax << 32 | glx << 14, 0).pasids();
        // Neither more than a PASID can be, nor than the table has entries for.
        assert_eq!(of(15, 1), 1 << 16);
        assert_eq!(of(15, 0), 512);
        assert_eq!(of(19, 1), 1 << 18);
        assert_eq!(of(19, 2), 1 << 20);
        assert_eq!(of(31, 2), 1 << 20);
        // A code that is reserved says no more than the highest that is not.
        assert_eq!(of(19, 3), 1 << 20);
        assert_eq!(of(7, 2), 1 << 8);
        assert_eq!(caps(FEATURES, GT | 15 << 32, 0).pasids(), 0);
        assert_eq!(caps(FEATURES, 15 << 32, 0).pasids(), 0);
    }

    #[test]
    fn dirty_tracking_is_explained() {
        let both = HA | HD;
        assert_eq!(caps(FEATURES, both, 0).dirty(TableKind::Host), Ok(()));
        assert_eq!(
            caps(FEATURES, HD, 0).dirty(TableKind::Host),
            Err(NoDirty::AccessedFlag)
        );
        assert_eq!(
            caps(FEATURES, HA, 0).dirty(TableKind::Host),
            Err(NoDirty::DirtyFlag)
        );
        assert_eq!(
            caps(FEATURES, both | NO_HATS, 0).dirty(TableKind::Host),
            Err(NoDirty::Unsupported)
        );
        assert_eq!(
            caps(FEATURES, both, 0).dirty(TableKind::Guest),
            Err(NoDirty::Unsupported)
        );
        assert_eq!(caps(FEATURES, GT | GIO, 0).dirty(TableKind::Guest), Ok(()));
    }
}
