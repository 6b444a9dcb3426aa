// SPDX-License-Identifier: GPL-2.0

//! Domain ids: the tags under which a unit caches the translations of a domain.
//!
//! An id has a meaning in one unit only. A domain takes one in each unit that it is attached to,
//! for all devices there, and has it until it goes.

use kernel::{
    id_pool::IdPool,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

use super::lock_class;

/// The domain ids of a unit, of which some are in use.
///
/// # Examples
///
/// ```
/// use kernel::iommu::domain_id::IdSet;
///
/// // Ids below 256, of which the first two have a special meaning.
/// let mut ids = IdSet::new(2, 256)?;
/// let id = ids.take()?;
/// assert_eq!(id, 2);
/// ids.give_back(id);
/// # Ok::<(), Error>(())
/// ```
pub struct IdSet {
    // Has room for all ids from the start, so it never grows: a unit has at most 2^16.
    pool: IdPool,
    first: u16,
    limit: usize,
}

impl IdSet {
    /// The ids from `first` to below `limit`; those below `first` are never given out.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(first: u16, limit: u32) -> Result<Self> {
        // CAST: At most 2^16.
        let limit = limit.min(1 << 16) as usize;
        Ok(Self {
            pool: IdPool::with_capacity(limit, GFP_KERNEL)?,
            first,
            limit,
        })
    }

    /// Takes the lowest id that is not in use.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if all are.
    pub fn take(&mut self) -> Result<u16> {
        // The pool does not take a start beyond its end.
        if usize::from(self.first) >= self.limit {
            return Err(ENOSPC);
        }
        let unused = self.pool.find_unused_id(self.first.into()).ok_or(ENOSPC)?;
        // A small pool has more room than was asked for.
        if unused.as_usize() >= self.limit {
            return Err(ENOSPC);
        }
        // CAST: Below the limit, which is at most 2^16.
        Ok(unused.acquire() as u16)
    }

    /// Gives an id back that the unit has forgotten. Ids that are never given out are ignored.
    pub fn give_back(&mut self, id: u16) {
        if id >= self.first && usize::from(id) < self.limit {
            self.pool.release_id(id.into());
        }
    }
}

/// A unit that tells domains apart by an id.
pub trait HasDomainIds: Send + Sync + 'static {
    /// The ids of the unit. Their lock is innermost.
    fn domain_ids(&self) -> &Mutex<IdSet>;
}

/// A domain id of a unit.
///
/// Dropping it gives the id back: the unit must have forgotten everything cached under it.
pub struct DomainId<U: HasDomainIds> {
    /// The unit.
    pub unit: Arc<U>,
    /// The id.
    pub id: u16,
}

impl<U: HasDomainIds> DomainId<U> {
    /// Takes an id of `unit`.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOSPC`.
    pub fn new(unit: &Arc<U>) -> Result<Self> {
        Ok(Self {
            unit: unit.clone(),
            id: unit.domain_ids().lock().take()?,
        })
    }
}

impl<U: HasDomainIds> Drop for DomainId<U> {
    fn drop(&mut self) {
        self.unit.domain_ids().lock().give_back(self.id);
    }
}

/// The ids of a domain, one for each unit.
///
/// Their lock is taken under the attach lock of the registry, and only that of a unit's ids under
/// it.
#[pin_data]
pub struct DomainIds<U: HasDomainIds> {
    #[pin]
    known: Mutex<KVec<Arc<DomainId<U>>>>,
}

impl<U: HasDomainIds> DomainIds<U> {
    /// Creates an empty list.
    pub fn new() -> impl PinInit<Self> {
        let (name, key) = lock_class::domain_ids_known();
        pin_init!(Self {
            known <- Mutex::new(KVec::new(), name, key),
        })
    }

