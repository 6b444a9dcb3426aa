// SPDX-License-Identifier: GPL-2.0

//! When drivers of PCI functions come and go (`struct notifier_block` of the PCI bus).
//!
//! C header: [`include/linux/device/bus.h`](srctree/include/linux/device/bus.h)

use kernel::{
    bindings,
    device::Device,
    error::to_result,
    ffi::{
        c_int,
        c_ulong,
        c_void, //
    },
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// The receiver of these events.
pub(super) trait Listener: Send + Sync + 'static {
    /// A driver is about to get the device: `dev->driver` is set, and the driver was not called.
    ///
    /// Context: may sleep; under the lock of the device.
    fn binds(&self, dev: &Device);

    /// The device has no driver any more, and has lost what it was given for it; or its driver did
    /// not take it, and both will be so.
    ///
    /// Context: as for [`Self::binds`].
    fn unbound(&self, dev: &Device);
}

/// While this exists, the driver core calls its [`Listener`].
///
/// # Invariants
///
/// `block` is in the list of the PCI bus, and `listener` lives in the same place.
#[pin_data(PinnedDrop)]
#[repr(C)]
pub(super) struct Registration<L: Listener> {
    /// The first field: the callback gets its address.
    #[pin]
    block: Opaque<bindings::notifier_block>,
    listener: Arc<L>,
}

// SAFETY: The kernel's lock guards the list. The rest is an `Arc`, and `L` is `Send` and `Sync`.
unsafe impl<L: Listener> Send for Registration<L> {}
// SAFETY: A shared reference gives access to nothing.
unsafe impl<L: Listener> Sync for Registration<L> {}

impl<L: Listener> Registration<L> {
    /// Registers `listener` with the driver core.
    ///
    /// Context: may sleep; not in a callback.
    ///
    /// # Errors
    ///
    /// The errors of the driver core.
    pub(super) fn new(listener: Arc<L>) -> impl PinInit<Self, Error> {
        // INVARIANT: The second initialiser enters `block` into the list, when `listener` is
        // there.
        try_pin_init!(Self {
            listener,
            block <- Opaque::try_ffi_init(move |block: *mut bindings::notifier_block| {
                let value = bindings::notifier_block {
                    notifier_call: Some(Self::callback),
                    ..pin_init::zeroed()
                };
                // SAFETY: `block` is the place of the field, which the initialiser may write.
                unsafe { block.write(value) };
                // SAFETY: `block` is filled in and pinned, and stays in the list until it is
                // dropped. The bus is a static of C.
                to_result(unsafe {
                    bindings::bus_register_notifier(&raw const bindings::pci_bus_type, block)
                })
            }),
        }? Error)
    }

    /// # Safety
    ///
    /// `block` is that of a registration, `data` a device of the bus; both are valid during the
    /// call.
    unsafe extern "C" fn callback(
        block: *mut bindings::notifier_block,
        action: c_ulong,
        data: *mut c_void,
    ) -> c_int {
        // SAFETY: `block` is the first field of a registration (contract), which is `repr(C)`.
        // Callbacks only read it.
        let listener = unsafe { &(*block.cast::<Self>()).listener };
        // SAFETY: `data` is a valid device (contract).
        let dev = unsafe { Device::from_raw(data.cast()) };
        // CAST: Small numbers.
        match action as u32 {
            bindings::bus_notifier_event_BUS_NOTIFY_BIND_DRIVER => listener.binds(dev),
            bindings::bus_notifier_event_BUS_NOTIFY_UNBOUND_DRIVER
            | bindings::bus_notifier_event_BUS_NOTIFY_DRIVER_NOT_BOUND => listener.unbound(dev),
            _ => {}
        }
        // CAST: As above.
        bindings::NOTIFY_DONE as c_int
    }
}

#[pinned_drop]
impl<L: Listener> PinnedDrop for Registration<L> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants it is in the list. The call waits for callbacks.
        unsafe {
            bindings::bus_unregister_notifier(&raw const bindings::pci_bus_type, self.block.get())
        };
    }
}
