// SPDX-License-Identifier: GPL-2.0

//! The dirty tracking calls of iommufd, for VMMs that migrate a VM with a passed-through device.
//!
//! The CPU does not see what a device writes; the IOMMU marks it in its page tables. iommufd (Linux
//! 6.7 and later) has three calls for these marks: a page table ([`Hwpt`]) that tracks, the switch,
//! and the question which pages were written since the last one, which a [`Bitmap`] takes the
//! answer to.
//!
//! Pre-copy migration, with the ids that binding a device (`VFIO_DEVICE_BIND_IOMMUFD`) and
//! `IOMMU_IOAS_ALLOC` have returned:
//!
//! ```no_run
//! # use std::{error::Error, fs::File};
//! # fn attach(_: u32) {}
//! # fn send(_: std::ops::RangeInclusive<u64>) {}
//! # fn stop_vm() {}
//! # fn migrate(dev_id: u32, ioas_id: u32) -> Result<(), Box<dyn Error>> {
//! use iommufd_dirty::{Bitmap, Hwpt};
//!
//! let iommufd = File::options().read(true).write(true).open("/dev/iommu")?;
//! let hwpt = Hwpt::alloc(&iommufd, dev_id, ioas_id)?;
//! attach(hwpt.id()); // VFIO_DEVICE_ATTACH_IOMMUFD_PT; then map 256 MiB at 4 GiB
//! let mut dirty = Bitmap::new(4 << 30, 256 << 20, 4096)?;
//! hwpt.set_dirty_tracking(true)?;
//! dirty.set_all(); // the first pass sends everything
//! while dirty.count() > 64 {
//!     dirty.ranges().for_each(send);
//!     dirty.clear();
//!     hwpt.read_and_clear(&mut dirty)?;
//! }
//! stop_vm(); // and with it the device, which may have written since
//! hwpt.read_and_clear(&mut dirty)?;
//! dirty.ranges().for_each(send);
//! # Ok(())
//! # }
//! ```
//!
//! # What a VMM has to know
//!
//! - A report covers the writes before the call. A page must be sent after the call that reported
//!   it, and the last call must follow the stop of the device.
//! - A page is reported as a whole if a byte of it was written, and so is a whole leaf of the
//!   IOMMU's page table, which may have 2 MiB or 1 GiB. Ranges should begin and end where mappings
//!   do: the C drivers of Linux 7.3.4 lose writes to a leaf that a query covers in part.
//! - Ask for mapped ranges only. Linux 7.3.4 reports a hole as clean, and no error.
//! - A page that is unmapped takes its mark with it: [`Hwpt::peek`] at it before.
//!
//! # Units
//!
//! Addresses (IOVAs) and lengths are in bytes, pages are numbered from 0, which is the page at the
//! bitmap's IOVA. No function panics, whatever its arguments are.

#![deny(missing_docs)]

mod bitmap;
mod error;
mod hwpt;
#[expect(unsafe_code, reason = "ioctls")]
mod sys;

pub use bitmap::Bitmap;
pub use error::{
    Call,
    Error,
    RangeError, //
};
pub use hwpt::{
    can_track,
    Hwpt, //
};
