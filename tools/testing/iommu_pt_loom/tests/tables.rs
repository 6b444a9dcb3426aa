// SPDX-License-Identifier: GPL-2.0

//! Tables that are linked, unlinked and grown, in every order.

use iommu_pt_loom::{
    memory::{
        Links,
        Mem,
        Waiting, //
    },
    pt::{
        fmt::{
            AmdV1,
            VtdSs, //
        },
        Config,
        DirtySink,
        Entry,
        Exclusive,
        Format,
        Iova,
        Level,
        PageTable,
        PhysAddr,
        Prot,
        Range,
        Stable,
        Walks, //
    }, //
};
use loom::{
    sync::{
        Arc,
        Mutex, //
    },
    thread, //
};

const K4: u64 = 4096;
const M2: u64 = 512 * K4;
const PHYS: u64 = 1 << 32;

struct Tree<F: Format> {
    mem: Mem,
    table: PageTable<F, Mem>,
    walks: Walks<Mem>,
    top_lock: Mutex<()>,
    walking: Mutex<Links>,
}

impl<F: Format> Tree<F> {
    fn new(levels: u8, max_levels: u8) -> Arc<Self> {
        let mem = Mem::default();
        let config = Config {
            levels,
            max_levels,
            page_sizes: K4 | M2,
            input_lg2: 39,
            output_lg2: 48,
            coherent: true,
            marks: true,
            splits: false,
        };

        Arc::new(Self {
            mem: mem.clone(),
            walks: Walks::new(mem.clone()),
            table: PageTable::new(mem, config, ()).unwrap(),
            top_lock: Mutex::new(()),
            walking: Mutex::default(),
        })
    }

    fn gather(&self) -> Waiting<'_> {
        Waiting::new(&self.mem, &self.walks, &self.top_lock, &self.walking)
    }

    fn map(&self, iova: Iova, len: u64) {
        // SAFETY: No two threads use the same address.
        let mut claim = unsafe { Exclusive::new(Range::new(iova, len).unwrap(), &self.table) };
        let prot = Prot::READ | Prot::WRITE;
        let mapped = self
            .table
            .map(&mut claim, PHYS + iova, prot, (), &mut self.gather());

        assert_eq!(mapped, (len, Ok(())));
    }

    fn unmap(&self, iova: Iova, len: u64) -> u64 {
        // SAFETY: As in `map()`.
        let mut claim = unsafe { Exclusive::new(Range::new(iova, len).unwrap(), &self.table) };

        self.table.unmap(&mut claim, &mut self.gather())
    }

    fn translate(&self, iova: Iova) -> Option<PhysAddr> {
        // SAFETY: As in `map()`.
        let claim = unsafe { Stable::at(iova, &self.table) };

        self.table.iova_to_phys(&claim)
    }

    /// What the hardware makes of an address, whatever may be changing it: by the words that lead
    /// to tables as it remembers them.
    fn walk(&self, iova: Iova) -> Option<PhysAddr> {
        let mut links = self.walking.lock().unwrap();
        let top = self.table.top();
        let mut table = top.phys;

        for number in (0..top.levels).rev() {
            let slot = (iova >> (12 + 9 * u32::from(number))) as usize % 512;
            let word = links.get(&(table, slot)).copied().unwrap_or_else(|| {
                let word = self.mem.word(table, slot);

                // SAFETY: The word is there.
                unsafe { word.as_ptr().read_volatile() }
            });

            match F::decode(word, Level::top_of(number + 1).unwrap()) {
                Entry::Empty => return None,
                Entry::Leaf { phys, .. } => return Some(phys),
                Entry::Table(phys) => {
                    links.insert((table, slot), word);
                    table = phys;
                }
            }
        }
        unreachable!()
    }
}

fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();

    // The largest number of preemptions.
    builder.preemption_bound = Some(3);
    builder.check(test);
}

#[test]
fn two_need_the_same_tables() {
    model(|| {
        let tree = Tree::<VtdSs>::new(3, 3);
        let other = tree.clone();
        let thread = thread::spawn(move || other.map(K4, K4));

        tree.map(0, K4);
        assert_eq!(tree.translate(0), Some(PHYS));
        thread.join().unwrap();
        assert_eq!(tree.translate(K4), Some(PHYS + K4));
        assert_eq!(tree.translate(0), Some(PHYS));
        assert_eq!(tree.mem.live(), 3);
    });
}

#[test]
fn hardware_walks_while_a_page_is_mapped() {
    model(|| {
        let tree = Tree::<VtdSs>::new(3, 3);
        let device = tree.clone();
        let thread = thread::spawn(move || device.walk(0));

        tree.map(0, K4);
        assert!(matches!(thread.join().unwrap(), None | Some(PHYS)));
        assert_eq!(tree.walk(0), Some(PHYS));
    });
}

#[test]
fn hardware_walks_while_a_leaf_replaces_a_table() {
    model(|| {
        let tree = Tree::<VtdSs>::new(3, 3);

        tree.map(0, K4);
        assert_eq!(tree.unmap(0, K4), K4);

        let device = tree.clone();
        let thread = thread::spawn(move || device.walk(0));

        tree.map(0, M2);
        assert!(matches!(thread.join().unwrap(), None | Some(PHYS)));
        assert_eq!(tree.walk(0), Some(PHYS));
        assert_eq!(tree.mem.live(), 2);
    });
}

