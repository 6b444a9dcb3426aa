# SPDX-License-Identifier: GPL-2.0
"""Rules of an AMD-Vi unit that remembers what leads to page tables (walk-cache=on)."""

from amdvi.unit import CAPABILITY_IOMMU, NAME, NP_CACHE
from matrix import AMD_GUEST, AMD_HOST
from rig import DOMAIN, NOT_PRESENT, OTHER_DOMAIN, Bench, Failed
from tables import GUEST, HOST, PageTable

REMEMBERS = ("walk-cache=on",)


def relink(bench):
    """Lead the path to the leaf table of another tree, and return that."""
    other = PageTable(bench.ram, bench.stage, place=1)
    table = bench.table
    table.store(table.slots[1], other.leaf & ~0xFFF | bench.stage.table_bits(1))
    return other


def forget_translation(bench):
    bench.unit.flush_pages(DOMAIN, bench.table.IOVA, guest=bench.stage.live, tables=False)


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
            bench = Bench(unit, stage)
            bench.write()
            other = relink(bench)
            forget_translation(bench)
            bench.write()
            flush()
            forget_translation(bench)
            bench.write(physical=(other if renews else bench.table).physical())


def not_remembered(unit, stage):
    """Without the property a link is read by each walk."""
    bench = Bench(unit, stage)
    bench.write()
    other = relink(bench)
    forget_translation(bench)
    bench.write(physical=other.physical())


def table_between(unit):
    """A link that skips levels is remembered with what it does not translate."""
    bench = Bench(unit, HOST)
    table = bench.table
    link = table.load(table.slots[3])
    leaf_table = table.leaf & ~0xFFF
    table.store(table.slots[3], leaf_table | HOST.table_bits(1))
    low = table.IOVA & -1 << 39 | table.IOVA & 0x1F_F000
    bench.write(low, table.physical())
    table.store(table.slots[3], link)
    bench.refused(True, NOT_PRESENT[HOST.name])
    unit.flush_pages(DOMAIN, table.IOVA, tables=False)
    bench.refused(True, NOT_PRESENT[HOST.name])
    unit.flush_pages(DOMAIN, low)
    bench.write()


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
