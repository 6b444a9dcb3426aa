// SPDX-License-Identifier: GPL-2.0

//! The function, its I/O address space and its hardware page table: what a VMM sets up.
//!
//! The order is QEMU's (`hw/vfio/iommufd.c`): bind to iommufd, ask whether the IOMMU tracks dirty
//! pages, allocate a page table that does, attach, map.

use std::{
    fs::OpenOptions,
    io,
    sync::Arc, //
};

use anyhow::{
    anyhow,
    bail,
    ensure,
    Result, //
};
use iommufd_ioctls::IommuFd;
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_BAR0_REGION_INDEX,
    VFIO_PCI_CONFIG_REGION_INDEX,
    VFIO_REGION_INFO_FLAG_MMAP, //
};
use vfio_ioctls::{
    VfioDevice,
    VfioIommufd, //
};

use crate::{
    bitmap::Bitmap,
    cli::PageSize,
    function::Function,
    rounds::Tracker,
    sys::{
        ioctl,
        Mapping, //
    },
    PAGE_SIZE, //
};

/// Offset and bits of the command register in PCI configuration space.
const PCI_COMMAND: u64 = 0x04;
const PCI_COMMAND_MEMORY: u16 = 1 << 1;
const PCI_COMMAND_MASTER: u16 = 1 << 2;

/// An object of iommufd, by its number; destroyed with this value.
struct Object {
    iommufd: Arc<IommuFd>,
    id: u32,
}

impl Drop for Object {
    fn drop(&mut self) {
        // Closing the file would do it too; there is nothing to be done about a failure here.
        let _ = self.iommufd.destroy_iommu_object(self.id);
    }
}

/// A function attached to a page table that tracks dirty pages.
pub(crate) struct Attached {
    // Dropped in this order: a page table in use cannot be destroyed, nor its address space.
    device: VfioDevice,
    hwpt: Arc<Object>,
    address_space: VfioIommufd,
    _ioas: Object,
}

