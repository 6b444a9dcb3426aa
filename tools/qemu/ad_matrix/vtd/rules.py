# SPDX-License-Identifier: GPL-2.0
"""Rules that the matrix does not reach, one case each."""

import mapped_writes
import race
from machine import EDU_BAR
from matrix import BOTH_STAGES, SECOND_ONLY
from rig import (DOMAIN, NOT_PRESENT, OTHER_DOMAIN, REFUSED_INTERRUPT_RANGE, REFUSED_READ,
                 REFUSED_WRITE, UPDATE_FAILED, Bench, try_flushes)
from tables import FIRST, RAM_PAGES_SPARE, SECOND, TARGET, PageTable
from vtd import capabilities, pasid_table

INTERRUPT_RANGE = 0xFEE0_0000


def refusal(stage, to_memory):
    """The reason with which an absent entry refuses."""
    if stage.name in NOT_PRESENT:
        return NOT_PRESENT[stage.name]
    return (REFUSED_WRITE if to_memory else REFUSED_READ)[stage.name]


def absent_entry(unit, stage):
    """A of earlier levels stays when a later level is not present."""
    for level in range(4):
        for to_memory in (False, True):
            bench = Bench(unit, stage)
            bench.table.store(bench.table.slots[level], 0)
            bench.refused(to_memory, refusal(stage, to_memory))
            bench.expect_above(level)
            bench.check(f"an access that level {level} refuses")


def read_only_above(unit, stage):
    """A write is refused at the level that forbids it, however high."""
    for level in range(1, 4):
        bench = Bench(unit, stage)
        slot = bench.table.slots[level]
        bench.table.store(slot, bench.table.load(slot) & ~stage.writable)
        bench.refused(True, REFUSED_WRITE[stage.name])
        bench.expect_above(level)
        bench.check(f"a write that level {level} refuses")
        bench.read()
        bench.expect_read()
        bench.refused(True, REFUSED_WRITE[stage.name])
        bench.check(f"a read that level {level} permits, then a write")


def write_only(unit):
    """A second-stage leaf may permit writes alone."""
    bench = Bench(unit, SECOND)
    bench.table.change_leaf(clear=1)
    bench.write()
    bench.expect_write()
    bench.check("a write to a write-only leaf")
    bench.refused(False, REFUSED_READ[SECOND.name])
    bench.clear()
    bench.flush()
    bench.refused(False, REFUSED_READ[SECOND.name])
    bench.expect_above(bench.table.leaf_level)
    bench.check("a refused read of a write-only leaf")


def preset_accessed(unit, stage):
    """A write sets D where software, or an earlier read, has set A."""
    bench = Bench(unit, stage)
    bench.table.change_leaf(add=stage.accessed)
    bench.write()
    bench.expect_write()
    bench.check("a write to a leaf with A set")


def preset_dirty(unit, stage):
    """A leaf that is dirty already gains A and nothing else."""
    bench = Bench(unit, stage)
    bench.table.change_leaf(add=stage.dirty)
    bench.read()
    bench.expect_read()
    bench.check("a read of a leaf with D set")
    bench.write()
    bench.check("a write to a leaf with D set")


def dirty_is_cached(unit, stage):
    """A translation cached from a dirty leaf is a dirty one."""
    bench = Bench(unit, stage)
    bench.table.change_leaf(add=stage.dirty)
    bench.read()
    bench.expect_read()
    bench.clear(accessed=False)
    bench.write()
    bench.check("clearing D of a leaf that a read cached, and a write")


def only_accessed_cleared(unit, stage):
    """A that software clears comes back after a flush, not before."""
    bench = Bench(unit, stage)
    bench.write()
    bench.expect_write()
    bench.clear(dirty=False)
    bench.read()
    bench.write()
    bench.check("clearing A without a flush")
    bench.flush()
    bench.read()
    bench.expect_read()
    bench.check("clearing A with a flush")


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


def two_pages(unit, stage):
    """One transfer over a page boundary marks the leaves of both pages."""
    bench = Bench(unit, stage)
    table = bench.table
    second = table.leaf + 8
    bench.machine.dma(table.IOVA + 0x1000 - 8, to_memory=True, count=16)
    bench.expect_write()
    table.expected[second] |= stage.accessed | stage.dirty
    bench.check("a write over a page boundary")
    written = [bench.ram[(table.leaf_base() + 0xFF8) >> 3],
               bench.ram[(RAM_PAGES_SPARE + 0x1000) >> 3]]
    bench.read(table.IOVA + 0x1000, RAM_PAGES_SPARE + 0x1000)
    bench.check(f"reading the second page (it held {written})")


def interrupt_range(unit, stage):
    """A leaf into the interrupt range is refused, and so stays unmarked."""
    bench = Bench(unit, stage)
    bench.table.store(bench.table.leaf, INTERRUPT_RANGE | stage.leaf)
    bench.refused(True, REFUSED_INTERRUPT_RANGE, physical=TARGET)
    bench.expect_above(0)
    bench.check("a write into the interrupt range")


def permission_added(unit, stage):
    """A cached translation without the permission is walked anew."""
    bench = Bench(unit, stage)
    bench.table.change_leaf(clear=stage.writable)
    bench.read()
    bench.expect_read()
    bench.table.change_leaf(add=stage.writable)
    bench.write()
    bench.expect_write()
    bench.check("a write through a leaf that has become writable")


def table_out_of_reach(unit, stage):
    """An entry that cannot be changed refuses the access that must mark it."""
    bench = Bench(unit, stage)
    # The leaf's table is the device's own registers: its entry 17 is where the
    # target of the transfer is held, and that is the address itself.
    address = bench.table.IOVA & -1 << 21 | 17 << 12 | stage.table
    bench.table.store(bench.table.slots[1], EDU_BAR | stage.table)
    bench.refused(True, UPDATE_FAILED[stage.name], address, physical=TARGET)
    bench.expect_above(0)
    bench.check("a write through a table that is not memory")


def legacy_never_marks(unit):
    """Legacy mode never marks, also on a unit that could."""
    bench = Bench(unit, SECOND, legacy=True)
    bench.read()
    bench.write()
    bench.flush()
    bench.write()
    bench.check("accesses in legacy mode")


def legacy_refuses(unit):
    """Legacy mode refuses writes to read-only leaves, cached or not."""
    bench = Bench(unit, SECOND, legacy=True)
    bench.table.change_leaf(clear=SECOND.writable)
    bench.refused(True, REFUSED_WRITE[SECOND.name])
    bench.read()
    bench.refused(True, REFUSED_WRITE[SECOND.name])
    bench.check("refused accesses in legacy mode")


PER_STAGE = {
    "A above an absent entry stays": absent_entry,
    "read-only above the leaf": read_only_above,
    "D where A is preset": preset_accessed,
    "preset D is kept": preset_dirty,
    "a dirty leaf is cached as dirty": dirty_is_cached,
    "only A cleared": only_accessed_cleared,
    "which flushes renew": flushes,
    "transfer over two pages": two_pages,
    "interrupt range is never marked": interrupt_range,
    "added permission needs no flush": permission_added,
    "table that is not memory": table_out_of_reach,
    "concurrent change is never undone": race.concurrent_change,
    "mapped memory is marked when written": mapped_writes.written_when_done,
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
