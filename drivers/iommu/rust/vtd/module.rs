// SPDX-License-Identifier: GPL-2.0

//! Loading the driver, letting go of the hardware, unloading.
//!
//! The IOMMU core holds a reference to the module for each device, so the module cannot be unloaded
//! while it drives anything, and nothing in the kernel would make it let go. Writing 1 to
//! `rust_vtd/release` in debugfs does: refused while a device has a domain that somebody relies
//! on, else all units are left as they were found, and the module can be unloaded.
//!
//! Built in, the driver begins with the other drivers, before most devices have theirs, if nobody
//! holds the registers then.

use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    impl_has_hr_timer,
    iommu::{
        acpi::Table,
        device::UnitInfo,
        mmio::PhysMem,
        ops::Driver,
        registry::Registration, //
    },
    new_mutex,
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
    uaccess::UserSliceReader,
    workqueue, //
};

use crate::{
    acpi::Dmar,
    driver::Vtd,
    module_parameters,
    policy::Policy, //
};

/// Time between two looks at the fault records.
const FAULT_PERIOD: Delta = Delta::from_millis(500);

/// Time between two looks for free registers, and how often to look, if the driver is built in.
const REGISTER_DELAY: Delta = Delta::from_millis(200);
const REGISTER_ROUNDS: u32 = 150;

/// Looks at the fault records from time to time.
///
/// A unit reports faults by a message-signalled interrupt of its own, which x86 gives to no module.
#[pin_data]
struct FaultPoll {
    driver: Arc<Vtd>,
    #[pin]
    timer: HrTimer<Self>,
}

impl_has_hr_timer! {
    impl HasHrTimer<Self> for FaultPoll {
        mode: RelativeMode<Monotonic>, field: self.timer
    }
}

impl HrTimerCallback for FaultPoll {
    type Pointer<'a> = Arc<Self>;

    fn run(
        this: ArcBorrow<'_, Self>,
        mut context: HrTimerCallbackContext<'_, Self>,
    ) -> HrTimerRestart {
        for unit in this.driver.units() {
            unit.poll_faults();
        }
        context.forward_now(FAULT_PERIOD);
        HrTimerRestart::Restart
    }
}

/// What `release` acts on.
struct Control(Registration<Vtd>);

/// Lets go of the hardware if a 1 is written.
fn release(control: &Control, reader: &mut UserSliceReader) -> Result {
    let mut first = [0u8; 1];
    reader.read_slice(&mut first)?;
    if first != *b"1" {
        return Err(EINVAL);
    }
    control.0.release()
}

/// All that goes on while units are driven.
///
/// Fields are dropped from the top: nobody can ask for a release any more, and no fault is looked
/// for, when the units go.
#[pin_data]
struct Running {
    _poll: ArcHrTimerHandle<FaultPoll>,
    _directory: Dir,
    #[pin]
    _release: File<Control>,
}

/// Reads the firmware's table.
fn parse() -> Result<Dmar> {
    let table = Table::find(*b"DMAR").inspect_err(|_| {
        pr_err!("there is no DMAR table: turn VT-d on in the firmware's set-up\n");
    })?;
    let dmar = Dmar::parse(table.bytes()).map_err(|error| {
        pr_err!("the DMAR table is not usable: {}\n", error);
        Error::from(error)
    })?;
    if dmar.units.is_empty() {
        pr_err!("the DMAR table names no remapping unit\n");
        return Err(ENODEV);
    }
    if dmar.opt_out {
        // The request is about interrupt remapping and x2APIC, which this driver leaves alone.
        pr_info!("firmware asks not to remap; loading this module says otherwise\n");
    }
    Ok(dmar)
}

/// Takes over all units, gives them to the IOMMU core and switches translation on.
fn start(module: &'static ThisModule) -> Result<Registration<Vtd>> {
    let policy = Policy::new(
        *module_parameters::stage.value_ref(),
        *module_parameters::default_domain.value_ref(),
    )?;
    let driver = Vtd::new(parse()?, policy)?;

    let mut infos = KVec::with_capacity(driver.units().len(), GFP_KERNEL)?;
    for unit in driver.units() {
        infos.push(
            UnitInfo {
                name: CString::try_from_fmt(fmt!("rust-dmar{}", unit.number))?,
                // Requests with PASID need a switch in the device that is not touched yet.
                max_pasids: 0,
                parent: None,
            },
            GFP_KERNEL,
        )?;
    }
    let registration = Vtd::registry()
        .register(module, driver, infos)
        .inspect_err(|error| pr_err!("the IOMMU core refuses the units: {:?}\n", *error))?;
    // Every device in scope has its entries now. An error drops the registration.
    registration.driver().enable_translation()?;
    Ok(registration)
}

impl Running {
    /// Takes the units over and lets everything begin. May sleep.
    ///
    /// # Errors
    ///
    /// Each has been reported in words. The hardware is as it was found then.
    fn new(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let registration = start(module)?;
            let driver = registration.driver().clone();
            pr_info!("driving {} units\n", driver.units().len());
            let poll = Arc::pin_init(
                pin_init!(FaultPoll {
                    driver,
                    timer <- HrTimer::new(),
                }),
                GFP_KERNEL,
            )?;
            let directory = Dir::new(c"rust_vtd");
            let parent = directory.clone();
            Ok(try_pin_init!(Self {
                _poll: poll.start(FAULT_PERIOD),
                _directory: directory,
                _release <- parent.write_callback_file(c"release", Control(registration), &release),
            }? Error))
        })
    }
}

/// What the module holds: the units, once they are driven.
#[pin_data]
struct Holder {
    #[pin]
    running: Mutex<Option<Pin<KBox<Running>>>>,
}

/// The module.
pub(crate) struct Module {
    _holder: Arc<Holder>,
}

impl kernel::Module for Module {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let holder = Arc::pin_init(
            pin_init!(Holder {
                running <- new_mutex!(None),
            }),
            GFP_KERNEL,
        )?;
        let begin = {
            let holder = holder.clone();
            move || -> Result {
                let running = KBox::pin_init(Running::new(module), GFP_KERNEL)?;
                *holder.running.lock() = Some(running);
                Ok(())
            }
        };
        if cfg!(MODULE) || registers_are_free(&parse()?) {
            begin()?;
        } else {
            // The C code in the same kernel holds them until the end of boot, even if it was told
            // to leave them alone.
            pr_info!("the units' registers are not free yet, looking again after boot\n");
            workqueue::system_unbound().try_spawn(GFP_KERNEL, move || {
                wait_for_registers();
                // The reason was reported, and a built-in driver has nobody to tell.
                let _ = begin();
            })?;
        }
        Ok(Self { _holder: holder })
    }
}

/// Whether nobody has claimed the registers of the units. May sleep.
fn registers_are_free(dmar: &Dmar) -> bool {
    dmar.units.iter().all(|unit| {
        CString::try_from(c"rust_vtd")
            .map_err(Error::from)
            .and_then(|name| PhysMem::<0>::request(unit.base, unit.bytes, name))
            .is_ok()
    })
}

/// Waits until nobody claims the registers of the units, or for half a minute. May sleep.
fn wait_for_registers() {
    for _ in 0..REGISTER_ROUNDS {
        if parse().is_ok_and(|dmar| registers_are_free(&dmar)) {
            return;
        }
        fsleep(REGISTER_DELAY);
    }
}
