// SPDX-License-Identifier: GPL-2.0

//! A kernel for tests: it takes calls as the real one does, by number and address.
//!
//! Numbers, sizes and offsets are written out here from `include/uapi/linux/iommufd.h`, so that
//! they check those of the bindings. Bits are set as `iova_bitmap_set()` of Linux 7.3.4 does,
//! behind the bitmap too if the driver asks for it.

use std::{
    cell::RefCell,
    collections::{
        BTreeMap,
        BTreeSet, //
    },
    ffi::c_ulong,
    io,
    os::fd::BorrowedFd, //
};

use libc::{
    EFAULT,
    EINVAL,
    ENOENT,
    ENOTTY,
    EOPNOTSUPP,
    EOVERFLOW, //
};

pub(crate) const DESTROY: c_ulong = 0x3b80;
pub(crate) const HWPT_ALLOC: c_ulong = 0x3b89;
pub(crate) const GET_HW_INFO: c_ulong = 0x3b8a;
pub(crate) const SET_DIRTY_TRACKING: c_ulong = 0x3b8b;
pub(crate) const GET_DIRTY_BITMAP: c_ulong = 0x3b8c;

/// The ids of the device that is bound, and of the I/O address space.
pub(crate) const DEVICE: u32 = 5;
pub(crate) const IOAS: u32 = 6;

/// A page of the CPU.
const PAGE: u64 = 4096;

/// One iommufd, with the IOMMU behind it.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Whether the IOMMU tracks.
    pub(crate) tracks: bool,
    /// The page tables, and whether each is tracked.
    pub(crate) tables: BTreeMap<u32, bool>,
    /// The addresses of dirty leaves, which all have so many bytes.
    pub(crate) dirty: BTreeSet<u64>,
    pub(crate) leaf: u64,
    /// The smallest page of the IOMMU.
    pub(crate) smallest: u64,
    /// Whether the driver reports no more than it was asked for.
    pub(crate) clips: bool,
    /// A call to refuse, and how.
    pub(crate) refuse: Option<(c_ulong, i32)>,
    /// The calls that came.
    pub(crate) calls: Vec<c_ulong>,
}

thread_local! {
    static KERNEL: RefCell<Kernel> = const { RefCell::new(Kernel::new()) };
}

/// The kernel of this test.
pub(crate) fn kernel<R>(f: impl FnOnce(&mut Kernel) -> R) -> R {
    KERNEL.with_borrow_mut(f)
}

/// An argument, by the address that the kernel was given.
struct Argument(*mut u8, usize);

impl Argument {
    fn u32(&self, offset: usize) -> u32 {
        assert!(offset + 4 <= self.1);
        // SAFETY: The place is inside the caller's structure, by the line above and `ioctl`.
        unsafe { self.0.add(offset).cast::<u32>().read_unaligned() }
    }

    fn u64(&self, offset: usize) -> u64 {
        u64::from(self.u32(offset)) | u64::from(self.u32(offset + 4)) << 32
    }

    fn put(&self, offset: usize, value: u32) {
        assert!(offset + 4 <= self.1);
        // SAFETY: As in `u32`, and the caller borrows the structure exclusively.
        unsafe { self.0.add(offset).cast::<u32>().write_unaligned(value) };
    }
}

/// Takes a call.
///
/// # Safety
///
/// That of `super::call`.
pub(super) unsafe fn ioctl<T>(
    _fd: BorrowedFd<'_>,
    request: c_ulong,
    arg: &mut T,
) -> io::Result<()> {
    let arg = Argument(std::ptr::from_mut(arg).cast(), size_of::<T>());
    kernel(|kernel| kernel.take(request, &arg)).map_err(io::Error::from_raw_os_error)
}

fn check(good: bool, error: i32) -> Result<(), i32> {
    if good {
        Ok(())
    } else {
        Err(error)
    }
}

impl Kernel {
    const fn new() -> Self {
        Self {
            tracks: true,
            tables: BTreeMap::new(),
            dirty: BTreeSet::new(),
            leaf: PAGE,
            smallest: PAGE,
            clips: true,
            refuse: None,
            calls: Vec::new(),
        }
    }

