// SPDX-License-Identifier: GPL-2.0

//! Paging domains, as the IOMMU core and as a driver see them.
//!
//! `Domain` is the object behind a `struct iommu_domain`: the C structure at its start, the
//! attachments of the domain, and the driver's own [`PagingDomain`].

use kernel::{
    bindings,
    error::code::*,
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        atomic::{
            AtomicFlag,
            Relaxed, //
        },
        SetOnce, //
    },
    types::Opaque, //
};

use super::{
    attach::Attachments,
    counters::DomainCounters,
    ffi,
    files::{
        Directory,
        Files, //
    },
    gather::IotlbGather,
    hw::pages::{
        KernelTables,
        KernelWalk, //
    },
    ops::PagingDomain,
    pt::{
        Range,
        Walks, //
    },
    tables::Tables,
    trace,
    values::{
        AllocFlags,
        Flush, //
    }, //
};

mod locks;
mod reshape;
pub(super) mod unflushed;
mod view;

use locks::Reshaping;
use unflushed::Unflushed;

/// The tables of callbacks that C calls for a kind of paging domains.
pub(super) struct DomainCallbacks {
    pub(super) ops: &'static bindings::iommu_domain_ops,
    /// What the core uses instead of `map_pages` and `unmap_pages`.
    pub(super) ranges: &'static bindings::pt_iommu_ops,
    /// For domains that track dirty pages.
    pub(super) dirty: &'static bindings::iommu_dirty_ops,
}

/// The part of a domain that is the same for all drivers: what [`free`] needs.
#[repr(C)]
struct Head {
    raw: Opaque<bindings::pt_iommu>,
    /// Drops the domain that this is the head of.
    end: unsafe fn(*mut bindings::iommu_domain),
    /// The module with the code of the domain, null if it is built in.
    module: *mut bindings::module,
}

/// A paging domain.
///
/// # Invariants
///
/// - `raw` is initialised: paging type, callbacks for this type, the geometry of `data`.
///   It is a `struct pt_iommu`, without the rest of `generic_pt`: the core passes whole ranges to
///   such domains, and splits ranges by page size for others.
/// - It is pinned in a [`KBox`]. The core owns the box from [`Self::into_raw`] on, until it frees
///   it.
/// - It holds a reference to the module from [`Self::into_raw`] on, until [`free`] puts it.
#[pin_data]
#[repr(C)]
pub(super) struct Domain<P: PagingDomain> {
    head: Head,
    /// The files that show the domain. Dropped before the rest.
    files: SetOnce<Files>,
    /// The counters of the domain.
    pub(super) counters: DomainCounters,
    /// The number of the domain in events and files.
    pub(super) number: u64,
    /// The attachments of the domain.
    pub(super) attachments: Attachments<P>,
    /// The flags that it was allocated with.
    pub(super) flags: AllocFlags,
    /// The harvests that run, and the tables that wait for them.
    pub(super) walks: Walks<KernelTables>,
    /// The ranges that hardware may write without a dirty bit, because a flush has failed.
    #[pin]
    pub(super) unflushed: Unflushed,
    /// The locks under which leaves change their size.
    #[pin]
    reshaping: Reshaping,
    /// Whether a failed flush was reported.
    complained: AtomicFlag,
    /// The driver's part.
    #[pin]
    pub(super) data: P,
}

// SAFETY: The driver's part is `Send` and `Sync`; the C part is handled by the core.
unsafe impl<P: PagingDomain> Send for Domain<P> {}
// SAFETY: As above.
unsafe impl<P: PagingDomain> Sync for Domain<P> {}

