// SPDX-License-Identifier: GPL-2.0

//! Devices whose interrupts a unit cannot tell apart, and what keeps a device from being remapped.

use kernel::{
    device::Device,
    fmt,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};

/// Why the interrupts of a device are not remapped.
pub(super) enum Obstacle {
    /// For this reason, permanently.
    Always(&'static str),
    /// This device has interrupts that are not remapped, and is not told apart.
    Sharer(ARef<Device>),
    /// It shares with devices that have different tables.
    Between,
    /// It could not be done.
    Failed(Error),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always(why) => f.write_str(why),
            Self::Sharer(other) => f.write_fmt(fmt!(
                "it shares a requester ID with {}, whose driver was there before: unbind that one, \
                 and bind this one anew",
                other.name()
            )),
            Self::Between => f.write_str(
                "it shares requester IDs with devices that have different tables: unbind all of \
                 them, and load this module before their drivers",
            ),
            Self::Failed(error) => f.write_fmt(fmt!("{:?}", *error)),
        }
    }
}

/// The table of those with which a device shares; each of them either has a table, or is `busy`
/// with interrupts that are not remapped, or neither. The error says which one is busy, [`None`] if
/// there are two tables.
pub(super) fn common<T, D>(
    sharers: impl Iterator<Item = (D, bool, Option<Arc<T>>)>,
) -> Result<Option<Arc<T>>, Option<D>> {
    let mut common: Option<Arc<T>> = None;
    for (device, busy, table) in sharers {
        match (table, &common) {
            (None, _) if busy => return Err(Some(device)),
            (None, _) => {}
            (Some(table), Some(found)) if Arc::ptr_eq(&table, found) => {}
            (Some(_), Some(_)) => return Err(None),
            (Some(table), None) => common = Some(table),
        }
    }
    Ok(common)
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_irq_sharers)]
mod tests {
    use super::*;
    use kernel::kvec;

    #[test]
    fn those_that_are_not_told_apart_have_one_table() -> Result {
        let (one, two) = (Arc::new(1, GFP_KERNEL)?, Arc::new(2, GFP_KERNEL)?);
        let found = |sharers: KVec<(u32, bool, Option<Arc<i32>>)>| {
            common(sharers.into_iter()).map(|table| table.map(|table| *table))
        };
        let none = || None::<Arc<i32>>;
        assert_eq!(found(KVec::new()), Ok(None));
        // One that has no interrupts yet is not in the way.
        assert_eq!(found(kvec![(7, false, none())]?), Ok(None));
        assert_eq!(
            found(kvec![(7, false, none()), (8, true, Some(one.clone()))]?),
            Ok(Some(1))
        );
        assert_eq!(
            found(kvec![
                (7, true, Some(one.clone())),
                (8, true, Some(one.clone()))
            ]?),
            Ok(Some(1))
        );
        // One that has interrupts which are not remapped is.
        assert_eq!(
            found(kvec![(7, true, Some(one.clone())), (8, true, none())]?),
            Err(Some(8))
        );
        assert_eq!(
            found(kvec![(7, true, Some(one)), (8, true, Some(two))]?),
            Err(None)
        );
        Ok(())
    }
}