    fn take(&mut self, request: c_ulong, arg: &Argument) -> Result<(), i32> {
        self.calls.push(request);
        let size = match request {
            DESTROY => 8,
            HWPT_ALLOC | GET_DIRTY_BITMAP => 48,
            GET_HW_INFO => 40,
            SET_DIRTY_TRACKING => 16,
            _ => return Err(ENOTTY),
        };
        // CAST: The sizes above are small.
        check(arg.1 == size && arg.u32(0) == size as u32, EINVAL)?;
        if let Some((call, error)) = self.refuse {
            check(call != request, error)?;
        }
        match request {
            DESTROY => self.tables.remove(&arg.u32(4)).map(drop).ok_or(ENOENT),
            HWPT_ALLOC => self.alloc(arg),
            GET_HW_INFO => {
                check(arg.u32(8) == DEVICE, ENOENT)?;
                check(
                    (arg.u32(4), arg.u32(12), arg.u64(16)) == (0, 0, 0),
                    EOPNOTSUPP,
                )?;
                // Beside the flag for tracking, one that has nothing to do with it.
                arg.put(32, u32::from(self.tracks) | 1 << 3);
                Ok(())
            }
            SET_DIRTY_TRACKING => {
                check(arg.u32(4) & !1 == 0, EOPNOTSUPP)?;
                let on = self.tables.get_mut(&arg.u32(8)).ok_or(ENOENT)?;
                *on = arg.u32(4) == 1;
                if *on {
                    self.dirty.clear();
                }
                Ok(())
            }
            _ => self.get(arg),
        }
    }

    fn alloc(&mut self, arg: &Argument) -> Result<(), i32> {
        let (flags, dev_id, pt_id) = (arg.u32(4), arg.u32(8), arg.u32(12));
        check(arg.u32(20) == 0, EOPNOTSUPP)?;
        check((arg.u32(24), arg.u32(28), arg.u64(32)) == (0, 0, 0), EINVAL)?;
        check(dev_id == DEVICE, ENOENT)?;
        check(pt_id == IOAS, EINVAL)?;
        // A VMM that forgets the flag gets a table which cannot track.
        check(flags == 2 && self.tracks, EOPNOTSUPP)?;
        let id = self.tables.keys().last().map_or(10, |last| last + 1);
        self.tables.insert(id, false);
        arg.put(16, id);
        Ok(())
    }

    /// `iommufd_hwpt_get_dirty_bitmap()`
    fn get(&mut self, arg: &Argument) -> Result<(), i32> {
        let (flags, iova, length) = (arg.u32(8), arg.u64(16), arg.u64(24));
        let (page_size, data) = (arg.u64(32), arg.u64(40));
        check(flags & !1 == 0 && arg.u32(12) == 0, EOPNOTSUPP)?;
        check(self.tables.contains_key(&arg.u32(4)), ENOENT)?;
        check(length != 0, EINVAL)?;
        let last = iova.checked_add(length - 1).ok_or(EOVERFLOW)?;
        for unit in [self.smallest, page_size] {
            check(unit != 0, EINVAL)?;
            let aligned = |a: u64| a & (unit - 1) == 0;
            check(aligned(iova) && aligned(last.wrapping_add(1)), EINVAL)?;
        }
        check(data != 0, EFAULT)?;
        let shift = page_size.trailing_zeros();
        for leaf in self.dirty.clone() {
            let leaf_last = leaf + (self.leaf - 1);
            if leaf_last < iova || leaf > last {
                continue;
            }
            let end = if self.clips {
                leaf_last.min(last)
            } else {
                leaf_last
            };
            let first = (leaf.max(iova) - iova) >> shift;
            set_bits(data, (length - 1) >> shift, first, (end - iova) >> shift);
            if flags == 0 && (leaf >= iova && leaf_last <= last || !self.clips) {
                self.dirty.remove(&leaf);
            }
        }
        Ok(())
    }
}

/// `iova_bitmap_set()` in a bitmap whose last bit is `end`.
fn set_bits(data: u64, end: u64, first: u64, last: u64) {
    let total = end / 8 + 1;
    let mut first = first;
    while first <= last && first / 8 < total {
        // What `iova_bitmap_get()` pins, from the byte of the first bit on.
        let address = data + first / 8;
        let pages = (total - first / 8).div_ceil(PAGE) + u64::from(address % PAGE != 0);
        let pinned = address / PAGE * PAGE + pages * PAGE - data;
        while first <= last && first / 8 < pinned {
            // CAST: The address is one of this process. The bits of a byte are 8.
            let byte = (data + first / 8) as usize as *mut u8;
            // SAFETY: The byte is in one of the pages that the real kernel writes to, and by the
            // contract of `super::call` these are the caller's.
            unsafe { *byte |= 1 << (first % 8) as u8 };
            first += 1;
        }
    }
}
