# SPDX-License-Identifier: GPL-2.0
"""Rules of a VT-d unit with paging-structure caches (walk-cache=on)."""

from properties import BOTH_STAGES, SECOND_ONLY
from rig import DOMAIN, OTHER_DOMAIN, Rig
from tables import FIRST, SECOND, PageTable

REMEMBERS = ("walk-cache=on",)


def relink(rig):
    """Lead the path to the leaf table of another tree, and return that."""
    other = PageTable(rig.ram, rig.stage, place=1)
    table = rig.table
    table.store(table.slots[1], other.leaf & ~0xFFF | rig.stage.table_bits(1))
    return other


def remembered(unit, stage):
    """An invalidation without IH that covers the link renews it, no other does."""
    page = PageTable.IOVA
    flush_pages = unit.flush_pages if stage is SECOND else unit.flush_first_stage_pages
    covering = [
        unit.flush_iotlb,
        lambda: unit.flush_domain(DOMAIN),
        lambda: flush_pages(DOMAIN, page),
        # Another page that the link leads to as well, and all that it leads to.
        lambda: flush_pages(DOMAIN, page ^ 1 << 12),
        lambda: flush_pages(DOMAIN, page & -1 << 30, 18),
    ]
    foreign = [
        lambda: flush_pages(DOMAIN, page, leaves=True),
        lambda: flush_pages(DOMAIN, page & -1 << 30, 18, leaves=True),
        lambda: flush_pages(DOMAIN, page ^ 1 << 21),
        lambda: flush_pages(OTHER_DOMAIN, page),
        lambda: unit.flush_domain(OTHER_DOMAIN),
        unit.flush_contexts,
        unit.flush_pasids,
    ]
    if stage is FIRST:
        covering.append(lambda: unit.flush_first_stage(DOMAIN))
        foreign.append(lambda: unit.flush_first_stage(OTHER_DOMAIN))
    for renews, group in ((True, covering), (False, foreign)):
        for flush in group:
            rig = Rig(unit, stage)
            rig.write()
            other = relink(rig)
            unit.flush_leaves(stage, DOMAIN, page)
            rig.write()
            flush()
            unit.flush_leaves(stage, DOMAIN, page)
            rig.write(physical=(other if renews else rig.table).physical())


def not_remembered(unit, stage):
    """Without the property a link is read by each walk."""
    rig = Rig(unit, stage)
    rig.write()
    other = relink(rig)
    unit.flush_leaves(stage, DOMAIN, PageTable.IOVA)
    rig.write(physical=other.physical())


def cases():
    """(name, properties, function) of every rule."""
    for stage, properties in ((SECOND, SECOND_ONLY), (FIRST, BOTH_STAGES)):
        def run(unit, stage=stage):
            remembered(unit, stage)
        yield f"{stage.name} links are remembered", properties + REMEMBERS, run

        def run_without(unit, stage=stage):
            not_remembered(unit, stage)
        yield f"{stage.name} links are not remembered", properties, run_without
