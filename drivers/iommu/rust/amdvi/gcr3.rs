// SPDX-License-Identifier: GPL-2.0

//! GCR3 tables: where the guest tables of a device's PASIDs are (specification, 2.2.6.3).
//!
//! A table has one level to three, each indexed by nine bits of the PASID; each table is a page of
//! 64-bit entries. Those of the lowest level name the top of guest tables. Tables of lower levels
//! are allocated for the first PASID that needs them, and stay as long as the device's.
//!
//! Hardware reads an entry in one access, and this file writes it in one store: hardware sees the
//! old entry or the new one. The caller that changes an entry flushes the caches of the old one.

use kernel::{
    iommu::hw::pages::{
        Gfp,
        TablePages, //
    },
    new_mutex,
    prelude::*,
    sizes::SZ_4K,
    sync::{
        atomic::Release,
        Mutex, //
    }, //
};

/// Bits of a PASID that index one level.
pub(crate) const INDEX_BITS: u32 = 9;

/// The most levels.
pub(crate) const MAX_LEVELS: u8 = 3;

/// Flag of an entry: it is present.
const VALID: u64 = 1 << 0;

/// A table below the top.
struct Lower {
    /// The level that it is of; entries of level 0 name guest tables.
    level: u8,
    /// The bits of PASIDs that lead to it.
    prefix: u32,
    pages: TablePages,
}

/// The GCR3 table of a device.
#[pin_data]
pub(crate) struct Gcr3 {
    levels: u8,
    node: Option<u32>,
    top: TablePages,
    #[pin]
    lower: Mutex<KVec<Lower>>,
}

/// The entry for `pasid` in a table of `level`.
fn index(pasid: u32, level: u8) -> usize {
    // CAST: Nine bits.
    (pasid >> (u32::from(level) * INDEX_BITS)) as usize & ((1 << INDEX_BITS) - 1)
}

/// What leads to the table of `level` that has an entry for `pasid`.
fn prefix(pasid: u32, level: u8) -> u32 {
    // At most 27 bits, since there are no more levels.
    pasid >> ((u32::from(level) + 1) * INDEX_BITS)
}

impl Gcr3 {
    /// A table with entries for `pasids` PASIDs, none of which is present, near the NUMA node
    /// `node`.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` for more PASIDs than a table can have, `ENOMEM`.
    pub(crate) fn new(pasids: u32, node: Option<u32>) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let last = pasids.saturating_sub(1);
            let levels = (1..=MAX_LEVELS)
                .find(|levels| prefix(last, levels - 1) == 0)
                .ok_or(EINVAL)?;
            let top = TablePages::new(SZ_4K, Gfp::KERNEL, node)?;
            Ok(try_pin_init!(Self {
                levels,
                node,
                top,
                lower <- new_mutex!(KVec::new()),
            }? Error))
        })
    }

    /// The physical address of the table.
    pub(crate) fn phys(&self) -> u64 {
        self.top.phys()
    }

    /// Its number of levels.
    pub(crate) fn levels(&self) -> u8 {
        self.levels
    }

    fn find<'a>(&'a self, lower: &'a [Lower], pasid: u32, level: u8) -> Option<&'a TablePages> {
        if level + 1 == self.levels {
            return Some(&self.top);
        }
        let wanted = prefix(pasid, level);
        lower
            .iter()
            .find(|table| table.level == level && table.prefix == wanted)
            .map(|table| &table.pages)
    }

    /// Allocates the tables that lead to the entry of `pasid`; its value does not change.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a PASID beyond the table, `ENOMEM`.
    pub(crate) fn prepare(&self, pasid: u32) -> Result {
        if prefix(pasid, self.levels - 1) != 0 {
            return Err(EINVAL);
        }
        let mut lower = self.lower.lock();
        for level in (0..self.levels - 1).rev() {
            if self.find(&lower, pasid, level).is_some() {
                continue;
            }
            lower.reserve(1, GFP_KERNEL)?;
            let pages = TablePages::new(SZ_4K, Gfp::KERNEL, self.node)?;
            let entry = pages.phys() | VALID;
            // Linked when it is whole: an entry that is not present, one level lower.
            self.find(&lower, pasid, level + 1)
                .ok_or(EINVAL)?
                .word(index(pasid, level + 1))?
                .store(entry, Release);
            let table = Lower {
                level,
                prefix: prefix(pasid, level),
                pages,
            };
            lower.push(table, GFP_KERNEL)?;
        }
        Ok(())
    }

    /// Gives `pasid`, which was prepared, the guest tables at `root`, or none.
    ///
    /// May sleep. Flushes nothing.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the PASID was not prepared.
    pub(crate) fn point(&self, pasid: u32, root: Option<u64>) -> Result {
        let lower = self.lower.lock();
        let table = self.find(&lower, pasid, 0).ok_or(EINVAL)?;
        // Release: the tables below are complete before hardware can reach them.
        table
            .word(index(pasid, 0))?
            .store(root.map_or(0, |root| root | VALID), Release);
        Ok(())
    }
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
#[kunit_tests(rust_amdvi_gcr3)]
mod tests {
    use super::*;
    use kernel::sync::atomic::Relaxed;

