# SPDX-License-Identifier: GPL-2.0
"""What every case is made of: one device, one page table, accesses, a verdict."""

from tables import PageTable

DOMAIN = 7
OTHER_DOMAIN = 8

# Fault reasons that a refused access is recorded with.
REFUSED_WRITE = {"second-stage": 0x05, "first-stage": 0x85,
                 "AMD v1": 0x50, "AMD v2": 0x51}
REFUSED_READ = {"second-stage": 0x06, "AMD v1": 0x50}
NOT_PRESENT = {"first-stage": 0x71, "AMD v1": 0x00, "AMD v2": 0x01}
REFUSED_INTERRUPT_RANGE = 0x87
UPDATE_FAILED = {"second-stage": 0x07, "first-stage": 0x91}


class Failed(Exception):
    """The unit did not do what it should."""


class Rig:
    """A device behind the unit, and the page table that it is translated by."""

    _patterns = 0

    def __init__(self, unit, stage, size="4K", ssade=True, legacy=False, **where):
        self.unit = unit
        self.machine = unit.machine
        self.ram = unit.ram
        self.stage = stage
        self.table = PageTable(self.ram, stage, size, **where)
        self.marks = stage.live or (ssade and not legacy)
        # What the device's buffer holds, once a read has told.
        self.buffer = None
        if legacy:
            unit.set_legacy(self.table, DOMAIN)
        else:
            unit.set_scalable()
            unit.set_entry(self.table, DOMAIN, ssade)

    # What the unit is expected to have marked.

    def expect_read(self):
        if self.marks:
            self.table.mark(self.table.path())

    def expect_write(self):
        if self.marks:
            self.table.mark(self.table.path(), dirty=True)

    def expect_above(self, level):
        """The walk stopped at this level: only those above it are marked."""
        if self.marks:
            self.table.mark(self.table.above(level))

    # Accesses.

    def _pattern(self):
        Rig._patterns += 1
        return Rig._patterns * 0x0101_0000_0001 | 1 << 63

    def read(self, address=None, physical=None):
        """The device reads; succeeds."""
        address = self.table.IOVA if address is None else address
        if physical is None:
            physical = self.table.physical(address)
        self.buffer = self._pattern()
        self.ram[physical >> 3] = self.buffer
        self.machine.dma(address, to_memory=False)
        self._no_fault("read")

    def write(self, address=None, physical=None):
        """The device writes; succeeds, and memory shows it."""
        address = self.table.IOVA if address is None else address
        if physical is None:
            physical = self.table.physical(address)
        self.ram[physical >> 3] = before = self._pattern()
        self.machine.dma(address, to_memory=True)
        self._no_fault("write")
        after = self.ram[physical >> 3]
        if after == before:
            raise Failed(f"a write to {address:#x} did not reach {physical:#x}")
        if self.buffer is not None and after != self.buffer:
            raise Failed(f"a write to {address:#x} left {after:#x} in memory, "
                         f"the device holds {self.buffer:#x}")

    def refused(self, to_memory, reason, address=None, physical=None):
        """The device reads or writes; is refused, and the fault says why."""
        address = self.table.IOVA if address is None else address
        if physical is None:
            physical = self.table.physical(address)
        kind = "write" if to_memory else "read"
        self.ram[physical >> 3] = before = self._pattern()
        self.unit.clear_faults()
        self.machine.dma(address, to_memory)
        if self.ram[physical >> 3] != before:
            raise Failed(f"a {kind} to {address:#x} that must be refused "
                         f"changed memory at {physical:#x}")
        fault = self.unit.fault()
        expected = (reason, address & ~0xFFF, not to_memory)
        if fault != expected:
            raise Failed(f"a refused {kind} records {_fault_text(fault)}, "
                         f"expected {_fault_text(expected)}")
        self.unit.clear_faults()

    def _no_fault(self, kind):
        fault = self.unit.fault()
        if fault:
            self.unit.clear_faults()
            raise Failed(f"a {kind} that is allowed faults: {_fault_text(fault)}")

    # The guest.

    def flush(self, address=None):
        """Invalidate the leaf as a driver does after it has cleared a flag."""
        address = self.table.IOVA if address is None else address
        order = self.table.order
        address &= -1 << (12 + order)
        self.unit.flush_translation(self.stage, DOMAIN, address, order)

    def clear(self, accessed=True, dirty=True):
        """Software clears flags of the leaf, in one store."""
        flags = (self.stage.accessed if accessed else 0) | (
            self.stage.dirty if dirty else 0)
        self.table.change_leaf(clear=flags)

    def check(self, when):
        """Every word of the tables is as expected."""
        differences = self.table.differences()
        if differences:
            raise Failed(f"after {when}: " + "; ".join(differences))


def try_flushes(unit, stage, covering, foreign):
    """After each flush of `covering` a write marks the leaf again; after others it does not."""
    for renews, group in ((True, covering), (False, foreign)):
        for number, flush in enumerate(group):
            rig = Rig(unit, stage)
            rig.write()
            rig.expect_write()
            rig.clear()
            flush()
            rig.write()
            if renews:
                rig.expect_write()
            rig.check(f"{'covering' if renews else 'foreign'} flush {number}")


def _fault_text(fault):
    if fault is None:
        return "no fault"
    reason, address, is_read = fault
    return (f"reason {reason:#x} for a {'read' if is_read else 'write'} "
            f"of {address:#x}")
