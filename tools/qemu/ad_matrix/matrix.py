# SPDX-License-Identifier: GPL-2.0
"""The matrix: access × leaf size × stage × marking enabled or not."""

from rig import REFUSED_WRITE, Bench
from tables import FIRST, GUEST, HOST, ROWS, SECOND, SIZES

BOTH_STAGES = ("x-scalable-mode=on", "x-flts=on", "ssads=on")
SECOND_ONLY = ("x-scalable-mode=on", "ssads=on")
FIRST_ONLY = ("x-scalable-mode=on", "x-flts=on")
AMD_HOST = ("amd-iommu", "hd=on")
AMD_GUEST = ("amd-iommu", "gt=on")
AMD_BOTH = ("amd-iommu", "hd=on", "gt=on")


def read(bench):
    """A on every level, D nowhere."""
    bench.read()
    bench.expect_read()
    bench.check("a read")


def write(bench):
    """A on every level, D on the leaf."""
    bench.write()
    bench.expect_write()
    bench.check("a write")


def refused_write(bench):
    """No D, and no A where the walk was refused; also through a cached leaf."""
    bench.table.change_leaf(clear=bench.stage.writable)
    bench.refused(True, REFUSED_WRITE[bench.stage.name])
    bench.expect_above(bench.table.leaf_level)
    bench.check("a write refused by a walk")
    bench.read()
    bench.expect_read()
    bench.check("a read of a read-only leaf")
    bench.refused(True, REFUSED_WRITE[bench.stage.name])
    bench.check("a write refused by a cached translation")


def cached_read_then_write(bench):
    """The first write through a clean cached translation sets D."""
    bench.read()
    bench.expect_read()
    bench.check("a read")
    bench.write()
    bench.expect_write()
    bench.check("a write through the translation that the read cached")
    bench.write()
    bench.check("a second write")


def cleared_not_flushed(bench):
    """A cached dirty translation writes on without setting D again."""
    bench.write()
    bench.expect_write()
    bench.check("a write")
    bench.clear()
    bench.write()
    bench.read()
    bench.check("a write and a read after clearing A and D without a flush")


def cleared_flushed(bench):
    """The first write after clearing and flushing sets D again."""
    bench.write()
    bench.expect_write()
    bench.check("a write")
    bench.clear()
    bench.flush()
    bench.check("clearing and flushing")
    bench.read()
    bench.expect_read()
    bench.check("a read after the flush")
    bench.write()
    bench.expect_write()
    bench.check("a write after the flush")


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
                    function(Bench(unit, stage, size, ssade))
                yield f"{stage.name} {setting} {size} {access}", properties, run
