// SPDX-License-Identifier: GPL-2.0

//! The interrupt of a unit that is a PCI function.
//!
//! The kernel's abstraction of interrupts needs a bound driver. The function of a unit has none,
//! since the unit is driven through registers that firmware names. So this module requests the
//! interrupt.

use kernel::{
    bindings,
    error::to_result,
    ffi::{
        c_int,
        c_ulong,
        c_void, //
    },
    prelude::*,
    str::CString,
    sync::Arc, //
};

use super::unit::UnitFunction;

/// The handler of the interrupt.
pub trait Handler: Send + Sync + 'static {
    /// The unit has signalled something.
    ///
    /// Context: a separate thread, which may sleep; one call at a time for each interrupt.
    fn handle(&self);
}

/// A message-signalled interrupt of a PCI function, handled as long as this object lives.
///
/// # Invariants
///
/// - One vector of `function` is allocated.
/// - `irq` is its number, and a threaded handler is requested for it whose cookie is the address in
///   `handler`.
pub struct Interrupt<H: Handler> {
    function: UnitFunction,
    irq: u32,
    handler: Arc<H>,
    // Read by the interrupt core until the handler is freed.
    _name: CString,
}

/// A vector that is released when dropped.
struct Vector<'a>(&'a UnitFunction);

impl Drop for Vector<'_> {
    fn drop(&mut self) {
        // SAFETY: The object exists only while a vector is allocated, with no handler.
        unsafe { bindings::pci_free_irq_vectors(self.0.as_raw()) };
    }
}

impl<H: Handler> Interrupt<H> {
    /// Requests the message-signalled interrupt of `function`, which calls `handler`. `name` shows
    /// in `/proc/interrupts`.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// The errors of the PCI core if the function has no vector or other code uses it. Nothing has
    /// changed then.
    pub fn request(function: UnitFunction, name: CString, handler: Arc<H>) -> Result<Self> {
        // SAFETY: The function is valid.
        to_result(unsafe {
            bindings::pci_alloc_irq_vectors(
                function.as_raw(),
                1,
                1,
                bindings::PCI_IRQ_MSI | bindings::PCI_IRQ_MSIX,
            )
        })?;
        let vector = Vector(&function);
        // SAFETY: The function is valid.
        let irq = unsafe { bindings::pci_irq_vector(function.as_raw(), 0) };
        let irq = u32::try_from(irq).map_err(|_| Error::from_errno(irq))?;

        let cookie: *const H = &*handler;
        // CAST: One bit of an `unsigned long`.
        let flags = bindings::IRQF_ONESHOT as c_ulong;
        // SAFETY: The name and the cookie outlive the request: both are kept in the object, which
        // frees the interrupt first. `handle_callback` takes such a cookie.
        to_result(unsafe {
            bindings::request_threaded_irq(
                irq,
                None,
                Some(Self::handle_callback),
                flags,
                name.as_char_ptr(),
                cookie.cast_mut().cast(),
            )
        })?;
        core::mem::forget(vector);
        // INVARIANT: Allocated and requested above.
        Ok(Self {
            function,
            irq,
            handler,
            _name: name,
        })
    }

    /// Writes the vector to the function again, which has lost it in a sleep of the machine. The
    /// PCI core does so too, but later: a message before that would be lost, and a unit sends no
    /// other one until the first was handled. A function with MSI-X is left to the PCI core.
    ///
    /// Context: any.
    pub fn restore(&self) {
        // SAFETY: By the type invariants the function is valid and has a vector.
        unsafe { bindings::rust_iommu_pci_restore_msi(self.function.as_raw()) };
    }

    /// The thread of the interrupt.
    ///
    /// # Safety
    ///
    /// `cookie` points to an `H` that lives during the call.
    unsafe extern "C" fn handle_callback(
        _irq: c_int,
        cookie: *mut c_void,
    ) -> bindings::irqreturn_t {
        // SAFETY: `cookie` points to an `H` that lives during the call (contract).
        let handler = unsafe { &*cookie.cast::<H>() };
        handler.handle();
        bindings::irqreturn::IRQ_HANDLED
    }
}

impl<H: Handler> Drop for Interrupt<H> {
    fn drop(&mut self) {
        let cookie: *const H = &*self.handler;
        // SAFETY: By the type invariants the handler is requested with this cookie. The call waits
        // until a running handler returns.
        unsafe { bindings::free_irq(self.irq, cookie.cast_mut().cast()) };
        drop(Vector(&self.function));
    }
}
