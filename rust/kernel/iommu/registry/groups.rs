// SPDX-License-Identifier: GPL-2.0

//! Groups of several functions, which can only be assigned together.

use kernel::{
    bindings,
    fmt,
    prelude::*, //
};

use super::{
    super::{
        ops::Driver,
        pci::{
            function::Function,
            isolation::Isolation,
            source_ids::RequesterId, //
        }, //
    },
    Endpoint,
    Registration, //
};

/// The group of a device.
///
/// The caller holds the attach lock, and the device is in its list: the group is valid so long,
/// since the core releases a device before it drops the reference to its group.
fn group_of<D: Driver>(endpoint: &Endpoint<D>) -> *mut bindings::iommu_group {
    // SAFETY: The device is valid.
    unsafe { (&raw const (*endpoint.dev.as_raw()).iommu_group).read_volatile() }
}

impl<D: Driver> Registration<D> {
    /// Says by `say`, for each group of several functions, what could isolate them. Bridges do not
    /// count: they are not assigned.
    ///
    /// Context: may sleep.
    pub(in super::super) fn report_groups(&self, say: fn(fmt::Arguments<'_>)) {
        let state = self.inner.state.lock();
        for (index, endpoint) in state.endpoints.iter().enumerate() {
            let group = group_of(endpoint);
            let mut known = state.endpoints.iter().take(index);
            if group.is_null() || known.any(|known| group_of(known) == group) {
                continue;
            }
            let members = || {
                let here = state.endpoints.iter().skip(index);
                here.filter(move |other| group_of(other) == group)
                    .filter_map(|other| Function::of(&other.dev))
                    .filter(|function| !function.is_bridge())
            };
            let (Some(first), Some(second)) = (members().next(), members().nth(1)) else {
                continue;
            };
            // Without memory there is no advice.
            let Ok(isolation) = Isolation::of(members()) else {
                return;
            };
            // SAFETY: The group is valid while the attach lock is held, see `group_of()`.
            let id = unsafe { bindings::iommu_group_id(group) };
            say(fmt!(
                "IOMMU group {}: {} functions, {:04x}:{}, {:04x}:{}{}, can only be given away \
                 together; {}\n",
                id,
                members().count(),
                first.segment(),
                RequesterId(first.requester()),
                second.segment(),
                RequesterId(second.requester()),
                if members().nth(2).is_some() {
                    " and more"
                } else {
                    ""
                },
                isolation
            ));
        }
    }
}
