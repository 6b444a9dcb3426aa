// SPDX-License-Identifier: GPL-2.0

//! The path to a PCI function from the root, by which firmware names it.

use kernel::{
    device::Device,
    iommu::pci::function::Function,
    prelude::*, //
};

use crate::acpi::scope::Hop;

/// The path that the driver compares with the scopes of firmware.
#[derive(Default)]
pub(crate) struct Path {
    /// The functions from the root bus down to this one. A virtual function has the path of its
    /// physical one: firmware does not know it (VT-d specification, 8.3.1).
    pub(crate) chain: KVec<Hop>,
    /// The same, except that a virtual function has its own path. A statement of firmware about a
    /// function does not apply to its virtual functions; one about a bridge applies to all
    /// functions behind it.
    pub(crate) own: KVec<Hop>,
    /// Whether it is an internal GPU that hangs if the translation of its unit is switched off.
    pub(crate) needs_translation: bool,
    /// Whether the function needs reserved memory only for firmware's use before boot.
    pub(crate) relaxable: bool,
}

/// Base class and subclass of USB controllers.
const CLASS_USB: u32 = 0x0c03;

/// Base class of display controllers.
const BASE_CLASS_DISPLAY: u32 = 0x03;

/// PCI vendor ID of Intel.
const INTEL: u16 = 0x8086;

/// Upper bytes of the device IDs of GPUs that hang if the translation of their unit is switched
/// off, as the C driver has them (`quirk_igfx_skip_te_disable()`).
const FRAGILE_GPUS: [u8; 9] = [0x45, 0x46, 0x4c, 0x4e, 0x8a, 0x98, 0x9a, 0xa7, 0x7d];

/// Whether a function with these IDs and this base class is one of [`FRAGILE_GPUS`].
///
/// An external device can pretend to be anything: as in the C driver (`risky_device()`), it must
/// not influence the handling of a unit.
fn is_fragile((vendor, device): (u16, u16), base_class: u32, is_untrusted: bool) -> bool {
    // CAST: Eight bits.
    !is_untrusted
        && vendor == INTEL
        && base_class == BASE_CLASS_DISPLAY
        && FRAGILE_GPUS.contains(&((device >> 8) as u8))
}

impl Path {
    /// The path to `dev`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it is not a PCI function, `ENOMEM`.
    pub(crate) fn of(dev: &Device) -> Result<Self> {
        let function = Function::of(dev).ok_or(ENODEV)?;
        let class = function.class() >> 8;
        let needs_translation = is_fragile(function.ids(), class >> 8, function.is_untrusted());
        let function = function.real_dma();

        let mut chain = KVec::new();
        let mut at = Some(function.physical());
        while let Some(function) = at {
            chain.push(
                Hop {
                    bus: function.bus(),
                    devfn: function.devfn(),
                },
                GFP_KERNEL,
            )?;
            at = function.parent();
        }
        chain.reverse();
        let mut own = KVec::with_capacity(chain.len(), GFP_KERNEL)?;
        own.extend_from_slice(&chain, GFP_KERNEL)?;
        if let Some(last) = own.last_mut() {
            *last = Hop {
                bus: function.bus(),
                devfn: function.devfn(),
            };
        }
        Ok(Self {
            chain,
            own,
            needs_translation,
            relaxable: class == CLASS_USB || class >> 8 == BASE_CLASS_DISPLAY,
        })
    }
}

#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
#[kunit_tests(rust_vtd_topology)]
mod tests {
    use super::*;

    #[test]
    fn gpus_that_need_translation() {
        let inside = |ids, class| is_fragile(ids, class, false);
        assert!(inside((INTEL, 0x9a49), BASE_CLASS_DISPLAY));
        // Another function of the same chip, another vendor, an older GPU.
        assert!(!inside((INTEL, 0x9a0b), 0x01));
        assert!(!inside((0x1002, 0x9a49), BASE_CLASS_DISPLAY));
        assert!(!inside((INTEL, 0x5912), BASE_CLASS_DISPLAY));
        // An external one.
        assert!(!is_fragile((INTEL, 0x9a49), BASE_CLASS_DISPLAY, true));
    }
}
