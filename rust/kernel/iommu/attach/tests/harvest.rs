// SPDX-License-Identifier: GPL-2.0

//! What a query of a domain does after a flush has failed.

use super::{
    super::super::{
        dirty::query::Tally,
        domain::Domain,
        gather::{
            IotlbGather,
            LocalGather, //
        },
        hw::pages::Gfp,
        pt::{
            DirtySink,
            Exclusive,
            Prot,
            Range, //
        },
        values::{
            AllocFlags,
            Flush,
            Splits, //
        },
        vtable::{
            dirty::DirtyTable,
            domain::new_domain, //
        }, //
    },
    fake::{
        Event,
        FakeDevice,
        FakeDomain,
        Log, //
    },
    *,
};
use core::ptr::NonNull;
use kernel::bindings;

/// A domain behind the C structure, as the core has it.
struct Tracked {
    domain: Pin<KBox<Domain<FakeDomain>>>,
    log: Arc<Log>,
}

impl Tracked {
    fn new(dirty_tracking: bool) -> Result<Self> {
        Self::with(dirty_tracking, Splits::Off)
    }

    fn with(dirty_tracking: bool, splits: Splits) -> Result<Self> {
        let log = Log::new()?;
        let flags = AllocFlags {
            dirty_tracking,
            ..AllocFlags::default()
        };
        let fake = FakeDomain::splitting(1, log.clone(), splits);
        let domain = new_domain(fake, flags)?;
        Ok(Self { domain, log })
    }

    fn map(&self, range: Range) -> Result {
        // SAFETY: One thread.
        let mut claim = unsafe { Exclusive::new(range, &self.domain.data) };
        pin_init::stack_pin_init!(let local = LocalGather::new());
        let prot = Prot::READ | Prot::WRITE;
        let table = &self.domain.data.table;

        table
            .map(&mut claim, 0, prot, Gfp::KERNEL, &mut local.borrow())
            .1
    }

    /// The size of the leaf at the begin of `range`, which is mapped: as much as one write makes
    /// dirty.
    fn leaf_size(&self, range: Range) -> Result<u64> {
        let table = &self.domain.data.table;
        let walk = |range| self.domain.walk(range).ok_or(EIO);
        let mut sink = Sum::default();

        table.read_and_clear_dirty(&walk(range)?, true, &mut sink)?;
        sink.bytes = 0;
        table
            .tree()
            .set_dirty(&walk(Range::new(range.first(), 1)?)?)?;
        table.read_and_clear_dirty(&walk(range)?, false, &mut sink)?;
        Ok(sink.bytes)
    }

    /// Queries a range, and returns the calls to the driver and what has to be flushed after that.
    fn query(&self, range: Range, clear: bool) -> Result<(KVec<Event>, Option<Flush>)> {
        pin_init::stack_pin_init!(let local = LocalGather::new());
        let gather: IotlbGather<'_> = local.borrow();
        let mut dirty = bindings::iommu_dirty_bitmap {
            bitmap: core::ptr::null_mut(),
            gather: gather.as_ptr(),
        };
        let _ = self.log.take();
        let tally = Tally::new();
        // SAFETY: The dirty bitmap is on the stack. Its `bitmap` is null, its gather is
        // initialised, and only this call uses them.
        unsafe {
            DirtyTable::harvest(
                &self.domain,
                range,
                clear,
                NonNull::from(&mut dirty),
                &tally,
            )?;
        }
        Ok((self.log.take(), gather.flush()))
    }

    fn attach(&self, device: &FakeDevice) -> Result {
        Prepared::new(
            &self.domain.data,
            &self.domain.attachments,
            &device.endpoint,
            &device.slots,
            DeviceSlot::Rid,
            true,
        )?
        .install(&self.domain.data)?
        .commit();
        Ok(())
    }

    fn flush(&self, flush: Flush, fails: bool) -> Result {
        self.domain.data.fails.store(fails, Relaxed);
        self.domain.flush(flush)
    }
}

/// How many bytes a query of the tables alone reports.
#[derive(Default)]
struct Sum {
    bytes: u64,
}

impl DirtySink for Sum {
    fn record(&mut self, range: Range) {
        self.bytes += range.size();
    }

    fn cleared(&mut self, _range: Range) {}

    fn split(&mut self, _range: Range) {}
}

fn pages(first: u64, count: u64) -> Result<Range> {
    Range::new(first << 12, count << 12)
}

fn flush(range: Range) -> Flush {
    Flush::Range {
        range,
        tables: false,
    }
}

/// The call to the driver for a range that is harvested and made clean.
fn harvest(range: Range) -> Event {
    Event::Harvest { range, clear: true }
}

#[kunit_tests(rust_iommu_harvest)]
mod suite {
    use super::*;

