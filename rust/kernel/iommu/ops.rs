// SPDX-License-Identifier: GPL-2.0

//! What a driver of remapping units implements, and when the IOMMU core calls it.
//!
//! [`Driver`] stands for `struct iommu_ops`, [`PagingDomain`] for `struct iommu_domain_ops` and
//! `struct iommu_dirty_ops`; each method names its C callback. [`Confirms`] states what memory
//! safety needs of both.
//!
//! # Locks
//!
//! From the outermost to the innermost:
//!
//! 1. `iommu_probe_device_lock`, then `group->mutex` of the IOMMU core;
//! 2. the attach lock of the registry: one for all units of a driver. Attaching moves a device
//!    from one domain to another, and neither may switch dirty tracking at the same time. Locks of
//!    the domains would have to be taken in pairs, and attaching is rare;
//! 3. the list of a domain's attachments, a mutex;
//! 4. locks of the driver that may sleep;
//! 5. the tags of a domain, a spinlock with interrupts disabled: the DMA API unmaps in
//!    any context;
//! 6. spinlocks of the driver (its command queue), and those of the abstractions that any of these
//!    may be held around: the devices to isolate, the ranges whose flush has failed.
//!
//! Methods that are called under 2 say so. They must not call functions of the IOMMU core that
//! take 1.

use kernel::{
    device::Device,
    fmt,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};

use super::{
    device::{
        Capability,
        DefaultDomain,
        HwInfo,
        Probed, //
    },
    dirty::DirtyBitmap,
    gather::IotlbGather,
    hw::pages::{
        Gfp,
        KernelWalk, //
    },
    pt::{
        Exclusive,
        PhysAddr,
        Prot,
        Range, //
    },
    resv::ReservedRegions,
    tables::Tables,
    tags::Tags,
    values::{
        AllocFlags,
        DeviceSlot,
        Flush,
        Splits, //
    }, //
};

mod confirms;

pub use confirms::Confirms;

