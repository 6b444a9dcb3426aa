// SPDX-License-Identifier: GPL-2.0

//! The life of a driver's module: loading, release of the hardware, unloading.
//!
//! The IOMMU core holds a reference to the module for each device, so the module cannot be unloaded
//! while it drives a unit, and the core has no interface to release the units. Writing 1 to
//! `release` in the module's directory in debugfs releases them. It is refused while a device is in
//! use. After it all units are as the driver found them, and the module can be unloaded.
//!
//! A driver takes no units in a crash kernel (kdump). The crashed kernel has not shut its devices
//! down, so they continue to write to their IOVAs. The tables that translate these must stay until
//! a driver resets the device. The IOMMU core attaches the default domain earlier, and the identity
//! would lead these writes to memory of the new kernel. The C drivers defer this attach
//! (`is_attach_deferred`) and keep the old tables until then.
//!
//! A built-in driver begins with the other drivers, before most devices have theirs, if no other
//! driver holds the registers at that time.

use kernel::{
    debugfs::File,
    fmt,
    impl_has_hr_timer,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        ArcBorrow,
        Mutex, //
    },
    time::{
        delay::fsleep,
        hrtimer::{
            ArcHrTimerHandle,
            HrTimer,
            HrTimerCallback,
            HrTimerCallbackContext,
            HrTimerPointer,
            HrTimerRestart,
            RelativeMode, //
        },
        Delta,
        Monotonic, //
    },
    workqueue,
    ModuleMetadata,
    ThisModule, //
};

use super::{
    device::UnitInfo,
    ffi,
    files::{
        Command,
        Commanded,
        Directory,
        Files, //
    },
    lock_class,
    ops::Driver,
    registry::{
        Registered,
        Registration, //
    },
    split_parameter::SplitParameter,
    units::{
        Power,
        Unit,
        Units, //
    }, //
};

/// Time between two polls of the units.
const POLL_PERIOD: Delta = Delta::from_millis(500);

/// Time between two checks whether the registers are free, and their number, if the driver is built
/// in.
const REGISTER_DELAY: Delta = Delta::from_millis(200);
const REGISTER_ROUNDS: u32 = 150;

/// The units of a driver.
pub type UnitOf<D> = <<D as Lifecycle>::Power as Power>::Unit;

/// A driver whose module is loaded and unloaded.
pub trait Lifecycle: Registered {
    /// The module: its name is also that of its directory in debugfs.
    type Module: ModuleMetadata;

    /// The type that switches a unit of the driver on.
    type Power: Power;

    /// How to boot the kernel's own driver of these units, for messages.
    const C_DRIVER: &'static str;

    /// Takes over all units that firmware names, and starts them. Translation stays off.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// The log names each error. The hardware has its original state then.
    fn take_over() -> Result<Arc<Self>>;

    /// The units.
    fn units(&self) -> &Units<Self::Power>;

    /// How large leaves of new domains are split.
    fn split(&self) -> &Arc<SplitParameter>;

    /// The number of PASIDs that devices behind `unit` can use: see [`UnitInfo::max_pasids`].
    fn max_pasids(&self, unit: &UnitOf<Self>) -> u32 {
        let _ = unit;
        0
    }

    /// Whether no driver has claimed the registers of the units.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// If there are no units that the driver could drive; the log says why.
    fn registers_are_free() -> Result<bool>;

    /// Translation is on.
    ///
    /// Context: may sleep.
    fn translating(&self) {}