    #[test]
    fn a_failed_flush_is_reported_until_one_succeeds() -> Result {
        let domain = Tracked::new(true)?;
        let (all, marked) = (pages(0, 16)?, pages(4, 4)?);
        let clear = true;
        let plain = [harvest(all)];

        let (told, gathered) = domain.query(all, clear)?;
        assert_eq!((&told[..], gathered), (&plain[..], None));
        assert_eq!(domain.flush(flush(marked), true), Err(EIO));
        // In ascending order: the bitmap of the core is slow in descending order.
        let after = [
            harvest(pages(0, 4)?),
            Event::Report(marked),
            harvest(pages(8, 8)?),
        ];
        for fails in [true, true, false] {
            let (told, gathered) = domain.query(all, clear)?;
            assert_eq!((&told[..], gathered), (&after[..], Some(flush(marked))));
            let flushed = domain.flush(flush(marked), fails);
            assert_eq!(flushed.is_err(), fails);
        }
        let (told, gathered) = domain.query(all, clear)?;
        assert_eq!((&told[..], gathered), (&plain[..], None));
        Ok(())
    }

    /// What was written between the last report and the flush has to be reported once.
    #[test]
    fn a_flush_without_a_report_is_not_enough() -> Result {
        let domain = Tracked::new(true)?;
        let marked = pages(4, 4)?;
        let report = [Event::Report(marked)];

        assert!(domain.flush(flush(marked), true).is_err());
        domain.flush(Flush::All, false)?;
        assert_eq!(&domain.query(marked, true)?.0[..], &report[..]);
        domain.flush(Flush::All, false)?;
        assert_eq!(&domain.query(marked, true)?.0[..], &[harvest(marked)]);
        Ok(())
    }

    /// The core flushes nothing after a query that leaves pages dirty.
    #[test]
    fn a_query_that_leaves_pages_dirty_reports_and_changes_nothing() -> Result {
        let domain = Tracked::new(true)?;
        let marked = pages(4, 4)?;
        let report = [Event::Report(marked)];

        assert!(domain.flush(flush(marked), true).is_err());
        for _ in 0..2 {
            let (told, gathered) = domain.query(marked, false)?;
            assert_eq!((&told[..], gathered), (&report[..], None));
            domain.flush(flush(marked), false)?;
        }
        Ok(())
    }

    #[test]
    fn what_was_not_asked_for_stays() -> Result {
        let domain = Tracked::new(true)?;
        let report = |first, count| Ok::<_, Error>([Event::Report(pages(first, count)?)]);

        assert!(domain.flush(flush(pages(4, 4)?), true).is_err());
        // The middle; the flush reaches further than the query did.
        let (told, gathered) = domain.query(pages(5, 2)?, true)?;
        assert_eq!(&told[..], &report(5, 2)?[..]);
        assert_eq!(gathered, Some(flush(pages(5, 2)?)));
        domain.flush(flush(pages(0, 16)?), false)?;
        assert_eq!(&domain.query(pages(4, 1)?, true)?.0[..], &report(4, 1)?[..]);
        let (told, gathered) = domain.query(pages(5, 1)?, true)?;
        assert_eq!((&told[..], gathered), (&[harvest(pages(5, 1)?)][..], None));
        assert_eq!(&domain.query(pages(7, 1)?, true)?.0[..], &report(7, 1)?[..]);
        Ok(())
    }

    #[test]
    fn a_flush_of_everything_that_fails_marks_everything() -> Result {
        let domain = Tracked::new(true)?;

        assert!(domain.flush(Flush::All, true).is_err());
        let (told, gathered) = domain.query(Range::ALL, true)?;
        assert_eq!(&told[..], &[Event::Report(Range::ALL)]);
        assert_eq!(gathered, Some(flush(Range::ALL)));
        domain.flush(Flush::All, false)?;
        let (told, gathered) = domain.query(Range::ALL, true)?;
        assert_eq!((&told[..], gathered), (&[harvest(Range::ALL)][..], None));
        Ok(())
    }

    /// A domain that a unit may use for ever reports all writable pages for ever.
    #[test]
    fn a_lost_domain_is_always_dirty() -> Result {
        let domain = Tracked::new(true)?;
        let device = FakeDevice::new(4)?;
        let range = pages(0, 4)?;

        domain.attach(&device)?;
        device.slots.lose(DeviceSlot::Rid);
        for _ in 0..2 {
            let (told, gathered) = domain.query(range, true)?;
            assert_eq!(&told[..], &[Event::Report(range)]);
            assert_eq!(gathered, Some(flush(range)));
            domain.flush(Flush::All, false)?;
        }
        Ok(())
    }

