# SPDX-License-Identifier: GPL-2.0
"""What rust_amdvi refuses, with which message, and odd firmware that it accepts.

A refusal has an error number and a reason, and leaves nothing behind. A second attempt
gives the same refusal, and devices work as before.
"""

from .. import acpi
from .case import (
    ACCESSED,
    BEHIND,
    BESIDE_THE_DISK,
    BUSY,
    Case,
    DISK,
    EDU,
    ERRATUM_746,
    FIRST,
    FLAGS,
    HAS_VIRTUAL,
    HOLE,
    IGB,
    IMAGES_COUNT,
    INVALID,
    IO_ERROR,
    LAST,
    LEFT_MEMORY,
    LETS_GO,
    LOADED,
    NOT_SUPPORTED,
    NO_DEVICE,
    NVME,
    OTHER_IGB,
    PAST,
    PLUGGED,
    PORT,
    PORT_PATH,
    REACH,
    SLOTS,
    TWO_FUNCTIONS,
    beside,
    fails,
    late_load,
    left_on,
    lie,
    migrates,
    no_tracking,
    outside,
    passes,
    refusal,
    reserved,
    two_reserved,
    untrusted,
)


def cases():
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
        # Two blocks about one unit: the driver ignores both, because IVinfo lacks EFRSup.
        Case(
            "flags-disagree",
            (LOADED, *migrates(IGB), LETS_GO),
            there,
            tables=(acpi.ivrs(unit(kind=0x10, features=0), unit(features=0)),),
        ),
        Case(
            "flags-overstated",
            no_tracking("host tables have no accessed flags (EFR.HASup)"),
            there,
            device="hd=off",
            tables=(acpi.ivrs(unit(kind=0x10), unit(features=FLAGS), info=IMAGES_COUNT),),
        ),
        Case(
            "flags-withheld",
            (
                *no_tracking("host tables have no dirty flags (EFR.HDSup)"),
                passes("says why", "says", "ivhd0: firmware (IVRS) withholds some of its features"),
            ),
            there,
            tables=(acpi.ivrs(unit(features=ACCESSED), info=IMAGES_COUNT),),
        ),
        Case(
            # Not refused: the driver invalidates entries that the unit may have cached as
            # absent. This unit caches none, so a missing invalidation would not be
            # detected; the case only runs the code.
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
            "left-on",
            left_on(
                "amdvi",
                "ivhd0: stopped translation, left on by an earlier kernel or by firmware",
            ),
            there,
            parameters=LEFT_MEMORY,
        ),
        Case(
            "second-driver",
            beside(
                "rust_vtd",
                BUSY,
                "dmar0: its registers belong to another driver; boot with intel_iommu=off",
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
        # What the parser refuses has tests without a machine.
        lie(
            "past-the-end",
            there,
            INVALID,
            block,
            acpi.ivrs(unit(), unit(function=0x10)[:-4]),
            named=True,
        ),
        lie(
            "cut-entry",
            there,
            INVALID,
            "the IVRS table is not usable: at offset 48: a device entry leads past its block",
            acpi.ivrs(unit(length=size - 2)[:-2]),
            named=True,
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
            # Serves no existing device.
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
            IO_ERROR,
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
                        # Otherwise the serial ports have no interrupts.
                        acpi.ivhd_io_apic(),
                    ),
                ),
            ),
        ),
        Case(
            # Firmware says that the requests of one function carry another function's ID.
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
            # The owner of the ID cannot be isolated from another function: it already is
            # in that function's group.
            "two-groups",
            (
                *refusal(INVALID, "the IOMMU core refuses the units"),
                passes("the kernel says why", "kernel_says", "device in another IOMMU group"),
            ),
            there,
            tables=(
                acpi.ivrs(
                    acpi.ivhd(
                        acpi.ivhd_all(),
                        acpi.ivhd_alias(SLOTS[EDU], acpi.bdf(0x0D, 1)),
                    ),
                ),
            ),
            devices=TWO_FUNCTIONS,
        ),
        Case(
            # The emulated registers are plain memory in which the bit is not set.
            "erratum-746",
            (
                LOADED,
                passes("it was mended", "says", "ivhd0: applied the workaround for erratum 746"),
                *migrates(IGB),
                DISK,
                passes("the disk's driver goes", "rmmod", "nvme"),
                LETS_GO,
            ),
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
            parameters=HAS_VIRTUAL,
        ),
        Case(
            "two-reserved",
            two_reserved(),
            nopt,
            tables=(
                acpi.ivrs(
                    acpi.ivhd(
                        acpi.ivhd_one(SLOTS[EDU]),
                        acpi.ivhd_one(SLOTS[IGB]),
                        acpi.ivhd_io_apic(),
                    ),
                    acpi.ivmd(SLOTS[EDU], FIRST, HOLE - FIRST),
                    acpi.ivmd(SLOTS[EDU], BEHIND, LAST + 1 - BEHIND),
                    acpi.ivmd(SLOTS[OTHER_IGB], FIRST, HOLE - FIRST),
                ),
            ),
            devices=REACH,
        ),
        Case(
            "untrusted",
            untrusted(*migrates(PLUGGED)),
            there,
            module="rust_amdvi default_domain=0",
            tables=(acpi.external_facing_port(PORT_PATH),),
            devices=PORT,
        ),
        Case("late-load", late_load(), there, devices=BESIDE_THE_DISK),
    )
