// SPDX-License-Identifier: GPL-2.0

//! The PASID directory and tables of one device (VT-d specification, 3.4.3, 9.5 and 9.6).
//!
//! Every function has its own directory; requests without PASID use PASID 0. The driver makes a
//! table when the first of its 64 PASIDs is used. It frees the tables with the directory, after it
//! has removed and invalidated the context entry that names the directory.
//!
//! Lock order: the table lock of a device is taken under the core's group lock and the domain's
//! attachment lock; under it only the locks of the unit are taken. Its holder may sleep.

pub(crate) mod entry;
pub(crate) mod flush;
pub(crate) mod writer;

use kernel::{
    iommu::hw::pages::{
        Gfp,
        TablePages, //
    },
    new_mutex,
    prelude::*,
    sizes::SZ_4K,
    sync::{
        atomic::{
            Atomic,
            Relaxed,
            Release, //
        },
        Mutex, //
    }, //
};

use entry::{
    Entry,
    DIRECTORY_PRESENT,
    ENTRIES,
    WORDS, //
};
use writer::{
    EntryWords,
    Forget, //
};

/// Directory entries for PDTS = 0.
const SMALLEST_DIRECTORY: usize = 128;

/// The PASIDs of one device.
#[pin_data]
pub(crate) struct PasidTable {
    directory: TablePages,
    entries: usize,
    node: Option<u32>,
    coherent: bool,
    #[pin]
    tables: Mutex<KVec<(usize, TablePages)>>,
}

/// Directory entries needed for `pasids` PASIDs, a power of two, and the code for it.
fn directory_size(pasids: u32) -> (usize, u8) {
    // CAST: a PASID has twenty bits.
    let entries = (pasids as usize)
        .div_ceil(ENTRIES)
        .next_power_of_two()
        .max(SMALLEST_DIRECTORY);
    // CAST: the logarithm of a number below 2^32.
    let code = (entries / SMALLEST_DIRECTORY).trailing_zeros() as u8;
    (entries, code)
}

impl PasidTable {
    /// Room for `pasids` PASIDs, all absent, near `node`. May sleep.
    pub(crate) fn new(pasids: u32, node: Option<u32>, coherent: bool) -> impl PinInit<Self, Error> {
        let (entries, _) = directory_size(pasids);
        try_pin_init!(Self {
            directory: {
                let directory = TablePages::new((entries * 8).max(SZ_4K), Gfp::KERNEL, node)?;
                if !coherent {
                    directory.flush(0, directory.size());
                }
                directory
            },
            entries,
            node,
            coherent,
            tables <- new_mutex!(KVec::new()),
        })
    }

    /// Physical address of the directory.
    pub(crate) fn phys(&self) -> u64 {
        self.directory.phys()
    }

    /// Size of the directory as context entries code it.
    pub(crate) fn size_code(&self) -> u8 {
        // CAST: the logarithm of a number below 2^32.
        (self.entries / SMALLEST_DIRECTORY).trailing_zeros() as u8
    }

    /// Allocates room for the entry of `pasid`, so that writing it cannot fail.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a PASID beyond the directory, `ENOMEM`.
    pub(crate) fn prepare(&self, pasid: u32) -> Result {
        let index = pasid as usize / ENTRIES;
        if index >= self.entries {
            return Err(EINVAL);
        }
        let mut tables = self.tables.lock();
        if tables.iter().any(|(at, _)| *at == index) {
            return Ok(());
        }
        tables.reserve(1, GFP_KERNEL)?;
        let table = TablePages::new(SZ_4K, Gfp::KERNEL, self.node)?;
        if !self.coherent {
            table.flush(0, SZ_4K);
        }
        // Release: the table is zeroed before the hardware can find it.
        self.directory
            .word(index)?
            .store(table.phys() | DIRECTORY_PRESENT, Release);
        if !self.coherent {
            self.directory.flush(index * 8, 8);
        }
        tables.push((index, table), GFP_KERNEL)?;
        Ok(())
    }

