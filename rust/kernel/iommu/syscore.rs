// SPDX-License-Identifier: GPL-2.0

//! Calls around a sleep of the machine, and before another kernel takes it over.
//!
//! C header: [`include/linux/syscore_ops.h`](srctree/include/linux/syscore_ops.h)
//!
//! The kernel calls [`Sleeper::suspend`] when all devices have been suspended, the last that was
//! registered first, and [`Sleeper::resume`] in the opposite order, before it resumes any device.
//! Hibernation makes the same calls. A kernel without `CONFIG_PM_SLEEP` makes neither.

use kernel::{
    bindings,
    error::from_result,
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// State that the driver has to save before a sleep and restore after it.
pub(super) trait Sleeper: Send + Sync + 'static {
    /// The machine is going to sleep.
    ///
    /// Context: one CPU is online, interrupts are disabled; may not sleep.
    ///
    /// # Errors
    ///
    /// The machine stays awake, and this object has to be awake: [`Self::resume`] is not called.
    fn suspend(&self) -> Result;

    /// The machine is awake again.
    ///
    /// Context: as for [`Self::suspend`].
    fn resume(&self);

    /// The machine is about to be reset, switched off or given to another kernel. Devices have been
    /// shut down.
    ///
    /// Context: may sleep. A registration must not be made or dropped.
    fn shutdown(&self);
}

/// While this exists, the kernel calls its [`Sleeper`].
///
/// # Invariants
///
/// `raw` is in the kernel's list. Its `data` is the address of the object that `sleeper` holds a
/// reference to, and its `ops` are those of `T`.
#[pin_data(PinnedDrop)]
pub(super) struct Registration<T: Sleeper> {
    #[pin]
    raw: Opaque<bindings::syscore>,
    sleeper: Arc<T>,
}

// SAFETY: The kernel's lock guards the list. The rest is an `Arc`, and `T` is `Send` and `Sync`.
unsafe impl<T: Sleeper> Send for Registration<T> {}
// SAFETY: A shared reference gives access to nothing.
unsafe impl<T: Sleeper> Sync for Registration<T> {}

impl<T: Sleeper> Registration<T> {
    const OPS: bindings::syscore_ops = bindings::syscore_ops {
        suspend: Some(Self::suspend_callback),
        resume: Some(Self::resume_callback),
        shutdown: Some(Self::shutdown_callback),
    };

    /// Registers `sleeper` with the kernel. A sleeper that is registered later is suspended
    /// earlier.
    ///
    /// Context: may sleep.
    pub(super) fn new(sleeper: Arc<T>) -> impl PinInit<Self> {
        let data = Arc::as_ptr(&sleeper).cast_mut().cast();
        // INVARIANT: The closure fills `raw` in and enters it into the list. `sleeper` is what
        // `data` was taken from.
        pin_init!(Self {
            raw <- Opaque::ffi_init(move |raw: *mut bindings::syscore| {
                let ops: &'static bindings::syscore_ops = &Self::OPS;
                let syscore = bindings::syscore {
                    ops,
                    data,
                    ..pin_init::zeroed()
                };
                // SAFETY: `raw` is the place of the field, which the initialiser may write.
                unsafe { raw.write(syscore) };
                // SAFETY: `raw` is filled in and pinned. It is in the list until it is dropped,
                // and so long `sleeper` keeps what `data` leads to. The operations are a constant.
                unsafe { bindings::register_syscore(raw) };
            }),
            sleeper,
        })
    }

    /// # Safety
    ///
    /// `data` points to a `T` that lives during the call.
    unsafe extern "C" fn suspend_callback(data: *mut c_void) -> c_int {
        // SAFETY: `data` points to a `T` that lives during the call (contract).
        let sleeper = unsafe { &*data.cast::<T>() };
        from_result(|| sleeper.suspend().map(|()| 0))
    }

    /// # Safety
    ///
    /// As for [`Self::suspend_callback`].
    unsafe extern "C" fn resume_callback(data: *mut c_void) {
        // SAFETY: `data` points to a `T` that lives during the call (contract).
        let sleeper = unsafe { &*data.cast::<T>() };
        sleeper.resume();
    }

    /// # Safety
    ///
    /// As for [`Self::suspend_callback`].
    unsafe extern "C" fn shutdown_callback(data: *mut c_void) {
        // SAFETY: `data` points to a `T` that lives during the call (contract).
        let sleeper = unsafe { &*data.cast::<T>() };
        sleeper.shutdown();
    }
}

#[pinned_drop]
impl<T: Sleeper> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants it is in the list. The call waits for the calls of
        // `shutdown`; no task runs during the others.
        unsafe { bindings::unregister_syscore(self.raw.get()) };
    }
}
