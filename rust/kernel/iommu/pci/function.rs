// SPDX-License-Identifier: GPL-2.0

//! PCI functions, as remapping units see them: where they are, and the IDs that their requests
//! carry.
//!
//! A unit knows the source of a request by its requester ID. Bridges to conventional PCI replace
//! the ID of the device by their own, and some devices use the ID of another.
//! `pci_for_each_dma_alias()` has the rules, but is not exported to modules.
//! [`Function::for_each_alias`] follows the same rules. Requests of a device behind a Volume
//! Management Device carry the ID of the latter: call it on [`Function::real_dma`] of such a
//! device.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

use kernel::{
    bindings,
    container_of,
    device::Device,
    ffi::c_int,
    prelude::*, //
};

/// The number of devices and functions on a bus.
const DEVFNS: u16 = 256;

/// A PCI function.
///
/// # Invariants
///
/// `raw` is a valid PCI function during `'a`, and so are the bus that it is on and the bridges
/// above: a device holds a reference to its parent.
#[derive(Clone, Copy)]
pub struct Function<'a> {
    raw: NonNull<bindings::pci_dev>,
    lifetime: PhantomData<&'a Device>,
}

impl<'a> Function<'a> {
    /// The function that `dev` is, `None` if it is something else.
    pub fn of(dev: &'a Device) -> Option<Self> {
        // SAFETY: `dev` is a valid device.
        if !unsafe { bindings::dev_is_pci(dev.as_raw()) } {
            return None;
        }
        // SAFETY: A device of the PCI bus is embedded in a PCI function.
        let raw = unsafe { container_of!(dev.as_raw(), bindings::pci_dev, dev) };
        // INVARIANT: Borrowed for `'a`, with what it keeps alive.
        Some(Self {
            raw: NonNull::new(raw)?,
            lifetime: PhantomData,
        })
    }

    /// Wraps a function that `self` keeps alive.
    ///
    /// # Safety
    ///
    /// `raw` is null, or a bridge above `self`, the physical function of `self`, or the function
    /// that makes its requests.
    unsafe fn related(&self, raw: *mut bindings::pci_dev) -> Option<Self> {
        // INVARIANT: `raw` is null or one of the functions that the contract names, and `self`
        // keeps each: a device holds a reference to its parent and a virtual function to its
        // physical one; a Volume Management Device removes the buses behind it before it is
        // removed.
        Some(Self {
            raw: NonNull::new(raw)?,
            lifetime: PhantomData,
        })
    }

    /// The function as C knows it.
    #[cfg(CONFIG_PCI_PASID)]
    pub(super) fn as_raw(&self) -> *mut bindings::pci_dev {
        self.raw.as_ptr()
    }

    /// Whether its PASID capability is enabled. Never so for a virtual function, which shares that
    /// of its physical function.
    #[cfg(CONFIG_PCI_PASID)]
    pub(super) fn has_pasids_enabled(&self) -> bool {
        // SAFETY: By the type invariants, `raw` is a valid function.
        unsafe { bindings::rust_iommu_pci_pasid_enabled(self.raw.as_ptr()) }
    }

    /// The bus that it is on.
    fn on(&self) -> *mut bindings::pci_bus {
        // SAFETY: By the type invariants, `raw` is a valid function. This field does not change
        // while it is; a reference to the whole would cover fields that do.
        unsafe { (*self.raw.as_ptr()).bus }
    }

    /// The PCI segment (the kernel's domain number).
    pub fn segment(&self) -> u16 {
        // SAFETY: By the type invariants, the bus is valid.
        let segment = unsafe { bindings::pci_domain_nr(self.on()) };
        // CAST: Segments that firmware can name have 16 bits. The kernel makes up larger numbers
        // for host bridges that firmware does not know; no scope of the firmware may match these.
        segment.try_into().unwrap_or(u16::MAX)
    }

    /// The number of its bus.
    pub fn bus(&self) -> u8 {
        // SAFETY: By the type invariants, the bus is valid.
        unsafe { (*self.on()).number }
    }

