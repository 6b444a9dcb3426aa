// SPDX-License-Identifier: GPL-2.0

//! The way to a PCI function from the root, by which firmware names it.

use kernel::{
    device::Device,
    iommu::pci::Function,
    prelude::*, //
};

use crate::acpi::scope::Node;

/// What the scopes of firmware are compared with.
pub(crate) struct Path {
    /// The functions from the root bus down to this one. A virtual function is found where its
    /// physical one is: firmware does not know of it (VT-d specification, 8.3.1).
    pub(crate) chain: KVec<Node>,
    /// Whether reserved memory is only there for what firmware did before boot.
    pub(crate) relaxable: bool,
}

/// Base class and subclass of USB controllers.
const CLASS_USB: u32 = 0x0c03;

/// Base class of display controllers.
const BASE_CLASS_DISPLAY: u32 = 0x03;

impl Path {
    /// The path to `dev`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it is no PCI function, `ENOMEM`.
    pub(crate) fn of(dev: &Device) -> Result<Self> {
        let function = Function::of(dev).ok_or(ENODEV)?;
        let class = function.class() >> 8;

        let mut chain = KVec::new();
        let mut at = Some(function.physical());
        while let Some(function) = at {
            chain.push(
                Node {
                    bus: function.bus(),
                    devfn: function.devfn(),
                },
                GFP_KERNEL,
            )?;
            at = function.parent();
        }
        chain.reverse();
        Ok(Self {
            chain,
            relaxable: class == CLASS_USB || class >> 8 == BASE_CLASS_DISPLAY,
        })
    }
}
