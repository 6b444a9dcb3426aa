// SPDX-License-Identifier: GPL-2.0

//! Runs a sequence on the page tables and on the model, and compares after each operation.

use super::{
    Op,
    Setup, //
};
use crate::{
    error::code::*,
    memory::HostMem,
    model::{
        joined,
        Leaf,
        Model,
        Runs, //
    },
    pt::{
        Config,
        DetachedTable,
        DirtySink,
        Exclusive,
        Gather,
        Iova,
        Level,
        Limits,
        NewTop,
        PageTable,
        PhysAddr,
        Prot,
        Range,
        Stable,
        TableMem,
        Top,
        Tree, //
    },
    reader::{
        self,
        access,
        Fault,
        Tables,
        View, //
    },
    spec::{
        apertures,
        mask,
        Spec, //
    },
    sync::atomic::Atomic, //
};
use std::{
    ptr::NonNull,
    sync::OnceLock, //
};

/// This many tables are always enough for a new top.
const STUBBORN: u64 = 7;

static TRACE: OnceLock<bool> = OnceLock::new();

/// Keeps tables until the flush, and checks that the gather got the range before the table.
struct Later<'m> {
    mem: &'m HostMem,
    /// Ranges of the operation under way.
    ranges: Runs,
    /// The tables before the operation.
    places: Tables,
    /// The top that the hardware was given.
    top: Top,
    /// Whether the hardware cannot use another top, and whether the operation tried one.
    stubborn: bool,
    refused: bool,
    /// The last address that a top is for.
    reach: fn(Top) -> Iova,
    waiting: Vec<NonNull<crate::pt::Table>>,
}

impl<'m> Gather<&'m HostMem> for Later<'m> {
    fn add_range(&mut self, range: Range) {
        self.ranges.push((range.first(), range.last()));
    }

    fn queue_free(&mut self, table: DetachedTable<&'m HostMem>) {
        let table = table.into_raw();
        let phys = self.mem.phys(table);
        let place = self.places.get(&phys).expect("it was no table of the tree");

        // The table is for addresses that are flushed before it is freed.
        assert!(
            self.covers(*place),
            "a table of {place:x?} came before its range: {:x?}",
            self.ranges
        );
        self.waiting.push(table);
    }

    fn change_top(&mut self, mut new: NewTop<'_>) {
        assert!(new.is_current(), "nothing else changes it");
        // A gather may also check the top and then not publish it.
        if self.stubborn {
            self.refused = true;
            return;
        }
        assert_eq!(new.top().levels, self.top.levels + 1);
        self.top = new.top();
        // A large leaf may replace it in the same operation, after another table has grown above
        // it.
        self.places
            .insert(self.top.phys, (0, (self.reach)(self.top)));
        // SAFETY: What plays the hardware walks the top that was kept above.
        unsafe { new.publish() };
    }
}

impl Later<'_> {
    /// Whether all of `run` will be flushed.
    fn covers(&self, run: (Iova, Iova)) -> bool {
        let mut from = run.0;

        // Ranges may come in any order and may overlap.
        while let Some(last) = self
            .ranges
            .iter()
            .filter(|range| range.0 <= from && from <= range.1)
            .map(|range| range.1)
            .max()
        {
            if last >= run.1 {
                return true;
            }
            from = last + 1;
        }
        false
    }

    fn flush(&mut self) {
        for table in self.waiting.drain(..) {
            // SAFETY: Nothing leads to the table, and this hardware caches nothing.
            unsafe { self.mem.free(table) }
        }
    }
}

/// The report of a harvest.
#[derive(Default)]
struct Report {
    runs: Runs,
    cleared: Runs,
}

impl DirtySink for Report {
    fn record(&mut self, range: Range) {
        self.runs.push((range.first(), range.last()));
    }

    fn cleared(&mut self, range: Range) {
        self.cleared.push((range.first(), range.last()));
    }

    fn split(&mut self, _range: Range) {}
}

/// The owner of the tree: a page table, or a test that needs more than a page table offers.
enum Owner<'m, S: Spec> {
    Table(PageTable<S::F, &'m HostMem>),
    Parts {
        mem: &'m HostMem,
        top: Atomic<u64>,
        limits: Limits,
    },
}

