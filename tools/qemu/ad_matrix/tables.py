# SPDX-License-Identifier: GPL-2.0
"""Page tables of every format in guest memory, and what a walk should leave there."""

ENTRIES = 512
SIZES = {"4K": 0, "2M": 1, "1G": 2}

# Where the tables and the pages that the device reaches lie in guest memory.
TABLES = 0x0020_0000
TABLES_SIZE = 0x0001_0000
TARGET = 0x0080_0000
TARGET_SIZE = 0x0040_0000       # of one of several; one alone may have twice as much
RAM_PAGES_SPARE = 0x0400_0000

# Rows of equal entries that are one leaf: the level that holds them, and how many
# there are, as a power of two.
ROWS = {"64K": (0, 4), "8M": (1, 2)}


class Stage:
    """The bits of one page table format."""

    # Bits that software may use: a walk must carry them along.
    software = 0x1A5 << 52

    def __init__(self, name, table, leaf, writable, accessed, dirty, pgtt=0):
        self.name = name
        self.table = table          # bits of an entry that names a table
        self.leaf = leaf            # bits of a writable leaf
        self.writable = writable
        self.accessed = accessed
        self.dirty = dirty
        self.pgtt = pgtt            # the type in the PASID table entry
        self.large = 1 << 7
        # Nothing switches the flags off.
        self.live = name in ("first-stage", "AMD v2")

    def table_bits(self, _level):
        """The bits of an entry at a level that names a table."""
        return self.table

    def row_bits(self, _order):
        raise NotImplementedError(f"{self.name} tables have no rows of entries")


class HostStage(Stage):
    """AMD's own format: an entry names the level that it leads to."""

    software = 1 << 63 | 1 << 8 | 1 << 3 | 1 << 1

    def __init__(self, name, *bits):
        super().__init__(name, *bits)
        self.large = 0

    def table_bits(self, level):
        return self.table | level << 9

    def row_bits(self, order):
        """What a leaf of so many pages, as a power of two, has beside its address."""
        return 7 << 9 | ((1 << order - 1) - 1) << 12


SECOND = Stage("second-stage", 0x3, 0x3, 1 << 1, 1 << 8, 1 << 9, 2)
FIRST = Stage("first-stage", 0x7, 0x7, 1 << 1, 1 << 5, 1 << 6, 1)
HOST = HostStage("AMD v1", 3 << 61 | 1, 3 << 61 | 1, 1 << 62, 1 << 5, 1 << 6)
GUEST = Stage("AMD v2", 0x7, 0x7, 1 << 1, 1 << 5, 1 << 6)


def index(address, level):
    """The index into the table of a level, level 0 holding 4K leaves."""
    return address >> (12 + 9 * level) & (ENTRIES - 1)


def beside(slot, step):
    """The slot so many entries after one, in the same table, which has no end."""
    return slot & ~0xFFF | slot + 8 * step & 0xFFF


