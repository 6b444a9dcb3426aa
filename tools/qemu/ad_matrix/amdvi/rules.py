# SPDX-License-Identifier: GPL-2.0
"""Rules of the AMD-Vi unit: walks, the device table, what is cached, what is advertised."""

import rules
from amdvi import event_log, interrupts, link_cache
from amdvi.unit import (DTE_RW, DTE_TV, DTE_V, EFR_GIO, EFR_GLX_2, EFR_GT, EFR_HA, EFR_HD,
                        EFR_PASMAX_16, HAD_A, HAD_RESERVED, ILLEGAL_DTE, NAME, TABLE_ERROR)
from machine import EDU_BAR, NVME_SLOT
from properties import AMD_BOTH, AMD_GUEST, AMD_HOST
from rig import (DOMAIN, NOT_PRESENT, OTHER_DOMAIN, REFUSED_READ, REFUSED_WRITE, Failed, Rig,
                 try_flushes)
from tables import GUEST, HOST, PageTable

PRESENT_BUT_BAD = {HOST.name: 0x90, GUEST.name: 0x91}
PLAIN = (NAME,)


def flushes(unit, stage):
    """Each invalidation that covers the leaf renews it, no other does."""
    guest = stage.live
    page = PageTable.IOVA
    covering = [
        unit.flush_all,
        lambda: unit.flush_domain(DOMAIN),
        lambda: unit.flush_pages(DOMAIN, page, guest=guest),
        lambda: unit.flush_pages(DOMAIN, page, 1, guest=guest),
        lambda: unit.flush_pages(DOMAIN, page, 18, guest=guest),
    ]
    foreign = [
        lambda: unit.flush_domain(OTHER_DOMAIN),
        lambda: unit.flush_pages(DOMAIN, page, guest=not guest),
        lambda: unit.flush_pages(DOMAIN, page ^ 1 << 12, guest=guest),
        lambda: unit.flush_pages(DOMAIN, page ^ 1 << 30, 18, guest=guest),
        lambda: unit.flush_pages(OTHER_DOMAIN, page, guest=guest),
        lambda: unit.flush_device_tlb(page),
        unit.flush_entry,
    ]
    if guest:
        foreign.append(lambda: unit.flush_pages(DOMAIN, page, guest=True, pasid=1))
    try_flushes(unit, stage, covering, foreign)


def had_on_in_steps(unit):
    """HAD is taken over with the entry; what is cached stays until the domain goes."""
    rig = Rig(unit, HOST, ssade=False)
    rig.read()
    unit.set_entry(rig.table, DOMAIN, True)
    unit.flush_domain(DOMAIN)
    rig.write()
    rig.check("HAD was set and the entry not invalidated")
    unit.flush_entry()
    rig.write()
    rig.check("HAD was set and the domain not invalidated")
    unit.flush_domain(DOMAIN)
    rig.marks = True
    rig.write()
    rig.expect_write()
    rig.check("HAD was set and both were invalidated")


def had_off(unit):
    """HAD cleared: marking ends with the invalidations."""
    rig = Rig(unit, HOST)
    rig.write()
    rig.expect_write()
    unit.set_entry(rig.table, DOMAIN, False)
    rig.clear()
    unit.flush_domain(DOMAIN)
    rig.write()
    rig.expect_write()
    rig.check("HAD was cleared and the entry not invalidated")
    rig.clear()
    unit.flush_entry()
    unit.flush_domain(DOMAIN)
    rig.write()
    rig.check("HAD was cleared and both were invalidated")


def had_of_another(unit):
    """An entry that is invalidated is that device's, and no other's."""
    rig = Rig(unit, HOST, ssade=False)
    rig.read()
    unit.set_entry(rig.table, DOMAIN, True)
    unit.flush_entry(NVME_SLOT << 3)
    unit.flush_domain(DOMAIN)
    rig.write()
    rig.check("another device's entry was invalidated")


def had_accessed_only(unit):
    """HAD of 1 keeps A and no D."""
    rig = Rig(unit, HOST)
    unit.set_entry(rig.table, DOMAIN, had=HAD_A)
    rig.write()
    rig.write()
    rig.expect_read()
    rig.check("writes with HAD of 1")


def had_without_property(unit):
    """Without hd=on HAD means nothing, even its reserved value."""
    rig = Rig(unit, HOST)
    rig.marks = False
    rig.write()
    unit.set_entry(rig.table, DOMAIN, had=HAD_RESERVED)
    unit.flush_entry()
    unit.flush_domain(DOMAIN)
    rig.write()
    rig.check("writes on a unit without hd=on")


