# SPDX-License-Identifier: GPL-2.0
"""PASIDs on the AMD-Vi unit: whose tables translate, what is refused, what is cached."""

from amdvi.unit import DTE_IR, DTE_RW, DTE_TV, DTE_V, FAULT_RW, NAME, PAGE_FAULT
from machine import PASID, PASID_BAR, PASID_REG_BUFFER, PASID_SID
from rig import DOMAIN, OTHER_DOMAIN, Failed
from tables import GUEST, PageTable

PROPERTIES = (NAME, "gt=on", PASID)

FAULT_GN, FAULT_PR, FAULT_PE = 1 << 0, 1 << 4, 1 << 6

REFUSED = {True: 0b101, False: 0b011}
NOT_TRIED = 0b1001


class Lanes:
    """A device with a page table for each of some PASIDs, all of the same addresses."""

    _patterns = 0

    def __init__(self, unit, pasids, glx=0, untagged=True):
        self.unit = unit
        self.machine = unit.machine
        self.ram = unit.ram
        self.tables = {pasid: PageTable(self.ram, GUEST, place=place)
                       for place, pasid in enumerate(pasids)}
        unit.set_scalable()
        unit.set_pasids(self.tables, DOMAIN, glx, untagged)

    def _pattern(self):
        Lanes._patterns += 1
        return Lanes._patterns * 0x0101_0000_0001 | 1 << 62

    def access(self, pasid, to_memory, address=None, physical=None):
        """A permitted access, that reaches the memory of this PASID and no other."""
        table = self.tables[pasid or 0] if physical is None else None
        address = PageTable.IOVA if address is None else address
        physical = table.physical() if physical is None else physical
        kind = "write" if to_memory else "read"
        places = {t.physical() for t in self.tables.values()} | {physical}
        before = {}
        for place in places:
            self.ram[place >> 3] = before[place] = self._pattern()
        sent = self._pattern()
        if to_memory:
            self.machine.write64(PASID_BAR + PASID_REG_BUFFER, sent)
        status = self.machine.pasid_dma(pasid, address, to_memory)
        events = self.unit.events(PASID_SID)
        self.unit.clear_faults()
        if status or events:
            raise Failed(f"a permitted {kind} of PASID {pasid}: status {status:#x}, "
                         f"events {events[:1]}")
        if to_memory:
            before[physical] = sent
        elif self.machine.read64(PASID_BAR + PASID_REG_BUFFER) != before[physical]:
            raise Failed(f"a read of PASID {pasid} got other data")
        for place, word in before.items():
            if self.ram[place >> 3] != word:
                raise Failed(f"a {kind} of PASID {pasid} left {self.ram[place >> 3]:#x} "
                             f"at {place:#x}, expected {word:#x}")

    def write(self, pasid):
        self.access(pasid, True)

    def read(self, pasid):
        self.access(pasid, False)

    def wrote(self, pasid):
        table = self.tables[pasid]
        table.mark(table.path(), dirty=True)

    def was_read(self, pasid):
        self.tables[pasid].mark(self.tables[pasid].path())

    def refused(self, pasid, to_memory, flags, address=None):
        """An access that is refused, changes nothing and is recorded as of this PASID."""
        address = PageTable.IOVA if address is None else address
        places = [t.physical() for t in self.tables.values()]
        before = [self.ram[place >> 3] for place in places]
        self.unit.clear_faults()
        status = self.machine.pasid_dma(pasid, address, to_memory)
        events = self.unit.events(PASID_SID)
        self.unit.clear_faults()
        expected = (PAGE_FAULT, flags | (FAULT_RW if to_memory else 0), pasid or 0, address)
        if status != REFUSED[to_memory]:
            raise Failed(f"an access of PASID {pasid} that must be refused ends with "
                         f"status {status:#x}")
        if not events or events[0] != expected:
            raise Failed(f"an access of PASID {pasid} that must be refused leaves "
                         f"{events[:1]}, expected {expected}")
        if [self.ram[place >> 3] for place in places] != before:
            raise Failed(f"a refused access of PASID {pasid} changed memory")

    def check(self, when):
        for pasid, table in self.tables.items():
            differences = table.differences()
            if differences:
                raise Failed(f"after {when}, tables of PASID {pasid}: "
                             + "; ".join(differences))

    def clear(self, pasid):
        self.tables[pasid].change_leaf(clear=GUEST.accessed | GUEST.dirty)


