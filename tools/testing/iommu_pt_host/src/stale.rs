// SPDX-License-Identifier: GPL-2.0

//! Hardware that remembers: the worst that leaves which are split and joined can meet.
//!
//! It caches translations of every size for the same address at once, and uses any of them, or
//! walks anew. It notes the first write through a translation that it has cached as clean late, in
//! the entry that it remembers, whatever has become of that: it only looks whether the entry is
//! present. If the specification has it compare the entry, it does so. Links to tables are cached
//! as well, and dropped only by a flush that asks for it.

use crate::{
    memory::HostMem,
    model::Leaf,
    pt::{
        Iova,
        PhysAddr,
        Prot,
        Range,
        Top, //
    },
    reader::Fault,
    spec::{
        mask,
        Spec,
        Word, //
    }, //
};
use std::{
    marker::PhantomData,
    sync::atomic::Ordering::SeqCst, //
};

/// An entry, by its place in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    table: PhysAddr,
    index: u64,
    level: u32,
}

/// A translation in the cache.
#[derive(Clone, Copy, Debug)]
struct Cached {
    first: Iova,
    leaf: Leaf,
    /// Where it was read, and what.
    place: Place,
    word: u64,
}

/// A link to a table in the cache, with the addresses that it is for.
#[derive(Clone, Copy, Debug)]
struct Link {
    place: Place,
    word: u64,
    first: Iova,
    last: Iova,
}

/// The hardware.
pub struct Stale<'m, S> {
    mem: &'m HostMem,
    top: Top,
    tlb: Vec<Cached>,
    links: Vec<Link>,
    random: u64,
    /// How many writes were noted late, and how many of them in a link.
    pub late: (u64, u64),
    spec: PhantomData<S>,
}

fn overlaps(range: Range, first: Iova, last: Iova) -> bool {
    range.first() <= last && first <= range.last()
}

impl<'m, S: Spec> Stale<'m, S> {
    /// Hardware that walks `top`.
    pub fn new(mem: &'m HostMem, top: Top, seed: u64) -> Self {
        Self {
            mem,
            top,
            tlb: Vec::new(),
            links: Vec::new(),
            random: seed | 1,
            late: (0, 0),
            spec: PhantomData,
        }
    }

    /// A random number.
    pub fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// A random number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.random() % end
    }

    /// Forgets the translations of `range`, and with `links` the links to tables on the way.
    pub fn flush(&mut self, range: Range, links: bool) {
        self.tlb
            .retain(|entry| !overlaps(range, entry.first, entry.first + entry.leaf.span()));
        if links {
            self.links
                .retain(|link| !overlaps(range, link.first, link.last));
        }
    }

    /// Forgets a few things without being asked.
    pub fn forget(&mut self) {
        if !self.tlb.is_empty() {
            let victim = self.below(self.tlb.len() as u64) as usize;

            self.tlb.swap_remove(victim);
        }
        if !self.links.is_empty() {
            let victim = self.below(self.links.len() as u64) as usize;

            self.links.swap_remove(victim);
        }
    }

    fn load(&self, place: Place) -> u64 {
        assert!(
            self.mem.is_live(place.table),
            "the hardware uses a table that was freed"
        );
        self.mem.word(place.table, place.index).load(SeqCst)
    }

    fn exchange(&self, place: Place, old: u64, new: u64) -> bool {
        self.mem
            .word(place.table, place.index)
            .compare_exchange(old, new, SeqCst, SeqCst)
            .is_ok()
    }

    /// Notes a write through what was cached as clean; whether that could be done.
    fn note_late(&mut self, cached: &Cached) -> bool {
        let late = S::LATE_DIRT.expect("leaves are split");

        if late == 0 {
            return self.exchange(cached.place, cached.word, S::written(cached.word));
        }
        // One thread: nothing comes in between.
        let now = self.load(cached.place);
        let noted = match S::read(now, cached.place.level) {
            Ok(Word::Table(_)) => now | late,
            Ok(Word::Leaf { .. }) => S::written(now),
            Ok(Word::Empty) | Err(_) => return false,
        };

        self.late.0 += 1;
        self.late.1 += u64::from(matches!(
            S::read(now, cached.place.level),
            Ok(Word::Table(_))
        ));
        assert!(self.exchange(cached.place, now, noted));
        true
    }

    /// Where a read or write of `iova` goes.
    ///
    /// # Errors
    ///
    /// What the hardware would report.
    pub fn access(&mut self, iova: Iova, write: bool) -> Result<PhysAddr, Fault> {
        let needed = if write { Prot::WRITE } else { Prot::READ };
        let found: Vec<usize> = (0..self.tlb.len())
            .filter(|number| {
                let entry = &self.tlb[*number];

                entry.first <= iova
                    && iova - entry.first <= entry.leaf.span()
                    && entry.leaf.prot.contains(needed)
            })
            .collect();

        if !found.is_empty() && self.below(4) != 0 {
            let number = found[self.below(found.len() as u64) as usize];
            let cached = self.tlb[number];

            if !write || cached.leaf.dirty || self.note_late(&cached) {
                self.tlb[number].leaf.dirty |= write;
                return Ok(cached.leaf.phys + (iova - cached.first));
            }
            self.tlb.swap_remove(number);
        }
        self.walk(iova, write)
    }

    fn walk(&mut self, iova: Iova, write: bool) -> Result<PhysAddr, Fault> {
        let needed = if write { Prot::WRITE } else { Prot::READ };
        let mut table = self.top.phys;
        let mut level = u32::from(self.top.levels) - 1;

        loop {
            let shift = S::item_lg2(level);
            let is_top = level + 1 == u32::from(self.top.levels);
            let bits = if is_top { S::TOP_LG2 } else { 9 };
            let mut place = Place {
                table,
                index: iova >> shift & mask(bits),
                level,
            };
            let known = self.links.iter().find(|link| link.place == place).copied();
            let mut word = match known {
                Some(link) if self.below(4) != 0 => link.word,
                _ => self.load(place),
            };

            if let Ok(Word::Leaf { lg2, .. }) = S::read(word, level) {
                // Any entry of a row: the walk may have been for another address.
                let others = mask(lg2 - shift);

                place.index = place.index & !others | self.random() & others;
                word = self.load(place);
            }
            match S::read(word, level).map_err(Fault::Malformed)? {
                Word::Empty => return Err(Fault::NotMapped),
                Word::Table(phys) => {
                    let first = iova & !mask(shift);

                    self.links.push(Link {
                        place,
                        word,
                        first,
                        last: first | mask(shift),
                    });
                    table = phys;
                    level -= 1;
                }
                Word::Leaf { prot, .. } if !prot.contains(needed) => return Err(Fault::NotAllowed),
                Word::Leaf { phys, lg2, prot } => {
                    let first = iova & !mask(lg2);
                    let used = if write {
                        S::written(word)
                    } else {
                        word | S::ACCESSED
                    };

                    if lg2 < shift || place.index != iova >> shift & mask(bits) && lg2 == shift {
                        // Another entry of the row is a leaf by itself already.
                        continue;
                    }
                    assert!(self.exchange(place, word, used));
                    self.tlb.push(Cached {
                        first,
                        leaf: Leaf {
                            phys,
                            lg2,
                            prot,
                            dirty: S::is_dirty(used),
                        },
                        place,
                        word: used,
                    });
                    return Ok(phys + (iova - first));
                }
            }
        }
    }
}
