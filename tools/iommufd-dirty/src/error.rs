// SPDX-License-Identifier: GPL-2.0

//! What can go wrong, and what to change then.

use std::{
    error,
    fmt,
    io, //
};

/// A range that no bitmap can have, or that a bitmap does not have. The kernel was not called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeError {
    /// The page size, in bytes, is not a power of two from 4096 on.
    PageSize(u64),
    /// The range has no page.
    Empty,
    /// The range begins or ends inside a page.
    Unaligned {
        /// Where the range begins.
        iova: u64,
        /// Its bytes.
        length: u64,
        /// The bytes of a page.
        page_size: u64,
    },
    /// The range goes on behind the last address, 2^64 - 1.
    PastEnd {
        /// Where the range begins.
        iova: u64,
        /// Its bytes.
        length: u64,
    },
    /// The range has more than [`Bitmap::MAX_PAGES`](crate::Bitmap::MAX_PAGES): so many.
    TooLong(u64),
    /// There is no memory for a bitmap of so many pages.
    NoMemory(usize),
    /// The range is not inside that of the bitmap.
    Outside {
        /// Where the range begins.
        iova: u64,
        /// Its bytes.
        length: u64,
    },
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PageSize(size) => write!(
                f,
                "a page of {size} bytes: use a power of two from 4096 on, as 4096 itself"
            ),
            Self::Empty => write!(f, "a range of 0 bytes: use a page at least"),
            Self::Unaligned {
                iova,
                length,
                page_size,
            } => write!(
                f,
                "{length:#x} bytes at IOVA {iova:#x} are no whole pages of {page_size:#x}: align \
                 both, or use smaller pages"
            ),
            Self::PastEnd { iova, length } => write!(
                f,
                "{length:#x} bytes at IOVA {iova:#x} end behind the last address: use fewer"
            ),
            Self::TooLong(pages) => write!(
                f,
                "{pages} pages are too many for one bitmap: use several, or larger pages"
            ),
            Self::NoMemory(pages) => write!(
                f,
                "no memory for a bitmap of {pages} pages: use several, or larger pages"
            ),
            Self::Outside { iova, length } => write!(
                f,
                "{length:#x} bytes at IOVA {iova:#x} are not inside the bitmap: use one that \
                 covers them"
            ),
        }
    }
}

impl error::Error for RangeError {}

/// A call of iommufd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// `IOMMU_GET_HW_INFO`
    GetHwInfo,
    /// `IOMMU_HWPT_ALLOC`
    HwptAlloc,
    /// `IOMMU_HWPT_SET_DIRTY_TRACKING`
    SetDirtyTracking,
    /// `IOMMU_HWPT_GET_DIRTY_BITMAP`
    GetDirtyBitmap,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GetHwInfo => "IOMMU_GET_HW_INFO",
            Self::HwptAlloc => "IOMMU_HWPT_ALLOC",
            Self::SetDirtyTracking => "IOMMU_HWPT_SET_DIRTY_TRACKING",
            Self::GetDirtyBitmap => "IOMMU_HWPT_GET_DIRTY_BITMAP",
        })
    }
}

/// A call that failed. The message says what to change.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The IOMMU or its driver does not track dirty pages, or the page table was not allocated with
    /// tracking (`EOPNOTSUPP`).
    NotSupported(Call),
    /// The kernel does not have the call (`ENOTTY`), or the file is not `/dev/iommu`.
    NoSuchCall(Call),
    /// One of the ids is not that of such an object of this iommufd (`ENOENT`).
    NotFound(Call),
    /// The kernel or the IOMMU's driver refuses an argument (`EINVAL`): for a bitmap, its range is
    /// not in units of the IOMMU's smallest page.
    Invalid(Call),
    /// The kernel has no memory (`ENOMEM`).
    NoMemory(Call),
    /// Any other error of the kernel.
    Other(Call, io::Error),
    /// The IOMMU's driver has set bits behind the end of the bitmap, which a range of so many pages
    /// has not.
    ///
    /// The report about the range is in the bitmap. Writes to what lies behind it may be lost: the
    /// driver may have made that clean.
    Overrun(usize),
}

impl Error {
    /// What a failed call means.
    pub(crate) fn of(call: Call, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => Self::NotSupported(call),
            Some(libc::ENOTTY) => Self::NoSuchCall(call),
            Some(libc::ENOENT) => Self::NotFound(call),
            Some(libc::EINVAL) => Self::Invalid(call),
            Some(libc::ENOMEM) => Self::NoMemory(call),
            _ => Self::Other(call, error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSupported(call @ (Call::SetDirtyTracking | Call::GetDirtyBitmap)) => write!(
                f,
                "{call}: this page table does not track dirty pages; allocate it with \
                 IOMMU_HWPT_ALLOC_DIRTY_TRACKING"
            ),
            Self::NotSupported(call) => write!(
                f,
                "{call}: the IOMMU of this device does not track dirty pages; use one that does \
                 (VT-d with SSADS, AMD-Vi with HDSUP, SMMUv3 with HTTU), and a driver that \
                 supports it"
            ),
            Self::NoSuchCall(call) => write!(
                f,
                "{call}: there is no such call; use /dev/iommu of Linux 6.7 or later"
            ),
            Self::NotFound(call) => write!(
                f,
                "{call}: no such object; use the ids that this iommufd has returned, before the \
                 objects are destroyed"
            ),
            Self::Invalid(call @ Call::GetDirtyBitmap) => write!(
                f,
                "{call}: the kernel refuses the range; begin and end it at multiples of the \
                 IOMMU's smallest page"
            ),
            Self::Invalid(call) => write!(
                f,
                "{call}: the kernel refuses an argument; use the id of an I/O address space and a \
                 device that is bound to the same iommufd, and see the kernel's log"
            ),
            Self::NoMemory(call) => write!(f, "{call}: the kernel has no memory; free some"),
            Self::Other(call, error) => write!(f, "{call}: {error}; see the kernel's log"),
            Self::Overrun(pages) => write!(
                f,
                "{}: the IOMMU's driver has set bits behind the {pages} pages asked about, which \
                 is a bug of the driver; end the range where a mapping ends, and take what lies \
                 behind it for dirty",
                Call::GetDirtyBitmap
            ),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Other(_, error) => Some(error),
            _ => None,
        }
    }
}
