# SPDX-License-Identifier: GPL-2.0
"""Machines that each test one case, and the checks that run there.

A case boots in seconds: with other properties of the emulated unit, with another driver in the
kernel, or with malformed firmware tables. Its checks are shell functions of the guest
(tools/testing/vm/guest/refusals.sh).
"""

import dataclasses
import shlex

from .. import acpi, configs
from .. import machine as vm

INVALID = "Invalid argument"
NO_DEVICE = "No such device"
BUSY = "Device or resource busy"
IO_ERROR = "Input/output error"
TIMED_OUT = "timed out"
NOT_SUPPORTED = "Operation not supported"

# Slots of the machine's functions.
EDU, IGB, NVME, OTHER_IGB = "03", "04", "05", "06"

# Memory above the first megabyte, where a program's pages are; the edu device needs a wider DMA
# mask to reach it.
MEMORY_BYTES = 512 << 20
FIRST, LAST = 1 << 20, MEMORY_BYTES - 1
# A page of it that is not reserved.
HOLE, BEHIND = 0x07FF0000, 0x07FF1000
REACH = ("-global", f"edu.dma_mask={2**48 - 1}")
BEYOND = "0x40000000"
# The first virtual function of OTHER_IGB, and what lets the function have some.
VIRTUAL = "16.0"
HAS_VIRTUAL = "vfio_pci.enable_sriov=1"

# An external port, with a function behind it.
PORT = (
    "-device", "pcie-root-port,id=outside,chassis=1,slot=1,addr=07.0",
    "-device", "igb,romfile=,bus=outside",
)  # fmt: skip
PORT_PATH = ("_SB_", "PCI0", "S38_")
PLUGGED = "01:00"

# A device of two functions without isolation between them.
TWO_FUNCTIONS = (
    "-device", "edu,addr=0d.0,multifunction=on",
    "-device", "edu,addr=0d.1",
)  # fmt: skip

# A function without isolation from the disk.
BESIDE_THE_DISK = ("-global", "nvme.multifunction=on", "-device", "edu,addr=05.1")
OTHER_FUNCTION = "05.1"

# Two ports that are functions of one device, with a function behind each.
TWO_PORTS = (
    "-device", "pcie-root-port,id=one,chassis=1,slot=1,addr=07.0,multifunction=on",
    "-device", "pcie-root-port,id=two,chassis=2,slot=2,addr=07.1",
    "-device", "igb,romfile=,bus=one",
    "-device", "igb,romfile=,bus=two",
)  # fmt: skip
BEHIND_ONE, BEHIND_TWO = "01:00", "02:00"
ISOLATING = "pci=config_acs=111x1@0000:00:07.0;111x1@0000:00:07.1"

# Processors whose unit has erratum 746.
ERRATUM_746 = ("-cpu", "max,vendor=AuthenticAMD,family=21,model=19")

# EFR.HASup and EFR.HDSup; and EFR.GASup, without which the driver ignores an image.
ACCESSED = 1 << 49 | 1 << 7
FLAGS = ACCESSED | 1 << 52

# IVinfo as usual, and with EFRSup: the driver uses the images of EFR.
IMAGES_COUNT = 0x00203043

# Memory for what an earlier kernel has left: LEFT of the guest's functions.
LEFT_MEMORY = "memmap=128K$0x10000000"

ONE_TO_ONE = "Firmware has requested this device have a 1:1 IOMMU mapping"


@dataclasses.dataclass(frozen=True)
class Case:
    """A machine and the checks that run there."""

    name: str
    # The arguments of the guest's 'expect'.
    checks: tuple
    # A machine by name, with its differences.
    machine: str
    device: str | None = None
    parameters: str = ""
    module: str = ""
    tables: tuple = ()
    devices: tuple = ()
    # A pattern of what the kernel says and is no failure.
    trouble: str = ""
    # Whether its unit remaps interrupts.
    remapped: bool = False
    # Whether it runs only if the user names its machine, or wants everything.
    named: bool = False

    def make(self):
        """Return the machine and how to build it.

        Usually its unit remaps no interrupts: firmware that lies names none that could, and where
        the kernel remaps them it waits for a unit that stops, without a bound.
        """
        machine = configs.machines(self.machine)[0]
        config = dataclasses.replace(machine.config, remapped=self.remapped)
        if self.device is not None:
            config = dataclasses.replace(config, device=self.device)
        machine = dataclasses.replace(machine, config=config)
        build = vm.Build(
            memory=f"{MEMORY_BYTES >> 20}M",
            huge_pages="",
            devices=self.devices,
            tables=self.tables,
        )
        return machine, build

    def job(self):
        """Return the job that runs the checks."""
        driver, *parameters = (self.module or self.make()[0].config.module).split()
        lines = [
            ". /lib/lib.sh",
            f"MODULE={driver}",
            f"MODULE_PARAMETERS={shlex.quote(' '.join(parameters))}",
            ". /lib/driver.sh",
            ". /lib/refusals.sh",
            f"begin {len(self.checks)}",
            *(f"expect {shlex.join(check)}" for check in self.checks),
        ]
        return "\n".join(lines) + "\n"