def illegal_entry(unit, words):
    """An entry that the unit cannot obey refuses every access."""
    rig = Rig(unit, HOST)
    unit.set_words(*words(rig.table))
    for to_memory in (True, False):
        unit.clear_faults()
        rig.machine.dma(rig.table.IOVA, to_memory)
        fault = unit.fault()
        if not fault or fault[0] >> 12 != ILLEGAL_DTE:
            raise Failed(f"an illegal entry leaves {fault}")
    rig.check("an illegal entry")


def not_translated(unit):
    """V of 0, and mode 0, pass what the device does; TV of 0 blocks it."""
    rig = Rig(unit, HOST)
    address = rig.table.physical()
    for word in (0, DTE_V | DTE_TV | DTE_RW):
        unit.set_words(word, OTHER_DOMAIN)
        unit.flush_entry()
        rig.write(address, address)
        rig.read(address, address)
    unit.set_words(DTE_V, 0)
    unit.flush_entry()
    rig.refused(True, 0, address, address)
    rig.refused(False, 0, address, address)
    unit.set_entry(rig.table, DOMAIN, True)
    rig.refused(True, 0, address, address)
    unit.flush_entry()
    rig.read()
    rig.write()
    rig.expect_write()
    rig.check("changing how the device is translated")


def skipped_levels(unit):
    """An entry may lead some levels down, if the address has zeros between."""
    rig = Rig(unit, HOST)
    table = rig.table
    slot = table.slots[3]
    leaf_table = table.slots[0] & ~0xFFF
    table.store(slot, leaf_table | HOST.table_bits(1))
    rig.refused(True, NOT_PRESENT[HOST.name])
    rig.check("an address with bits between the levels")
    low = table.IOVA & -1 << 39 | table.IOVA & 0x1F_F000
    rig.write(low, table.physical())
    table.mark([3, 0], dirty=True)
    rig.check("an address without")


def bad_entries(unit, stage):
    """What an entry must not say is refused, and the entry not marked."""
    if stage is HOST:
        # A level that is not below, and sizes that are not of their level.
        words = [(1, HOST.table_bits(2)), (0, HOST.leaf | HOST.row_bits(9)),
                 (1, HOST.leaf | HOST.row_bits(4))]
    else:
        # Address bits below the size of the leaf, and a leaf of 512 GiB.
        words = [(1, stage.leaf | stage.large | 1 << 20), (3, stage.leaf | stage.large)]
    for level, word in words:
        rig = Rig(unit, stage)
        rig.table.store(rig.table.slots[level], word)
        rig.refused(True, PRESENT_BUT_BAD[stage.name])
        rig.expect_above(level)
        rig.check(f"{word:#x} at level {level}")


def beyond_the_tables(unit, stage):
    """An address with more bits than the levels translate is refused."""
    rig = Rig(unit, stage)
    rig.refused(True, NOT_PRESENT[stage.name], rig.table.IOVA | 1 << 48)
    rig.check("an address of 49 bits")


def write_only(unit):
    """A host leaf may permit writes alone."""
    rig = Rig(unit, HOST)
    rig.table.change_leaf(clear=1 << 61)
    rig.write()
    rig.expect_write()
    rig.refused(False, REFUSED_READ[HOST.name])
    rig.check("a write-only leaf")


def supervisor_only(unit):
    """A guest entry that only the supervisor may use refuses a device."""
    for level in range(4):
        rig = Rig(unit, GUEST)
        slot = rig.table.slots[level]
        rig.table.store(slot, rig.table.load(slot) & ~4)
        rig.refused(True, REFUSED_WRITE[GUEST.name])
        rig.expect_above(level)
        rig.check(f"a supervisor's entry at level {level}")


def read_only_device(unit, stage):
    """IR and IW of the device table entry permit too."""
    rig = Rig(unit, stage)
    unit.set_words(unit.words()[0] & ~(1 << 62), *unit.words()[1:])
    rig.refused(True, REFUSED_WRITE[stage.name])
    rig.read()
    rig.expect_read()
    rig.check("a device that may only read")


def gcr3_tables(unit):
    """The GCR3 table has one level or two; an absent entry refuses."""
    rig = Rig(unit, GUEST)
    unit.set_guest(rig.table, DOMAIN, glx=1)
    rig.write()
    rig.expect_write()
    rig.check("GCR3 in two levels")
    unit.set_guest(rig.table, DOMAIN, glx=0)
    unit.clear_gcr3()
    unit.flush_all()
    rig.refused(True, NOT_PRESENT[GUEST.name])
    rig.check("an absent GCR3 entry")