    /// Frees a domain as the core does, and returns the calls to the driver. Frees after that what
    /// the core's call has leaked.
    fn end(tracked: Tracked) -> Result<KVec<Event>> {
        let Tracked { domain, log } = tracked;
        let _ = log.take();
        // SAFETY: The tests are built in.
        let raw = unsafe { Domain::into_raw(domain, core::ptr::null_mut(), None) }?;
        // SAFETY: `into_raw()` returned the domain, which is valid.
        let free = unsafe { (*(*raw).ops).free }.ok_or(EINVAL)?;
        // SAFETY: Nothing uses the domain any more.
        unsafe { free(raw) };
        let told = log.take();
        if told.is_empty() {
            // SAFETY: `free()` has leaked the domain.
            drop(unsafe { KBox::from_raw(raw.cast::<Domain<FakeDomain>>()) });
        }
        Ok(told)
    }

    #[test]
    fn a_domain_that_hardware_may_use_is_not_freed() -> Result {
        let freed = [Event::Freed { domain: 1 }];
        assert_eq!(&end(Tracked::new(true)?)?[..], &freed[..]);

        // A failed flush alone does no harm: hardware has forgotten the domain when it is detached.
        let domain = Tracked::new(true)?;
        assert!(domain.flush(Flush::All, true).is_err());
        assert_eq!(&end(domain)?[..], &freed[..]);

        let domain = Tracked::new(true)?;
        let device = FakeDevice::new(4)?;
        domain.attach(&device)?;
        device.slots.lose(DeviceSlot::Rid);
        assert!(end(domain)?.is_empty());

        // The core frees no domain that is attached; if it did, hardware would still use it.
        let domain = Tracked::new(true)?;
        let device = FakeDevice::new(4)?;
        domain.attach(&device)?;
        assert!(end(domain)?.is_empty());
        Ok(())
    }

    /// A leaf that has become a table leaves nothing to free, but cached links have to go.
    #[test]
    fn links_are_flushed_where_leaves_were_split() -> Result {
        pin_init::stack_pin_init!(let local = LocalGather::new());
        let mut gather: IotlbGather<'_> = local.borrow();
        gather.add(pages(0, 4)?);
        assert_eq!(gather.flush(), Some(flush(pages(0, 4)?)));
        gather.add_with_links(pages(2, 4)?);
        let range = pages(0, 6)?;
        let tables = true;
        assert_eq!(gather.flush(), Some(Flush::Range { range, tables }));
        Ok(())
    }

    #[test]
    fn leaves_are_split_and_joined() -> Result {
        let domain = Tracked::with(true, Splits::Eager { lg2: 12 })?;
        let range = pages(512, 512)?;
        let tables = true;
        let flushed = [Event::Flush(Flush::Range { range, tables })];

        domain.map(range)?;
        assert_eq!(domain.leaf_size(range)?, 512 << 12);
        domain.domain.split();
        assert_eq!(&domain.log.take()[..], &flushed[..]);
        assert_eq!(domain.leaf_size(range)?, 1 << 12);
        domain.domain.join();
        assert_eq!(&domain.log.take()[..], &flushed[..]);
        assert_eq!(domain.leaf_size(range)?, 512 << 12);
        // There is nothing left to join, or to flush.
        domain.domain.join();
        assert!(domain.log.take().is_empty());
        Ok(())
    }

    #[test]
    fn leaves_stay_unless_they_are_to_be_split() -> Result {
        for splits in [Splits::Off, Splits::Lazy] {
            let domain = Tracked::with(true, splits)?;
            let range = pages(512, 512)?;

            domain.map(range)?;
            domain.domain.split();
            domain.domain.join();
            assert!(domain.log.take().is_empty());
            assert_eq!(domain.leaf_size(range)?, 512 << 12);
        }
        Ok(())
    }

    /// A walk keeps a join out, which leaves all as it is.
    #[test]
    fn a_join_gives_way_to_a_walk() -> Result {
        let domain = Tracked::with(true, Splits::Eager { lg2: 12 })?;
        let range = pages(512, 512)?;

        domain.map(range)?;
        domain.domain.split();
        let _ = domain.log.take();
        let walk = domain.domain.walk(range).ok_or(EIO)?;
        domain.domain.join();
        assert!(domain.log.take().is_empty());
        drop(walk);
        assert_eq!(domain.leaf_size(range)?, 1 << 12);
        Ok(())
    }

    #[test]
    fn a_domain_that_does_not_track_remembers_nothing() -> Result {
        let domain = Tracked::new(false)?;
        let range = pages(0, 4)?;

        assert!(domain.flush(Flush::All, true).is_err());
        let (told, _) = domain.query(range, true)?;
        assert_eq!(&told[..], &[harvest(range)]);
        Ok(())
    }
}