    /// Device number and function number.
    pub fn devfn(&self) -> u8 {
        // SAFETY: By the type invariants; this does not change.
        // CAST: Eight bits.
        unsafe { (*self.raw.as_ptr()).devfn as u8 }
    }

    /// The requester ID: bus, device, function.
    pub fn requester(&self) -> u16 {
        u16::from(self.bus()) << 8 | u16::from(self.devfn())
    }

    /// Base class, subclass and programming interface.
    pub fn class(&self) -> u32 {
        // SAFETY: By the type invariants; this does not change once the function is known.
        unsafe { (*self.raw.as_ptr()).class }
    }

    /// Vendor and device ID.
    pub fn ids(&self) -> (u16, u16) {
        let raw = self.raw.as_ptr();
        // SAFETY: By the type invariants; these do not change.
        unsafe { ((*raw).vendor, (*raw).device) }
    }

    /// The function that makes the requests of this one: a Volume Management Device for functions
    /// behind it, otherwise the function itself.
    // Not inlined into modules: the C function is not exported.
    #[inline(never)]
    pub fn real_dma(&self) -> Self {
        // SAFETY: By the type invariants; a function behind a Volume Management Device is removed
        // first.
        unsafe { self.related(bindings::pci_real_dma_dev(self.raw.as_ptr())) }.unwrap_or(*self)
    }

    /// Whether there is a bus below it.
    pub fn is_bridge(&self) -> bool {
        // SAFETY: By the type invariants, `raw` is a valid function.
        unsafe { bindings::pci_is_bridge(self.raw.as_ptr()) }
    }

    /// Whether it is below an external port, into which a user can plug devices.
    pub fn is_untrusted(&self) -> bool {
        // SAFETY: By the type invariants, `raw` is a valid function.
        unsafe { bindings::rust_iommu_pci_is_untrusted(self.raw.as_ptr()) }
    }

    /// The physical function of a virtual one, otherwise the function itself.
    pub fn physical(&self) -> Self {
        // SAFETY: By the type invariants; a virtual function keeps its physical one.
        unsafe { self.related(bindings::pci_physfn(self.raw.as_ptr())) }.unwrap_or(*self)
    }

    /// The bridge to the bus that it is on, `None` on a root bus.
    pub fn parent(&self) -> Option<Self> {
        self.physical().buses().find_map(|bus| {
            // SAFETY: `buses()` yields valid buses. A virtual one has no bridge.
            unsafe { self.related((*bus).self_) }
        })
    }

    /// Whether its requests pass `bridge`.
    pub(in super::super) fn is_below(&self, bridge: &Function<'_>) -> bool {
        self.physical().buses().any(|bus| {
            // SAFETY: `buses()` yields valid buses.
            core::ptr::eq(unsafe { (*bus).self_ }, bridge.raw.as_ptr())
        })
    }

    /// Clears Bus Master Enable of the function: it makes no more requests, and a bridge forwards
    /// none from below. Returns whether the bit was set.
    ///
    /// A host bridge keeps the bit: it makes no requests itself.
    ///
    /// `pci_clear_master()` also writes a bit field that other code writes without a lock, so this
    /// writes the register.
    ///
    /// Context: any.
    pub(in super::super) fn stop_requests(&self) -> bool {
        if self.class() >> 8 == bindings::PCI_CLASS_BRIDGE_HOST {
            return false;
        }
        // CAST: An offset of the first 64 bytes.
        let offset = bindings::PCI_COMMAND as c_int;
        // CAST: A bit of a register of 16.
        let master = bindings::PCI_COMMAND_MASTER as u16;
        let mut command = 0;
        // SAFETY: By the type invariants; `command` is a place for the result.
        let read =
            unsafe { bindings::pci_read_config_word(self.raw.as_ptr(), offset, &mut command) };
        // A removed function reads as ones.
        if read != 0 || command == u16::MAX || command & master == 0 {
            return false;
        }
        // SAFETY: By the type invariants, `raw` is a valid function.
        let written = unsafe {
            bindings::pci_write_config_word(self.raw.as_ptr(), offset, command & !master)
        };
        written == 0
    }

