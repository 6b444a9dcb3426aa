# SPDX-License-Identifier: GPL-2.0
"""Leaves that become smaller or larger without a flush: what was cached is used until then.

With late-flags=on a write through a leaf that was cached as clean sets D where the leaf was,
whatever is there now. With walk-cache=on a link is used that was cached, although a leaf has
taken its place."""

from properties import AMD_GUEST, AMD_HOST, BOTH_STAGES, SECOND_ONLY
from rig import DOMAIN, Rig
from rules import refusal
from tables import FIRST, GUEST, HOST, SECOND, TARGET, TARGET_SIZE, index

LATE = ("late-flags=on",)
REMEMBERS = ("walk-cache=on",)

STAGES = ((SECOND, SECOND_ONLY), (FIRST, BOTH_STAGES), (HOST, AMD_HOST), (GUEST, AMD_GUEST))

# Where the device's writes go that are translated by the new entries, so that memory shows which
# ones were used. Hardware may assume that both lead to the same page.
ELSEWHERE = TARGET + TARGET_SIZE
OFFSET = (1 << 21) - 1


class Split:
    """A leaf that was cached as clean, and that a table has taken the place of."""

    def __init__(self, unit, stage, size):
        self.rig = Rig(unit, stage, size)
        self.rig.read()
        self.rig.expect_read()
        table = self.rig.table
        self.address = table.IOVA
        self.order = table.order
        self.link = table.leaf
        self.old = table.physical()
        table.split(ELSEWHERE)

    def new(self, address=None):
        return ELSEWHERE + ((address or self.address) & OFFSET)

    def expect_late(self):
        self.rig.table.expected[self.link] |= self.rig.stage.dirty

    def flush(self):
        """Invalidate all of the leaf, and links."""
        address = self.address & -1 << 12 + self.order
        self.rig.unit.flush_translation(self.rig.stage, DOMAIN, address, self.order)


def late(unit, stage, size):
    """The old leaf is used until the flush, and D lands where it was."""
    split = Split(unit, stage, size)
    for _ in range(2):
        split.rig.write(physical=split.old)
        split.expect_late()
        split.rig.check("a write through the cached leaf")
    split.flush()
    split.rig.write(physical=split.new())
    split.rig.expect_write()
    split.rig.check("a write after the flush")


def walks_again(unit, stage, size):
    """Without the property such a write walks."""
    split = Split(unit, stage, size)
    split.rig.write(physical=split.new())
    split.rig.expect_write()
    split.rig.check("a write through a leaf that has become smaller")


def both_sizes(unit, stage, size):
    """The old leaf translates for one page, and a part of it for another."""
    split = Split(unit, stage, size)
    rig, table = split.rig, split.rig.table
    other = split.address ^ 1 << 12
    rig.write(other, split.new(other))
    table.mark(table.above(table.leaf_level))
    part = (table.leaf & ~0xFFF) + 8 * index(other, table.leaf_level)
    table.expected[part] |= stage.accessed | stage.dirty
    rig.check("a write to a page that was not cached")
    rig.write(physical=split.old)
    split.expect_late()
    rig.check("a write to the page that was")
    rig.write(other, split.new(other))
    rig.check("a write to the other one again")


def flag_is_needed_once(unit, stage, size):
    """A leaf that was cached as dirty sets no flag in what is there now."""
    rig = Rig(unit, stage, size)
    rig.write()
    rig.expect_write()
    old = rig.table.physical()
    rig.table.split(ELSEWHERE)
    rig.write(physical=old)
    rig.check("a write through a leaf that was cached as dirty")


def gone(unit, stage, size):
    """Where there is no entry any more the write walks, and nothing is set."""
    rig = Rig(unit, stage, size)
    rig.read()
    rig.expect_read()
    rig.table.store(rig.table.leaf, 0)
    rig.refused(True, refusal(stage, True))
    rig.check("a write to a page that was unmapped")


def as_leaf(unit, stage, size):
    """The leaf itself becomes dirty, as by a walk."""
    rig = Rig(unit, stage, size)
    rig.read()
    rig.expect_read()
    rig.write()
    rig.expect_write()
    rig.check("a read and a write")
    rig.clear()
    rig.write()
    rig.check("clearing D without a flush")
    rig.flush()
    rig.write()
    rig.expect_write()
    rig.check("clearing D with a flush")


def joined(unit, stage):
    """A link is used until a flush of links, though a leaf has taken its place."""
    rig = Rig(unit, stage)
    table = rig.table
    rig.write()
    old = table.physical()
    new = ELSEWHERE + (table.IOVA & OFFSET)
    table.store(table.slots[1], ELSEWHERE | stage.leaf | stage.large)
    unit.flush_leaves(stage, DOMAIN, table.IOVA)
    rig.write(physical=old)
    unit.flush_translation(stage, DOMAIN, table.IOVA)
    rig.write(physical=new)


def cases():
    """(name, properties, function) of every rule."""
    for stage, properties in STAGES:
        for size in ("2M", "1G"):
            for name, more, function in (
                ("late D lands in the link", LATE, late),
                ("no late D without the property", (), walks_again),
                ("both sizes are used", LATE, both_sizes),
                ("D that was cached is not late", LATE, flag_is_needed_once),
            ):
                def run(unit, stage=stage, size=size, function=function):
                    function(unit, stage, size)
                yield f"{stage.name} {size} split: {name}", properties + more, run
        for size in ("4K", "2M"):
            for name, function in (("late D of a leaf", as_leaf),
                                   ("no late D where there is no entry", gone)):
                def run_leaf(unit, stage=stage, size=size, function=function):
                    function(unit, stage, size)
                yield f"{stage.name} {size} {name}", properties + LATE, run_leaf

        def run_joined(unit, stage=stage):
            joined(unit, stage)
        yield f"{stage.name} joined: the link is remembered", properties + REMEMBERS, run_joined
