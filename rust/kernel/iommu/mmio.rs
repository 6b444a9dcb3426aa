// SPDX-License-Identifier: GPL-2.0

//! Registers at a physical address.
//!
//! A remapping unit is no PCI function and no platform device: firmware names the physical address
//! of its registers and nothing else. [`PhysMem`] claims that range and maps it; a shared reference
//! to it is an I/O region like any other, so that registers of the `register!` macro are read and
//! written through it.

use kernel::{
    bindings,
    io::{
        IoBase,
        Mmio,
        MmioBackend,
        MmioRaw,
        PhysAddr,
        Region, //
    },
    prelude::*,
    str::CString, //
};

/// A claimed and mapped range of physical addresses, of at least `SIZE` bytes.
///
/// Registers below `SIZE` are checked when the driver is built, if they have no more than 32 bits:
/// [`Region`] promises the compiler no more alignment than that. Wider ones, and those that a unit
/// places by a capability field, are reached with the `try_` accessors, which check while running.
///
/// # Invariants
///
/// - The range `start`, `len` of I/O memory was requested under `name`, which lives as long as the
///   request does.
/// - `io` is the address of an `ioremap()` of that range.
/// - Address and length are multiples of 8, and the length is at least `SIZE`.
///
/// # Examples
///
/// ```no_run
/// use kernel::{
///     io::Io,
///     iommu::mmio::PhysMem,
///     str::CString, //
/// };
///
/// let regs = PhysMem::<0x100>::request(0xfed9_0000, 0x1000, CString::try_from(c"dmar0")?)?;
/// let version = regs.read32(0x0);
/// let capabilities = regs.try_read64(0x8)?;
/// let fault_record = regs.try_read64(0x220)?;
/// # let _ = (version, capabilities, fault_record);
/// # Ok::<(), Error>(())
/// ```
pub struct PhysMem<const SIZE: usize = 0> {
    io: MmioRaw<Region<SIZE>>,
    start: PhysAddr,
    len: usize,
    _name: CString,
}

/// A request for a range, given back when dropped.
struct Request {
    start: PhysAddr,
    len: usize,
}

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: The object exists only while the range is requested.
        // CAST: A size fits the type of resource sizes.
        unsafe { bindings::release_mem_region(self.start, self.len as bindings::resource_size_t) };
    }
}

impl<const SIZE: usize> PhysMem<SIZE> {
    /// Claims and maps `len` bytes at `start`. `name` shows in `/proc/iomem`.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// - `EBUSY` if another driver has claimed a part of the range.
    /// - `EINVAL` if `len` is zero, less than `SIZE`, or leads past the end of the address space,
    ///   or if `start` or `len` is not a multiple of 8.
    /// - `ENOMEM` if the range cannot be mapped.
    pub fn request(start: PhysAddr, len: usize, name: CString) -> Result<Self> {
        // CAST: A size fits the type of physical addresses.
        let bytes = len as PhysAddr;
        if len == 0
            || len < SIZE
            || !(start | bytes).is_multiple_of(8)
            || start.checked_add(bytes).is_none()
        {
            return Err(EINVAL);
        }

        // SAFETY: `name` is kept until the range is released: by `PhysMem`, or by this function in
        // which it outlives `request`.
        let claimed = unsafe {
            bindings::request_mem_region(
                start,
                // CAST: A size fits the type of resource sizes.
                len as bindings::resource_size_t,
                name.as_char_ptr(),
            )
        };
        if claimed.is_null() {
            return Err(EBUSY);
        }
        let request = Request { start, len };

        // SAFETY: The range is not empty and is ours.
        let addr = unsafe { bindings::ioremap(start, len) };
        if addr.is_null() {
            return Err(ENOMEM);
        }
        match MmioRaw::new_region(addr as usize, len) {
            Ok(io) => {
                // The range is released by `PhysMem` from here on.
                core::mem::forget(request);
                // INVARIANT: Requested and mapped above.
                Ok(Self {
                    io,
                    start,
                    len,
                    _name: name,
                })
            }
            Err(error) => {
                // SAFETY: `addr` is the mapping made above, and nobody else knows of it.
                unsafe { bindings::iounmap(addr) };
                Err(error)
            }
        }
    }

    /// The physical address of the first byte.
    #[inline]
    pub fn start(&self) -> PhysAddr {
        self.start
    }

    /// The number of bytes that are mapped.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never the case: an empty range cannot be claimed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<const SIZE: usize> Drop for PhysMem<SIZE> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants this is the address of a mapping that we own.
        unsafe { bindings::iounmap(self.io.addr() as *mut c_void) };
        drop(Request {
            start: self.start,
            len: self.len,
        });
    }
}

impl<'a, const SIZE: usize> IoBase<'a> for &'a PhysMem<SIZE> {
    type Backend = MmioBackend;
    type Target = Region<SIZE>;

    #[inline]
    fn as_view(self) -> Mmio<'a, Self::Target> {
        // SAFETY: By the type invariants, `io` is mapped for as long as `self` lives.
        unsafe { Mmio::from_raw(self.io) }
    }
}
