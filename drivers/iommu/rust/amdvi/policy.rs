// SPDX-License-Identifier: GPL-2.0

//! The user's choices: module parameters, and their meaning for a unit.
//!
//! `tables`: 0 (automatic), 1 (host tables, "v1") or 2 (guest tables, "v2"). If a unit walks only
//! one kind, the driver uses it; if the user asks for the other, the module does not load.
//! Automatic is host tables, as in the C driver; domains that track dirty pages use guest tables if
//! host tables have no dirty flags, and domains for PASIDs always do. If the user asks for host
//! tables, the driver offers no PASIDs.
//!
//! `default_domain`: see [`DefaultDomain::from_parameter`].
//!
//! `split`: see [`SplitParameter`](kernel::iommu::split_parameter::SplitParameter). The
//! specification does not say that a change of the size of a leaf in use leaves DMA undisturbed, so
//! this is for the administrator to switch on.

use kernel::{
    iommu::{
        device::DefaultDomain,
        values::Splits, //
    },
    prelude::*, //
};

use crate::caps::{
    Caps,
    TableKind, //
};

/// The user's decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    tables: Option<TableKind>,
    /// The default domains of devices that do not need a particular one.
    pub(crate) default_domain: DefaultDomain,
}

impl Policy {
    /// Reads the values of the module parameters.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an invalid value, which the log names.
    pub(crate) fn new(tables: u32, default_domain: u32) -> Result<Self> {
        let tables = match tables {
            0 => None,
            1 => Some(TableKind::Host),
            2 => Some(TableKind::Guest),
            _ => {
                pr_err!("tables={tables}: use 0 (automatic), 1 (host, v1) or 2 (guest, v2)\n");
                return Err(EINVAL);
            }
        };
        let default_domain = DefaultDomain::from_parameter(default_domain).inspect_err(|_| {
            pr_err!(
                "default_domain={default_domain}: use 0 (identity), 1 (DMA API) or 2 (as booted)\n"
            );
        })?;
        Ok(Self {
            tables,
            default_domain,
        })
    }

    /// The tables of a new domain that tracks dirty pages or does not.
    pub(crate) fn tables(&self, caps: &Caps, dirty: bool) -> TableKind {
        if let Some(tables) = self.tables {
            return tables;
        }
        let host = if dirty {
            caps.dirty(TableKind::Host).is_ok() || caps.dirty(TableKind::Guest).is_err()
        } else {
            true
        };
        if host && caps.shape(TableKind::Host).is_some() {
            TableKind::Host
        } else {
            TableKind::Guest
        }
    }

    /// The tables of a new domain for PASIDs, whether it tracks dirty pages or not: only guest
    /// tables have PASIDs.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the user asks for host tables.
    pub(crate) fn tables_for_pasid(&self) -> Result<TableKind> {
        match self.tables {
            Some(TableKind::Host) => Err(EOPNOTSUPP),
            _ => Ok(TableKind::Guest),
        }
    }

    /// The number of PASIDs that a unit can tell apart, 0 if the driver offers none.
    pub(crate) fn pasids(&self, caps: &Caps) -> u32 {
        if self.tables_for_pasid().is_err() {
            return 0;
        }
        caps.pasids()
    }

    /// Whether every domain for a device behind a unit enforces snooping: host tables do, guest
    /// tables have no bit for it. `pasids` tells whether the device has PASIDs, whose domains have
    /// guest tables.
    pub(crate) fn always_snoops(&self, caps: &Caps, pasids: bool) -> bool {
        !pasids
            && [false, true]
                .into_iter()
                .all(|dirty| self.tables(caps, dirty) == TableKind::Host)
    }

