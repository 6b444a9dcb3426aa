// SPDX-License-Identifier: GPL-2.0

//! The targets of a flush of a domain.

use kernel::{
    prelude::*,
    sync::SpinLockIrq, //
};

use super::lock_class;

mod view;

use view::{
    Addition,
    View, //
};

/// The tags of all attachments of a domain, each once.
///
/// A driver defines what a tag is: a unit and a domain id, or the device TLB of a device.
#[pin_data]
pub struct Tags<T> {
    #[pin]
    view: SpinLockIrq<View<T>>,
}

impl<T: Clone + PartialEq> Tags<T> {
    /// No tags.
    pub(super) fn new() -> impl PinInit<Self> {
        let (name, key) = lock_class::tags_view();
        pin_init!(Self {
            view <- SpinLockIrq::new(View::new(), name, key),
        })
    }

    /// Calls `flush` with all tags. None is added or removed during the call.
    ///
    /// Context: any; `flush` runs under a spinlock with interrupts disabled.
    #[inline]
    pub(super) fn with_all<R>(&self, flush: impl FnOnce(&[T]) -> R) -> R {
        let view = self.view.lock();
        flush(view.tags())
    }

    /// Runs `flush` for each tag, also after one that failed, so that all units are told.
    ///
    /// Context: any; `flush` runs under a spinlock with interrupts disabled.
    ///
    /// # Errors
    ///
    /// The last one of `flush`.
    pub fn flush_each(&self, mut flush: impl FnMut(&T) -> Result) -> Result {
        self.with_all(|tags| {
            let mut result = Ok(());
            for tag in tags {
                if let Err(error) = flush(tag) {
                    result = Err(error);
                }
            }
            result
        })
    }

    /// Adds the tags of an attachment. The caller holds the attach lock.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn add(&self, tags: &[T]) -> Result {
        // The view changes only under the attach lock, so it still has this size when it is
        // enlarged.
        let known = self.view.lock().tags().len();
        let mut addition = Addition::new(tags, known)?;
        self.view.lock().add(&mut addition);
        // The rest of the addition is dropped here, without the spinlock.
        Ok(())
    }

    /// Removes the tags of an attachment. The caller holds the attach lock.
    ///
    /// Context: may sleep.
    pub(super) fn remove(&self, tags: &[T]) {
        for tag in tags {
            let gone = self.view.lock().remove(tag);
            // May be the last reference to an object that must not be freed under a spinlock.
            drop(gone);
        }
    }
}
