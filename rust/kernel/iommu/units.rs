// SPDX-License-Identifier: GPL-2.0

//! The units of a driver: switched on together, and off together.

use core::ops::Deref;

use kernel::{
    debugfs::Dir,
    device::Device,
    fmt,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    }, //
};

use super::{
    counters::UnitCounters,
    ffi,
    files::{
        Directory,
        Files,
        Page,
        Shows, //
    },
    lock_class,
    syscore::{
        self,
        Sleeper, //
    }, //
};

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

    /// Writes what the unit can do, for its file in debugfs.
    ///
    /// Context: may sleep.
    fn show_caps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// Writes in which state the unit is, for its file in debugfs.
    ///
    /// Context: may sleep.
    fn show_state(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// Its counters.
    fn counters(&self) -> &UnitCounters;
}

/// A unit, for its files.
struct View<U: Unit>(Arc<U>);

impl<U: Unit> Shows for View<U> {
    fn show(&self, page: Page, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match page {
            Page::Caps => self.0.show_caps(f),
            Page::State => self.0.show_state(f),
            Page::Counters => self.0.counters().show(f),
            Page::Leaves | Page::Translation(_) => Ok(()),
        }
    }
}

/// Makes the files of a unit in `parent`.
///
/// Context: may sleep.
fn files_of<U: Unit>(unit: &Arc<U>, parent: &Dir) -> Files {
    let Ok(view) = KBox::new(View(unit.clone()), GFP_KERNEL) else {
        return Files::none();
    };
    let pages = [Page::Caps, Page::State, Page::Counters];
    Files::new(parent, fmt!("{}{}", U::KIND, unit.number()), view, &pages)
}

/// A unit that is switched on. Dropping it switches the unit off and restores its registers.
pub trait Power: Sized + Send + Sync + 'static {
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

    /// Prints an error that names the unit.
    ///
    /// Context: any.
    fn complain(&self, what: &str);

    /// Switches the unit off, since its registers are about to be lost, or another kernel is about
    /// to have them. Its tables stay. The PCI core has put devices to sleep, or taken bus mastering
    /// from them; one that does not obey reaches all of memory from now on.
    ///
    /// Context: may not sleep. Nothing else uses the unit: one CPU is online, and interrupts are
    /// disabled. Before another kernel begins, other CPUs may be online, but devices are shut down.
    ///
    /// # Errors
    ///
    /// The unit does not answer any more: translation is on unless that cannot be known. A unit
    /// that died earlier does not go to sleep: its registers would be lost, and only they keep its
    /// devices away from memory.
    fn suspend(&self) -> Result;

    /// Brings the unit to the state before [`Self::suspend`], whatever state it is in: that after a
    /// reset, or that in which another kernel has left it. It has nothing cached then.
    ///
    /// Context: one CPU is online, interrupts are disabled; may not sleep.
    ///
    /// # Errors
    ///
    /// If the unit does not answer: it is given up then.
    fn resume(&self) -> Result;
}

/// Units that are switched on, in the order in which they were.
///
/// Dropping it switches them off, the last first, because what each restores is the state that it
/// found, and it found that while those before it were on. This holds if a later unit does not
/// start, if the hardware is released, and if the driver is dropped.
struct Powered<P: Power>(KVec<P>);

impl<P: Power> Powered<P> {
    /// Resumes the units from the index `first` on.
    fn resume_from(&self, first: usize) {
        for power in self.0.iter().skip(first) {
            if power.resume().is_err() {
                power.complain(
                    "does not come back from sleep, and its devices may reach all of memory: reset \
                     the machine",
                );
            }
        }
    }
}

impl<P: Power> Sleeper for Powered<P> {
    fn suspend(&self) -> Result {
        for (index, power) in self.0.iter().enumerate().rev() {
            if let Err(error) = power.suspend() {
                power.complain("does not go to sleep: reset the machine instead");
                // The kernel resumes only what sleeps.
                self.resume_from(index + 1);
                return Err(error);
            }
        }
        Ok(())
    }

    fn resume(&self) {
        self.resume_from(0);
    }

    /// A kernel that is started next finds the units off. Before a reset they stay on: devices of
    /// user tasks may still write then, and other CPUs run these tasks.
    fn shutdown(&self) {
        if !ffi::is_kexec_in_progress() {
            return;
        }
        for power in self.0.iter().rev() {
            if power.suspend().is_err() {
                power.complain("stays on: another kernel cannot use it before a reset");
            }
        }
    }
}

