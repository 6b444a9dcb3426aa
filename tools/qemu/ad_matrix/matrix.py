# SPDX-License-Identifier: GPL-2.0
"""The matrix: access × leaf size × stage × marking enabled or not."""

from properties import (AMD_BOTH, AMD_GUEST, AMD_HOST, BOTH_STAGES, FIRST_ONLY,
                        SECOND_ONLY)
from rig import REFUSED_WRITE, Rig
from tables import FIRST, GUEST, HOST, ROWS, SECOND, SIZES


def read(rig):
    """A on every level, D nowhere."""
    rig.read()
    rig.expect_read()
    rig.check("a read")


def write(rig):
    """A on every level, D on the leaf."""
    rig.write()
    rig.expect_write()
    rig.check("a write")


def refused_write(rig):
    """No D, and no A where the walk was refused; also through a cached leaf."""
    rig.table.change_leaf(clear=rig.stage.writable)
    rig.refused(True, REFUSED_WRITE[rig.stage.name])
    rig.expect_above(rig.table.leaf_level)
    rig.check("a write refused by a walk")
    rig.read()
    rig.expect_read()
    rig.check("a read of a read-only leaf")
    rig.refused(True, REFUSED_WRITE[rig.stage.name])
    rig.check("a write refused by a cached translation")


def cached_read_then_write(rig):
    """The first write through a clean cached translation sets D."""
    rig.read()
    rig.expect_read()
    rig.check("a read")
    rig.write()
    rig.expect_write()
    rig.check("a write through the translation that the read cached")
    rig.write()
    rig.check("a second write")


def cleared_not_flushed(rig):
    """A cached dirty translation writes on without setting D again."""
    rig.write()
    rig.expect_write()
    rig.check("a write")
    rig.clear()
    rig.write()
    rig.read()
    rig.check("a write and a read after clearing A and D without a flush")


def cleared_flushed(rig):
    """The first write after clearing and flushing sets D again."""
    rig.write()
    rig.expect_write()
    rig.check("a write")
    rig.clear()
    rig.flush()
    rig.check("clearing and flushing")
    rig.read()
    rig.expect_read()
    rig.check("a read after the flush")
    rig.write()
    rig.expect_write()
    rig.check("a write after the flush")


ACCESSES = {
    "read": read,
    "write": write,
    "refused write": refused_write,
    "cached read then write": cached_read_then_write,
    "cleared, not flushed": cleared_not_flushed,
    "cleared and flushed": cleared_flushed,
}

# stage, name of the setting, properties of the unit, SSADE or HAD in the entry. First
# stage and guest tables know no switch: where it is "disabled", the unit offers nothing and the
# entry asks for nothing, and A and D appear all the same.
SETTINGS = [
    (SECOND, "enabled", SECOND_ONLY, True),
    (SECOND, "disabled", SECOND_ONLY, False),
    (FIRST, "enabled", BOTH_STAGES, True),
    (FIRST, "disabled", FIRST_ONLY, False),
    (HOST, "enabled", AMD_HOST, True),
    (HOST, "disabled", AMD_HOST, False),
    (GUEST, "enabled", AMD_BOTH, True),
    (GUEST, "disabled", AMD_GUEST, False),
]


def cases():
    """(name, properties, function of a Unit) of every field of the matrix."""
    for stage, setting, properties, ssade in SETTINGS:
        for size in [*SIZES, *(ROWS if stage is HOST else ())]:
            for access, function in ACCESSES.items():
                def run(unit, stage=stage, size=size, ssade=ssade,
                        function=function):
                    function(Rig(unit, stage, size, ssade))
                yield f"{stage.name} {setting} {size} {access}", properties, run
