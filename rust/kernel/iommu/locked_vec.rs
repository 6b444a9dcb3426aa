// SPDX-License-Identifier: GPL-2.0

//! Vectors under a spinlock that grow outside of it.
//!
//! Code under a spinlock neither allocates nor frees. So a caller that adds an element allocates
//! larger memory before it takes the lock, and frees the old memory after it: [`push`] does all of
//! that. [`Room`] is for callers that have more to do under the lock.

use kernel::{
    alloc::kvec::PushError,
    prelude::*,
    sync::lock::{
        Backend,
        Lock, //
    }, //
};

/// Memory for a vector to move to.
pub struct Room<T>(KVec<T>);

impl<T> Room<T> {
    /// Room for `capacity` elements in all.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(capacity: usize) -> Result<Self> {
        Ok(Self(KVec::with_capacity(capacity, GFP_KERNEL)?))
    }

    /// Moves `list` here, in its order, if there is more room here than it has. Its old memory
    /// stays behind, empty, to be dropped without the lock.
    ///
    /// Context: any.
    pub fn give(&mut self, list: &mut KVec<T>) {
        if self.0.capacity() <= list.capacity() {
            return;
        }
        for element in list.drain_all() {
            // Fits: there is more room than the list had.
            let _ = self.0.push_within_capacity(element);
        }
        core::mem::swap(&mut self.0, list);
    }
}

/// Adds `value` at the end of `list`. Other CPUs may add and remove at the same time.
///
/// Context: may sleep.
///
/// # Errors
///
/// `ENOMEM`; the list is as it was then.
pub fn push<T, B: Backend>(list: &Lock<KVec<T>, B>, value: T) -> Result {
    push_with(list, value, Room::new)
}

/// [`push`] with memory from `allocate`, which is called without the lock.
fn push_with<T, B: Backend>(
    list: &Lock<KVec<T>, B>,
    mut value: T,
    mut allocate: impl FnMut(usize) -> Result<Room<T>>,
) -> Result {
    // Outlives the guard of each round, and with it the old memory.
    let mut room = Room(KVec::new());
    loop {
        let mut held = list.lock();
        room.give(&mut held);
        match held.push_within_capacity(value) {
            Ok(()) => return Ok(()),
            Err(PushError(back)) => value = back,
        }
        let wanted = held.len().saturating_mul(2).max(4);
        drop(held);
        // If others fill it in the meantime, there is another round.
        room = allocate(wanted)?;
    }
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_locked_vec)]
mod tests {
    use super::*;
    use kernel::{
        new_spinlock_irq,
        sync::{
            Arc,
            SpinLockIrq, //
        }, //
    };

    type List = SpinLockIrq<KVec<Arc<u32>>>;

    fn empty() -> Result<Pin<KBox<List>>> {
        KBox::pin_init(new_spinlock_irq!(KVec::new()), GFP_KERNEL)
    }

    fn is_full(list: &List) -> bool {
        let held = list.lock();
        held.len() == held.capacity()
    }

    fn is(list: &List, expected: impl Iterator<Item = u32>) -> bool {
        list.lock().iter().map(|value| **value).eq(expected)
    }

    #[test]
    fn the_order_is_kept() -> Result {
        let list = empty()?;
        for value in 0..100 {
            push(&list, Arc::new(value, GFP_KERNEL)?)?;
            assert!(is(&list, 0..=value));
        }
        Ok(())
    }

    #[test]
    fn memory_is_asked_for_only_when_the_list_is_full() -> Result {
        let list = empty()?;
        let mut asked = 0;
        for value in 0..64 {
            push_with(&list, Arc::new(value, GFP_KERNEL)?, |capacity| {
                // The lock is not held here.
                assert!(is_full(&list));
                asked += 1;
                Room::new(capacity)
            })?;
        }
        assert_eq!(asked, 5);
        Ok(())
    }

    #[test]
    fn without_memory_nothing_changes() -> Result {
        let list = empty()?;
        let value = Arc::new(7, GFP_KERNEL)?;
        let refuse = |_| Err(ENOMEM);
        assert_eq!(push_with(&list, value.clone(), refuse), Err(ENOMEM));
        assert!(list.lock().is_empty());
        // No reference was kept.
        assert!(Arc::into_unique_or_drop(value).is_some());

        while list.lock().len() < 4 {
            push(&list, Arc::new(1, GFP_KERNEL)?)?;
        }
        assert_eq!(
            push_with(&list, Arc::new(2, GFP_KERNEL)?, refuse),
            Err(ENOMEM)
        );
        assert!(is(&list, [1; 4].into_iter()));
        push(&list, Arc::new(2, GFP_KERNEL)?)?;
        assert!(is(&list, [1, 1, 1, 1, 2].into_iter()));
        Ok(())
    }

    /// Another caller is faster than the allocation, and fills the room that was asked for.
    #[test]
    fn another_cpu_may_add_in_between() -> Result {
        let list = empty()?;
        let mut rounds = 0;
        push_with(&list, Arc::new(5, GFP_KERNEL)?, |capacity| {
            rounds += 1;
            if rounds == 1 {
                for value in 0..5 {
                    push(&list, Arc::new(value, GFP_KERNEL)?)?;
                }
                // Full, so that the push above has to ask again.
                while !is_full(&list) {
                    push(&list, Arc::new(9, GFP_KERNEL)?)?;
                }
            }
            Room::new(capacity)
        })?;
        assert_eq!(rounds, 2);
        assert!(is(&list, [0, 1, 2, 3, 4, 9, 9, 9, 5].into_iter()));
        Ok(())
    }
}
