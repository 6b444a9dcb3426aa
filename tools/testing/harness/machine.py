# SPDX-License-Identifier: GPL-2.0
"""One run of a virtual machine: boot, do a job, power off, in bounded time."""

import dataclasses
import os
import pathlib
import re
import subprocess
import tempfile
import threading
import time

from . import cpio
from .errors import MachineError

DISK_BYTES = 32 << 20
# The features of the processor, except those that only slow down an emulated one: byte-wise string
# stores instead of words, and a fifth level of page tables.
PROCESSOR = "max,erms=off,fsrm=off,la57=off"
# Each instruction that the guest executes takes 4 ns, and time jumps while the guest waits. So the
# guest never sleeps in real time, and a time limit of a test, such as upstream's 30 s, has the same
# effect on a busy host.
VIRTUAL_TIME = "shift=2,sleep=off"
# A debug kernel executes several times as many instructions: its processor is faster.
VIRTUAL_TIME_DEBUG = "shift=0,sleep=off"
PARAMETERS = "console=ttyS0 panic=-1 loglevel=7"
HUGE_PAGES = "hugepagesz=1G hugepages=1 hugepagesz=2M hugepages=192"
# Memory of one virtual machine at its source and at its destination, in pages of either size.
VMM_HUGE_PAGES = "hugepagesz=1G hugepages=2 hugepagesz=2M hugepages=256"
# Two conventional functions behind a bridge, which share a requester ID.
BRIDGE = (
    "-device", "pcie-pci-bridge,id=conventional,addr=0c.0",
    "-device", "edu,bus=conventional,addr=01.0",
    "-device", "edu,bus=conventional,addr=02.0",
)  # fmt: skip
# Two functions that can be migrated, each behind a port; the two that every machine has are on the
# root bus.
WRITERS_BEHIND_PORTS = tuple(
    word
    for number in (1, 2)
    for word in (
        "-device",
        f"pcie-root-port,id=writers{number},chassis={number},slot={number},"
        f"addr={17 + number:02x}.0",
        "-device", f"page-writer,bus=writers{number}",
    )
)  # fmt: skip
# An empty slot, whose port the kernel's own driver serves, and functions at the last device number
# of a bus: the root bus, and a conventional one.
HOT_PLUG = (
    "-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
    "-device", "pcie-root-port,id=hot,chassis=1,slot=1,addr=0d.0",
    "-device", "page-writer,addr=1f.6,multifunction=on",
    "-device", "pcie-pci-bridge,id=conventional,addr=0c.0",
    "-device", "page-writer,bus=conventional,addr=1f.0",
)  # fmt: skip
# A function with more vectors than the processors have.
MANY_VECTORS = (
    "-device", "nvme,serial=vectors,addr=0e.0,msix_qsize=2048,max_ioqpairs=2047",
)  # fmt: skip
JOB_END = re.compile(r"# job ended with status (\d+)\s*$")

# Kernel messages about errors that no test checks.
TROUBLE = re.compile(
    r"\b(WARNING: (?!.*[Ss]pectre)|BUG: |Oops: |general protection fault|kernel BUG at|"
    r"Kernel panic|INFO: possible |INFO: task .* blocked|suspicious RCU usage|"
    r"Invalid wait context|inconsistent lock state|rcu: INFO: .*stall|UBSAN: |KASAN: |"
    r"sleeping function called from invalid|refcount_t: )"
)


# The IOMMU core warns about each device that has a driver before the module is loaded, as ports
# have; this is the line above its warning.
LATE = re.compile(r"late IOMMU probe at driver bind, something fishy here!")


