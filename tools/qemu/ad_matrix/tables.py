# SPDX-License-Identifier: GPL-2.0
"""Page tables of both stages in guest memory, and what a walk should leave there."""

ENTRIES = 512
LEVELS = 4
SIZES = {"4K": 0, "2M": 1, "1G": 2}

# Where the tables and the pages that the device reaches lie in guest memory.
TABLES = 0x0020_0000
TABLES_END = 0x0021_0000
TARGET = 0x0080_0000
RAM_PAGES_SPARE = 0x0400_0000

# Bits that software may use in both formats: a walk must carry them along.
SOFTWARE_BITS = 0x1A5 << 52


class Stage:
    """The bits of one page table format."""

    def __init__(self, name, table, leaf, writable, accessed, dirty, pgtt):
        self.name = name
        self.table = table          # bits of an entry that names a table
        self.leaf = leaf            # bits of a writable leaf
        self.writable = writable
        self.accessed = accessed
        self.dirty = dirty
        self.pgtt = pgtt            # the type in the PASID table entry
        self.large = 1 << 7


SECOND = Stage("second-stage", 0x3, 0x3, 1 << 1, 1 << 8, 1 << 9, 2)
FIRST = Stage("first-stage", 0x7, 0x7, 1 << 1, 1 << 5, 1 << 6, 1)


def index(address, level):
    """The index into the table of a level, level 0 holding 4K leaves."""
    return address >> (12 + 9 * level) & (ENTRIES - 1)


class PageTable:
    """A table tree with one leaf of interest and written neighbours everywhere.

    `expected` holds what every word of the tree should be. Nothing but `store`
    and `mark` changes it; `differences` compares it with guest memory.
    """

    # No index is 0, and no two levels share one.
    IOVA = 3 << 39 | 5 << 30 | 7 << 21 | 9 << 12

    def __init__(self, ram, stage, size="4K"):
        self.ram = ram
        self.stage = stage
        self.leaf_level = SIZES[size]
        self.expected = {}
        self._next_table = TABLES
        for word in range(TABLES >> 3, TABLES_END >> 3):
            ram[word] = 0
        self.root = self._new_table()
        self.slots = {}             # level: where the entry on the path lies
        self._grow()

    def _new_table(self):
        table = self._next_table
        self._next_table += 8 * ENTRIES
        if self._next_table > TABLES_END:
            raise ValueError("the tables do not fit: raise TABLES_END")
        for slot in range(table, table + 8 * ENTRIES, 8):
            self.expected[slot] = 0
        return table

    def _grow(self):
        table = self.root
        for level in range(LEVELS - 1, self.leaf_level - 1, -1):
            slot = table + 8 * index(self.IOVA, level)
            self.slots[level] = slot
            if level == self.leaf_level:
                self.store(slot, self.leaf_word())
                self._add_neighbours(slot, level)
                return
            table = self._new_table()
            self.store(slot, table | self.stage.table | SOFTWARE_BITS)
            # Beside it one that leads to the same table, never walked.
            self.store(slot + 8, table | self.stage.table)

    def leaf_base(self):
        """The address that the leaf maps, aligned to its size."""
        if self.leaf_level == 2:
            return 0
        if self.leaf_level == 1:
            return TARGET
        return TARGET + 0x9000

    def leaf_word(self):
        large = self.stage.large if self.leaf_level else 0
        return self.leaf_base() | self.stage.leaf | large | SOFTWARE_BITS

    def _add_neighbours(self, slot, level):
        size = 1 << (12 + 9 * level)
        large = self.stage.large if level else 0
        for step in (-1, 1):
            base = self.leaf_base() if level == 2 else RAM_PAGES_SPARE + step * size
            self.store(slot + 8 * step, base | self.stage.leaf | large)

    def map_window(self, level_1_index, physical):
        """Map 2 MiB beside the leaf of interest, marked as much as can be."""
        slot = (self.slots[1] & ~0xFFF) + 8 * level_1_index
        self.store(slot, physical | self.stage.leaf | self.stage.large
                   | self.stage.accessed | self.stage.dirty)
        return self.IOVA & -1 << 30 | level_1_index << 21

    @property
    def leaf(self):
        """Where the leaf lies."""
        return self.slots[self.leaf_level]

    def physical(self, address=None):
        """What an address under the leaf of interest should translate to."""
        address = self.IOVA if address is None else address
        return self.leaf_base() + (address & (1 << (12 + 9 * self.leaf_level)) - 1)

    def store(self, slot, word):
        """Write an entry as a processor does, in one piece."""
        self.ram[slot >> 3] = word
        self.expected[slot] = word

    def load(self, slot):
        return self.ram[slot >> 3]

    def change_leaf(self, clear=0, add=0):
        self.store(self.leaf, self.load(self.leaf) & ~clear | add)

    def mark(self, levels, dirty=False):
        """Expect A on these levels, and D on the leaf."""
        for level in levels:
            self.expected[self.slots[level]] |= self.stage.accessed
        if dirty:
            self.expected[self.leaf] |= self.stage.dirty

    def path(self):
        """Every level that a walk to the leaf passes."""
        return range(self.leaf_level, LEVELS)

    def above(self, level):
        return range(level + 1, LEVELS)

    def differences(self):
        """Words that are not as expected, as text."""
        names = {slot: f"level {level}" for level, slot in self.slots.items()}
        return [
            f"{names.get(slot, 'a neighbour')} at {slot:#x}: "
            f"{self.load(slot):#018x}, expected {word:#018x}"
            for slot, word in sorted(self.expected.items())
            if self.load(slot) != word
        ]
