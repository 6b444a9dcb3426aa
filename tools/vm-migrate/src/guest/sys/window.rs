// SPDX-License-Identifier: GPL-2.0

//! Memory that a device writes while this program looks at it, and registers.
//!
//! No reference to such memory may exist in Rust, so `Window` hands out values only, by relaxed atomic
//! accesses of eight bytes. On x86 each of them is one move, which a device's registers take as well.

use std::{
    fs::File,
    io,
    sync::atomic::{
        AtomicU64,
        Ordering, //
    },
};

use memmap2::{
    MmapOptions,
    MmapRaw, //
};

/// A shared mapping of physical memory, of registers, or of new memory.
///
/// # Invariants
///
/// The mapping is readable and writable, and no Rust reference to it exists.
pub(crate) struct Window(MmapRaw);

impl Window {
    /// Maps `length` bytes of a file from `offset` on, both multiples of the page size.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn of_file(file: &File, offset: u64, length: usize) -> io::Result<Self> {
        let map = MmapOptions::new()
            .offset(offset)
            .len(length)
            .map_raw(file)?;
        // INVARIANT: `map_raw` maps for reading and writing, and makes no reference.
        Ok(Self(map))
    }

    /// Maps new memory, each page of which exists.
    ///
    /// # Errors
    ///
    /// The kernel's; `ENOMEM` if there is not so much.
    pub(crate) fn of_memory(length: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(length).populate().map_anon()?;
        // INVARIANT: Anonymous memory is readable and writable; the reference that `MmapMut` could
        // give out goes with it.
        Ok(Self(map.into()))
    }

    /// Bytes that it has.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Where it starts in this program's addresses.
    pub(crate) fn address(&self) -> usize {
        self.0.as_ptr() as usize
    }

    /// The word at `offset`.
    fn word(&self, offset: usize) -> io::Result<&AtomicU64> {
        let inside = offset.checked_add(8).is_some_and(|end| end <= self.0.len());
        if !inside || offset % 8 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("no word at {offset:#x} of {:#x} bytes", self.0.len()),
            ));
        }
        let at = self.0.as_mut_ptr().wrapping_add(offset).cast::<u64>();
        // SAFETY:
        // - The word lies inside the mapping, by the check above, and the mapping lives as long as
        //   `self`, which the returned reference borrows.
        // - It is aligned: mappings start at a page, and `offset` is a multiple of 8.
        // - It is readable and writable, and no other reference to it than such ones exists (the
        //   type's invariant): all accesses of this program are atomic.
        Ok(unsafe { AtomicU64::from_ptr(at) })
    }

    /// Reads a word.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for one outside of the window.
    pub(crate) fn load(&self, offset: usize) -> io::Result<u64> {
        Ok(self.word(offset)?.load(Ordering::Relaxed))
    }

    /// Writes a word.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for one outside of the window.
    pub(crate) fn store(&self, offset: usize, value: u64) -> io::Result<()> {
        self.word(offset)?.store(value, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept() -> io::Result<()> {
        let window = Window::of_memory(8192)?;
        window.store(4096, 7)?;
        assert_eq!((window.load(4096)?, window.load(8184)?), (7, 0));
        Ok(())
    }

    #[test]
    fn what_is_outside_is_refused() -> io::Result<()> {
        let window = Window::of_memory(4096)?;
        for offset in [4096, 4092, 4, usize::MAX, usize::MAX - 7] {
            assert!(window.load(offset).is_err(), "{offset:#x}");
            assert!(window.store(offset, 0).is_err(), "{offset:#x}");
        }
        Ok(())
    }
}
