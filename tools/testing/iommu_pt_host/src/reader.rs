// SPDX-License-Identifier: GPL-2.0

//! A reader of raw tables, and the hardware's walk: both know the bits from [`Spec`] only.

use crate::{
    memory::{
        HostMem,
        Words, //
    },
    model::Leaf,
    pt::{
        Iova,
        PhysAddr,
        Prot,
        Top,
        TABLE_BYTES, //
    },
    spec::{
        mask,
        Spec,
        Word,
        ENTRIES, //
    }, //
};
use std::{
    collections::HashMap,
    marker::PhantomData,
    sync::atomic::Ordering::{
        Acquire,
        SeqCst, //
    }, //
};

/// What an observer sees of the tables.
pub trait View {
    /// The words of the table at `table`.
    fn words(&self, table: PhysAddr) -> Box<Words>;
}

/// The tables of a tree, with the first and the last address that each is for.
pub type Tables = HashMap<PhysAddr, (Iova, Iova)>;

/// Reads the whole tree and panics where the specification does; gives each leaf to `found`, with
/// its first address and in ascending order, but for those of a signed space, whose upper half
/// comes last anyway.
pub fn read<S: Spec>(view: &impl View, top: Top, found: impl FnMut(Iova, Leaf)) -> Tables {
    let mut reader = Reader::<_, S, _> {
        view,
        levels: top.levels,
        found: Some(found),
        tables: Tables::new(),
        spec: PhantomData,
    };

    reader.top(top);
    reader.tables
}

/// Reads the tables only: those of level 0 are counted and not looked into.
pub fn tables<S: Spec>(view: &impl View, top: Top) -> Tables {
    let mut reader = Reader::<_, S, fn(Iova, Leaf)> {
        view,
        levels: top.levels,
        found: None,
        tables: Tables::new(),
        spec: PhantomData,
    };

    reader.top(top);
    reader.tables
}

struct Reader<'v, V, S, L> {
    view: &'v V,
    levels: u8,
    found: Option<L>,
    tables: Tables,
    spec: PhantomData<S>,
}

impl<V: View, S: Spec, L: FnMut(Iova, Leaf)> Reader<'_, V, S, L> {
    /// The tables that the top is, side by side.
    fn top(&mut self, top: Top) {
        let level = u32::from(top.levels) - 1;

        for part in 0..1 << (S::TOP_LG2 - 9) {
            // A top of several tables is for fewer address bits than there are.
            let base = if part == 0 {
                0
            } else {
                part << (S::item_lg2(level) + 9)
            };

            self.table(top.phys + part * TABLE_BYTES as u64, level, base);
        }
    }

    fn table(&mut self, table: PhysAddr, level: u32, base: Iova) {
        let shift = S::item_lg2(level);
        let first = S::canonical(base, self.levels);
        let last = S::canonical(base | mask(shift + 9), self.levels);

        assert!(
            self.tables.insert(table, (first, last)).is_none(),
            "two entries lead to one table"
        );
        if level == 0 && self.found.is_none() {
            return;
        }

        let words = self.view.words(table);
        let mut index = 0;

        while index < ENTRIES {
            let word = words[index as usize];

            if word == 0 {
                index += 1;
                continue;
            }

            let said = S::read(word, level)
                .unwrap_or_else(|wrong| panic!("{word:#018x} at level {level}: {wrong}"));
            let offset = u128::from(index) << shift;

            assert!(
                offset < 1 << 64,
                "an entry beyond the address space is used"
            );

            let iova = base | offset as u64;

            match said {
                Word::Empty => index += 1,
                Word::Table(phys) => {
                    self.table(phys, level - 1, iova);
                    index += 1;
                }
                Word::Leaf { phys, lg2, prot } => {
                    let entries = 1 << (lg2 - shift);

                    assert_eq!(index % entries, 0, "{word:#x}: a leaf begins in the middle");

                    let copies = &words[index as usize..(index + entries) as usize];
                    let hardware = S::ACCESSED | S::DIRTY;

                    assert!(
                        copies.iter().zip(0..).all(|(copy, number)| {
                            (copy ^ S::in_row(word, number, level)) & !hardware == 0
                        }),
                        "{word:#x}: the entries of a leaf differ"
                    );

                    assert!(
                        S::address_in_row(word).is_none_or(|first| first == phys),
                        "{word:#x}: the first entry of a leaf has another address"
                    );

                    let leaf = Leaf {
                        phys,
                        lg2,
                        prot,
                        dirty: copies.iter().any(|copy| S::is_dirty(*copy)),
                    };

                    if let Some(found) = &mut self.found {
                        found(S::canonical(iova, self.levels), leaf);
                    }
                    index += entries;
                }
            }
        }
    }
}

