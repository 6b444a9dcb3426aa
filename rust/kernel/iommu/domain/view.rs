// SPDX-License-Identifier: GPL-2.0

//! What the files of a domain show.

use core::ptr::NonNull;

use kernel::{
    debugfs::Dir,
    fmt,
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

use super::{
    super::{
        ffi,
        files::{
            show_sizes,
            size,
            Files,
            Page,
            Shows, //
        },
        hw::pages::KernelWalk,
        ops::{
            Driver as _,
            PagingDomain, //
        },
        pt::{
            Entry,
            Range,
            Survey, //
        },
        tables::Tables,
        values::DeviceSlot, //
    },
    Domain, //
};

/// How often a walk is tried while there is something that excludes it.
const TRIES: usize = 100;

/// A domain, for its files.
///
/// # Invariants
///
/// The domain does not move, and is not dropped before this.
struct View<P: PagingDomain>(NonNull<Domain<P>>);

// SAFETY: It is no more than a reference to a domain, which is `Sync`.
unsafe impl<P: PagingDomain> Send for View<P> {}
// SAFETY: As above.
unsafe impl<P: PagingDomain> Sync for View<P> {}

impl<P: PagingDomain> Shows for View<P> {
    fn show(&self, page: Page, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: By the type invariant, the domain is there.
        let domain = unsafe { self.0.as_ref() };
        match page {
            Page::State => domain.show_state(f),
            Page::Counters => domain.counters.show(f),
            Page::Leaves => domain.show_leaves(f),
            Page::Translation(iova) => domain.show_translation(iova, f),
            Page::Caps => Ok(()),
        }
    }
}

impl<P: PagingDomain> Domain<P> {
    /// Makes the files of the domain.
    ///
    /// Context: may sleep.
    ///
    /// # Safety
    ///
    /// The domain does not move from now on, and the files are dropped before it.
    pub(super) unsafe fn files_in(&self, parent: &Dir) -> Files {
        // INVARIANT: By this function's contract.
        let Ok(view) = KBox::new(View(NonNull::from(self)), GFP_KERNEL) else {
            return Files::none();
        };
        let pages = [
            Page::State,
            Page::Counters,
            Page::Leaves,
            Page::Translation(0),
        ];
        Files::new(parent, fmt!("{}", self.number), view, &pages)
    }

    fn show_state(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = self.data.tables();
        let geometry = tables.geometry();
        let top = tables.top();
        let user = if self.is_dma_api() {
            "the DMA API"
        } else {
            "a user of the IOMMU core"
        };

        writeln!(f, "used by: {user}")?;
        writeln!(f, "format: {}, {} levels", tables.format(), top.levels)?;
        writeln!(f, "top table: {:#x}", top.phys)?;
        writeln!(f, "aperture: {:#x}-{:#x}", geometry.first, geometry.last)?;
        show_sizes(geometry.page_sizes, f)?;
        let tracking = match (self.flags.dirty_tracking, self.attachments.is_tracking()) {
            (false, _) => "none, the domain was not made for it",
            (true, false) => "off",
            (true, true) => "on",
        };
        writeln!(f, "\ntracking: {tracking}")?;
        if self.flags.dirty_tracking {
            writeln!(f, "split: {}", self.data.splits().parameter())?;
        }
        if self.attachments.is_lost() {
            writeln!(
                f,
                "lost: a unit did not confirm, and all pages are reported"
            )?;
        }
        self.attachments.each(|endpoint, slot| {
            write!(f, "attached: ")?;
            P::Driver::show_endpoint(endpoint, f)?;
            match slot {
                DeviceSlot::Rid => writeln!(f),
                DeviceSlot::Pasid(pasid) => writeln!(f, " PASID {pasid:#x}"),
            }
        })
    }

    fn show_leaves(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut survey = Survey::default();

        if let Err(error) = self.survey(&mut survey) {
            return writeln!(f, "{}", no_walk(error));
        }
        writeln!(f, "tables: {} of 4 KiB", survey.tables)?;
        for (lg2, leaves) in survey.sizes() {
            let (number, unit) = size(lg2);
            writeln!(
                f,
                "leaves of {number} {unit}: {}, {} of them dirty",
                leaves.all, leaves.dirty
            )?;
        }
        Ok(())
    }

    /// Counts all leaves, in pieces between which others run, and a table that was unmapped is
    /// freed.
    fn survey(&self, survey: &mut Survey) -> Result {
        let geometry = self.data.tables().geometry();
        let mut next = Some(geometry.first);

        while let Some(first) = next {
            let range = Range::inclusive(first, geometry.last)?;

            if ffi::is_killed() {
                return Err(EINTR);
            }
            next = self.look(range, |walk| self.data.tables().survey(walk, survey))??;
        }
        Ok(())
    }

    fn show_translation(&self, iova: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = writeln!(f, "address {iova:#x}");
        let mut end = None;
        let walked = self.look(Range::at(iova), |walk| {
            self.data.tables().steps(walk, |step| {
                shown = shown.and_then(|()| {
                    write!(
                        f,
                        "level {} entry {:>3}: {:#018x} ",
                        step.level, step.slot, step.word
                    )?;
                    match step.entry {
                        Entry::Empty => writeln!(f, "nothing is mapped"),
                        Entry::Table(phys) => writeln!(f, "table at {phys:#x}"),
                        Entry::Leaf { phys, lg2 } => {
                            let (number, unit) = size(lg2);
                            let writes = if step.writable {
                                "writable"
                            } else {
                                "read-only"
                            };
                            let dirty = if step.dirty { "dirty" } else { "clean" };
                            writeln!(f, "leaf of {number} {unit} at {phys:#x}, {writes}, {dirty}")
                        }
                    }
                });
                if let Entry::Leaf { phys, lg2 } = step.entry {
                    end = Some(phys | (iova & ((1 << lg2) - 1)));
                }
            })
        });
        shown?;
        match (walked.and_then(|walked| walked), end) {
            (Err(error), _) => writeln!(f, "{}", no_walk(error)),
            (Ok(()), Some(phys)) => writeln!(f, "physical address {phys:#x}"),
            (Ok(()), None) => writeln!(f, "not mapped"),
        }
    }

    /// Walks the tables, which may change meanwhile: see [`Self::walk`].
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` for a domain of the DMA API, `EBUSY`.
    fn look<R>(&self, range: Range, mut look: impl FnMut(&KernelWalk<'_>) -> R) -> Result<R> {
        if self.is_dma_api() {
            return Err(EOPNOTSUPP);
        }
        for _ in 0..TRIES {
            // A join would give up if it met a walk. A query may wait long, for the memory of the
            // user who has asked.
            if let Some(_harvesting) = self.try_lock_harvesting() {
                if let Some(walk) = self.walk(range) {
                    return Ok(look(&walk));
                }
            }
            if ffi::is_killed() {
                return Err(EINTR);
            }
            fsleep(Delta::from_millis(1));
        }
        Err(EBUSY)
    }
}

/// Why the tables are not shown.
fn no_walk(error: Error) -> &'static str {
    match error {
        EOPNOTSUPP => "not shown: the core may free tables of a domain of the DMA API by itself",
        ERANGE => "not in the aperture of this domain",
        _ => "not shown: a query or a change of the tables is under way, try again",
    }
}
