// SPDX-License-Identifier: GPL-2.0

//! The calls into C, each behind a function that is neither generic nor inlined.
//!
//! Generic code is compiled into the crate that uses it: a driver's module. A symbol that the
//! kernel does not export to modules, that sits in a symbol namespace, or that is a static inline
//! in some configurations must not be used there. These wrappers are compiled into this crate,
//! which exports them.

use core::ptr::NonNull;

use kernel::{
    bindings,
    device::Device,
    error::to_result,
    prelude::*,
    ThisModule, //
};

/// Widens a physical address of C, which has 32 or 64 bits.
#[allow(clippy::useless_conversion)]
#[inline]
pub(super) fn from_phys(phys: bindings::phys_addr_t) -> u64 {
    u64::from(phys)
}

/// Widens a DMA address of C, which has 32 or 64 bits.
#[allow(clippy::useless_conversion)]
#[inline]
pub(super) fn from_dma(addr: bindings::dma_addr_t) -> u64 {
    u64::from(addr)
}

/// Narrows an address to the physical addresses of C.
///
/// # Errors
///
/// `EOVERFLOW` if it does not fit.
#[allow(clippy::useless_conversion)]
#[inline]
pub(super) fn to_phys(addr: u64) -> Result<bindings::phys_addr_t> {
    addr.try_into().map_err(|_| EOVERFLOW)
}

/// Narrows an address to the DMA addresses of C.
///
/// # Errors
///
/// `EOVERFLOW` if it does not fit.
#[allow(clippy::useless_conversion)]
#[inline]
pub(super) fn to_dma(addr: u64) -> Result<bindings::dma_addr_t> {
    addr.try_into().map_err(|_| EOVERFLOW)
}

/// Allocates zeroed table pages of at least `size` bytes, aligned to the power of two that holds
/// them, near `node` if one is given.
///
/// Context: may sleep if `gfp` allows it.
#[inline(never)]
pub(super) fn alloc_pages(
    node: Option<u32>,
    gfp: bindings::gfp_t,
    size: usize,
) -> Option<NonNull<u8>> {
    let nid = node
        .and_then(|node| i32::try_from(node).ok())
        .unwrap_or(bindings::NUMA_NO_NODE);
    // SAFETY: The function takes any size and flags, and any node id that firmware or the core
    // gave to a device; it returns null where it cannot serve.
    NonNull::new(unsafe { bindings::iommu_alloc_pages_node_sz(nid, gfp, size) }.cast())
}

/// Frees what [`alloc_pages`] returned.
///
/// # Safety
///
/// `virt` came from [`alloc_pages`], was not freed since and is on no free list. Neither the CPU
/// nor a device uses the memory any more.
#[inline(never)]
pub(super) unsafe fn free_pages(virt: NonNull<u8>) {
    // SAFETY: `virt` came from `alloc_pages()`, is on no list, and nothing uses it any more
    // (contract).
    unsafe { bindings::iommu_free_pages(virt.as_ptr().cast()) }
}

/// Puts an allocation of [`alloc_pages`] on a free list.
///
/// # Safety
///
/// `list` is an initialised list that the caller has for itself; `virt` came from [`alloc_pages`],
/// is on no list, and from now on belongs to `list`.
#[inline(never)]
pub(super) unsafe fn pages_list_add(list: *mut bindings::iommu_pages_list, virt: NonNull<u8>) {
    // SAFETY: The caller has the initialised list for itself; `virt` came from `alloc_pages()` and
    // is on no list (contract).
    unsafe { bindings::iommu_pages_list_add(list, virt.as_ptr().cast()) }
}

/// Takes the first allocation off a free list, `None` if the list is empty.
///
/// # Safety
///
/// `list` is an initialised list that the caller has for itself.
#[inline(never)]
pub(super) unsafe fn pages_list_pop(list: *mut bindings::iommu_pages_list) -> Option<NonNull<u8>> {
    // SAFETY: The list is initialised, and the caller has it for itself (contract).
    NonNull::new(unsafe { bindings::iommu_pages_list_pop(list) }.cast())
}