    /// The id in `unit`, which is taken the first time.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if the unit has none left, `ENOMEM`. Nothing was taken then.
    pub fn of(&self, unit: &Arc<U>) -> Result<Arc<DomainId<U>>> {
        let mut known = self.known.lock();
        if let Some(id) = known.iter().find(|id| Arc::ptr_eq(&id.unit, unit)) {
            return Ok(id.clone());
        }
        known.reserve(1, GFP_KERNEL)?;
        let id = Arc::new(DomainId::new(unit)?, GFP_KERNEL)?;
        known.push(id.clone(), GFP_KERNEL)?;
        Ok(id)
    }
}

/// The target of a flush of a domain: a unit, and the id under which it has cached the
/// translations.
pub struct Tag<U, C> {
    /// The unit.
    pub unit: Arc<U>,
    /// The key of its caches: a domain id, and what else the unit tells translations apart by.
    pub cached: C,
}

impl<U, C: Clone> Clone for Tag<U, C> {
    fn clone(&self) -> Self {
        Self {
            unit: self.unit.clone(),
            cached: self.cached.clone(),
        }
    }
}

impl<U, C: PartialEq> PartialEq for Tag<U, C> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.unit, &other.unit) && self.cached == other.cached
    }
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_domain_id)]
mod tests {
    use super::*;
    use kernel::new_mutex;

    #[test]
    fn all_ids_but_the_reserved_ones() -> Result {
        for limit in [50, 80] {
            let mut set = IdSet::new(2, limit)?;
            for id in 2..limit {
                assert_eq!(set.take().map(u32::from), Ok(id));
            }
            assert_eq!(set.take(), Err(ENOSPC));
            for id in [40, 3, 0, 1, 200] {
                set.give_back(id);
            }
            assert_eq!(set.take(), Ok(3));
            assert_eq!(set.take(), Ok(40));
            assert_eq!(set.take(), Err(ENOSPC));
        }
        Ok(())
    }

    #[pin_data]
    struct Unit {
        #[pin]
        ids: Mutex<IdSet>,
    }

    impl Unit {
        /// A unit with ids from `first` to below 12.
        fn new(first: u16) -> Result<Arc<Self>> {
            let ids = IdSet::new(first, 12)?;
            Arc::pin_init(pin_init!(Self { ids <- new_mutex!(ids) }), GFP_KERNEL)
        }
    }

    impl HasDomainIds for Unit {
        fn domain_ids(&self) -> &Mutex<IdSet> {
            &self.ids
        }
    }

    #[test]
    fn a_domain_has_one_id_in_each_unit() -> Result {
        let (unit, other) = (Unit::new(2)?, Unit::new(7)?);
        let domain = KBox::pin_init(DomainIds::new(), GFP_KERNEL)?;
        let first = domain.of(&unit)?;
        assert_eq!((first.id, domain.of(&other)?.id), (2, 7));
        assert!(Arc::ptr_eq(&first, &domain.of(&unit)?));
        // Two domains never share one.
        let second = KBox::pin_init(DomainIds::new(), GFP_KERNEL)?;
        assert_eq!(second.of(&unit)?.id, 3);
        Ok(())
    }

    #[test]
    fn an_id_is_free_when_no_domain_and_no_device_has_it() -> Result {
        let unit = Unit::new(2)?;
        let domain = KBox::pin_init(DomainIds::new(), GFP_KERNEL)?;
        let id = domain.of(&unit)?;
        drop(domain);
        // A device is attached to the domain still.
        assert_eq!(DomainId::new(&unit)?.id, 3);
        drop(id);
        assert_eq!(DomainId::new(&unit)?.id, 2);
        Ok(())
    }

    #[test]
    fn a_unit_may_have_none_left() -> Result {
        let unit = Unit::new(11)?;
        let last = DomainId::new(&unit)?;
        let domain = KBox::pin_init(DomainIds::new(), GFP_KERNEL)?;
        assert_eq!(domain.of(&unit).err(), Some(ENOSPC));
        drop(last);
        assert_eq!(domain.of(&unit)?.id, 11);
        Ok(())
    }
}