impl<P: Power> Drop for Powered<P> {
    fn drop(&mut self) {
        while self.0.pop().is_some() {}
    }
}

/// The units that are on, and the calls around a sleep once they translate.
///
/// Fields are dropped from the top: nothing switches a unit on again that is being stopped. No
/// sleep begins between the two, nor between the start of translation and the registration. Both
/// run in user tasks or on a freezable queue, and a sleep waits until these have ended or are
/// frozen.
struct On<P: Power> {
    sleep: Option<Pin<KBox<syscore::Registration<Powered<P>>>>>,
    powered: Arc<Powered<P>>,
}

/// All units of a driver, in the order of the firmware's table.
///
/// Dropping it switches them off.
#[pin_data]
pub struct Units<P: Power> {
    units: KVec<Arc<P::Unit>>,
    /// [`None`] after [`Self::stop`].
    #[pin]
    on: Mutex<Option<On<P>>>,
}

impl<P: Power> Units<P> {
    /// Starts `units`. Translation stays off.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// The errors of [`Power::new`]: all units have their original state then. `ENOMEM`.
    pub fn start(units: KVec<Arc<P::Unit>>) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            // An error drops it.
            let mut powered = Powered(KVec::with_capacity(units.len(), GFP_KERNEL)?);
            for unit in &units {
                powered.0.push(P::new(unit.clone())?, GFP_KERNEL)?;
            }
            let on = On {
                sleep: None,
                powered: Arc::new(powered, GFP_KERNEL)?,
            };
            let (name, key) = lock_class::units_on();
            Ok(try_pin_init!(Self {
                units,
                on <- Mutex::new(Some(on), name, key),
            }? Error))
        })
    }

    /// Switches translation on, for good: also after a sleep of the machine. Every device in scope
    /// must have its entries.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// The errors of [`Power::enable_translation`]; the log names the unit. `ENOMEM`; `ENODEV` if
    /// they were stopped.
    pub(super) fn enable_translation(&self) -> Result {
        let mut on = self.on.lock();
        let Some(on) = &mut *on else {
            return Err(ENODEV);
        };
        for power in on.powered.0.iter() {
            power
                .enable_translation()
                .inspect_err(|_| power.complain("does not switch translation on"))?;
        }
        let sleep = syscore::Registration::new(on.powered.clone());
        on.sleep = Some(KBox::pin_init(sleep, GFP_KERNEL)?);
        Ok(())
    }

    /// Makes the files of the units. Each unit stays at least as long as its files.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn files_in(&self, directory: &Directory) -> Result<KVec<Files>> {
        let mut files = KVec::with_capacity(self.units.len(), GFP_KERNEL)?;
        for unit in &self.units {
            files.push(files_of(unit, &directory.units), GFP_KERNEL)?;
        }
        Ok(files)
    }

    /// Whether a unit needs polling.
    ///
    /// Context: may sleep.
    pub(super) fn need_polling(&self) -> bool {
        let on = self.on.lock();
        on.as_ref()
            .is_some_and(|on| on.powered.0.iter().any(P::needs_polling))
    }

    /// Switches all units off. Returns whether all are as they were found.
    ///
    /// Context: may sleep.
    #[must_use]
    pub fn stop(&self) -> bool {
        let on = self.on.lock().take();
        drop(on);
        !self.units.iter().any(|unit| unit.is_left_on())
    }
}

impl<P: Power> Deref for Units<P> {
    type Target = [Arc<P::Unit>];

    fn deref(&self) -> &Self::Target {
        &self.units
    }
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_units)]
mod tests {
    use super::*;
    use kernel::new_mutex;

