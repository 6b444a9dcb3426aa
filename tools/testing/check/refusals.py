# SPDX-License-Identifier: GPL-2.0
"""What the drivers refuse, in words and in whole, and odd firmware that they take.

Each case is a machine that boots in seconds: with other properties of the emulated
unit, with another driver in the kernel, or with firmware tables that lie.  A refusal
has an error number and a reason, leaves nothing behind, is the same the second time,
and devices work as if nobody had tried.
"""

import dataclasses
import pathlib
import shlex
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "vm"))

# pylint: disable=wrong-import-position
import acpi  # noqa: E402
import configs  # noqa: E402
import machine as vm  # noqa: E402

INVALID = "Invalid argument"
NO_DEVICE = "No such device"
BUSY = "Device or resource busy"
NOT_SUPPORTED = "Operation not supported"

# Slots of the machine's functions.
EDU, IGB, NVME, OTHER_IGB = "03", "04", "05", "06"

# Memory above the first megabyte, where a program's pages are; the edu device has to
# be told that it reaches so far.
MEMORY_BYTES = 512 << 20
FIRST, LAST = 1 << 20, MEMORY_BYTES - 1
REACH = ("-global", f"edu.dma_mask={2**48 - 1}")
BEYOND = "0x40000000"

# A port that people can plug things into, with a function behind it.
PORT = (
    "-device", "pcie-root-port,id=outside,chassis=1,slot=1,addr=07.0",
    "-device", "igb,romfile=,bus=outside",
)  # fmt: skip
PORT_PATH = ("_SB_", "PCI0", "S38_")
PLUGGED = "01:00"

# A device of two functions, which nothing keeps apart.
TWO_FUNCTIONS = (
    "-device", "edu,addr=0a.0,multifunction=on",
    "-device", "edu,addr=0a.1",
)  # fmt: skip

# A function with the IDs of graphics that fail while AMD's unit is on.
STONEY_RIDGE = ("-device", "ati-vga,addr=0a.0,x-device-id=0x98e4")

# Processors whose unit has erratum 746.
ERRATUM_746 = ("-cpu", "max,vendor=AuthenticAMD,family=21,model=19")

ONE_TO_ONE = "Firmware has requested this device have a 1:1 IOMMU mapping"


@dataclasses.dataclass(frozen=True)
class Case:
    """A machine and what is looked at there."""

    name: str
    # What follows 'expect' in the words of the guest.
    checks: tuple
    # A machine by name, with what is different there.
    machine: str
    device: str | None = None
    parameters: str = ""
    module: str = ""
    tables: tuple = ()
    devices: tuple = ()

    def make(self):
        """Return the machine and how it is built."""
        machine = configs.machines(self.machine)[0]
        if self.device is not None:
            config = dataclasses.replace(machine.config, device=self.device)
            machine = dataclasses.replace(machine, config=config)
        build = vm.Build(
            memory=f"{MEMORY_BYTES >> 20}M",
            huge_pages=False,
            devices=self.devices,
            tables=self.tables,
        )
        return machine, build

    def job(self):
        """Return the job that does the checks."""
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
    """Return the checks of a function with which a memory is migrated."""
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
        passes("vfio gives it back", "gives_back", IGB),
        DISK,
        # The disk's driver is in the way of letting go as long as it is there.
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


def reserved():
    """Return the checks of memory that two functions must reach as it is."""
    region = (f"0x{FIRST:016x}", f"0x{LAST:016x}", "direct")
    return (
        LOADED,
        passes("the region is shown", "reserves", EDU, *region),
        passes("and not for a device that has none", "has_no_region", IGB, *region),
        passes("DMA is translated", "domain_is", EDU, "DMA\\(-FQ\\)\\?"),
        passes("a device reaches its region as it is", "copies", EDU),
        passes("and no address was refused", "no_fault"),
        passes("an address beside it is refused", "is_stopped_at", EDU, BEYOND),
        passes("vfio takes a device with a region", "takes", OTHER_IGB),
        passes("and may not attach it", "does_not_migrate", OTHER_IGB, INVALID),
        passes("the kernel says why", "kernel_says", ONE_TO_ONE),
        passes("vfio gives it back", "gives_back", OTHER_IGB),
        *migrates(IGB),
        DISK,
        passes("no access of the disk was refused", "no_fault"),
        passes("the disk's driver goes", "rmmod", "nvme"),
        LETS_GO,
    )


