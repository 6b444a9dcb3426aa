// SPDX-License-Identifier: GPL-2.0

//! What isolates PCI functions from each other: Access Control Services (ACS, PCI Express 6.12).
//!
//! The IOMMU core puts functions into one group that could reach each other without passing a
//! remapping unit. Where a port or a function has ACS, and it is off, the administrator can boot
//! with it on.

use core::iter::successors;

use kernel::{
    fmt,
    prelude::*, //
};

use super::{
    function::Function,
    source_ids::RequesterId, //
};

/// What could isolate the functions of a group: ports and functions whose ACS is off.
pub(in super::super) struct Isolation {
    /// Segment and requester ID, each once.
    off: KVec<(u16, u16)>,
}

impl Isolation {
    /// Looks at `functions` and at the ports above them.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(in super::super) fn of<'a>(functions: impl Iterator<Item = Function<'a>>) -> Result<Self> {
        let mut off = KVec::new();
        for at in functions.flat_map(|function| successors(Some(function), Function::parent)) {
            let place = (at.segment(), at.requester());
            if at.has_acs_off() && !off.contains(&place) {
                off.push(place, GFP_KERNEL)?;
            }
        }
        Ok(Self { off })
    }
}

/// What to do about it.
impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.off.is_empty() {
            return f.write_str("the hardware does not isolate them (it has no ACS that is off)");
        }
        f.write_str("to isolate them, boot with pci=config_acs=")?;
        for (index, (segment, source)) in self.off.iter().enumerate() {
            let separator = if index == 0 { "" } else { ";" };
            // Bits 4 to 0: Upstream Forwarding, Completion Redirect, Request Redirect, Translation
            // Blocking (left alone), Source Validation: what the core asks for.
            f.write_fmt(fmt!(
                "{separator}111x1@{segment:04x}:{}",
                RequesterId(*source)
            ))?;
        }
        Ok(())
    }
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_isolation)]
mod tests {
    use super::*;
    use kernel::str::CString;

    fn advice(places: &[(u16, u16)]) -> Result<CString> {
        let mut off = KVec::new();
        off.extend_from_slice(places, GFP_KERNEL)?;
        CString::try_from_fmt(fmt!("{}", Isolation { off }))
    }

    #[test]
    fn the_parameter_names_each_port() -> Result {
        let text = advice(&[])?;
        assert!(!text.to_str()?.contains("config_acs"));
        let text = advice(&[(0, 0x00e0)])?;
        assert!(text.to_str()?.ends_with("=111x1@0000:00:1c.0"));
        let text = advice(&[(0, 0x00e0), (1, 0x0301)])?;
        assert!(text
            .to_str()?
            .ends_with("=111x1@0000:00:1c.0;111x1@0001:03:00.1"));
        Ok(())
    }
}
