# SPDX-License-Identifier: GPL-2.0
"""A bridge that goes and is found again: what is below it may raise only its own interrupts."""

from .case import FREES_PORT, LETS_GO, LOADED, PLUGGED, Case, migrates, passes

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
# The port that was found again has interrupts of its driver, which the IOMMU may remap.
AGAIN = (RESCANS, *GIVEN)
CHECKS = (LOADED, *GIVEN, *AGAIN, *AGAIN, FREES_PORT, LETS_GO, RESCANS, LOADED, *GIVEN)


def groups():
    """Return the cases by machine."""
    names = ("vtd-ss/pt", "amd-v1/pt")
    return tuple(
        (name, (Case("rescan", CHECKS, name, devices=DEVICES, remapped=True),)) for name in names
    )