/// Frees all pages of a free list. The list has to be initialised again before its next use.
///
/// # Safety
///
/// `list` is an initialised list that the caller has for itself. Neither the CPU nor a device uses
/// any of its pages any more: the flush and the walks are over.
#[inline(never)]
pub(super) unsafe fn put_pages_list(list: *mut bindings::iommu_pages_list) {
    // SAFETY: The caller has the initialised list for itself, and nothing uses its pages any more
    // (contract).
    unsafe { bindings::iommu_put_pages_list(list) }
}

/// Returns the physical address of memory in the kernel's linear map.
///
/// # Safety
///
/// `virt` points into the linear map.
#[inline(never)]
pub(super) unsafe fn virt_to_phys(virt: NonNull<u8>) -> u64 {
    // SAFETY: `virt` points into the linear map (contract).
    from_phys(unsafe { bindings::virt_to_phys(virt.as_ptr().cast()) })
}

/// Writes the cache lines that hold `len` bytes at `virt` back to memory.
///
/// # Safety
///
/// `virt` is valid for reads of `len` bytes.
#[cfg(CONFIG_X86)]
#[inline(never)]
pub(super) unsafe fn flush_cache(virt: *mut u8, len: u32) {
    // SAFETY: `virt` is valid for reads of `len` bytes (contract).
    unsafe { bindings::clflush_cache_range(virt.cast(), len) }
}

/// Marks `len` bytes from `iova` in the user's bitmap.
///
/// Context: may sleep, since it pins pages of the bitmap.
///
/// # Safety
///
/// `bitmap` is valid, and the caller has it for itself. It covers the `len` bytes from `iova`.
#[inline(never)]
pub(super) unsafe fn iova_bitmap_set(bitmap: *mut bindings::iova_bitmap, iova: usize, len: usize) {
    // SAFETY: `bitmap` is valid, covers the bytes, and the caller has it for itself (contract).
    unsafe { bindings::iova_bitmap_set(bitmap, iova, len) }
}

/// Whether the CPU can do [`store_pair`].
#[inline(never)]
pub(super) fn can_store_pair() -> bool {
    // SAFETY: Only asks for a feature of the CPU.
    unsafe { bindings::rust_iommu_can_store128() }
}

/// Writes two 64-bit words at once: no reader, hardware included, sees only one of them change.
///
/// # Safety
///
/// - [`can_store_pair`] has said yes.
/// - `virt` is valid for reads and writes of 16 bytes, aligned to as many, and only accessed as
///   atomic words.
#[inline(never)]
pub(super) unsafe fn store_pair(virt: *mut u64, values: [u64; 2]) {
    // SAFETY: The CPU can store pairs; `virt` is valid for 16 bytes and aligned to as many
    // (contract).
    unsafe { bindings::rust_iommu_store128(virt, values[0], values[1]) }
}

/// Vendor, family and model of the CPU, 0 on architectures without such a number.
#[inline(never)]
pub(super) fn processor() -> u32 {
    // SAFETY: Only reads what the kernel has found out at boot.
    unsafe { bindings::rust_iommu_processor() }
}

/// Whether memory that the kernel allocates is encrypted, and addresses for hardware need a bit
/// that says so (SME).
#[inline(never)]
pub(super) fn memory_is_encrypted() -> bool {
    // SAFETY: Only adds a bit to a number.
    unsafe { bindings::__sme_set(0) != 0 }
}

/// Whether a driver or a user has claimed the DMA of the device's group.
///
/// Context: may sleep; takes `group->mutex`.
#[inline(never)]
pub(super) fn is_claimed(dev: &Device) -> bool {
    // SAFETY: The device is valid; the result is null, or a group whose reference is put below.
    let group = unsafe { bindings::iommu_group_get(dev.as_raw()) };
    if group.is_null() {
        return false;
    }
    // SAFETY: This function holds a reference to the group.
    let claimed = unsafe { bindings::iommu_group_dma_owner_claimed(group) };
    // SAFETY: This function holds the reference, and does not use the group any more.
    unsafe { bindings::iommu_group_put(group) };
    claimed
}

/// Whether a driver is bound to the device: one that is binding or unbinding may count as either.
///
/// Context: any.
#[inline(never)]
pub(super) fn has_driver(dev: &Device) -> bool {
    // SAFETY: The device is valid.
    unsafe { bindings::rust_iommu_has_driver(dev.as_raw()) }
}

