// SPDX-License-Identifier: GPL-2.0

//! Fault status, fault event control and fault records (VT-d specification, 11.4.7).

use kernel::{
    bitfield,
    io::register, //
};

register! {
    /// Fault status register.
    ///
    /// The error bits are cleared by writing a one (RW1C); everything else is read-only, so a
    /// write is built from zero and acknowledges only what it names.
    pub(crate) FSTS(u32) @ 0x34 {
        /// FRI: index of the first fault record that is pending.
        15:8    record_index;
        /// ITE: a device-TLB invalidation timed out (RW1C).
        6:6     invalidation_timeout => bool;
        /// ICE: an unexpected or corrupt completion arrived (RW1C).
        5:5     invalidation_completion => bool;
        /// IQE: the queue holds a descriptor that the hardware refuses (RW1C).
        4:4     invalidation_queue => bool;
        /// PPF: some fault record is pending (read-only).
        1:1     pending => bool;
        /// PFO: faults were lost because all records were full (RW1C).
        0:0     overflow => bool;
    }

    /// Fault event control register.
    pub(crate) FECTL(u32) @ 0x38 {
        /// IM: the fault interrupt is masked.
        31:31   masked => bool;
    }
}

/// The registers of the fault interrupt: control, data, and both halves of the address.
pub(crate) const FAULT_EVENT: [usize; 4] = [0x38, 0x3c, 0x40, 0x44];

impl FSTS {
    /// Whether the invalidation queue reports any error.
    pub(crate) fn queue_error(self) -> bool {
        self.invalidation_queue() || self.invalidation_timeout() || self.invalidation_completion()
    }

    /// The value to write to go on after a descriptor that the hardware refused.
    pub(crate) fn acknowledge_queue_error() -> Self {
        Self::from_raw(Self::INVALIDATION_QUEUE_MASK)
    }

    /// The value to write to go on after a device did not answer in time.
    pub(crate) fn acknowledge_timeout() -> Self {
        Self::from_raw(Self::INVALIDATION_TIMEOUT_MASK)
    }

    /// The value to write to go on after an unexpected completion.
    pub(crate) fn acknowledge_completion() -> Self {
        Self::from_raw(Self::INVALIDATION_COMPLETION_MASK)
    }

    /// The value to write to clear all errors of the queue.
    pub(crate) fn acknowledge_queue() -> Self {
        Self::from_raw(
            Self::INVALIDATION_QUEUE_MASK
                | Self::INVALIDATION_TIMEOUT_MASK
                | Self::INVALIDATION_COMPLETION_MASK,
        )
    }

    /// The value to write once lost faults have been reported.
    pub(crate) fn acknowledge_overflow() -> Self {
        Self::from_raw(Self::OVERFLOW_MASK)
    }
}

/// Bytes of one fault recording register.
pub(crate) const RECORD_BYTES: usize = 16;

/// Offset of the upper 64 bits inside a fault recording register.
pub(crate) const RECORD_HIGH: usize = 8;

bitfield! {
    /// Upper half of a fault recording register (`FRCD_REG` bits 127 to 64).
    pub(crate) struct RecordHigh(u64) {
        /// F: the record is valid (RW1C).
        63:63   valid => bool;
        /// T1: with T2, the kind of request.
        62:62   type_high => bool;
        /// PV: the PASID value.
        59:40   pasid;
        /// FR: the reason, see [`crate::fault::reason`].
        39:32   reason;
        /// PP: the request carried a PASID.
        31:31   pasid_present => bool;
        /// T2: with T1, the kind of request.
        28:28   type_low => bool;
        /// SID: requester ID of the device.
        15:0    source;
    }
}

impl RecordHigh {
    /// The value to write to give the record back to the hardware.
    pub(crate) fn acknowledge() -> Self {
        Self::from_raw(Self::VALID_MASK)
    }
}
