// SPDX-License-Identifier: GPL-2.0

//! Root and scalable-mode context tables (VT-d specification, 9.1 to 9.4).
//!
//! The root table has two entries for each bus, one for each half of the device numbers; a
//! context table has a 256-bit entry for each function, which names the function's PASID
//! directory. Requests behind a bridge to conventional PCI carry the bridge's requester ID: all
//! functions there *claim* that ID, and its entry names the directory of the first. They are in
//! one group, so all their directories translate alike.
//!
//! Lock order: the table lock is taken under the core's group lock, and no other lock is taken
//! under it. Its holder may sleep.

use kernel::{
    bitfield,
    iommu::hw::pages::{
        Gfp,
        TablePages, //
    },
    new_mutex,
    prelude::*,
    sizes::SZ_4K,
    sync::{
        atomic::{
            Relaxed,
            Release, //
        },
        Mutex, //
    }, //
};

/// Flag of a root entry half: the context table is present.
const ROOT_PRESENT: u64 = 1 << 0;

/// 64-bit words of a scalable-mode context entry.
const CONTEXT_WORDS: usize = 4;

bitfield! {
    /// Quadword 0 of a scalable-mode context entry (9.4).
    pub(crate) struct Context0(u64) {
        /// PASIDDIRPTR: the PASID directory, in 4 KiB units.
        63:12   directory;
        /// PDTS: the directory has 2^(PDTS + 7) entries.
        11:9    directory_size;
        /// PASIDE: requests with PASID are allowed.
        3:3     pasid => bool;
        /// P: present.
        0:0     present => bool;
    }
}

/// The content of the context entry of a requester ID. Quadword 1 is zero: requests without
/// PASID use PASID 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    /// Physical address of the PASID directory.
    pub(crate) directory: u64,
    /// Size of the directory, coded as PDTS.
    pub(crate) directory_size: u8,
    /// Whether the device may use PASIDs.
    pub(crate) pasid: bool,
}

impl Context {
    /// Quadword 0 of the entry.
    fn word0(self) -> u64 {
        let size = u64::from(self.directory_size) << Context0::DIRECTORY_SIZE_SHIFT;
        Context0::from_raw(
            (self.directory & Context0::DIRECTORY_MASK) | (size & Context0::DIRECTORY_SIZE_MASK),
        )
        .with_pasid(self.pasid)
        .with_present(true)
        .into_raw()
    }
}

/// A function's request that a requester ID leads to its directory.
struct SourceClaim {
    source: u16,
    context: Context,
}

/// The state under the table lock.
struct Inner {
    /// Context tables by root entry half.
    tables: KVec<(usize, TablePages)>,
    /// Claims in the order of their arrival.
    claims: KVec<SourceClaim>,
}

/// The root table of a unit and the context tables below it.
#[pin_data]
pub(crate) struct RootTable {
    root: TablePages,
    node: Option<u32>,
    coherent: bool,
    #[pin]
    inner: Mutex<Inner>,
}

/// The invalidation that a change needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// None: the entry has not changed.
    None,
    /// An absent entry became present.
    Added,
    /// A present entry became absent or different.
    Removed,
}

/// Index of the root entry half for a requester ID, and of its entry in the context table.
fn place(source: u16) -> (usize, usize) {
    let source = usize::from(source);
    (source >> 7, source & 0x7f)
}