    /// Prints what a unit offers to its devices, and what it lacks. Domains that track have
    /// `splits`.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the unit does not walk the requested tables; the log says so.
    pub(crate) fn explain(&self, number: usize, caps: &Caps, splits: Splits) -> Result {
        let tables = self.tables(caps, false);
        let Some(shape) = caps.shape(tables) else {
            pr_err!(
                "ivhd{}: does not walk {} tables; load the module without tables=\n",
                number,
                name(tables)
            );
            return Err(EOPNOTSUPP);
        };
        pr_info!(
            "ivhd{}: {} tables, {} to {} levels, {} bits\n",
            number,
            name(tables),
            shape.levels,
            shape.max_levels,
            shape.input_lg2
        );
        let tracking = self.tables(caps, true);
        match caps.dirty(tracking) {
            Ok(()) => pr_info!(
                "ivhd{}: dirty tracking in {} tables, {}\n",
                number,
                name(tracking),
                splits.describe()
            ),
            Err(missing) => pr_info!("ivhd{}: no dirty tracking: {}\n", number, missing.reason()),
        }
        match self.pasids(caps) {
            0 => pr_info!(
                "ivhd{}: no PASIDs: there are no guest (v2) tables\n",
                number
            ),
            count => pr_info!("ivhd{}: {} PASIDs of a device\n", number, count),
        }
        Ok(())
    }
}

/// The name of a kind of tables.
fn name(tables: TableKind) -> &'static str {
    match tables {
        TableKind::Host => "host (v1)",
        TableKind::Guest => "guest (v2)",
    }
}

#[cfg(CONFIG_RUST_AMD_VI_KUNIT_TEST)]
#[kunit_tests(rust_amdvi_policy)]
mod tests {
    use super::*;
    use crate::regs::cap::{
        Header,
        EFR,
        EFR2, //
    };

    const GUEST: u64 = 1 << 4 | 1 << 48;
    const FLAGS: u64 = 1 << 49 | 1 << 52;
    const NO_HOST: u64 = 3 << 10;

    fn caps(efr: u64) -> Caps {
        Caps::new(
            Header::from_raw(1 << 27),
            EFR::from_raw(efr),
            EFR2::from_raw(0),
            0,
            false,
        )
    }

    #[test]
    fn automatic_tables() -> Result {
        let policy = Policy::new(0, 0)?;
        for dirty in [false, true] {
            assert_eq!(policy.tables(&caps(0), dirty), TableKind::Host);
            assert_eq!(
                policy.tables(&caps(NO_HOST | GUEST), dirty),
                TableKind::Guest
            );
            assert_eq!(policy.tables(&caps(GUEST | FLAGS), dirty), TableKind::Host);
        }
        // Without dirty flags in host tables, domains that track have guest tables.
        assert_eq!(policy.tables(&caps(GUEST), false), TableKind::Host);
        assert_eq!(policy.tables(&caps(GUEST), true), TableKind::Guest);
        // Those for PASIDs are guest tables wherever there are any.
        assert_eq!(policy.tables_for_pasid(), Ok(TableKind::Guest));
        // Domains that track have guest tables if the flags of host tables are missing, those for
        // PASIDs always: the answer is one for each device.
        assert!(policy.always_snoops(&caps(GUEST | FLAGS), false));
        assert!(!policy.always_snoops(&caps(GUEST | FLAGS), true));
        assert!(!policy.always_snoops(&caps(GUEST), false));
        Ok(())
    }

    #[test]
    fn tables_that_were_asked_for() -> Result {
        let both = caps(GUEST | FLAGS);
        assert_eq!(Policy::new(1, 0)?.tables(&both, true), TableKind::Host);
        assert_eq!(Policy::new(1, 0)?.tables_for_pasid(), Err(EOPNOTSUPP));
        assert_eq!(Policy::new(1, 0)?.pasids(&both), 0);
        assert_eq!(Policy::new(2, 0)?.pasids(&both), 2);
        assert_eq!(Policy::new(0, 0)?.pasids(&both), 2);
        assert!(Policy::new(1, 0)?.always_snoops(&caps(GUEST), false));
        assert!(!Policy::new(2, 0)?.always_snoops(&both, false));
        assert_eq!(Policy::new(2, 0)?.tables(&both, false), TableKind::Guest);
        assert!(Policy::new(2, 0)?
            .explain(9, &caps(0), Splits::Off)
            .is_err());
        assert!(Policy::new(1, 0)?
            .explain(9, &caps(NO_HOST | GUEST), Splits::Off)
            .is_err());
        assert!(Policy::new(2, 0)?.explain(9, &both, Splits::Off).is_ok());
        Ok(())
    }

    #[test]
    fn values_without_meaning() {
        assert!(Policy::new(3, 0).is_err());
        assert!(Policy::new(0, 3).is_err());
    }
}
