// SPDX-License-Identifier: GPL-2.0

//! Domain ids: what a unit caches the translations of a domain under.
//!
//! An id has a meaning in one unit only. A domain takes one in each unit that it is attached to, for
//! all devices there, and has it until it goes.

use kernel::{
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

use super::{
    ids::IdSet,
    lock_class, //
};

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
    /// None yet.
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

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_domain_id)]
mod tests {
    use super::*;
    use kernel::new_mutex;

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
    fn an_id_is_free_when_nobody_has_it() -> Result {
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
