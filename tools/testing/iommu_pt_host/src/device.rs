// SPDX-License-Identifier: GPL-2.0

//! Devices as threads: they walk the tables, set A and D by compare-and-swap, and cache.
//!
//! A device caches each translation, and whether its leaf was dirty, until an invalidation. A write
//! through a translation that is cached as dirty touches no table; a write through a translation
//! that is cached as clean walks again and sets D. The device also caches the links to tables and
//! the top, and walks by them until it is told to use others.

use crate::{
    memory::HostMem,
    model::Leaf,
    pt::{
        DetachedTable,
        Gather,
        Iova,
        NewTop,
        Range,
        Top, //
    },
    reader::{
        access_by,
        Fault,
        Links, //
    },
    spec::Spec, //
};
use std::{
    collections::BTreeMap,
    sync::{
        atomic::{
            AtomicBool,
            AtomicU64,
            Ordering::SeqCst, //
        },
        Mutex, //
    },
    thread, //
};

/// What devices share: they check for a flush, at least after each access.
pub struct Bus {
    /// The number of requested flushes.
    asked: AtomicU64,
    /// The number of the last flush that each device has done.
    seen: Vec<AtomicU64>,
    /// The top that the hardware walks; an attach would take the lock.
    top: Mutex<Top>,
    /// Whether devices have to stop.
    pub stop: AtomicBool,
}

impl Bus {
    /// A bus with so many devices, which walk `top`.
    pub fn new(devices: usize, top: Top) -> Self {
        Self {
            asked: AtomicU64::new(0),
            seen: (0..devices).map(|_| AtomicU64::new(0)).collect(),
            top: Mutex::new(top),
            stop: AtomicBool::new(false),
        }
    }

    /// Makes every device drop its cache, and waits until none has an access in flight.
    pub fn flush(&self) {
        let asked = self.asked.fetch_add(1, SeqCst) + 1;

        for seen in &self.seen {
            while seen.load(SeqCst) < asked {
                thread::yield_now();
            }
        }
    }

    /// The top that the hardware walks.
    pub fn top(&self) -> Top {
        *self.top.lock().unwrap()
    }

    /// A device that has ended counts as having done every flush.
    fn leave(&self, number: usize) {
        self.seen[number].store(u64::MAX, SeqCst);
    }
}

/// The cache of a device.
pub struct Device<'t> {
    number: usize,
    bus: &'t Bus,
    mem: &'t HostMem,
    top: Top,
    /// Translations by the first address of the leaf.
    tlb: BTreeMap<Iova, Leaf>,
    /// Links to tables.
    links: Links,
    flushed: u64,
    random: u64,
}

impl<'t> Device<'t> {
    /// The device with that number, with an empty cache.
    pub fn new(number: usize, bus: &'t Bus, mem: &'t HostMem) -> Self {
        Self {
            number,
            bus,
            mem,
            top: *bus.top.lock().unwrap(),
            tlb: BTreeMap::new(),
            links: Links::new(),
            flushed: 0,
            random: 0x9e37_79b9_7f4a_7c15 + number as u64,
        }
    }

    /// A random number.
    pub fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Drops the cache if a flush is requested, and then confirms it.
    pub fn obey(&mut self) {
        let asked = self.bus.asked.load(SeqCst);

        if asked != self.flushed {
            self.tlb.clear();
            self.links.clear();
            self.top = *self.bus.top.lock().unwrap();
            self.flushed = asked;
            self.bus.seen[self.number].store(asked, SeqCst);
        }
    }

    /// Uses the latest top of the hardware, as a device may at any time.
    pub fn look_at_top(&mut self) {
        self.top = *self.bus.top.lock().unwrap();
    }

    /// Where a write to `iova` goes.
    ///
    /// # Errors
    ///
    /// Those of [`access`].
    pub fn write<S: Spec>(&mut self, iova: Iova) -> Result<u64, Fault> {
        if let Some((first, leaf)) = self.tlb.range(..=iova).next_back() {
            if iova - first <= leaf.span() && leaf.dirty {
                return Ok(leaf.phys + (iova - first));
            }
        }

        let pick = self.random();
        let links = &mut self.links;
        let leaf = access_by::<S>(self.mem, self.top, iova, true, pick, links)?;
        let first = iova & !leaf.span();

        self.tlb.insert(
            first,
            Leaf {
                dirty: true,
                ..leaf
            },
        );
        Ok(leaf.phys + (iova - first))
    }

    /// Where a read of `iova` comes from.
    ///
    /// # Errors
    ///
    /// Those of [`access`].
    pub fn read<S: Spec>(&mut self, iova: Iova) -> Result<u64, Fault> {
        if let Some((first, leaf)) = self.tlb.range(..=iova).next_back() {
            if iova - first <= leaf.span() {
                return Ok(leaf.phys + (iova - first));
            }
        }

        let pick = self.random();
        let links = &mut self.links;
        let leaf = access_by::<S>(self.mem, self.top, iova, false, pick, links)?;
        let first = iova & !leaf.span();

        // The leaf may be dirty; a device that has not written does not rely on that.
        self.tlb.insert(
            first,
            Leaf {
                dirty: false,
                ..leaf
            },
        );
        Ok(leaf.phys + (iova - first))
    }
}

impl Drop for Device<'_> {
    /// Also after a failure: otherwise a thread would wait for the device for ever.
    fn drop(&mut self) {
        self.bus.leave(self.number);
    }
}

/// Frees tables after a flush of the bus, and gives it a new top.
pub struct Flusher<'t> {
    bus: &'t Bus,
    mem: &'t HostMem,
    tables: Vec<DetachedTable<&'t HostMem>>,
    /// How often a new top was used, and how often another map was faster.
    pub tops: (u64, u64),
}

impl<'t> Flusher<'t> {
    /// An empty gather.
    pub fn new(bus: &'t Bus, mem: &'t HostMem) -> Self {
        Self {
            bus,
            mem,
            tables: Vec::new(),
            tops: (0, 0),
        }
    }

    /// Flushes the devices, and frees the tables that waited for that.
    pub fn flush(&mut self) {
        self.bus.flush();
        for table in self.tables.drain(..) {
            // SAFETY: No device holds a translation from before the flush.
            unsafe { table.free(&self.mem) }
        }
    }
}

impl<'t> Gather<&'t HostMem> for Flusher<'t> {
    fn add_range(&mut self, _range: Range) {}

    fn queue_free(&mut self, table: DetachedTable<&'t HostMem>) {
        self.tables.push(table);
    }

    fn change_top(&mut self, mut new: NewTop<'_>) {
        let mut top = self.bus.top.lock().unwrap();

        if new.is_current() {
            *top = new.top();
            // Devices walk the new top from here on, and the others the old one.
            thread::yield_now();
            // SAFETY: Devices use the top that the bus has, or took one of it that is still there:
            // nothing is freed before all have looked again.
            unsafe { new.publish() };
            self.tops.0 += 1;
        } else {
            self.tops.1 += 1;
        }
    }
}
