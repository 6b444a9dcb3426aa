// SPDX-License-Identifier: GPL-2.0

//! The event log: the faults that a unit reports, as text (specification, 2.5).
//!
//! The log is a ring that the unit fills. [`crate::unit`] reads the registers.

use kernel::{
    fmt,
    iommu::{
        hw::pages::{
            Gfp,
            TablePages, //
        },
        pci::source_ids::RequesterId, //
    },
    prelude::*,
    sync::atomic::{
        Acquire,
        Relaxed, //
    }, //
};

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
use kernel::sync::atomic::Release;

use crate::regs::{
    control::STATUS,
    queue::{
        ENTRIES,
        ENTRY_BYTES,
        EVTLOG, //
    }, //
};

/// 64-bit words of an event.
const WORDS: usize = ENTRY_BYTES / 8;

/// The memory of a log.
pub(crate) struct Log {
    entries: TablePages,
}

impl Log {
    /// Allocates the memory near `node`. May sleep.
    pub(crate) fn new(node: Option<u32>) -> Result<Self> {
        Ok(Self {
            entries: TablePages::new(ENTRIES * ENTRY_BYTES, Gfp::KERNEL, node)?,
        })
    }

    /// What to write to `EVTLOG`.
    pub(crate) fn address(&self) -> EVTLOG {
        EVTLOG::at(self.entries.phys())
    }

    /// Writes an entry, as the unit does.
    #[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
    pub(crate) fn put(&self, index: usize, words: [u64; 2]) -> Result {
        let first = index % ENTRIES * WORDS;
        self.entries.word(first + 1)?.store(words[1], Relaxed);
        self.entries.word(first)?.store(words[0], Release);
        Ok(())
    }

    /// Takes the event at `index`; [`None`] if the unit has moved its tail but not written it yet.
    pub(crate) fn take(&self, index: usize) -> Option<Event> {
        let first = index % ENTRIES * WORDS;
        let (low, high) = (
            self.entries.word(first).ok()?,
            self.entries.word(first + 1).ok()?,
        );
        // Acquire: the unit writes the other word before the code.
        let event = Event::decode([low.load(Acquire), high.load(Relaxed)])?;
        // The next pass over the ring must not read it as a new event.
        low.store(0, Relaxed);
        high.store(0, Relaxed);
        Some(event)
    }
}

/// How often the log is read before other work gets a turn, while events keep coming.
const PASSES: u32 = 8;

/// The number of polls, a millisecond apart, until the log has stopped after an overflow.
const PATIENCE: u32 = 1000;

/// How a pass over the log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The next event raises an interrupt.
    Done,
    /// There may be more.
    More,
    /// There was an overflow, and the unit has not stopped yet.
    Overflowing,
}

/// The flags of a log, and its entries.
pub(crate) trait Source {
    /// The status register.
    fn flags(&self) -> STATUS;
    /// Clears EventLogInt.
    fn acknowledge(&self);
    /// Takes all events. Returns whether it reached the end: it does not if the unit has announced
    /// an event that it does not write.
    fn read(&self) -> bool;
    /// Clears EventOverflow, and makes the unit log again.
    fn restart(&self);
}

/// Takes the events of a log. More may be left after [`PASSES`] passes, or if the unit has not
/// written an event that it announced.
///
/// A unit raises an interrupt only if EventLogInt is clear, and it may set the flag in the moment
/// in which software clears it (erratum 1312): then this and all later interrupts are lost. So this
/// reads the flag again after the log, until it stays clear.
pub(crate) fn drain(source: &impl Source) -> Outcome {
    let has_overflow = |flags: STATUS| flags.event_overflow();
    let has_events = |flags: STATUS| flags.event_logged() || has_overflow(flags);
    // Until then the unit may write the events before it; the flag stays set.
    let has_stopped = |flags: STATUS| has_overflow(flags) && !flags.events();
    let mut flags = source.flags();

    for _ in 0..PASSES {
        // First: later events raise an interrupt again.
        source.acknowledge();
        if !source.read() {
            return Outcome::More;
        }
        if has_stopped(flags) {
            source.restart();
        }
        flags = source.flags();
        if !has_events(flags) {
            return Outcome::Done;
        }
    }
    if has_overflow(flags) && !has_stopped(flags) {
        Outcome::Overflowing
    } else {
        Outcome::More
    }
}

/// Reads a log until the next event raises an interrupt, with a pause after each pass that leaves
/// events.
///
/// # Errors
///
/// `ETIMEDOUT` if the unit does not stop after an overflow: it would raise no interrupt again, so
/// the log is useless.
pub(crate) fn drain_all(mut look: impl FnMut() -> Outcome, pause: impl Fn()) -> Result {
    let mut overflowing = 0;
    loop {
        match look() {
            Outcome::Done => return Ok(()),
            Outcome::More => overflowing = 0,
            Outcome::Overflowing => overflowing += 1,
        }
        if overflowing == PATIENCE {
            return Err(ETIMEDOUT);
        }
        pause();
    }
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// What happened.
    pub(crate) code: u8,
    /// The requester ID, if a device caused it.
    pub(crate) source: u16,
    /// The domain id of a host translation, or the PASID of a guest one.
    pub(crate) owner: u32,
    /// Flags whose meaning the code tells.
    flags: u16,
    /// The address of the request, or of a command.
    pub(crate) address: u64,
}

