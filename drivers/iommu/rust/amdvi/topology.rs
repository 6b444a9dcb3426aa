// SPDX-License-Identifier: GPL-2.0

//! Where a PCI function is: its segment, and the requester IDs that it uses.

use kernel::{
    device::Device,
    fmt,
    iommu::pci::Function,
    prelude::*, //
};

use crate::acpi::UnitInfo;

/// A PCI function, as remapping units see it.
pub(crate) struct Place {
    /// PCI segment.
    pub(crate) segment: u16,
    /// Whether the device is on a port that people can plug things into.
    pub(crate) untrusted: bool,
    /// Requester IDs, its own first, each once.
    sources: KVec<u16>,
}

impl Place {
    /// The place of `dev`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it is no PCI function, `ENOMEM`.
    pub(crate) fn of(dev: &Device) -> Result<Self> {
        let function = Function::of(dev).ok_or(ENODEV)?;
        let mut place = Self {
            segment: function.segment(),
            untrusted: function.is_untrusted(),
            sources: KVec::new(),
        };
        function.for_each_alias(|source| place.add(source))?;
        Ok(place)
    }

    fn add(&mut self, source: u16) -> Result {
        if !self.sources.contains(&source) {
            self.sources.push(source, GFP_KERNEL)?;
        }
        Ok(())
    }

    /// Adds what firmware says of other requester IDs that requests carry. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn add_aliases(&mut self, info: &UnitInfo) -> Result {
        match info.alias(self.source()) {
            Some(alias) => self.add(alias),
            None => Ok(()),
        }
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