def own_tables(unit):
    """A and D appear in the tables of the PASID, and in no other's."""
    lanes = Lanes(unit, (0, 3, 5))
    lanes.write(3)
    lanes.wrote(3)
    lanes.check("a write of PASID 3")
    lanes.read(5)
    lanes.was_read(5)
    lanes.check("a read of PASID 5")
    lanes.write(None)
    lanes.wrote(0)
    lanes.check("a write without PASID")
    lanes.write(5)
    lanes.wrote(5)
    for pasid in (None, 3, 5):
        lanes.write(pasid)
        lanes.read(pasid)
    lanes.check("writes and reads of all")


def two_levels(unit):
    """PASIDs at both ends of a GCR3 table, and of tables of the second level."""
    pasids = (1, 511, 512, 1023, 65535)
    lanes = Lanes(unit, pasids, glx=1)
    for pasid in pasids:
        lanes.write(pasid)
        lanes.wrote(pasid)
        lanes.check(f"a write of PASID {pasid}")


def without_giov(unit):
    """Where GIOV is clear, requests without PASID pass, those with one are translated."""
    lanes = Lanes(unit, (3,), untagged=False)
    lanes.write(3)
    lanes.wrote(3)
    place = lanes.tables[3].physical()
    lanes.access(None, True, place, place)
    lanes.access(None, False, place, place)
    lanes.write(3)
    lanes.check("writes with PASID and without")


def absent(unit):
    """A PASID whose GCR3 entry is absent is refused, and PASID 0 does not step in."""
    lanes = Lanes(unit, (0, 3))
    for to_memory in (True, False):
        lanes.refused(4, to_memory, FAULT_GN)
    lanes.check("accesses of an absent PASID")
    lanes = Lanes(unit, (3,))
    lanes.refused(None, True, FAULT_GN)
    lanes.write(3)
    lanes.wrote(3)
    lanes.check("a write without PASID where only a PASID has tables")


def out_of_range(unit):
    """A PASID above what the levels of the GCR3 table, or the unit, can name."""
    lanes = Lanes(unit, (3, 8))
    for pasid in (512 + 3, 65535, 1 << 16 | 3, (1 << 20) - 1):
        lanes.refused(pasid, True, FAULT_GN)
    lanes.check("PASIDs above 511 with one level")
    # The last has entries all the same.
    lanes = Lanes(unit, (3, 512 + 8, 1 << 16 | 3), glx=1)
    for pasid in (1 << 18 | 3, 1 << 16 | 512 + 8, 1 << 16 | 3):
        lanes.refused(pasid, False, FAULT_GN)
    lanes.check("PASIDs above PASmax with two levels")


def no_tables(unit):
    """An entry without GV, of any kind, refuses requests with PASID."""
    lanes = Lanes(unit, (3,))
    root = lanes.tables[3].root
    for words in ((DTE_V, DOMAIN), (DTE_V | DTE_TV | DTE_RW, DOMAIN),
                  (DTE_V | DTE_TV | DTE_RW | 4 << 9 | root, DOMAIN)):
        unit.set_words(*words)
        unit.flush_entry(PASID_SID)
        for to_memory in (True, False):
            lanes.refused(3, to_memory, FAULT_GN)
    lanes.check("accesses through entries without GV")


def read_only(unit):
    """IR and IW of the device table entry are for PASIDs too; and R/W of the leaf."""
    lanes = Lanes(unit, (3, 5))
    lanes.tables[5].change_leaf(clear=GUEST.writable)
    lanes.refused(5, True, FAULT_GN | FAULT_PR | FAULT_PE)
    lanes.tables[5].mark(lanes.tables[5].above(0))
    lanes.check("a write of PASID 5, that must not")
    lanes.write(3)
    lanes.wrote(3)
    words = unit.words(PASID_SID)
    unit.set_words(words[0] & ~DTE_RW | DTE_IR, *words[1:])
    unit.flush_entry(PASID_SID)
    unit.flush_domain(DOMAIN, pasid=3)
    lanes.clear(3)
    lanes.refused(3, True, FAULT_GN | FAULT_PR | FAULT_PE)
    lanes.read(3)
    lanes.was_read(3)
    lanes.check("a device that may only read")


