// SPDX-License-Identifier: GPL-2.0

//! Memory that changes while the program reads it: pages that a device writes by DMA, and a
//! device's registers.
//!
//! No reference to such memory may exist in Rust, so these types hand out values only: by atomic
//! accesses for memory, by volatile ones for registers. They are two types because both kinds of
//! access to the same word, from two threads, would be a data race.

use std::{
    ffi::CStr,
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

impl Mapping {
    fn new(fd: RawFd, offset: libc::off_t, len: usize) -> io::Result<Self> {
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

    /// The address of `size` bytes at `offset`, checked to lie inside and to be units of `unit`
    /// bytes.
    fn at(&self, offset: usize, size: usize, unit: usize) -> io::Result<*mut u8> {
        let inside = offset
            .checked_add(size)
            .is_some_and(|end| end <= self.len && offset % unit == 0 && size % unit == 0);
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
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: By the invariant this is our mapping and no reference to it exists; a device that
        // still has it mapped keeps its own hold on the pages.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Memory that a device writes; accessed by atomics only, from any thread.
pub struct Memory(Mapping);

impl Memory {
    /// Maps new memory of `len` bytes as a VMM makes guest memory: a memfd, on huge pages of
    /// `huge_page` bytes if given.
    ///
    /// # Errors
    ///
    /// The kernel's; `ENOMEM` when there are not enough free huge pages.
    pub fn new(name: &CStr, len: usize, huge_page: Option<u64>) -> io::Result<Self> {
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
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        file.set_len(len as u64)?;
        Mapping::new(file.as_raw_fd(), 0, len).map(Self)
    }

    /// Length in bytes.
    #[allow(clippy::len_without_is_empty)] // Memory without a byte cannot be mapped.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Where it starts. Nothing may make a reference out of it.
    pub fn as_ptr(&self) -> *mut u8 {
        self.0.base.as_ptr()
    }

    /// Copies memory out, in words of eight bytes.
    ///
    /// A device may write meanwhile: each word is then old or new.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a range outside the memory or not of whole words.
    pub fn copy_out(&self, offset: usize, to: &mut [u8]) -> io::Result<()> {
        let from = self.0.at(offset, to.len(), 8)?.cast::<u64>();
        for (i, bytes) in to.chunks_exact_mut(8).enumerate() {
            // SAFETY: By `at`, word `i` lies inside the mapping and is aligned; the mapping lives as
            // long as `self`, and all accesses to it by this program are atomic.
            let word = unsafe { AtomicU64::from_ptr(from.add(i)) };
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        Ok(())
    }

    /// Copies into the memory, in words of eight bytes.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a range outside the memory or not of whole words.
    pub fn copy_in(&self, offset: usize, from: &[u8]) -> io::Result<()> {
        let to = self.0.at(offset, from.len(), 8)?.cast::<u64>();
        for (i, bytes) in from.chunks_exact(8).enumerate() {
            let mut word = [0; 8];
            word.copy_from_slice(bytes);
            // SAFETY: As in `copy_out`.
            unsafe { AtomicU64::from_ptr(to.add(i)) }
                .store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Reads a word; what the device wrote before it is visible afterwards.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an address outside the memory or not aligned.
    pub fn load(&self, offset: usize) -> io::Result<u64> {
        let from = self.0.at(offset, 8, 8)?.cast::<u64>();
        // SAFETY: By `at`, the word lies inside the mapping and is aligned; the mapping lives as
        // long as `self`, and all accesses to it by this program are atomic.
        Ok(unsafe { AtomicU64::from_ptr(from) }.load(Ordering::Acquire))
    }

    /// Writes a word.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an address outside the memory or not aligned.
    pub fn store(&self, offset: usize, word: u64) -> io::Result<()> {
        let to = self.0.at(offset, 8, 8)?.cast::<u64>();
        // SAFETY: As in `load`.
        unsafe { AtomicU64::from_ptr(to) }.store(word, Ordering::Release);
        Ok(())
    }
}

/// Registers of a device; accessed by volatile operations only, which reach the device as single
/// bus transactions, whichever threads they come from.
pub struct Registers(Mapping);

/// The accesses to registers of one width.
macro_rules! registers {
    ($word:ty, $read:ident, $write:ident) => {
        impl Registers {
            /// Reads a register; no access after it happens before it.
            ///
            /// # Errors
            ///
            /// `InvalidInput` for a register outside the mapping, or not aligned.
            pub fn $read(&self, offset: usize) -> io::Result<$word> {
                const SIZE: usize = size_of::<$word>();
                let from = self.0.at(offset, SIZE, SIZE)?.cast::<$word>();
                // SAFETY: By `at`, the register lies inside the mapping and is aligned.
                let value = unsafe { from.read_volatile() };
                fence(Ordering::SeqCst);
                Ok(value)
            }

            /// Writes a register; the device sees all memory written before.
            ///
            /// # Errors
            ///
            /// `InvalidInput` for a register outside the mapping, or not aligned.
            pub fn $write(&self, offset: usize, value: $word) -> io::Result<()> {
                const SIZE: usize = size_of::<$word>();
                let to = self.0.at(offset, SIZE, SIZE)?.cast::<$word>();
                fence(Ordering::SeqCst);
                // SAFETY: By `at`, the register lies inside the mapping and is aligned.
                unsafe { to.write_volatile(value) };
                Ok(())
            }
        }
    };
}

registers!(u32, read32, write32);
registers!(u64, read64, write64);

impl Registers {
    /// Maps `len` bytes of a vfio device's region, which starts at `offset` of the device's file.
    ///
    /// # Errors
    ///
    /// The kernel's; `EINVAL` when the region cannot be mapped.
    pub fn map(device: &impl AsRawFd, offset: u64, len: usize) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        Mapping::new(device.as_raw_fd(), offset, len).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn memory_keeps_what_is_written() -> io::Result<()> {
        let memory = Memory::new(c"test", 8192, None)?;
        memory.copy_in(4096, &[1, 2, 3, 4, 5, 6, 7, 8])?;
        let mut page = [0xff; 16];
        memory.copy_out(4088, &mut page)?;
        assert_eq!(page, [0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(memory.load(4096)?, 0x0807_0605_0403_0201);
        memory.store(4088, 7)?;
        assert_eq!((memory.load(4088)?, memory.len()), (7, 8192));
        Ok(())
    }

    #[test]
    fn accesses_outside_of_memory_are_refused() -> io::Result<()> {
        let memory = Memory::new(c"test", 4096, None)?;
        assert!(memory.copy_out(4096, &mut [0; 8]).is_err());
        assert!(memory.copy_out(usize::MAX - 7, &mut [0; 8]).is_err());
        assert!(memory.copy_in(4, &[0; 8]).is_err());
        assert!(memory.copy_in(0, &[0; 7]).is_err());
        assert!(memory.load(4096).is_err() && memory.load(usize::MAX - 7).is_err());
        assert!(memory.store(4, 0).is_err());
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
        registers.write32(12, 1)?;
        assert_eq!(registers.read64(8)?, 1 << 32 | 9);
        assert_eq!(registers.read32(8)?, 9);
        assert!(registers.read64(4096).is_err() && registers.write64(4, 0).is_err());
        assert!(registers.read32(4094).is_err() && registers.write32(4096, 0).is_err());
        Ok(())
    }
}