def passes(what, *command):
    return ("pass", what, *command)


def fails(what, *command):
    return ("fail", what, *command)


LOADED = passes("it is loaded", "is_loaded")
DISK = passes("a disk works", "disk_works")
LETS_GO = passes("it lets go and leaves nothing behind", "lets_go")


def refusal(error, words, *parameters):
    """Return the checks of a driver that is not loaded."""
    return (
        passes(f"refused: {words}", "refuses", error, words, *parameters),
        passes("refused again", "refuses", error, words, *parameters),
        DISK,
    )


def migrates(slot):
    """Return the checks of a migration of memory that a function writes."""
    return (
        passes(f"vfio takes {slot}", "takes", slot),
        passes(f"{slot} writes and is tracked", "migrates", slot),
        passes(f"vfio gives {slot} back", "gives_back", slot),
    )


def no_tracking(reason):
    """Return the checks of a loaded driver that cannot track."""
    return (
        LOADED,
        passes(f"says: {reason}", "says", f"no dirty tracking: {reason}"),
        passes("vfio takes a device", "takes", IGB),
        passes("tracking is refused", "does_not_migrate", IGB, "does not track dirty pages"),
        passes("and all else works", "untracked", IGB),
        passes("vfio gives it back", "gives_back", IGB),
        DISK,
        # The driver cannot release the hardware while the disk's driver is bound.
        passes("the disk's driver goes", "rmmod", "nvme"),
        LETS_GO,
    )


def no_snoop(reason):
    """Return the checks of a unit whose walks do not snoop the caches."""
    return (
        LOADED,
        passes(f"says: {reason}", "says", f"no dirty tracking: {reason}"),
        passes("DMA is translated", "domain_is", NVME, "DMA\\(-FQ\\)\\?"),
        DISK,
        passes("and again, where it was mapped before", "disk_works"),
        passes("vfio takes a device", "takes", IGB),
        passes("no address was refused", "no_fault"),
        passes("everything but tracking works", "untracked", IGB),
        passes("vfio gives it back", "gives_back", IGB),
        passes("the disk's driver goes", "rmmod", "nvme"),
        LETS_GO,
    )


def outside():
    """Return the checks of a unit that serves two functions, and not others."""
    return (
        LOADED,
        passes("a device that no unit names has no group", "is_outside", OTHER_IGB),
        fails("vfio does not take it", "takes", OTHER_IGB),
        *migrates(IGB),
        DISK,
        passes("the disk's driver goes", "rmmod", "nvme"),
        LETS_GO,
    )


def region(first, last):
    """Return how sysfs shows memory that a function must reach untranslated."""
    return (f"0x{first:016x}", f"0x{last:016x}", "direct")


def two_reserved():
    """Return the checks of a function with two pieces of memory, and of one behind no unit."""
    pieces = (region(FIRST, HOLE - 1), region(BEHIND, LAST))
    return (
        LOADED,
        *(passes("a piece is shown", "reserves", EDU, *piece) for piece in pieces),
        *(passes("and for no other", "has_no_region", IGB, *piece) for piece in pieces),
        passes("a device reaches them", "copies", EDU),
        passes("and no address was refused", "no_fault"),
        passes("between them it is", "is_stopped_at", EDU, hex(HOLE)),
        passes("a device that no unit names has no group", "is_outside", OTHER_IGB),
        fails("vfio does not take it", "takes", OTHER_IGB),
        *migrates(IGB),
        LETS_GO,
    )


def reserved():
    """Return the checks of memory that two functions must reach untranslated."""
    whole = region(FIRST, LAST)
    return (
        LOADED,
        passes("the region is shown", "reserves", EDU, *whole),
        passes("and not for a device that has none", "has_no_region", IGB, *whole),
        passes("DMA is translated", "domain_is", EDU, "DMA\\(-FQ\\)\\?"),
        passes("a device reaches its region as it is", "copies", EDU),
        passes("and no address was refused", "no_fault"),
        passes("an address beside it is refused", "is_stopped_at", EDU, BEYOND),
        passes("vfio takes a device with a region", "takes", OTHER_IGB),
        passes("and may not attach it", "does_not_migrate", OTHER_IGB, INVALID),
        passes("the kernel says why", "kernel_says", ONE_TO_ONE),
        passes("it gets a virtual function", "gets_virtual", OTHER_IGB, "1"),
        passes("which has no such region", "has_no_region", VIRTUAL, *whole),
        passes("and loses it", "gets_virtual", OTHER_IGB, "0"),
        passes("vfio gives it back", "gives_back", OTHER_IGB),
        *migrates(IGB),
        DISK,
        passes("no access of the disk was refused", "no_fault"),
        passes("the disk's driver goes", "rmmod", "nvme"),
        LETS_GO,
    )


FREES_PORT = passes("the port's driver goes", "frees_port_of", PLUGGED)


