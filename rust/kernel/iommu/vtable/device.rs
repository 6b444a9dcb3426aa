// SPDX-License-Identifier: GPL-2.0

//! `struct iommu_ops` for a driver: one callback for each operation.
//!
//! Not supported: SVA, nesting and virtual IOMMUs; deferred attach, firmware nodes (`of_xlate`),
//! page requests.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

use kernel::{
    bindings,
    device::Device,
    error::from_err_ptr,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    sync::{
        Arc,
        UniqueArc, //
    }, //
};

use super::{
    super::{
        attach::{
            Held,
            Slots, //
        },
        device::Capability,
        domain::Domain,
        registry::{
            early::EarlyDriver,
            Endpoint,
            Inner,
            Registered, //
        },
        resv::ReservedRegions,
        values::{
            AllocFlags,
            DeviceSlot, //
        }, //
    },
    domain::{
        new_domain,
        DomainTable, //
    },
    lookup::{
        endpoint,
        inner, //
    }, //
};

/// The C table of a driver.
pub(super) struct DeviceTable<D: Registered>(PhantomData<D>);

impl<D: Registered> DeviceTable<D> {
    /// The table, with its owner and its static domains.
    pub(super) fn table(
        owner: *mut bindings::module,
        identity: *mut bindings::iommu_domain,
        blocked: *mut bindings::iommu_domain,
    ) -> bindings::iommu_ops {
        bindings::iommu_ops {
            capable: Some(Self::capable_callback),
            hw_info: Some(Self::hw_info_callback),
            domain_alloc_paging_flags: Some(Self::domain_alloc_paging_flags_callback),
            probe_device: Some(Self::probe_device_callback),
            release_device: Some(Self::release_device_callback),
            device_group: Some(Self::device_group_callback),
            get_resv_regions: Some(Self::get_resv_regions_callback),
            def_domain_type: Some(Self::def_domain_type_callback),
            default_domain_ops: DomainTable::<D::Domain>::table(),
            owner,
            identity_domain: identity,
            blocked_domain: blocked,
            release_domain: blocked,
            ..pin_init::zeroed()
        }
    }

    /// `probe_device`: takes a device under control, or says that no unit translates for it.
    ///
    /// # Safety
    ///
    /// `dev` is a valid device with its `iommu`; `iommu_probe_device_lock` is held.
    unsafe extern "C" fn probe_device_callback(
        dev: *mut bindings::device,
    ) -> *mut bindings::iommu_device {
        let Some(inner) = inner::<D>() else {
            return ENODEV.to_ptr();
        };
        // SAFETY: `dev` is valid during the call.
        let device = unsafe { Device::from_raw(dev) };
        match Self::probe(&inner, device) {
            Ok((unit, endpoint)) => {
                let endpoint = Arc::into_raw(endpoint).cast_mut().cast();
                // SAFETY: `dev` is valid, has its `iommu`, and the lock is held.
                unsafe { bindings::dev_iommu_priv_set(dev, endpoint) };
                unit
            }
            Err(error) => error.to_ptr(),
        }
    }

    fn probe(
        inner: &Inner<D>,
        dev: &Device,
    ) -> Result<(*mut bindings::iommu_device, Arc<Endpoint<D>>)> {
        // First: what the driver has done for the device is undone with its endpoint.
        let place = UniqueArc::new_uninit(GFP_KERNEL)?;
        let probed = inner.driver.probe_device(dev)?;
        let data: Arc<D::Endpoint> = place.write(probed.endpoint).into();
        let entered = Self::enter(inner, dev, probed.unit, data.clone());
        if entered.is_err() {
            inner.driver.release_device(dev, &data);
        }
        entered
    }

    fn enter(
        inner: &Inner<D>,
        dev: &Device,
        unit: usize,
        data: Arc<D::Endpoint>,
    ) -> Result<(*mut bindings::iommu_device, Arc<Endpoint<D>>)> {
        // If the unit is not registered yet, its registration walks all devices again.
        let raw = inner.unit(unit)?.ok_or(ENODEV)?;
        let endpoint = Arc::pin_init(
            try_pin_init!(Endpoint {
                dev: dev.into(),
                data,
                early: EarlyDriver::of(dev),
                slots <- Slots::new(),
            }),
            GFP_KERNEL,
        )?;
        inner.enter(dev, unit)?;
        let files = inner.files_of(&endpoint);
        if let Err(error) = inner.state.lock().add(endpoint.clone(), files) {
            inner.leave(dev);
            return Err(error);
        }
        Ok((raw, endpoint))
    }

