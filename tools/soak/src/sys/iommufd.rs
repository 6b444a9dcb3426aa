// SPDX-License-Identifier: GPL-2.0

//! iommufd: address spaces, page tables, mappings and the dirty bitmap.
//!
//! Layouts and numbers are those of `include/uapi/linux/iommufd.h`, from the bindings' crate. All
//! functions fail with the kernel's error.

use std::{
    fs::{
        File,
        OpenOptions, //
    },
    io,
};

use device_memory::Memory;
use iommufd_bindings::iommufd::*;

use super::call::{
    call,
    size_of_u32, //
};

/// An open `/dev/iommu`.
pub(crate) struct Iommufd(File);

/// A query of the dirty bitmap.
pub(crate) struct Ask {
    /// The first address.
    pub(crate) iova: u64,
    /// How many bytes.
    pub(crate) length: u64,
    /// How many of them a bit stands for.
    pub(crate) unit: u64,
    /// Whether the pages become clean.
    pub(crate) clear: bool,
}

impl Iommufd {
    /// Opens `/dev/iommu`.
    pub(crate) fn open() -> io::Result<Self> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/iommu")
            .map(Self)
    }

    /// The file, for a device to be bound to.
    pub(crate) fn file(&self) -> &File {
        &self.0
    }

    /// Allocates an address space; returns its number.
    pub(crate) fn ioas_alloc(&self) -> io::Result<u32> {
        let mut arg = iommu_ioas_alloc {
            size: size_of_u32::<iommu_ioas_alloc>(),
            ..Default::default()
        };
        // SAFETY: `self` is `/dev/iommu`; the structure is the call's and has no addresses.
        unsafe { call(&self.0, IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_ALLOC, &mut arg)? };
        Ok(arg.out_ioas_id)
    }

    /// Maps everything in an address space by the smallest leaves. Before anything is mapped.
    pub(crate) fn forbid_large_leaves(&self, ioas: u32) -> io::Result<()> {
        let mut arg = iommu_option {
            size: size_of_u32::<iommu_option>(),
            option_id: iommufd_option_IOMMU_OPTION_HUGE_PAGES,
            // CAST: The operation is 0 (set) or 1 (get).
            op: iommufd_option_ops_IOMMU_OPTION_OP_SET as u16,
            object_id: ioas,
            ..Default::default()
        };
        // SAFETY: `self` is `/dev/iommu`; the structure is the call's and has no addresses.
        unsafe { call(&self.0, IOMMUFD_TYPE, IOMMUFD_CMD_OPTION, &mut arg) }
    }

    /// Maps `length` bytes from `offset` of `memory` at `iova`, for reading and writing.
    pub(crate) fn map(
        &self,
        ioas: u32,
        iova: u64,
        memory: &Memory,
        offset: usize,
        length: usize,
    ) -> io::Result<()> {
        let inside = offset
            .checked_add(length)
            .is_some_and(|end| end <= memory.len());
        if !inside {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut arg = iommu_ioas_map {
            size: size_of_u32::<iommu_ioas_map>(),
            flags: iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA
                | iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE
                | iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE,
            ioas_id: ioas,
            user_va: memory.as_ptr() as u64 + offset as u64,
            length: length as u64,
            iova,
            ..Default::default()
        };
        // SAFETY:
        // - `self` is `/dev/iommu`, and the structure is the call's.
        // - Its address is of memory inside a `Memory` (checked above), whose pages the kernel
        //   holds as long as it uses them, and to which no Rust reference exists.
        unsafe { call(&self.0, IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_MAP, &mut arg) }
    }

    /// Unmaps `length` bytes at `iova`, which were mapped as a whole.
    pub(crate) fn unmap(&self, ioas: u32, iova: u64, length: usize) -> io::Result<()> {
        let mut arg = iommu_ioas_unmap {
            size: size_of_u32::<iommu_ioas_unmap>(),
            ioas_id: ioas,
            iova,
            length: length as u64,
        };
        // SAFETY: `self` is `/dev/iommu`; the structure is the call's and has no addresses of ours.
        unsafe { call(&self.0, IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_UNMAP, &mut arg) }
    }

    /// Allocates a page table that tracks dirty pages, for a bound device; for its PASIDs too, if
    /// `pasid`.
    pub(crate) fn hwpt_alloc(&self, device: u32, ioas: u32, pasid: bool) -> io::Result<u32> {
        let pasid = match pasid {
            true => iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_PASID,
            false => 0,
        };
        let mut arg = iommu_hwpt_alloc {
            size: size_of_u32::<iommu_hwpt_alloc>(),
            flags: iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_DIRTY_TRACKING | pasid,
            dev_id: device,
            pt_id: ioas,
            data_type: iommu_hwpt_data_type_IOMMU_HWPT_DATA_NONE,
            ..Default::default()
        };
        // SAFETY:
        // - `self` is `/dev/iommu`, and the structure is the call's.
        // - It has one address, for `data_len` bytes, which is 0.
        unsafe { call(&self.0, IOMMUFD_TYPE, IOMMUFD_CMD_HWPT_ALLOC, &mut arg)? };
        Ok(arg.out_hwpt_id)
    }

    /// Destroys an object.
    pub(crate) fn destroy(&self, id: u32) -> io::Result<()> {
        let mut arg = iommu_destroy {
            size: size_of_u32::<iommu_destroy>(),
            id,
        };
        // SAFETY: `self` is `/dev/iommu`; the structure is the call's and has no addresses.
        unsafe { call(&self.0, IOMMUFD_TYPE, IOMMUFD_CMD_DESTROY, &mut arg) }
    }

    /// Turns dirty tracking of a page table on or off.
    pub(crate) fn track(&self, hwpt: u32, on: bool) -> io::Result<()> {
        let mut arg = iommu_hwpt_set_dirty_tracking {
            size: size_of_u32::<iommu_hwpt_set_dirty_tracking>(),
            flags: match on {
                true => iommufd_hwpt_set_dirty_tracking_flags_IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
                false => 0,
            },
            hwpt_id: hwpt,
            __reserved: 0,
        };
        let number = IOMMUFD_CMD_HWPT_SET_DIRTY_TRACKING;
        // SAFETY: `self` is `/dev/iommu`; the structure is the call's and has no addresses.
        unsafe { call(&self.0, IOMMUFD_TYPE, number, &mut arg) }
    }

    /// ORs the dirty pages into `bitmap`, from its word `first` on.
    pub(crate) fn dirty(
        &self,
        hwpt: u32,
        ask: &Ask,
        bitmap: &mut [u64],
        first: usize,
    ) -> io::Result<()> {
        let bits = ask.length.div_ceil(ask.unit.max(1));
        let room = bitmap
            .get_mut(first..)
            .filter(|room| (room.len() as u64).saturating_mul(64) >= bits)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let mut arg = iommu_hwpt_get_dirty_bitmap {
            size: size_of_u32::<iommu_hwpt_get_dirty_bitmap>(),
            hwpt_id: hwpt,
            flags: match ask.clear {
                true => 0,
                false => iommufd_hwpt_get_dirty_bitmap_flags_IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
            },
            __reserved: 0,
            iova: ask.iova,
            length: ask.length,
            page_size: ask.unit,
            data: room.as_mut_ptr() as u64,
        };
        let number = IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP;
        // SAFETY:
        // - `self` is `/dev/iommu`, and the structure is the call's.
        // - Its one address is that of `room`, which is exclusively borrowed for the whole call,
        //   and has the one bit for each unit of the range that the kernel writes (checked above).
        unsafe { call(&self.0, IOMMUFD_TYPE, number, &mut arg) }
    }

    /// The logarithm of the number of PASIDs that a bound device has, or 0.
    pub(crate) fn pasid_bits(&self, device: u32) -> io::Result<u32> {
        let mut arg = iommu_hw_info {
            size: size_of_u32::<iommu_hw_info>(),
            dev_id: device,
            ..Default::default()
        };
        // SAFETY:
        // - `self` is `/dev/iommu`, and the structure is the call's.
        // - It has one address, for `data_len` bytes, which is 0.
        unsafe { call(&self.0, IOMMUFD_TYPE, IOMMUFD_CMD_GET_HW_INFO, &mut arg)? };
        Ok(arg.out_max_pasid_log2.into())
    }
}
