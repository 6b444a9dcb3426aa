// SPDX-License-Identifier: GPL-2.0

//! Whether a domain can be attached to a device, given the device's other domains. Pure.
//!
//! A device has one device table entry for its requests with and without PASID. A host table (v1)
//! and guest tables (v2) in one entry are nested translation, which the driver does not offer. So
//! PASIDs are compatible with guest tables and with the identity, and not with a host table.

use kernel::iommu::values::DeviceSlot;

use crate::{
    caps::TableKind,
    pasids::sequence::Untagged, //
};

/// The state of a device with PASIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// How the unit treats requests without PASID.
    pub(crate) untagged: Untagged,
    /// Whether a PASID is attached.
    pub(crate) used: bool,
}

/// Why a domain with `tables` cannot be attached to `slot` of a device; [`None`] if it can.
/// `device` is [`None`] for a device without PASIDs, or whose PASIDs could not be enabled.
pub(crate) fn find(
    slot: DeviceSlot,
    tables: TableKind,
    device: Option<Device>,
) -> Option<&'static str> {
    match (slot, tables, device) {
        (DeviceSlot::Rid, TableKind::Host, Some(Device { used: true, .. })) => Some(
            "PASIDs of it are attached: beside these it can have guest (v2) tables or the \
             identity, and not the host (v1) tables of this domain",
        ),
        (DeviceSlot::Rid, ..) => None,
        (DeviceSlot::Pasid(_), TableKind::Host, _) => {
            Some("a PASID can have guest (v2) tables, and not the host (v1) tables of this domain")
        }
        (DeviceSlot::Pasid(_), TableKind::Guest, None) => Some("its PASIDs cannot be used"),
        (DeviceSlot::Pasid(_), TableKind::Guest, Some(device)) => {
            (device.untagged == Untagged::Host).then_some(
                "it has host (v1) tables itself: beside PASIDs it can have guest (v2) tables or \
                 the identity",
            )
        }
    }
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
#[kernel::prelude::kunit_tests(rust_amdvi_compatibility)]
mod tests {
    use super::*;

    const FOUND: [Untagged; 4] = [
        Untagged::Blocked,
        Untagged::PassThrough,
        Untagged::Host,
        Untagged::Guest(0x1000),
    ];

    #[test]
    fn pasids_and_host_tables_exclude_each_other() {
        let find = |slot, tables, untagged, used| {
            super::find(slot, tables, Some(Device { untagged, used })).is_some()
        };
        let pasid = DeviceSlot::Pasid(7);
        for untagged in FOUND {
            let host = untagged == Untagged::Host;
            assert!(!find(DeviceSlot::Rid, TableKind::Host, untagged, false));
            assert!(!find(DeviceSlot::Rid, TableKind::Guest, untagged, false));
            assert_eq!(find(pasid, TableKind::Guest, untagged, false), host);
            for used in [false, true] {
                assert!(find(pasid, TableKind::Host, untagged, used));
            }
            if !host {
                assert!(find(DeviceSlot::Rid, TableKind::Host, untagged, true));
                assert!(!find(DeviceSlot::Rid, TableKind::Guest, untagged, true));
                assert!(!find(pasid, TableKind::Guest, untagged, true));
            }
        }
    }

    #[test]
    fn a_device_without_pasids() {
        for tables in [TableKind::Host, TableKind::Guest] {
            assert!(find(DeviceSlot::Rid, tables, None).is_none());
            assert!(find(DeviceSlot::Pasid(7), tables, None).is_some());
        }
    }
}
