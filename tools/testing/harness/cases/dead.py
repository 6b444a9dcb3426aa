# SPDX-License-Identifier: GPL-2.0
"""Units that stop answering: machines in which a test stops one permanently."""

from .. import machine as vm
from .case import IGB, LOADED, OTHER_IGB, Case, fails, passes

# The operation during which a unit stops answering, as the tests of dead_unit name it.
DEATHS = ("harvest", "unmap", "attach", "detach", "switch")
# The same, where the driver remaps interrupts.
BY_INTERRUPT = ("move",)
# The same, where the kernel remaps interrupts with the unit. It waits without a bound, so none
# changes before the unit answers again.
SHARED = ("harvest", "attach")

# A bridge to conventional PCI, and the two functions behind it.
BRIDGE, BEHIND_BRIDGE, NEIGHBOUR = "0c", "01:01", "01:02"

# Text of the message that tells what to do; it appears once.
ADVICE = "given up, and"


def cases(machine, deaths, remapped=False, suffix=""):
    """Return the cases of a machine."""
    return tuple(
        Case(
            f"{death}{suffix}",
            (
                LOADED,
                passes("vfio takes a device", "takes", IGB),
                passes("and another one", "takes", OTHER_IGB),
                passes(f"a unit dies by {death}", "dies", f"by_{death}", IGB, OTHER_IGB),
                passes("one message says what to do", "says_once", ADVICE),
                passes("vfio gives the device back", "gives_back", IGB),
                passes("and the other one", "gives_back", OTHER_IGB),
                fails("no device gets tables again", "migrates_again", IGB),
            ),
            machine,
            remapped=remapped,
        )
        for death in deaths
    )


def bridged(machine):
    """Return the case of a function behind a bridge that the unit serves too."""
    return (
        Case(
            "bridge",
            (
                LOADED,
                passes("a function behind a bridge is enabled", "enables", NEIGHBOUR),
                passes("so the bridge passes requests on", "masters", BRIDGE),
                passes("vfio takes another one there", "takes", BEHIND_BRIDGE),
                passes("and one elsewhere", "takes", IGB),
                passes("their unit dies", "dies", "by_unmap", BEHIND_BRIDGE, IGB),
                fails("the bridge passes nothing on", "masters", BRIDGE),
                passes("one message says what to do", "says_once", ADVICE),
                passes("vfio gives the device back", "gives_back", BEHIND_BRIDGE),
                passes("and the other one", "gives_back", IGB),
            ),
            machine,
            devices=vm.BRIDGE,
        ),
    )


def groups():
    """Return the cases by machine: all of one kind of table, one of the other."""
    all_ways, one_way = DEATHS, DEATHS[:1]
    return (
        (
            "vtd-ss/pt",
            cases("vtd-ss/pt", all_ways)
            + cases("vtd-ss/pt", SHARED, remapped=True, suffix="-shared")
            + bridged("vtd-ss/pt"),
        ),
        ("vtd-fs/pt", cases("vtd-fs/pt", one_way)),
        (
            "amd-v1/pt",
            cases("amd-v1/pt", all_ways)
            + cases("amd-v1/pt", BY_INTERRUPT, remapped=True)
            + bridged("amd-v1/pt"),
        ),
        ("amd-v2/pt", cases("amd-v2/pt", one_way)),
    )