/// Why an access failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is mapped there, or there is no such address.
    NotMapped,
    /// It is mapped, but without the permission.
    NotAllowed,
    /// An entry holds what the specification forbids.
    Malformed(&'static str),
}

/// Words that link to tables, as hardware may cache them, by table and index.
pub type Links = HashMap<(PhysAddr, u64), u64>;

/// Reads or writes `iova` as a device without caches does: see [`access_by`].
///
/// # Errors
///
/// Returns what the hardware would report.
pub fn access<S: Spec>(
    mem: &HostMem,
    top: Top,
    iova: Iova,
    write: bool,
    pick: u64,
) -> Result<Leaf, Fault> {
    access_by::<S>(mem, top, iova, write, pick, &mut Links::new())
}

/// Reads or writes `iova` as a device does: walks, sets A on the way and D in the leaf.
///
/// The walk uses cached links, `links`, without reading them again. If a leaf is in several
/// entries, hardware uses any of them; `pick` chooses which. Loads acquire: a table exists before
/// the entry that links to it.
///
/// # Errors
///
/// Returns what the hardware would report.
pub fn access_by<S: Spec>(
    mem: &HostMem,
    top: Top,
    iova: Iova,
    write: bool,
    pick: u64,
    links: &mut Links,
) -> Result<Leaf, Fault> {
    let needed = if write { Prot::WRITE } else { Prot::READ };
    let mut table = top.phys;
    let mut level = u32::from(top.levels) - 1;

    if S::canonical(iova & mask(S::item_lg2(level) + S::TOP_LG2), top.levels) != iova {
        return Err(Fault::NotMapped);
    }
    loop {
        let shift = S::item_lg2(level);
        let is_top = level + 1 == u32::from(top.levels);
        let index = (iova >> shift) & mask(if is_top { S::TOP_LG2 } else { 9 });
        let mut entry = mem.word(table, index);
        let known = links.get(&(table, index)).copied();
        let mut word = known.unwrap_or_else(|| entry.load(Acquire));

        if let Ok(Word::Leaf { lg2, .. }) = S::read(word, level) {
            let others = (1 << (lg2 - shift)) - 1;

            entry = mem.word(table, index & !others | pick & others);
            word = entry.load(Acquire);
        }
        loop {
            let said = S::read(word, level).map_err(Fault::Malformed)?;
            let used = match said {
                Word::Empty => return Err(Fault::NotMapped),
                Word::Table(_) => word | S::ACCESSED_LINK,
                Word::Leaf { prot, .. } if !prot.contains(needed) => return Err(Fault::NotAllowed),
                Word::Leaf { .. } if write => S::written(word),
                Word::Leaf { .. } => word | S::ACCESSED,
            };

            // If the word has changed since it was read, read it again.
            if used != word && known.is_none() {
                if let Err(now) = entry.compare_exchange(word, used, SeqCst, Acquire) {
                    word = now;
                    continue;
                }
            }
            match said {
                Word::Table(phys) => {
                    links.insert((table, index), word);
                    table = phys;
                    level -= 1;
                    break;
                }
                Word::Leaf { phys, lg2, prot } => {
                    return Ok(Leaf {
                        phys,
                        lg2,
                        prot,
                        dirty: S::is_dirty(word),
                    });
                }
                Word::Empty => unreachable!(),
            }
        }
    }
}
