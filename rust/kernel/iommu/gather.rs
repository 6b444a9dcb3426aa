// SPDX-License-Identifier: GPL-2.0

//! The IOTLB gather: what to flush, and what to free after that.

use core::{
    marker::{
        PhantomData,
        PhantomPinned, //
    },
    ptr::NonNull, //
};

use kernel::{
    bindings,
    prelude::*, //
};

use super::{
    ffi,
    hw::pages::KernelTables,
    pt::{
        DetachedTable,
        Gather,
        Range,
        Walks, //
    },
    values::Flush, //
};

/// A `struct iommu_iotlb_gather` of the core, or of a [`LocalGather`].
///
/// It holds one range: the hull of all that was added. Tables wait on its free list until the
/// flush.
///
/// # Invariants
///
/// `raw` points to an initialised gather that this object has for itself during `'a`.
pub struct IotlbGather<'a> {
    raw: NonNull<bindings::iommu_iotlb_gather>,
    lifetime: PhantomData<&'a mut bindings::iommu_iotlb_gather>,
}

impl<'a> IotlbGather<'a> {
    /// Borrows a gather of the core.
    ///
    /// # Safety
    ///
    /// `raw` points to an initialised gather, which the caller has for itself during `'a`.
    #[inline]
    pub unsafe fn from_raw(raw: NonNull<bindings::iommu_iotlb_gather>) -> Self {
        // INVARIANT: `raw` is initialised, and the caller has it for itself during `'a` (contract).
        Self {
            raw,
            lifetime: PhantomData,
        }
    }

    /// The gather as C knows it.
    #[inline]
    pub fn as_ptr(&self) -> *mut bindings::iommu_iotlb_gather {
        self.raw.as_ptr()
    }

    /// Adds a range.
    #[inline]
    pub fn add(&mut self, range: Range) {
        // CAST: Addresses of the IOMMU API are `unsigned long`; only those reach a page table.
        let (first, last) = (range.first() as usize, range.last() as usize);
        let raw = self.raw.as_ptr();
        // SAFETY: By the type invariants, only this object uses the gather, which is initialised.
        // No reference is made: pages that other code may read link to the list in the gather.
        unsafe {
            (*raw).start = (*raw).start.min(first);
            (*raw).end = (*raw).end.max(last);
        }
    }

    /// Adds a range, and has its flush include the copies that hardware has of links to tables.
    ///
    /// Adds leaves that have become tables, which are on no list. `pt.table_levels_bitmap` records
    /// that; the C page tables leave it 0 as long as the list is empty, and the core does not read
    /// it.
    #[inline]
    pub fn add_with_links(&mut self, range: Range) {
        self.add(range);
        // SAFETY: By the type invariants, only this object uses the gather, which is initialised.
        // Both fields of the union are numbers, for which any value is valid.
        unsafe { (*self.raw.as_ptr()).__bindgen_anon_1.pt.table_levels_bitmap = u8::MAX };
    }

    /// Whether copies of links have to go, or tables wait for the flush.
    #[inline]
    fn has_links(&self) -> bool {
        // SAFETY: As in `add_with_links()`.
        let levels = unsafe { (*self.raw.as_ptr()).__bindgen_anon_1.pt.table_levels_bitmap };
        levels != 0 || self.has_tables()
    }

    /// What has to be flushed, `None` if nothing was added.
    #[inline]
    pub fn flush(&self) -> Option<Flush> {
        let raw = self.raw.as_ptr();
        // SAFETY: By the type invariants, only this object uses the gather, which is initialised.
        let (start, end) = unsafe { ((*raw).start, (*raw).end) };
        // An untouched gather starts at the last address and ends at the first.
        // CAST: `unsigned long` has at most 64 bits.
        let range = Range::inclusive(start as u64, end as u64).ok()?;
        Some(Flush::Range {
            range,
            tables: self.has_links(),
        })
    }

    /// Whether tables wait for the flush.
    #[inline]
    pub fn has_tables(&self) -> bool {
        // SAFETY: By the type invariants the gather is initialised. An empty list points to itself.
        unsafe {
            let head = &raw const (*self.raw.as_ptr()).freelist.pages;
            !core::ptr::eq((*head).next, head)
        }
    }