impl<P: PagingDomain> Domain<P> {
    /// Makes a domain.
    ///
    /// # Safety
    ///
    /// All `callbacks` are for a live domain of type `P`.
    ///
    /// # Errors
    ///
    /// The errors of `data`, `ENOMEM`, `EINVAL` for an impossible geometry.
    pub(super) unsafe fn new(
        data: impl PinInit<P, Error>,
        flags: AllocFlags,
        callbacks: DomainCallbacks,
    ) -> Result<Pin<KBox<Self>>> {
        let head = Head {
            raw: Opaque::zeroed(),
            end: Self::end,
            module: core::ptr::null_mut(),
        };
        let number = trace::next_domain();
        let attachments = Attachments::new(number)?;
        let domain = KBox::try_pin_init(
            try_pin_init!(Self {
                head,
                files: SetOnce::new(),
                counters: DomainCounters::default(),
                number,
                attachments,
                flags,
                walks: Walks::new(KernelTables::new(None)),
                unflushed <- Unflushed::new(),
                reshaping <- Reshaping::new(),
                complained: AtomicFlag::new(false),
                data <- data,
            }),
            GFP_KERNEL,
        )?;

        let geometry = domain.data.tables().geometry();
        // The core assumes that there is a lowest bit, and that CPU pages can be mapped.
        if geometry.page_sizes.trailing_zeros() as usize > PAGE_SHIFT {
            return Err(EINVAL);
        }
        let iommu = domain.head.raw.get();
        // SAFETY: The C part is valid: the box has it.
        let raw = unsafe { &raw mut (*iommu).domain };
        let range = Range::inclusive(geometry.first, geometry.last)?;
        // SAFETY: The domain is not shared yet, and `raw` is its initialised C part.
        unsafe {
            (*raw).type_ = bindings::IOMMU_DOMAIN_UNMANAGED;
            (*raw).ops = callbacks.ops;
            (*raw).is_iommupt = true;
            (*iommu).ops = callbacks.ranges;
            if flags.dirty_tracking {
                (*raw).dirty_ops = callbacks.dirty;
            }
            (*raw).pgsize_bitmap = geometry.page_sizes.try_into()?;
            (*raw).geometry.aperture_start = ffi::to_dma(range.first())?;
            (*raw).geometry.aperture_end = ffi::to_dma(range.last())?;
            (*raw).geometry.force_aperture = true;
        }
        Ok(domain)
    }

    /// Hands the domain to the core, with a reference to the module of its driver.
    ///
    /// # Safety
    ///
    /// `module` is that of the driver, or null if it is built in. It is not unloaded during the
    /// call.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the module is being unloaded.
    pub(super) unsafe fn into_raw(
        domain: Pin<KBox<Self>>,
        module: *mut bindings::module,
        directory: Option<&Directory>,
    ) -> Result<*mut bindings::iommu_domain> {
        // SAFETY: `module` is null, which the function allows, or a module that is not unloaded
        // during the call (contract).
        if !unsafe { bindings::try_module_get(module) } {
            return Err(ENODEV);
        }
        // SAFETY: The core does not move domains, and `from_raw()` treats it as pinned.
        let domain = KBox::into_raw(unsafe { Pin::into_inner_unchecked(domain) });
        // SAFETY: Only this function has the domain, and this field is not pinned.
        unsafe { (*domain).head.module = module };
        if let Some(directory) = directory {
            // SAFETY: The box is there until `end()`.
            let domain = unsafe { &*domain };
            // SAFETY: It stays in its box, and `end()` drops the files before anything else.
            domain
                .files
                .populate(unsafe { domain.files_in(&directory.domains) });
        }
        Ok(domain.cast())
    }

    /// Borrows the domain behind a pointer of the core.
    ///
    /// # Safety
    ///
    /// `raw` points to the start of a `Domain<P>`, as [`Self::into_raw`] returns it, which is not
    /// freed during `'a`.
    #[inline]
    pub(super) unsafe fn from_raw<'a>(raw: *mut bindings::iommu_domain) -> &'a Self {
        const_assert!(core::mem::offset_of!(Self, head) == 0);
        const_assert!(core::mem::offset_of!(Head, raw) == 0);
        const_assert!(core::mem::offset_of!(bindings::pt_iommu, domain) == 0);
        // SAFETY: `raw` points to a `Domain<P>` that is not freed during `'a` (contract).
        unsafe { &*raw.cast::<Self>() }
    }

    /// Takes a domain back from the core and drops it, unless hardware may still use it.
    ///
    /// # Safety
    ///
    /// `raw` came from [`Self::into_raw`] for the same `P`; it is not used any more, except for the
    /// module in its head.
    unsafe fn end(raw: *mut bindings::iommu_domain) {
        // SAFETY: `raw` is a pinned box of this type that `into_raw()` gave away, and nothing uses
        // it any more (contract).
        let mut domain = unsafe { Pin::new_unchecked(KBox::from_raw(raw.cast::<Self>())) };
        // Now, though it may be leaked: the code that they run is the module's. Waits for readers.
        *domain.as_mut().project().files = SetOnce::new();
        if domain.attachments.is_lost() {
            pr_err!(
                "iommu: a unit that does not answer may use a domain: its tables are leaked \
                 rather than reused\n"
            );
        } else if !domain.attachments.is_empty() {
            pr_err!("iommu: a domain is freed while devices are attached to it: it is leaked\n");
        } else {
            // Each attachment left the list after hardware had forgotten it (`Confirms`, 1).
            return;
        }
        core::mem::forget(domain);
    }