@dataclasses.dataclass(frozen=True)
class Build:
    """The parts of a machine other than its IOMMU."""

    memory: str = "4G"
    huge_pages: str = HUGE_PAGES
    # Arguments for QEMU: the functions that are not in every machine.
    devices: tuple = BRIDGE
    # Firmware tables that replace those of the emulator, or are added to them.
    tables: tuple = ()
    # Whether it runs virtual machines.
    vmm: bool = False
    # Whether the image holds the kernel too, to be started by the kernel that runs.
    next_kernel: bool = False
    # Bytes of its disk.
    disk: int = DISK_BYTES
    processors: int = 2
    # Whether the emulator's monitor is at its third serial port.
    monitor: bool = False
    # More parameters of its kernel.
    more: str = ""
    # Whether its clock is the host's. While the machine sleeps, no other clock goes on.
    real_time: bool = False

    def parameters(self):
        # One processor: two would share one CPU of the host.
        processors = "maxcpus=1" if self.vmm else ""
        image = "retain_initrd" if self.next_kernel else ""
        words = (PARAMETERS, self.huge_pages, processors, image, self.more)
        return " ".join(filter(None, words))

    def monitor_arguments(self, path):
        """Return QEMU's arguments that join its monitor with a serial port, by a socket at `path`
        whose two ends it has: the job types commands there."""
        if not self.monitor:
            return ()
        return (
            "-chardev", f"socket,id=plug,path={path},server=on,wait=off",
            "-serial", "chardev:plug",
            "-chardev", f"socket,id=monitor,path={path}",
            "-mon", "chardev=monitor",
        )  # fmt: skip


# For a machine that runs two QEMUs, a virtual machine's source and its destination.
VMM_HOST = Build(
    memory="7G",
    huge_pages=VMM_HUGE_PAGES,
    devices=WRITERS_BEHIND_PORTS,
    vmm=True,
    real_time=True,
)

# For a machine whose functions come and go. The kernel waits for a slot in real time.
PLUGGED = Build(
    devices=HOT_PLUG,
    monitor=True,
    # Firmware gives the kernel its ports only if that manages their power, too, which it does not.
    more="pcie_ports=native vfio_pci.enable_sriov=1",
    real_time=True,
)

# For a machine with as many processors as its kernel is built for.
CROWDED = Build(devices=MANY_VECTORS, processors=8)

# For a machine that sleeps.
SLEEPER = Build(real_time=True)

# For one that sleeps with its memory on its disk: little memory, and a disk that holds it.
HIBERNATOR = Build(memory="1G", huge_pages="", disk=1 << 30)


@dataclasses.dataclass
class Outcome:
    """The outcome of a run."""

    lines: list
    status: int | None
    trouble: list
    timed_out: bool
    seconds: float
    console: pathlib.Path
    # QEMU's output if a signal ended it.
    crash: str = ""

    def failures(self):
        """Return a sentence for each error outside of the tests."""
        found = []
        if self.timed_out:
            found.append(f"the machine did not finish in {self.seconds:.0f} s and was ended")
        elif self.crash:
            found.append(f"QEMU crashed: {self.crash}")
        elif self.status is None:
            found.append("the machine went down before the job was over")
        found += [f"the kernel said: {line}" for line in self.trouble]
        return found


def command(products, machine, build, image, console, extra_parameters, real_time):
    """Return QEMU's command line for a machine."""
    virtual_time = VIRTUAL_TIME_DEBUG if products.debug else VIRTUAL_TIME
    clock = [] if real_time else ["-icount", virtual_time]
    parameters = f"{build.parameters()} {machine.kernel_parameters()} {extra_parameters}"
    return [
        str(products.qemu),
        "-nodefaults", "-no-reboot", "-display", "none",
        "-L", "/usr/share/qemu", "-L", "/usr/share/seabios",
        "-machine", "q35,kernel-irqchip=split",
        # One thread for both processors: with two, QEMU 10.0 can use an address space while the
        # other processor changes it (iotlb_to_section asserts).
        "-accel", "tcg,thread=single", *clock, "-cpu", PROCESSOR, "-smp", f"{build.processors}",
        "-m", build.memory,
        "-device", machine.config.qemu_device(),
        "-device", "igb,romfile=,addr=04.0",
        "-device", "igb,romfile=,addr=06.0",  # room for the VFs of the first
        # It reaches all memory, and the range of interrupts.
        "-device", f"edu,addr=03.0,dma_mask={2**48 - 1}",
        "-drive", f"file={image.parent}/disk,format=raw,if=none,id=disk",
        "-device", "nvme,drive=disk,serial=rust-iommu,addr=05.0",
        *build.devices,
        *machine.config.qemu_functions(),
        "-kernel", str(products.kernel), "-initrd", str(image),
        "-append", parameters.strip(),
        "-serial", f"file:{console}",
        "-chardev", "stdio,id=job,signal=off", "-serial", "chardev:job",
        *build.monitor_arguments(image.parent / "monitor"),
    ]  # fmt: skip


