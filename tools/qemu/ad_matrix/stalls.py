# SPDX-License-Identifier: GPL-2.0
"""A unit that does not answer, or answers late: what iommu-stall does."""

from machine import (STALL, STALL_COMMANDS, STALL_DELAY, STALL_HELD, STALL_LOSE, STALL_STOP,
                     STALL_UNIT, STALL_UNITS)
from properties import AMD_HOST, SECOND_ONLY
from rig import Failed, Rig
from tables import HOST, SECOND


def _expect(unit, what, done, empty):
    """What software sees of the queue."""
    found = unit.is_done(), unit.queue_is_empty()
    if found != (done, empty):
        raise Failed(f"{what}: completed and fetched are {found}, expected {(done, empty)}")


def _register(unit, register, expected):
    found = unit.machine.read64(register)
    if found != expected:
        raise Failed(f"register {register:#x} reads {found:#x}, expected {expected:#x}")


def stopped(unit, stage):
    """A stopped unit executes no command, and all of them when it continues."""
    rig = Rig(unit, stage)
    machine = unit.machine
    rig.write()
    rig.expect_write()
    rig.clear()
    machine.write64(STALL_STOP, 1)
    fetched, held = machine.read64(STALL_COMMANDS), machine.read64(STALL_HELD)
    unit.queue_flush()
    machine.wait_ms(60_000)
    _expect(unit, "a unit that is stopped", False, False)
    _register(unit, STALL_COMMANDS, fetched)
    _register(unit, STALL_HELD, held + 1)
    rig.write()
    rig.check("a write while a flush waits")
    machine.write64(STALL_STOP, 0)
    _expect(unit, "a unit that goes on", True, True)
    _register(unit, STALL_COMMANDS, fetched + 2)
    rig.write()
    rig.expect_write()
    rig.check("a write after the flush")


def late(unit, stage):
    """The unit answers late, once; commands that are queued in between wait too."""
    rig = Rig(unit, stage)
    machine = unit.machine
    machine.write64(STALL_DELAY, 250)
    machine.wait_ms(1000)
    unit.queue_flush()
    _register(unit, STALL_DELAY, 0)
    machine.wait_ms(249)
    unit.queue_flush()
    _expect(unit, "too early", False, False)
    machine.wait_ms(2)
    _expect(unit, "after the delay", True, True)
    unit.queue_flush()
    _expect(unit, "the next flush", True, True)
    rig.check("flushes")


def lost(unit, stage):
    """A completion is lost, its flush is executed."""
    rig = Rig(unit, stage)
    rig.write()
    rig.expect_write()
    rig.clear()
    unit.machine.write64(STALL_LOSE, 1)
    unit.queue_flush()
    _expect(unit, "a completion that gets lost", False, True)
    _register(unit, STALL_LOSE, 0)
    rig.write()
    rig.expect_write()
    rig.check("a write after a flush whose completion was lost")
    unit.queue_flush()
    _expect(unit, "the next flush", True, True)


def another(unit, stage):
    """Selecting a unit that does not exist has no effect."""
    rig = Rig(unit, stage)
    _register(unit, STALL_UNITS, 1)
    unit.machine.write64(STALL_UNIT, 1)
    unit.machine.write64(STALL_STOP, 1)
    unit.queue_flush()
    _expect(unit, "a unit that is not selected", True, True)
    unit.machine.write64(STALL_UNIT, 0)
    _register(unit, STALL_STOP, 0)
    rig.check("a flush")


CASES = {
    "stopped": stopped,
    "late once": late,
    "completion lost": lost,
    "another unit": another,
}


def cases():
    """(name, properties, function) of every case."""
    for stage, properties in ((SECOND, SECOND_ONLY), (HOST, AMD_HOST)):
        for name, function in CASES.items():
            def run(unit, stage=stage, function=function):
                function(unit, stage)
            yield f"{stage.name} stall: {name}", properties + (STALL,), run
