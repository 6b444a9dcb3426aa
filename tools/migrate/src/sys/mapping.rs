// SPDX-License-Identifier: GPL-2.0

//! Memory that changes while the program reads it: pages that a device writes by DMA, and a device's
//! registers.
//!
//! No reference to such memory may exist in Rust, so this type hands out values only: relaxed atomic
//! accesses for memory, volatile ones for registers.

use std::{
    ffi::CStr,
    io,
    os::fd::{
        AsRawFd,
        FromRawFd,
        OwnedFd,
        RawFd, //
    },
    ptr::{
        self,
        NonNull, //
    },
    sync::atomic::{
        AtomicU64,
        Ordering, //
    },
};

/// A shared mapping of memory or of a register window.
///
/// Both kinds of access to the same word, from two threads, would be a data race: [`Self::read32`]
/// and [`Self::write32`] are for registers only, and memory is accessed by the others only.
///
/// # Invariants
///
/// `base` is the start of a readable and writable mapping of `len` bytes, page aligned, which exists
/// until this value is dropped, and to which no Rust reference exists.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: A `Mapping` owns its pages, and munmap may be called from any thread.
unsafe impl Send for Mapping {}

// SAFETY: Memory is accessed by atomics only. Registers are accessed by volatile operations, which
// reach the device as single bus transactions, whichever threads they come from.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps new memory of `len` bytes as a VMM makes guest memory: a memfd, on huge pages of
    /// `huge_page` bytes if given.
    ///
    /// # Errors
    ///
    /// The kernel's; `ENOMEM` when there are not enough free huge pages.
    pub(crate) fn memory(name: &CStr, len: usize, huge_page: Option<u64>) -> io::Result<Self> {
        let flags = match huge_page {
            // CAST: The logarithm of a page size is below 64.
            Some(size) => libc::MFD_HUGETLB | (size.trailing_zeros() << libc::MFD_HUGE_SHIFT),
            None => 0,
        };
        // SAFETY: `name` is a C string that outlives the call; the call touches no other memory.
        let fd = unsafe { libc::memfd_create(name.as_ptr(), flags | libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: The kernel has just returned this descriptor, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let length = libc::off_t::try_from(len).map_err(io::Error::other)?;
        // SAFETY: The call changes the size of a file that we own, which is not mapped yet.
        if unsafe { libc::ftruncate(fd.as_raw_fd(), length) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Self::map(fd.as_raw_fd(), 0, len)
    }

    /// Maps `len` bytes of a vfio device's region, which starts at `offset` of the device's file.
    ///
    /// # Errors
    ///
    /// The kernel's; `EINVAL` when the region cannot be mapped.
    pub(crate) fn region(device: &impl AsRawFd, offset: u64, len: u64) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        Self::map(device.as_raw_fd(), offset, len)
    }

    fn map(fd: RawFd, offset: libc::off_t, len: usize) -> io::Result<Self> {
        // SAFETY: Without MAP_FIXED the kernel chooses an unused range: no existing memory changes.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd,
                offset,
            )
        };
        match NonNull::new(base.cast::<u8>()) {
            // INVARIANT: mmap has just made this mapping, and nothing else uses its address.
            Some(base) if base.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { base, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where the mapping starts. Nothing may make a reference out of it.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The address of `size` bytes at `offset`, checked to lie inside and to be aligned to `align`.
    fn at(&self, offset: usize, size: usize, align: usize) -> io::Result<*mut u8> {
        let inside = offset
            .checked_add(size)
            .is_some_and(|end| end <= self.len && offset % align == 0 && size % align == 0);
        if !inside {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "access of {size} bytes at {offset:#x}, in a mapping of {:#x}",
                    self.len
                ),
            ));
        }
        Ok(self.base.as_ptr().wrapping_add(offset))
    }

    /// Copies memory out, in units of eight bytes.
    ///
    /// A device may write meanwhile: each unit is then old or new.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a range outside the mapping or not in units of eight bytes.
    pub(crate) fn copy_out(&self, offset: usize, to: &mut [u8]) -> io::Result<()> {
        let from = self.at(offset, to.len(), 8)?.cast::<u64>();
        for (i, bytes) in to.chunks_exact_mut(8).enumerate() {
            // SAFETY: By `at`, unit `i` lies inside the mapping and is aligned; the mapping lives as
            // long as `self`, and all accesses to it by this program are atomic.
            let word = unsafe { AtomicU64::from_ptr(from.add(i)) };
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        Ok(())
    }

    /// Copies into the memory, in units of eight bytes.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a range outside the mapping or not in units of eight bytes.
    pub(crate) fn copy_in(&self, offset: usize, from: &[u8]) -> io::Result<()> {
        let to = self.at(offset, from.len(), 8)?.cast::<u64>();
        for (i, bytes) in from.chunks_exact(8).enumerate() {
            let mut word = [0; 8];
            word.copy_from_slice(bytes);
            // SAFETY: By `at`, unit `i` lies inside the mapping and is aligned; the mapping lives as
            // long as `self`, and all accesses to it by this program are atomic.
            unsafe { AtomicU64::from_ptr(to.add(i)) }
                .store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Reads one word of memory; what the device wrote before it is visible afterwards.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an address outside the mapping or not aligned.
    pub(crate) fn load_acquire(&self, offset: usize) -> io::Result<u64> {
        let from = self.at(offset, 8, 8)?.cast::<u64>();
        // SAFETY: By `at`, the word lies inside the mapping and is aligned; the mapping lives as
        // long as `self`, and all accesses to it by this program are atomic.
        Ok(unsafe { AtomicU64::from_ptr(from) }.load(Ordering::Acquire))
    }

    /// Reads a 32-bit register; not for memory.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a register outside the mapping.
    pub(crate) fn read32(&self, offset: usize) -> io::Result<u32> {
        let from = self.at(offset, 4, 4)?.cast::<u32>();
        // SAFETY: By `at`, the register lies inside the mapping and is aligned.
        Ok(unsafe { from.read_volatile() })
    }

    /// Writes a 32-bit register; the device sees all memory written before. Not for memory.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a register outside the mapping.
    pub(crate) fn write32(&self, offset: usize, value: u32) -> io::Result<()> {
        let to = self.at(offset, 4, 4)?.cast::<u32>();
        std::sync::atomic::fence(Ordering::SeqCst);
        // SAFETY: By `at`, the register lies inside the mapping and is aligned.
        unsafe { to.write_volatile(value) };
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: By the invariant this is our mapping and no reference to it exists; a device that
        // still has it mapped keeps its own hold on the pages.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_keeps_what_is_copied_in() -> io::Result<()> {
        let m = Mapping::memory(c"test", 8192, None)?;
        m.copy_in(4096, &[1, 2, 3, 4, 5, 6, 7, 8])?;
        let mut page = [0xff; 16];
        m.copy_out(4088, &mut page)?;
        assert_eq!(page, [0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(m.load_acquire(4096)?, 0x0807_0605_0403_0201);
        m.write32(8, 7)?;
        assert_eq!(m.read32(8)?, 7);
        Ok(())
    }

    #[test]
    fn accesses_outside_are_refused() -> io::Result<()> {
        let m = Mapping::memory(c"test", 4096, None)?;
        assert!(m.copy_out(4096, &mut [0; 8]).is_err());
        assert!(m.copy_out(usize::MAX - 7, &mut [0; 8]).is_err());
        assert!(m.copy_in(4, &[0; 8]).is_err());
        assert!(m.copy_in(0, &[0; 7]).is_err());
        assert!(m.read32(4094).is_err());
        assert!(m.write32(4096, 0).is_err());
        Ok(())
    }
}
