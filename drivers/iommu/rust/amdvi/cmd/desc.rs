// SPDX-License-Identifier: GPL-2.0

//! Commands, bit by bit (specification, 2.4). Pure.
//!
//! Device TLBs are never switched on by this driver, so nothing here addresses them.

use kernel::{
    bitfield,
    fmt,
    iommu::block::Block,
    prelude::*, //
};

/// The logarithm of a page.
const PAGE_LG2: u8 = 12;

/// The logarithm of the largest block that an address field can code.
const LARGEST_LG2: u8 = 52;

/// The address field that stands for all addresses.
const EVERYTHING: u64 = 0x7fff_ffff_ffff_f000;

/// The address field of INVALIDATE_IOMMU_PAGES for `block`.
///
/// It codes the size as a leaf does: the bits below the highest one that the block leaves free are
/// ones.
fn coded(block: Block) -> u64 {
    if block.lg2 > LARGEST_LG2 {
        return EVERYTHING;
    }
    // One free bit is left zero and ends the ones below: none for two pages.
    let ones = (1u64 << block.lg2.saturating_sub(1)) - 1;
    block.first | (ones & !((1 << PAGE_LG2) - 1))
}

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// COMPLETION_WAIT.
    Wait = 0x1,
    /// INVALIDATE_DEVTAB_ENTRY.
    DeviceEntry = 0x2,
    /// INVALIDATE_IOMMU_PAGES.
    Pages = 0x3,
    /// INVALIDATE_INTERRUPT_TABLE.
    InterruptTable = 0x5,
    /// INVALIDATE_IOMMU_ALL.
    All = 0x8,
}

bitfield! {
    /// Quadword 0 of COMPLETION_WAIT (2.4.1).
    struct Wait0(u64) {
        63:60   kind;
        51:3    address;
        0:0     store => bool;
    }
}

bitfield! {
    /// Quadword 0 of INVALIDATE_DEVTAB_ENTRY (2.4.2) and INVALIDATE_INTERRUPT_TABLE (2.4.5).
    struct Device0(u64) {
        63:60   kind;
        15:0    source;
    }
}

bitfield! {
    /// Quadword 0 of INVALIDATE_IOMMU_PAGES (2.4.3).
    struct Pages0(u64) {
        63:60   kind;
        47:32   domain;
        19:0    pasid;
    }
}

bitfield! {
    /// Quadword 1 of INVALIDATE_IOMMU_PAGES.
    struct Pages1(u64) {
        63:12   address;
        2:2     guest => bool;
        1:1     tables => bool;
        0:0     sized => bool;
    }
}

/// One command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command(pub(crate) [u64; 2]);

impl Command {
    /// The place of a command where there is none, for messages.
    pub(crate) const NOTHING: Self = Self([0; 2]);

    /// Makes the unit write `data` to the physical address `status` once everything before this
    /// command has completed.
    pub(crate) fn wait(status: u64, data: u64) -> Self {
        let word = Wait0::from_raw(status & Wait0::ADDRESS_MASK)
            .with_const_kind::<{ Kind::Wait as u64 }>()
            .with_store(true);
        Self([word.into_raw(), data])
    }

    /// Drops the cached device table entry of the requester ID `source`.
    pub(crate) fn device_entry(source: u16) -> Self {
        let word = Device0::zeroed()
            .with_const_kind::<{ Kind::DeviceEntry as u64 }>()
            .with_source(source);
        Self([word.into_raw(), 0])
    }

    /// Drops the cached translations of `domain` in `block`.
    ///
    /// `pasid` is that of guest translations. `tables` has the copies of entries on the way to
    /// leaves dropped as well.
    pub(crate) fn pages(domain: u16, pasid: Option<u32>, block: Block, tables: bool) -> Self {
        let word0 = Pages0::from_raw(u64::from(pasid.unwrap_or(0)) & Pages0::PASID_MASK)
            .with_const_kind::<{ Kind::Pages as u64 }>()
            .with_domain(domain);
        let word1 = Pages1::from_raw(coded(block) & Pages1::ADDRESS_MASK)
            .with_guest(pasid.is_some())
            .with_tables(tables)
            .with_sized(block.lg2 > PAGE_LG2);
        Self([word0.into_raw(), word1.into_raw()])
    }

