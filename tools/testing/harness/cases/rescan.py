# SPDX-License-Identifier: GPL-2.0
"""A bridge that goes and is found again: what is below it may raise only its own interrupts. A
function that has gone may raise none."""

from .case import (
    EDU,
    FREES_PORT,
    LEFT_MEMORY,
    LETS_GO,
    LOADED,
    PLUGGED,
    Case,
    fails,
    migrates,
    passes,
)

MACHINES = VTD, AMDVI = "vtd-ss/pt", "amd-v1/pt"

PORT = "07"
DEVICES = (
    "-device", f"pcie-root-port,id=rescanned,chassis=1,slot=1,addr={PORT}.0",
    "-device", "igb,romfile=,bus=rescanned",
)  # fmt: skip


RESCANS = passes("the port goes and is found again", "rescans", PORT, PLUGGED)
GIVEN = (
    passes("vfio takes the function", "takes", PLUGGED),
    passes("it can forge no interrupt", "forges_nothing", PLUGGED),
    passes("vfio gives it back", "gives_back", PLUGGED),
    *migrates(PLUGGED),
)
AGAIN = (RESCANS, *GIVEN)

# The port that was found again has interrupts of its driver. On AMD-Vi it is this driver that
# remaps them.
KEPT = {
    AMDVI: (
        fails("it does not let go while the port has interrupts", "release", "1"),
        passes("and says so", "kernel_says", "unbind the driver of the device first: it has"),
    ),
}


def rescan(machine):
    """Return the checks of a port that is found again."""
    kept = KEPT.get(machine, ())
    return (
        *(LOADED, *GIVEN, *AGAIN, *AGAIN),
        *(*kept, FREES_PORT, LETS_GO),
        *(RESCANS, LOADED, *GIVEN),
    )


# Nothing but an entry that no device has claimed stands between the message and the CPU.
GONE = (
    passes("without the driver, what has gone raises an interrupt", "forges_when_gone", EDU),
    LOADED,
    fails("with it, it raises none", "forges_when_gone", EDU),
    passes("the unit says so", "kernel_says", "the interrupt is not allowed"),
    passes("what was found again works", "copies", EDU),
    fails("and raises none if it goes again", "forges_when_gone", EDU),
    passes("the unit says so again", "kernel_says", "the interrupt is not allowed"),
    LETS_GO,
    passes("when the driver has gone it raises one", "forges_when_gone", EDU),
)


def groups():
    """Return the cases by machine."""
    gone = {AMDVI: (Case("gone", GONE, AMDVI, parameters=LEFT_MEMORY, remapped=True),)}
    return tuple(
        (
            name,
            (
                Case("rescan", rescan(name), name, devices=DEVICES, remapped=True),
                *gone.get(name, ()),
            ),
        )
        for name in MACHINES
    )