def untrusted(*use):
    """Return the checks of a function behind a port that people can plug things into."""
    return (
        LOADED,
        passes("a device inside is passed through", "domain_is", IGB, "identity"),
        passes("one that was plugged in is translated, strictly", "domain_is", PLUGGED, "DMA"),
        fails("it cannot be passed through", "domain_becomes", PLUGGED, "identity"),
        *use,
        passes("it stays translated", "domain_is", PLUGGED, "DMA"),
        LETS_GO,
    )


def odd():
    """Return the checks of firmware that is odd, and none the worse for it."""
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


def beside(other, error, words):
    """Return the checks of a second driver for a machine that is driven."""
    return (
        LOADED,
        passes(f"{other}: {words}", "refuses_beside", other, error, words),
        passes("refused again", "refuses_beside", other, error, words),
        *migrates(IGB),
        LETS_GO,
    )


def lie(name, machine, error, words, *tables):
    return Case(name, refusal(error, words), machine, tables=tables)


SLOTS = {slot: acpi.bdf(int(slot, 16)) for slot in (EDU, IGB, NVME, OTHER_IGB)}
PAST = "is shorter than its header or leads past the end"


def vtd_cases():
    """Return the cases of rust_vtd."""
    there, nopt = "vtd-ss/pt", "vtd-ss/nopt"
    record = f"the DMAR table is not usable: at offset 64: the record's length {PAST}"
    unknown = acpi.dmar_record(0x7777, b"\xaa" * 12)

    def scopes(*slots):
        return [acpi.scope(SLOTS[slot]) for slot in slots]

    def second(name, words, base):
        """Return the case of a second unit that is not there, and serves nothing."""
        drhd = acpi.drhd(base, acpi.scope(acpi.bdf(0x1E)), include_all=False)
        return lie(name, there, NO_DEVICE, words, acpi.dmar(acpi.drhd(), drhd))

    return (
        Case(
            "no-scalable-mode",
            refusal(NO_DEVICE, "dmar0: the unit has no scalable mode (ECAP.SMTS)"),
            there,
            device="x-scalable-mode=off",
        ),
        Case(
            "no-flags",
            (
                passes(
                    "a stage that is not there is refused",
                    "refuses",
                    NOT_SUPPORTED,
                    "dmar0: does not offer the first stage; load the module without stage=",
                    "stage=1",
                ),
                *no_tracking("second-stage tables have no dirty flags (ECAP.SSADS)"),
            ),
            there,
            device="x-scalable-mode=on",
        ),
        Case(
            "incoherent",
            no_tracking("page walks are not coherent (ECAP.SMPWC)"),
            there,
            device="x-scalable-mode=on,x-flts=on",
        ),
        Case(
            "c-driver",
            (
                *refusal(
                    BUSY,
                    "dmar0: its registers belong to another driver; boot with intel_iommu=off "
                    "intremap=off",
                ),
                *migrates(IGB),
            ),
            "vtd-ss-c/pt",
            module="rust_vtd",
        ),
        Case(
            "second-driver",
            beside(
                "rust_amdvi",
                NO_DEVICE,
                "ivhd0: its PCI function has no capability of such units at 0x40",
            ),
            there,
            tables=(acpi.ivrs(acpi.ivhd(acpi.ivhd_all(), function=SLOTS[EDU], base=acpi.VTD_BASE)),),
        ),
        lie(
            "short-table",
            there,
            INVALID,
            "the DMAR table is not usable: at offset 0: the table is shorter than its fixed part",
            acpi.table(b"DMAR", bytes([38, 0, 0, 0])),
        ),
        # A record of no length at all makes Linux 7.3.4 look for its end for ever
        # (dmar_acpi_dev_scope_init), so this one is only shorter than its header.
        lie(
            "short-record",
            there,
            INVALID,
            record,
            acpi.dmar(acpi.drhd(), b"\x77\x77\x03\0", b"\x77\x05\0\0"),
        ),
        lie("past-the-end", there, INVALID, record, acpi.dmar(acpi.drhd(), acpi.drhd()[:-4])),
        lie(
            "same-registers",
            there,
            INVALID,
            "at offset 72: two DRHD records name the same registers",
            acpi.dmar(acpi.drhd(acpi.VTD_BASE, *scopes(IGB), include_all=False), acpi.drhd()),
        ),
        # The first unit is left as it was, though nothing is wrong with it.
        second("zeros", "dmar1: the unit has no queued invalidation (ECAP.QI)", acpi.NO_REGISTERS),
        second("ones", f"dmar1: there is no unit at {acpi.ONES:#x}", acpi.ONES),
        lie("no-unit", there, NO_DEVICE, "the DMAR table names no remapping unit", acpi.dmar(unknown)),
        lie(
            "opt-out",
            there,
            NO_DEVICE,
            "firmware forces DMA remapping off: turn VT-d on in the firmware's set-up",
            acpi.dmar(acpi.drhd(), flags=acpi.REMAP_OPT_OUT),
        ),
        Case(
            "odd-firmware",
            odd(),
            there,
            tables=(
                acpi.dmar(
                    acpi.drhd(acpi.VTD_BASE, acpi.scope(acpi.bdf(0x1E, 3), acpi.NAMESPACE)),
                    acpi.rmrr(LAST, FIRST, *scopes(EDU)),
                    acpi.rhsa(acpi.VTD_BASE, 0),
                    flags=acpi.X2APIC_OPT_OUT,
                ),
            ),
        ),
        Case(
            "needs-cache",
            needs_cache(),
            there,
            tables=(acpi.dmar(acpi.drhd(), acpi.satc(*scopes(IGB))),),
        ),
        Case(
            "outside",
            outside(),
            there,
            tables=(acpi.dmar(unknown, acpi.drhd(acpi.VTD_BASE, *scopes(IGB, NVME), include_all=False)),),
        ),
        Case(
            "reserved",
            reserved(),
            nopt,
            tables=(acpi.dmar(acpi.drhd(), acpi.rmrr(FIRST, LAST, *scopes(EDU, OTHER_IGB)), unknown),),
            devices=REACH,
        ),
        Case(
            "untrusted",
            untrusted(*migrates(PLUGGED)),
            there,
            module="rust_vtd default_domain=0",
            tables=(acpi.external_facing_port(PORT_PATH),),
            devices=PORT,
        ),
    )


