// SPDX-License-Identifier: GPL-2.0

//! The locks of a domain that splits leaves: `reshape.rs` says what they are for, and their order.

use kernel::{
    prelude::*,
    sync::Mutex, //
};

use super::super::lock_class;

/// The locks of a domain that splits leaves.
#[pin_data]
pub(super) struct Reshaping {
    /// Held while tracking is switched, so that no end of tracking joins what the next begin has
    /// split.
    #[pin]
    pub(super) switching: Mutex<()>,
    /// Held by each query, since the entries of a row are split one by one: another query must make
    /// no part of the row clean before all are.
    #[pin]
    pub(super) harvesting: Mutex<()>,
    /// Held by each map, unmap and translation, and by a join until its flush has come.
    #[pin]
    pub(super) mapping: Mutex<()>,
}

impl Reshaping {
    pub(super) fn new() -> impl PinInit<Self> {
        let (switching, harvesting, mapping) = (
            lock_class::domain_switching(),
            lock_class::domain_harvesting(),
            lock_class::domain_mapping(),
        );
        pin_init!(Self {
            switching <- Mutex::new((), switching.0, switching.1),
            harvesting <- Mutex::new((), harvesting.0, harvesting.1),
            mapping <- Mutex::new((), mapping.0, mapping.1),
        })
    }
}
