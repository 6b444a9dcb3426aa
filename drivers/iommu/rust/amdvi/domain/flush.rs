// SPDX-License-Identifier: GPL-2.0

//! Flushes of a domain: all units have begun before any is waited for, and nothing is locked
//! meanwhile.
//!
//! The tags of a domain are under a spinlock with interrupts disabled. A unit needs microseconds, so
//! the lock is held while commands are written only. A device that is detached after that is none of
//! this flush: its own detach has the unit forget what it had.

use kernel::{
    iommu::{
        domain_id::Tag,
        tags::Tags, //
    },
    prelude::*,
    sync::Arc, //
};

use crate::{
    cmd::{
        desc::Command,
        Ticket, //
    },
    iotlb::Tag as CacheTag,
    unit::Unit, //
};

/// Units that are waited for without the lock. If a domain has devices behind more of them, it waits
/// for the others under the lock.
const UNITS: usize = 8;

/// Units that have begun, and what to wait for.
struct Pending([Option<(Arc<Unit>, Ticket)>; UNITS]);

impl Pending {
    /// Has `unit` begin.
    ///
    /// # Errors
    ///
    /// Those of [`Unit::submit`].
    fn start(&mut self, unit: &Arc<Unit>, command: Command) -> Result {
        let ticket = unit.start(&[command])?;
        for place in &mut self.0 {
            match place {
                // The later ticket stands for the earlier one.
                Some((known, earlier)) if Arc::ptr_eq(known, unit) => *earlier = ticket,
                Some(_) => continue,
                None => *place = Some((unit.clone(), ticket)),
            }
            return Ok(());
        }
        unit.wait(ticket)
    }

    /// Waits for all of them, also after one that failed.
    ///
    /// # Errors
    ///
    /// Those of [`Unit::submit`].
    fn wait(self) -> Result {
        let mut result = Ok(());
        for (unit, ticket) in self.0.into_iter().flatten() {
            result = result.and(unit.wait(ticket));
        }
        result
    }
}

/// Runs the command that `command` returns for each of `tags`.
///
/// Context: any.
///
/// # Errors
///
/// `EIO` if a unit does not answer; all others were told nevertheless.
pub(super) fn flush_all(
    tags: &Tags<Tag<Unit, CacheTag>>,
    command: impl Fn(&Tag<Unit, CacheTag>) -> Option<Command>,
) -> Result {
    let mut pending = Pending([const { None }; UNITS]);
    let started = tags.flush_each(|tag| match command(tag) {
        Some(command) => pending.start(&tag.unit, command),
        None => Ok(()),
    });
    started.and(pending.wait())
}