def guest_table_out_of_reach(unit):
    """An entry that cannot be changed refuses the access that must mark it."""
    rig = Rig(unit, GUEST)
    # As in table_out_of_reach() of vtd/rules.py; the event tells where the entry is.
    address = rig.table.IOVA & -1 << 21 | 17 << 12 | GUEST.table
    rig.table.store(rig.table.slots[1], EDU_BAR | GUEST.table)
    rig.machine.dma(address, to_memory=True)
    events = unit.events()
    unit.clear_faults()
    if not events or events[0][0] != TABLE_ERROR or events[0][3] != EDU_BAR + 17 * 8:
        raise Failed(f"a table that is not memory leaves {events[:1]}")
    rig.expect_above(0)
    rig.check("a write through a table that is not memory")


def other_format(unit):
    """One device, host tables, then guest tables, then host tables."""
    for stage in (HOST, GUEST, HOST):
        rig = Rig(unit, stage)
        rig.read()
        rig.write()
        rig.expect_write()
        rig.check(f"changing to {stage.name}")


def advertised(unit, expected):
    found = unit.efr & (EFR_GT | EFR_GLX_2 | EFR_PASMAX_16 | EFR_GIO | EFR_HA | EFR_HD)
    if found != expected:
        raise Failed(f"the unit advertises {found:#x}, expected {expected:#x}")


PER_STAGE = rules.EVERY_STAGE | {
    "which flushes renew": flushes,
    "entries that say what they must not": bad_entries,
    "address beyond the tables": beyond_the_tables,
    "device that may only read": read_only_device,
}

HOST_ONLY = {
    "HAD set in steps": had_on_in_steps,
    "HAD cleared": had_off,
    "foreign entry flush": had_of_another,
    "HAD of 1 keeps A only": had_accessed_only,
    "device that is not translated": not_translated,
    "skipped levels": skipped_levels,
    "write-only leaf": write_only,
}

ILLEGAL = {
    "HAD of 2": (AMD_HOST, lambda table: (
        DTE_V | DTE_TV | DTE_RW | HAD_RESERVED << 7 | 4 << 9 | table.root, DOMAIN)),
    "mode 7": (AMD_HOST, lambda table: (DTE_V | DTE_TV | DTE_RW | 7 << 9 | table.root, DOMAIN)),
    "GV without gt=on": (AMD_HOST, lambda table: (DTE_V | DTE_TV | DTE_RW | 3 << 54, DOMAIN)),
    "nested tables": (AMD_BOTH, lambda table: (
        DTE_V | DTE_TV | DTE_RW | 3 << 54 | 4 << 9 | table.root, DOMAIN)),
    "guest tables of 5 levels": (AMD_BOTH, lambda table: (
        DTE_V | DTE_TV | DTE_RW | 3 << 54, DOMAIN, 1 << 54)),
}

GT = EFR_GT | EFR_GLX_2 | EFR_PASMAX_16 | EFR_GIO
ADVERTISED = {PLAIN: 0, AMD_HOST: EFR_HA | EFR_HD, AMD_GUEST: GT, AMD_BOTH: GT | EFR_HA | EFR_HD}


def cases():
    """(name, properties, function) of every rule."""
    for stage, properties in ((HOST, AMD_HOST), (GUEST, AMD_GUEST)):
        for name, function in PER_STAGE.items():
            def run(unit, stage=stage, function=function):
                function(unit, stage)
            yield f"{stage.name} {name}", properties, run
    for name, function in HOST_ONLY.items():
        yield f"{HOST.name} {name}", AMD_HOST, function
    yield f"{HOST.name} HAD without hd=on never marks", PLAIN, had_without_property
    yield f"{GUEST.name} supervisor's entry", AMD_GUEST, supervisor_only
    yield f"{GUEST.name} GCR3 tables", AMD_GUEST, gcr3_tables
    yield f"{GUEST.name} table that is not memory", AMD_GUEST, guest_table_out_of_reach
    yield "AMD changing the format", AMD_BOTH, other_format
    for name, (properties, words) in ILLEGAL.items():
        def illegal(unit, words=words):
            illegal_entry(unit, words)
        yield f"AMD illegal entry: {name}", properties, illegal
    for properties, expected in ADVERTISED.items():
        def offer(unit, expected=expected):
            advertised(unit, expected)
        yield f"advertised by {','.join(properties)}", properties, offer
    yield from link_cache.cases()
    yield from event_log.cases()
    yield from interrupts.cases()