/// IO_PAGE_FAULT.
const PAGE_FAULT: u8 = 0x2;

/// `Event.flags` of [`PAGE_FAULT`]: the request was one of a guest, with a PASID or as PASID 0
/// (GN).
const GUEST: u16 = 1 << 0;
/// As above: the unit knew the page (PR).
const PRESENT: u16 = 1 << 4;
/// As above: the request was for a write (RW).
const WRITE: u16 = 1 << 5;
/// As above: the tables do not permit the access (PE).
const DENIED: u16 = 1 << 6;
/// As above: a table entry has a reserved bit set (RZ).
const RESERVED: u16 = 1 << 7;
/// As above: the request was an interrupt (I).
const INTERRUPT: u16 = 1 << 3;

impl Event {
    /// Decodes an entry of the log; [`None`] if it holds no event.
    pub(crate) fn decode(words: [u64; 2]) -> Option<Self> {
        // CAST: Each field is as wide as the type that it is cast to, or masked.
        let code = (words[0] >> 60) as u8;
        let flags = (words[0] >> 48) as u16 & 0xfff;
        let mut owner = (words[0] >> 32) as u32 & 0xffff;
        if code == PAGE_FAULT && flags & GUEST != 0 {
            owner |= (words[0] as u32 >> 16 & 0xf) << 16;
        }
        (code != 0).then_some(Self {
            code,
            source: words[0] as u16,
            owner,
            flags,
            address: words[1],
        })
    }

    /// What a page fault was about.
    fn cause(&self) -> &'static str {
        let has = |flag| self.flags & flag != 0;
        if has(RESERVED) {
            "a table entry has a reserved bit set"
        } else if has(INTERRUPT) {
            "the interrupt is not allowed"
        } else if has(DENIED) && has(PRESENT) {
            "the table does not allow such a request"
        } else if has(PRESENT) {
            "the device entry does not allow such a request"
        } else {
            "the address is not mapped, or the device is blocked"
        }
    }
}

/// The text for the code of an event (specification, 2.5.2 and following).
fn name(code: u8) -> &'static str {
    match code {
        0x1 => "the device entry is illegal",
        PAGE_FAULT => "request refused",
        0x3 => "the device entry cannot be read",
        0x4 => "a table cannot be read",
        0x5 => "a command is illegal",
        0x6 => "a command cannot be read",
        0x7 => "a device did not answer an invalidation in time",
        0x8 => "a request that devices may not send",
        0x9 => "a page request that devices may not send",
        0xa => "an event counter is zero",
        0xd => "the reverse map table refuses a request",
        0xe => "the reverse map table cannot be read",
        _ => "an unknown event",
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", name(self.code))?;
        // Events about commands name no device.
        if !matches!(self.code, 0x5 | 0x6) {
            let guest = self.code == PAGE_FAULT && self.flags & GUEST != 0;
            f.write_fmt(fmt!(
                ", device {} {} {:#x}",
                RequesterId(self.source),
                if guest { "PASID" } else { "domain" },
                self.owner
            ))?;
        }
        write!(f, ", address {:#x}", self.address)?;
        if self.code == PAGE_FAULT {
            let kind = if self.flags & WRITE != 0 && self.flags & PRESENT != 0 {
                "write"
            } else {
                "access"
            };
            write!(f, " ({kind}): {}", self.cause())?;
        }
        write!(f, " (code {:#x}, flags {:#05x})", self.code, self.flags)
    }
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
#[kunit_tests(rust_amdvi_event)]
mod tests {
    use super::*;
    use core::cell::Cell;

    /// A unit that logs an event when its flag is being cleared, as often as it is told to.
    struct Racing {
        flag: Cell<bool>,
        overflow: Cell<bool>,
        unread: Cell<u32>,
        races: Cell<u32>,
        restarts: Cell<u32>,
        /// How often it is looked at before an overflow stops it.
        running: Cell<u32>,
        /// How many events do not come.
        missing: Cell<u32>,
        reads: Cell<u32>,
    }

    impl Racing {
        fn new(races: u32, overflow: bool) -> Self {
            Self {
                flag: Cell::new(true),
                overflow: Cell::new(overflow),
                unread: Cell::new(1),
                races: Cell::new(races),
                restarts: Cell::new(0),
                running: Cell::new(0),
                missing: Cell::new(0),
                reads: Cell::new(0),
            }
        }

        /// Whether the next event is signalled, and none waits for it.
        fn signals(&self) -> bool {
            !self.flag.get() && !self.overflow.get() && self.unread.get() == 0
        }
    }