    /// Runs `change` on the entry of `pasid`; `forget` does the invalidations that it requests.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// The errors of `change`; `EINVAL` if the entry was never prepared.
    pub(crate) fn with<R>(
        &self,
        pasid: u32,
        mut forget: impl FnMut(Forget) -> Result,
        change: impl FnOnce(&mut Live<'_>) -> Result<R>,
    ) -> Result<R> {
        let index = pasid as usize / ENTRIES;
        let first = pasid as usize % ENTRIES * WORDS;
        let tables = self.tables.lock();
        let table = tables
            .iter()
            .find_map(|(at, table)| (*at == index).then_some(table))
            .ok_or(EINVAL)?;
        change(&mut Live {
            words: table.words().get(first..first + WORDS).ok_or(EINVAL)?,
            table,
            first,
            coherent: self.coherent,
            forget: &mut forget,
        })
    }

    /// Whether no entry is present.
    #[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
    fn is_empty(&self) -> bool {
        self.tables.lock().iter().all(|(_, table)| {
            table
                .words()
                .chunks_exact(WORDS)
                .all(|words| words[0].load(Relaxed) & entry::Word0::PRESENT_MASK == 0)
        })
    }
}

/// An entry that the hardware reads.
pub(crate) struct Live<'a> {
    words: &'a [Atomic<u64>],
    table: &'a TablePages,
    first: usize,
    coherent: bool,
    forget: &'a mut dyn FnMut(Forget) -> Result,
}

impl EntryWords for Live<'_> {
    fn load(&self, word: usize) -> u64 {
        self.words.get(word).map_or(0, |word| word.load(Relaxed))
    }

    fn store(&mut self, word: usize, value: u64) {
        if let Some(word) = self.words.get(word) {
            // Release: stores become visible in the order in which they are made.
            word.store(value, Release);
        }
    }

    fn flush(&mut self) {
        if !self.coherent {
            self.table.flush(self.first * 8, WORDS * 8);
        }
    }

    fn forget(&mut self, what: Forget) -> Result {
        (self.forget)(what)
    }
}

impl Live<'_> {
    /// The value of the entry.
    pub(crate) fn read(&self) -> Entry {
        writer::read(self)
    }
}

#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
#[kunit_tests(rust_vtd_pasid)]
mod tests {
    use super::*;
    use entry::Common;

    #[test]
    fn directory_sizes() {
        assert_eq!(directory_size(1), (128, 0));
        assert_eq!(directory_size(8192), (128, 0));
        assert_eq!(directory_size(8193), (256, 1));
        assert_eq!(directory_size(1 << 20), (16384, 7));
    }

    #[test]
    fn an_entry_is_where_the_hardware_looks() -> Result {
        let table = KBox::pin_init(PasidTable::new(1 << 20, None, false), GFP_KERNEL)?;
        let new = Entry::pass_through(
            4,
            Common {
                domain: 1,
                walk_snoop: false,
                page_snoop: false,
            },
        );
        let pasid = 0x1_2345;
        assert_eq!(table.size_code(), 7);
        assert!(table
            .with(pasid, |_| Ok(()), |slot| writer::replace(slot, new))
            .is_err());
        table.prepare(pasid)?;
        table.prepare(pasid)?;
        table.with(pasid, |_| Ok(()), |slot| writer::replace(slot, new))?;
        assert!(!table.is_empty());

        let tables = table.tables.lock();
        assert_eq!(tables.len(), 1);
        let directory = table.directory.words()[pasid as usize >> 6].load(Relaxed);
        assert_eq!(directory, tables[0].1.phys() | 1);
        let first = (pasid as usize & 0x3f) * 8;
        assert_eq!(tables[0].1.words()[first].load(Relaxed), new.0[0]);
        assert_eq!(tables[0].1.words()[first + 1].load(Relaxed), new.0[1]);
        drop(tables);

        table.with(pasid, |_| Ok(()), |slot| writer::clear(slot))?;
        assert!(table.is_empty());
        assert!(table.prepare(1 << 20).is_err());
        Ok(())
    }
}