/// Counts the driver of the device in the device's group, as the kernel does when a driver binds.
/// Returns whether there is one that does DMA through the DMA API.
///
/// Context: may sleep; takes the lock of the device, then `group->mutex`.
///
/// # Errors
///
/// `EBUSY`: a user has claimed the group.
#[inline(never)]
pub(super) fn count_driver(dev: &Device) -> Result<bool> {
    // SAFETY: The device is valid. Under its lock, a device that has a driver has its group.
    match to_result(unsafe { bindings::rust_iommu_count_driver(dev.as_raw()) }) {
        Ok(()) => Ok(true),
        Err(ENODEV) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes back the count of the device's driver. Returns whether the device still has one; otherwise
/// the kernel has taken it back.
///
/// Context: as for [`count_driver`].
#[inline(never)]
pub(super) fn uncount_driver(dev: &Device) -> bool {
    // SAFETY: The device is valid. Under its lock, a device that has a driver has its group.
    unsafe { bindings::rust_iommu_uncount_driver(dev.as_raw()) }
}

/// Waits until no probe of a device uses the operations of an unregistered unit.
///
/// Context: may sleep; takes `iommu_probe_device_lock`.
#[inline(never)]
pub(super) fn wait_for_probes() {
    // SAFETY: Only takes the lock and releases it.
    unsafe { bindings::rust_iommu_wait_for_probes() }
}

/// Whether the current task has got a signal that ends it.
#[inline(never)]
pub(super) fn is_killed() -> bool {
    // SAFETY: Only reads the flags of the current task.
    unsafe { bindings::rust_iommu_is_killed() }
}

/// Whether another kernel is about to begin, without a reset of the machine.
#[inline(never)]
pub(super) fn is_kexec_in_progress() -> bool {
    // SAFETY: Only reads a variable, of one byte.
    unsafe { bindings::rust_iommu_is_kexec() }
}

/// Whether this kernel runs in place of one that has crashed, to collect its memory (kdump).
#[inline(never)]
pub(super) fn is_crash_kernel() -> bool {
    // SAFETY: Only reads what the kernel has found out at boot.
    unsafe { bindings::rust_iommu_is_crash_kernel() }
}

/// Whether only the loading itself holds a reference to a module that is being loaded.
///
/// Where modules cannot be unloaded, references are not counted, and this is false.
#[inline(never)]
pub(super) fn is_idle(module: &ThisModule) -> bool {
    // SAFETY: The module is null (built in) or valid.
    unsafe { bindings::rust_iommu_module_is_idle(module.as_ptr()) }
}

/// Returns the address in the linear map.
///
/// Every walk calls this. The linear map of x86-64 and of UML is one offset. It is set once, early
/// at boot, and exported to modules.
///
/// # Safety
///
/// `phys` came from [`virt_to_phys`].
#[cfg(any(CONFIG_X86_64, CONFIG_UML))]
#[inline(always)]
pub(super) unsafe fn phys_to_virt(phys: u64) -> NonNull<u8> {
    #[cfg(not(CONFIG_UML))]
    use bindings::page_offset_base as offset;
    #[cfg(CONFIG_UML)]
    use bindings::uml_physmem as offset;

    // SAFETY: A plain number that does not change after boot.
    let base = unsafe { offset };
    // CAST: Addresses have 64 bits here.
    let virt = core::ptr::with_exposed_provenance_mut(base.wrapping_add(phys as usize));
    // SAFETY: `phys` came from `virt_to_phys()` (contract), so the address is in the linear map and
    // not null.
    unsafe { NonNull::new_unchecked(virt) }
}

/// Returns the address in the linear map.
///
/// # Safety
///
/// `phys` came from [`virt_to_phys`].
#[cfg(not(any(CONFIG_X86_64, CONFIG_UML)))]
#[inline(never)]
pub(super) unsafe fn phys_to_virt(phys: u64) -> NonNull<u8> {
    // CAST: The address came from C, see `from_phys()`.
    // SAFETY: `phys` came from `virt_to_phys()` (contract), so the address is in the linear map and
    // not null.
    unsafe { NonNull::new_unchecked(bindings::phys_to_virt(phys as bindings::phys_addr_t).cast()) }
}
