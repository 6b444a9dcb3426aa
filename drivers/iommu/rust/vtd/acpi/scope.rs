// SPDX-License-Identifier: GPL-2.0

//! Device scopes: how a DMAR record names PCI functions (VT-d specification, 8.3.1).
//!
//! A scope names a function by the number of the bus that its path starts on and one pair of
//! device and function for each bridge on the way, so it stays valid when the system renumbers the
//! buses. The driver compares it with a device's *chain*: the functions from the root bus down to
//! the device. Pure.

use kernel::{
    iommu::firmware::reader::{
        Record,
        TableError, //
    },
    prelude::*, //
};

/// The types of scopes that name devices (8.3.1): PCI endpoint device, PCI sub-hierarchy, ACPI
/// namespace device.
const ENDPOINT: u16 = 1;
const SUB_HIERARCHY: u16 = 2;
const NAMESPACE_DEVICE: u16 = 5;

/// A PCI function on the way from the root bus to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hop {
    /// Number of its bus.
    pub(crate) bus: u8,
    /// Device and function number.
    pub(crate) devfn: u8,
}

/// The kind of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The function itself.
    Endpoint,
    /// A bridge and all devices behind it.
    Bridge,
}

/// One device scope.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Number of the bus on which the path starts.
    bus: u8,
    /// Device and function number of each step.
    path: KVec<u8>,
}

/// What a device scope names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// A PCI function, or a bridge and all behind it.
    Function(Scope),
    /// A device that is not on a PCI bus, whose requests carry this requester ID.
    AcpiDevice(u16),
    /// An I/O APIC or a timer, whose only requests are interrupts.
    Other,
}

impl Named {
    /// Parses one scope.
    ///
    /// # Errors
    ///
    /// `offset` is the offset of the DMAR record, for the message.
    pub(crate) fn parse(record: &Record<'_>, offset: usize) -> Result<Self, TableError> {
        let bad = |what| TableError::Bad { offset, what };
        let short = |_| bad("a device scope is shorter than its fixed part");
        let mut body = record.body();
        // Flags, a reserved byte, and the enumeration id, which only I/O APICs have.
        body.skip(3).map_err(short)?;
        let bus = body.u8().map_err(short)?;
        let steps = body.rest();
        if steps.is_empty() || steps.len() % 2 != 0 {
            return Err(bad("a device scope has no path or half a step of one"));
        }
        let kind = match record.kind {
            ENDPOINT => Kind::Endpoint,
            SUB_HIERARCHY => Kind::Bridge,
            NAMESPACE_DEVICE => {
                return Self::acpi_device(bus, steps).ok_or(bad(
                    "a device scope names an ACPI device behind a bridge, or above 1f.7",
                ))
            }
            _ => return Ok(Self::Other),
        };
        let mut path = KVec::with_capacity(steps.len() / 2, GFP_KERNEL)?;
        for step in steps.chunks_exact(2) {
            if step[0] > 0x1f || step[1] > 7 {
                return Err(bad(
                    "a device scope names a device above 1f or a function above 7",
                ));
            }
            path.push(step[0] << 3 | step[1], GFP_KERNEL)?;
        }
        Ok(Self::Function(Scope { kind, bus, path }))
    }

    /// The device that one step from `bus` leads to.
    fn acpi_device(bus: u8, steps: &[u8]) -> Option<Self> {
        match steps {
            [device @ 0..=0x1f, function @ 0..=7] => Some(Self::AcpiDevice(
                u16::from(bus) << 8 | u16::from(device << 3 | function),
            )),
            _ => None,
        }
    }
}

impl Scope {
    /// Whether the last function of `chain` is what the path leads to.
    fn leads_to(&self, chain: &[Hop]) -> bool {
        // Firmware may start the path at the root bus or at any bus on the way.
        let Some(start) = chain.len().checked_sub(self.path.len()) else {
            return false;
        };
        let steps = &chain[start..];
        steps.first().is_some_and(|node| node.bus == self.bus)
            && steps
                .iter()
                .zip(&self.path)
                .all(|(node, devfn)| node.devfn == *devfn)
    }

