# SPDX-License-Identifier: GPL-2.0
"""What rust_vtd refuses, with which message, and odd firmware that it accepts.

A refusal has an error number and a reason, and leaves nothing behind. A second attempt
gives the same refusal, and devices work as before.
"""

from .. import acpi
from .case import (
    BEHIND,
    BESIDE_THE_DISK,
    BUSY,
    Case,
    DISK,
    EDU,
    FIRST,
    HAS_VIRTUAL,
    HOLE,
    IGB,
    INVALID,
    ISOLATING,
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
    TIMED_OUT,
    TWO_PORTS,
    acs_off,
    acs_on,
    beside,
    late_load,
    left_on,
    lie,
    migrates,
    needs_cache,
    no_pass,
    no_snoop,
    no_tracking,
    odd,
    outside,
    passes,
    refusal,
    reserved,
    two_reserved,
    untrusted,
)


def cases():
    """Return the cases of rust_vtd."""
    there, nopt = "vtd-ss/pt", "vtd-ss/nopt"
    record = f"the DMAR table is not usable: at offset 64: the record's length {PAST}"
    unknown = acpi.dmar_record(0x7777, b"\xaa" * 12)

    def scopes(*slots):
        return [acpi.scope(SLOTS[slot]) for slot in slots]

    def second(name, words, base):
        """Return the case of a second unit that does not exist and serves nothing."""
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
        # SNP in leaves, and PGSNP in PASID entries, are reserved where a unit lacks them.
        *(
            Case(
                f"snoop-{stage}",
                (
                    LOADED,
                    *migrates(IGB),
                    DISK,
                    passes("the disk's driver goes", "rmmod", "nvme"),
                    LETS_GO,
                ),
                there,
                device=f"x-scalable-mode=on,{flags},snoop-control=on",
            )
            for stage, flags in (("second", "ssads=on"), ("first", "x-flts=on,coherent=on"))
        ),
        # The unit would set flags in memory, while a CPU may hold the line in its cache.
        Case(
            "incoherent-flags",
            no_tracking("page walks are not coherent (ECAP.SMPWC)"),
            there,
            device="x-scalable-mode=on,ssads=on,coherent=off",
        ),
        # The unit reads only what CPUs have written back.
        *(
            Case(
                f"no-snoop-{stage}",
                no_snoop("page walks are not coherent (ECAP.SMPWC)"),
                nopt,
                device=f"x-scalable-mode=on,{flags},walk-snoop=off",
            )
            for stage, flags in (("second", "ssads=on"), ("first", "x-flts=on"))
        ),
        Case(
            "c-driver",
            (
                *refusal(
                    BUSY,
                    "dmar0: its registers belong to another driver; boot with intel_iommu=off",
                ),
                *migrates(IGB),
            ),
            "vtd-ss-c/pt",
            module="rust_vtd",
        ),
        Case(
            "left-on",
            left_on(
                "vtd",
                "dmar0: stopped translation and the invalidation queue, left on by an earlier "
                "kernel or by firmware",
            ),
            there,
            parameters=LEFT_MEMORY,
        ),
        # The emulated unit does not switch off a queue that is not empty.
        Case(
            "left-stuck",
            (
                passes("an earlier kernel has left a full queue", "leaves_vtd_on", "0x20"),
                passes(
                    "refused, since it does not stop",
                    "refuses",
                    TIMED_OUT,
                    "dmar0: the invalidation queue was left on by an earlier kernel or by "
                    "firmware, and does not stop",
                ),
                DISK,
            ),
            there,
            parameters=LEFT_MEMORY,
        ),
        Case(
            "second-driver",
            beside(
                "rust_amdvi",
                NO_DEVICE,
                "ivhd0: its PCI function has no capability of such units at 0x40",
            ),
            there,
            tables=(
                acpi.ivrs(
                    acpi.ivhd(acpi.ivhd_all(), function=SLOTS[EDU], base=acpi.VTD_BASE),
                ),
            ),
        ),
        lie(
            "short-table",
            there,
            INVALID,
            "the DMAR table is not usable: at offset 0: the table is shorter than its fixed part",
            acpi.table(b"DMAR", bytes([38, 0, 0, 0])),
        ),
        # A record of length 0 makes Linux 7.3.4 loop for ever (dmar_acpi_dev_scope_init),
        # so this one is only shorter than its header.
        lie(
            "short-record",
            there,
            INVALID,
            record,
            acpi.dmar(acpi.drhd(), b"\x77\x77\x03\0", b"\x77\x05\0\0"),
            # What the parser refuses has tests without a machine.
            named=True,
        ),
        lie(
            "past-the-end",
            there,
            INVALID,
            record,
            acpi.dmar(acpi.drhd(), acpi.drhd()[:-4]),
            named=True,
        ),
        lie(
            "same-registers",
            there,
            INVALID,
            "at offset 72: two DRHD records name the same registers",
            acpi.dmar(acpi.drhd(acpi.VTD_BASE, *scopes(IGB), include_all=False), acpi.drhd()),
        ),
        # The driver does not take the first unit either, although it is valid.
        second("zeros", "dmar1: the unit has no queued invalidation (ECAP.QI)", acpi.NO_REGISTERS),
        second("ones", f"dmar1: there is no unit at {acpi.ONES:#x}", acpi.ONES),
        lie(
            "no-unit",
            there,
            NO_DEVICE,
            "the DMAR table names no remapping unit",
            acpi.dmar(unknown),
        ),
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
            "needs-cache-no-pass",
            refusal(
                NOT_SUPPORTED,
                "dmar0: serves the device 0000:00:04.0, which needs its translation cache (SATC), "
                "and cannot pass it through (ECAP.PT); this driver cannot drive it",
            ),
            there,
            device="x-scalable-mode=on,ssads=on,pt=off",
            tables=(acpi.dmar(acpi.drhd(), acpi.satc(*scopes(IGB))),),
        ),
        Case(
            "no-pass",
            no_pass(),
            there,
            device="x-scalable-mode=on,ssads=on,pt=off",
        ),
        Case(
            "outside",
            outside(),
            there,
            tables=(
                acpi.dmar(
                    unknown,
                    acpi.drhd(acpi.VTD_BASE, *scopes(IGB, NVME), include_all=False),
                ),
            ),
        ),
        Case(
            "reserved",
            reserved(),
            nopt,
            tables=(
                acpi.dmar(
                    acpi.drhd(), acpi.rmrr(FIRST, LAST, *scopes(EDU, OTHER_IGB)), unknown
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
                acpi.dmar(
                    acpi.drhd(acpi.VTD_BASE, *scopes(EDU, IGB), include_all=False),
                    acpi.rmrr(FIRST, HOLE - 1, *scopes(EDU, OTHER_IGB)),
                    acpi.rmrr(BEHIND, LAST, *scopes(EDU)),
                ),
            ),
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
        Case("late-load", late_load(), there, devices=BESIDE_THE_DISK),
        Case("acs-off", acs_off(), there, devices=TWO_PORTS),
        Case("acs-on", acs_on(), there, devices=TWO_PORTS, parameters=ISOLATING),
    )
