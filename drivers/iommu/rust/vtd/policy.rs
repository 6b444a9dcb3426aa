// SPDX-License-Identifier: GPL-2.0

//! The user's choices: module parameters, and their meaning for a unit.
//!
//! `stage`: 0 (automatic), 1 (first) or 2 (second). If a unit offers only one stage, the driver
//! uses it; if the user asks for the other, the module does not load. Automatic is the first stage,
//! as in the C driver; domains that track dirty pages use the second if it has dirty flags, since
//! these can be switched, and the first otherwise.
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
    Stage, //
};

/// The user's decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    stage: Option<Stage>,
    /// The default domains of devices that do not need a particular one.
    pub(crate) default_domain: DefaultDomain,
}

impl Policy {
    /// Reads the values of the module parameters.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an invalid value, which the log names.
    pub(crate) fn new(stage: u32, default_domain: u32) -> Result<Self> {
        let stage = match stage {
            0 => None,
            1 => Some(Stage::First),
            2 => Some(Stage::Second),
            _ => {
                pr_err!("stage={stage}: use 0 (automatic), 1 (first) or 2 (second)\n");
                return Err(EINVAL);
            }
        };
        let default_domain = DefaultDomain::from_parameter(default_domain).inspect_err(|_| {
            pr_err!(
                "default_domain={default_domain}: use 0 (identity), 1 (DMA API) or 2 (as booted)\n"
            );
        })?;
        Ok(Self {
            stage,
            default_domain,
        })
    }

    /// The stage of a new domain that tracks dirty pages or does not.
    pub(crate) fn stage(&self, caps: &Caps, dirty: bool) -> Stage {
        if let Some(stage) = self.stage {
            return stage;
        }
        let other = if caps.shape(Stage::First).is_none() {
            Stage::Second
        } else {
            Stage::First
        };
        if dirty && caps.dirty(Stage::Second).is_ok() {
            Stage::Second
        } else {
            other
        }
    }

    /// Prints what a unit offers to its devices, and what it lacks. Domains that track have
    /// `splits`.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the unit does not have the requested stage; the log says so.
    pub(crate) fn explain(&self, number: usize, caps: &Caps, splits: Splits) -> Result {
        let stage = self.stage(caps, false);
        let Some(shape) = caps.shape(stage) else {
            pr_err!(
                "dmar{}: does not offer the {} stage; load the module without stage=\n",
                number,
                name(stage)
            );
            return Err(EOPNOTSUPP);
        };
        pr_info!(
            "dmar{}: {} stage, {} levels, {} bits, {} walks\n",
            number,
            name(stage),
            shape.levels,
            shape.input_lg2,
            if caps.coherent_walk() {
                "coherent"
            } else {
                "incoherent"
            }
        );
        let tracking = self.stage(caps, true);
        match caps.dirty(tracking) {
            Ok(()) => pr_info!(
                "dmar{}: dirty tracking in {}-stage tables, {}\n",
                number,
                name(tracking),
                splits.describe()
            ),
            Err(missing) => pr_info!("dmar{}: no dirty tracking: {}\n", number, missing.reason()),
        }
        Ok(())
    }
}

/// The name of a stage.
fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::First => "first",
        Stage::Second => "second",
    }
}

#[cfg(CONFIG_RUST_INTEL_VTD_KUNIT_TEST)]
#[kunit_tests(rust_vtd_policy)]
mod tests {
    use super::*;
    use crate::regs::cap::{
        CAP,
        ECAP, //
    };

    const SSADS: u64 = 1 << 45;
    const SSTS: u64 = 1 << 46;
    const FSTS: u64 = 1 << 47;
    const SMPWC: u64 = 1 << 48;

    fn caps(ecap: u64) -> Caps {
        Caps::new(CAP::from_raw(0b100 << 8 | 47 << 16), ECAP::from_raw(ecap))
    }

    #[test]
    fn automatic_stage() -> Result {
        let policy = Policy::new(0, 0)?;
        assert_eq!(policy.stage(&caps(SSTS), false), Stage::Second);
        assert_eq!(policy.stage(&caps(FSTS), false), Stage::First);
        let both = caps(SSTS | FSTS | SMPWC);
        assert_eq!(policy.stage(&both, false), Stage::First);
        assert_eq!(policy.stage(&both, true), Stage::First);
        let switched = caps(SSTS | FSTS | SMPWC | SSADS);
        assert_eq!(policy.stage(&switched, false), Stage::First);
        assert_eq!(policy.stage(&switched, true), Stage::Second);
        Ok(())
    }

    #[test]
    fn a_stage_that_was_asked_for() -> Result {
        let both = caps(SSTS | FSTS | SMPWC | SSADS);
        assert_eq!(Policy::new(1, 0)?.stage(&both, true), Stage::First);
        assert_eq!(Policy::new(2, 0)?.stage(&both, false), Stage::Second);
        assert!(Policy::new(2, 0)?
            .explain(9, &caps(FSTS), Splits::Off)
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
