// SPDX-License-Identifier: GPL-2.0

//! Interrupt domains above an interrupt remapping table (`struct irq_domain`).
//!
//! C header: [`include/linux/irqdomain.h`](srctree/include/linux/irqdomain.h)
//!
//! The operations of the domains are C, in `rust/helpers/iommu_irq.c`, because the interrupt core
//! may look at them after the driver is unloaded. They call a [`Table`].

use core::{
    ops::Deref,
    ptr::NonNull, //
};

use kernel::{
    bindings,
    device::Device,
    error::from_result,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    str::CStr,
    sync::Arc, //
};

/// Where an interrupt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The vector of the CPU.
    pub vector: u8,
    /// The local APIC, or several: as `logical` says.
    pub destination: u32,
    /// Whether `destination` is a logical one, which can name several.
    pub logical: bool,
}

/// An interrupt remapping table: entries with an index, of which each is free or belongs to one
/// interrupt.
pub trait Table: Send + Sync + 'static {
    /// Finds `count` free entries in a row and returns the first. If `aligned`, that is a multiple
    /// of `count`, which is rounded up to a power of two. They send nothing yet.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there are no such entries.
    fn allocate(&self, count: u32, aligned: bool) -> Result<u32>;

    /// Frees an entry, which sends nothing.
    ///
    /// Context: may sleep.
    fn free(&self, index: u32);

    /// Lets an entry send to `target`. When this returns, the unit has forgotten what the entry was
    /// before.
    ///
    /// Context: any; under raw spinlocks.
    ///
    /// # Errors
    ///
    /// If the unit does not answer, or the entry cannot name `target`.
    fn set(&self, index: u32, target: Target) -> Result;

    /// Lets an entry send nothing. When this returns, the unit has forgotten what it was before.
    ///
    /// Context: any; under raw spinlocks.
    ///
    /// # Errors
    ///
    /// If the unit does not answer.
    fn clear(&self, index: u32) -> Result;
}

/// An interrupt domain for the devices that share a table.
///
/// It must not be dropped while a device has it ([`Self::give_to`]): a device that has it is to
/// keep a reference.
///
/// # Invariants
///
/// `raw` is a domain of `rust_irq_new_parent()` for `table`, and was not removed.
pub struct Parent<T: Table> {
    raw: NonNull<bindings::irq_domain>,
    table: Arc<T>,
}

// SAFETY: The interrupt core guards its domains by its own locks, and `T` is `Send` and `Sync`.
unsafe impl<T: Table> Send for Parent<T> {}
// SAFETY: As above.
unsafe impl<T: Table> Sync for Parent<T> {}

/// Whether MSIs of devices can be remapped: they come from the vector domain, and an entry whose
/// destination is at most `last_destination` can name each CPU that is used.
// Not inlined into modules: the C function looks at what is not exported.
#[inline(never)]
pub fn can_remap(last_destination: u32) -> bool {
    // SAFETY: Only reads what the kernel has found out at boot.
    unsafe { bindings::rust_irq_can_remap(last_destination) }
}

impl<T: Table> Parent<T> {
    const OPS: bindings::rust_irq_table_ops = bindings::rust_irq_table_ops {
        allocate: Some(Self::allocate_callback),
        free: Some(Self::free_callback),
        set: Some(Self::set_callback),
        clear: Some(Self::clear_callback),
    };

    /// A domain whose interrupts are entries of `table`. `name` shows in debugfs.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`. No interrupt can be had from it where none [can be remapped](can_remap).
    pub fn new(name: &CStr, table: Arc<T>) -> Result<Self> {
        let ops: &'static bindings::rust_irq_table_ops = &Self::OPS;
        let raw = new_parent(name, Arc::as_ptr(&table).cast_mut().cast(), ops);
        // INVARIANT: A new domain for `table`.
        Ok(Self {
            raw: raw.ok_or(ENOMEM)?,
            table,
        })
    }

    /// Makes this domain the parent of the next MSIs of `dev`.
    ///
    /// Context: any.
    ///
    /// # Safety
    ///
    /// The device has no MSIs, and gets none during the call. Before this domain is dropped,
    /// [`give_vectors_to`] gives the device the vector domain, or the device is gone. Each device
    /// that is found below it goes through [`disinherit`].
    pub unsafe fn give_to(&self, dev: &Device) {
        set_parent(dev, self.raw.as_ptr());
    }

