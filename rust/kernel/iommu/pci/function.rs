// SPDX-License-Identifier: GPL-2.0

//! PCI functions, as remapping units see them: where they are, and what is above them.

use kernel::{
    bindings,
    device::Device,
    ffi::c_int,
    pci, //
};

/// A PCI function.
///
/// # Invariants
///
/// The bus that it is on and the bridges above are valid during `'a`: a device holds a reference to
/// its parent.
#[derive(Clone, Copy)]
pub struct Function<'a>(&'a pci::Device);

impl<'a> Function<'a> {
    /// The function that `dev` is, `None` if it is something else.
    pub fn of(dev: &'a Device) -> Option<Self> {
        // INVARIANT: A device holds a reference to its parent.
        <&pci::Device>::try_from(dev).ok().map(Self)
    }

    /// Wraps a function that `self` keeps alive.
    ///
    /// # Safety
    ///
    /// `raw` is null, or a bridge above `self`, the physical function of `self`, or the function
    /// that makes its requests.
    pub(super) unsafe fn related(&self, raw: *mut bindings::pci_dev) -> Option<Self> {
        // SAFETY: `raw` is null or one of the functions that the contract names, and `self` keeps
        // each: a device holds a reference to its parent and a virtual function to its physical
        // one; a Volume Management Device removes the buses behind it before it is removed.
        // INVARIANT: The same holds for what is above that function.
        unsafe { raw.cast::<pci::Device>().as_ref() }.map(Self)
    }

    /// The function as C knows it.
    pub(super) fn as_raw(&self) -> *mut bindings::pci_dev {
        // CAST: `pci::Device` is a transparent wrapper.
        core::ptr::from_ref(self.0).cast_mut().cast()
    }

    /// Whether its PASID capability is enabled. Never so for a virtual function, which shares that
    /// of its physical function.
    #[cfg(CONFIG_PCI_PASID)]
    pub(super) fn has_pasids_enabled(&self) -> bool {
        // SAFETY: A `pci::Device` is a valid function.
        unsafe { bindings::rust_iommu_pci_pasid_enabled(self.as_raw()) }
    }

    /// The bus that it is on.
    fn on(&self) -> *mut bindings::pci_bus {
        // SAFETY: A `pci::Device` is a valid function. This field does not change while it is; a
        // reference to the whole would cover fields that do.
        unsafe { (*self.as_raw()).bus }
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
        // SAFETY: A `pci::Device` is a valid function. This does not change.
        // CAST: Eight bits.
        unsafe { (*self.as_raw()).devfn as u8 }
    }

    /// The requester ID: bus, device, function.
    pub fn requester(&self) -> u16 {
        u16::from(self.bus()) << 8 | u16::from(self.devfn())
    }

    /// Base class, subclass and programming interface.
    pub fn class(&self) -> u32 {
        self.0.pci_class().as_raw()
    }

    /// Vendor and device ID.
    pub fn ids(&self) -> (u16, u16) {
        (self.0.vendor_id().as_raw(), self.0.device_id())
    }

    /// The function that makes the requests of this one: a Volume Management Device for functions
    /// behind it, otherwise the function itself.
    // Not inlined into modules: the C function is not exported.
    #[inline(never)]
    pub fn real_dma(&self) -> Self {
        // SAFETY: A `pci::Device` is a valid function. A function behind a Volume Management Device
        // is removed first.
        unsafe { self.related(bindings::pci_real_dma_dev(self.as_raw())) }.unwrap_or(*self)
    }

    /// Whether there is a bus below it.
    pub fn is_bridge(&self) -> bool {
        // SAFETY: A `pci::Device` is a valid function.
        unsafe { bindings::pci_is_bridge(self.as_raw()) }
    }

    /// Whether it is the chipset's bridge to ISA, or its SMBus controller.
    pub fn is_southbridge(&self) -> bool {
        let class = self.class() >> 8;
        class == bindings::PCI_CLASS_BRIDGE_ISA || class == bindings::PCI_CLASS_SERIAL_SMBUS
    }

    /// Whether it is below an external port, into which a user can plug devices.
    pub fn is_untrusted(&self) -> bool {
        // SAFETY: A `pci::Device` is a valid function.
        unsafe { bindings::rust_iommu_pci_is_untrusted(self.as_raw()) }
    }

    /// Whether it could be isolated from others by Access Control Services, which are off.
    ///
    /// Context: may sleep.
    pub(super) fn has_acs_off(&self) -> bool {
        // SAFETY: A `pci::Device` is a valid function.
        unsafe { bindings::rust_iommu_pci_acs_is_off(self.as_raw()) }
    }

    /// The physical function of a virtual one, otherwise the function itself.
    pub fn physical(&self) -> Self {
        // SAFETY: A `pci::Device` is a valid function. A virtual function keeps its physical one.
        unsafe { self.related(bindings::pci_physfn(self.as_raw())) }.unwrap_or(*self)
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
            core::ptr::eq(unsafe { (*bus).self_ }, bridge.as_raw())
        })
    }

    /// Clears Bus Master Enable of the function: it makes no more requests, and a bridge forwards
    /// none from below. Returns whether the bit was set.
    ///
    /// A host bridge keeps the bit: it makes no requests itself. A function that sleeps with the
    /// machine gets its registers back without the bit; its driver can set it then.
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
        // SAFETY: A `pci::Device` is a valid function.
        let slept = unsafe { bindings::rust_iommu_pci_stop_saved(self.as_raw()) };
        let mut command = 0;
        // SAFETY: A `pci::Device` is a valid function; `command` is a place for the result.
        let read = unsafe { bindings::pci_read_config_word(self.as_raw(), offset, &mut command) };
        // A removed function reads as ones.
        if read != 0 || command == u16::MAX || command & master == 0 {
            return slept;
        }
        // SAFETY: A `pci::Device` is a valid function.
        let written =
            unsafe { bindings::pci_write_config_word(self.as_raw(), offset, command & !master) };
        slept || written == 0
    }

    /// The buses from the function's own up to the last below a root bus.
    pub(super) fn buses(&self) -> impl Iterator<Item = *mut bindings::pci_bus> + 'a {
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
}
