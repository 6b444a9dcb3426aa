// SPDX-License-Identifier: GPL-2.0

//! The two domains that always exist: identity and blocked.

use core::marker::PhantomData;

use kernel::{
    bindings,
    error::from_result,
    ffi::c_int,
    prelude::*, //
};

use super::{
    super::{
        attach::Held,
        ops::PagingDomain,
        registry::Registered,
        values::DeviceSlot, //
    },
    lookup::{
        endpoint,
        inner, //
    }, //
};

/// The C tables of the static domains of a driver.
pub(super) struct StaticTable<D: Registered>(PhantomData<D>);

impl<D: Registered> StaticTable<D> {
    const IDENTITY: bindings::iommu_domain_ops = bindings::iommu_domain_ops {
        attach_dev: Some(Self::attach_identity_callback),
        set_dev_pasid: if D::Domain::PASIDS {
            Some(Self::set_identity_pasid_callback)
        } else {
            None
        },
        ..pin_init::zeroed()
    };

    const BLOCKED: bindings::iommu_domain_ops = bindings::iommu_domain_ops {
        attach_dev: Some(Self::attach_blocked_callback),
        set_dev_pasid: if D::Domain::PASIDS {
            Some(Self::set_blocked_pasid_callback)
        } else {
            None
        },
        ..pin_init::zeroed()
    };

    /// A domain that is the identity.
    pub(super) fn identity_domain() -> bindings::iommu_domain {
        bindings::iommu_domain {
            type_: bindings::IOMMU_DOMAIN_IDENTITY,
            ops: &Self::IDENTITY,
            ..pin_init::zeroed()
        }
    }

    /// A domain that blocks everything.
    pub(super) fn blocked_domain() -> bindings::iommu_domain {
        bindings::iommu_domain {
            type_: bindings::IOMMU_DOMAIN_BLOCKED,
            ops: &Self::BLOCKED,
            ..pin_init::zeroed()
        }
    }

    /// Attaches the identity.
    ///
    /// # Safety
    ///
    /// `dev` is a valid device under the control of this driver.
    unsafe fn attach_identity(dev: *mut bindings::device, slot: DeviceSlot) -> Result {
        // SAFETY: `dev` is valid and under the driver's control, so it is not released during
        // the call (contract).
        let (inner, endpoint) = unsafe { (inner::<D>(), endpoint::<D>(dev)) };
        let (inner, endpoint) = (inner.ok_or(ENODEV)?, endpoint.ok_or(ENODEV)?);

        let _state = inner.state.lock();
        endpoint.slots.reserve()?;
        match inner.driver.attach_identity(&endpoint.data, slot) {
            Ok(()) => {
                endpoint.slots.put(slot, Held::Identity);
                Ok(())
            }
            Err(error) => endpoint.fall_back(slot, error),
        }
    }

    /// Attaches the blocked domain.
    ///
    /// # Safety
    ///
    /// `dev` is a valid device under the control of this driver.
    unsafe fn attach_blocked(dev: *mut bindings::device, slot: DeviceSlot) -> Result {
        // SAFETY: `dev` is valid and under the driver's control, so it is not released during
        // the call (contract).
        let (Some(inner), Some(endpoint)) = (unsafe { (inner::<D>(), endpoint::<D>(dev)) }) else {
            return Ok(());
        };

        let state = inner.state.lock();
        endpoint.block_for_core(&state, &inner.driver, slot)
    }

    /// `attach_dev` of the identity domain.
    ///
    /// # Safety
    ///
    /// `dev` is a valid device under the control of this driver.
    unsafe extern "C" fn attach_identity_callback(
        _domain: *mut bindings::iommu_domain,
        dev: *mut bindings::device,
        _old: *mut bindings::iommu_domain,
    ) -> c_int {
        // SAFETY: `attach_identity()` has the same contract: `dev` is under the driver's control.
        from_result(|| unsafe { Self::attach_identity(dev, DeviceSlot::Rid) }.map(|()| 0))
    }

    /// `set_dev_pasid` of the identity domain.
    ///
    /// # Safety
    ///
    /// `dev` is a valid device under the control of this driver.
    unsafe extern "C" fn set_identity_pasid_callback(
        _domain: *mut bindings::iommu_domain,
        dev: *mut bindings::device,
        pasid: bindings::ioasid_t,
        _old: *mut bindings::iommu_domain,
    ) -> c_int {
        // SAFETY: `attach_identity()` has the same contract: `dev` is under the driver's control.
        from_result(|| unsafe { Self::attach_identity(dev, DeviceSlot::Pasid(pasid)) }.map(|()| 0))
    }

    /// `attach_dev` of the blocked domain.
    ///
    /// # Safety
    ///
    /// `dev` is a valid device under the control of this driver.
    unsafe extern "C" fn attach_blocked_callback(
        _domain: *mut bindings::iommu_domain,
        dev: *mut bindings::device,
        _old: *mut bindings::iommu_domain,
    ) -> c_int {
        // SAFETY: `attach_blocked()` has the same contract: `dev` is under the driver's control.
        from_result(|| unsafe { Self::attach_blocked(dev, DeviceSlot::Rid) }.map(|()| 0))
    }

    /// `set_dev_pasid` of the blocked domain: detaches a PASID.
    ///
    /// # Safety
    ///
    /// `dev` is a valid device under the control of this driver.
    unsafe extern "C" fn set_blocked_pasid_callback(
        _domain: *mut bindings::iommu_domain,
        dev: *mut bindings::device,
        pasid: bindings::ioasid_t,
        _old: *mut bindings::iommu_domain,
    ) -> c_int {
        // SAFETY: `attach_blocked()` has the same contract: `dev` is under the driver's control.
        from_result(|| unsafe { Self::attach_blocked(dev, DeviceSlot::Pasid(pasid)) }.map(|()| 0))
    }
}
