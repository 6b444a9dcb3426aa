// SPDX-License-Identifier: GPL-2.0

//! Where a domain is attached, and what a device holds.
//!
//! Attaching is three steps, each a type that the next one consumes:
//!
//! 1. `Prepared`: all that can fail is done, memory for the rest is reserved, and flushes of the
//!    domain reach the new place already. Dropping it undoes this.
//! 2. `Installed`: hardware uses the domain. This cannot be undone, and no later step can fail.
//! 3. Committed: the attachment is in the domain's list and in the device's slot; what was there
//!    before is gone.
//!
//! Tags are added before hardware uses the tables, and removed after hardware has stopped using
//! them: an unmap in between flushes too much rather than too little.
//!
//! # Units that do not answer
//!
//! If a unit does not confirm that it uses a domain, or that it has forgotten one, it may use the
//! domain as long as it has power: the domain is lost ([`Attachments::is_lost`]). The attachment
//! stays in its list, with its tags, so that each flush still fails that has to reach that unit.
//! Nothing that hardware may see is freed with the domain: not its tables, ids and attachments.
//!
//! # Locks
//!
//! See [`ops`](super::ops). All changes are made under the attach lock of the registry. Below it
//! come the `list` of a domain or the `slots` of a device, never two lists and never both, and
//! below these the lock of the [`Tags`].

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            AtomicFlag,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};

use super::{
    lock_class,
    ops::{
        EndpointOf,
        PagingDomain, //
    },
    tags::Tags,
    values::DeviceSlot, //
};

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
mod tests;

/// One device in a domain.
struct Node<P: PagingDomain> {
    endpoint: Arc<EndpointOf<P>>,
    slot: DeviceSlot,
    tags: KVec<P::Tag>,
    attachment: P::Attachment,
    /// Its unit did not confirm a change: what it does with the attachment is unknown for ever.
    lost: AtomicFlag,
}

/// The attachments of a domain that is attached nowhere or somewhere.
struct List<P: PagingDomain> {
    nodes: KVec<Arc<Node<P>>>,
    tracking: bool,
}

#[pin_data]
struct Shared<P: PagingDomain> {
    /// The number of the domain.
    domain: u64,
    #[pin]
    list: Mutex<List<P>>,
    #[pin]
    tags: Tags<P::Tag>,
    /// Hardware may use the domain for ever. Never taken back.
    lost: AtomicFlag,
}

/// The attachments of a domain: what has to be flushed when its tables change.
pub struct Attachments<P: PagingDomain>(Arc<Shared<P>>);

impl<P: PagingDomain> Attachments<P> {
    /// Creates an empty list for the domain with the number `domain`.
    pub(super) fn new(domain: u64) -> Result<Self> {
        let (name, key) = lock_class::attachments_list();
        let empty = List {
            nodes: KVec::new(),
            tracking: false,
        };

        Ok(Self(Arc::pin_init(
            pin_init!(Shared {
                domain,
                list <- Mutex::new(empty, name, key),
                tags <- Tags::new(),
                lost: AtomicFlag::new(false),
            }),
            GFP_KERNEL,
        )?))
    }

    /// What a flush of the domain addresses.
    #[inline]
    pub fn tags(&self) -> &Tags<P::Tag> {
        &self.0.tags
    }

    /// Whether hardware may use the domain even where it is not attached any more: a unit did not
    /// confirm that it has forgotten it.
    ///
    /// Context: any.
    #[inline]
    pub fn is_lost(&self) -> bool {
        self.0.lost.load(Relaxed)
    }

    /// Whether dirty tracking is on.
    pub(super) fn is_tracking(&self) -> bool {
        self.0.list.lock().tracking
    }

    /// Calls `show` for each attachment, until it fails.
    ///
    /// It may sleep, and takes none of the locks above that of the list.
    pub(super) fn each<E>(
        &self,
        mut show: impl FnMut(&EndpointOf<P>, DeviceSlot) -> Result<(), E>,
    ) -> Result<(), E> {
        let list = self.0.list.lock();
        list.nodes
            .iter()
            .try_for_each(|node| show(&node.endpoint, node.slot))
    }

    /// Whether the domain is attached nowhere.
    pub(super) fn is_empty(&self) -> bool {
        self.0.list.lock().nodes.is_empty()
    }

    /// Switches dirty tracking of all attachments. If one refuses, all that were switched are put
    /// back, and that one too: it may have been left in between.
    ///
    /// Lost attachments are skipped: the unit would refuse, and nothing depends on it. The domain
    /// is lost as well, and reports all that is mapped and writable.
    ///
    /// The caller holds the attach lock.
    pub(super) fn set_tracking(&self, domain: &P, on: bool) -> Result {
        let mut list = self.0.list.lock();
        if list.tracking == on {
            return Ok(());
        }
        let set = |node: &Node<P>, on| {
            domain.set_tracking(&node.endpoint, node.slot, &node.attachment, on)
        };

        let is_live = |node: &&Arc<Node<P>>| !node.lost.load(Relaxed);

        for (index, node) in list.nodes.iter().filter(is_live).enumerate() {
            let Err(error) = set(node, on) else {
                continue;
            };
            for node in list.nodes.iter().filter(is_live).take(index + 1) {
                if let Err(error) = set(node, !on) {
                    pr_err!("iommu: dirty tracking could not be restored: {error:?}\n");
                }
            }
            return Err(error);
        }
        list.tracking = on;
        Ok(())
    }
}

