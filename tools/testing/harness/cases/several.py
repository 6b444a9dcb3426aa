# SPDX-License-Identifier: GPL-2.0
"""Several units: machines in which a second unit serves the devices behind a port."""

from .. import acpi, configs
from .case import (
    DISK,
    FREES_PORT,
    IGB,
    LETS_GO,
    LOADED,
    OTHER_IGB,
    Case,
    fails,
    migrates,
    passes,
)
from .dead import ADVICE

# The port, which comes before the other bridges, and the function behind it.
PORT = 0x08
UNDER = "01:00"

# Why a device's interrupts are not remapped, and what iommufd says of such a device.
TIMER = "an I/O APIC, a timer or an ACPI device has its requester ID"
NOT_PERMITTED = "Operation not permitted"

# Address of the second unit's registers, and its function, which takes a free slot.
BASE = {configs.VTD: 0xFED91000, configs.AMDVI: 0xFED84000}
SECOND_FUNCTION = acpi.bdf(2)


def devices(config):
    """Return QEMU's arguments for the port, its unit and the function behind it."""
    unit = f"{config.qemu_device()},under=port0,base={BASE[config.unit]:#x}"
    return (
        "-device", f"pcie-root-port,id=port0,chassis=3,slot=3,addr={PORT:02x}.0",
        "-device", unit,
        "-device", "igb,romfile=,bus=port0",
    )  # fmt: skip


def table(unit, elsewhere=()):
    """Return the firmware table that names both units. On AMD-Vi the entries `elsewhere` name the
    I/O APIC, and more, by the second unit.
    """
    if unit == configs.VTD:
        behind = acpi.scope(acpi.bdf(PORT), acpi.BRIDGE)
        io_apic = acpi.scope(acpi.VTD_IO_APIC, acpi.IO_APIC_SCOPE)
        return acpi.dmar(
            acpi.drhd(BASE[unit], behind, include_all=False),
            acpi.drhd(acpi.VTD_BASE, io_apic),
            flags=acpi.INTR_REMAP,
        )
    root, behind = (acpi.ivhd_range(bus << 8, bus << 8 | 0xFF) for bus in (0, 1))
    named = () if elsewhere else (acpi.ivhd_io_apic(),)
    return acpi.ivrs(
        acpi.ivhd(root, *named),
        acpi.ivhd(behind, *elsewhere, function=SECOND_FUNCTION, base=BASE[unit]),
    )


def named_elsewhere(machine):
    """Return the case of an I/O APIC and a timer behind one unit that firmware names by the other.

    The requester ID that it gives the timer is that of a function.
    """
    elsewhere = (acpi.ivhd_io_apic(), acpi.ivhd_timer(acpi.bdf(int(OTHER_IGB, 16))))
    return Case(
        "named-elsewhere",
        (
            LOADED,
            passes("there are two units", "units_are", "2"),
            passes("vfio takes a device", "takes", IGB),
            passes("it forges no interrupt", "forges_nothing", IGB),
            passes("vfio gives it back", "gives_back", IGB),
            *migrates(IGB),
            passes("vfio takes one with the requester ID of a timer", "takes", OTHER_IGB),
            passes("its interrupts are not remapped, and it is said why", "kernel_says", TIMER),
            passes("so it may not be used", "does_not_migrate", OTHER_IGB, NOT_PERMITTED),
            passes("vfio gives it back", "gives_back", OTHER_IGB),
            DISK,
            passes("the disk's driver goes", "rmmod", "nvme"),
            FREES_PORT,
            LETS_GO,
        ),
        machine,
        remapped=True,
        tables=(table(configs.AMDVI, elsewhere),),
        devices=devices(configs.machines(machine)[0].config),
    )


def cases(machine):
    """Return the cases of a machine."""
    config = configs.machines(machine)[0].config
    build = {"tables": (table(config.unit),), "devices": devices(config)}
    two = passes("there are two units", "units_are", "2")
    both_work = (
        LOADED,
        two,
        *migrates(IGB),
        *migrates(UNDER),
        passes("vfio takes a device of one", "takes", IGB),
        passes("and one of the other", "takes", UNDER),
        passes("both write, in one page table", "shares", IGB, UNDER),
        passes("the other first", "shares", UNDER, IGB),
        passes("no address was refused", "no_fault"),
        passes("vfio gives one back", "gives_back", IGB),
        passes("and the other", "gives_back", UNDER),
    )
    isolated = (
        *both_work,
        passes("vfio takes a device of one again", "takes", IGB),
        passes("it forges no interrupt", "forges_nothing", IGB),
        passes("vfio takes one of the other again", "takes", UNDER),
        passes("nor does it", "forges_nothing", UNDER),
        passes("vfio gives one back again", "gives_back", IGB),
        passes("and the other again", "gives_back", UNDER),
        FREES_PORT,
        LETS_GO,
    )
    return (
        Case("two-units", (*both_work, LETS_GO), machine, **build),
        # On VT-d the kernel shares both units.
        Case("two-units-remapped", isolated, machine, remapped=True, **build),
        Case(
            "one-of-two-dies",
            (
                LOADED,
                two,
                passes("a function of the other unit is enabled", "enables", UNDER),
                passes("so its port passes requests on", "masters", f"{PORT:02x}"),
                passes("it may make requests", "becomes_master", UNDER),
                passes("vfio takes a device", "takes", IGB),
                passes("and another one", "takes", OTHER_IGB),
                passes("their unit dies", "dies", "by_unmap", IGB, OTHER_IGB),
                passes("one message says what to do", "says_once", ADVICE),
                passes("the other unit's function may make requests still", "masters", UNDER),
                passes("and its port passes them on", "masters", f"{PORT:02x}"),
                *migrates(UNDER),
                passes("vfio gives the device back", "gives_back", IGB),
                passes("and the other one", "gives_back", OTHER_IGB),
                fails("no device of that unit gets tables again", "migrates_again", IGB),
            ),
            machine,
            **build,
        ),
    )


def groups():
    """Return the cases by machine."""
    vtd, amdvi = "vtd-ss/pt", "amd-v1/pt"
    return ((vtd, cases(vtd)), (amdvi, (*cases(amdvi), named_elsewhere(amdvi))))