    /// Prints an error with `pr_err!`, which puts the name of the module in front.
    ///
    /// Context: any.
    fn log_error(message: fmt::Arguments<'_>);

    /// Prints information with `pr_info!`.
    ///
    /// Context: any.
    fn log_info(message: fmt::Arguments<'_>);
}

/// Takes over all units, registers them with the IOMMU core and switches translation on.
///
/// May sleep.
///
/// # Errors
///
/// The log names each error. The hardware has its original state then.
fn start<D: Lifecycle>(
    module: &'static ThisModule,
    directory: &Directory,
) -> Result<Registration<D>> {
    if ffi::is_crash_kernel() {
        D::log_error(fmt!(
            "devices of the kernel that crashed may still write to memory, and only its page \
             tables say where: this driver takes no unit over from it; boot the crash kernel {}: \
             the kernel's own driver keeps these tables\n",
            D::C_DRIVER
        ));
        return Err(EBUSY);
    }
    let driver = D::take_over()?;
    let mut infos = KVec::with_capacity(driver.units().len(), GFP_KERNEL)?;
    for (index, unit) in driver.units().iter().enumerate() {
        let number = unit.number();
        // A unit is isolated by its number, which the registry takes for this index.
        if number != index {
            return Err(EINVAL);
        }
        infos.push(
            UnitInfo {
                name: CString::try_from_fmt(fmt!("rust-{}{}", UnitOf::<D>::KIND, number))?,
                max_pasids: driver.max_pasids(unit),
                parent: unit.function(),
            },
            GFP_KERNEL,
        )?;
    }
    let registration = Registration::new(module, driver, infos, Some(directory.clone()))
        .inspect_err(|error| {
            D::log_error(fmt!("the IOMMU core refuses the units: {:?}\n", *error));
        })?;
    let units = registration.driver().units();
    // Every device in scope has its entries now. An error drops the registration.
    units.enable_translation()?;
    registration.driver().translating();
    D::log_info(fmt!("driving {} units\n", units.len()));
    #[cfg(CONFIG_PCI)]
    registration.report_groups(D::log_info);
    Ok(registration)
}

/// A timer that polls all units.
#[pin_data]
struct Poll<D: Lifecycle> {
    driver: Arc<D>,
    #[pin]
    timer: HrTimer<Self>,
}

impl_has_hr_timer! {
    impl{D: Lifecycle} HasHrTimer<Self> for Poll<D> {
        mode: RelativeMode<Monotonic>, field: self.timer
    }
}

impl<D: Lifecycle> HrTimerCallback for Poll<D> {
    type Pointer<'a> = Arc<Self>;

    fn run(
        this: ArcBorrow<'_, Self>,
        mut context: HrTimerCallbackContext<'_, Self>,
    ) -> HrTimerRestart {
        for unit in this.driver.units().iter() {
            unit.poll();
        }
        context.forward_now(POLL_PERIOD);
        HrTimerRestart::Restart
    }
}

/// The data of `release`.
struct Control<D: Driver>(Registration<D>);

impl<D: Driver> Commanded for Control<D> {
    /// Releases the hardware.
    fn run(&self) -> Result {
        self.0.release()
    }
}

/// All that exists while the driver drives units.
///
/// Fields are dropped from the top: nothing polls any more when the units are released.
struct Running<D: Lifecycle> {
    _poll: Option<ArcHrTimerHandle<Poll<D>>>,
    _units: KVec<Files>,
    _split: Pin<KBox<File<Arc<SplitParameter>>>>,
    _release: Pin<KBox<Command>>,
}

impl<D: Lifecycle> Running<D> {
    /// Takes the units over and starts the timer. May sleep.
    fn new(module: &'static ThisModule) -> Result<Self> {
        let directory = Directory::new(D::Module::NAME);
        let registration = start::<D>(module, &directory)?;
        let driver = registration.driver().clone();
        let units = driver.units().files_in(&directory)?;
        let split = SplitParameter::file_of(driver.split().clone(), &directory.root)?;
        let poll = if driver.units().need_polling() {
            let poll = Arc::pin_init(
                pin_init!(Poll {
                    driver,
                    timer <- HrTimer::new(),
                }),
                GFP_KERNEL,
            )?;
            Some(poll.start(POLL_PERIOD))
        } else {
            None
        };
        let control = KBox::new(Control(registration), GFP_KERNEL)?;
        Ok(Self {
            _poll: poll,
            _units: units,
            _split: split,
            _release: Command::new(&directory.root, c"release", control)?,
        })
    }
}

/// The running driver, once it has begun.
#[pin_data]
struct Holder<D: Lifecycle> {
    #[pin]
    running: Mutex<Option<Running<D>>>,
}

/// The state of a module; dropping it releases everything.
pub struct Life<D: Lifecycle> {
    _holder: Arc<Holder<D>>,
}

impl<D: Lifecycle> Life<D> {
    /// Begins: at once if the driver is a module or the registers are free, otherwise when they
    /// become free.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// The errors of [`Lifecycle::take_over`]. The hardware has its original state then. If the
    /// module is in use by then it has to stay: the call succeeds, and the log says so.
    pub fn begin(module: &'static ThisModule) -> Result<Self> {
        // A driver that is built in has none.
        let is_module = !module.as_ptr().is_null();
        let (name, key) = lock_class::holder_running();
        let holder = Arc::pin_init(
            pin_init!(Holder {
                running <- Mutex::new(None, name, key),
            }),
            GFP_KERNEL,
        )?;
        let begin = {
            let holder = holder.clone();
            move || -> Result {
                let running = Running::<D>::new(module)?;
                *holder.running.lock() = Some(running);
                Ok(())
            }
        };
        if is_module || D::registers_are_free()? {
            begin().or_else(|error| stay::<D>(module, error))?;
        } else {
            // The C driver of the same kernel holds them until the end of boot, even if a boot
            // parameter disables it, unless it remaps interrupts and shares them.
            D::log_info(fmt!(
                "the units' registers are not free yet, trying again after boot\n"
            ));
            workqueue::system_unbound().try_spawn(GFP_KERNEL, move || {
                wait_for_registers::<D>();
                // The machine must not go to sleep in the middle: a freezable queue. It does not
                // wait there, which would keep the machine awake.
                let begun = workqueue::system_freezable().try_spawn(GFP_KERNEL, move || {
                    // The log names the error, and a built-in driver has no caller.
                    let _ = begin();
                });
                if begun.is_err() {
                    D::log_error(fmt!("no memory: the driver does not start\n"));
                }
            })?;
        }
        Ok(Self { _holder: holder })
    }
}

/// Keeps a module loaded that could not begin, if it is in use: user space can use devices as soon
/// as they are registered, and may have domains. The kernel frees a module whose loading fails
/// without checking the references to it.
fn stay<D: Lifecycle>(module: &'static ThisModule, error: Error) -> Result {
    if ffi::is_idle(module) {
        return Err(error);
    }
    D::log_error(fmt!(
        "could not start ({error:?}), but is already in use: stays loaded and drives nothing; \
         unload the module when it has no users any more\n"
    ));
    Ok(())
}

/// Waits until no driver claims the registers of the units, at most half a minute. May sleep.
fn wait_for_registers<D: Lifecycle>() {
    for _ in 0..REGISTER_ROUNDS {
        if D::registers_are_free().unwrap_or(false) {
            return;
        }
        fsleep(REGISTER_DELAY);
    }
}
