// SPDX-License-Identifier: GPL-2.0

//! Fault records and their meaning in words (VT-d specification, chapter 7 and 11.4.7).
//!
//! Pure: [`crate::unit`] reads the registers.

use kernel::{
    fmt,
    iommu::pci::source_ids::RequesterId,
    prelude::*, //
};

use crate::regs::fault::RecordHigh;

/// One request that the unit refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Requester ID: bus in the upper byte, device and function in the lower.
    pub(crate) source: u16,
    /// The PASID, if the request carried one.
    pub(crate) pasid: Option<u32>,
    /// The kind of the request.
    pub(crate) request: Request,
    /// The page of the request.
    pub(crate) address: u64,
    /// The reason of the refusal.
    pub(crate) reason: u8,
}

/// The kind of a refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A write.
    Write,
    /// A request to the page request interface.
    Page,
    /// A read.
    Read,
    /// An atomic operation.
    Atomic,
}

impl Fault {
    /// Decodes a fault recording register; [`None`] if it holds no fault.
    pub(crate) fn decode(low: u64, high: RecordHigh) -> Option<Self> {
        if !high.valid() {
            return None;
        }
        let request = match (high.type_high(), high.type_low()) {
            (false, false) => Request::Write,
            (false, true) => Request::Page,
            (true, false) => Request::Read,
            (true, true) => Request::Atomic,
        };
        // CAST: each field is narrower than the type that it is cast to.
        Some(Self {
            source: high.source().get() as u16,
            pasid: high.pasid_present().then_some(high.pasid().get() as u32),
            request,
            address: low & !0xfff,
            reason: high.reason().get() as u8,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let request = match self.request {
            Request::Write => "write",
            Request::Page => "page request",
            Request::Read => "read",
            Request::Atomic => "atomic operation",
        };
        f.write_fmt(fmt!(
            "{request} refused, device {}",
            RequesterId(self.source)
        ))?;
        if let Some(pasid) = self.pasid {
            write!(f, " PASID {pasid:#x}")?;
        }
        write!(
            f,
            ", address {:#x}: {} (reason {:#04x})",
            self.address,
            reason(self.reason),
            self.reason
        )
    }
}

/// The reason of a fault in words (specification, 7.1.3).
pub(crate) fn reason(code: u8) -> &'static str {
    match code {
        // The reasons of legacy mode, which emulated units report in scalable mode as well.
        0x01 => "the root entry is not present",
        0x02 => "the context entry is not present",
        0x03 => "the context entry is invalid",
        0x04 => "the address is wider than the table's",
        0x05 => "the table does not map the address for a write",
        0x06 => "the table does not map the address for a read",
        0x07 => "a table cannot be read",
        0x08 => "the root table cannot be read",
        0x09 => "the context table cannot be read",
        0x0a => "the root entry has a reserved bit set",
        0x0b => "the context entry has a reserved bit set",
        0x0c => "a table entry has a reserved bit set",
        0x0d => "the device is not allowed requests of this kind",
        0x30 => "the root table address is invalid",
        0x31 => "a request with PASID while the unit is in legacy mode",
        0x32 => "a page group request while the unit is in legacy mode",
        0x38 => "the root entry cannot be read",
        0x39 => "the root entry is not present",
        0x3a => "the root entry has a reserved bit set",
        0x40 => "the context entry cannot be read",
        0x41 => "the context entry is not present",
        0x42 => "the context entry has a reserved bit set",
        0x43 => "the context entry is invalid",
        0x44 => "the context entry does not allow a device TLB",
        0x45 => "the context entry does not allow requests with PASID",
        0x46 => "the PASID is larger than the context entry allows",
        0x47 => "the context entry does not allow page requests",
        0x48 => "the context entry's own PASID is invalid",
        0x50 => "the PASID directory entry cannot be read",
        0x51 => "the PASID directory entry is not present",
        0x52 => "the PASID directory entry has a reserved bit set",
        0x58 => "the PASID entry cannot be read",
        0x59 => "the PASID entry is not present: the device is blocked",
        0x5a => "the PASID entry has a reserved bit set",
        0x5b => "the PASID entry is invalid",
        0x5c => "the PASID entry does not allow execute requests",
        0x5d => "the PASID entry does not allow supervisor requests",
        0x70 => "a first-stage entry cannot be read",
        0x71 => "the address is not mapped in the first-stage table",
        0x72 => "a first-stage entry has a reserved bit set",
        0x73 => "the top of the first-stage table cannot be read",
        0x78 => "a second-stage entry cannot be read",
        0x79 => "the second-stage table does not map the address for such a request",
        0x7a => "a second-stage entry has a reserved bit set",
        0x7b => "the pointer to the second-stage table is invalid",
        0x7c => "a second-stage dirty bit would be set through a walk that does not snoop",
        0x80 => "the address is not canonical",
        0x81 => "the first-stage table maps the address for supervisor requests only",
        0x82 => "the first-stage table forbids to execute there",
        0x83 => "the address is wider than the unit's",
        0x84 => "the address is wider than the second-stage table's",
        0x85 => "the table maps the address read-only",
        0x86 => "the table does not map the address readable",
        0x87 => "the address belongs to interrupts",
        0x90 => "a first-stage dirty bit would be set through a walk that does not snoop",
        _ => "an unknown reason",
    }
}

#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
#[kernel::prelude::kunit_tests(rust_vtd_fault)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_record_is_no_fault() {
        let high = RecordHigh::from_raw(0x0000_0071_0000_0100);
        assert_eq!(Fault::decode(0x1000, high), None);
    }

    #[test]
    fn a_read_is_decoded() {
        let high = RecordHigh::from_raw(0xc000_0071_0000_0210);
        assert_eq!(
            Fault::decode(0x1234_5fff, high),
            Some(Fault {
                source: 0x210,
                pasid: None,
                request: Request::Read,
                address: 0x1234_5000,
                reason: 0x71,
            })
        );
    }

    #[test]
    fn a_write_with_pasid_is_decoded() {
        let high = RecordHigh::from_raw(1 << 63 | 0xabcde << 40 | 0x85 << 32 | 1 << 31 | 0x10);
        let fault = Fault::decode(0, high);
        assert_eq!(fault.map(|f| f.pasid), Some(Some(0xabcde)));
        assert_eq!(fault.map(|f| f.request), Some(Request::Write));
        assert_eq!(fault.map(|f| f.reason), Some(0x85));
    }
}
