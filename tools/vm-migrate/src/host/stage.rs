// SPDX-License-Identifier: GPL-2.0

//! A virtual machine with its functions, all of which write. `migration` has it move.

use std::time::Duration;

use anyhow::{
    bail,
    ensure,
    Context,
    Result, //
};
use qapi_qmp::{
    device_add,
    device_del, //
};
use vm_rule::{
    rule::{
        mix,
        PAGE_SIZE, //
    },
    words::Words,
};

use crate::{
    cli::Options,
    functions::Sides,
    guest::Check,
    migration::Attempt,
    qemu::{
        self,
        Plugged, //
    },
    report::{
        Lost,
        Report, //
    },
    vm::{
        wait,
        Vm, //
    },
};

/// How long the guest may take until it is up, and for a command. On an idle host it takes a
/// twentieth of that; a limit is for a guest that hangs, not for a host that is busy.
const BOOT: Duration = Duration::from_secs(240);
pub(crate) const COMMAND: Duration = Duration::from_secs(180);
/// How long other things may take.
pub(crate) const STEP: Duration = Duration::from_secs(30);

/// A port of the virtual machine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Port {
    /// Whether a function is plugged in.
    pub(crate) plugged: bool,
    /// Its number in the guest, and that of its area there.
    unit: u64,
    pub(crate) area: u64,
}

/// A virtual machine at work.
pub(crate) struct Stage<'a> {
    pub(crate) options: &'a Options,
    pub(crate) report: &'a mut Report,
    pub(crate) vm: Vm,
    /// The one that it goes to.
    pub(crate) destination: Option<Vm>,
    pub(crate) sides: Sides,
    /// Where it is.
    pub(crate) side: usize,
    /// QEMUs so far.
    pub(crate) started: usize,
    pub(crate) ports: Vec<Port>,
    /// Whether the memory module is plugged in.
    pub(crate) dimm: bool,
    /// Bytes of all areas.
    pub(crate) bytes: u64,
    /// Seeds given out so far.
    seeds: u64,
    /// The migration under way, or the last one.
    pub(crate) attempt: Attempt,
}

/// Starts a virtual machine on one side, and its guest.
fn boot(options: &Options, sides: &Sides, side: usize, name: &str) -> Result<Vm> {
    let hosts = sides.get(side).into_iter().flatten();
    let plugged = Plugged {
        hosts: hosts.cloned().map(Some).collect(),
        dimm: false,
    };
    let mut vm = Vm::start(options, name, &plugged, false)?;
    match vm.guest.ready(BOOT) {
        Ok(_) => Ok(vm),
        Err(e) => bail!("{e:#}; {}", vm.diagnosis()),
    }
}

impl<'a> Stage<'a> {
    /// Starts the virtual machine, and has everything write.
    ///
    /// # Errors
    ///
    /// It does not come up.
    pub(crate) fn new(options: &'a Options, report: &'a mut Report, sides: Sides) -> Result<Self> {
        let vm = boot(options, &sides, 0, "vm-1")?;
        let count = options.devices()?;
        let mut stage = Self {
            options,
            report,
            vm,
            destination: None,
            sides,
            side: 0,
            started: 1,
            ports: vec![Port::default(); count],
            dimm: false,
            bytes: 0,
            seeds: 0,
            attempt: Attempt::default(),
        };
        match stage.set_up() {
            Ok(()) => Ok(stage),
            Err(e) => Err(stage.explain(e)),
        }
    }

