// SPDX-License-Identifier: GPL-2.0

//! What becomes of tables that a domain gives up.

use super::{
    super::super::{
        domain::{
            AllocFlags,
            Domain, //
        },
        gather::{
            IotlbGather,
            LocalGather, //
        },
        pages::{
            Gfp,
            KernelTables, //
        },
        pt::{
            DetachedTable,
            Gather,
            Range,
            Table,
            TableMem, //
        }, //
    },
    fake::{
        FakeDomain,
        Log, //
    },
    *,
};
use core::ptr::NonNull;

const MEMORY: KernelTables = KernelTables::new(None);

/// As many allocations as would find a page again that this CPU has just freed.
const TRIES: usize = 64;

fn alloc() -> Result<NonNull<Table>> {
    MEMORY.alloc(Gfp::KERNEL)
}

/// Gives a table back.
///
/// # Safety
///
/// It came from [`alloc`], and was not freed.
unsafe fn free(table: NonNull<Table>) {
    // SAFETY: By this function's contract; no hardware knows of it.
    unsafe { MEMORY.free(table) }
}

/// Whether none of `tables` is among the pages that can be allocated.
fn are_kept(tables: &[NonNull<Table>]) -> Result<bool> {
    let mut others = KVec::with_capacity(TRIES, GFP_KERNEL)?;
    for _ in 0..TRIES {
        others.push(alloc()?, GFP_KERNEL)?;
    }
    let kept = !others.iter().any(|other| tables.contains(other));
    for other in others {
        // SAFETY: Allocated above.
        unsafe { free(other) };
    }
    Ok(kept)
}

/// The first word of a table.
///
/// # Safety
///
/// It came from [`alloc`], and was not freed.
unsafe fn first_word(table: NonNull<Table>) -> u64 {
    // SAFETY: By this function's contract.
    unsafe { table.cast::<u64>().as_ptr().read_volatile() }
}

/// Puts `tables` into a gather of `domain` and has it flushed, which fails or not.
fn give_up(domain: &Domain<FakeDomain>, tables: &[NonNull<Table>], fails: bool) -> Result {
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
    Ok(())
}

#[kunit_tests(rust_iommu_removal)]
mod suite {
    use super::*;

    fn domain() -> Result<Pin<KBox<Domain<FakeDomain>>>> {
        Domain::new(FakeDomain::new(1, Log::new()?), AllocFlags::default())
    }

    #[test]
    fn tables_wait_for_a_harvest() -> Result {
        let domain = domain()?;
        let tables = [alloc()?, alloc()?];
        let walk = domain.walk(Range::new(0, 1 << 21)?).ok_or(EIO)?;

        give_up(&domain, &tables, false)?;
        assert!(!domain.walks.is_idle());
        assert!(are_kept(&tables)?);
        // One leads to the other, whichever was first.
        // SAFETY: They wait for the walk.
        let words = tables.map(|table| unsafe { first_word(table) });
        let numbers = tables.map(|table| table.as_ptr().addr() as u64);
        assert!(words == [0, numbers[0]] || words == [numbers[1], 0]);
        drop(walk);
        assert!(domain.walks.is_idle());
        Ok(())
    }

    #[test]
    fn tables_of_a_failed_flush_are_kept() -> Result {
        let domain = domain()?;
        for is_walked in [false, true] {
            let tables = [alloc()?, alloc()?];
            let walk = is_walked.then(|| domain.walk(Range::ALL)).flatten();
            assert_eq!(walk.is_some(), is_walked);

            give_up(&domain, &tables, true)?;
            drop(walk);
            assert!(are_kept(&tables)?);
            for table in tables {
                // SAFETY: The domain has leaked it, and no hardware knows of it.
                unsafe { free(table) };
            }
        }
        Ok(())
    }
}