    /// What was asked of which unit.
    type Calls = Mutex<KVec<(usize, &'static str)>>;

    struct FakeUnit {
        number: usize,
        /// What it does not do.
        refuses: &'static str,
        calls: Arc<Calls>,
        counters: UnitCounters,
    }

    impl Unit for FakeUnit {
        const KIND: &'static str = "fake";

        fn number(&self) -> usize {
            self.number
        }

        fn is_left_on(&self) -> bool {
            false
        }

        fn poll(&self) {}

        fn show_caps(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
            Ok(())
        }

        fn show_state(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
            Ok(())
        }

        fn counters(&self) -> &UnitCounters {
            &self.counters
        }
    }

    struct FakePower(Arc<FakeUnit>);

    impl FakePower {
        fn call(&self, what: &'static str) -> Result {
            let unit = &self.0;
            unit.calls.lock().push((unit.number, what), GFP_KERNEL)?;
            if unit.refuses == what {
                return Err(EIO);
            }
            Ok(())
        }
    }

    impl Power for FakePower {
        type Unit = FakeUnit;

        fn new(unit: Arc<FakeUnit>) -> Result<Self> {
            let power = Self(unit);
            power.call("start").map(|()| power)
        }

        fn unit(&self) -> &Arc<FakeUnit> {
            &self.0
        }

        fn enable_translation(&self) -> Result {
            self.call("translate")
        }

        fn needs_polling(&self) -> bool {
            false
        }

        fn complain(&self, _what: &str) {}

        fn suspend(&self) -> Result {
            self.call("suspend")
        }

        fn resume(&self) -> Result {
            self.call("resume")
        }
    }

    impl Drop for FakePower {
        fn drop(&mut self) {
            let _ = self.call("stop");
        }
    }

    type FakeUnits = Pin<KBox<Units<FakePower>>>;

    /// Units that translate, what each of them does not do, and what they are asked for next.
    fn units(refuses: [&'static str; 3]) -> Result<(FakeUnits, Arc<Calls>)> {
        let calls = Arc::pin_init(new_mutex!(KVec::new()), GFP_KERNEL)?;
        let mut units = KVec::new();
        for (number, refuses) in refuses.into_iter().enumerate() {
            let unit = FakeUnit {
                number,
                refuses,
                calls: calls.clone(),
                counters: UnitCounters::default(),
            };
            units.push(Arc::new(unit, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        let units = KBox::pin_init(Units::start(units), GFP_KERNEL)?;
        units.enable_translation()?;
        calls.lock().clear();
        Ok((units, calls))
    }

    /// What the kernel would call.
    fn sleeper(units: &FakeUnits) -> Result<Arc<Powered<FakePower>>> {
        let on = units.on.lock();
        on.as_ref().map(|on| on.powered.clone()).ok_or(ENODEV)
    }

    #[test]
    fn the_first_sleeps_last_and_wakes_first() -> Result {
        let (units, calls) = units([""; 3])?;
        let sleeper = sleeper(&units)?;
        sleeper.suspend()?;
        assert_eq!(
            **calls.lock(),
            [(2, "suspend"), (1, "suspend"), (0, "suspend")]
        );
        calls.lock().clear();
        sleeper.resume();
        assert_eq!(
            **calls.lock(),
            [(0, "resume"), (1, "resume"), (2, "resume")]
        );
        Ok(())
    }

    #[test]
    fn units_that_sleep_are_woken_if_another_does_not() -> Result {
        let (units, calls) = units(["", "suspend", ""])?;
        assert_eq!(sleeper(&units)?.suspend(), Err(EIO));
        assert_eq!(
            **calls.lock(),
            [(2, "suspend"), (1, "suspend"), (2, "resume")]
        );
        calls.lock().clear();
        // Before a reset they stay on.
        sleeper(&units)?.shutdown();
        assert!(calls.lock().is_empty());
        Ok(())
    }

    #[test]
    fn a_unit_that_does_not_wake_leaves_the_others_alone() -> Result {
        let (units, calls) = units(["resume", "", ""])?;
        sleeper(&units)?.resume();
        assert_eq!(calls.lock().len(), 3);
        Ok(())
    }

    #[test]
    fn no_unit_is_woken_once_it_is_stopped() -> Result {
        let (units, calls) = units([""; 3])?;
        assert!(units
            .on
            .lock()
            .as_ref()
            .is_some_and(|on| on.sleep.is_some()));
        let before = sleeper(&units)?;
        assert!(units.stop());
        // The registration has dropped its reference.
        assert!(Arc::into_unique_or_drop(before).is_some());
        assert_eq!(**calls.lock(), [(2, "stop"), (1, "stop"), (0, "stop")]);
        assert!(sleeper(&units).is_err());
        Ok(())
    }
}
