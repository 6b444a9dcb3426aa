// SPDX-License-Identifier: GPL-2.0

//! Where a PCI function is: the way to it from the root, and the requester IDs that it uses.

use kernel::{
    device::Device,
    fmt,
    iommu::pci::Function,
    prelude::*, //
};

use crate::acpi::scope::Node;

/// A PCI function, as remapping units see it.
pub(crate) struct Place {
    /// PCI segment.
    pub(crate) segment: u16,
    /// The functions from the root bus down to this one. A virtual function is found where its
    /// physical one is: firmware does not know of it (VT-d specification, 8.3.1).
    pub(crate) chain: KVec<Node>,
    /// Whether the device is on a port that people can plug things into.
    pub(crate) untrusted: bool,
    /// Whether reserved memory is only there for what firmware did before boot.
    pub(crate) relaxable: bool,
    /// Requester IDs, its own first, each once.
    sources: KVec<u16>,
}

/// Base class and subclass of USB controllers.
const CLASS_USB: u32 = 0x0c03;

/// Base class of display controllers.
const BASE_CLASS_DISPLAY: u32 = 0x03;

impl Place {
    /// The place of `dev`. May sleep.
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

        let mut sources = KVec::new();
        function.for_each_alias(|source| -> Result {
            if !sources.contains(&source) {
                sources.push(source, GFP_KERNEL)?;
            }
            Ok(())
        })?;
        Ok(Self {
            segment: function.segment(),
            chain,
            untrusted: function.is_untrusted(),
            relaxable: class == CLASS_USB || class >> 8 == BASE_CLASS_DISPLAY,
            sources,
        })
    }

    /// Its own requester ID.
    pub(crate) fn source(&self) -> u16 {
        self.sources.first().copied().unwrap_or(0)
    }

    /// All requester IDs that its requests may carry.
    pub(crate) fn sources(&self) -> impl Iterator<Item = u16> + '_ {
        self.sources.iter().copied()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source();
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{:x}",
            self.segment,
            source >> 8,
            source >> 3 & 0x1f,
            source & 7
        )
    }
}