    /// The buses from the function's own up to the last below a root bus.
    fn buses(&self) -> impl Iterator<Item = *mut bindings::pci_bus> + 'a {
        let below_root = |bus: *mut bindings::pci_bus| {
            // SAFETY: The callers below pass a valid bus.
            (!unsafe { bindings::pci_is_root_bus(bus) }).then_some(bus)
        };
        let function: Self = *self;
        // The function's bus is valid by the type invariants, and so is the parent of a bus that is
        // not a root.
        core::iter::successors(below_root(function.on()), move |bus| {
            // SAFETY: See above.
            below_root(unsafe { (**bus).parent })
        })
    }

    /// Calls `each` with every requester ID that requests of the function may carry when they reach
    /// the root bus, the function's own first. `each` may get an ID more than once.
    ///
    /// # Errors
    ///
    /// The first error of `each`; it is not called again then.
    pub fn for_each_alias(&self, mut each: impl FnMut(u16) -> Result) -> Result {
        each(self.requester())?;

        // SAFETY: By the type invariants, `raw` is a valid function. The mask is made before the
        // function gets a driver.
        let mask = unsafe { (&raw const (*self.raw.as_ptr()).dma_alias_mask).read_volatile() };
        if !mask.is_null() {
            for devfn in 0..DEVFNS {
                let (word, bit) = (
                    usize::from(devfn) / usize::BITS as usize,
                    usize::from(devfn) % usize::BITS as usize,
                );
                // SAFETY: The mask has a bit for every devfn, and lives as long as the function.
                if unsafe { mask.add(word).read_volatile() } >> bit & 1 != 0 {
                    each(u16::from(self.bus()) << 8 | devfn)?;
                }
            }
        }

        for bus in self.buses() {
            // SAFETY: `buses()` yields valid buses with valid bridges.
            let Some(bridge) = (unsafe { self.related((*bus).self_) }) else {
                continue;
            };
            if bridge.has_flag(bindings::pci_dev_flags_PCI_DEV_FLAGS_BRIDGE_XLATE_ROOT) {
                // The unit is at this bridge.
                return Ok(());
            }
            if let Some(alias) = bridge.alias(bus) {
                each(alias)?;
            }
        }
        Ok(())
    }

    fn has_flag(&self, flag: bindings::pci_dev_flags) -> bool {
        // SAFETY: By the type invariants; flags are set while the function is set up, and by
        // quirks.
        let flags = unsafe { (&raw const (*self.raw.as_ptr()).dev_flags).read_volatile() };
        u32::from(flags) & flag != 0
    }

    /// The requester ID that a bridge gives to requests from `bus` below it, `None` if it keeps
    /// theirs.
    fn alias(&self, bus: *mut bindings::pci_bus) -> Option<u16> {
        // SAFETY: The caller's bus is valid.
        let below = u16::from(unsafe { (*bus).number }) << 8;

        // SAFETY: By the type invariants, `raw` is a valid function.
        if !unsafe { bindings::pci_is_pcie(self.raw.as_ptr()) } {
            return Some(
                if self.has_flag(bindings::pci_dev_flags_PCI_DEV_FLAG_PCIE_BRIDGE_ALIAS) {
                    below
                } else {
                    self.requester()
                },
            );
        }
        // SAFETY: By the type invariants, and it has a PCI Express capability.
        let kind = unsafe { bindings::pci_pcie_type(self.raw.as_ptr()) };
        match u32::try_from(kind).ok()? {
            // From PCI Express to PCI: requests get the number of the bus below.
            bindings::PCI_EXP_TYPE_PCI_BRIDGE => (!self
                .has_flag(bindings::pci_dev_flags_PCI_DEV_FLAGS_PCI_BRIDGE_NO_ALIAS))
            .then_some(below),
            // From PCI to PCI Express: requests get the ID of the bridge.
            bindings::PCI_EXP_TYPE_PCIE_BRIDGE => Some(self.requester()),
            // Ports forward requests with their ID.
            _ => None,
        }
    }
}