impl RootTable {
    /// An empty root table near `node`; `coherent` says whether the hardware snoops it.
    ///
    /// May sleep.
    pub(crate) fn new(node: Option<u32>, coherent: bool) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            root: {
                let root = TablePages::new(SZ_4K, Gfp::KERNEL, node)?;
                if !coherent {
                    root.flush(0, SZ_4K);
                }
                root
            },
            node,
            coherent,
            inner <- new_mutex!(Inner {
                tables: KVec::new(),
                claims: KVec::new(),
            }),
        })
    }

    /// Physical address of the root table.
    pub(crate) fn phys(&self) -> u64 {
        self.root.phys()
    }

    fn flush(&self, pages: &TablePages, word: usize, words: usize) {
        if !self.coherent {
            pages.flush(word * 8, words * 8);
        }
    }

    /// Writes the entry of `source`: `context`, or absent.
    fn write(&self, inner: &Inner, source: u16, context: Option<Context>) -> Result {
        let (half, index) = place(source);
        let table = inner
            .tables
            .iter()
            .find_map(|(at, table)| (*at == half).then_some(table))
            .ok_or(ENOENT)?;
        let first = index * CONTEXT_WORDS;
        for word in 1..CONTEXT_WORDS {
            table.word(first + word)?.store(0, Relaxed);
        }
        // Release: the hardware must not see the entry before the directory that it names.
        table
            .word(first)?
            .store(context.map_or(0, Context::word0), Release);
        self.flush(table, first, CONTEXT_WORDS);
        Ok(())
    }

    /// Makes room for the entry of `source`. May sleep.
    fn prepare(&self, inner: &mut Inner, source: u16) -> Result {
        let (half, _) = place(source);
        if inner.tables.iter().any(|(at, _)| *at == half) {
            return Ok(());
        }
        inner.tables.reserve(1, GFP_KERNEL)?;
        let table = TablePages::new(SZ_4K, Gfp::KERNEL, self.node)?;
        if !self.coherent {
            table.flush(0, SZ_4K);
        }
        self.root
            .word(half)?
            .store(table.phys() | ROOT_PRESENT, Release);
        self.flush(&self.root, half, 1);
        inner.tables.push((half, table), GFP_KERNEL)?;
        Ok(())
    }

    /// Claims the requester ID `source` for `context`.
    ///
    /// May sleep. The caller does the invalidation that the result names.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; nothing has changed then.
    pub(crate) fn claim(&self, source: u16, context: Context) -> Result<Change> {
        let mut inner = self.inner.lock();
        self.prepare(&mut inner, source)?;
        let first = !inner.claims.iter().any(|claim| claim.source == source);
        inner
            .claims
            .push(SourceClaim { source, context }, GFP_KERNEL)?;
        if !first {
            return Ok(Change::None);
        }
        self.write(&inner, source, Some(context))?;
        Ok(Change::Added)
    }

    /// Releases the claim of `source` by the owner of `directory`.
    ///
    /// If the entry belongs to this claim it becomes absent; [`Self::promote`] gives it to the
    /// next claim after the caller has invalidated it.
    pub(crate) fn release(&self, source: u16, directory: u64) -> Change {
        let mut inner = self.inner.lock();
        let mine =
            |claim: &SourceClaim| claim.source == source && claim.context.directory == directory;
        let Some(index) = inner.claims.iter().position(mine) else {
            return Change::None;
        };
        let shown = inner.claims.iter().position(|claim| claim.source == source) == Some(index);
        if inner.claims.remove(index).is_err() || !shown {
            return Change::None;
        }
        // The table exists, because the claim made it.
        match self.write(&inner, source, None) {
            Ok(()) => Change::Removed,
            Err(_) => Change::None,
        }
    }

    /// Enters the next claim of `source`, if there is one, after [`Self::release`].
    pub(crate) fn promote(&self, source: u16) -> Change {
        let inner = self.inner.lock();
        let next = inner
            .claims
            .iter()
            .find(|claim| claim.source == source)
            .map(|claim| claim.context);
        match next {
            Some(context) if self.write(&inner, source, Some(context)).is_ok() => Change::Added,
            _ => Change::None,
        }
    }

    /// The two lower words of the entry of `source`, zero if there is none.
    #[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
    pub(crate) fn entry(&self, source: u16) -> [u64; 2] {
        let inner = self.inner.lock();
        let (half, index) = place(source);
        let root = self.root.words()[half].load(Relaxed);
        for (at, table) in &inner.tables {
            if *at == half {
                assert_eq!(root, table.phys() | ROOT_PRESENT);
                let words = table.words();
                return [
                    words[index * CONTEXT_WORDS].load(Relaxed),
                    words[index * CONTEXT_WORDS + 1].load(Relaxed),
                ];
            }
        }
        assert_eq!(root, 0);
        [0; 2]
    }
}

#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
#[kunit_tests(rust_vtd_root)]
mod tests {
    use super::*;

    fn context(directory: u64) -> Context {
        Context {
            directory,
            directory_size: 0,
            pasid: false,
        }
    }

    #[test]
    fn entry_bits() {
        assert_eq!(context(0x1234_5000).word0(), 0x1234_5001);
        let all = Context {
            directory: 0xf_ffff_ffff_f000,
            directory_size: 7,
            pasid: true,
        };
        assert_eq!(all.word0(), 0xf_ffff_ffff_fe09);
    }

    #[test]
    fn entries_are_where_the_hardware_looks() -> Result {
        let root = KBox::pin_init(RootTable::new(None, false), GFP_KERNEL)?;
        // Bus 3: devices below 10.0 use the lower half of the root entry, the others the upper.
        assert_eq!(root.claim(0x0308, context(0x1000))?, Change::Added);
        assert_eq!(root.claim(0x0380, context(0x2000))?, Change::Added);
        assert_eq!(place(0x0308), (6, 8));
        assert_eq!(place(0x0380), (7, 0));
        assert_eq!(root.entry(0x0308), [0x1001, 0]);
        assert_eq!(root.entry(0x0380), [0x2001, 0]);
        assert_eq!(root.entry(0x0309), [0, 0]);
        assert_eq!(root.entry(0x0408), [0, 0]);
        Ok(())
    }

    #[test]
    fn an_alias_outlives_its_first_owner() -> Result {
        let root = KBox::pin_init(RootTable::new(None, true), GFP_KERNEL)?;
        assert_eq!(root.claim(0x0500, context(0x1000))?, Change::Added);
        assert_eq!(root.claim(0x0500, context(0x2000))?, Change::None);
        assert_eq!(root.claim(0x0500, context(0x3000))?, Change::None);
        assert_eq!(root.entry(0x0500), [0x1001, 0]);
        // Releasing a claim that is not entered changes nothing.
        assert_eq!(root.release(0x0500, 0x2000), Change::None);
        assert_eq!(root.release(0x0500, 0x1000), Change::Removed);
        assert_eq!(root.entry(0x0500), [0, 0]);
        assert_eq!(root.promote(0x0500), Change::Added);
        assert_eq!(root.entry(0x0500), [0x3001, 0]);
        assert_eq!(root.release(0x0500, 0x3000), Change::Removed);
        assert_eq!(root.promote(0x0500), Change::None);
        // A claim that never was.
        assert_eq!(root.release(0x0500, 0x3000), Change::None);
        Ok(())
    }
}
