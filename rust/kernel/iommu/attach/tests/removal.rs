// SPDX-License-Identifier: GPL-2.0

//! What a domain does with detached tables.

use super::{
    super::super::{
        domain::Domain,
        gather::{
            IotlbGather,
            LocalGather, //
        },
        hw::pages::{
            Gfp,
            KernelTables, //
        },
        pt::{
            DetachedTable,
            Gather,
            Range,
            Table,
            TableMem, //
        },
        values::{
            AllocFlags,
            Flush, //
        },
        vtable::domain::{
            new_domain,
            DomainTable, //
        }, //
    },
    fake::{
        Event,
        FakeDomain,
        Log, //
    },
    *,
};
use core::ptr::NonNull;
use kernel::cpu::CpuId;

const MEMORY: KernelTables = KernelTables::new(None);

/// Enough allocations to get back a page that this CPU has just freed.
const TRIES: usize = 64;

fn alloc() -> Result<NonNull<Table>> {
    MEMORY.alloc(Gfp::KERNEL)
}

/// Frees a table.
///
/// # Safety
///
/// It came from [`alloc`], was not freed, and nothing uses it any more.
unsafe fn free(table: NonNull<Table>) {
    // SAFETY: `table` came from `MEMORY`, and nothing uses it any more (contract).
    unsafe { MEMORY.free(table) }
}

/// Whether none of `tables` is among the pages that can be allocated on `cpu`, where they were
/// given up.
///
/// # Errors
///
/// `EAGAIN` if a page that is freed here does not come back either, or this runs on another CPU
/// now: the answer would mean nothing.
fn are_kept(tables: &[NonNull<Table>], cpu: u32) -> Result<bool> {
    let mut others = KVec::with_capacity(TRIES, GFP_KERNEL)?;
    let freed = alloc()?;
    // SAFETY: Allocated above, and not used.
    unsafe { free(freed) };
    for _ in 0..TRIES {
        others.push(alloc()?, GFP_KERNEL)?;
    }
    let would_find = CpuId::current().as_u32() == cpu && others.contains(&freed);
    let kept = !others.iter().any(|other| tables.contains(other));
    for other in others {
        // SAFETY: Allocated above, and not used.
        unsafe { free(other) };
    }
    would_find.then_some(kept).ok_or(EAGAIN)
}

/// Repeats `trial` while it returns `EAGAIN`, as [`are_kept`] does.
fn until_told(mut trial: impl FnMut() -> Result) -> Result {
    for _ in 0..TRIES {
        match trial() {
            Err(EAGAIN) => {}
            told => return told,
        }
    }
    Err(EAGAIN)
}

/// The first word of a table.
///
/// # Safety
///
/// It came from [`alloc`], and was not freed.
unsafe fn first_word(table: NonNull<Table>) -> u64 {
    // SAFETY: `table` came from `alloc()` and was not freed, so it is valid for reads (contract).
    unsafe { table.cast::<u64>().as_ptr().read_volatile() }
}

/// Puts `tables` into a gather of `domain` and has it flushed. `fails` makes the flush fail.
/// Returns the CPU that ran the flush.
fn give_up(domain: &Domain<FakeDomain>, tables: &[NonNull<Table>], fails: bool) -> Result<u32> {
    pin_init::stack_pin_init!(let local = LocalGather::new());
    let mut gather: IotlbGather<'_> = local.borrow();

    gather.add(Range::new(0, 1 << 21)?);
    for table in tables {
        // SAFETY: Nothing names the table, and it is of the memory of all domains.
        gather.queue_free(unsafe { DetachedTable::from_raw(*table) });
    }
    assert!(gather.has_tables());
    domain.data.fails.store(fails, Relaxed);
    // SAFETY: What is in the gather is like tables of this domain: only a walk of it may be in
    // them.
    let flushed = unsafe { domain.sync(&mut gather) };
    assert_eq!(flushed.is_err(), fails);
    assert!(!gather.has_tables());
    Ok(CpuId::current().as_u32())
}

#[kunit_tests(rust_iommu_removals)]
mod suite {
    use super::*;

    fn domain() -> Result<Pin<KBox<Domain<FakeDomain>>>> {
        new_domain(FakeDomain::new(1, Log::new()?), AllocFlags::default())
    }

    #[test]
    fn tables_wait_for_a_harvest() -> Result {
        until_told(|| {
            let domain = domain()?;
            let tables = [alloc()?, alloc()?];
            let walk = domain.walk(Range::new(0, 1 << 21)?).ok_or(EIO)?;

            let cpu = give_up(&domain, &tables, false)?;
            assert!(!domain.walks.is_idle());
            assert!(are_kept(&tables, cpu)?);
            // Either table is first on the list, and leads to the other.
            // SAFETY: The tables wait for the walk, so they are not freed.
            let words = tables.map(|table| unsafe { first_word(table) });
            let numbers = tables.map(|table| table.as_ptr().addr() as u64);
            assert!(words == [0, numbers[0]] || words == [numbers[1], 0]);
            drop(walk);
            assert!(domain.walks.is_idle());
            Ok(())
        })
    }

    #[test]
    fn tables_of_a_failed_flush_are_kept() -> Result {
        let domain = domain()?;
        for is_walked in [false, true] {
            until_told(|| {
                let tables = [alloc()?, alloc()?];
                let walk = is_walked.then(|| domain.walk(Range::ALL)).flatten();
                assert_eq!(walk.is_some(), is_walked);

                let cpu = give_up(&domain, &tables, true)?;
                drop(walk);
                let kept = are_kept(&tables, cpu);
                assert!(kept != Ok(false));
                for table in tables {
                    // SAFETY: The domain has leaked it, and no hardware uses it.
                    unsafe { free(table) };
                }
                kept.map(|_| ())
            })?;
        }
        Ok(())
    }

    /// The core frees the tables in its flush queue, even if the flush has failed.
    #[test]
    fn no_table_waits_in_a_flush_queue() -> Result {
        let log = Log::new()?;
        let domain = new_domain(FakeDomain::new(1, log.clone()), AllocFlags::default())?;
        let unmap = DomainTable::<FakeDomain>::table()
            .unmap_pages
            .ok_or(EINVAL)?;
        let raw = core::ptr::from_ref(&*domain).cast_mut().cast();
        let range = Range::new(0, 1 << 12)?;

        for (queued, detaches) in [(false, false), (false, true), (true, false), (true, true)] {
            pin_init::stack_pin_init!(let local = LocalGather::new());
            let mut gather = local.borrow();
            // SAFETY: The gather is initialised, and not used otherwise meanwhile.
            unsafe { (*gather.as_ptr()).queued = queued };
            domain.data.detaches.store(detaches, Relaxed);
            let _ = log.take();
            // SAFETY: The domain is live and begins with its C part. Only this test uses the domain
            // and the gather.
            let unmapped = unsafe { unmap(raw, 0, 1 << 12, 1, gather.as_ptr()) };
            assert_eq!(unmapped, 1 << 12);

            let expected = Event::Flush(Flush::Range {
                range,
                tables: true,
            });
            let expected: &[Event] = if queued && detaches { &[expected] } else { &[] };
            assert_eq!(&log.take()[..], expected);
            assert_eq!(gather.has_tables(), detaches && !queued);
            // What was unmapped is flushed by the core in any case.
            assert!(gather.flush().is_some());
            // SAFETY: What is in the gather is like tables of this domain.
            unsafe { domain.sync(&mut gather) }?;
        }
        Ok(())
    }
}