    /// Whether the scope holds the device at the end of `chain`.
    pub(crate) fn serves(&self, chain: &[Hop]) -> bool {
        match self.kind {
            Kind::Endpoint => self.leads_to(chain),
            Kind::Bridge => (1..=chain.len()).any(|len| self.leads_to(&chain[..len])),
        }
    }
}

/// Whether any of `scopes` holds the device at the end of `chain`.
pub(crate) fn any_serves(scopes: &[Scope], chain: &[Hop]) -> bool {
    scopes.iter().any(|scope| scope.serves(chain))
}

#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
#[kunit_tests(rust_vtd_scope)]
mod tests {
    use super::*;
    use kernel::iommu::firmware::reader::{
        RecordHeader,
        Records, //
    };

    fn named(bytes: &[u8]) -> Result<Named> {
        let record = Records::new(bytes, RecordHeader::Byte)
            .next()
            .ok_or(EINVAL)??;
        Ok(Named::parse(&record, 0)?)
    }

    fn scope(bytes: &[u8]) -> Result<Scope> {
        match named(bytes)? {
            Named::Function(scope) => Ok(scope),
            _ => Err(ENODEV),
        }
    }

    const fn node(bus: u8, device: u8, function: u8) -> Hop {
        Hop {
            bus,
            devfn: device << 3 | function,
        }
    }

    #[test]
    fn an_endpoint_on_the_root_bus() -> Result {
        let scope = scope(&[1, 8, 0, 0, 0, 0, 2, 0])?;
        assert!(scope.serves(&[node(0, 2, 0)]));
        assert!(!scope.serves(&[node(0, 2, 1)]));
        assert!(!scope.serves(&[node(1, 2, 0)]));
        assert!(!scope.serves(&[node(0, 1, 0), node(1, 2, 0)]));
        assert!(!scope.serves(&[]));
        Ok(())
    }

    #[test]
    fn a_path_through_bridges() -> Result {
        let scope = scope(&[1, 12, 0, 0, 0, 0, 1, 0, 0, 0, 3, 1])?;
        // The numbers of the buses behind the first one do not matter.
        for bus in [1, 7, 0x80] {
            let chain = [node(0, 1, 0), node(bus, 0, 0), node(bus + 1, 3, 1)];
            assert!(scope.serves(&chain));
            assert!(!scope.serves(&chain[..2]));
        }
        assert!(!scope.serves(&[node(0, 1, 0), node(1, 0, 1), node(2, 3, 1)]));
        Ok(())
    }

    #[test]
    fn a_path_that_starts_below_the_root() -> Result {
        let scope = scope(&[1, 8, 0, 0, 0, 5, 0, 1])?;
        assert!(scope.serves(&[node(0, 0x1c, 0), node(5, 0, 1)]));
        assert!(!scope.serves(&[node(0, 0x1c, 0), node(6, 0, 1)]));
        Ok(())
    }

    #[test]
    fn a_bridge_and_all_behind_it() -> Result {
        let scope = scope(&[2, 8, 0, 0, 0, 0, 1, 0])?;
        let chain = [node(0, 1, 0), node(1, 0, 0), node(2, 3, 0)];
        assert!(scope.serves(&chain));
        assert!(scope.serves(&chain[..1]));
        assert!(!scope.serves(&[node(0, 2, 0), node(3, 1, 0)]));
        Ok(())
    }

    #[test]
    fn other_kinds_and_lies() -> Result {
        assert_eq!(named(&[3, 8, 0, 0, 0, 0xff, 0, 0])?, Named::Other);
        let timer = Named::AcpiDevice(0xff09);
        assert_eq!(named(&[5, 8, 0, 0, 0, 0xff, 1, 1])?, timer);
        assert!(named(&[5, 8, 0, 0, 0, 0xff, 0x20, 1]).is_err());
        assert!(named(&[5, 10, 0, 0, 0, 0xff, 1, 1, 0, 0]).is_err());
        assert!(scope(&[1, 6, 0, 0, 0, 0]).is_err());
        assert!(scope(&[1, 7, 0, 0, 0, 0, 0]).is_err());
        assert!(scope(&[1, 4, 0, 0]).is_err());
        assert!(scope(&[1, 8, 0, 0, 0, 0, 0x20, 0]).is_err());
        assert!(scope(&[1, 8, 0, 0, 0, 0, 0, 8]).is_err());
        Ok(())
    }
}