    /// `release_device`: gives up a device, which is on the release domain.
    ///
    /// # Safety
    ///
    /// `probe_device` succeeded for `dev`, which is still valid; called once.
    unsafe extern "C" fn release_device_callback(dev: *mut bindings::device) {
        let Some(inner) = inner::<D>() else {
            return;
        };
        // SAFETY: `dev` is valid and has its `iommu`. The core frees the latter after this and does
        // not read the private data. Null takes its place, so that it is taken only once.
        let endpoint = unsafe {
            let place = &raw mut (*(*dev).iommu).priv_;
            place.replace(core::ptr::null_mut())
        };
        if endpoint.is_null() {
            return;
        }
        // SAFETY: `probe_device_callback()` leaked the reference.
        let endpoint = unsafe { Arc::from_raw(endpoint.cast::<Endpoint<D>>()) };

        let mut state = inner.state.lock();
        // The core detaches PASIDs before it releases their device. If one is left, hardware has to
        // forget it before its domain is freed.
        while let Some(slot) = endpoint.slots.any_pasid() {
            endpoint.block(&inner.driver, slot);
        }
        endpoint.slots.put(DeviceSlot::Rid, Held::Fresh);
        let files = state.remove(&endpoint);
        drop(state);
        // Waits for readers.
        drop(files);
        inner.leave(&endpoint.dev);

        inner.driver.release_device(&endpoint.dev, &endpoint.data);
    }

    /// `device_group`: finds or makes the group of a device.
    ///
    /// # Safety
    ///
    /// `dev` is a valid device under the control of this driver.
    unsafe extern "C" fn device_group_callback(
        dev: *mut bindings::device,
    ) -> *mut bindings::iommu_group {
        // SAFETY: `dev` is valid and under the driver's control (contract).
        let (Some(inner), Some(endpoint)) = (unsafe { (inner::<D>(), endpoint::<D>(dev)) }) else {
            return ENODEV.to_ptr();
        };
        // SAFETY: `dev` is valid (contract), and the first kind of group is for PCI functions.
        let group = unsafe {
            if bindings::dev_is_pci(dev) {
                bindings::pci_device_group(dev)
            } else {
                bindings::generic_device_group(dev)
            }
        };
        match inner.driver.inseparable(&endpoint.data) {
            // SAFETY: The functions above return a group with a reference, or an error.
            Some(other) => unsafe { Self::join(&inner, endpoint, group, &other) },
            None => group,
        }
    }

    /// Puts the device of `endpoint`, whose group by its bus is `group`, into that of `other`.
    ///
    /// This never joins two groups: if both have devices, the firmware contradicts the bus, and no
    /// group is right.
    ///
    /// # Safety
    ///
    /// `group` is a group with a reference that the caller hands over, or an error.
    unsafe fn join(
        inner: &Inner<D>,
        endpoint: &Endpoint<D>,
        group: *mut bindings::iommu_group,
        other: &Device,
    ) -> *mut bindings::iommu_group {
        if from_err_ptr(group).is_err() {
            return group;
        }
        // SAFETY: The device is valid. This function owns the reference that it gets.
        let theirs = unsafe { bindings::iommu_group_get(other.as_raw()) };
        if theirs.is_null() {
            return group;
        }
        let (keep, drop) = if theirs == group {
            (Ok(group), &[theirs][..])
        } else if inner.members.has_group(group) {
            dev_err!(
                endpoint.dev,
                "firmware says that it has the requester ID of a device in another IOMMU group: \
                 update the firmware\n"
            );
            (Err(EINVAL), &[theirs, group][..])
        } else {
            (Ok(theirs), &[group][..])
        };
        for group in drop {
            // SAFETY: This function owns the references, that to `group` by its contract, and puts
            // each once.
            unsafe { bindings::iommu_group_put(*group) };
        }
        keep.unwrap_or_else(|error| error.to_ptr())
    }

    /// `capable`: whether the device behind its unit can do something.
    ///
    /// # Safety
    ///
    /// `dev` is a valid device under the control of this driver.
    unsafe extern "C" fn capable_callback(
        dev: *mut bindings::device,
        capability: bindings::iommu_cap,
    ) -> bool {
        // SAFETY: `dev` is valid and under the driver's control (contract).
        let (Some(inner), Some(endpoint)) = (unsafe { (inner::<D>(), endpoint::<D>(dev)) }) else {
            return false;
        };
        Capability::from_raw(capability)
            .is_some_and(|capability| inner.driver.capable(&endpoint.data, capability))
    }