def untrusted(*use):
    """Return the checks of a function behind an external port."""
    return (
        LOADED,
        passes("a device inside is passed through", "domain_is", IGB, "identity"),
        passes("one that was plugged in is translated, strictly", "domain_is", PLUGGED, "DMA"),
        fails("it cannot be passed through", "domain_becomes", PLUGGED, "identity"),
        *use,
        passes("it stays translated", "domain_is", PLUGGED, "DMA"),
        # It is in the same group.
        FREES_PORT,
        LETS_GO,
    )


def left_on(unit, words):
    """Return the checks of a unit that an earlier kernel has left on."""
    return (
        passes("an earlier kernel has left it on", f"leaves_{unit}_on"),
        LOADED,
        passes(f"says: {words}", "says", words),
        *migrates(IGB),
        DISK,
        passes("no address was refused", "no_fault"),
        passes("the disk's driver goes", "rmmod", "nvme"),
        LETS_GO,
        passes("what was left on stays off", f"is_{unit}_off"),
        passes("the driver loads again", "is_loaded"),
        LETS_GO,
    )


def late_load():
    """Return the checks of a driver that is loaded when a device already has its own."""
    return (
        passes("a disk works before the driver is loaded", "disk_works"),
        LOADED,
        passes(
            "says that the group has two functions",
            "says",
            "2 functions, 0000:00:05.0, 0000:00:05.1, can only be given away together; the "
            "hardware does not isolate them",
        ),
        passes("vfio takes the other function of its group", "takes", OTHER_FUNCTION),
        passes(
            "and cannot claim the group",
            "does_not_migrate",
            OTHER_FUNCTION,
            "Operation not permitted",
        ),
        DISK,
        passes("vfio gives it back", "gives_back", OTHER_FUNCTION),
        LETS_GO,
        DISK,
        passes("the driver loads again", "is_loaded"),
        passes("the disk's driver goes", "rmmod", "nvme"),
        passes("vfio takes the other function again", "takes", OTHER_FUNCTION),
        passes("now it can claim the group", "migrates", OTHER_FUNCTION),
        passes("vfio gives it back again", "gives_back", OTHER_FUNCTION),
        DISK,
        passes("the disk's driver goes again", "rmmod", "nvme"),
        LETS_GO,
    )


def acs_off():
    """Return the checks of two functions behind ports that could isolate them."""
    return (
        LOADED,
        passes("they are in one group", "share_group", BEHIND_ONE, BEHIND_TWO),
        passes("says how to boot", "says", f"boot with {ISOLATING}"),
        LETS_GO,
    )


def acs_on():
    """Return the checks of the same functions on a kernel that was booted that way."""
    return (
        LOADED,
        fails("they are not in one group", "share_group", BEHIND_ONE, BEHIND_TWO),
        fails("and nothing is said about them", "says", "01:00.0"),
        LETS_GO,
    )


def odd():
    """Return the checks of firmware that is odd but usable."""
    return (
        LOADED,
        passes(
            "a region that ends before it begins is left out",
            "says",
            "the DMAR table has reserved memory that ends before it begins",
        ),
        passes(
            "an ACPI device is passed through",
            "says",
            "dmar0: passes the ACPI device 0000:00:1e.3 through",
        ),
        *migrates(IGB),
        DISK,
        passes("the disk's driver goes", "rmmod", "nvme"),
        LETS_GO,
    )


def needs_cache():
    """Return the checks of a device that does not work without its translation cache."""
    return (
        LOADED,
        passes("it is passed through", "domain_is", IGB, "identity"),
        passes("vfio takes it", "takes", IGB),
        passes("it gets no tables", "does_not_migrate", IGB, ""),
        passes("the driver says why", "says", "needs its translation cache (SATC)"),
        passes("vfio gives it back", "gives_back", IGB),
        *migrates(OTHER_IGB),
        LETS_GO,
    )


def no_pass():
    """Return the checks of a unit without pass-through, on a kernel that asks for it."""
    return (
        LOADED,
        passes("DMA is translated all the same", "domain_is", IGB, "DMA\\(-FQ\\)\\?"),
        fails("and cannot be passed through", "domain_becomes", IGB, "identity"),
        *migrates(IGB),
        DISK,
        passes("no address was refused", "no_fault"),
        passes("the disk's driver goes", "rmmod", "nvme"),
        LETS_GO,
    )


def beside(other, error, words):
    """Return the checks of a second driver on a machine that already has one."""
    return (
        LOADED,
        passes(f"{other}: {words}", "refuses_beside", other, error, words),
        passes("refused again", "refuses_beside", other, error, words),
        *migrates(IGB),
        LETS_GO,
    )


def lie(name, machine, error, words, *tables, named=False):
    return Case(name, refusal(error, words), machine, tables=tables, named=named)


SLOTS = {slot: acpi.bdf(int(slot, 16)) for slot in (EDU, IGB, NVME, OTHER_IGB)}
PAST = "is shorter than its header or leads past the end"
