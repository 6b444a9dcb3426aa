// SPDX-License-Identifier: GPL-2.0

//! Registers at a physical address.
//!
//! A remapping unit is neither a PCI function nor a platform device: firmware names the physical
//! address of its registers and nothing else. [`PhysMem`] claims that range and maps it; a shared
//! reference to it is an I/O region like any other, so that registers of the `register!` macro are
//! read and written through it.

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

#[cfg(CONFIG_X86)]
use super::dmar::SharedUnit;
#[cfg(CONFIG_KUNIT)]
use super::pages::{
    Gfp,
    TablePages, //
};

/// A claimed and mapped range of physical addresses, of at least `SIZE` bytes.
///
/// Registers below `SIZE` are checked when the driver is built, if they have no more than 32 bits:
/// [`Region`] promises the compiler no more alignment than that. Wider ones, and those that a unit
/// places by a capability field, are reached with the `try_` accessors, which check while running.
///
/// # Invariants
///
/// - `io` is the address of an `ioremap()` of the range, or that of the memory that stands for it.
/// - Address and length are multiples of 8, and the length is at least `SIZE`.
///
/// # Examples
///
/// ```no_run
/// use kernel::{
///     io::Io,
///     iommu::hw::mmio::PhysMem,
///     str::CString, //
/// };
///
/// /// The version and the capabilities of a remapping unit, and whether it has noted a fault.
/// fn look_at(unit: u64) -> Result<(u32, u64, bool)> {
///     let regs = PhysMem::<0x100>::request(unit, 0x1000, CString::try_from(c"dmar0")?)?;
///
///     Ok((
///         regs.read32(0x0),
///         regs.try_read64(0x8)?,
///         regs.try_read64(0x228)? >> 63 != 0,
///     ))
/// }
/// ```
pub struct PhysMem<const SIZE: usize = 0> {
    io: MmioRaw<Region<SIZE>>,
    backing: Backing,
}

/// What is behind the addresses of a [`PhysMem`].
enum Backing {
    /// Registers.
    Claimed { _request: Request },
    /// Registers that the kernel has claimed.
    #[cfg(CONFIG_X86)]
    Shared,
    /// Memory, which does nothing of itself.
    #[cfg(CONFIG_KUNIT)]
    Memory { _pages: TablePages },
}

/// A request for a range, given back when dropped.
///
/// # Invariants
///
/// The range `start`, `len` of I/O memory was requested under `name`.
struct Request {
    start: PhysAddr,
    len: usize,
    // The tree of resources refers to it.
    _name: CString,
}

impl Request {
    fn new(start: PhysAddr, len: usize, name: CString) -> Result<Self> {
        // CAST: A size fits the type of physical addresses.
        if len == 0 || start.checked_add(len as PhysAddr).is_none() {
            return Err(EINVAL);
        }
        // SAFETY: `name` is kept until the range is released: the text of a `CString` does not
        // move with it.
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
        // INVARIANT: Requested above.
        Ok(Self {
            start,
            len,
            _name: name,
        })
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the range is requested, and by us.
        // CAST: A size fits the type of resource sizes.
        unsafe { bindings::release_mem_region(self.start, self.len as bindings::resource_size_t) };
    }
}

/// Whether no driver has claimed any of the `len` bytes at `start`. Claims them for a moment, under
/// `name`; without memory for that the answer is no.
///
/// Context: may sleep.
pub fn is_free(start: PhysAddr, len: usize, name: &CStr) -> bool {
    CString::try_from(name).is_ok_and(|name| Request::new(start, len, name).is_ok())
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
        if len < SIZE || !(start | bytes).is_multiple_of(8) {
            return Err(EINVAL);
        }
        let request = Request::new(start, len, name)?;
        Self::map(start, len, Backing::Claimed { _request: request })
    }

    /// Maps the registers of `unit`, which the kernel has claimed.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`Self::request`], without `EBUSY`.
    #[cfg(CONFIG_X86)]
    pub fn share(unit: &SharedUnit) -> Result<Self> {
        let (start, bytes) = unit.registers();
        let len = usize::try_from(bytes)?;
        let is_range = len != 0 && start.checked_add(bytes).is_some();
        if !is_range || len < SIZE || !(start | bytes).is_multiple_of(8) {
            return Err(EINVAL);
        }
        Self::map(start, len, Backing::Shared)
    }

    /// Maps a range that was checked: it is not empty and does not wrap.
    fn map(start: PhysAddr, len: usize, backing: Backing) -> Result<Self> {
        // SAFETY: `ioremap()` takes any range, and refuses one that is memory.
        let addr = unsafe { bindings::ioremap(start, len) };
        if addr.is_null() {
            return Err(ENOMEM);
        }
        match MmioRaw::new_region(addr as usize, len) {
            // INVARIANT: Mapped above; the callers have checked alignment and length.
            Ok(io) => Ok(Self { io, backing }),
            Err(error) => {
                // SAFETY: `addr` is the mapping made above, and no other code knows of it.
                unsafe { bindings::iounmap(addr) };
                Err(error)
            }
        }
    }

    /// Memory in the place of registers, all zero: a unit for tests, which neither obeys nor
    /// answers unless the test writes what it would say.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` if `SIZE` is zero.
    #[cfg(CONFIG_KUNIT)]
    pub fn in_memory() -> Result<Self> {
        let pages = TablePages::new(SIZE, Gfp::KERNEL, None)?;
        let addr = pages.words().as_ptr().expose_provenance();
        // INVARIANT: The memory is kept as long as the object.
        Ok(Self {
            io: MmioRaw::new_region(addr, pages.size())?,
            backing: Backing::Memory { _pages: pages },
        })
    }
}

impl<const SIZE: usize> Drop for PhysMem<SIZE> {
    fn drop(&mut self) {
        match &self.backing {
            #[cfg(CONFIG_KUNIT)]
            Backing::Memory { .. } => {}
            // A request is given back after this.
            _ => {
                // SAFETY: By the type invariants this is the address of a mapping that we own.
                unsafe { bindings::iounmap(self.io.addr() as *mut c_void) }
            }
        }
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

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_mmio)]
mod tests {
    use super::*;

    /// An address at which no machine that runs tests has anything.
    const START: PhysAddr = 0xe0_1234_5000;
    const LEN: usize = 0x2000;

    fn request() -> Result<Request> {
        Request::new(START, LEN, CString::try_from(c"rust_iommu_mmio")?)
    }

    #[test]
    fn a_claimed_range_is_not_free() -> Result {
        let free = |start, len| is_free(start, len, c"rust_iommu_mmio");
        assert!(free(START, LEN));
        let claim = request()?;
        assert!(!free(START, LEN));
        assert!(!free(START + 0x1ff8, 0x1000));
        assert!(free(START + 0x2000, 0x1000));
        assert_eq!(request().err(), Some(EBUSY));
        drop(claim);
        // Looking has left nothing behind.
        assert!(free(START, LEN));
        drop(request()?);
        Ok(())
    }

    #[test]
    fn ranges_that_are_none() {
        for (start, len) in [
            (START, 0),
            (START + 4, 0x1000),
            (START, 0x1004),
            (u64::MAX - 7, 16),
        ] {
            let name = CString::try_from(c"rust_iommu_mmio");
            let found = name
                .map_err(Error::from)
                .and_then(|name| PhysMem::<0>::request(start, len, name).map(|_| ()));
            assert_eq!(found, Err(EINVAL));
        }
    }
}
