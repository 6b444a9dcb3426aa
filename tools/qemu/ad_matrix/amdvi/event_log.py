# SPDX-License-Identifier: GPL-2.0
"""The event log of the AMD-Vi unit: a ring, its overflow, its interrupt."""

from amdvi.unit import (BASE, CAPABILITY_MSI, EVENT_SLOTS, EVT_HEAD, EVT_TAIL, FAULT_RW,
                        PAGE_FAULT, STATUS, STATUS_EVT_INT, STATUS_EVT_RUN, STATUS_OVERFLOW,
                        UNIT_SLOT)
from machine import EDU_BAR
from properties import AMD_GUEST, AMD_HOST
from rig import DOMAIN, Failed, Rig
from tables import GUEST, HOST

MSI_ENABLE = 1 << 16
# Where in guest memory the unit's interrupts go.
MAILBOX = 0x0010_8000
MSI_DATA = 0x4D51


def _refused_write(rig):
    rig.machine.dma(rig.table.IOVA | 1 << 48, to_memory=True)


def content(unit, stage):
    """An event tells the device, the domain or PASID, the address, the access."""
    rig = Rig(unit, stage)
    _refused_write(rig)
    _refused_write(rig)
    expected = (PAGE_FAULT, FAULT_RW | (1 if stage.live else 0),
                0 if stage.live else DOMAIN, rig.table.IOVA | 1 << 48)
    events = unit.events()
    if events[0] != expected:
        raise Failed(f"the log holds {events[0]}, expected {expected}")
    if not unit.machine.read64(BASE + STATUS) & STATUS_EVT_INT:
        raise Failed("the status does not tell of an event")


def ring(unit):
    """The log goes round as long as software reads, and stops when it is full."""
    rig = Rig(unit, HOST)
    unit.restart_events()
    seen = 0
    while seen <= 2 * EVENT_SLOTS:
        _refused_write(rig)
        events = unit.events()
        if not events:
            raise Failed(f"nothing is logged after {seen} events")
        seen += len(events)
        unit.clear_faults()
    for _ in range(EVENT_SLOTS):
        _refused_write(rig)
    status = unit.machine.read64(BASE + STATUS)
    if len(unit.events()) != EVENT_SLOTS - 1 or not status & STATUS_OVERFLOW:
        raise Failed(f"a full log holds {len(unit.events())} events, status {status:#x}")
    if status & STATUS_EVT_RUN:
        raise Failed("a full log claims to run")
    unit.clear_faults()
    _refused_write(rig)
    if unit.events():
        raise Failed("a log that overflowed goes on by itself")
    unit.restart_events()
    _refused_write(rig)
    if not unit.events():
        raise Failed("a log that was started again logs nothing")
    unit.clear_faults()


def _interrupted(unit, what, expected):
    got = unit.ram[MAILBOX >> 3] & 0xFFFF_FFFF
    unit.ram[MAILBOX >> 3] = 0
    if bool(got) != expected or got not in (0, MSI_DATA):
        raise Failed(f"{what}: {got:#x} arrived as an interrupt")


def interrupt(unit):
    """One interrupt when the status bit becomes set, if it is wanted."""
    rig = Rig(unit, HOST)
    machine = unit.machine
    msi, _ = unit.capability(CAPABILITY_MSI)
    machine.write_config(UNIT_SLOT, msi + 4, MAILBOX)
    machine.write_config(UNIT_SLOT, msi + 8, 0)
    machine.write_config(UNIT_SLOT, msi + 12, MSI_DATA)
    machine.write_config(UNIT_SLOT, msi, machine.read_config(UNIT_SLOT, msi) | MSI_ENABLE)
    unit.ram[MAILBOX >> 3] = 0
    unit.restart_events()
    _refused_write(rig)
    _interrupted(unit, "an event without EventIntEn", False)
    unit.restart_events(interrupts=True)
    _refused_write(rig)
    _interrupted(unit, "an event", True)
    _refused_write(rig)
    _interrupted(unit, "an event while the status bit is set", False)
    machine.write64(BASE + STATUS, 0)
    _refused_write(rig)
    _interrupted(unit, "an event after a zero was written to the status bit", False)
    machine.write64(BASE + STATUS, STATUS_EVT_INT)
    _refused_write(rig)
    _interrupted(unit, "an event after the status bit was cleared", True)
    machine.write64(BASE + EVT_HEAD, machine.read64(BASE + EVT_TAIL))


def nothing_logged(unit):
    """Accesses that are allowed, and registers that are read, log nothing."""
    rig = Rig(unit, HOST)
    rig.write()
    unit.machine.read32(EDU_BAR)
    if unit.events():
        raise Failed(f"the log holds {unit.events()}")


def cases():
    """(name, properties, function) of every case."""
    for stage, properties in ((HOST, AMD_HOST), (GUEST, AMD_GUEST)):
        def run(unit, stage=stage):
            content(unit, stage)
        yield f"{stage.name} what an event tells", properties, run
    yield "AMD event log is a ring", AMD_HOST, ring
    yield "AMD event interrupt", AMD_HOST, interrupt
    yield "AMD log without events", AMD_HOST, nothing_logged
