// SPDX-License-Identifier: GPL-2.0

//! A page table of an IOMMU that tracks dirty pages.

use std::os::fd::AsFd;

use crate::{
    bitmap::Bitmap,
    error::{
        Call,
        Error, //
    },
    sys, //
};

/// Whether the IOMMU of a device, bound to `iommufd` as `dev_id`, tracks dirty pages.
///
/// # Errors
///
/// - [`Error::NotFound`] if no such device is bound.
/// - [`Error::NoSuchCall`] if the kernel is older than 6.7, or `iommufd` is another file.
pub fn can_track(iommufd: impl AsFd, dev_id: u32) -> Result<bool, Error> {
    sys::can_track(iommufd.as_fd(), dev_id).map_err(|e| Error::of(Call::GetHwInfo, e))
}

/// A page table (`HWPT_PAGING`) that tracks dirty pages, and maps what its I/O address space maps.
///
/// `F` is an open `/dev/iommu`: a `File`, a reference to one, an `Arc` of one. Dropping the value
/// destroys the page table, unless a device is still attached to it: it exists then until `F` is
/// closed.
#[derive(Debug)]
pub struct Hwpt<F: AsFd> {
    iommufd: F,
    id: u32,
}

impl<F: AsFd> Hwpt<F> {
    /// Allocates a page table with `IOMMU_HWPT_ALLOC_DIRTY_TRACKING` for devices that are behind
    /// the same IOMMU as `dev_id`, in the I/O address space `ioas_id`.
    ///
    /// Tracking is off. To a page table of this kind the kernel attaches only devices whose IOMMU
    /// can track.
    ///
    /// # Errors
    ///
    /// - [`Error::NotSupported`] if the IOMMU or its driver cannot track.
    /// - [`Error::NotFound`] if `dev_id` is not bound, [`Error::Invalid`] if there is no `ioas_id`.
    /// - [`Error::NoMemory`], [`Error::NoSuchCall`] or [`Error::Other`].
    pub fn alloc(iommufd: F, dev_id: u32, ioas_id: u32) -> Result<Self, Error> {
        let id = sys::hwpt_alloc(iommufd.as_fd(), dev_id, ioas_id)
            .map_err(|e| Error::of(Call::HwptAlloc, e))?;
        Ok(Self { iommufd, id })
    }

    /// The id, by which devices are attached.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Turns tracking on or off, for all devices that are attached or will be. All pages are clean
    /// when it comes on.
    ///
    /// # Errors
    ///
    /// [`Error::NotSupported`], [`Error::NoMemory`] or [`Error::Other`].
    pub fn set_dirty_tracking(&self, on: bool) -> Result<(), Error> {
        sys::set_dirty_tracking(self.iommufd.as_fd(), self.id, on)
            .map_err(|e| Error::of(Call::SetDirtyTracking, e))
    }

    /// Adds to `bitmap` the pages of its range that were written since they were last clean, and
    /// makes them clean.
    ///
    /// # Errors
    ///
    /// - [`Error::Invalid`] if the range is not in units of the IOMMU's smallest page.
    /// - [`Error::Overrun`] if the driver has reported more than was asked for.
    /// - [`Error::NotSupported`], [`Error::NoMemory`] or [`Error::Other`].
    ///
    /// After an error take all pages of the range for dirty: some may be clean, and not reported.
    pub fn read_and_clear(&self, bitmap: &mut Bitmap) -> Result<(), Error> {
        self.get(bitmap, false)
    }

    /// Adds to `bitmap` what [`Self::read_and_clear`] does, and leaves the pages dirty: for what is
    /// unmapped next, or is only counted.
    ///
    /// # Errors
    ///
    /// Those of [`Self::read_and_clear`]; no page has become clean.
    pub fn peek(&self, bitmap: &mut Bitmap) -> Result<(), Error> {
        self.get(bitmap, true)
    }

    fn get(&self, bitmap: &mut Bitmap, no_clear: bool) -> Result<(), Error> {
        let result = sys::get_dirty_bitmap(self.iommufd.as_fd(), self.id, no_clear, bitmap);
        // After a failed call, too: the kernel may have set bits before it failed.
        let overrun = bitmap.take_overrun();
        result.map_err(|e| Error::of(Call::GetDirtyBitmap, e))?;
        if overrun {
            return Err(Error::Overrun(bitmap.pages()));
        }
        Ok(())
    }
}

impl<F: AsFd> Drop for Hwpt<F> {
    fn drop(&mut self) {
        // Closing the file would do it too; there is nothing to be done about a failure here.
        let _ = sys::destroy(self.iommufd.as_fd(), self.id);
    }
}

#[cfg(test)]
mod tests;