    impl Source for Racing {
        fn flags(&self) -> STATUS {
            let runs = self.running.get() > 0;
            self.running.set(self.running.get().saturating_sub(1));
            STATUS::zeroed()
                .with_event_logged(self.flag.get())
                .with_event_overflow(self.overflow.get())
                .with_events(runs)
        }

        fn acknowledge(&self) {
            self.flag.set(false);
        }

        fn read(&self) -> bool {
            self.reads.set(self.reads.get() + 1);
            if self.missing.get() > 0 {
                self.missing.set(self.missing.get() - 1);
                return false;
            }
            self.unread.set(0);
            if self.races.get() > 0 {
                // It comes after the log was read, and has set the flag before that.
                self.races.set(self.races.get() - 1);
                self.flag.set(true);
                self.unread.set(1);
            }
            true
        }

        fn restart(&self) {
            assert_eq!(self.running.get(), 0);
            self.restarts.set(self.restarts.get() + 1);
            self.overflow.set(false);
        }
    }

    #[test]
    fn no_event_is_left_without_a_signal() {
        for races in 0..PASSES {
            let unit = Racing::new(races, false);
            assert_eq!(drain(&unit), Outcome::Done);
            assert!(unit.signals());
            assert_eq!(unit.restarts.get(), 0);
        }
        // One that never ends is left for later.
        let unit = Racing::new(u32::MAX, false);
        assert_eq!(drain(&unit), Outcome::More);
        assert_eq!(unit.races.get(), u32::MAX - PASSES);
    }

    /// Each wait for one is long, with interrupts disabled.
    #[test]
    fn an_event_that_does_not_come_ends_the_pass() {
        let unit = Racing::new(0, true);
        unit.missing.set(2);
        for reads in 1..=2 {
            assert_eq!(drain(&unit), Outcome::More);
            assert_eq!((unit.reads.get(), unit.restarts.get()), (reads, 0));
        }
        assert_eq!(drain(&unit), Outcome::Done);
        assert!(unit.signals());
        assert_eq!(unit.restarts.get(), 1);
    }

    #[test]
    fn an_overflow_is_seen_once() {
        for races in 0..3 {
            let unit = Racing::new(races, true);
            assert_eq!(drain(&unit), Outcome::Done);
            assert!(unit.signals());
            assert_eq!(unit.restarts.get(), 1);
        }
    }

    #[test]
    fn a_log_is_restarted_once_it_has_stopped() {
        let unit = Racing::new(0, true);
        unit.running.set(3);
        assert_eq!(drain(&unit), Outcome::Done);
        assert_eq!((unit.reads.get(), unit.restarts.get()), (4, 1));
        // One that goes on is left for later.
        let unit = Racing::new(0, true);
        unit.running.set(u32::MAX);
        assert_eq!(drain(&unit), Outcome::Overflowing);
        assert_eq!(unit.restarts.get(), 0);
    }

    #[test]
    fn a_log_that_does_not_stop_is_given_up() {
        let drain_all = |unit: &Racing| drain_all(|| drain(unit), || ());
        // It stops late.
        let unit = Racing::new(0, true);
        unit.running.set(100 * PASSES);
        assert_eq!(drain_all(&unit), Ok(()));
        assert_eq!(unit.restarts.get(), 1);
        // Too late.
        unit.overflow.set(true);
        unit.running.set(2 * PATIENCE * PASSES);
        assert_eq!(drain_all(&unit), Err(ETIMEDOUT));
        assert_eq!(unit.restarts.get(), 1);
        // Events that keep coming are none of its faults.
        let unit = Racing::new(2 * PATIENCE * PASSES, false);
        assert_eq!(drain_all(&unit), Ok(()));
    }

    #[test]
    fn an_empty_entry_is_no_event() {
        assert_eq!(Event::decode([0x0fff_ffff_ffff_ffff, 0x1000]), None);
    }

    #[test]
    fn a_page_fault_is_decoded() {
        let event = Event::decode([0x2070_0007_0000_0210, 0x1234_5000]);
        assert_eq!(
            event,
            Some(Event {
                code: 2,
                source: 0x210,
                owner: 7,
                flags: 0x070,
                address: 0x1234_5000,
            })
        );
        assert!(event.is_some_and(|event| event.cause().contains("table does not allow")));
    }

    #[test]
    fn a_fault_of_a_guest_names_its_pasid() {
        let event = Event::decode([0x2021_2345_000a_0210, 0x1234_5000]);
        assert_eq!(event.map(|event| event.owner), Some(0xa_2345));
        // Elsewhere these bits mean something else.
        let event = Event::decode([0x2020_2345_000a_0210, 0x1234_5000]);
        assert_eq!(event.map(|event| event.owner), Some(0x2345));
    }

    #[test]
    fn an_event_is_taken_once() -> Result {
        let log = Log::new(None)?;
        assert_eq!(log.take(3), None);
        log.put(3, [0x5000_0000_0000_0000, 0x9000])?;
        assert_eq!(
            log.take(3).map(|event| (event.code, event.address)),
            Some((5, 0x9000))
        );
        assert_eq!(log.take(3), None);
        Ok(())
    }
}