class PageTable:
    """A table tree with one leaf of interest and written neighbours everywhere.

    `expected` holds what every word of the tree should be. Nothing but `store`
    and `mark` changes it; `differences` compares it with guest memory.
    """

    # No index is 0, and no two levels share one.
    IOVA = 3 << 39 | 5 << 30 | 7 << 21 | 9 << 12

    def __init__(self, ram, stage, size="4K", place=0, levels=4, iova=None):
        """One of several that exist side by side is given another place.

        A size is the name of one, or the level of the leaf and how many entries are in
        its row, as a power of two."""
        self.ram = ram
        self.stage = stage
        self.levels = levels
        if iova is not None:
            self.IOVA = iova
        if isinstance(size, tuple):
            self.leaf_level, self.row = size
        else:
            self.leaf_level, self.row = ROWS.get(size) or (SIZES[size], 0)
        # How many pages of 4 KiB the leaf maps, as a power of two.
        self.order = 9 * self.leaf_level + self.row
        self.expected = {}
        self._next_table = TABLES + place * TABLES_SIZE
        self._tables_end = self._next_table + TABLES_SIZE
        self._target = TARGET + place * TARGET_SIZE
        for word in range(self._next_table >> 3, self._tables_end >> 3):
            ram[word] = 0
        self.root = self._new_table()
        self.slots = {}             # level: where the entry on the path lies
        self._grow()

    def _new_table(self):
        table = self._next_table
        self._next_table += 8 * ENTRIES
        if self._next_table > self._tables_end:
            raise ValueError("the tables do not fit: raise TABLES_SIZE")
        for slot in range(table, table + 8 * ENTRIES, 8):
            self.expected[slot] = 0
        return table

    def _grow(self):
        table = self.root
        for level in range(self.levels - 1, self.leaf_level - 1, -1):
            slot = table + 8 * index(self.IOVA, level)
            self.slots[level] = slot
            if level == self.leaf_level:
                self._add_neighbours(slot, level)
                first = slot & -8 << self.row
                for entry in range(first, first + (8 << self.row), 8):
                    self.store(entry, self.leaf_word())
                return
            table = self._new_table()
            self.store(slot, table | self.stage.table_bits(level) | self.stage.software)
            # Beside it one that leads to the same table, never walked.
            self.store(beside(slot, 1), table | self.stage.table_bits(level))

    def leaf_base(self):
        """The address that the leaf maps, aligned to its size."""
        if self.order > 11:
            return 0
        if self.leaf_level == 1 or self.row:
            return self._target
        return self._target + 0x9000

    def leaf_word(self):
        large = self.stage.large if self.leaf_level else 0
        row = self.stage.row_bits(self.order) if self.row else 0
        return self.leaf_base() | self.stage.leaf | large | row | self.stage.software

    def _add_neighbours(self, slot, level):
        size = 1 << (12 + 9 * level)
        large = self.stage.large if level else 0
        for step in (-1, 1):
            base = RAM_PAGES_SPARE + step * size if level < 2 else 0
            self.store(beside(slot, step), base | self.stage.leaf | large)

    def map_window(self, level_1_index, physical):
        """Map 2 MiB beside the leaf of interest, marked as much as can be."""
        slot = (self.slots[1] & ~0xFFF) + 8 * level_1_index
        self.store(slot, physical | self.stage.leaf | self.stage.large
                   | self.stage.accessed | self.stage.dirty)
        return self.IOVA & -1 << 30 | level_1_index << 21

    def split(self, base):
        """Put a table in the place of the leaf. Its parts are leaves of the level below, clean,
        and lead to `base`: pages to one after the other, larger ones to the same 2 MiB."""
        link = self.leaf
        level = self.leaf_level - 1
        table = self._new_table()
        for part in range(ENTRIES):
            target = base + (0 if level else part << 12)
            self.store(table + 8 * part,
                       target | self.stage.leaf | (self.stage.large if level else 0))
        self.store(link, table | self.stage.table_bits(self.leaf_level))
        self.slots[level] = table + 8 * index(self.IOVA, level)
        self.leaf_level = level
        self.order = 9 * level

    @property
    def leaf(self):
        """Where the leaf lies."""
        return self.slots[self.leaf_level]

    def physical(self, address=None):
        """What an address under the leaf of interest should translate to."""
        address = self.IOVA if address is None else address
        return self.leaf_base() + (address & (1 << 12 + self.order) - 1)

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
        return range(self.leaf_level, self.levels)

    def above(self, level):
        return range(level + 1, self.levels)

    def differences(self):
        """Words that are not as expected, as text."""
        names = {slot: f"level {level}" for level, slot in self.slots.items()}
        return [
            f"{names.get(slot, 'a neighbour')} at {slot:#x}: "
            f"{self.load(slot):#018x}, expected {word:#018x}"
            for slot, word in sorted(self.expected.items())
            if self.load(slot) != word
        ]
