# SPDX-License-Identifier: GPL-2.0
"""Interrupt remapping of the AMD-Vi unit: what a device may send, and what is cached."""

from amdvi.unit import (CONTROL_GA, DTE_RW, DTE_TV, DTE_V, FAULT_I, FAULT_PE, FAULT_RW,
                        FAULT_RZ, INV_INTERRUPTS, PAGE_FAULT)
from machine import EDU_SID
from properties import AMD_REMAP
from rig import DOMAIN, Failed

INTERRUPTS = 0xFEE0_0000

# The third word of a device table entry.
IV, IG, NMI_PASS = 1 << 0, 1 << 5, 1 << 58
LENGTH_SHIFT, CONTROL_SHIFT = 1, 60
ABORT, PASS, REMAP = 0, 1, 2

# An entry of the table, of 128 bits: its first word; the second one is the vector.
REMAP_EN, NO_FAULT, SMI, GUEST_MODE = 1 << 0, 1 << 1, 2 << 2, 1 << 7
VECTOR = 0x51
NMI = 4 << 8

# Where in guest memory the table and the message lie.
TABLE, MESSAGE = 0x0011_A000, 0x0011_B000


class Sender:
    """A device in pass-through whose interrupts are remapped by a table of 16 entries."""

    def __init__(self, unit):
        self.unit = unit
        unit.control |= CONTROL_GA
        unit.set_scalable()
        unit.ram[TABLE >> 3:(TABLE >> 3) + 512] = memoryview(bytes(4096)).cast("Q")
        self.set_device(IV | REMAP << CONTROL_SHIFT)
        self.set_entry(0, REMAP_EN)

    def set_device(self, flags, order=4):
        """The device table entry, and nothing of it cached."""
        self.unit.set_words(DTE_V | DTE_TV | DTE_RW, DOMAIN,
                            TABLE | order << LENGTH_SHIFT | flags)
        self.unit.flush_entry()

    def set_entry(self, index, low, high=VECTOR):
        """An entry of the table; flushes nothing."""
        place = (TABLE >> 3) + 2 * index
        self.unit.ram[place], self.unit.ram[place + 1] = low, high

    def flush(self, device=EDU_SID):
        self.unit.submit(INV_INTERRUPTS, device)

    def send(self, what, data=0, refused=0):
        """Send a message, which is delivered, or refused with these flags."""
        unit = self.unit
        unit.clear_faults()
        unit.ram[MESSAGE >> 3] = data
        unit.machine.dma(MESSAGE, to_memory=False, count=4)
        unit.machine.dma(INTERRUPTS, to_memory=True, count=4)
        expected = []
        if refused:
            expected = [(PAGE_FAULT, FAULT_I | FAULT_RW | refused, DOMAIN, INTERRUPTS)]
        events = unit.events()
        if events != expected:
            raise Failed(f"{what}: the log holds {events}, expected {expected}")
        unit.clear_faults()


def control(unit):
    """IV and IntCtl decide whether the table is asked."""
    sender = Sender(unit)
    sender.send("an entry that is enabled")
    sender.send("an entry that is not", 1, refused=FAULT_PE)
    sender.set_device(0)
    sender.send("IV = 0", 1)
    sender.set_device(IV | ABORT << CONTROL_SHIFT)
    sender.send("IntCtl = 00b", refused=FAULT_PE)
    sender.set_device(IV | PASS << CONTROL_SHIFT)
    sender.send("IntCtl = 01b", 1)


def bounds(unit):
    """The table ends where IntTabLen says."""
    sender = Sender(unit)
    sender.set_entry(15, REMAP_EN)
    sender.set_entry(16, REMAP_EN)
    sender.send("the last entry", 15)
    sender.send("the entry behind it", 16, refused=FAULT_PE)
    sender.set_device(IV | REMAP << CONTROL_SHIFT, order=0)
    sender.send("the only entry")
    sender.send("the one behind that", 1, refused=FAULT_PE)


def content(unit):
    """What is reserved is refused, and an event is not logged where none is wanted."""
    sender = Sender(unit)
    sender.set_entry(1, REMAP_EN | SMI)
    sender.send("a type that is reserved", 1, refused=FAULT_RZ)
    sender.set_entry(2, REMAP_EN | GUEST_MODE)
    sender.send("guest mode", 2, refused=FAULT_RZ)
    sender.set_entry(3, NO_FAULT)
    sender.send("SupIOPF", 3)
    sender.send("an NMI", NMI, refused=FAULT_PE)
    sender.set_device(IV | REMAP << CONTROL_SHIFT | NMI_PASS)
    sender.send("an NMI that may pass", NMI)
    sender.set_device(IV | REMAP << CONTROL_SHIFT | IG)
    sender.send("IG", 4)


def cached(unit):
    """An entry that was used stays until the table of its device is invalidated."""
    sender = Sender(unit)
    sender.send("an entry that is enabled")
    sender.set_entry(0, 0)
    sender.send("it, cleared and not invalidated")
    sender.flush(device=EDU_SID + 1)
    sender.send("it, after an invalidation of another table")
    unit.flush_entry()
    sender.send("it, after an invalidation of the device table entry")
    sender.flush()
    sender.send("it, after an invalidation", refused=FAULT_PE)
    sender.set_entry(0, REMAP_EN)
    sender.send("an entry that is enabled again")
    sender.set_entry(0, 0)
    unit.flush_all()
    sender.send("it, after an invalidation of everything", refused=FAULT_PE)


def cases():
    """(name, properties, function) of every case."""
    yield "AMD interrupts, what decides", AMD_REMAP, control
    yield "AMD interrupts, end of the table", AMD_REMAP, bounds
    yield "AMD interrupts, content of an entry", AMD_REMAP, content
    yield "AMD interrupts, cached entries", AMD_REMAP, cached
