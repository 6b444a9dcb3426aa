// SPDX-License-Identifier: GPL-2.0

//! The life of a driver's module: loading, release of the hardware, unloading.
//!
//! The IOMMU core holds a reference to the module for each device, so the module cannot be unloaded
//! while it drives a unit, and the core has no interface to release the units. Writing 1 to
//! `release` in the module's directory in debugfs releases them. It is refused while a device is in
//! use. After it all units are as the driver found them, and the module can be unloaded.
//!
//! A built-in driver begins with the other drivers, before most devices have theirs, if no other
//! driver holds the registers at that time.

use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    impl_has_hr_timer,
    prelude::*,
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
    uaccess::UserSliceReader,
    workqueue,
    ThisModule, //
};

use super::{
    ffi,
    lock_class,
    ops::Driver,
    registry::Registration, //
};

/// Time between two looks at what units have to report.
const POLL_PERIOD: Delta = Delta::from_millis(500);

/// Time between two looks for free registers, and how often to look, if the driver is built in.
const REGISTER_DELAY: Delta = Delta::from_millis(200);
const REGISTER_ROUNDS: u32 = 150;

/// A driver whose module is loaded and unloaded.
pub trait Lifecycle: Driver {
    /// The name of the module, and of its directory in debugfs.
    const NAME: &'static CStr;

    /// Takes over all units, gives them to the IOMMU core and switches translation on.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// Each has been reported in words. The hardware is as it was found then.
    fn start(module: &'static ThisModule) -> Result<Registration<Self>>;

    /// Whether no driver has claimed the registers of the units.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// There are no units that the driver could drive, which has been reported.
    fn registers_are_free() -> Result<bool>;

    /// Whether [`Self::poll`] has to be called from time to time.
    ///
    /// Context: may sleep.
    fn needs_polling(&self) -> bool;

    /// Looks at what units have to report.
    ///
    /// Context: any; from a timer, and so never twice at once.
    fn poll(&self);
}

/// Polls from time to time.
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
        this.driver.poll();
        context.forward_now(POLL_PERIOD);
        HrTimerRestart::Restart
    }
}

/// What `release` acts on.
struct Control<D: Driver>(Registration<D>);

/// Releases the hardware if a 1 is written.
fn release<D: Driver>(control: &Control<D>, reader: &mut UserSliceReader) -> Result {
    let mut first = [0u8; 1];
    reader.read_slice(&mut first)?;
    if first != *b"1" {
        return Err(EINVAL);
    }
    control.0.release()
}

/// All that goes on while units are driven.
///
/// Fields are dropped from the top: no release can be asked for any more, and nothing is polled,
/// when the units go.
#[pin_data]
struct Running<D: Lifecycle> {
    _poll: Option<ArcHrTimerHandle<Poll<D>>>,
    _directory: Dir,
    #[pin]
    _release: File<Control<D>>,
}

impl<D: Lifecycle> Running<D> {
    /// Takes the units over and lets everything begin. May sleep.
    fn new(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let registration = D::start(module)?;
            let driver = registration.driver().clone();
            let poll = if driver.needs_polling() {
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
            let directory = Dir::new(D::NAME);
            let parent = directory.clone();
            Ok(try_pin_init!(Self {
                _poll: poll,
                _directory: directory,
                _release <- parent.write_callback_file(
                    c"release",
                    Control(registration),
                    &release::<D>,
                ),
            }? Error))
        })
    }
}

/// What is there once the units are driven.
#[pin_data]
struct Holder<D: Lifecycle> {
    #[pin]
    running: Mutex<Option<Pin<KBox<Running<D>>>>>,
}

/// What a module holds; dropping it releases everything.
pub struct Life<D: Lifecycle> {
    _holder: Arc<Holder<D>>,
}

impl<D: Lifecycle> Life<D> {
    /// Begins: at once if the driver is a `module` that is being loaded or the registers are free,
    /// otherwise when they are.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// Those of [`Lifecycle::start`]. The hardware is as it was found then. There is no error, but
    /// a message, if the module is used by then, and therefore has to stay.
    pub fn begin(module: &'static ThisModule, is_module: bool) -> Result<Self> {
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
                let running = KBox::pin_init(Running::<D>::new(module), GFP_KERNEL)?;
                *holder.running.lock() = Some(running);
                Ok(())
            }
        };
        if is_module || D::registers_are_free()? {
            begin().or_else(|error| stay::<D>(module, error))?;
        } else {
            // The C code in the same kernel holds them until the end of boot, even if it was told
            // to leave them alone.
            pr_info!(
                "iommu: {:?}: the units' registers are not free yet, looking again after boot\n",
                D::NAME
            );
            workqueue::system_unbound().try_spawn(GFP_KERNEL, move || {
                wait_for_registers::<D>();
                // The reason was reported, and a built-in driver has no caller to tell.
                let _ = begin();
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
    pr_err!(
        "iommu: {:?}: could not begin ({error:?}), but is used already: stays loaded and drives \
         nothing; unload the module when the users are gone\n",
        D::NAME
    );
    Ok(())
}

/// Waits until no driver claims the registers of the units, or for half a minute. May sleep.
fn wait_for_registers<D: Lifecycle>() {
    for _ in 0..REGISTER_ROUNDS {
        if D::registers_are_free().unwrap_or(false) {
            return;
        }
        fsleep(REGISTER_DELAY);
    }
}
