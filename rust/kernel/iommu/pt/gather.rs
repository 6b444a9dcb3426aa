// SPDX-License-Identifier: GPL-2.0

//! The work that an operation leaves to its caller: flushes, and tables to free after them.
//!
//! The page tables never flush the hardware's caches themselves: the caller knows the hardware, and
//! it flushes once for many operations.

use super::{
    addr::Range,
    table::{
        DetachedTable,
        TableMem, //
    },
    top::NewTop, //
};

/// Collects what has to be flushed, and the tables that can be freed only after that.
///
/// An operation adds the range before it queues a table of it. An implementation that can hold one
/// contiguous range only may therefore flush in [`Gather::add_range`] what it holds, and free what
/// was queued until then, without freeing a table whose range it has not flushed.
pub trait Gather<M: TableMem> {
    /// Adds the translations of `range` to the next flush, and the hardware's copies of table
    /// entries on the way to them.
    fn add_range(&mut self, range: Range);

    /// Frees `table` after the flush of the range that was added before.
    fn queue_free(&mut self, table: DetachedTable<M>);

    /// Gives the hardware a new top, for a format whose trees grow.
    ///
    /// The implementation takes the lock under which devices are attached to the tree. If the new
    /// top [is current](NewTop::is_current) then, it points each device to it and
    /// [publishes](NewTop::publish) it before the lock is released. It tells the hardware of no top
    /// that is not current. If it cannot tell the hardware, it does not publish, and the map fails
    /// with `EIO`. It does not sleep if the map that needs it does not.
    ///
    /// The default is for a tree that does not grow: the hardware is not told, and gets no new top.
    fn change_top(&mut self, _new: NewTop<'_>) {}
}

/// Takes the dirty runs that a harvest finds.
///
/// All are called from a context that may sleep if that of the harvest may.
pub trait DirtySink {
    /// The device has written to `range`, or to a leaf that `range` is a part of.
    ///
    /// Called in ascending order, and never for an address outside the query.
    fn record(&mut self, range: Range);

    /// Leaves were made clean, the first where `range` begins and the last where it ends: only from
    /// a flush of them on does the hardware note the next write. The caller of the harvest flushes,
    /// before it copies what was recorded.
    ///
    /// Called once at most, at the end, since a flush is for one range anyway, and never for an
    /// address outside the query.
    fn cleared(&mut self, range: Range);

    /// Leaves became links to tables, or may have, the first where `range` begins and the last
    /// where it ends: the caller flushes all of it, with the hardware's copies of links. It may
    /// reach beyond the query.
    ///
    /// Called once at most, at the end, and only where leaves may be split.
    fn split(&mut self, range: Range);

    /// Whether the harvest is to end early. Asked before each table that a GiB or so is below.
    fn gives_up(&mut self) -> bool {
        false
    }
}
