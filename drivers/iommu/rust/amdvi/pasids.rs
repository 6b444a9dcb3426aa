// SPDX-License-Identifier: GPL-2.0

//! The PASIDs of a device: their switch in the device, the GCR3 table, the domain id of their
//! cached translations.
//!
//! A unit caches translations of guest tables by domain id and PASID, and has one domain id for
//! each device. So a device with PASIDs has its own id, for all domains whose guest tables it uses:
//! one PASID of two devices may be in two domains, and two PASIDs of one device are in two domains
//! with one id. Its requests without PASID count as requests with PASID 0, unless they pass or have
//! a host table; see [`sequence`].
//!
//! Lock order: the lock of the state is taken under the attach lock of the registry. Under it come
//! the locks of the switch and of the GCR3 table, whose holders may sleep, and the spinlocks of a
//! domain's users and of the unit.

pub(crate) mod compatibility;
pub(crate) mod sequence;

use kernel::{
    device,
    iommu::{
        domain_id::DomainId,
        pci::{
            function::Function,
            pasid, //
        }, //
    },
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    }, //
};

use crate::{
    dte::entry::Entry,
    gcr3::Gcr3,
    unit::{
        Unit,
        PASS_THROUGH, //
    }, //
};

use compatibility::Device;
use sequence::{
    Hardware,
    Root,
    State,
    Untagged,
    Wanted, //
};

/// The device table entries of a device.
pub(crate) trait DeviceEntries {
    /// Replaces them by `entry`, and makes the unit forget the old ones.
    ///
    /// # Errors
    ///
    /// `EIO` if the unit does not answer.
    fn replace(&self, entry: Entry) -> Result;
}

/// The PASIDs of a device.
#[pin_data]
pub(crate) struct Pasids {
    dev: ARef<device::Device>,
    /// PASIDs below this can be used.
    count: u32,
    /// The domain id of all of them.
    id: Arc<DomainId<Unit>>,
    table: Pin<KBox<Gcr3>>,
    /// Present while the device may send requests with PASID.
    #[pin]
    switch: Mutex<Option<pasid::Pasids>>,
    #[pin]
    state: Mutex<State>,
}

impl Pasids {
    /// The PASIDs of `dev`, of which `unit` can tell at most `most` apart. They are off.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there are none, `ENOSPC` if the unit has no domain id left, `ENOMEM`.
    pub(crate) fn new(
        dev: &device::Device,
        unit: &Arc<Unit>,
        most: u32,
    ) -> Result<Pin<KBox<Self>>> {
        let function = Function::of(dev).ok_or(ENODEV)?;
        let count = pasid::Pasids::count_of(&function).min(most);
        if count == 0 {
            return Err(ENODEV);
        }
        Self::with(dev, unit, count)
    }

    /// The PASIDs of `dev` below `count`. They are off.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`].
    pub(crate) fn with(
        dev: &device::Device,
        unit: &Arc<Unit>,
        count: u32,
    ) -> Result<Pin<KBox<Self>>> {
        let id = Arc::new(DomainId::new(unit)?, GFP_KERNEL)?;
        let table = KBox::pin_init(Gcr3::new(count, unit.node), GFP_KERNEL)?;
        // Requests without PASID count as requests with PASID 0.
        table.prepare(0)?;
        let state = State::new(Root {
            table: table.phys(),
            levels: table.levels(),
            domain: id.id,
            pass_through: PASS_THROUGH,
        });
        KBox::pin_init(
            pin_init!(Self {
                dev: dev.into(),
                count,
                id,
                table,
                switch <- new_mutex!(None),
                state <- new_mutex!(state),
            }),
            GFP_KERNEL,
        )
    }