impl<P: PagingDomain> Shared<P> {
    /// Enters an attachment into the list. `Prepared::new()` made room for it, and under the attach
    /// lock no other attachment takes that room.
    fn enter(&self, node: &Arc<Node<P>>) {
        let _ = self.list.lock().nodes.push_within_capacity(node.clone());
    }
}

/// An attachment that hardware does not know of yet.
#[must_use = "dropping it undoes the preparation"]
pub(super) struct Prepared<'a, P: PagingDomain> {
    shared: &'a Arc<Shared<P>>,
    holder: &'a Slots<P>,
    // `None` once installed.
    node: Option<Arc<Node<P>>>,
    user: bool,
    tracking: bool,
}

impl<'a, P: PagingDomain> Prepared<'a, P> {
    /// Does all that can fail. The caller holds the attach lock until the attachment is committed
    /// or dropped.
    ///
    /// `user` says that the domain is not one of the DMA API.
    pub(super) fn new(
        domain: &P,
        attachments: &'a Attachments<P>,
        endpoint: &Arc<EndpointOf<P>>,
        holder: &'a Slots<P>,
        slot: DeviceSlot,
        user: bool,
    ) -> Result<Self> {
        let shared = &attachments.0;
        let tracking = {
            let mut list = shared.list.lock();
            list.nodes.reserve(1, GFP_KERNEL)?;
            list.tracking
        };
        holder.reserve()?;

        let attachment = domain.prepare(endpoint, slot, tracking)?;
        let tags = domain.tags(&attachment)?;
        let node = Arc::new(
            Node {
                endpoint: endpoint.clone(),
                slot,
                tags,
                attachment,
                lost: AtomicFlag::new(false),
            },
            GFP_KERNEL,
        )?;
        shared.tags.add(&node.tags)?;
        Ok(Self {
            shared,
            holder,
            node: Some(node),
            user,
            tracking,
        })
    }

    /// Points hardware to the domain.
    ///
    /// # Errors
    ///
    /// The errors of [`PagingDomain::install`]: hardware may use the domain, and what the device
    /// had. The slot still says the latter; the domain is lost.
    pub(super) fn install(mut self, domain: &P) -> Result<Installed<'a, P>> {
        let node = self.node.take();
        if let Some(node) = &node {
            let installed =
                domain.install(&node.endpoint, node.slot, &node.attachment, self.tracking);
            if let Err(error) = installed {
                node.lost.store(true, Relaxed);
                self.shared.lost.store(true, Relaxed);
                self.shared.enter(node);
                return Err(error);
            }
        }
        Ok(Installed {
            shared: self.shared,
            holder: self.holder,
            node,
            user: self.user,
        })
    }
}

impl<P: PagingDomain> Drop for Prepared<'_, P> {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            self.shared.tags.remove(&node.tags);
        }
    }
}

/// An attachment that hardware uses.
#[must_use = "hardware uses the domain already: the lists have to say so"]
pub(super) struct Installed<'a, P: PagingDomain> {
    shared: &'a Arc<Shared<P>>,
    holder: &'a Slots<P>,
    node: Option<Arc<Node<P>>>,
    user: bool,
}

impl<P: PagingDomain> Installed<'_, P> {
    /// Enters the attachment into the domain's list and the device's slot, and drops what the
    /// device had there.
    pub(super) fn commit(mut self) {
        let Some(node) = self.node.take() else {
            return;
        };
        self.shared.enter(&node);
        let slot = node.slot;
        self.holder.put(
            slot,
            Held::Domain(Attached {
                shared: self.shared.clone(),
                node,
                user: self.user,
            }),
        );
    }
}

/// Keeps an attachment in the list of its domain; dropped when hardware has forgotten it.
pub(super) struct Attached<P: PagingDomain> {
    shared: Arc<Shared<P>>,
    node: Arc<Node<P>>,
    user: bool,
}

impl<P: PagingDomain> Attached<P> {
    /// The number of the domain.
    pub(super) fn domain(&self) -> u64 {
        self.shared.domain
    }

    /// Leaves the attachment in the list of its domain for ever.
    fn lose(self) {
        self.node.lost.store(true, Relaxed);
        self.shared.lost.store(true, Relaxed);
    }
}

impl<P: PagingDomain> Drop for Attached<P> {
    fn drop(&mut self) {
        if self.node.lost.load(Relaxed) {
            return;
        }
        self.shared.tags.remove(&self.node.tags);
        self.shared
            .list
            .lock()
            .nodes
            .retain(|node| !Arc::ptr_eq(node, &self.node));
    }
}

