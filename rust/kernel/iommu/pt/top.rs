// SPDX-License-Identifier: GPL-2.0

//! A new top for a tree that grows: see `grow.rs`.

use super::{
    table::read_once,
    tree::Top, //
};
use kernel::sync::atomic::{
    Atomic,
    Release, //
};

/// The state of a new top.
pub(super) enum Fate {
    /// Only this operation knows of it.
    Unknown,
    /// The hardware may have been told of it, and the tree does not have it.
    Shown,
    /// The tree has it.
    Published,
}

/// A top that a tree can have in place of the one that it has.
///
/// If it is dropped the tree does not get it, and the map that needs it fails. Its table is freed
/// then unless its address was [asked for](NewTop::top), and the hardware may have been told: in
/// that case it is leaked.
pub struct NewTop<'t> {
    pub(super) word: &'t Atomic<u64>,
    pub(super) old: u64,
    pub(super) new: u64,
    pub(super) top: Top,
    pub(super) fate: &'t mut Fate,
}

impl NewTop<'_> {
    /// Whether the tree still has the top that this one was made for. If not, there is nothing to
    /// do: another map was faster.
    ///
    /// Under a lock that all callers of [`NewTop::publish`] hold, the answer stays true.
    pub fn is_current(&self) -> bool {
        read_once(self.word) == self.old
    }

    /// What to tell the hardware, if the top [is current](NewTop::is_current).
    pub fn top(&mut self) -> Top {
        *self.fate = Fate::Shown;
        self.top
    }

    /// Gives the tree the new top, unless another map was faster.
    ///
    /// # Safety
    ///
    /// No hardware walks the tree, now or later, that was told of the old top and not of this one
    /// since: with the new one, an unmap may free the table that the old one was.
    pub unsafe fn publish(self) {
        // Release: a walk from the new top finds the old one linked, and what the hardware was told
        // before was told before the walk relies on it.
        if self.word.cmpxchg(self.old, self.new, Release).is_ok() {
            *self.fate = Fate::Published;
        }
    }
}