    /// # Safety
    ///
    /// `table` points to a `T` that lives during the call.
    unsafe extern "C" fn allocate_callback(table: *mut c_void, count: u32, aligned: bool) -> c_int {
        // SAFETY: `table` points to a `T` that lives during the call (contract).
        let table = unsafe { &*table.cast::<T>() };
        from_result(|| {
            let index = table.allocate(count, aligned)?;
            Ok(c_int::try_from(index)?)
        })
    }

    /// # Safety
    ///
    /// As for [`Self::allocate_callback`].
    unsafe extern "C" fn free_callback(table: *mut c_void, index: u32) {
        // SAFETY: `table` points to a `T` that lives during the call (contract).
        let table = unsafe { &*table.cast::<T>() };
        table.free(index);
    }

    /// # Safety
    ///
    /// As for [`Self::allocate_callback`].
    unsafe extern "C" fn set_callback(
        table: *mut c_void,
        index: u32,
        vector: u32,
        destination: u32,
        logical: bool,
    ) -> c_int {
        // SAFETY: `table` points to a `T` that lives during the call (contract).
        let table = unsafe { &*table.cast::<T>() };
        from_result(|| {
            let target = Target {
                vector: vector.try_into()?,
                destination,
                logical,
            };
            table.set(index, target).map(|()| 0)
        })
    }

    /// # Safety
    ///
    /// As for [`Self::allocate_callback`].
    unsafe extern "C" fn clear_callback(table: *mut c_void, index: u32) -> c_int {
        // SAFETY: `table` points to a `T` that lives during the call (contract).
        let table = unsafe { &*table.cast::<T>() };
        from_result(|| table.clear(index).map(|()| 0))
    }
}

impl<T: Table> Deref for Parent<T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        &self.table
    }
}

impl<T: Table> Drop for Parent<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants it was not removed. No device has it, as each that does
        // keeps a reference (contract of `give_to()`), so it has no interrupts.
        unsafe { remove_parent(self.raw) };
    }
}

/// Makes a domain for `table`.
// Not inlined into modules: these C functions use what is not exported.
#[inline(never)]
fn new_parent(
    name: &CStr,
    table: *mut c_void,
    ops: &'static bindings::rust_irq_table_ops,
) -> Option<NonNull<bindings::irq_domain>> {
    // SAFETY: The name is a string, which is copied; `table` is not followed before there are
    // interrupts, and then by `ops`, which lives for ever.
    NonNull::new(unsafe { bindings::rust_irq_new_parent(name.as_char_ptr(), table, ops) })
}

/// Removes a domain.
///
/// # Safety
///
/// `raw` came from [`new_parent`] and was not removed. No device has it, and it has no interrupts.
#[inline(never)]
unsafe fn remove_parent(raw: NonNull<bindings::irq_domain>) {
    // SAFETY: `raw` is such a domain that nothing uses any more (contract).
    unsafe { bindings::rust_irq_remove_parent(raw.as_ptr()) }
}

/// Gives a domain to a device, or the vector domain if `raw` is null.
#[inline(never)]
fn set_parent(dev: &Device, raw: *mut bindings::irq_domain) {
    // SAFETY: The device is valid. The pointer is followed when it gets MSIs, which the contracts
    // of the callers are about, and so are the buses below it.
    unsafe { bindings::rust_irq_set_parent(dev.as_raw(), raw) }
}

/// Makes the vector domain the parent of the next MSIs of `dev`, and of those of the buses below
/// it.
///
/// Context: may sleep.
///
/// # Safety
///
/// The device has no MSIs, and gets none during the call. No PCI bus below it is made or removed
/// meanwhile.
pub(super) unsafe fn give_vectors_to(dev: &Device) {
    set_parent(dev, core::ptr::null_mut());
}

/// Takes from `dev`, and from the PCI bus that it is on, the domain of a bridge above, which the
/// PCI core has them inherit. Nothing happens to a device that has MSIs.
///
/// Context: any; where `dev` was just found.
// Not inlined into modules: the C function uses what is not exported.
#[inline(never)]
pub(super) fn disinherit(dev: &Device) {
    // SAFETY: The device is valid, and so is its domain: no device and no bus has one that was
    // removed (contract of `Parent::give_to()`).
    unsafe { bindings::rust_irq_disinherit(dev.as_raw()) }
}
