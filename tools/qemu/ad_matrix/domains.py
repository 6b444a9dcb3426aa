# SPDX-License-Identifier: GPL-2.0
"""Cached translations belong to a domain, not to a device, until they are invalidated."""

from amdvi.unit import DTE_RW, FAULT_RW
from machine import BRIDGE, BRIDGED_BARS, EDU_BAR, EDU_SID, PASID, PASID_BAR, PASID_SID
from machine import PASID_REG_BUFFER
from properties import AMD_BOTH, AMD_HOST, BOTH_STAGES, SECOND_ONLY
from rig import DOMAIN, OTHER_DOMAIN, REFUSED_WRITE, Failed, Rig
from tables import FIRST, GUEST, HOST, SECOND, PageTable

REFUSED = 0b101
NEXT_PAGE = 1 << 12


class Others:
    """Page tables beside that of a rig, and which memory a write reached."""

    def __init__(self, rig, count=1):
        self.rig = rig
        self.tables = [rig.table, *(PageTable(rig.ram, rig.stage, place=place)
                                      for place in range(1, count + 1))]

    def write(self, access, reached, offset=0):
        """An access writes into the memory of that table, and of no other."""
        places = [table.leaf_base() + offset for table in self.tables]
        for number, place in enumerate(places):
            self.rig.ram[place >> 3] = 1 << 63 | number
        access(PageTable.IOVA + offset)
        changed = [number for number, place in enumerate(places)
                   if self.rig.ram[place >> 3] != 1 << 63 | number]
        if changed != [reached]:
            raise Failed(f"a write reached the memory of tables {changed}, "
                         f"expected {reached}")

    def map_next(self):
        """Map the page after the leaf of each table, to that after its memory."""
        for table in self.tables:
            table.store(table.leaf + 8, table.leaf_word() + NEXT_PAGE)


def _edu(unit, bar=EDU_BAR):
    return lambda address: unit.machine.dma(address, True, bar=bar)


def _other_device(unit):
    def write(address):
        unit.machine.write64(PASID_BAR + PASID_REG_BUFFER, 0x5EED)
        status = unit.machine.pasid_dma(None, address, True)
        if status:
            raise Failed(f"a write of the other device ends with status {status:#x}")
    return write


def one_domain(unit, stage):
    """A domain-id that two page tables share lets one device write by the other's."""
    rig = Rig(unit, stage)
    others = Others(rig)
    unit.set_device(PASID_SID, others.tables[1], DOMAIN)
    unit.flush_all()
    others.write(_edu(unit), 0)
    others.write(_other_device(unit), 0)
    unit.flush_domain(DOMAIN)
    if stage is FIRST:
        unit.flush_first_stage(DOMAIN)
    others.write(_other_device(unit), 1)
    others.write(_edu(unit), 1)


def two_domains(unit, stage):
    """Each domain-id has its own translations."""
    rig = Rig(unit, stage)
    others = Others(rig)
    unit.set_device(PASID_SID, others.tables[1], OTHER_DOMAIN)
    unit.flush_all()
    for _ in range(2):
        others.write(_edu(unit), 0)
        others.write(_other_device(unit), 1)


def one_domain_links(unit, stage):
    """Links between page tables belong to the domain, too."""
    rig = Rig(unit, stage)
    others = Others(rig)
    others.map_next()
    for domain, reached in ((DOMAIN, 0), (OTHER_DOMAIN, 1)):
        unit.set_device(PASID_SID, others.tables[1], domain)
        unit.flush_all()
        others.write(_edu(unit), 0)
        others.write(_other_device(unit), reached, NEXT_PAGE)


def permissions(unit, stage):
    """The permissions of a device's own entry are not cached for another device."""
    rig = Rig(unit, stage)
    unit.set_words(unit.words(PASID_SID)[0] & ~DTE_RW | 1 << 61,
                   *unit.words(PASID_SID)[1:], devices=(PASID_SID,))
    unit.flush_all()
    other = _other_device(unit)
    unit.machine.pasid_dma(None, PageTable.IOVA, False)
    rig.write()
    if unit.machine.pasid_dma(None, PageTable.IOVA, True) != REFUSED:
        raise Failed("a device writes that may read only")
    flags = [event[1] & ~FAULT_RW for event in unit.events(PASID_SID)[:1]]
    unit.clear_faults()
    if flags != [REFUSED_WRITE[stage.name]]:
        raise Failed(f"a device that may read only is refused with {flags}")
    rig.write()
    unit.set_words(*unit.words(EDU_SID), devices=(PASID_SID,))
    unit.flush_entry(PASID_SID)
    Others(rig).write(other, 0)


def kept(unit, stage):
    """Disabling and enabling the unit, or writing the table's register, invalidates nothing."""
    rig = Rig(unit, stage)
    others = Others(rig)
    others.write(_edu(unit), 0)
    rig.expect_write()
    unit.set_device(EDU_SID, others.tables[1], OTHER_DOMAIN)
    for change in (unit.switch_off_and_on, unit.set_device_table):
        rig.clear()
        change()
        others.write(_edu(unit), 0)
        rig.check("a write by a translation and an entry that are cached")
    unit.flush_all()
    others.write(_edu(unit), 1)


def behind_bridge(unit, stage):
    """Functions behind a bridge are identified by its bus, which gets its number late."""
    rig = Rig(unit, stage)
    others = Others(rig, 2)
    buses = {5: 1, 6: 2}
    for bus, number in buses.items():
        unit.set_device(bus << 8, others.tables[number], OTHER_DOMAIN + number)
    unit.flush_all()
    for bus in (*buses, 5):
        unit.machine.number_bus(bus)
        for bar in BRIDGED_BARS:
            others.write(_edu(unit, bar), buses[bus])
            others.write(_edu(unit), 0)
    for table in others.tables:
        table.mark(table.path(), dirty=True)
        if table.differences():
            raise Failed("; ".join(table.differences()))


STAGES = ((SECOND, BOTH_STAGES), (FIRST, BOTH_STAGES), (HOST, AMD_BOTH), (GUEST, AMD_BOTH))


def cases():
    """(name, properties, function) of every case."""
    def case(name, properties, function, stage):
        return f"{stage.name} {name}", properties, lambda unit: function(unit, stage)

    for stage, properties in STAGES:
        properties += (PASID,)
        yield case("one domain-id for two tables", properties, one_domain, stage)
        yield case("a domain-id for each table", properties, two_domains, stage)
        yield case("what does not invalidate", properties, kept, stage)
        if stage in (HOST, GUEST):
            yield case("a device's own permissions", properties, permissions, stage)
            yield case("one domain-id for two tables, links",
                       properties + ("walk-cache=on",), one_domain_links, stage)
    yield case("functions behind a bridge", SECOND_ONLY + (BRIDGE,), behind_bridge, SECOND)
    yield case("functions behind a bridge", AMD_HOST + (BRIDGE,), behind_bridge, HOST)