    fn table(pasids: u32) -> Result<Pin<KBox<Gcr3>>> {
        KBox::pin_init(Gcr3::new(pasids, None), GFP_KERNEL)
    }

    /// What hardware finds for a PASID, written down a second time: the physical addresses are
    /// those of the tables that are known.
    fn walk(table: &Gcr3, pasid: u32) -> Option<u64> {
        let lower = table.lower.lock();
        let mut pages = &table.top;
        for level in (0..table.levels).rev() {
            let at = (pasid >> (9 * u32::from(level)) & 0x1ff) as usize;
            let entry = pages.words()[at].load(Relaxed);
            if entry & 1 == 0 {
                return None;
            }
            let phys = entry & !0xfff;
            if level == 0 {
                return Some(phys);
            }
            pages = &lower.iter().find(|table| table.pages.phys() == phys)?.pages;
        }
        None
    }

    #[test]
    fn as_many_levels_as_pasids_need() -> Result {
        for (pasids, levels) in [
            (1, 1),
            (512, 1),
            (513, 2),
            (1 << 16, 2),
            (1 << 18, 2),
            ((1 << 18) + 1, 3),
            (1 << 20, 3),
        ] {
            assert_eq!(table(pasids)?.levels(), levels);
        }
        assert_eq!(table(u32::MAX).err(), Some(EINVAL));
        Ok(())
    }

    #[test]
    fn each_pasid_has_its_entry() -> Result {
        for (pasids, some) in [
            (512, &[0, 1, 511][..]),
            (1 << 16, &[0, 1, 511, 512, 1023, 65535]),
            (1 << 20, &[0, 1, 511, 512, 1 << 18, (1 << 20) - 1]),
        ] {
            let table = table(pasids)?;
            for pasid in some {
                assert_eq!(walk(&table, *pasid), None);
                table.prepare(*pasid)?;
                assert_eq!(walk(&table, *pasid), None);
            }
            for pasid in some {
                assert_eq!(
                    table.point(*pasid, Some(0x1000 * u64::from(*pasid + 1))),
                    Ok(())
                );
            }
            for pasid in some {
                assert_eq!(walk(&table, *pasid), Some(0x1000 * u64::from(*pasid + 1)));
                // A second time nothing becomes of it.
                table.prepare(*pasid)?;
                assert_eq!(
                    table.point(*pasid, Some(0x1000 * u64::from(*pasid + 1))),
                    Ok(())
                );
            }
            assert_eq!(table.point(1, None), Ok(()));
            assert_eq!(walk(&table, 1), None);
            assert_eq!(walk(&table, 0), Some(0x1000));
        }
        Ok(())
    }

    #[test]
    fn a_pasid_beyond_the_table() -> Result {
        let small = table(512)?;
        assert_eq!(small.prepare(512), Err(EINVAL));
        assert_eq!(table(1 << 16)?.prepare(1 << 18), Err(EINVAL));
        // One that was not prepared is nowhere, and not in the place of another.
        let large = table(1 << 16)?;
        assert_eq!(large.point(512, Some(0x1000)), Err(EINVAL));
        assert_eq!(walk(&large, 0), None);
        Ok(())
    }
}
