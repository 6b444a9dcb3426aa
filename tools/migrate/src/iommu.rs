// SPDX-License-Identifier: GPL-2.0

//! The function, its I/O address space and its hardware page table: what a VMM sets up.
//!
//! The order is QEMU's (`hw/vfio/iommufd.c`): bind to iommufd, ask whether the IOMMU tracks dirty
//! pages, allocate a page table that does, attach, map.

use std::{
    fs::File,
    io,
    path::Path,
    sync::Arc, //
};

use anyhow::{
    anyhow,
    ensure,
    Context,
    Result, //
};
use device_memory::{
    Memory,
    Registers, //
};
use iommufd_dirty::{
    can_track,
    Bitmap,
    Hwpt, //
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
    cli::PageSize,
    function::Function,
    rounds::Tracker,
    sys::ioctl, //
};

/// Offset and bits of the command register in PCI configuration space.
const PCI_COMMAND: u64 = 0x04;
const PCI_COMMAND_MEMORY: u16 = 1 << 1;
const PCI_COMMAND_MASTER: u16 = 1 << 2;

/// An I/O address space, by its number; destroyed with this value.
struct Ioas {
    iommufd: Arc<IommuFd>,
    id: u32,
}

impl Drop for Ioas {
    fn drop(&mut self) {
        // Closing the file would do it too; there is nothing to be done about a failure here.
        let _ = self.iommufd.destroy_iommu_object(self.id);
    }
}

/// A function attached to a page table that tracks dirty pages.
pub(crate) struct Attached {
    // Dropped in this order: a page table in use cannot be destroyed, nor its address space.
    device: VfioDevice,
    hwpt: Arc<Hwpt<File>>,
    address_space: VfioIommufd,
    _ioas: Ioas,
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
        let open = |path: &Path| {
            let file = File::options().read(true).write(true).open(path);
            file.map_err(|e| explain(&format!("cannot open {}", path.display()), &e))
        };
        let iommu = open("/dev/iommu".as_ref())?;
        // The same iommufd once more: each of the crates owns a descriptor.
        let same = iommu.try_clone().context("cannot use /dev/iommu")?;
        let iommufd = Arc::new(IommuFd::new_from_fd(same));
        let ioas = Ioas {
            id: ioctl::alloc_ioas(&iommufd)
                .map_err(|e| explain("cannot allocate an I/O address space", &e))?,
            iommufd: Arc::clone(&iommufd),
        };
        if page_size == PageSize::Small {
            ioctl::forbid_large_pages(&iommufd, ioas.id)
                .map_err(|e| explain("cannot restrict mappings to 4K leaves", &e))?;
        }
        let address_space = VfioIommufd::new(Arc::clone(&iommufd), Some(ioas.id), None)
            .map_err(|e| explain("cannot use the I/O address space", &e))?;

        let file = open(&function.device_file()?).with_context(|| format!("cannot use {name}"))?;
        let dev_id = ioctl::bind(&file, &iommufd)
            .map_err(|e| explain(&format!("cannot bind {name} to iommufd"), &e))?;
        ensure!(
            can_track(&iommu, dev_id).context("cannot ask what the IOMMU can do")?,
            "the IOMMU of {name} does not track dirty pages; use one that does (VT-d with SSADS or \
             first stage, AMD-Vi with HDSUP, SMMUv3 with HTTU) and a driver that supports it"
        );
        let hwpt = Hwpt::alloc(iommu, dev_id, ioas.id)
            .context("cannot allocate a page table that tracks dirty pages")?;

        // The crate attaches to whatever the number given here names: an address space, for which the
        // kernel would choose a page table itself, or a page table.
        let table = VfioIommufd::new(Arc::clone(&iommufd), Some(hwpt.id()), None)
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
    pub(crate) fn map(&self, iova: u64, memory: &Memory) -> Result<()> {
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
    pub(crate) fn bar0(&self, len: usize) -> Result<Registers> {
        let index = VFIO_PCI_BAR0_REGION_INDEX;
        ensure!(
            self.device.get_region_size(index) >= len as u64
                && self.device.get_region_flags(index) & VFIO_REGION_INFO_FLAG_MMAP != 0,
            "BAR 0 of the function is smaller than {len:#x} bytes or cannot be mapped; use another one"
        );
        Registers::map(&self.device, self.device.get_region_offset(index), len)
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

    /// The tracker of a memory that is mapped from each of `places` on.
    pub(crate) fn tracker(&self, places: &[u64]) -> HwptTracker {
        HwptTracker {
            hwpt: Arc::clone(&self.hwpt),
            places: places.to_vec(),
        }
    }
}

/// The kernel's dirty bitmap of a memory.
pub(crate) struct HwptTracker {
    hwpt: Arc<Hwpt<File>>,
    places: Vec<u64>,
}

impl Tracker for HwptTracker {
    fn track(&mut self, on: bool) -> Result<()> {
        self.hwpt.set_dirty_tracking(on).with_context(|| {
            format!(
                "cannot turn dirty tracking {}",
                if on { "on" } else { "off" }
            )
        })
    }

    fn collect(&mut self, report: &mut Bitmap) -> Result<()> {
        let first = report.iova();
        // Each call adds to what is there.
        for &iova in &self.places {
            report.move_to(iova)?;
            self.hwpt
                .read_and_clear(report)
                .context("cannot read the dirty bitmap")?;
        }
        Ok(report.move_to(first)?)
    }
}
