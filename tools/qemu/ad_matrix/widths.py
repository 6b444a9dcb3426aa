# SPDX-License-Identifier: GPL-2.0
"""Every width of an address, level of a leaf and size of a page, up to the last address."""

from machine import RAM_SIZE
from properties import AMD_GUEST, AMD_HOST, BOTH_STAGES, SECOND_ONLY
from rig import NOT_PRESENT, Failed, Rig
from tables import FIRST, GUEST, HOST, SECOND, TARGET, PageTable

# In AMD's own format a leaf may be a row of up to half a table, and leaves lie on every level
# but the sixth.
HOST_ROWS = range(9)
HOST_LEVELS = range(1, 7)
HOST_LEAVES = 5

MIDDLE = PageTable.IOVA | 11 << 48 | 13 << 57
PLAIN = ("x-scalable-mode=off",)
NARROW = ("x-scalable-mode=on", "ssads=on", "aw-bits=39")


def _reach(rig):
    """The device writes into the leaf, clean; where there is no memory, only the flags tell."""
    table = rig.table
    for address in (table.IOVA, table.IOVA | (1 << 12 + table.order) - 8):
        rig.clear()
        if table.physical(address) < RAM_SIZE:
            rig.write(address)
        else:
            rig.machine.dma(address, to_memory=True)
            if rig.unit.fault():
                raise Failed(f"a write to {address:#x} is refused")
        slot = table.slots[table.leaf_level]
        last = address != table.IOVA and table.row
        if last:
            # The entry that the last address indexes is the last of the row.
            slot = slot & -8 << table.row | (8 << table.row) - 8
        if rig.marks:
            for level in table.above(table.leaf_level):
                table.expected[table.slots[level]] |= rig.stage.accessed
            table.expected[slot] |= rig.stage.accessed | rig.stage.dirty
        rig.check(f"a write to {address:#x} of a leaf of {12 + table.order} bits, "
                    f"{table.levels} levels")
        rig.flush()


def _inside(start, order):
    """An address of a leaf, whose offset lies in memory that is not used otherwise."""
    return start & -1 << 12 + order | (TARGET | 0x9000) & (1 << 12 + order) - 1


def every_leaf(unit, stage, levels, sizes, first, last, settings):
    """Leaves at the first address, in the middle, and at the last."""
    for size in sizes:
        order = 9 * size[0] + size[1]
        for start in (first, first + (MIDDLE & last - first), last):
            iova = _inside(start, order) if order else start & ~0xFFF
            _reach(Rig(unit, stage, size, levels=levels, iova=iova, **settings))


def beyond(unit, stage, levels):
    """The first address that the levels do not translate is refused."""
    address = 1 << 12 + 9 * levels
    rig = Rig(unit, stage, levels=levels, iova=0)
    rig.refused(True, NOT_PRESENT[stage.name], address, rig.table.physical(0))
    rig.check(f"a write to {address:#x}")


def top_leaf(unit, levels):
    """The sixth level has no leaves."""
    rig = Rig(unit, HOST, levels=levels, iova=1 << 63)
    rig.table.store(rig.table.slots[levels - 1], HOST.leaf)
    rig.refused(True, 0x90, 1 << 63, TARGET)
    rig.check("a leaf of the sixth level")


# stage, properties, levels, the first and the last address, how the device is entered.
OTHERS = [
    (SECOND, SECOND_ONLY, 4, 0, (1 << 48) - 1, {}),
    (SECOND, SECOND_ONLY, 3, 0, (1 << 39) - 1, {}),
    (SECOND, NARROW, 3, 0, (1 << 39) - 1, {}),
    (SECOND, PLAIN, 4, 0, (1 << 48) - 1, {"legacy": True}),
    (SECOND, PLAIN, 3, 0, (1 << 39) - 1, {"legacy": True}),
    (FIRST, BOTH_STAGES, 4, 0, (1 << 47) - 1, {}),
    (FIRST, BOTH_STAGES, 4, (1 << 64) - (1 << 47), (1 << 64) - 1, {}),
    (GUEST, AMD_GUEST, 4, 0, (1 << 48) - 1, {}),
]


def cases():
    """(name, properties, function) of every case."""
    for levels in HOST_LEVELS:
        last = (1 << min(12 + 9 * levels, 64)) - 1
        for leaf in range(min(levels, HOST_LEAVES)):
            def host(unit, levels=levels, leaf=leaf, last=last):
                every_leaf(unit, HOST, levels, [(leaf, row) for row in HOST_ROWS], 0, last, {})
            yield f"{HOST.name} width of {levels} levels, leaves at {leaf}", AMD_HOST, host
        if levels < 6:
            def outside(unit, levels=levels):
                beyond(unit, HOST, levels)
            yield f"{HOST.name} width of {levels} levels, beyond", AMD_HOST, outside
    yield f"{HOST.name} width of 6 levels, a leaf at the sixth", AMD_HOST, lambda unit: top_leaf(unit, 6)
    for stage, properties, levels, first, last, settings in OTHERS:
        for leaf in range(3):
            def other(unit, stage=stage, levels=levels, leaf=leaf, first=first, last=last,
                      settings=settings):
                every_leaf(unit, stage, levels, [(leaf, 0)], first, last, settings)
            yield (f"{stage.name} width up to {last:#x}, leaves at {leaf}, "
                   f"{','.join(properties)}", properties, other)