def find_trouble(console):
    """Return the lines of a kernel log that report an error."""
    if not console.exists():
        return ["nothing at all: it did not boot"]
    lines = console.read_text(errors="replace").splitlines()
    return [
        line.strip()
        for before, line in zip(["", *lines], lines)
        if TROUBLE.search(line) and not LATE.search(before)
    ]


def make_disk(path, size):
    """Make an empty disk, for the kernel's own drivers."""
    with path.open("wb") as disk:
        disk.truncate(size)


def write_image(products, job, build, path):
    """Write firmware tables, the image and `job`, in this order."""
    with path.open("wb") as image:
        if build.tables:
            names = [f"kernel/firmware/acpi/{number}.aml" for number in range(len(build.tables))]
            image.write(cpio.archive(dict(zip(names, build.tables))))
        image.write(products.image.read_bytes())
        if build.vmm:
            image.write(products.vmm.read_bytes())
        files = {"job": job.encode()}
        if build.next_kernel:
            files["kernel"] = products.kernel.read_bytes()
        image.write(cpio.archive(files))


def run(
    products,
    machine,
    job,
    *,
    log,
    limit,
    on_output=None,
    extra_parameters="",
    real_time=False,
    build=Build(),
):
    """Boot `machine`, built like `build`, and let it run the shell script `job`.

    Return the Outcome. `log` names the kernel's log, `limit` is the wall time in seconds on
    the usual kernel, and `on_output` sees each piece of the job's output as it comes. With
    `real_time` the guest's clock is the host's.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    begun = time.monotonic()
    if build.vmm and not products.vmm:
        raise MachineError("what runs virtual machines is not set up: run 'make vm'")
    with tempfile.TemporaryDirectory(prefix="rust-iommu-") as scratch:
        image = pathlib.Path(scratch, "image.cpio")
        write_image(products, job, build, image)
        make_disk(image.parent / "disk", build.disk)
        arguments = command(
            products, machine, build, image, log, extra_parameters, real_time or build.real_time
        )
        log.with_suffix(".command").write_text(" ".join(arguments) + "\n")
        with log.with_suffix(".stderr").open("wb") as errors:
            try:
                process = subprocess.Popen(
                    arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
                )
            except OSError as error:
                raise MachineError(f"{products.qemu} cannot be run: {error.strerror}") from error
        ended = threading.Event()

        def end():
            ended.set()
            process.kill()

        timer = threading.Timer(limit * products.patience, end)
        timer.start()
        pieces = []
        try:
            while piece := os.read(process.stdout.fileno(), 65536):
                pieces.append(piece)
                if on_output:
                    on_output(piece)
            process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                process.kill()
                process.wait()
    errors = log.with_suffix(".stderr").read_text(errors="replace").strip()
    if process.returncode > 0:
        said = errors.splitlines()[-1] if errors else log
        raise MachineError(f"QEMU ended with status {process.returncode}: {said}")
    lines = b"".join(pieces).decode(errors="replace").replace("\r\n", "\n").split("\n")
    status = None
    for line in lines:
        if match := JOB_END.match(line):
            status = int(match[1])
    lines = [line for line in lines if not JOB_END.match(line)]
    crash = ""
    if process.returncode < 0 and not ended.is_set():
        crash = errors.splitlines()[-1] if errors else f"signal {-process.returncode}"
    return Outcome(
        lines, status, find_trouble(log), ended.is_set(), time.monotonic() - begun, log, crash
    )