#[test]
fn two_need_the_same_top() {
    model(|| {
        let tree = Tree::<AmdV1>::new(1, 3);

        tree.map(0, K4);

        let other = tree.clone();
        let thread = thread::spawn(move || {
            other.map(M2, K4);
            other.translate(M2)
        });

        tree.map(M2 + K4, K4);
        assert_eq!(tree.translate(0), Some(PHYS));
        assert_eq!(thread.join().unwrap(), Some(PHYS + M2));
        assert_eq!(tree.translate(M2 + K4), Some(PHYS + M2 + K4));
        // The old top, the new one, and the table of the two pages.
        assert_eq!(tree.mem.live(), 3);
    });
}

#[test]
fn hardware_walks_while_the_top_grows() {
    model(|| {
        let tree = Tree::<AmdV1>::new(1, 2);

        tree.map(0, K4);

        let device = tree.clone();
        let thread = thread::spawn(move || device.walk(0));

        tree.map(M2, K4);
        assert_eq!(thread.join().unwrap(), Some(PHYS));
        assert_eq!(tree.walk(M2), Some(PHYS + M2));
    });
}

/// The pages of 4 KiB that were reported.
#[derive(Default)]
struct Pages(Vec<u64>);

impl DirtySink for Pages {
    fn record(&mut self, range: Range) {
        self.0.extend(range.first() / K4..=range.last() / K4);
    }

    fn cleared(&mut self, _range: Range) {}

    fn split(&mut self, _range: Range) {}
}

impl<F: Format> Tree<F> {
    /// Harvests three pages, while other threads may change them.
    fn harvest(&self) -> Vec<u64> {
        let range = Range::new(0, 3 * K4).unwrap();
        // SAFETY: Tables are freed by `Waiting`.
        let walk = unsafe { self.walks.enter(range, &self.table) }.unwrap();
        let mut pages = Pages::default();

        self.table
            .read_and_clear_dirty(&walk, true, &mut pages)
            .unwrap();
        pages.0
    }

    fn write(&self, iova: Iova) {
        // SAFETY: As in `map()`.
        let claim = unsafe { Stable::at(iova, &self.table) };

        self.table.tree().set_dirty(&claim).unwrap();
    }
}

/// An entry that is unmapped during a harvest does not come back, in any interleaving.
#[test]
fn a_page_is_unmapped_beside_a_harvest() {
    model(|| {
        let tree = Tree::<VtdSs>::new(3, 3);

        tree.map(0, 2 * K4);
        tree.write(0);
        tree.write(K4);

        let other = tree.clone();
        let thread = thread::spawn(move || assert_eq!(other.unmap(0, K4), K4));
        let found = tree.harvest();

        thread.join().unwrap();
        assert_eq!(tree.translate(0), None);
        assert_eq!(tree.walk(0), None);
        assert!(found == [0, 1] || found == [1]);
        assert_eq!(tree.harvest(), []);
    });
}

/// A table that is replaced during a harvest is freed exactly once, after its last reader has
/// left.
#[test]
fn a_table_is_replaced_beside_a_harvest() {
    model(|| {
        let tree = Tree::<VtdSs>::new(3, 3);

        tree.map(0, K4);
        tree.write(0);

        let other = tree.clone();
        let thread = thread::spawn(move || {
            assert_eq!(other.unmap(0, K4), K4);
            other.map(0, M2);
        });
        let found = tree.harvest();

        thread.join().unwrap();
        assert!(found == [0] || found.is_empty());
        assert_eq!(tree.translate(0), Some(PHYS));
        assert_eq!(tree.mem.live(), 2);
        assert!(tree.walks.is_idle());
    });
}

/// The same with two harvests; either may be the last.
#[test]
fn a_table_is_replaced_beside_two_harvests() {
    let mut builder = loom::model::Builder::new();

    builder.preemption_bound = Some(2);
    builder.check(|| {
        let tree = Tree::<VtdSs>::new(3, 3);

        tree.map(0, K4);
        assert_eq!(tree.unmap(0, K4), K4);

        let other = tree.clone();
        let third = tree.clone();
        let mapping = thread::spawn(move || other.map(0, M2));
        let harvesting = thread::spawn(move || assert_eq!(third.harvest(), []));

        assert_eq!(tree.harvest(), []);
        mapping.join().unwrap();
        harvesting.join().unwrap();
        assert_eq!(tree.mem.live(), 2);
        assert!(tree.walks.is_idle());
    });
}

/// A translation under a walk finds the old or the new leaf.
#[test]
fn a_table_is_replaced_beside_a_translation() {
    model(|| {
        let tree = Tree::<VtdSs>::new(3, 3);

        tree.map(0, K4);

        let other = tree.clone();
        let thread = thread::spawn(move || {
            assert_eq!(other.unmap(0, K4), K4);
            other.map(0, M2);
        });
        // SAFETY: Tables are freed by `Waiting`.
        let walk = unsafe { tree.walks.enter(Range::at(0), &tree.table) }.unwrap();

        assert!(matches!(tree.table.iova_to_phys(&walk), None | Some(PHYS)));
        drop(walk);
        thread.join().unwrap();
        assert_eq!(tree.mem.live(), 2);
    });
}
