// SPDX-License-Identifier: GPL-2.0

//! Where a device is, as remapping units see it: the requester IDs that its requests carry.

use kernel::{
    device::Device,
    fmt,
    prelude::*, //
};

use super::pci::Function;

/// The place of a PCI function; shows as its address.
pub struct Place {
    /// PCI segment.
    pub segment: u16,
    /// Whether the device is on a port that people can plug things into.
    pub untrusted: bool,
    /// Requester IDs, its own first, each once.
    sources: KVec<u16>,
}

impl Place {
    /// The place of `dev`.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it is no PCI function, `ENOMEM`.
    pub fn of(dev: &Device) -> Result<Self> {
        let function = Function::of(dev).ok_or(ENODEV)?;
        let mut place = Self {
            segment: function.segment(),
            untrusted: function.is_untrusted(),
            sources: KVec::new(),
        };
        function.for_each_alias(|source| place.add(source))?;
        Ok(place)
    }

    /// Adds a requester ID that firmware knows of, unless it is there already.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn add(&mut self, source: u16) -> Result {
        if !self.sources.contains(&source) {
            self.sources.push(source, GFP_KERNEL)?;
        }
        Ok(())
    }

    /// Its own requester ID.
    pub fn source(&self) -> u16 {
        self.sources.first().copied().unwrap_or(0)
    }

    /// All requester IDs that its requests may carry.
    pub fn sources(&self) -> impl Iterator<Item = u16> + '_ {
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

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_place)]
mod tests {
    use super::*;
    use kernel::str::CString;

    #[test]
    fn each_id_comes_once_and_its_own_first() -> Result {
        let mut place = Place {
            segment: 0x1,
            untrusted: false,
            sources: KVec::new(),
        };
        for source in [0x3fb, 0x300, 0x3fb, 0x100, 0x300] {
            place.add(source)?;
        }
        assert_eq!(place.source(), 0x3fb);
        assert!(place.sources().eq([0x3fb, 0x300, 0x100]));
        let text = CString::try_from_fmt(fmt!("{}", place))?;
        assert_eq!(text.to_bytes(), b"0001:03:1f.3");
        Ok(())
    }
}