def amdvi_cases():
    """Return the cases of rust_amdvi."""
    there, nopt = "amd-v1/pt", "amd-v1/nopt"
    size = len(acpi.ivhd(acpi.ivhd_all()))
    block = f"the IVRS table is not usable: at offset {48 + size}: the block's length {PAST}"

    def unit(*slots, **fields):
        entries = [acpi.ivhd_one(SLOTS[slot]) for slot in slots] or [acpi.ivhd_all()]
        return acpi.ivhd(*entries, **fields)

    return (
        Case(
            "no-flags",
            (
                passes(
                    "tables that are not walked are refused",
                    "refuses",
                    NOT_SUPPORTED,
                    "ivhd0: does not walk guest (v2) tables; load the module without tables=",
                    "tables=2",
                ),
                *no_tracking("host tables have no accessed flags (EFR.HASup)"),
            ),
            there,
            device="hd=off",
        ),
        Case(
            # Not refused, but told of what it may have cached as absent. It has not, so no
            # invalidation that was missing would be noticed: what runs is the code for it.
            "np-cache",
            (LOADED, *migrates(IGB), DISK, passes("no access was refused", "no_fault")),
            nopt,
            device="hd=on",
        ),
        Case(
            "c-driver",
            (
                *refusal(
                    BUSY,
                    "ivhd0: its registers belong to another driver; boot with amd_iommu=off",
                ),
                *migrates(IGB),
            ),
            "amd-v1-c/pt",
            module="rust_amdvi",
        ),
        Case(
            "second-driver",
            beside(
                "rust_vtd",
                BUSY,
                "dmar0: its registers belong to another driver; boot with intel_iommu=off "
                "intremap=off",
            ),
            there,
            parameters="intel_iommu=off",
            tables=(acpi.dmar(acpi.drhd(acpi.AMDVI_BASE)),),
        ),
        lie(
            "short-table",
            there,
            INVALID,
            "the IVRS table is not usable: at offset 0: the table is shorter than its fixed part",
            acpi.table(b"IVRS", bytes(4)),
        ),
        lie("no-length", there, INVALID, block, acpi.ivrs(unit(), bytes(4))),
        lie("past-the-end", there, INVALID, block, acpi.ivrs(unit(), unit(function=0x10)[:-4])),
        lie(
            "cut-entry",
            there,
            INVALID,
            "the IVRS table is not usable: at offset 48: a device entry leads past its block",
            acpi.ivrs(unit(length=size - 2)[:-2]),
        ),
        lie(
            "same-registers",
            there,
            INVALID,
            "two units have the same registers",
            acpi.ivrs(unit(IGB), unit(EDU, function=0x10)),
        ),
        lie(
            "no-function",
            there,
            NO_DEVICE,
            "ivhd1: there is no PCI function 0000:00f0",
            # Serves nothing that is there.
            acpi.ivrs(
                unit(),
                acpi.ivhd(
                    acpi.ivhd_one(0x00E0),
                    function=0x00F0,
                    base=acpi.NO_REGISTERS,
                ),
            ),
        ),
        lie(
            "zeros",
            there,
            INVALID,
            "ivhd0: does not switch translation on",
            acpi.ivrs(unit(base=acpi.NO_REGISTERS)),
        ),
        lie(
            "ones",
            there,
            NO_DEVICE,
            f"ivhd0: there is no unit at {acpi.ONES:#x}",
            acpi.ivrs(unit(base=acpi.ONES)),
        ),
        lie(
            "no-unit",
            there,
            NO_DEVICE,
            "the IVRS table names no remapping unit",
            acpi.ivrs(acpi.ivrs_unknown()),
        ),
        Case(
            "outside",
            outside(),
            there,
            tables=(
                acpi.ivrs(
                    acpi.ivrs_unknown(),
                    acpi.ivhd(
                        acpi.ivhd_one(SLOTS[IGB]),
                        acpi.ivhd_one(SLOTS[NVME]),
                        # Else the serial ports have no interrupts.
                        acpi.ivhd_io_apic(),
                    ),
                ),
            ),
        ),
        Case(
            # Firmware says that the requests of one function carry the ID of another.
            "alias",
            (
                LOADED,
                passes("functions with one requester ID are in one group", "share_group", IGB, EDU),
                fails("others are not", "share_group", IGB, OTHER_IGB),
                *migrates(IGB),
                DISK,
                passes("the disk's driver goes", "rmmod", "nvme"),
                LETS_GO,
            ),
            there,
            tables=(
                acpi.ivrs(
                    acpi.ivhd(acpi.ivhd_all(), acpi.ivhd_alias(SLOTS[IGB], SLOTS[EDU])),
                ),
            ),
        ),
        Case(
            # The function whose ID it is cannot be told from another, which is in a group.
            "two-groups",
            (
                *refusal(INVALID, "the IOMMU core refuses the units: EINVAL"),
                passes("the kernel says why", "kernel_says", "device in another IOMMU group"),
            ),
            there,
            tables=(
                acpi.ivrs(
                    acpi.ivhd(
                        acpi.ivhd_all(),
                        acpi.ivhd_alias(SLOTS[EDU], acpi.bdf(0x0A, 1)),
                    ),
                ),
            ),
            devices=TWO_FUNCTIONS,
        ),
        Case(
            "stoney-ridge",
            refusal(NO_DEVICE, "the graphics of Stoney Ridge fail while its unit is on"),
            there,
            devices=STONEY_RIDGE,
        ),
        Case(
            "erratum-746",
            refusal(NO_DEVICE, "may stall when they log an event (erratum 746)"),
            there,
            devices=ERRATUM_746,
        ),
        Case(
            "reserved",
            reserved(),
            nopt,
            tables=(
                acpi.ivrs(
                    unit(),
                    *(
                        acpi.ivmd(SLOTS[slot], FIRST, LAST + 1 - FIRST)
                        for slot in (EDU, OTHER_IGB)
                    ),
                ),
            ),
            devices=REACH,
        ),
        Case(
            "untrusted",
            # QEMU takes the bus behind a port for bus 0 here: DMA finds no entry of its own.
            untrusted(),
            there,
            module="rust_amdvi default_domain=0",
            tables=(acpi.external_facing_port(PORT_PATH),),
            devices=PORT,
        ),
    )