    /// Whether the core flushes everything later instead (`iommu_iotlb_gather_queued()`).
    #[inline]
    pub fn is_queued(&self) -> bool {
        // SAFETY: By the type invariants, only this object uses the gather, which is initialised.
        unsafe { (*self.raw.as_ptr()).queued }
    }

    /// Frees the tables after a flush; `flushed` is the result of the flush.
    ///
    /// Hardware that has not confirmed may still walk the tables: they are leaked then. Harvests
    /// may be in the tables too: the tables wait until these end.
    ///
    /// # Safety
    ///
    /// - `walks` are those of the domain that the tables here were detached from.
    /// - If `flushed` is `Ok`, hardware has forgotten the tables since they were queued here.
    pub(super) unsafe fn free_tables(&mut self, flushed: Result, walks: &Walks<KernelTables>) {
        if !self.has_tables() {
            return;
        }
        // SAFETY: By the type invariants, only this object uses the gather, which is initialised.
        let list = unsafe { &raw mut (*self.raw.as_ptr()).freelist };
        if flushed.is_ok() && walks.is_idle() {
            // SAFETY: By the type invariants the list is initialised, and only this object uses it.
            // Hardware has forgotten the tables on it (contract). `walks` says that no walk is in
            // them.
            unsafe { ffi::put_pages_list(list) };
        } else if flushed.is_ok() {
            // SAFETY: By the type invariants the list is initialised, and only this object uses it.
            while let Some(table) = unsafe { ffi::pages_list_pop(list) } {
                // SAFETY: `queue_free()` put the table there, and it is on no list any more. It
                // came from `KernelTables`, all of which share the allocator. Hardware has
                // forgotten it, and `walks` counts the walks of its tree (contract).
                unsafe { walks.retire(DetachedTable::from_raw(table.cast())) };
            }
        }
        // SAFETY: Only this object uses the list, and its pages are freed, handed to `walks` or
        // leaked.
        unsafe { init_list(&raw mut (*list).pages) };
    }
}

impl Gather<KernelTables> for IotlbGather<'_> {
    #[inline]
    fn add_range(&mut self, range: Range) {
        self.add(range);
    }

    #[inline]
    fn queue_free(&mut self, table: DetachedTable<KernelTables>) {
        // SAFETY:
        // - By the type invariants, the list is initialised, and only this object uses it.
        // - `KernelTables` gets its tables from `ffi::alloc_pages()`; a detached one has no other
        //   owner and is on no list.
        unsafe {
            ffi::pages_list_add(
                &raw mut (*self.raw.as_ptr()).freelist,
                table.into_raw().cast(),
            );
        }
    }
}

/// Makes `head` the head of an empty list.
///
/// # Safety
///
/// `head` is valid for writes.
unsafe fn init_list(head: *mut bindings::list_head) {
    // SAFETY: `head` is valid for writes (contract).
    unsafe {
        (*head).next = head;
        (*head).prev = head;
    }
}

/// A gather on the stack.
///
/// For operations that get none from the core: mapping a large leaf over empty tables. Tables that
/// are left in it when it is dropped are leaked.
///
/// # Invariants
///
/// `raw` is initialised, and its free list points to itself: it must not move.
#[pin_data]
pub struct LocalGather {
    #[pin]
    raw: kernel::types::Opaque<bindings::iommu_iotlb_gather>,
    #[pin]
    pin: PhantomPinned,
}

impl LocalGather {
    /// An empty gather.
    #[inline]
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            raw <- kernel::types::Opaque::ffi_init(|raw: *mut bindings::iommu_iotlb_gather| {
                // SAFETY: `raw` is valid for writes; a gather of zeroes is valid except for its
                // start and its list.
                unsafe {
                    raw.write_bytes(0, 1);
                    (*raw).start = usize::MAX;
                    init_list(&raw mut (*raw).freelist.pages);
                }
            }),
            pin: PhantomPinned,
        })
    }

    /// Borrows it.
    #[inline]
    pub fn borrow(self: Pin<&mut Self>) -> IotlbGather<'_> {
        // SAFETY: The field is initialised and pinned, and borrowed mutably with `self`. The
        // pointer of an `Opaque` is never null.
        unsafe { IotlbGather::from_raw(NonNull::new_unchecked(self.raw.get())) }
    }
}
