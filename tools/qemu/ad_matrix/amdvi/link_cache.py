# SPDX-License-Identifier: GPL-2.0
"""Rules of an AMD-Vi unit that caches links between page tables (walk-cache=on)."""

from amdvi.unit import CAPABILITY_IOMMU, NAME, NP_CACHE
from properties import AMD_GUEST, AMD_HOST
from rig import DOMAIN, NOT_PRESENT, OTHER_DOMAIN, Failed, Rig
from tables import GUEST, HOST, PageTable

REMEMBERS = ("walk-cache=on",)


def relink(rig):
    """Lead the path to the leaf table of another tree, and return that."""
    other = PageTable(rig.ram, rig.stage, place=1)
    table = rig.table
    table.store(table.slots[1], other.leaf & ~0xFFF | rig.stage.table_bits(1))
    return other


def forget_translation(rig):
    rig.unit.flush_pages(DOMAIN, rig.table.IOVA, guest=rig.stage.live, tables=False)


def remembered(unit, stage):
    """An invalidation with PDE that covers the link renews it, no other does."""
    guest = stage.live
    page = PageTable.IOVA
    covering = [
        unit.flush_all,
        lambda: unit.flush_domain(DOMAIN),
        lambda: unit.flush_pages(DOMAIN, page, guest=guest),
        # Another page that the link leads to as well.
        lambda: unit.flush_pages(DOMAIN, page ^ 1 << 12, guest=guest),
        lambda: unit.flush_pages(DOMAIN, page, 18, guest=guest),
    ]
    foreign = [
        lambda: unit.flush_pages(DOMAIN, page, 18, guest=guest, tables=False),
        lambda: unit.flush_pages(DOMAIN, page, guest=not guest),
        lambda: unit.flush_pages(DOMAIN, page ^ 1 << 21, guest=guest),
        lambda: unit.flush_pages(OTHER_DOMAIN, page, guest=guest),
        lambda: unit.flush_domain(OTHER_DOMAIN),
        lambda: unit.flush_device_tlb(page),
        unit.flush_entry,
    ]
    for renews, group in ((True, covering), (False, foreign)):
        for flush in group:
            rig = Rig(unit, stage)
            rig.write()
            other = relink(rig)
            forget_translation(rig)
            rig.write()
            flush()
            forget_translation(rig)
            rig.write(physical=(other if renews else rig.table).physical())


def not_remembered(unit, stage):
    """Without the property a link is read by each walk."""
    rig = Rig(unit, stage)
    rig.write()
    other = relink(rig)
    forget_translation(rig)
    rig.write(physical=other.physical())


def table_between(unit):
    """A link that skips levels is remembered with what it does not translate."""
    rig = Rig(unit, HOST)
    table = rig.table
    link = table.load(table.slots[3])
    leaf_table = table.leaf & ~0xFFF
    table.store(table.slots[3], leaf_table | HOST.table_bits(1))
    low = table.IOVA & -1 << 39 | table.IOVA & 0x1F_F000
    rig.write(low, table.physical())
    table.store(table.slots[3], link)
    rig.refused(True, NOT_PRESENT[HOST.name])
    unit.flush_pages(DOMAIN, table.IOVA, tables=False)
    rig.refused(True, NOT_PRESENT[HOST.name])
    unit.flush_pages(DOMAIN, low)
    rig.write()


def asks_for_more(unit, expected):
    """Whether the unit wants what becomes present to be invalidated."""
    _, header = unit.capability(CAPABILITY_IOMMU)
    if bool(header & NP_CACHE) != expected:
        raise Failed(f"the unit's capability is {header:#x}")


def cases():
    """(name, properties, function) of every rule."""
    for stage, properties in ((HOST, AMD_HOST), (GUEST, AMD_GUEST)):
        def run(unit, stage=stage):
            remembered(unit, stage)
        yield f"{stage.name} links are remembered", properties + REMEMBERS, run

        def run_without(unit, stage=stage):
            not_remembered(unit, stage)
        yield f"{stage.name} links are not remembered", properties, run_without
    for word, expected in (("on", True), ("off", False)):
        def asks(unit, expected=expected):
            asks_for_more(unit, expected)
        yield f"NpCache with np-cache={word}", (NAME, f"np-cache={word}"), asks
    yield f"{HOST.name} table between a link and its table", AMD_HOST + REMEMBERS, table_between