    /// Begins a harvest of `range`. It does not wait for maps and unmaps of the same range, and
    /// they do not wait for it.
    ///
    /// `None` for a domain of the DMA API, or if there are too many harvests at the same time.
    ///
    /// Context: any.
    pub(super) fn walk(&self, range: Range) -> Option<KernelWalk<'_>> {
        if self.is_dma_api() {
            return None;
        }
        // SAFETY: The driver keeps page tables in `data`, and puts those that it detaches into the
        // gather that it is given (`Confirms`, 3 and 4). Each gather ends in `Self::sync()`, which
        // asks `walks`: a map calls that in its callback, and for an unmap `iotlb_sync` does. Only
        // for the DMA API the core keeps the tables in a queue and frees them itself.
        unsafe { self.walks.enter(range, &self.data) }
    }

    /// Makes hardware forget translations, and records the range if that fails.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// The errors of [`PagingDomain::sync`]: hardware may continue to use the translations, and the
    /// tables that led to them. The first failure is logged.
    pub(super) fn flush(&self, flush: Flush) -> Result {
        let sync = || self.data.sync(flush, self.attachments.tags());
        let result = if self.flags.dirty_tracking {
            self.unflushed.watch(flush, sync)
        } else {
            sync()
        };
        self.counters.flushes.add(1);
        let Err(error) = result else {
            return result;
        };
        self.counters.failed_flushes.add(1);
        if !self.complained.load(Relaxed) {
            self.complained.store(true, Relaxed);
            pr_err!(
                "iommu: a flush failed ({error:?}): no table page that hardware may still use is \
                 freed, and all writable pages of the range are reported as dirty until one \
                 succeeds\n"
            );
        }
        result
    }

    /// Makes hardware forget what was gathered, and frees the tables that were unlinked.
    ///
    /// Context: any.
    ///
    /// # Safety
    ///
    /// Since it was initialised or empty, only maps, unmaps and harvests of this domain have added
    /// to `gather`. Only maps and unmaps add tables.
    ///
    /// # Errors
    ///
    /// The errors of [`Self::flush`]; the tables are leaked.
    #[inline]
    pub(super) unsafe fn sync(&self, gather: &mut IotlbGather<'_>) -> Result {
        let flushed = self.flush(gather.flush().unwrap_or(Flush::All));
        // SAFETY: The tables in `gather` were detached from this domain (contract), whose walks
        // `walks` counts. The range of each table was added before it, so the flush covered all of
        // them. The driver returns `Ok` only if hardware has forgotten them (`Confirms`, 2).
        unsafe { gather.free_tables(flushed, &self.walks) };
        flushed
    }

    /// Whether the DMA API uses the domain, as a device's default; otherwise a user of the core
    /// owns it.
    pub(super) fn is_dma_api(&self) -> bool {
        // SAFETY: The C part is initialised; the core settles its type before the first attach.
        unsafe { (*self.head.raw.get()).domain.type_ & bindings::__IOMMU_DOMAIN_DMA_API != 0 }
    }
}

/// `free` of `struct iommu_domain_ops`: the end of a domain that is attached nowhere.
///
/// The reference to the driver's module may be the last, and the module may be unloaded as soon as
/// it is put. So this must not be code of the module: it is neither generic nor inlined, and is
/// compiled into this crate, which cannot be unloaded.
///
/// # Safety
///
/// `raw` came from [`Domain::into_raw`], and is not used any more.
#[inline(never)]
pub(super) unsafe extern "C" fn free(raw: *mut bindings::iommu_domain) {
    let head = raw.cast::<Head>();
    // SAFETY: `raw` came from `into_raw()` (contract): it points to a domain, which begins with its
    // head.
    let (end, module) = unsafe { ((*head).end, (*head).module) };
    // SAFETY: `raw` came from `into_raw()`, and nothing uses it any more (contract). `new()` took
    // the `end()` of the same type.
    unsafe { end(raw) };
    // SAFETY: `into_raw()` took the reference, and nothing of the module runs for the domain now.
    unsafe { bindings::module_put(module) };
}
