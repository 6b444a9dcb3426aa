// SPDX-License-Identifier: GPL-2.0

//! The units of a driver: switched on together, and off together.

use core::ops::Deref;

use kernel::{
    device::Device,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    }, //
};

use super::lock_class;

/// A remapping unit, as its driver knows it.
pub trait Unit: Send + Sync + 'static {
    /// The name of such units in messages and in sysfs; the number of the unit follows it.
    const KIND: &'static str;

    /// The number of the unit: its index in the firmware's table, and in [`Units`].
    fn number(&self) -> usize;

    /// The PCI function that the unit is, if it is one.
    ///
    /// Context: may sleep.
    fn function(&self) -> Option<ARef<Device>> {
        None
    }

    /// Whether the unit may still read its tables although its [`Power`] was dropped, which has
    /// said why.
    ///
    /// Context: may sleep.
    fn is_left_on(&self) -> bool;

    /// Prints the faults that the unit has recorded.
    ///
    /// Context: any; from a timer, so two calls never run at once.
    fn poll(&self);
}

/// A unit that is switched on. Dropping it switches the unit off and restores its registers.
pub trait Power: Sized + Send + 'static {
    /// The unit.
    type Unit: Unit;

    /// Starts a unit. Translation stays off.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// The log names each error. The unit has its original state then.
    fn new(unit: Arc<Self::Unit>) -> Result<Self>;

    /// The unit.
    fn unit(&self) -> &Arc<Self::Unit>;

    /// Switches translation on: from now on only devices with an entry reach memory.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// If the unit does not answer.
    fn enable_translation(&self) -> Result;

    /// Whether [`Unit::poll`] must be called from time to time: the unit has no interrupt.
    fn needs_polling(&self) -> bool;
}

/// Units that are switched on, in the order in which they were.
///
/// Dropping it switches them off, the last first, because what each restores is the state that it
/// found, and it found that while those before it were on. This holds if a later unit does not
/// start, if the hardware is released, and if the driver is dropped.
struct Powers<P: Power>(KVec<P>);

impl<P: Power> Drop for Powers<P> {
    fn drop(&mut self) {
        while self.0.pop().is_some() {}
    }
}

/// All units of a driver, in the order of the firmware's table.
///
/// Dropping it switches them off.
#[pin_data]
pub struct Units<P: Power> {
    units: KVec<Arc<P::Unit>>,
    /// Emptied by [`Self::stop`].
    #[pin]
    power: Mutex<Powers<P>>,
}

impl<P: Power> Units<P> {
    /// Starts `units`. Translation stays off.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// Those of [`Power::new`]: all units have their original state then. `ENOMEM`.
    pub fn start(units: KVec<Arc<P::Unit>>) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let mut power = Powers(KVec::with_capacity(units.len(), GFP_KERNEL)?);
            for unit in &units {
                power.0.push(P::new(unit.clone())?, GFP_KERNEL)?;
            }
            let (name, key) = lock_class::units_power();
            Ok(try_pin_init!(Self {
                units,
                power <- Mutex::new(power, name, key),
            }? Error))
        })
    }

    /// Switches translation on. Every device in scope must have its entries.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// Those of [`Power::enable_translation`], with the number of the unit.
    pub(super) fn enable_translation(&self) -> Result<(), (usize, Error)> {
        self.power.lock().0.iter().try_for_each(|power| {
            let enabled = power.enable_translation();
            enabled.map_err(|error| (power.unit().number(), error))
        })
    }

    /// Whether a unit needs polling.
    ///
    /// Context: may sleep.
    pub(super) fn need_polling(&self) -> bool {
        self.power.lock().0.iter().any(P::needs_polling)
    }

    /// Switches all units off. Returns whether all are as they were found.
    ///
    /// Context: may sleep.
    #[must_use]
    pub fn stop(&self) -> bool {
        *self.power.lock() = Powers(KVec::new());
        !self.units.iter().any(|unit| unit.is_left_on())
    }
}

impl<P: Power> Deref for Units<P> {
    type Target = [Arc<P::Unit>];

    fn deref(&self) -> &Self::Target {
        &self.units
    }
}