impl<'m, S: Spec> Owner<'m, S> {
    fn new(mem: &'m HostMem, setup: &Setup, model: &Model) -> Self {
        let page_sizes = model.sizes.iter().fold(0, |sizes, lg2| sizes | 1 << lg2);

        if setup.upper {
            let top = Tree::<S::F, _>::new_top(&mem, setup.coherent, setup.levels, ()).unwrap();

            return Self::Parts {
                mem,
                top: Atomic::new(top),
                limits: Limits {
                    coherent: setup.coherent,
                    marks: true,
                    splits: false,
                    sign_extend: true,
                    aperture_last: model.apertures[0].1,
                    page_sizes,
                    output_last: model.output_last,
                    top_level: Level::top_of(setup.max_levels).unwrap(),
                },
            };
        }

        let config = Config {
            levels: setup.levels,
            max_levels: setup.max_levels,
            page_sizes: setup.page_sizes,
            input_lg2: setup.input_lg2,
            output_lg2: setup.output_lg2,
            coherent: setup.coherent,
            marks: true,
            splits: false,
        };
        let table = PageTable::<S::F, _>::new(mem, config, ()).unwrap();

        assert_eq!(table.aperture_last(), model.apertures[0].1);
        assert_eq!(table.pgsize_bitmap(), page_sizes);
        assert_eq!(table.can_track_dirty(), setup.coherent);
        Self::Table(table)
    }

    fn tree(&self) -> Tree<'_, S::F, &'m HostMem> {
        match self {
            Self::Table(table) => table.tree(),
            // SAFETY: The top was made for this memory, the limits are those of a page table but
            // for the upper half, and the tree is freed when `self` is no longer borrowed.
            Self::Parts { mem, top, limits } => unsafe { Tree::from_parts(mem, top, *limits) },
        }
    }
}

impl<S: Spec> Drop for Owner<'_, S> {
    fn drop(&mut self) {
        if let Self::Parts { .. } = self {
            // SAFETY: The tree is not used any more.
            unsafe { self.tree().free() }
        }
    }
}

/// How many maps there were in a sequence, and how many of them mapped all of their range.
#[derive(Clone, Copy, Debug, Default)]
pub struct Maps {
    /// All.
    pub tried: u32,
    /// Those that succeeded.
    pub done: u32,
}

struct Run<'m, S: Spec> {
    setup: Setup,
    maps: Maps,
    mem: &'m HostMem,
    owner: Owner<'m, S>,
    model: Model,
    later: Later<'m>,
}

impl<'m, S: Spec> Run<'m, S> {
    fn tree(&self) -> Tree<'_, S::F, &'m HostMem> {
        self.owner.tree()
    }

    /// Compares the tree that the hardware walks with the model; no table may be lost.
    fn compare(&self) {
        let real = self.compare_view(self.mem);

        assert_eq!(
            self.later.top,
            self.tree().top(),
            "the hardware has another top"
        );
        assert_eq!(self.mem.live(), real.len() + self.later.waiting.len());
        if !self.setup.coherent {
            let seen = self.compare_view(&self.mem.shadows());

            assert!(seen == real, "a link to a table was not flushed");
        }
    }

    fn compare_view(&self, view: &impl View) -> Tables {
        let mut expected = self.model.leaves.iter();
        let tables = reader::read::<S>(view, self.later.top, |iova, leaf| {
            assert_eq!(Some((&iova, &leaf)), expected.next());
        });

        assert_eq!(expected.next(), None);
        tables
    }

    fn begin(&mut self) {
        self.later.ranges.clear();
        self.later.places = reader::tables::<S>(self.mem, self.tree().top());
    }