/// A driver of remapping units; one implementation per module.
///
/// One object drives all units: the core finds the operations of a device without knowing which
/// unit translates for it.
pub trait Driver: Confirms + Sized + Send + Sync + 'static {
    /// What the driver keeps for each device (`dev_iommu_priv_get()`): its unit, its source ids,
    /// its tables.
    type Endpoint: Send + Sync + 'static;

    /// The paging domains of the driver.
    type Domain: PagingDomain<Driver = Self>;

    /// Takes a device under the driver's control (`probe_device`).
    ///
    /// Called for every PCI and platform device when a unit is registered, and for each device that
    /// is added later. Hardware still treats the device as before: the core attaches the device to
    /// its default domain after this.
    ///
    /// Context: may sleep; under `iommu_probe_device_lock`.
    ///
    /// # Errors
    ///
    /// `ENODEV` for a device that no unit translates for. Any other error fails the registration.
    fn probe_device(&self, dev: &Device) -> Result<Probed<Self::Endpoint>>;

    /// Gives up a device (`release_device`).
    ///
    /// The device is blocked, or passed through while the driver is being released, and has no
    /// attachment. The endpoint is dropped after this, except for other references to it.
    ///
    /// Context: may sleep; under `group->mutex`.
    fn release_device(&self, dev: &Device, endpoint: &Self::Endpoint) {
        let _ = (dev, endpoint);
    }

    /// Another device under the driver's control, if units cannot tell its requests from those of
    /// this one for a reason that the bus does not know. Both get one group (`device_group`).
    ///
    /// Context: may sleep; under `iommu_probe_device_lock`.
    fn inseparable(&self, endpoint: &Self::Endpoint) -> Option<ARef<Device>> {
        let _ = endpoint;
        None
    }

    /// Whether a device behind its unit has a capability (`capable`).
    ///
    /// Attaching a domain with dirty tracking fails without [`Capability::DirtyTracking`].
    ///
    /// Context: any.
    fn capable(&self, endpoint: &Self::Endpoint, capability: Capability) -> bool;

    /// What user space learns about the unit (`hw_info`).
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn hw_info(&self, endpoint: &Self::Endpoint) -> Result<HwInfo>;

    /// Adds the ranges that are reserved for the device (`get_resv_regions`).
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// The errors of [`ReservedRegions::add`]. The callback cannot return an error, so it logs
    /// them.
    fn reserved_regions(
        &self,
        endpoint: &Self::Endpoint,
        regions: &mut ReservedRegions<'_>,
    ) -> Result;

    /// The default domain that a device needs (`def_domain_type`).
    ///
    /// Context: may sleep; under `group->mutex`.
    fn default_domain(&self, endpoint: &Self::Endpoint) -> DefaultDomain;

    /// Makes a paging domain that the device can be attached to (`domain_alloc_paging_flags`).
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the unit of the device cannot do what `flags` ask for; `ENOMEM`.
    fn alloc_paging(
        &self,
        endpoint: &Self::Endpoint,
        flags: AllocFlags,
    ) -> impl PinInit<Self::Domain, Error>;

    /// Lets the device reach memory by physical addresses (`attach_dev` and `set_dev_pasid` of the
    /// static identity domain; the latter only of a driver with [`PagingDomain::PASIDS`]).
    ///
    /// When this returns, the device's previous translation is gone from hardware and its caches.
    /// For the device itself ([`DeviceSlot::Rid`]) this must not fail once the device was probed,
    /// unless [`Self::default_domain`] never lets it have the identity.
    ///
    /// Context: may sleep; under the attach lock.
    ///
    /// # Errors
    ///
    /// `EIO` or `ETIMEDOUT` if the unit does not confirm: it may still use what the device had, so
    /// those tables and ids are never freed. With any other error the device keeps what it had.
    fn attach_identity(&self, endpoint: &Arc<Self::Endpoint>, slot: DeviceSlot) -> Result;

    /// Lets the device reach nothing (`attach_dev` and `set_dev_pasid` of the static blocked
    /// domain). It is the fallback of a failed attach: the core never gets an error.
    ///
    /// The core detaches a PASID by this, with [`DeviceSlot::Pasid`]; the PASID need not be
    /// attached. Requests without PASID and those with another PASID continue as before. While the
    /// device itself is blocked, requests with its PASIDs continue.
    ///
    /// When this succeeds, the device's previous translation is gone from hardware and its caches.
    ///
    /// Context: may sleep; under the attach lock.
    ///
    /// # Errors
    ///
    /// `EIO` or `ETIMEDOUT` if the unit does not confirm: it may still use what the device had, so
    /// those tables and ids are never freed.
    fn attach_blocked(&self, endpoint: &Arc<Self::Endpoint>, slot: DeviceSlot) -> Result;

    /// Writes the name of the device, for the files in debugfs.
    ///
    /// Context: may sleep; takes none of the locks above.
    fn show_endpoint(endpoint: &Self::Endpoint, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// Writes how its unit treats the device, for the files in debugfs: a line for each of the
    /// entries that decide, with its words.
    ///
    /// Context: may sleep; takes none of the locks above.
    fn show_entries(endpoint: &Self::Endpoint, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// Takes back what devices have beside a translation, such as interrupts that are remapped: the
    /// driver is about to give them all up. No device is claimed, and none is let in.
    ///
    /// Context: may sleep; no locks.
    ///
    /// # Errors
    ///
    /// `EBUSY` if a device uses it; all is as before then, and the log names the device.
    fn withdraw(&self) -> Result {
        Ok(())
    }

    /// Puts hardware back into the state in which the driver found it. Called once, after the last
    /// device was released and all units were unregistered.
    ///
    /// Context: may sleep; no locks.
    fn shutdown(&self);
}

/// A paging domain: a page table, and the flushes that its changes need in the caches of units.
pub trait PagingDomain: Sized + Send + Sync + 'static {
    /// The driver.
    type Driver: Driver<Domain = Self>;

    /// What hardware holds for one device in this domain: a domain id, a place in a table. Dropping
    /// it releases these. It is dropped after hardware has forgotten them, and never if a unit does
    /// not confirm that.
    type Attachment: Send + Sync + 'static;

    /// What a flush addresses: a unit and a domain id, or a device's own cache. Attachments with
    /// equal tags are flushed once.
    type Tag: Clone + PartialEq + Send + Sync + 'static;

    /// The page tables of the domain. The provided methods pass calls on to them.
    type Tables: Tables;

    /// Whether a domain can be attached to a PASID of a device (`set_dev_pasid`).
    ///
    /// Without it the core finds no such callback and refuses; the slot is [`DeviceSlot::Rid`] in
    /// all methods then. With it, a PASID is attached by the same three steps as the device itself,
    /// whatever the device itself is attached to:
    ///
    /// | `iommu.h` | steps |
    /// | --- | --- |
    /// | `iommu_attach_device_pasid()` | [`prepare`](Self::prepare), [`install`](Self::install) |
    /// | `iommu_replace_device_pasid()` | the same, on a PASID that has another domain |
    /// | `iommu_detach_device_pasid()` | [`Driver::attach_blocked`] |
    /// | reset of the device | `attach_blocked`, and the same domain again |
    ///
    /// The core checks the PASID against the limits of the device and of the unit, and never asks
    /// for PASID 0. A domain may be attached to several PASIDs of a device.
    const PASIDS: bool = false;

    /// The page tables.
    fn tables(&self) -> &Self::Tables;

    /// How large leaves are split while dirty pages are tracked. Anything but [`Splits::Off`] is
    /// for tables that [can split](Tables::can_split).
    fn splits(&self) -> Splits {
        Splits::Off
    }

    /// Does the part of attaching a device that can fail. Changes nothing that hardware acts on.
    ///
    /// `tracking` tells whether the domain tracks dirty pages now: the entry has to match. The
    /// caller has checked that the device can track if the domain was allocated for that.
    ///
    /// Context: may sleep; under the attach lock.
    ///
    /// # Errors
    ///
    /// `EINVAL`, and no other error, if the domain does not suit the device or what other slots of
    /// the device have: the caller tries another domain. `ENOMEM`, `ENOSPC`. `EIO` if the unit does
    /// not answer any more.
    fn prepare(
        &self,
        endpoint: &Arc<<Self::Driver as Driver>::Endpoint>,
        slot: DeviceSlot,
        tracking: bool,
    ) -> Result<Self::Attachment>;

    /// The tags that have to be flushed because of an attachment, IOTLB before device TLB.
    ///
    /// Context: may sleep; under the attach lock.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn tags(&self, attachment: &Self::Attachment) -> Result<KVec<Self::Tag>>;

    /// Points hardware to the domain, in place of what the device had.
    ///
    /// Each flush of the domain includes the attachment's tags from before this call on. When this
    /// succeeds, the previous translation is gone from hardware and its caches.
    ///
    /// Context: may sleep; under the attach lock.
    ///
    /// # Errors
    ///
    /// `EIO` or `ETIMEDOUT`, and no other error, if the unit does not confirm: it may use this
    /// domain and what the device had. The tables and ids of both are never freed then.
    fn install(
        &self,
        endpoint: &Arc<<Self::Driver as Driver>::Endpoint>,
        slot: DeviceSlot,
        attachment: &Self::Attachment,
        tracking: bool,
    ) -> Result;

    /// Switches dirty tracking of one attachment (`set_dirty_tracking`), and flushes what the
    /// specification asks for. Must accept the state that the attachment already has.
    ///
    /// Context: may sleep; under the attach lock.
    ///
    /// # Errors
    ///
    /// An error fails the whole call. The caller then restores all attachments, this one included.
    fn set_tracking(
        &self,
        endpoint: &Arc<<Self::Driver as Driver>::Endpoint>,
        slot: DeviceSlot,
        attachment: &Self::Attachment,
        on: bool,
    ) -> Result;

    /// Maps the claimed range (`map_pages`): [`PageTable::map`](super::pt::PageTable::map).
    ///
    /// Returns the number of bytes that were mapped, also with an error. The caller flushes what is
    /// left in `gather`.
    ///
    /// Context: may sleep if `gfp` does, otherwise any.
    ///
    /// # Errors
    ///
    /// The errors of the page table.
    fn map(
        &self,
        claim: &mut Exclusive,
        phys: PhysAddr,
        prot: Prot,
        gfp: Gfp,
        gather: &mut IotlbGather<'_>,
    ) -> (u64, Result) {
        self.tables().map(claim, phys, prot, gfp, gather)
    }

    /// Unmaps the claimed range (`unmap_pages`) and returns the number of bytes that were unmapped.
    /// Does not fail, allocate or flush: the range and the detached tables go to `gather`.
    ///
    /// Context: any.
    fn unmap(&self, claim: &mut Exclusive, gather: &mut IotlbGather<'_>) -> u64 {
        self.tables().unmap(claim, gather)
    }

    /// Makes hardware forget translations (`iotlb_sync`, `flush_iotlb_all`), everywhere: see
    /// [`Tags::flush_each`]. Tables that were unmapped are freed if this succeeds. Otherwise
    /// they are leaked, and a domain that tracks dirty pages reports all of the range that is
    /// writable until a flush of it succeeds.
    ///
    /// Context: any; waits for a limited time.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` or `EIO` if a unit did not confirm.
    fn sync(&self, flush: Flush, tags: &Tags<Self::Tag>) -> Result;

    /// Makes hardware see what was mapped (`iotlb_sync_map`): for units that cache the absence of
    /// a translation, or buffer writes.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// The core unmaps the range again.
    fn sync_map(&self, range: Range, tags: &Tags<Self::Tag>) -> Result {
        let _ = (range, tags);
        Ok(())
    }

    /// Makes accesses of devices snoop even if they ask not to, from now on and for all mappings
    /// (`enforce_cache_coherency`). Returns whether they snoop now.
    ///
    /// Context: may sleep; under the attach lock.
    fn enforce_cache_coherency(&self) -> bool {
        false
    }

    /// Records the dirty pages of the range of `walk`, and makes them clean if `clear`
    /// (`read_and_clear_dirty`):
    /// [`PageTable::read_and_clear_dirty`](super::pt::PageTable::read_and_clear_dirty).
    ///
    /// Never flushes: the caller does, from what `dirty` gathers.
    ///
    /// Context: may sleep; no locks, so it runs concurrently with attach, with
    /// [`Self::set_tracking`], and with maps and unmaps of the same range.
    ///
    /// # Errors
    ///
    /// The core ignores them: report too much rather than nothing.
    fn read_and_clear_dirty(
        &self,
        walk: &KernelWalk<'_>,
        clear: bool,
        dirty: &mut DirtyBitmap<'_>,
    ) -> Result {
        self.tables().read_and_clear_dirty(walk, clear, dirty)
    }

    /// As [`Self::read_and_clear_dirty`], clearing; and splits the leaves that are dirty:
    /// [`PageTable::read_and_split_dirty`](super::pt::PageTable::read_and_split_dirty). For tables
    /// whose leaves may be split. Where there is no free memory, the leaves stay.
    ///
    /// Context: as for [`Self::read_and_clear_dirty`].
    ///
    /// # Errors
    ///
    /// As for [`Self::read_and_clear_dirty`].
    fn read_and_split_dirty(&self, walk: &KernelWalk<'_>, dirty: &mut DirtyBitmap<'_>) -> Result {
        self.tables()
            .read_and_split_dirty(walk, Gfp::spare(), dirty)
    }

    /// Records all of the range of `walk` that is mapped and writable, and changes nothing:
    /// [`PageTable::report_writable`](super::pt::PageTable::report_writable).
    ///
    /// A query calls this for a range whose flush has failed: hardware may write there without
    /// setting a dirty bit.
    ///
    /// Context: as for [`Self::read_and_clear_dirty`].
    ///
    /// # Errors
    ///
    /// As for [`Self::read_and_clear_dirty`].
    fn report_writable(&self, walk: &KernelWalk<'_>, dirty: &mut DirtyBitmap<'_>) -> Result {
        self.tables().report_writable(walk, dirty)
    }
}

/// The endpoint type that belongs to a domain type.
pub(super) type EndpointOf<P> = <<P as PagingDomain>::Driver as Driver>::Endpoint;
