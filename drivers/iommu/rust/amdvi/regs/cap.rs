// SPDX-License-Identifier: GPL-2.0

//! Extended features, and the capability header in the configuration space (specification, 3.2 and
//! 3.4.1).
//!
//! All of these are read-only. What they mean for the driver is in [`crate::caps`]. Firmware has an
//! image of the features in the IVRS table (5.2.2.1), which limits them.

use kernel::{
    bitfield,
    io::register,
    num::Bounded, //
};

register! {
    /// Extended features.
    pub(crate) EFR(u64) @ 0x30 {
        /// HDSUP: the unit can set dirty bits in host tables.
        52:52   host_dirty => bool;
        /// HASUP: the unit can set accessed bits in host tables.
        49:49   host_accessed => bool;
        /// GIOSUP: requests without PASID can be translated by guest tables.
        48:48   guest_untagged => bool;
        /// PASMAX: bits of a PASID, less one.
        36:32   pasid_bits;
        /// GLXSUP: the most levels of a GCR3 table, less one.
        15:14   guest_depth;
        /// HATS: see [`Self::max_host_levels`].
        11:10   host_levels;
        /// GASUP: interrupts can be posted to guests, and the entries for interrupts can have 128
        /// bits.
        7:7     guest_apic => bool;
        /// IASUP: everything can be invalidated by one command.
        6:6     invalidate_all => bool;
        /// GTSUP: guest translation.
        4:4     guest_translation => bool;
    }

    /// Extended features 2.
    pub(crate) EFR2(u64) @ 0x1a0 {
        /// HTRangeIgnore: the addresses that HyperTransport reserved are like any others.
        11:11   ignore_hypertransport => bool;
    }
}

bitfield! {
    /// The first word of the unit's capability block.
    pub(crate) struct Header(u32) {
        /// EFRSUP: the unit has the register of extended features.
        27:27   features => bool;
        /// NPCACHE: absent table entries may be cached.
        26:26   cache_absent => bool;
        /// CapID: 0fh for a secure device.
        7:0     id;
    }
}

bitfield! {
    /// IVinfo: what firmware says of all units (5.2.1).
    pub(crate) struct Info(u32) {
        /// VASIZE: bits of an address that is translated.
        21:15   address_bits;
        /// DMA-remap support: firmware has kept devices from DMA until here.
        1:1     protected => bool;
        /// EFRSUP: the blocks of units state their extended features.
        0:0     features => bool;
    }
}

/// `EFR.HATS` of a unit without host translation.
const NO_HOST: Bounded<u64, 2> = Bounded::<u64, 2>::new::<3>();

impl EFR {
    /// The most levels of a host table; [`None`] if there is no host translation.
    pub(crate) fn max_host_levels(self) -> Option<u8> {
        let code = self.host_levels();
        // CAST: The field is two bits wide.
        (code != NO_HOST).then_some(4 + code.get() as u8)
    }

    /// What both the unit and firmware's image of its register offer.
    ///
    /// C takes the image instead of the register (`early_iommu_features_init()`), which lets
    /// firmware withhold what does not work. A feature that only the image has would not work
    /// either: a unit without HDSUP sets no dirty bit.
    pub(crate) fn limited_by(self, image: Self) -> Self {
        let codes = [self.host_levels(), image.host_levels()];
        let levels = if codes.contains(&NO_HOST) {
            NO_HOST
        } else {
            codes[0].min(codes[1])
        };
        Self::from_raw(self.into_raw() & image.into_raw())
            .with_host_levels(levels)
            .with_guest_depth(self.guest_depth().min(image.guest_depth()))
            .with_pasid_bits(self.pasid_bits().min(image.pasid_bits()))
    }
}

impl EFR2 {
    /// As for [`EFR::limited_by`].
    pub(crate) fn limited_by(self, image: Self) -> Self {
        Self::from_raw(self.into_raw() & image.into_raw())
    }
}