/// Makes a sentence of a failed call: what failed, and what the error number means for the user.
fn explain(what: &str, error: &(dyn std::error::Error + 'static)) -> anyhow::Error {
    let Some(number) = ioctl::errno(error) else {
        return anyhow!("{what}: {error}");
    };
    let advice = match number {
        libc::EPERM => {
            "run as root, and boot with iommufd.allow_unsafe_interrupts=1 if the IOMMU does not remap \
             interrupts (the kernel's log says so)"
        }
        libc::EACCES => "run as root",
        libc::ENOENT => "load the modules iommufd and vfio-pci",
        libc::ENODEV | libc::ENXIO => "use a function that is behind an IOMMU with a driver",
        libc::EBUSY => "end the program that uses the function",
        libc::ENOMEM => "free some memory, use a smaller --size or raise the limit on locked memory \
             (ulimit -l)",
        libc::EINVAL => "the IOMMU driver refuses this function or this range; see the kernel's log",
        libc::EOPNOTSUPP => "use an IOMMU, and a driver for it, that tracks dirty pages",
        libc::ENOTTY => "use a kernel that has this call (6.7 or later, CONFIG_IOMMUFD_DRIVER)",
        _ => "see the kernel's log",
    };
    let error = io::Error::from_raw_os_error(number);
    anyhow!("{what}: {error}; {advice}")
}

impl Attached {
    /// Binds the function to a new iommufd and attaches it to a new page table that tracks dirty
    /// pages, in which mappings have leaves of `page_size` where memory allows it.
    ///
    /// # Errors
    ///
    /// A call failed or the IOMMU cannot track; the message says what to change.
    pub(crate) fn new(function: &Function, page_size: PageSize) -> Result<Self> {
        let name = &function.name;
        let iommufd = Arc::new(IommuFd::new().map_err(|e| explain("cannot open /dev/iommu", &e))?);
        let object = |id| Object {
            iommufd: Arc::clone(&iommufd),
            id,
        };
        let ioas = ioctl::alloc_ioas(&iommufd)
            .map(object)
            .map_err(|e| explain("cannot allocate an I/O address space", &e))?;
        if page_size == PageSize::Small {
            ioctl::forbid_large_pages(&iommufd, ioas.id)
                .map_err(|e| explain("cannot restrict mappings to 4K leaves", &e))?;
        }
        let address_space = VfioIommufd::new(Arc::clone(&iommufd), Some(ioas.id), None)
            .map_err(|e| explain("cannot use the I/O address space", &e))?;

        let path = function.device_file()?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| explain(&format!("cannot open {} of {name}", path.display()), &e))?;
        let dev_id = ioctl::bind(&file, &iommufd)
            .map_err(|e| explain(&format!("cannot bind {name} to iommufd"), &e))?;
        let can_track = ioctl::can_track(&iommufd, dev_id)
            .map_err(|e| explain("cannot ask what the IOMMU can do", &e))?;
        ensure!(
            can_track,
            "the IOMMU of {name} does not track dirty pages; use one that does (VT-d with SSADS or \
             first stage, AMD-Vi with HDSUP, SMMUv3 with HTTU) and a driver that supports it"
        );
        let hwpt = ioctl::alloc_tracking_hwpt(&iommufd, dev_id, ioas.id)
            .map(object)
            .map_err(|e| explain("cannot allocate a page table that tracks dirty pages", &e))?;

        // The crate attaches to whatever the number given here names: an address space, for which the
        // kernel would choose a page table itself, or a page table.
        let table = VfioIommufd::new(Arc::clone(&iommufd), Some(hwpt.id), None)
            .map_err(|e| explain("cannot use the page table", &e))?;
        let device = VfioDevice::new_from_bound_fd(file, Arc::new(table))
            .map_err(|e| explain(&format!("cannot attach {name} to its page table"), &e))?;
        device.reset();
        Ok(Self {
            device,
            hwpt: Arc::new(hwpt),
            address_space,
            _ioas: ioas,
        })
    }

    /// Lets the device read and write `memory` at `iova`.
    ///
    /// # Errors
    ///
    /// The kernel refuses; the message says what to change.
    pub(crate) fn map(&self, iova: u64, memory: &Mapping) -> Result<()> {
        ioctl::map_dma(&self.address_space, iova, memory).map_err(|e| {
            explain(
                &format!("cannot map {} bytes at IOVA {iova:#x}", memory.len()),
                &e,
            )
        })
    }

    /// The first `len` bytes of the function's BAR 0.
    ///
    /// # Errors
    ///
    /// There is no such BAR, or it cannot be mapped.
    pub(crate) fn bar0(&self, len: u64) -> Result<Mapping> {
        let index = VFIO_PCI_BAR0_REGION_INDEX;
        ensure!(
            self.device.get_region_size(index) >= len
                && self.device.get_region_flags(index) & VFIO_REGION_INFO_FLAG_MMAP != 0,
            "BAR 0 of the function is smaller than {len:#x} bytes or cannot be mapped; use another one"
        );
        Mapping::region(&self.device, self.device.get_region_offset(index), len)
            .map_err(|e| explain("cannot map BAR 0 of the function", &e))
    }

    /// Allows or forbids the function to access memory.
    ///
    /// # Errors
    ///
    /// The function does not take the setting.
    pub(crate) fn set_bus_master(&self, on: bool) -> Result<()> {
        let index = VFIO_PCI_CONFIG_REGION_INDEX;
        let read = || {
            let mut bytes = [0; 2];
            self.device.region_read(index, &mut bytes, PCI_COMMAND);
            u16::from_le_bytes(bytes)
        };
        let master = if on { PCI_COMMAND_MASTER } else { 0 };
        let command = (read() & !PCI_COMMAND_MASTER) | PCI_COMMAND_MEMORY | master;
        self.device
            .region_write(index, &command.to_le_bytes(), PCI_COMMAND);
        ensure!(
            read() & PCI_COMMAND_MASTER == master,
            "the function does not take a write to its command register; reset it and try again"
        );
        Ok(())
    }

    /// The tracker of `pages` pages that are mapped from each of `places` on.
    pub(crate) fn tracker(&self, places: &[u64], pages: usize) -> HwptTracker {
        HwptTracker {
            hwpt: Arc::clone(&self.hwpt),
            places: places.to_vec(),
            pages,
        }
    }
}

/// The kernel's dirty bitmap of a memory.
pub(crate) struct HwptTracker {
    hwpt: Arc<Object>,
    places: Vec<u64>,
    pages: usize,
}

impl Tracker for HwptTracker {
    fn track(&mut self, on: bool) -> Result<()> {
        ioctl::set_dirty_tracking(&self.hwpt.iommufd, self.hwpt.id, on).map_err(|e| {
            let what = if on { "on" } else { "off" };
            explain(&format!("cannot turn dirty tracking {what}"), &e)
        })
    }

    fn collect(&mut self, report: &mut Bitmap) -> Result<()> {
        // Each call adds to what is there.
        for &iova in &self.places {
            ioctl::get_dirty_bitmap(
                &self.hwpt.iommufd,
                self.hwpt.id,
                iova,
                (self.pages * PAGE_SIZE) as u64,
                PAGE_SIZE as u64,
                report.words_mut(),
            )
            .map_err(|e| explain("cannot read the dirty bitmap", &e))?;
        }
        if report.has_stray_bits() {
            bail!(
                "the IOMMU driver set bits of the dirty bitmap behind the {} pages asked about; this \
                 is a bug of the driver",
                self.pages
            );
        }
        Ok(())
    }
}
