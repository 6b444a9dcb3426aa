// SPDX-License-Identifier: GPL-2.0

//! ACPI tables: what firmware says about remapping units.

use core::ptr::NonNull;

use kernel::{
    bindings,
    ffi::c_int,
    prelude::*, //
};

/// An ACPI table that stays mapped while this object lives.
///
/// Its bytes are read through a [`Reader`](super::reader::Reader): what firmware writes is not to
/// be trusted.
///
/// # Invariants
///
/// `header` was returned by `acpi_get_table()` and has not been put; `len` is the length that the
/// header states, and that many bytes are mapped.
///
/// # Examples
///
/// ```no_run
/// use kernel::iommu::firmware::{acpi::AcpiTable, reader::Reader};
///
/// fn host_address_width() -> Result<u8> {
///     let dmar = AcpiTable::find(*b"DMAR")?;
///     let mut reader = Reader::new(dmar.bytes());
///
///     reader.skip(36)?;
///     Ok(reader.u8()? + 1)
/// }
/// ```
pub struct AcpiTable {
    header: NonNull<bindings::acpi_table_header>,
    len: usize,
}

// SAFETY: The table is mapped for all CPUs, and putting it may happen anywhere.
unsafe impl Send for AcpiTable {}
// SAFETY: The table is only read.
unsafe impl Sync for AcpiTable {}

impl AcpiTable {
    /// Finds the first table with this signature. ACPICA has checked its checksum.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no such table, or ACPI is off; `EINVAL` if its length is less than
    /// that of the header.
    pub fn find(signature: [u8; 4]) -> Result<Self> {
        let mut signature = [signature[0], signature[1], signature[2], signature[3], 0];
        let mut header: *mut bindings::acpi_table_header = core::ptr::null_mut();
        // SAFETY: The signature is a string that ends in NUL and is only read; `header` is a valid
        // place for the result.
        let status =
            unsafe { bindings::acpi_get_table(signature.as_mut_ptr().cast(), 1, &mut header) };
        let header = match NonNull::new(header) {
            // `AE_OK` is zero.
            Some(header) if status == 0 => header,
            _ => return Err(ENODEV),
        };
        // SAFETY: On success the whole header is mapped.
        let len = unsafe { (*header.as_ptr()).length };
        // CAST: 32 bits fit a `usize` on every architecture with ACPI.
        let len = len as usize;
        // INVARIANT: ACPICA maps the length that the header states.
        let table = Self { header, len };
        // Dropping `table` puts it.
        if len < size_of::<bindings::acpi_table_header>() {
            return Err(EINVAL);
        }
        Ok(table)
    }

    /// The table, its header included.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: By the type invariants, `len` bytes are mapped while `self` lives; nothing writes
        // to firmware's tables.
        unsafe { core::slice::from_raw_parts(self.header.as_ptr().cast::<u8>(), self.len) }
    }
}

/// The NUMA node for what firmware says is in the proximity domain `proximity`, or one that is
/// near; [`None`] if the kernel knows no nodes, or not that domain.
///
/// Context: any.
pub fn node_of(proximity: u32) -> Option<u32> {
    let proximity = c_int::try_from(proximity).ok()?;
    // SAFETY: The function takes any number.
    let node = unsafe { bindings::pxm_to_online_node(proximity) };
    // Negative: no node.
    u32::try_from(node).ok()
}

impl Drop for AcpiTable {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the table was got and has not been put.
        unsafe { bindings::acpi_put_table(self.header.as_ptr()) };
    }
}