    /// Switches them on: those of `endpoint`, whose entry blocks.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// The errors of [`pasid::Pasids::enable`], `EIO` if the unit does not answer. The entry blocks
    /// then.
    pub(crate) fn begin(&self, endpoint: &dyn DeviceEntries) -> Result {
        let mut state = self.state.lock();
        state.begin(&mut self.hardware(endpoint, &|| Err(EINVAL)))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The domain id of the device's guest translations.
    pub(crate) fn id(&self) -> &Arc<DomainId<Unit>> {
        &self.id
    }

    /// The state of the device.
    pub(crate) fn device(&self) -> Device {
        let state = self.state.lock();
        Device {
            untagged: state.untagged(),
            used: state.is_used(),
        }
    }

    /// Makes room for `pasid`, and changes nothing that hardware reads.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the device has no such PASID, `ENOMEM`.
    pub(crate) fn prepare(&self, pasid: u32) -> Result {
        if pasid >= self.count {
            return Err(EINVAL);
        }
        self.state.lock().reserve()?;
        self.table.prepare(pasid)
    }

    /// Changes how the unit treats requests of `endpoint` without PASID; `host` replaces its device
    /// table entry, for [`Untagged::Host`].
    ///
    /// May sleep; under the attach lock.
    ///
    /// # Errors
    ///
    /// If the unit does not answer; the device is blocked then, with all of its PASIDs.
    pub(crate) fn set_untagged(
        &self,
        endpoint: &dyn DeviceEntries,
        new: Untagged,
        host: &dyn Fn() -> Result,
    ) -> Result {
        let mut state = self.state.lock();
        state.set_untagged(new, &mut self.hardware(endpoint, host))
    }

    /// Gives `pasid` of `endpoint`, which was prepared, the guest tables at `root`.
    ///
    /// May sleep; under the attach lock.
    ///
    /// # Errors
    ///
    /// As for [`Self::set_untagged`].
    pub(crate) fn attach(&self, endpoint: &dyn DeviceEntries, pasid: u32, root: u64) -> Result {
        let mut state = self.state.lock();
        state.attach(pasid, root, &mut self.hardware(endpoint, &|| Err(EINVAL)))
    }

    /// Makes the unit refuse requests with `pasid`.
    ///
    /// May sleep; under the attach lock.
    ///
    /// # Errors
    ///
    /// As for [`Self::set_untagged`].
    pub(crate) fn detach(&self, endpoint: &dyn DeviceEntries, pasid: u32) -> Result {
        let mut state = self.state.lock();
        state.detach(pasid, &mut self.hardware(endpoint, &|| Err(EINVAL)))
    }

    /// Disables them, and removes them from the entry of `endpoint`. A second call does nothing.
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `EIO` if the unit does not answer: it may read the GCR3 table until a reset.
    pub(crate) fn end(&self, endpoint: &dyn DeviceEntries) -> Result {
        let mut state = self.state.lock();
        if self.switch.lock().is_none() {
            return Ok(());
        }
        state.end(&mut self.hardware(endpoint, &|| Err(EINVAL)))
    }

    fn hardware<'a>(
        &'a self,
        endpoint: &'a dyn DeviceEntries,
        host: &'a dyn Fn() -> Result,
    ) -> OfEndpoint<'a> {
        OfEndpoint {
            pasids: self,
            endpoint,
            host,
        }
    }
}

/// A device behind its unit.
struct OfEndpoint<'a> {
    pasids: &'a Pasids,
    endpoint: &'a dyn DeviceEntries,
    host: &'a dyn Fn() -> Result,
}

impl Hardware for OfEndpoint<'_> {
    fn switch(&mut self, on: bool) -> Result {
        let mut switch = self.pasids.switch.lock();
        *switch = None;
        if on {
            *switch = Some(pasid::Pasids::enable(&self.pasids.dev)?);
        }
        Ok(())
    }

    fn set_tables(&mut self, pasid: u32, root: Option<u64>) -> Result {
        self.pasids.table.point(pasid, root)
    }

    fn set_entry(&mut self, wanted: Wanted) -> Result {
        match wanted {
            Wanted::Entry(entry) => self.endpoint.replace(entry),
            Wanted::Host => (self.host)(),
        }
    }

    fn forget(&mut self, pasid: u32) -> Result {
        let id = &self.pasids.id;
        id.unit.forget_pasid(id.id, pasid)
    }
}