    fn map(&mut self, range: Range, phys: PhysAddr, prot: Prot, tables: Option<u64>) {
        let run = (range.first(), range.last());
        // SAFETY: One thread.
        let mut claim = unsafe { Exclusive::new(range, &self.owner) };

        self.maps.tried += 1;
        self.begin();
        self.mem.fail_after(tables.unwrap_or(u64::MAX));
        // One value stands for hardware that cannot use a new top.
        self.later.stubborn = tables == Some(STUBBORN);

        let got = self.mem.operation(|| {
            self.owner
                .tree()
                .map(&mut claim, phys, prot, (), &mut self.later)
        });

        self.mem.fail_after(u64::MAX);
        self.later.stubborn = false;
        if std::mem::take(&mut self.later.refused) {
            assert_eq!(got, (0, Err(EIO)));
            return self.compare();
        }

        let enough = if got.1 == Err(ENOMEM) {
            assert!(tables.is_some(), "there was memory");
            got.0
        } else {
            u64::MAX
        };
        let before = (tables.is_some() && got.1.is_err()).then(|| self.model.clone());
        let expected = self.model.map(run, phys, S::prot(prot), enough);

        assert_eq!(got, expected);
        self.maps.done += u32::from(got.1.is_ok());
        if got.1.is_err() && got.0 > 0 {
            // As callers do: the tree must be exactly as before.
            if let Some(last) = run.0.checked_add(got.0 - 1) {
                self.unmap(Range::inclusive(run.0, last).unwrap());
            }
        }
        if let Some(before) = before {
            assert!(
                self.model.leaves == before.leaves,
                "the undoing is not exact"
            );
            self.compare();
        }
    }

    fn unmap(&mut self, range: Range) {
        let run = (range.first(), range.last());
        // SAFETY: One thread.
        let mut claim = unsafe { Exclusive::new(range, &self.owner) };

        self.begin();
        // This needs no memory.
        self.mem.fail_after(0);

        let got = self
            .mem
            .operation(|| self.owner.tree().unmap(&mut claim, &mut self.later));

        self.mem.fail_after(u64::MAX);
        assert_eq!(got, self.model.unmap(run));
        if got > 0 {
            assert!(self.later.covers((run.0, run.0 + (got - 1))));
        }
    }

    fn access(&mut self, iova: Iova, write: bool, pick: u64) {
        let expected = self.model.find(iova);
        let allowed = self.model.access(iova, write);

        match access::<S>(self.mem, self.later.top, iova, write, pick) {
            Ok(leaf) => {
                let (_, expected) = expected.expect("nothing is mapped there");
                let dirty = expected.dirty;

                // The picked entry need not be the dirty one.
                assert!(dirty || !leaf.dirty);
                assert_eq!(Leaf { dirty, ..leaf }, expected);
            }
            Err(Fault::NotMapped) => assert!(expected.is_none()),
            Err(Fault::NotAllowed) => assert!(expected.is_some() && !allowed),
            Err(Fault::Malformed(what)) => panic!("{what}"),
        }
        assert!(
            allowed
                || expected.is_none_or(|(_, leaf)| {
                    !leaf
                        .prot
                        .contains(if write { Prot::WRITE } else { Prot::READ })
                })
        );
    }

    fn harvest(&mut self, range: Range, clear: bool) {
        let query = (range.first(), range.last());
        // SAFETY: One thread.
        let claim = unsafe { Stable::new(range, &self.owner) };
        let mut report = Report::default();
        let got = self
            .mem
            .operation(|| self.tree().read_and_clear_dirty(&claim, clear, &mut report));

        if !self.setup.coherent {
            assert_eq!(got, Err(EOPNOTSUPP));
        } else if !self.model.is_inside(query.0, query.1) {
            assert_eq!(got, Err(ERANGE));
        } else {
            let (runs, cleaned) = self.model.harvest(query, clear);
            let inside = |run: &(Iova, Iova)| query.0 <= run.0 && run.1 <= query.1;

            assert_eq!(got, Ok(()));
            assert_eq!(joined(&report.runs), runs);
            assert!(report.runs.iter().chain(&report.cleared).all(inside));
            // The gather must get the range from the first to the last clean leaf: once, and only
            // if there is any.
            let first = cleaned.iter().map(|leaf| leaf.0).min();
            let last = cleaned.iter().map(|leaf| leaf.1).max();

            assert_eq!(report.cleared, Vec::from_iter(first.zip(last)));
            self.later.ranges = report.cleared;
            return;
        }
        assert!(report.runs.is_empty() && report.cleared.is_empty());
    }

    fn translate(&self, iova: Iova) {
        // SAFETY: One thread.
        let claim = unsafe { Stable::at(iova, &self.owner) };

        assert_eq!(self.tree().iova_to_phys(&claim), self.model.translate(iova));
    }