    /// `hw_info`: a structure for user space, which the caller frees with `kfree()`.
    ///
    /// # Safety
    ///
    /// `dev` is a valid device under the control of this driver. `length` is valid for writes, and
    /// `kind` for reads and writes: it says which type is asked for. The caller has both for
    /// itself.
    unsafe extern "C" fn hw_info_callback(
        dev: *mut bindings::device,
        length: *mut u32,
        kind: *mut bindings::iommu_hw_info_type,
    ) -> *mut c_void {
        // SAFETY: `dev` is valid and under the driver's control (contract).
        let (Some(inner), Some(endpoint)) = (unsafe { (inner::<D>(), endpoint::<D>(dev)) }) else {
            return ENODEV.to_ptr();
        };
        let info = match inner.driver.hw_info(&endpoint.data) {
            Ok(info) => info,
            Err(error) => return error.to_ptr(),
        };
        // SAFETY: `kind` is valid for reads (contract).
        let asked = unsafe { *kind };
        if asked != bindings::iommu_hw_info_type_IOMMU_HW_INFO_TYPE_DEFAULT && asked != info.kind {
            return EOPNOTSUPP.to_ptr();
        }
        let (data, len, _) = info.data.into_raw_parts();
        // SAFETY: `kind` and `length` are valid for writes (contract).
        // CAST: `HwInfo::new()` has checked the length.
        unsafe {
            *kind = info.kind;
            *length = len as u32;
        }
        data.cast()
    }

    /// `get_resv_regions`: adds the reserved regions of a device to the core's list.
    ///
    /// # Safety
    ///
    /// `dev` is a valid device under the control of this driver. `list` is null, or the head of an
    /// initialised list of reserved regions that the caller has for itself.
    unsafe extern "C" fn get_resv_regions_callback(
        dev: *mut bindings::device,
        list: *mut bindings::list_head,
    ) {
        // SAFETY: `dev` is valid and under the driver's control (contract).
        let (Some(inner), Some(endpoint)) = (unsafe { (inner::<D>(), endpoint::<D>(dev)) }) else {
            return;
        };
        let Some(list) = NonNull::new(list) else {
            return;
        };
        // SAFETY: `list` is an initialised list of reserved regions that the caller has for itself
        // during the call (contract).
        let mut regions = unsafe { ReservedRegions::from_raw(list) };
        if let Err(error) = inner.driver.reserved_regions(&endpoint.data, &mut regions) {
            dev_err!(endpoint.dev, "reserved regions are missing: {error:?}\n");
        }
    }

    /// `def_domain_type`: the default domain that a device needs.
    ///
    /// # Safety
    ///
    /// `dev` is a valid device under the control of this driver.
    unsafe extern "C" fn def_domain_type_callback(dev: *mut bindings::device) -> c_int {
        // SAFETY: `dev` is valid and under the driver's control (contract).
        let (Some(inner), Some(endpoint)) = (unsafe { (inner::<D>(), endpoint::<D>(dev)) }) else {
            return 0;
        };
        // CAST: A few low bits.
        inner.driver.default_domain(&endpoint.data).as_raw() as c_int
    }

    /// `domain_alloc_paging_flags`: makes a paging domain for a device.
    ///
    /// # Safety
    ///
    /// `dev` is a valid device under the control of this driver.
    unsafe extern "C" fn domain_alloc_paging_flags_callback(
        dev: *mut bindings::device,
        flags: u32,
        user_data: *const bindings::iommu_user_data,
    ) -> *mut bindings::iommu_domain {
        // SAFETY: `dev` is valid and under the driver's control (contract).
        let (Some(inner), Some(endpoint)) = (unsafe { (inner::<D>(), endpoint::<D>(dev)) }) else {
            return ENODEV.to_ptr();
        };
        // No format of user data is supported.
        if !user_data.is_null() {
            return EOPNOTSUPP.to_ptr();
        }
        match Self::alloc(&inner, endpoint, flags) {
            Ok(domain) => domain,
            Err(error) => error.to_ptr(),
        }
    }

    fn alloc(
        inner: &Inner<D>,
        endpoint: &Endpoint<D>,
        flags: u32,
    ) -> Result<*mut bindings::iommu_domain> {
        let flags = AllocFlags::from_raw(flags)?;
        if flags.dirty_tracking
            && !inner
                .driver
                .capable(&endpoint.data, Capability::DirtyTracking)
        {
            return Err(EOPNOTSUPP);
        }
        let domain = new_domain(inner.driver.alloc_paging(&endpoint.data, flags), flags)?;
        // SAFETY: `module` is null or that of the driver, which is not unloaded while it has
        // devices.
        unsafe { Domain::into_raw(domain, inner.module, inner.directory.as_ref()) }
    }
}
