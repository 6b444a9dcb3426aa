# SPDX-License-Identifier: GPL-2.0
"""Units that do not answer any more: machines in which a test stops one for good."""

import configs
from cases import IGB, LOADED, OTHER_IGB, Case, fails, passes

# What a unit is asked for when it falls silent, as the tests of dead_unit name it.
DEATHS = ("harvest", "unmap", "attach", "detach", "switch")

# What the message says that tells what to do, of which there is one.
ADVICE = "given up, and"


def cases(machine):
    """Return the cases of a machine."""
    return tuple(
        Case(
            death,
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
        )
        for death in DEATHS
    )


def groups():
    """Return the cases by machine: of every driver and kind of table."""
    names = [
        f"{config.name}/pt" for config in configs.CONFIGS if config.dirty and config.module
    ]
    return tuple((name, cases(name)) for name in names)
