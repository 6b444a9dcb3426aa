// SPDX-License-Identifier: GPL-2.0

//! Memory that changes while the program reads it: pages that a device writes by DMA, and a
//! device's registers.
//!
//! No reference to such memory may exist in Rust, so these types hand out values only: by atomic
//! accesses for memory, by volatile ones for registers. They are two types because both kinds of
//! access to the same word, from two threads, would be a data race.

use std::{
    fs::File,
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
        fence,
        AtomicU64,
        Ordering, //
    },
};

/// A shared mapping.
///
/// # Invariants
///
/// `base` is the start of a readable and writable mapping of `len` bytes, page aligned, which
/// exists until this value is dropped, and to which no Rust reference exists.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: A `Mapping` owns its pages, and munmap may be called from any thread.
unsafe impl Send for Mapping {}

// SAFETY: It is only asked for addresses. See `Memory` and `Registers` for accesses by them.
unsafe impl Sync for Mapping {}

/// Memory that a device writes; accessed by atomics only, from any thread.
pub(crate) struct Memory(Mapping);

/// Registers of a device; accessed by volatile operations only, which reach the device as single
/// bus transactions, whichever threads they come from.
pub(crate) struct Registers(Mapping);

impl Memory {
    /// Maps new memory of `len` bytes, on huge pages of `huge_page` bytes if given.
    ///
    /// # Errors
    ///
    /// The kernel's; `ENOMEM` when there are not enough free huge pages.
    pub(crate) fn new(len: usize, huge_page: Option<u64>) -> io::Result<Self> {
        let flags = match huge_page {
            // CAST: The logarithm of a page size is below 64.
            Some(size) => libc::MFD_HUGETLB | (size.trailing_zeros() << libc::MFD_HUGE_SHIFT),
            None => 0,
        };
        // SAFETY: The name is a C string of static lifetime; the call touches no other memory.
        let fd = unsafe { libc::memfd_create(c"soak".as_ptr(), flags | libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: The kernel has just returned this descriptor, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        File::from(fd.try_clone()?).set_len(len as u64)?;
        Mapping::map(fd.as_raw_fd(), 0, len).map(Self)
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len
    }

    /// The address, for the kernel.
    pub(crate) fn address(&self) -> u64 {
        self.0.base.as_ptr() as u64
    }

    /// Reads a word of memory.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an address outside the mapping or not aligned.
    pub(crate) fn load(&self, offset: usize) -> io::Result<u64> {
        // SAFETY: By `at`, the word lies inside the mapping and is aligned; the mapping lives as
        // long as `self`, and all accesses to it by this program are atomic.
        Ok(unsafe { AtomicU64::from_ptr(self.0.at(offset)?) }.load(Ordering::Acquire))
    }

    /// Writes a word of memory.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an address outside the mapping or not aligned.
    pub(crate) fn store(&self, offset: usize, word: u64) -> io::Result<()> {
        // SAFETY: As in `load`.
        unsafe { AtomicU64::from_ptr(self.0.at(offset)?) }.store(word, Ordering::Release);
        Ok(())
    }
}

impl Registers {
    /// Maps `len` bytes of a device's region, which starts at `offset` of the device's file.
    ///
    /// # Errors
    ///
    /// The kernel's; `EINVAL` when the region cannot be mapped.
    pub(crate) fn map(device: &File, offset: u64, len: usize) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        Mapping::map(device.as_raw_fd(), offset, len).map(Self)
    }

    /// Reads a 64-bit register.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a register outside the mapping.
    pub(crate) fn read64(&self, offset: usize) -> io::Result<u64> {
        let from = self.0.at(offset)?;
        // SAFETY: By `at`, the register lies inside the mapping and is aligned.
        let value = unsafe { from.read_volatile() };
        fence(Ordering::SeqCst);
        Ok(value)
    }

    /// Writes a 64-bit register; the device sees all memory written before.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a register outside the mapping.
    pub(crate) fn write64(&self, offset: usize, value: u64) -> io::Result<()> {
        let to = self.0.at(offset)?;
        fence(Ordering::SeqCst);
        // SAFETY: By `at`, the register lies inside the mapping and is aligned.
        unsafe { to.write_volatile(value) };
        Ok(())
    }
}

impl Mapping {
    fn map(fd: RawFd, offset: libc::off_t, len: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: Without MAP_FIXED the kernel chooses an unused range: no existing memory changes.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                protection,
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

    /// The word at `offset`, checked to lie inside and to be aligned.
    fn at(&self, offset: usize) -> io::Result<*mut u64> {
        let inside = offset.checked_add(8).is_some_and(|end| end <= self.len);
        if !inside || offset % 8 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "access at {offset:#x}, in a mapping of {:#x} bytes",
                    self.len
                ),
            ));
        }
        Ok(self.base.as_ptr().wrapping_add(offset).cast())
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
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn memory_keeps_what_is_stored() -> io::Result<()> {
        let memory = Memory::new(8192, None)?;
        memory.store(4096, 7)?;
        assert_eq!((memory.load(4096)?, memory.load(4088)?), (7, 0));
        assert!(memory.load(8192).is_err() && memory.store(4, 0).is_err());
        assert!(memory.load(usize::MAX - 7).is_err());
        Ok(())
    }

    /// Of a file, which any file stands for.
    #[test]
    fn registers_are_those_of_the_file() -> io::Result<()> {
        // SAFETY: The name is a C string of static lifetime; the call touches no other memory.
        let fd = unsafe { libc::memfd_create(c"registers".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: The kernel has just returned this descriptor, and nothing else owns it.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        file.set_len(8192)?;
        file.write_all_at(&7u64.to_ne_bytes(), 4096)?;
        let registers = Registers::map(&file, 4096, 4096)?;
        assert_eq!((registers.read64(0)?, registers.read64(8)?), (7, 0));
        registers.write64(8, 9)?;
        assert_eq!(registers.read64(8)?, 9);
        assert!(registers.read64(4096).is_err() && registers.write64(4, 0).is_err());
        Ok(())
    }
}
