# SPDX-License-Identifier: GPL-2.0
"""Two units in a machine: each has its registers, queue, caches and functions."""

from domains import Others
from machine import (PORT_BUS, PORT_WINDOW, SECOND_BASE, SECOND_UNIT, STALL, STALL_STOP,
                     STALL_UNIT, STALL_UNITS)
from properties import AMD_HOST, SECOND_ONLY
from rig import OTHER_DOMAIN, Failed, Rig
from tables import HOST, SECOND
from vtd.capabilities import refused

# The second unit's queue, and what comes behind it.
QUEUE = 0x0013_0000


class Pair:
    """A rig on the first unit, and a function that the second unit serves."""

    def __init__(self, unit, stage):
        self.second = type(unit)(unit.machine, SECOND_BASE[unit.machine.unit], QUEUE)
        self.rig = Rig(unit, stage)
        self.others = Others(self.rig)
        self.table = self.others.tables[1]
        unit.set_device(PORT_BUS << 8, self.table, OTHER_DOMAIN)
        self.second.serve()

    def write(self, reached=1):
        self.others.write(
            lambda address: self.rig.machine.dma(address, True, bar=PORT_WINDOW), reached)

    def marked(self, when):
        self.table.mark(self.table.path(), dirty=True)
        self.check(when)

    def check(self, when):
        self.rig.check(when)
        if self.table.differences():
            raise Failed(f"after {when}: " + "; ".join(self.table.differences()))

    def clear(self):
        self.table.change_leaf(clear=self.table.stage.accessed | self.table.stage.dirty)


def switched_on_alone(unit, stage):
    """A function of a unit that is off is not translated, whatever the first does."""
    rig = Rig(unit, stage)
    physical = rig.table.physical()
    rig.ram[physical >> 3] = before = 1 << 63 | 5
    unit.machine.dma(physical, True, bar=PORT_WINDOW)
    if rig.ram[physical >> 3] == before or unit.fault():
        raise Failed("the first unit translates for a function of the second")
    Pair(unit, stage).write()


def own_caches(unit, stage):
    """An invalidation affects only the unit that it was sent to."""
    pair = Pair(unit, stage)
    pair.write()
    pair.marked("a write of a function of the second unit")
    pair.clear()
    unit.flush_all()
    pair.write()
    pair.check("a write after the first unit has invalidated")
    pair.second.flush_all()
    pair.write()
    pair.marked("a write after the second unit has")
    rig = pair.rig
    rig.write()
    rig.expect_write()
    rig.clear()
    pair.second.flush_all()
    rig.write()
    pair.check("a write of the first unit's function after the second has invalidated")
    unit.flush_all()
    rig.write()
    rig.expect_write()
    pair.check("a write after the first has")


def own_stall(unit, stage):
    """One that stops does not stop the other."""
    pair = Pair(unit, stage)
    machine = unit.machine
    if machine.read64(STALL_UNITS) != 2:
        raise Failed(f"there are {machine.read64(STALL_UNITS)} units")
    for number, (stopped, other) in enumerate(((unit, pair.second), (pair.second, unit))):
        machine.write64(STALL_UNIT, number)
        machine.write64(STALL_STOP, 1)
        other.flush_all()
        stopped.queue_flush()
        if stopped.is_done():
            raise Failed(f"unit {number} was stopped and goes on")
        machine.write64(STALL_STOP, 0)
        if not stopped.is_done():
            raise Failed(f"unit {number} does not go on")
    machine.write64(STALL_UNIT, 0)


CASES = {"switched on alone": switched_on_alone, "own caches": own_caches,
         "one stops": own_stall}


def cases():
    """(name, properties, function) of every case."""
    for stage, properties in ((SECOND, SECOND_ONLY), (HOST, AMD_HOST)):
        # Each on a machine of its own, whose second unit is off.
        for number, (name, function) in enumerate(CASES.items()):
            def run(unit, stage=stage, function=function):
                function(unit, stage)
            yield (f"{stage.name} two units: {name}",
                   properties + (SECOND_UNIT, STALL) + (STALL,) * number, run)

    def alone(qemu):
        refused(qemu, ["under=pcie.0"], "under= is for one more IOMMU of the same kind")
    yield "two units: without a first", None, alone
