// SPDX-License-Identifier: GPL-2.0

//! Leaves of a domain that change their size: split when tracking begins or when a query finds them
//! dirty, joined when tracking ends.
//!
//! A split runs beside maps, unmaps and translations. A join does not: a page that another CPU
//! unmaps in a table which has just given way to a leaf would stay mapped. iommufd does not keep
//! them apart: it switches tracking, and queries, under `iova_rwsem` held for reading, and empties
//! areas and revokes dma-bufs without it. So where leaves are split, maps, unmaps and translations
//! take turns with a join, and so do queries, and the switches of tracking among themselves.
//!
//! The turn of a join lasts until its flush is complete. An unmap in between would flush no links,
//! and hardware could still follow one to a table that maps what was unmapped.
//!
//! # Locks
//!
//! All of this is for domains that split leaves, which only iommufd allocates: all callers may
//! sleep. Other domains take none of these locks.
//!
//! The order is `switching`, `harvesting`, `mapping`, the lock of
//! [`Unflushed`](super::unflushed::Unflushed). The attach lock comes after `switching`, and the
//! list of attachments after `harvesting`; neither comes before one of these. Under `harvesting`, a
//! query faults in the user's bitmap, which may take the locks of exporters of memory. A caller
//! that unmaps a revoked dma-buf holds such locks: it takes `mapping` only, and under that a map
//! allocates memory, and nothing else waits.

use kernel::{
    prelude::*,
    sync::MutexGuard, //
};

use super::{
    super::{
        ffi,
        gather::{
            IotlbGather,
            LocalGather, //
        },
        hw::pages::{
            Gfp,
            KernelTables, //
        },
        ops::PagingDomain,
        pt::{
            DetachedTable,
            Exclusive,
            Gather,
            Range, //
        },
        tables::Tables,
        values::{
            Flush,
            Splits, //
        }, //
    },
    Domain, //
};

/// A gather whose flush includes the hardware's copies of links, also if no table was removed.
struct WithLinks<'g, 'a>(&'g mut IotlbGather<'a>);

impl Gather<KernelTables> for WithLinks<'_, '_> {
    fn add_range(&mut self, range: Range) {
        self.0.add_with_links(range);
    }

    fn queue_free(&mut self, table: DetachedTable<KernelTables>) {
        self.0.queue_free(table);
    }
}

impl<P: PagingDomain> Domain<P> {
    /// Keeps other switches of tracking out, in a domain that splits leaves.
    ///
    /// Context: may sleep; no locks of this domain, and not the attach lock.
    pub(in super::super) fn lock_switching(&self) -> Option<MutexGuard<'_, ()>> {
        let splits = self.data.tables().can_split();

        splits.then(|| self.reshaping.switching.lock())
    }

    /// Keeps other queries and joins out, in a domain that splits leaves.
    ///
    /// Context: may sleep.
    pub(in super::super) fn lock_harvesting(&self) -> Option<MutexGuard<'_, ()>> {
        let splits = self.data.tables().can_split();

        splits.then(|| self.reshaping.harvesting.lock())
    }

    /// The same for a caller that does not wait: `None` if there is a query or a join.
    ///
    /// Context: may sleep.
    pub(super) fn try_lock_harvesting(&self) -> Option<Option<MutexGuard<'_, ()>>> {
        if !self.data.tables().can_split() {
            return Some(None);
        }
        self.reshaping.harvesting.try_lock().map(Some)
    }

    /// Keeps joins, other maps, unmaps and translations out, in a domain that splits leaves.
    ///
    /// Context: may sleep if the domain splits leaves, otherwise any.
    #[inline]
    pub(in super::super) fn lock_mapping(&self) -> Option<MutexGuard<'_, ()>> {
        let splits = self.data.tables().can_split();

        splits.then(|| self.reshaping.mapping.lock())
    }

    /// Splits what is to be split before tracking begins. Without memory, leaves stay as they are;
    /// so they do if the current task is killed.
    ///
    /// Context: may sleep; no locks of this domain.
    pub(in super::super) fn split(&self) {
        let Splits::Eager { lg2 } = self.data.splits() else {
            return;
        };
        let _harvesting = self.lock_harvesting();
        let Some(walk) = self.aperture().and_then(|aperture| self.walk(aperture)) else {
            return;
        };
        let go_on = || !ffi::is_killed();
        let (split, result) = self.data.tables().split(&walk, lg2, Gfp::spare(), go_on);

        if let Some(range) = split {
            // If this fails, all that is writable is reported until a flush succeeds.
            let _ = self.flush(Flush::Range {
                range,
                tables: true,
            });
        }
        if result == Err(ENOMEM) {
            pr_info!(
                "iommu: no memory to split all large leaves of a domain: writes to those that are \
                 left are reported by leaf\n"
            );
        }
    }

    /// Joins what was split, so that the mappings are what they were. Waits for a query. If there
    /// is a walk nevertheless, what is split stays so.
    ///
    /// Context: may sleep; no locks of this domain.
    pub(in super::super) fn join(&self) {
        let (Some(_harvesting), Some(aperture)) = (self.lock_harvesting(), self.aperture()) else {
            return;
        };
        let _mapping = self.lock_mapping();
        // SAFETY: The driver keeps page tables in `data`, and each gather of detached tables ends
        // in `Self::sync()`, which asks `walks`: see `Self::walk()`, which makes all walks.
        let Some(pause) = (unsafe { self.walks.pause(&self.data) }) else {
            return;
        };
        // SAFETY: Each other claim is made under `mapping` in a domain that splits leaves, which
        // those are that get here, and is gone before that is released.
        let mut claim = unsafe { Exclusive::new(aperture, &self.data) };
        pin_init::stack_pin_init!(let local = LocalGather::new());
        let mut gather = local.borrow();
        let joined = self
            .data
            .tables()
            .join(&mut claim, &pause, &mut WithLinks(&mut gather));

        if gather.flush().is_some() {
            // If this fails, the tables are leaked.
            // SAFETY: The gather was empty, and only the join has added to it: ranges, and tables
            // that it has detached as an unmap does.
            let _ = unsafe { self.sync(&mut gather) };
        }
        debug_assert!(joined.is_ok());
    }

    /// All addresses that can be mapped.
    fn aperture(&self) -> Option<Range> {
        let geometry = self.data.tables().geometry();

        Range::inclusive(geometry.first, geometry.last).ok()
    }
}
