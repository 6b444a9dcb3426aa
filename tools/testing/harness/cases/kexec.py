# SPDX-License-Identifier: GPL-2.0
"""A second kernel takes the machine over: kexec, and the kernel that is kept for a crash."""

import dataclasses
import shlex

from .. import configs
from .. import machine as vm
from .case import BUSY, DISK, IGB, LOADED, Case, fails, migrates, passes

# The image is in memory three times: as a file system, as it is, and for the next kernel.
MEMORY = "2G"
# Where the crash kernel lives.
CRASH_BASE, CRASH_BYTES = 512 << 20, 640 << 20
# Memory of the crashed kernel, which the crash kernel does not use.
OLD_BASE, OLD_BYTES = 256 << 20, 64 << 20
# What the crash kernel watches.
WATCHED_MIB = 128

WRITER = configs.WRITER_SLOTS[0]
COPIED = {
    configs.VTD: "Copied translation tables from previous kernel",
    configs.AMDVI: "Reused DEV table from previous kernel",
}


@dataclasses.dataclass(frozen=True)
class TwoKernels(Case):
    """A case whose checks go on in a second kernel."""

    # What the second kernel checks, and whose parameters it has: a machine by name.
    then: tuple = ()
    then_machine: str = ""
    then_parameters: str = ""
    # Whether the first kernel crashes, which starts the second one.
    crashes: bool = False
    # Whether the unit remaps interrupts.
    remapped: bool = False

    def config(self, name):
        config = configs.machines(name)[0].config
        return dataclasses.replace(config, remapped=config.remapped and self.remapped)

    def make(self):
        machine = dataclasses.replace(
            configs.machines(self.machine)[0], config=self.config(self.machine)
        )
        return machine, vm.Build(
            memory=MEMORY, huge_pages="", devices=self.devices, next_kernel=True
        )

    def second_parameters(self):
        """Return the parameters of the second kernel."""
        machine = dataclasses.replace(
            configs.machines(self.then_machine)[0], config=self.config(self.then_machine)
        )
        return " ".join(
            (vm.PARAMETERS, machine.kernel_parameters(), "kunit.enable=0", self.then_parameters)
        ).strip()

    def lines(self, name, checks):
        """Return the lines of a kernel on the machine `name`."""
        driver, *parameters = (self.config(name).module or "none").split()
        return [
            f"MODULE={driver}",
            f"MODULE_PARAMETERS={shlex.quote(' '.join(parameters))}",
            ". /lib/driver.sh",
            ". /lib/refusals.sh",
            ". /lib/kexec.sh",
            *(f"expect {shlex.join(check)}" for check in checks),
        ]

    def job(self):
        load = "loads_crash_kernel" if self.crashes else "loads_kernel"
        checks = (
            passes("the next kernel is loaded", load, self.second_parameters()),
            *self.checks,
        )
        lines = [
            ". /lib/lib.sh",
            "if grep -qw second_kernel /proc/cmdline; then",
            f"KTAP_TESTNO={len(checks) + 1}",
            *self.lines(self.then_machine, self.then),
            "exit",
            "fi",
            f"begin {len(checks) + len(self.then)}",
            *self.lines(self.machine, checks),
            # The end of init is the end of its kernel.
            "touch /run/crash" if self.crashes else "starts_kernel",
        ]
        return "\n".join(lines) + "\n"


def writing(base, length):
    """Return the check that a function writes to these addresses from now on."""
    return passes("a function writes", "leaves_writing", WRITER, hex(base), hex(length))


def kexec(name, first, second, *then, remapped=False, named=False):
    """Return the case of a kernel that ends as it should, and starts another one."""
    return TwoKernels(
        name,
        (
            *((LOADED,) if configs.machines(first)[0].config.module else ()),
            *migrates(IGB),
            DISK,
            writing(OLD_BASE, OLD_BYTES),
        ),
        first,
        then=(
            fails("the function makes no requests any more", "masters", WRITER),
            *then,
            *migrates(IGB),
            DISK,
            passes("no address was refused", "no_fault"),
        ),
        then_machine=second,
        remapped=remapped,
        named=named,
    )


def crash(name, first, second, base, length, *then, parameters=""):
    """Return the case of a kernel that crashes while a function writes."""
    return TwoKernels(
        name,
        (LOADED, *migrates(IGB), writing(base, length)),
        first,
        parameters=f"crashkernel={CRASH_BYTES >> 20}M@{CRASH_BASE >> 20}M",
        then=then,
        then_machine=second,
        then_parameters=f"nr_cpus=1 {parameters}".strip(),
        crashes=True,
        trouble=r"Kernel panic - not syncing: Attempted to kill init!",
    )


def vtd():
    """Return the cases of VT-d."""
    ours, theirs = "vtd-ss/pt", "vtd-ss-c/pt"
    stopped = passes(
        "the queue was on",
        "says",
        "dmar0: stopped the invalidation queue, left on by an earlier kernel or by firmware",
    )
    return (
        # Shows that the emulator does what the C driver relies on, which no change here alters.
        kexec("kexec-c-c", theirs, theirs, named=True),
        kexec("kexec-c-rust", theirs, ours, LOADED, stopped),
        kexec("kexec-rust-c", ours, theirs),
        kexec("kexec-rust-rust", ours, ours, LOADED, fails("all was off", "says", "left on")),
        kexec("kexec-shared", ours, ours, LOADED, remapped=True),
        # The kernel itself switches translation off there, so the function writes elsewhere.
        crash("crash-rust", ours, ours, OLD_BASE, OLD_BYTES, *refuses("with intel_iommu=on,sm_on")),
        crash(
            "crash-c",
            ours,
            theirs,
            CRASH_BASE,
            CRASH_BYTES,
            *left_alone(),
            passes("the old tables were copied", "kernel_says", COPIED[configs.VTD]),
        ),
    )


def amdvi():
    """Return the cases of AMD-Vi."""
    ours, theirs = "amd-v1/pt", "amd-v1-c/pt"
    return (
        kexec("kexec-c-rust", theirs, ours, LOADED),
        kexec("kexec-rust-c", ours, theirs),
        kexec("kexec-rust-rust", ours, ours, LOADED, fails("all was off", "says", "left on")),
        crash(
            "crash-rust",
            ours,
            ours,
            CRASH_BASE,
            CRASH_BYTES,
            *left_alone(),
            *refuses("without amd_iommu=off"),
            *left_alone(),
        ),
    )


def left_alone():
    """Return the checks that what the function writes lands in the old kernel."""
    return (
        passes("the function writes still", "writes_still", WRITER),
        passes("and not to this kernel's memory", "memory_is_left_alone", str(WATCHED_MIB)),
    )


def refuses(advice):
    """Return the checks of a driver in a crash kernel."""
    words = "this driver takes no unit over from it"
    return (
        passes("the driver is refused", "refuses", BUSY, words),
        passes("and says how to boot", "says", f"boot the crash kernel {advice}"),
    )


def groups():
    """Return the cases, by the machine that they vary."""
    return (("vtd-ss/pt", vtd()), ("amd-v1/pt", amdvi()))
