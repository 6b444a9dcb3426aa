# SPDX-License-Identifier: GPL-2.0
"""The command buffer of the AMD-Vi unit: an illegal command stops it."""

from amdvi.unit import (BASE, CMD_HEAD, COMMANDS, CONTROL, CONTROL_CMD, ILLEGAL_COMMAND, INV_ALL,
                        INV_DEVICE_TLB, INV_DTE, INV_INTERRUPTS, INV_PAGES, STATUS,
                        STATUS_CMD_RUN, WAIT)
from properties import AMD_HOST
from rig import Failed, Rig
from tables import HOST

# Commands with a reserved bit set, and opcodes that do not exist: opcode and the two words.
ILLEGAL = {
    "COMPLETION_WAIT": (WAIT, 1 << 52, 0),
    "INVALIDATE_DEVTAB_ENTRY": (INV_DTE, 1 << 16, 0),
    "INVALIDATE_DEVTAB_ENTRY, second word": (INV_DTE, 0, 1),
    "INVALIDATE_IOMMU_PAGES": (INV_PAGES, 1 << 20, 0),
    "INVALIDATE_IOMMU_PAGES, above the domain": (INV_PAGES, 1 << 48, 0),
    "INVALIDATE_IOMMU_PAGES, second word": (INV_PAGES, 0, 1 << 3),
    "INVALIDATE_IOTLB_PAGES": (INV_DEVICE_TLB, 0, 1 << 1),
    "INVALIDATE_INTERRUPT_TABLE": (INV_INTERRUPTS, 1 << 16, 0),
    "INVALIDATE_IOMMU_ALL": (INV_ALL, 1, 0),
    "no command": (0, 0, 0),
    "the last opcode": (15, 0, 0),
}


def _expect_stopped(unit, slot):
    machine = unit.machine
    if machine.read64(BASE + STATUS) & STATUS_CMD_RUN:
        raise Failed("the command buffer claims to run")
    if machine.read64(BASE + CMD_HEAD) != slot << 4:
        raise Failed(f"the head is {machine.read64(BASE + CMD_HEAD):#x}, not at the command")
    expected = [(ILLEGAL_COMMAND, 0, 0, COMMANDS + (slot << 4))]
    if unit.events(0) != expected:
        raise Failed(f"the log holds {unit.events(0)}, expected {expected}")
    if unit.is_done():
        raise Failed("what comes after an illegal command is carried out")


def illegal(unit, opcode, low, high):
    """It is logged, nothing after it is fetched, until the buffer is switched off and on."""
    rig = Rig(unit, HOST)
    machine = unit.machine
    rig.write()
    rig.expect_write()
    rig.clear()
    slot = unit.tail
    unit.queue(opcode, low, high)
    _expect_stopped(unit, slot)
    unit.queue_flush()
    _expect_stopped(unit, slot)
    machine.write64(BASE + CONTROL, unit.control)
    _expect_stopped(unit, slot)
    unit.clear_faults()
    rig.write()
    rig.check("a write while the command buffer is stopped")
    machine.write64(BASE + CONTROL, unit.control & ~CONTROL_CMD)
    machine.write64(BASE + CONTROL, unit.control)
    _expect_stopped(unit, slot)
    unit.clear_faults()
    machine.write64(BASE + CONTROL, unit.control & ~CONTROL_CMD)
    machine.write64(BASE + CMD_HEAD, slot + 1 << 4)
    machine.write64(BASE + CONTROL, unit.control)
    if not unit.is_done() or not machine.read64(BASE + STATUS) & STATUS_CMD_RUN:
        raise Failed("the command buffer does not go on behind the command")
    rig.write()
    rig.expect_write()
    rig.check("a write after the flush")


def cases():
    """(name, properties, function) of every case."""
    for name, words in ILLEGAL.items():
        def run(unit, words=words):
            illegal(unit, *words)
        yield f"AMD illegal command: {name}", AMD_HOST, run
