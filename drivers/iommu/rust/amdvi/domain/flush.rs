// SPDX-License-Identifier: GPL-2.0

//! Flushes of a domain: all units begin before the CPU waits for the first, and it waits without a
//! lock.
//!
//! The tags of a domain are under a spinlock with interrupts disabled. A unit needs microseconds,
//! so the CPU holds the lock only while it writes commands. If a device is detached after that, its
//! detach invalidates its translations.

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

/// The number of units that a flush waits for without the lock. It waits for more units under the
/// lock.
const UNITS: usize = 8;

/// Units that have begun, and their tickets.
struct Pending([Option<(Arc<Unit>, Ticket)>; UNITS]);

impl Pending {
    /// Makes `unit` begin.
    ///
    /// # Errors
    ///
    /// The errors of [`Unit::submit`].
    fn start(&mut self, unit: &Arc<Unit>, command: Command) -> Result {
        let ticket = unit.start(&[command])?;
        for place in &mut self.0 {
            match place {
                // The later ticket includes the earlier one.
                Some((known, earlier)) if Arc::ptr_eq(known, unit) => *earlier = ticket,
                Some(_) => continue,
                None => *place = Some((unit.clone(), ticket)),
            }
            return Ok(());
        }
        unit.wait(ticket)
    }

    /// Waits for all of them, also after an error.
    ///
    /// # Errors
    ///
    /// The errors of [`Unit::submit`].
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
/// `EIO` if a unit does not answer; all others run their commands nevertheless.
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
