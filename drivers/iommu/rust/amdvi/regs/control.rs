// SPDX-License-Identifier: GPL-2.0

//! Device table address, control, exclusion, status (specification, 3.4.1, 3.4.3 and 3.4.15).

use kernel::io::register;

register! {
    /// Device table base address register.
    pub(crate) DEVTAB(u64) @ 0x00 {
        /// The table's address, in 4 KiB units.
        51:12   table;
        /// Size: the table has this many pages, and one.
        8:0     size;
    }

    /// Control register.
    pub(crate) CONTROL(u64) @ 0x18 {
        /// GAEn: entries for interrupts have 128 bits, not 32.
        17:17   wide_interrupts => bool;
        /// GTEn: guest translation.
        16:16   guest_translation => bool;
        /// CmdBufEn: commands are fetched.
        12:12   commands => bool;
        /// Isoc: isochronous requests.
        11:11   isochronous => bool;
        /// Coherent: reads of the device table snoop the caches.
        10:10   coherent => bool;
        /// ResPassPW: responses may pass posted writes.
        9:9     responses_pass => bool;
        /// PassPW: requests may pass posted writes.
        8:8     requests_pass => bool;
        /// InvTimeOut: how long a device may take to invalidate its TLB.
        7:5     invalidation_timeout;
        /// EventIntEn: an interrupt for events.
        3:3     event_interrupt => bool;
        /// EventLogEn: events are logged.
        2:2     events => bool;
        /// HtTunEn: HyperTransport tunnel translation.
        1:1     tunnel => bool;
        /// IommuEn: the unit translates.
        0:0     enable => bool;
    }

    /// Exclusion base register: addresses that the unit does not look at.
    pub(crate) EXCLUSION(u64) @ 0x20 {
        /// EXCLUSION: the range's address, in 4 KiB units.
        51:12   base;
        /// ALLOW: the range is that of all devices.
        1:1     allow => bool;
        /// EXEN: there is such a range.
        0:0     enable => bool;
    }

    /// Status register. The bits that are written are cleared by a one.
    pub(crate) STATUS(u64) @ 0x2020 {
        /// CmdBufRun: commands are fetched (read-only).
        4:4     commands => bool;
        /// EventLogRun: events are logged (read-only).
        3:3     events => bool;
        /// EventLogInt: an event was logged (RW1C).
        1:1     event_logged => bool;
        /// EventOverflow: events were lost because the log was full (RW1C).
        0:0     event_overflow => bool;
    }
}

/// Bits of `CONTROL` that this driver never sets: the logs of page requests and of guests'
/// interrupts, and their interrupts (PPRLogEn, PPRIntEn, GALogEn, GAIntEn).
const OTHER_LOGS: u64 = 0b11 << 13 | 0b11 << 28;

/// `CONTROL.InvTimeOut`: a second.
pub(crate) const TIMEOUT_SECOND: u64 = 4;

impl DEVTAB {
    /// A device table of `bytes` at the physical address `table`.
    pub(crate) fn table_of(table: u64, bytes: usize) -> Self {
        // CAST: At most 2 MiB.
        let pages = (bytes >> 12) as u64;
        Self::from_raw((table & Self::TABLE_MASK) | (pages.saturating_sub(1) & Self::SIZE_MASK))
    }
}

impl CONTROL {
    /// Whether the unit translates, or reads or writes a ring.
    pub(crate) fn is_running(self) -> bool {
        self.enable() || self.commands() || self.events() || self.into_raw() & OTHER_LOGS != 0
    }

    /// With each ring off, and the interrupts of those that are logs.
    pub(crate) fn without_rings(self) -> Self {
        Self::from_raw(self.into_raw() & !OTHER_LOGS)
            .with_commands(false)
            .with_event_interrupt(false)
            .with_events(false)
    }

    /// Takes over what firmware wants of the unit: the flags of its block in the table (5.2.2.1).
    pub(crate) fn with_firmware_flags(self, flags: u8) -> Self {
        self.with_tunnel(flags & 1 << 0 != 0)
            .with_requests_pass(flags & 1 << 1 != 0)
            .with_responses_pass(flags & 1 << 2 != 0)
            .with_isochronous(flags & 1 << 3 != 0)
    }
}

impl STATUS {
    /// The value to write before the log is read.
    pub(crate) fn acknowledge_events() -> Self {
        Self::from_raw(Self::EVENT_LOGGED_MASK)
    }

    /// The value to write once lost events have been reported.
    pub(crate) fn acknowledge_overflow() -> Self {
        Self::from_raw(Self::EVENT_OVERFLOW_MASK)
    }
}