    /// Starts the virtual machine anew where it was, after QEMU was killed.
    ///
    /// # Errors
    ///
    /// It does not come up.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.started += 1;
        let name = format!("vm-{}", self.started);
        self.vm = boot(self.options, &self.sides, self.side, &name)?;
        self.dimm = false;
        self.bytes = 0;
        self.set_up()
    }

    /// Adds what can be read about the QEMUs to an error.
    pub(crate) fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        if error.is::<Lost>() {
            return error;
        }
        let vms = [Some(&mut self.vm), self.destination.as_mut()];
        let all: Vec<_> = vms.into_iter().flatten().map(Vm::diagnosis).collect();
        anyhow::anyhow!("{error:#}; {}", all.join("; "))
    }

    /// Gives each function its part of the memory, and has it write there.
    fn set_up(&mut self) -> Result<()> {
        let (start, length) = self.options.region()?;
        let count = self.ports.len();
        let part = length / count as u64 / (2 << 20) * (2 << 20);
        for index in 0..count {
            let offset = index as u64 * part;
            // The last one gets what is left, so that all of it is compared.
            let part = match index + 1 == count {
                true => length - offset,
                false => part,
            };
            let seed = self.seed();
            let words = Words::new()
                .with_hex("base", start + offset)
                .with_hex("length", part)
                .with_hex("seed", seed);
            let area = self.ask("area", words)?.number("area")?;
            self.bytes += part;
            self.port(index)?.area = area;
            self.take(index)?;
            self.aim(index, area)?;
        }
        self.ask(
            "run",
            Words::new().with("rate", self.options.processor_rate),
        )?;
        self.goes_on()
    }

    fn port(&mut self, index: usize) -> Result<&mut Port> {
        let port = self.ports.get_mut(index);
        port.with_context(|| format!("there is no port {index}"))
    }

    /// Whether any function is plugged in.
    pub(crate) fn has_function(&self) -> bool {
        self.ports.iter().any(|port| port.plugged)
    }

    /// A seed that none had before.
    pub(crate) fn seed(&mut self) -> u64 {
        self.seeds += 1;
        mix(self.options.seed ^ mix(self.seeds))
    }

    /// Has the guest do something.
    ///
    /// # Errors
    ///
    /// It cannot.
    pub(crate) fn ask(&mut self, name: &str, words: Words) -> Result<Words> {
        self.vm.guest.ask(name, words, COMMAND)
    }

    /// Has the guest take the function at a port.
    fn take(&mut self, index: usize) -> Result<()> {
        let answer = self.ask("take", Words::new().with("port", qemu::port(index)))?;
        let port = self.port(index)?;
        port.unit = answer.number("unit")?;
        port.plugged = true;
        Ok(())
    }

    /// Has a function write to an area.
    ///
    /// # Errors
    ///
    /// The guest cannot.
    pub(crate) fn aim(&mut self, index: usize, area: u64) -> Result<()> {
        let seed = self.seed();
        let words = Words::new()
            .with("unit", self.port(index)?.unit)
            .with("area", area)
            .with_hex("span", self.options.span)
            .with_hex("seed", seed)
            .with("rate", self.options.rate)
            // Ten interrupts in a second.
            .with("progress", self.options.rate.div_ceil(10));
        self.ask("aim", words).map(drop)
    }

    /// Unplugs a function.
    ///
    /// # Errors
    ///
    /// It does not go.
    pub(crate) fn unplug(&mut self, index: usize) -> Result<()> {
        let unit = self.port(index)?.unit;
        self.ask("release", Words::new().with("unit", unit))?;
        self.delete(&qemu::writer(index))?;
        self.port(index)?.plugged = false;
        Ok(())
    }

    /// Unplugs a device, which the guest has to let go.
    fn delete(&mut self, id: &str) -> Result<()> {
        self.vm.qmp.execute(&device_del { id: id.into() })?;
        let ended = self.vm.qmp.wait(&format!("end of {id}"), STEP, |event| {
            event.event == "DEVICE_DELETED" && event.data["device"] == id
        });
        ended.map(drop)
    }

    /// Plugs the memory module in.
    ///
    /// # Errors
    ///
    /// QEMU does not take it.
    pub(crate) fn plug_dimm(&mut self) -> Result<()> {
        let (driver, properties) = qemu::dimm();
        let properties = properties.map(|(key, value)| (key.into(), value.into()));
        self.vm.qmp.execute(&device_add {
            driver: driver.into(),
            id: Some(qemu::DIMM.into()),
            bus: None,
            arguments: properties.into_iter().collect(),
        })?;
        self.dimm = true;
        Ok(())
    }

    /// Unplugs it.
    ///
    /// # Errors
    ///
    /// The guest does not let it go.
    pub(crate) fn unplug_dimm(&mut self) -> Result<()> {
        self.delete(qemu::DIMM)?;
        // The guest looks at the slot once more, and must find it empty.
        self.vm
            .qmp
            .wait("end of the guest's unplugging", STEP, |event| {
                event.event == "ACPI_DEVICE_OST" && event.data["info"]["slot-type"] == "DIMM"
            })?;
        self.dimm = false;
        Ok(())
    }

    /// Plugs a function in, and has it write where it did before.
    ///
    /// # Errors
    ///
    /// It does not come.
    pub(crate) fn plug(&mut self, index: usize) -> Result<()> {
        let side = self.sides.get(self.side);
        let host = side.and_then(|side| side.get(index));
        let host = host.context("there is no such function")?;
        let properties = qemu::function(self.options, index, host);
        let properties = properties
            .into_iter()
            .map(|(key, value)| (key, value.into()));
        let mut words: qapi_spec::Dictionary = properties.collect();
        let mut take = |key: &str| Some(words.remove(key)?.as_str()?.to_string());
        let (id, bus) = (take("id"), take("bus"));
        self.vm.qmp.execute(&device_add {
            driver: "vfio-pci".into(),
            id,
            bus,
            arguments: words,
        })?;
        self.take(index)?;
        let area = self.port(index)?.area;
        self.aim(index, area)
    }

    /// The guest's counters.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub(crate) fn totals(&mut self) -> Result<Check> {
        Check::totals(&self.ask("status", Words::new())?)
    }

    /// Compares all memory, and goes on.
    ///
    /// # Errors
    ///
    /// `Lost` if it is not what it must be.
    pub(crate) fn check(&mut self) -> Result<Check> {
        let answer = self.ask("check", Words::new())?;
        self.judge(&answer)
    }

    /// Reads the answer to `check`, and has everything go on if it is good.
    ///
    /// # Errors
    ///
    /// `Lost` if the memory is not what it must be.
    pub(crate) fn judge(&mut self, answer: &Words) -> Result<Check> {
        let check = Check::read(answer)?;
        if !check.is_good() {
            return Err(Lost(check).into());
        }
        let pages = self.bytes / PAGE_SIZE as u64;
        ensure!(
            check.pages == pages,
            "the guest has compared {} pages of {pages}",
            check.pages
        );
        self.ask("run", Words::new())?;
        Ok(check)
    }

    /// Looks whether the guest goes on as if nothing had been: the processor and each function write,
    /// and each function interrupts.
    ///
    /// # Errors
    ///
    /// One does not.
    pub(crate) fn goes_on(&mut self) -> Result<()> {
        self.vm.wait_status("running", STEP)?;
        let before = self.totals()?;
        self.ask("listen", Words::new())?;
        wait("the guest writes nothing any more", STEP, || {
            let now = Check::totals(&self.vm.guest.ask("status", Words::new(), COMMAND)?)?;
            Ok(now.all_moved(&before).then_some(()))
        })
    }

    /// Looks whether QEMU has switched tracking off again, and says so if that can be seen.
    ///
    /// # Errors
    ///
    /// It has not, or the kernel did not take it.
    pub(crate) fn tracks_no_more(&mut self) -> Result<()> {
        if self.options.container {
            // The calls of the container are in no trace.
            return Ok(());
        }
        wait("tracking is still on", STEP, || {
            let trace = self.vm.trace()?;
            ensure!(trace.on > 0, "tracking was never on");
            ensure!(
                trace.failed == 0,
                "{} calls to iommufd failed",
                trace.failed
            );
            Ok((!trace.is_on()).then_some(()))
        })?;
        self.report.note("QEMU has switched tracking off");
        Ok(())
    }
}