def canonical(unit):
    """With a PASID addresses are sign-extended; without one they have 48 bits."""
    lanes = Lanes(unit, (0, 3))
    table = lanes.tables[3]
    # The same tables once more, in the upper half of the addresses.
    slot = table.slots[3] + 8 * 256
    table.store(slot, table.load(table.slots[3]) & ~GUEST.accessed)
    upper = PageTable.IOVA | 1 << 47
    lanes.refused(3, True, FAULT_GN, upper)
    lanes.check("an address with a bit that is no sign")
    lanes.access(3, True, upper | -1 << 48 & (1 << 64) - 1, table.physical())
    table.mark([2, 1, 0], dirty=True)
    table.expected[slot] |= GUEST.accessed
    lanes.check("a negative address")


def flushes(unit):
    """An invalidation with GN renews its PASID, of its domain, and no other."""
    page = PageTable.IOVA
    covering = [
        unit.flush_all,
        lambda: unit.flush_domain(DOMAIN, pasid=3),
        lambda: unit.flush_pages(DOMAIN, page, guest=True, pasid=3),
        lambda: unit.flush_pages(DOMAIN, page, 18, guest=True, pasid=3),
    ]
    foreign = [
        lambda: unit.flush_domain(DOMAIN),
        lambda: unit.flush_domain(DOMAIN, pasid=512 + 3),
        lambda: unit.flush_domain(OTHER_DOMAIN, pasid=3),
        lambda: unit.flush_pages(DOMAIN, page, pasid=3),
        lambda: unit.flush_pages(DOMAIN, page ^ 1 << 12, guest=True, pasid=3),
        lambda: unit.flush_entry(PASID_SID),
    ]
    for renews, group in ((True, covering), (False, foreign)):
        for number, flush in enumerate(group):
            lanes = Lanes(unit, (3, 5))
            for pasid in (3, 5):
                lanes.write(pasid)
                lanes.wrote(pasid)
                lanes.clear(pasid)
            flush()
            for pasid in (3, 5):
                lanes.write(pasid)
            if renews:
                lanes.wrote(3)
            if flush == unit.flush_all:
                lanes.wrote(5)
            lanes.check(f"{'covering' if renews else 'foreign'} flush {number}")


def entry_removed(unit):
    """A GCR3 entry that is gone translates on for what is cached, until it is flushed."""
    lanes = Lanes(unit, (3, 5))
    lanes.write(3)
    lanes.wrote(3)
    unit.clear_pasid(3)
    lanes.write(3)
    unit.flush_domain(DOMAIN, pasid=5)
    lanes.write(3)
    unit.flush_domain(DOMAIN, pasid=3)
    lanes.refused(3, True, FAULT_GN)
    lanes.write(5)
    lanes.wrote(5)
    lanes.check("removing PASID 3")


def switched_off(unit):
    """The function sends no PASID unless it may, nor one wider than it says."""
    lanes = Lanes(unit, (3,))
    unit.machine.enable_pasids(False)
    status = unit.machine.pasid_dma(3, PageTable.IOVA, True)
    unit.machine.enable_pasids(True)
    wide = unit.machine.pasid_dma(1 << 20 | 3, PageTable.IOVA, True)
    if (status, wide) != (NOT_TRIED, NOT_TRIED) or unit.events(PASID_SID):
        raise Failed(f"PASIDs that must not be sent: status {status:#x}, {wide:#x}")
    lanes.check("accesses that are not tried")


CASES = {
    "own tables": own_tables,
    "GCR3 table of two levels": two_levels,
    "GIOV clear": without_giov,
    "absent entry": absent,
    "out of range": out_of_range,
    "device table entry without GV": no_tables,
    "permissions": read_only,
    "canonical addresses": canonical,
    "which flushes renew": flushes,
    "entry removed": entry_removed,
    "not enabled in the function": switched_off,
}


def cases():
    """(name, properties, function) of every case."""
    for name, function in CASES.items():
        yield f"PASID {name}", PROPERTIES, function