    /// Drops the cached entries of the interrupt remapping table of the requester ID `source`.
    pub(crate) fn interrupt_table(source: u16) -> Self {
        let word = Device0::zeroed()
            .with_const_kind::<{ Kind::InterruptTable as u64 }>()
            .with_source(source);
        Self([word.into_raw(), 0])
    }

    /// Drops everything.
    pub(crate) fn all() -> Self {
        let word = Device0::zeroed().with_const_kind::<{ Kind::All as u64 }>();
        Self([word.into_raw(), 0])
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0[0] >> 60 {
            0x1 => "COMPLETION_WAIT",
            0x2 => "INVALIDATE_DEVTAB_ENTRY",
            0x3 => "INVALIDATE_IOMMU_PAGES",
            0x5 => "INVALIDATE_INTERRUPT_TABLE",
            0x8 => "INVALIDATE_IOMMU_ALL",
            _ => "an unknown command",
        };
        write!(f, "{name} ({:#x} {:#x})", self.0[0], self.0[1])
    }
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
#[kunit_tests(rust_amdvi_cmd_desc)]
mod tests {
    use super::*;
    use kernel::iommu::pt::Range;

    fn around(first: u64, last: u64) -> Result<Block> {
        Ok(Block::around(Range::inclusive(first, last)?))
    }

    #[test]
    fn sizes_are_coded_in_addresses() -> Result {
        for (first, last, field) in [
            (0x1000, 0x1fff, 0x1000),
            (0x2000, 0x3fff, 0x2000),
            // Two pages that are not a pair need four.
            (0x1000, 0x2fff, 0x1000),
            (0x20_0000, 0x3f_ffff, 0x2f_f000),
            (0, (1 << 52) - 1, 0x7_ffff_ffff_f000),
            (0, 1 << 52, EVERYTHING),
            (0, u64::MAX, EVERYTHING),
        ] {
            assert_eq!(coded(around(first, last)?), field);
        }
        Ok(())
    }

    /// Read as the hardware reads it, an address field names the block that it was made of.
    #[test]
    fn address_fields_name_their_block() -> Result {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..1000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let first = seed >> (13 + (seed & 0x1f));
            let last = first + (seed >> (20 + (seed >> 8 & 0x1f)));
            let block = around(first, last)?;
            let field = coded(block);
            let lg2 = if block.lg2 > PAGE_LG2 {
                13 + (field >> 12).trailing_ones()
            } else {
                12
            };
            let start = field & !((1u64 << lg2) - 1);
            assert!(start <= first && last <= start + ((1u64 << lg2) - 1));
            assert_eq!(lg2, u32::from(block.lg2));
        }
        Ok(())
    }

    #[test]
    fn waits() {
        assert_eq!(
            Command::wait(0xf_1234_5678_9008, 0x1122_3344_5566_7788).0,
            [0x100f_1234_5678_9009, 0x1122_3344_5566_7788]
        );
    }

    #[test]
    fn device_entries() {
        assert_eq!(Command::device_entry(0x1234).0, [0x2000_0000_0000_1234, 0]);
    }

    #[test]
    fn interrupt_tables() {
        assert_eq!(
            Command::interrupt_table(0xfedc).0,
            [0x5000_0000_0000_fedc, 0]
        );
    }

    #[test]
    fn pages() -> Result {
        assert_eq!(
            Command::pages(0xbeef, None, around(0x5000, 0x5fff)?, false).0,
            [0x3000_beef_0000_0000, 0x5000]
        );
        assert_eq!(
            Command::pages(7, Some(0xabcde), around(0, 0x1fff)?, true).0,
            [0x3000_0007_000a_bcde, 0x7]
        );
        assert_eq!(
            Command::pages(7, Some(0), around(0x20_0000, 0x3f_ffff)?, false).0,
            [0x3000_0007_0000_0000, 0x2f_f005]
        );
        assert_eq!(
            Command::pages(7, None, Block::ALL, true).0,
            [0x3000_0007_0000_0000, 0x7fff_ffff_ffff_f003]
        );
        Ok(())
    }

    #[test]
    fn everything() {
        assert_eq!(Command::all().0, [0x8000_0000_0000_0000, 0]);
    }
}
