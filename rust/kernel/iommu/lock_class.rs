// SPDX-License-Identifier: GPL-2.0

//! The lock classes of generic types.
//!
//! `new_mutex!` and its like make a class where they stand. In generic code that is compiled again
//! in each module which uses it, the key of the class is still one, a static of this crate, but the
//! name is a literal of the crate that compiled it; and lockdep compares names by address, and
//! warns of one class with two names. So the locks of generic types get both key and name from
//! here.

use core::pin::Pin;
use kernel::{
    str::CStr,
    sync::LockClassKey, //
};

/// The name of a class, and its key.
type Class = (&'static CStr, Pin<&'static LockClassKey>);

macro_rules! classes {
    ($($(#[$attribute:meta])* $name:ident = $text:literal;)*) => {
        $(
            $(#[$attribute])*
            #[doc = concat!("The class `", $text, "`.")]
            // Not compiled into other crates.
            #[inline(never)]
            pub(super) fn $name() -> Class {
                (kernel::c_str!($text), kernel::static_lock_class!())
            }
        )*
    };
}

classes! {
    attachments_list = "iommu::attach::Attachments::list";
    tags_view = "iommu::tags::Tags::view";
    slots_held = "iommu::attach::Slots::held";
    domain_ids_known = "iommu::domain_id::DomainIds::known";
    isolate_members = "iommu::registry::isolate::Members::list";
    domain_switching = "iommu::domain::Domain::switching";
    domain_harvesting = "iommu::domain::Domain::harvesting";
    domain_mapping = "iommu::domain::Domain::mapping";
    holder_running = "iommu::lifecycle::Holder::running";
    unflushed_state = "iommu::domain::unflushed::Unflushed::state";
    ring_slots = "iommu::hw::ring::Queue::slots";
    registry_state = "iommu::registry::Inner::state";
    units_on = "iommu::units::Units::on";
    #[cfg(all(CONFIG_X86, CONFIG_PCI_MSI))]
    irq_devices = "iommu::irq::devices::Devices::state";
}