    fn mark(&mut self, iova: Iova) {
        // SAFETY: One thread.
        let claim = unsafe { Stable::at(iova, &self.owner) };
        let found = self.model.find(iova);

        // No device writes there, and formats differ in what they do.
        if found.is_some_and(|(_, leaf)| !leaf.prot.contains(Prot::WRITE)) {
            return;
        }

        let expected = match found {
            _ if !self.model.is_inside(iova, iova) => Err(ERANGE),
            None => Err(ENOENT),
            Some((first, leaf)) => {
                self.model.leaves.insert(
                    first,
                    Leaf {
                        dirty: true,
                        ..leaf
                    },
                );
                Ok(())
            }
        };

        assert_eq!(self.tree().set_dirty(&claim), expected);
    }

    fn op(&mut self, op: &Op) {
        // A range beyond the largest number is empty.
        let range = |iova: Iova, span: u64| {
            let range = match span.checked_add(1) {
                Some(len) => Range::new(iova, len),
                None => iova
                    .checked_add(span)
                    .ok_or(EOVERFLOW)
                    .and_then(|last| Range::inclusive(iova, last)),
            };

            assert_eq!(range.is_ok(), iova.checked_add(span).is_some());
            range.ok()
        };

        match *op {
            Op::Map {
                iova,
                phys,
                span,
                prot,
                tables,
            } => {
                if let Some(range) = range(iova, span) {
                    self.map(range, phys, prot, tables);
                }
            }
            Op::Unmap { iova, span } => {
                if let Some(range) = range(iova, span) {
                    self.unmap(range);
                }
            }
            Op::Access {
                iova,
                count,
                stride,
                write,
            } => {
                // A write by non-snooping hardware may be lost: nothing reads it there.
                let count = if self.setup.coherent { count } else { 0 };

                for step in 0..count {
                    let at = iova.wrapping_add(step.wrapping_mul(stride));

                    self.access(at, write, step);
                }
            }
            Op::Harvest { iova, span, clear } => {
                if let Some(range) = range(iova, span) {
                    self.harvest(range, clear);
                }
            }
            Op::Translate { iova } => {
                for at in [iova, iova.wrapping_sub(1), iova ^ 0xfff, iova ^ 1 << 21] {
                    self.translate(at);
                }
            }
            // Non-snooping hardware does not see it either.
            Op::Mark { iova } if self.setup.coherent => self.mark(iova),
            Op::Mark { .. } => {}
            Op::Flush => self.later.flush(),
        }
    }
}

/// Runs `ops` on a new page table; panics where it differs from the model. With `TRACE` in the
/// environment it prints each operation first.
pub fn run<S: Spec>(setup: Setup, ops: &[Op]) -> Maps {
    let trace = *TRACE.get_or_init(|| std::env::var_os("TRACE").is_some());
    let mem = HostMem::new(setup.coherent);
    // A leaf lies in one table.
    let whole = S::item_lg2(u32::from(setup.max_levels));
    let model = Model {
        leaves: Default::default(),
        sizes: S::SIZES
            .iter()
            .copied()
            .filter(|lg2| setup.page_sizes >> lg2 & 1 != 0 && *lg2 < whole)
            .collect(),
        apertures: apertures::<S>(setup.max_levels, setup.input_lg2, setup.upper),
        output_last: mask(setup.output_lg2.min(S::OUTPUT_LG2)),
    };
    let owner = Owner::new(&mem, &setup, &model);
    let later = Later {
        mem: &mem,
        ranges: Runs::new(),
        places: Tables::new(),
        top: owner.tree().top(),
        stubborn: false,
        refused: false,
        reach: |top| mask(S::item_lg2(u32::from(top.levels) - 1) + S::TOP_LG2),
        waiting: Vec::new(),
    };
    let mut run = Run::<S> {
        setup,
        maps: Maps::default(),
        mem: &mem,
        owner,
        model,
        later,
    };

    if trace {
        eprintln!("{setup:x?}");
    }
    for (number, op) in ops.iter().enumerate() {
        if trace {
            eprintln!("{number}: {op:x?}");
        }
        run.op(op);
        // Often enough to locate a failure, but not for each of many.
        if number % 4 == 3 {
            run.compare();
        }
    }
    run.compare();
    run.later.flush();

    let maps = run.maps;

    drop(run);
    assert_eq!(mem.live(), 0, "tables are left");
    maps
}
