// SPDX-License-Identifier: GPL-2.0

//! An independent reader of raw tables, and a page table as a plain map.
//!
//! Neither shares code with the page tables: the reader knows the bits from the specifications, the
//! model knows no tables at all.

use iommu_pt_host::{
    error::{
        code::*,
        Error, //
    },
    pt::{
        tests::{
            cases::PHYS,
            memory::TestMem,
            Case, //
        },
        Iova,
        PhysAddr,
        Prot,
        TableMem,
        Top, //
    },
};
use std::collections::BTreeMap;

/// A leaf, by what can be said about it without a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub phys: PhysAddr,
    pub lg2: u32,
    pub prot: Prot,
    pub dirty: bool,
}

impl Leaf {
    pub fn size(&self) -> u64 {
        1 << self.lg2
    }
}

/// All that is in the memory of a page table.
#[derive(Debug, Default)]
pub struct Dump {
    pub leaves: BTreeMap<Iova, Leaf>,
    pub tables: u64,
}

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The permissions that a leaf of a case has, by comparing its word with those of the specification.
fn prot_of<C: Case>(word: u64, level: u32) -> Prot {
    let fixed = C::HARDWARE.accessed | C::HARDWARE.dirty | ADDRESS;

    C::LEAVES
        .iter()
        .find(|(_, words)| words[level as usize] & !ADDRESS == word & !fixed)
        .unwrap_or_else(|| panic!("no permissions have the word {word:#x}"))
        .0
}

/// What a case makes of permissions: some formats know fewer of them.
pub fn prot_in<C: Case>(prot: Prot) -> Prot {
    let find = |prot| C::LEAVES.iter().find(|(known, _)| *known == prot);
    let words = find(prot)
        .or_else(|| find(prot | Prot::SNOOP))
        .unwrap_or_else(|| panic!("{prot:?} is not in the table of words"))
        .1;

    prot_of::<C>(words[0] & !PHYS, 0)
}

/// Reads the whole tree.
pub fn dump<C: Case>(mem: &TestMem, top: Top) -> Dump {
    let mut dump = Dump::default();

    read_table::<C>(mem, top.phys, u32::from(top.levels) - 1, 0, &mut dump);
    dump
}

fn read_table<C: Case>(mem: &TestMem, table: PhysAddr, level: u32, base: Iova, dump: &mut Dump) {
    let hardware = &C::HARDWARE;
    let shift = 12 + 9 * level;

    dump.tables += 1;
    for index in 0..512u64 {
        // SAFETY: The address was found in an entry or is that of the top; nobody else uses it.
        let word = unsafe { (&mem).virt(table).cast::<u64>().add(index as usize).read() };
        let iova = base + (index << shift);

        if word & hardware.present == 0 {
            assert_eq!(word, 0, "an empty entry must be all zeroes");
        } else if level == 0 || word & 1 << 7 != 0 {
            assert!(level <= 2, "no leaf can be at level {level}");
            assert_eq!(word & ADDRESS & ((1 << shift) - 1), 0, "{word:#x}");
            dump.leaves.insert(
                iova,
                Leaf {
                    phys: word & ADDRESS,
                    lg2: shift,
                    prot: prot_of::<C>(word, level),
                    dirty: word & hardware.dirty != 0,
                },
            );
        } else {
            let bits = word & !ADDRESS & !hardware.accessed;

            assert_eq!(bits, C::TABLE & !ADDRESS & !hardware.accessed);
            read_table::<C>(mem, word & ADDRESS, level - 1, iova, dump);
        }
    }
}

/// What a page table should hold.
#[derive(Debug, Default)]
pub struct Model {
    pub leaves: BTreeMap<Iova, Leaf>,
    pub sizes: Vec<u32>,
    pub last: Iova,
}

impl Model {
    /// The leaf that covers `iova`.
    pub fn find(&self, iova: Iova) -> Option<(Iova, Leaf)> {
        let (first, leaf) = self.leaves.range(..=iova).next_back()?;

        (iova - first < leaf.size()).then_some((*first, *leaf))
    }

    fn is_free(&self, first: Iova, size: u64) -> bool {
        self.leaves
            .range(..first + size)
            .next_back()
            .is_none_or(|(other, leaf)| other + leaf.size() <= first)
    }

    pub fn map(
        &mut self,
        iova: Iova,
        phys: PhysAddr,
        len: u64,
        prot: Prot,
    ) -> (u64, Result<(), Error>) {
        if (iova | phys | len) % 4096 != 0 {
            return (0, Err(EINVAL));
        }
        if iova + len - 1 > self.last || phys + len > 1 << 52 {
            return (0, Err(ERANGE));
        }

        let mut done = 0;

        while done < len {
            let lg2 = *self
                .sizes
                .iter()
                .filter(|lg2| {
                    let size = 1u64 << **lg2;

                    (iova + done) % size == 0 && (phys + done) % size == 0 && len - done >= size
                })
                .max()
                .unwrap();

            if !self.is_free(iova + done, 1 << lg2) {
                return (done, Err(EADDRINUSE));
            }
            self.leaves.insert(
                iova + done,
                Leaf {
                    phys: phys + done,
                    lg2,
                    prot,
                    dirty: false,
                },
            );
            done += 1 << lg2;
        }
        (done, Ok(()))
    }

    pub fn unmap(&mut self, iova: Iova, len: u64) -> u64 {
        let mut done = 0;

        if iova + len - 1 > self.last {
            return 0;
        }
        while done < len {
            match self.leaves.remove(&(iova + done)) {
                Some(leaf) => done += leaf.size(),
                None => break,
            }
        }
        done
    }

    pub fn translate(&self, iova: Iova) -> Option<PhysAddr> {
        self.find(iova)
            .map(|(first, leaf)| leaf.phys + (iova - first))
    }

    /// A write of the device; whether it is allowed.
    pub fn write(&mut self, iova: Iova) -> bool {
        let Some((first, leaf)) = self.find(iova) else {
            return false;
        };

        if !leaf.prot.contains(Prot::WRITE) {
            return false;
        }
        self.leaves.get_mut(&first).unwrap().dirty = true;
        true
    }

    /// The dirty runs of a query.
    pub fn harvest(&mut self, first: Iova, last: Iova, clear: bool) -> Vec<(Iova, Iova)> {
        let mut runs: Vec<(Iova, Iova)> = Vec::new();

        for (start, leaf) in &mut self.leaves {
            let end = start + leaf.size() - 1;

            if end < first || *start > last || !leaf.dirty {
                continue;
            }

            let part = ((*start).max(first), end.min(last));

            if clear && part == (*start, end) {
                leaf.dirty = false;
            }
            match runs.last_mut() {
                Some(run) if run.1 + 1 == part.0 => run.1 = part.1,
                _ => runs.push(part),
            }
        }
        runs
    }
}