/// What a slot of a device holds.
pub(super) enum Held<P: PagingDomain> {
    /// Nothing was attached yet.
    Fresh,
    /// Memory as it is.
    Identity,
    /// Nothing.
    Blocked,
    /// Unknown: the unit did not confirm the last change.
    Unknown,
    /// A paging domain.
    Domain(Attached<P>),
}

/// What keeps a driver from releasing a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InUse {
    /// Nothing: identity, not attached, or behind a unit that does not answer.
    No,
    /// The DMA API: in the way only while a driver is bound.
    DmaApi,
    /// A domain that a user attached, a PASID, or a group that was claimed.
    Owner,
}

/// The slots of a device.
///
/// The entry of [`DeviceSlot::Rid`] always exists, so that blocking a device needs no memory.
#[pin_data]
pub(super) struct Slots<P: PagingDomain> {
    #[pin]
    held: Mutex<KVec<(DeviceSlot, Held<P>)>>,
}

impl<P: PagingDomain> Slots<P> {
    /// The slots of a device that was just found.
    pub(super) fn new() -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| {
            let mut held = KVec::with_capacity(1, GFP_KERNEL)?;
            held.push((DeviceSlot::Rid, Held::Fresh), GFP_KERNEL)?;
            let (name, key) = lock_class::slots_held();
            Ok(try_pin_init!(Self {
                held <- Mutex::new(held, name, key),
            }? Error))
        })
    }

    /// Makes room for one more slot.
    pub(super) fn reserve(&self) -> Result {
        Ok(self.held.lock().reserve(1, GFP_KERNEL)?)
    }

    /// Says what `slot` holds from now on, and drops what it held. Room for it was reserved, or it
    /// exists.
    pub(super) fn put(&self, slot: DeviceSlot, new: Held<P>) {
        let mut held = self.held.lock();
        let old = match held.iter_mut().find(|(known, _)| *known == slot) {
            Some((_, place)) => Some(core::mem::replace(place, new)),
            None => {
                let _ = held.push_within_capacity((slot, new));
                None
            }
        };
        drop(held);
        // Takes the list of another domain.
        drop(old);
    }

    /// Says that hardware may still use what `slot` held, because the unit did not confirm a
    /// change: a domain there is lost. A PASID is forgotten.
    pub(super) fn lose(&self, slot: DeviceSlot) {
        let mut held = self.held.lock();
        let index = held.iter().position(|(known, _)| *known == slot);
        let old = match (slot, index) {
            (_, None) => None,
            (DeviceSlot::Rid, Some(index)) => held
                .get_mut(index)
                .map(|(_, place)| core::mem::replace(place, Held::Unknown)),
            (DeviceSlot::Pasid(_), Some(index)) => held.remove(index).ok().map(|(_, old)| old),
        };
        drop(held);
        if let Some(Held::Domain(attached)) = old {
            attached.lose();
        }
    }

    /// Forgets a PASID.
    pub(super) fn remove(&self, slot: DeviceSlot) {
        let mut held = self.held.lock();
        let index = held.iter().position(|(known, _)| *known == slot);
        let old = index.and_then(|index| held.remove(index).ok());
        drop(held);
        drop(old);
    }

    /// Calls `show` for each slot, until it fails.
    ///
    /// It may sleep, and takes none of the locks above that of the slots.
    pub(super) fn each<E>(
        &self,
        mut show: impl FnMut(DeviceSlot, &Held<P>) -> Result<(), E>,
    ) -> Result<(), E> {
        let held = self.held.lock();
        held.iter().try_for_each(|(slot, held)| show(*slot, held))
    }

    /// Finds a PASID that is attached.
    pub(super) fn any_pasid(&self) -> Option<DeviceSlot> {
        let held = self.held.lock();
        held.iter()
            .map(|(slot, _)| *slot)
            .find(|slot| *slot != DeviceSlot::Rid)
    }

    /// Whether the device itself has memory as it is.
    pub(super) fn is_identity(&self) -> bool {
        let held = self.held.lock();
        held.iter()
            .any(|(slot, held)| *slot == DeviceSlot::Rid && matches!(held, Held::Identity))
    }

    /// Whether nothing was ever attached to the device itself.
    pub(super) fn is_fresh(&self) -> bool {
        let held = self.held.lock();
        held.iter()
            .any(|(slot, held)| *slot == DeviceSlot::Rid && matches!(held, Held::Fresh))
    }

    /// Says what relies on what the device has.
    pub(super) fn in_use(&self) -> InUse {
        let held = self.held.lock();
        let mut in_use = InUse::No;
        for (slot, held) in held.iter() {
            match (slot, held) {
                (DeviceSlot::Pasid(_), _) => return InUse::Owner,
                (DeviceSlot::Rid, Held::Fresh | Held::Identity | Held::Unknown) => {}
                // What the core puts a group on whose ownership was claimed.
                (DeviceSlot::Rid, Held::Blocked) => return InUse::Owner,
                (DeviceSlot::Rid, Held::Domain(attached)) if attached.user => return InUse::Owner,
                (DeviceSlot::Rid, Held::Domain(_)) => in_use = InUse::DmaApi,
            }
        }
        in_use
    }
}
