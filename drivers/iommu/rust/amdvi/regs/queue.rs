// SPDX-License-Identifier: GPL-2.0

//! Registers of the command buffer and of the event log (specification, 3.4.1, 3.4.14).

use kernel::io::register;

register! {
    /// Command buffer base address register.
    pub(crate) CMDBUF(u64) @ 0x08 {
        /// ComLen: the buffer has 2^ComLen commands.
        59:56   length;
        /// The buffer's address, in 4 KiB units.
        51:12   buffer;
    }

    /// Event log base address register.
    pub(crate) EVTLOG(u64) @ 0x10 {
        /// EventLen: the log has 2^EventLen entries.
        59:56   length;
        /// The log's address, in 4 KiB units.
        51:12   buffer;
    }

    /// Command buffer head pointer: what the unit fetches next.
    ///
    /// This one and the next three are 64 bits wide, but their upper halves are reserved, and
    /// software may access the lower ones alone.
    pub(crate) CMDHEAD(u32) @ 0x2000 {
        /// Offset in the buffer in units of 16 bytes.
        18:4    head;
    }

    /// Command buffer tail pointer: what software fills next.
    pub(crate) CMDTAIL(u32) @ 0x2008 {
        /// Offset in the buffer in units of 16 bytes.
        18:4    tail;
    }

    /// Event log head pointer: what software reads next.
    pub(crate) EVTHEAD(u32) @ 0x2010 {
        /// Offset in the log in units of 16 bytes.
        18:4    head;
    }

    /// Event log tail pointer: what the unit fills next.
    pub(crate) EVTTAIL(u32) @ 0x2018 {
        /// Offset in the log in units of 16 bytes.
        18:4    tail;
    }
}

/// Bytes of a command and of an event.
pub(crate) const ENTRY_BYTES: usize = 16;

/// Commands of the buffer and events of the log: 2^[`LENGTH`], the fewest that there can be are
/// 2^8.
pub(crate) const ENTRIES: usize = 1 << LENGTH;

/// The code of [`ENTRIES`].
const LENGTH: u64 = 9;

impl CMDBUF {
    /// A buffer of [`ENTRIES`] commands at the physical address `buffer`.
    pub(crate) fn at(buffer: u64) -> Self {
        Self::from_raw((buffer & Self::BUFFER_MASK) | LENGTH << Self::LENGTH_SHIFT)
    }
}

impl EVTLOG {
    /// A log of [`ENTRIES`] events at the physical address `buffer`.
    pub(crate) fn at(buffer: u64) -> Self {
        Self::from_raw((buffer & Self::BUFFER_MASK) | LENGTH << Self::LENGTH_SHIFT)
    }
}

impl CMDHEAD {
    /// Index of the command that the unit fetches next.
    pub(crate) fn index(self) -> usize {
        // CAST: The field is 15 bits wide.
        self.head().get() as usize % ENTRIES
    }
}

impl CMDTAIL {
    /// The register value for the command at `index`.
    pub(crate) fn at(index: usize) -> Self {
        // CAST: An index has nine bits.
        Self::from_raw(((index as u32) << Self::TAIL_SHIFT) & Self::TAIL_MASK)
    }
}

impl EVTHEAD {
    /// The register value for the event at `index`.
    pub(crate) fn at(index: usize) -> Self {
        // CAST: An index has nine bits.
        Self::from_raw(((index as u32) << Self::HEAD_SHIFT) & Self::HEAD_MASK)
    }

    /// Index of the event that is read next.
    pub(crate) fn index(self) -> usize {
        // CAST: The field is 15 bits wide.
        self.head().get() as usize % ENTRIES
    }
}

impl EVTTAIL {
    /// Index of the event that the unit writes next.
    pub(crate) fn index(self) -> usize {
        // CAST: The field is 15 bits wide.
        self.tail().get() as usize % ENTRIES
    }
}
