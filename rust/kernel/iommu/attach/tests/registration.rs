// SPDX-License-Identifier: GPL-2.0

//! A driver that registers with the real core, which offers it devices that it does not take.

use super::{
    super::super::{
        device::UnitInfo,
        ops::Driver,
        registry::Registration, //
    },
    fake::Fake,
    *,
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    faux,
    str::CString,
    ThisModule, //
};

/// The crate that the tests are built into.
// SAFETY: It is no module.
static BUILT_IN: ThisModule = unsafe { ThisModule::from_ptr(core::ptr::null_mut()) };

fn register() -> Result<Registration<Fake>> {
    let mut units = KVec::new();
    for name in [c"rust-fake0", c"rust-fake1"] {
        units.push(
            UnitInfo {
                name: CString::try_from(name)?,
                max_pasids: 0,
                parent: None,
            },
            GFP_KERNEL,
        )?;
    }
    Fake::registry().register(&BUILT_IN, Arc::new(Fake, GFP_KERNEL)?, units)
}

#[kunit_tests(rust_iommu_registration)]
mod suite {
    use super::*;

    #[test]
    fn one_comes_and_goes() -> Result {
        let registry = Fake::registry();
        assert!(registry.get().is_none());
        assert_eq!(registry.isolate(0), 0);

        let registration = register()?;
        assert_eq!(register().err(), Some(EBUSY));
        // A callback that is under way.
        let inner = registry.get().ok_or(ENODEV)?;
        assert!(inner.unit(1)?.is_some());
        assert_eq!(inner.unit(2).err(), Some(EINVAL));
        registration.release()?;
        assert_eq!(registration.release(), Err(ENODEV));
        assert!(inner.unit(1)?.is_none());
        assert!(registry.get().is_some());
        drop(registration);
        assert!(registry.get().is_none());
        // It has what it needs as long as it takes.
        assert!(inner.unit(1)?.is_none());
        drop(inner);

        // Again, and dropped without a release.
        drop(register()?);
        assert!(registry.get().is_none());
        Ok(())
    }

    /// Its unit may use what nothing can make it forget: a device that comes late gets nothing.
    #[test]
    fn no_device_comes_behind_a_unit_that_is_isolated() -> Result {
        let registration = register()?;
        let inner = Fake::registry().get().ok_or(ENODEV)?;
        let faux = faux::Registration::new(c"rust_iommu_fake", None)?;
        let device: &faux::Device<Bound> = faux.as_ref();
        let device: &Device<Bound> = device.as_ref();

        inner.enter(device, 0)?;
        inner.leave(device);
        // There is nothing to stop in a device that is on no PCI bus.
        assert_eq!(Fake::registry().isolate(0), 0);
        assert_eq!(inner.enter(device, 0), Err(EIO));
        inner.enter(device, 1)?;
        inner.leave(device);
        drop(registration);
        Ok(())
    }
}
