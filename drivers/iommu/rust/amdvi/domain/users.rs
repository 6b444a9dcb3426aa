// SPDX-License-Identifier: GPL-2.0

//! The users of a domain, whose device entries change when its host table grows.
//!
//! A domain starts with few levels, and a mapping that needs more adds a table on top, in any
//! context. The device entries of all users get the new top before the domain has it. A concurrent
//! attach may move a device to another domain; the id in its entry tells whose it is.
//!
//! Lock order: the list is under a spinlock with interrupts disabled. A CPU that points a device
//! to the tables holds it, so that the device misses no top; the locks of a unit are taken under
//! it.

use kernel::{
    iommu::{
        gather::IotlbGather,
        hw::pages::KernelTables,
        locked_vec,
        pt::{
            DetachedTable,
            Gather,
            NewTop,
            Range, //
        }, //
    },
    new_spinlock_irq,
    prelude::*,
    sync::{
        Arc,
        SpinLockIrq, //
    }, //
};

use crate::{
    dte::writer,
    endpoint::Endpoint, //
};

/// A device that is attached to the domain, or is about to be.
pub(super) struct User {
    /// The device.
    pub(super) endpoint: Arc<Endpoint>,
    /// The domain's id in its unit.
    pub(super) id: u16,
}

/// The devices whose entries may name the tables.
#[pin_data]
pub(super) struct Users {
    #[pin]
    list: SpinLockIrq<KVec<User>>,
}

impl Users {
    /// No users yet. May sleep.
    pub(super) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                list <- new_spinlock_irq!(KVec::new(), "rust_amdvi::domain::Users::list"),
            }),
            GFP_KERNEL,
        )
    }

    /// Adds a user. May sleep.
    pub(super) fn add(&self, user: User) -> Result {
        locked_vec::push(&self.list, user)
    }

    /// Runs `point`, which points a user to the tables. The top does not change while it runs.
    pub(super) fn hold<R>(&self, point: impl FnOnce() -> R) -> R {
        let _list = self.list.lock();
        point()
    }

    /// Removes a user, once if it was added more than once.
    pub(super) fn remove(&self, endpoint: &Arc<Endpoint>) {
        let mut list = self.list.lock();
        let at = list
            .iter()
            .position(|user| Arc::ptr_eq(&user.endpoint, endpoint));
        let gone = at.and_then(|at| list.remove(at).ok());
        drop(list);
        // May be the last reference, to be dropped without the lock.
        drop(gone);
    }
}

/// A gather of the core, for a domain whose table may grow.
pub(super) struct Growing<'a, 'b> {
    /// The gather of the core.
    pub(super) gather: &'a mut IotlbGather<'b>,
    /// The users that get a new top.
    pub(super) users: &'a Users,
    /// Whether the units of all users have invalidated the old top.
    pub(super) noticed: Result,
}

impl Gather<KernelTables> for Growing<'_, '_> {
    fn add_range(&mut self, range: Range) {
        self.gather.add(range);
    }

    fn queue_free(&mut self, table: DetachedTable<KernelTables>) {
        self.gather.queue_free(table);
    }

    fn change_top(&mut self, mut new: NewTop<'_>) {
        let list = self.users.list.lock();
        if !new.is_current() {
            return;
        }
        let top = new.top();
        for user in list.iter() {
            let changed = user
                .endpoint
                .change(|live| writer::set_top(live, user.id, top.phys, top.levels));
            self.noticed = self.noticed.and(changed);
        }
        // Published even if a unit does not answer: the entries name the new top.
        // SAFETY: The entry of each user names the new top, and its unit has forgotten the old
        // entry or does not answer any more: then no flush succeeds, and nothing that it may use is
        // freed. A device is attached under the lock that is held.
        unsafe { new.publish() };
    }
}
