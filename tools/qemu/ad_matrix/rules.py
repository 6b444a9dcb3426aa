# SPDX-License-Identifier: GPL-2.0
"""Rules of every format of page tables that the matrix does not reach, one case each."""

import mapped_writes
import race
from rig import NOT_PRESENT, REFUSED_READ, REFUSED_WRITE, Rig
from tables import RAM_PAGES_SPARE


def refusal(stage, to_memory):
    """The reason with which an absent entry refuses."""
    if stage.name in NOT_PRESENT:
        return NOT_PRESENT[stage.name]
    return (REFUSED_WRITE if to_memory else REFUSED_READ)[stage.name]


def absent_entry(unit, stage):
    """A of earlier levels stays when a later level is not present."""
    for level in range(4):
        for to_memory in (False, True):
            rig = Rig(unit, stage)
            rig.table.store(rig.table.slots[level], 0)
            rig.refused(to_memory, refusal(stage, to_memory))
            rig.expect_above(level)
            rig.check(f"an access that level {level} refuses")


def read_only_above(unit, stage):
    """A write is refused at the level that forbids it, however high."""
    for level in range(1, 4):
        rig = Rig(unit, stage)
        slot = rig.table.slots[level]
        rig.table.store(slot, rig.table.load(slot) & ~stage.writable)
        rig.refused(True, REFUSED_WRITE[stage.name])
        rig.expect_above(level)
        rig.check(f"a write that level {level} refuses")
        rig.read()
        rig.expect_read()
        rig.refused(True, REFUSED_WRITE[stage.name])
        rig.check(f"a read that level {level} permits, then a write")


def preset_accessed(unit, stage):
    """A write sets D where software, or an earlier read, has set A."""
    rig = Rig(unit, stage)
    rig.table.change_leaf(add=stage.accessed)
    rig.write()
    rig.expect_write()
    rig.check("a write to a leaf with A set")


def preset_dirty(unit, stage):
    """A leaf that is dirty already gains A and nothing else."""
    rig = Rig(unit, stage)
    rig.table.change_leaf(add=stage.dirty)
    rig.read()
    rig.expect_read()
    rig.check("a read of a leaf with D set")
    rig.write()
    rig.check("a write to a leaf with D set")


def dirty_is_cached(unit, stage):
    """A translation cached from a dirty leaf is a dirty one."""
    rig = Rig(unit, stage)
    rig.table.change_leaf(add=stage.dirty)
    rig.read()
    rig.expect_read()
    rig.clear(accessed=False)
    rig.write()
    rig.check("clearing D of a leaf that a read cached, and a write")


def only_accessed_cleared(unit, stage):
    """A that software clears comes back after a flush, not before."""
    rig = Rig(unit, stage)
    rig.write()
    rig.expect_write()
    rig.clear(dirty=False)
    rig.read()
    rig.write()
    rig.check("clearing A without a flush")
    rig.flush()
    rig.read()
    rig.expect_read()
    rig.check("clearing A with a flush")


def two_pages(unit, stage):
    """One transfer over a page boundary marks the leaves of both pages."""
    rig = Rig(unit, stage)
    table = rig.table
    second = table.leaf + 8
    rig.machine.dma(table.IOVA + 0x1000 - 8, to_memory=True, count=16)
    rig.expect_write()
    table.expected[second] |= stage.accessed | stage.dirty
    rig.check("a write over a page boundary")
    written = [rig.ram[(table.leaf_base() + 0xFF8) >> 3],
               rig.ram[(RAM_PAGES_SPARE + 0x1000) >> 3]]
    rig.read(table.IOVA + 0x1000, RAM_PAGES_SPARE + 0x1000)
    rig.check(f"reading the second page (it held {written})")


def permission_added(unit, stage):
    """A cached translation without the permission is walked anew."""
    rig = Rig(unit, stage)
    rig.table.change_leaf(clear=stage.writable)
    rig.read()
    rig.expect_read()
    rig.table.change_leaf(add=stage.writable)
    rig.write()
    rig.expect_write()
    rig.check("a write through a leaf that has become writable")


EVERY_STAGE = {
    "A above an absent entry stays": absent_entry,
    "read-only above the leaf": read_only_above,
    "D where A is preset": preset_accessed,
    "preset D is kept": preset_dirty,
    "a dirty leaf is cached as dirty": dirty_is_cached,
    "only A cleared": only_accessed_cleared,
    "transfer over two pages": two_pages,
    "added permission needs no flush": permission_added,
    "concurrent change is never undone": race.concurrent_change,
    "mapped memory is marked when written": mapped_writes.written_when_done,
}
