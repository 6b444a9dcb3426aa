// SPDX-License-Identifier: GPL-2.0

//! The devices that are known, and what the file of each shows.

use kernel::{
    fmt,
    prelude::*,
    sync::Arc, //
};

use super::{
    super::{
        attach::Held,
        files::{
            Files,
            Page,
            Shows, //
        },
        ops::Driver,
        values::DeviceSlot, //
    },
    Endpoint,
    Inner,
    State, //
};

/// A device, for its file.
struct View<D: Driver>(Arc<Endpoint<D>>);

impl<D: Driver> Shows for View<D> {
    fn show(&self, _page: Page, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "requester: ")?;
        D::show_endpoint(&self.0.data, f)?;
        writeln!(f)?;
        self.0.slots.each(|slot, held| {
            match slot {
                DeviceSlot::Rid => write!(f, "attached: ")?,
                DeviceSlot::Pasid(pasid) => write!(f, "PASID {pasid:#x} attached: ")?,
            }
            match held {
                Held::Fresh => writeln!(f, "nothing yet"),
                Held::Identity => writeln!(f, "memory as it is"),
                Held::Blocked => writeln!(f, "nothing, requests are refused"),
                Held::Unknown => writeln!(f, "unknown, its unit did not answer"),
                Held::Domain(attached) => writeln!(f, "domain {}", attached.domain()),
            }
        })?;
        D::show_entries(&self.0.data, f)
    }
}

impl<D: Driver> Inner<D> {
    /// Makes the file of a device.
    ///
    /// Context: may sleep.
    pub(in super::super) fn files_of(&self, endpoint: &Arc<Endpoint<D>>) -> Files {
        let Some(directory) = &self.directory else {
            return Files::none();
        };
        let Ok(view) = KBox::new(View(endpoint.clone()), GFP_KERNEL) else {
            return Files::none();
        };
        let name = endpoint.dev.name().to_str().unwrap_or("device");
        Files::new(&directory.devices, fmt!("{name}"), view, &[Page::State])
    }
}

impl<D: Driver> State<D> {
    /// Enters a device.
    ///
    /// # Errors
    ///
    /// `ENODEV` if none are taken any more, `ENOMEM`.
    pub(in super::super) fn add(&mut self, endpoint: Arc<Endpoint<D>>, files: Files) -> Result {
        if self.is_closing() {
            return Err(ENODEV);
        }
        self.files.reserve(1, GFP_KERNEL)?;
        self.endpoints.push(endpoint.clone(), GFP_KERNEL)?;
        Ok(self.files.push((endpoint, files), GFP_KERNEL)?)
    }

    /// Removes a device. Returns its files, which are dropped without the lock.
    pub(in super::super) fn remove(&mut self, endpoint: &Arc<Endpoint<D>>) -> Option<Files> {
        self.endpoints.retain(|known| !Arc::ptr_eq(known, endpoint));
        let mut files = self.files.iter();
        let index = files.position(|(known, _)| Arc::ptr_eq(known, endpoint))?;
        self.files.remove(index).ok().map(|(_, files)| files)
    }
}
