# SPDX-License-Identifier: GPL-2.0
"""Rules of the VT-d unit: which flushes renew, what is never marked, legacy mode."""

import rules
from machine import EDU_BAR
from properties import BOTH_STAGES, SECOND_ONLY
from rig import (DOMAIN, OTHER_DOMAIN, REFUSED_INTERRUPT_RANGE, REFUSED_READ, REFUSED_WRITE,
                 UPDATE_FAILED, Rig, try_flushes)
from tables import FIRST, SECOND, TARGET, PageTable
from vtd import capabilities, pasid_table

INTERRUPT_RANGE = 0xFEE0_0000


def write_only(unit):
    """A second-stage leaf may permit writes alone."""
    rig = Rig(unit, SECOND)
    rig.table.change_leaf(clear=1)
    rig.write()
    rig.expect_write()
    rig.check("a write to a write-only leaf")
    rig.refused(False, REFUSED_READ[SECOND.name])
    rig.clear()
    rig.flush()
    rig.refused(False, REFUSED_READ[SECOND.name])
    rig.expect_above(rig.table.leaf_level)
    rig.check("a refused read of a write-only leaf")


def flushes(unit, stage):
    """Each invalidation that covers the leaf renews it, no other does."""
    covering = [unit.flush_iotlb, lambda: unit.flush_domain(DOMAIN)]
    foreign = [lambda: unit.flush_domain(OTHER_DOMAIN),
               lambda: unit.flush_pages(OTHER_DOMAIN, PageTable.IOVA),
               unit.flush_contexts, unit.flush_pasids]
    if stage is FIRST:
        covering += [lambda: unit.flush_first_stage(DOMAIN),
                     lambda: unit.flush_first_stage_pages(DOMAIN, PageTable.IOVA),
                     lambda: unit.flush_pages(DOMAIN, PageTable.IOVA)]
        foreign += [lambda: unit.flush_first_stage(OTHER_DOMAIN),
                    lambda: unit.flush_first_stage(DOMAIN, pasid=1),
                    lambda: unit.flush_first_stage_pages(DOMAIN, 1 << 30)]
    else:
        covering += [lambda: unit.flush_pages(DOMAIN, PageTable.IOVA, order=4)]
        foreign += [lambda: unit.flush_first_stage_pages(DOMAIN, PageTable.IOVA),
                    lambda: unit.flush_pages(DOMAIN, 1 << 30)]
    try_flushes(unit, stage, covering, foreign)


def interrupt_range(unit, stage):
    """A leaf into the interrupt range is refused, and so stays unmarked."""
    rig = Rig(unit, stage)
    rig.table.store(rig.table.leaf, INTERRUPT_RANGE | stage.leaf)
    rig.refused(True, REFUSED_INTERRUPT_RANGE, physical=TARGET)
    rig.expect_above(0)
    rig.check("a write into the interrupt range")


def table_out_of_reach(unit, stage):
    """An entry that cannot be changed refuses the access that must mark it."""
    rig = Rig(unit, stage)
    # The leaf's table is the device's own registers: its entry 17 is where the
    # target of the transfer is held, and that is the address itself.
    address = rig.table.IOVA & -1 << 21 | 17 << 12 | stage.table
    rig.table.store(rig.table.slots[1], EDU_BAR | stage.table)
    rig.refused(True, UPDATE_FAILED[stage.name], address, physical=TARGET)
    rig.expect_above(0)
    rig.check("a write through a table that is not memory")


def legacy_never_marks(unit):
    """Legacy mode never marks, also on a unit that could."""
    rig = Rig(unit, SECOND, legacy=True)
    rig.read()
    rig.write()
    rig.flush()
    rig.write()
    rig.check("accesses in legacy mode")


def legacy_refuses(unit):
    """Legacy mode refuses writes to read-only leaves, cached or not."""
    rig = Rig(unit, SECOND, legacy=True)
    rig.table.change_leaf(clear=SECOND.writable)
    rig.refused(True, REFUSED_WRITE[SECOND.name])
    rig.read()
    rig.refused(True, REFUSED_WRITE[SECOND.name])
    rig.check("refused accesses in legacy mode")


PER_STAGE = rules.EVERY_STAGE | {
    "which flushes renew": flushes,
    "interrupt range is never marked": interrupt_range,
    "table that is not memory": table_out_of_reach,
}


def cases():
    """(name, properties, function) of every rule."""
    for stage, properties in ((SECOND, SECOND_ONLY), (SECOND, BOTH_STAGES),
                              (FIRST, BOTH_STAGES)):
        where = "on a unit with both stages " if (
            stage is SECOND and properties is BOTH_STAGES) else ""
        for name, function in PER_STAGE.items():
            def run(unit, stage=stage, function=function):
                function(unit, stage)
            yield f"{stage.name} {where}{name}", properties, run
    yield "second-stage write-only leaf", SECOND_ONLY, write_only
    for properties in (SECOND_ONLY, ()):
        unit_name = "scalable unit" if properties else "legacy unit"
        yield f"{unit_name} never marks in legacy mode", properties, legacy_never_marks
        yield f"{unit_name} refuses in legacy mode", properties, legacy_refuses
    yield from pasid_table.cases()
    yield from capabilities.cases()
