// SPDX-License-Identifier: GPL-2.0

//! The source of requests, as remapping units see it: a segment and requester IDs.

use kernel::{
    device::Device,
    fmt,
    prelude::*, //
};

use super::{
    super::device::DefaultDomain,
    function::Function, //
};

/// How units recognise the requests of a device; shows as the PCI address of the first ID.
pub struct SourceIds {
    /// PCI segment.
    pub segment: u16,
    /// Whether the device is on a port that people can plug things into.
    pub untrusted: bool,
    /// Whether it is a bridge to another PCI bus, which does no DMA itself.
    pub bridge: bool,
    /// Requester IDs, its own first, each once.
    sources: KVec<u16>,
}

impl SourceIds {
    /// The IDs of `dev`.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it is not a PCI function, `ENOMEM`.
    pub fn of(dev: &Device) -> Result<Self> {
        let function = Function::of(dev).ok_or(ENODEV)?;
        let real = function.real_dma();
        let mut ids = Self {
            segment: real.segment(),
            untrusted: function.is_untrusted() || real.is_untrusted(),
            bridge: function.is_bridge(),
            sources: KVec::new(),
        };
        real.for_each_alias(|source| ids.add(source))?;
        Ok(ids)
    }

    /// The IDs of a device that is on no PCI bus, and whose requests carry `source`.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn of_requester(segment: u16, source: u16) -> Result<Self> {
        let mut ids = Self {
            segment,
            untrusted: false,
            bridge: false,
            sources: KVec::new(),
        };
        ids.add(source)?;
        Ok(ids)
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

    /// The default domain of the device if those without special needs get `usual`.
    pub fn default_domain(&self, usual: DefaultDomain) -> DefaultDomain {
        match (self.untrusted, self.bridge) {
            // The core insists on translation for these.
            (true, _) => DefaultDomain::Dma,
            // Without ACS a port is in the group of what is plugged into it. The core wants one
            // answer for both, and would refuse the whole unit if it were the identity.
            (false, true) => DefaultDomain::Any,
            (false, false) => usual,
        }
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

impl fmt::Display for SourceIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!("{:04x}:{}", self.segment, RequesterId(self.source())))
    }
}

/// A requester ID; shows as bus, device and function.
pub struct RequesterId(pub u16);

impl fmt::Display for RequesterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bus, devfn] = self.0.to_be_bytes();
        write!(f, "{bus:02x}:{:02x}.{:x}", devfn >> 3, devfn & 7)
    }
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_source_ids)]
mod tests {
    use super::*;
    use kernel::str::CString;

    fn none(untrusted: bool, bridge: bool) -> SourceIds {
        SourceIds {
            segment: 0x1,
            untrusted,
            bridge,
            sources: KVec::new(),
        }
    }

    #[test]
    fn only_trusted_devices_get_the_usual_domain() {
        let usual = DefaultDomain::Identity;
        assert_eq!(none(false, false).default_domain(usual), usual);
        assert_eq!(none(false, true).default_domain(usual), DefaultDomain::Any);
        assert_eq!(none(true, false).default_domain(usual), DefaultDomain::Dma);
        assert_eq!(none(true, true).default_domain(usual), DefaultDomain::Dma);
    }

    #[test]
    fn each_id_comes_once_and_its_own_first() -> Result {
        let mut ids = none(false, false);
        for source in [0x3fb, 0x300, 0x3fb, 0x100, 0x300] {
            ids.add(source)?;
        }
        assert_eq!(ids.source(), 0x3fb);
        assert!(ids.sources().eq([0x3fb, 0x300, 0x100]));
        let text = CString::try_from_fmt(fmt!("{}", ids))?;
        assert_eq!(text.to_bytes(), b"0001:03:1f.3");
        Ok(())
    }
}
