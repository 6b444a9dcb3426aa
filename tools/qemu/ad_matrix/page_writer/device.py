# SPDX-License-Identifier: GPL-2.0
"""page-writer as software sees it (hw/misc/page-writer.c), and what it should do."""

import struct
import zlib

from machine import WRITER_BRIDGE_SLOT, WRITER_PORT_SLOT, WRITER_SLOT, MachineError
from rig import Failed

ID = 0x0001_5257_4547_4150
PAGE = 0x1000
MAX_RATE = 1_000_000
JOURNAL_ENTRIES = 8192
MASK = (1 << 64) - 1

# BAR 0.
(REG_ID, CONTROL, STATUS, BASE, LENGTH, SEED, RATE, LIMIT, COUNTER, PROGRESS, FAILED,
 FAILED_ADDRESS) = range(0, 0x60, 8)
RUN = 1
WRITES, WRITE_FAILED, LIMIT_REACHED = 1, 2, 4
SET_UP = (BASE, LENGTH, SEED, RATE, LIMIT, PROGRESS)
READ_ONLY = (REG_ID, STATUS, COUNTER, FAILED, FAILED_ADDRESS)

# BAR 2.
BAR_SIZE = 0x4_0000
MSIX_TABLE, MSIX_PBA, JOURNAL, WINDOW = 0x0, 0x8000, 0x1_0000, 0x2_8000
(MODE, STATE_VERSION, STATE_SIZE, COMMAND, RESULT, STATE_LENGTH) = range(0x2_0000, 0x2_0030, 8)
RUNNING, QUIESCED, STOPPED = range(3)
SAVE, LOAD = 1, 2
DONE, NOT_POSSIBLE, BAD_VERSION, BAD_LENGTH, BAD_CHECKSUM, BAD_CONTENTS = range(6)
PROGRESS_VECTOR, FAILED_VECTOR = 0, 1

# A state: header, CONTROL to FAILED_ADDRESS, pending vectors, journal.
HEADER = struct.Struct("<QIIIIQ")
BODY = struct.Struct(f"<11QQ{JOURNAL_ENTRIES}Q")
STATE_BYTES = HEADER.size + BODY.size
PENDING_WORD = 11

CAPABILITY_EXPRESS, CAPABILITY_MSIX, CAPABILITY_AF = 0x10, 0x11, 0x13
MSIX_ENABLE = 1 << 31

# Where they are: on the root bus, behind a root port, behind a bridge to conventional PCI.
PLACES = ((0, WRITER_SLOT), (4, 0), (5, 1))
ROOT_BUS, PORT, BRIDGE = range(3)
WINDOWS = (0xE100_0000, 0xE110_0000, 0xE120_0000)
BAR_IN_WINDOW = 0x4_0000
# Where in guest memory their interrupts go: a word for each vector, of a page for each.
MAILBOXES = 0x0018_0000


def mix(value):
    """The finalizer of splitmix64."""
    value ^= value >> 30
    value = value * 0xBF58476D1CE4E5B9 & MASK
    value ^= value >> 27
    value = value * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def page_of(seed, number, pages):
    """The page that a write goes to."""
    return mix(seed + number & MASK) % pages


def content(seed, count, pages):
    """What so many writes leave at the start of each page that they reach."""
    found = {}
    for number in range(1, count + 1):
        found[page_of(seed, number, pages)] = number, mix(seed ^ number)
    return found


def pack(words, version=1, length=STATE_BYTES, checksum=None, magic=ID, reserved=(0, 0)):
    """A state of words as unpack() returns them."""
    body = BODY.pack(*words)
    crc = zlib.crc32(body) if checksum is None else checksum
    return HEADER.pack(magic, version, length, crc, *reserved) + body


def unpack(state):
    """The words behind the header of a state that must be sound."""
    header = HEADER.unpack_from(state)
    body = state[HEADER.size:]
    if header != (ID, 1, STATE_BYTES, zlib.crc32(body), 0, 0):
        raise Failed(f"a state begins with {header}")
    return list(BODY.unpack(body))


class Writer:
    """One of the functions, after a reset."""

    def __init__(self, machine, place=ROOT_BUS):
        self.machine = machine
        self.place = place
        self.bus, self.slot = PLACES[place]
        self.regs = WINDOWS[place]
        self.bar = self.regs + BAR_IN_WINDOW
        self.mailbox = MAILBOXES + PAGE * place
        for bridge in (WRITER_PORT_SLOT, WRITER_BRIDGE_SLOT):
            bus = PLACES[PORT if bridge == WRITER_PORT_SLOT else BRIDGE][0]
            window = WINDOWS[PORT if bridge == WRITER_PORT_SLOT else BRIDGE] >> 16
            machine.write_config(bridge, 0x18, bus << 16 | bus << 8)
            machine.write_config(bridge, 0x20, window << 16 | window)
            machine.write_config(bridge, 0x04, 0x6)
        self.reset()

    # Its configuration space.

    def config(self, offset):
        return self.machine.read_config(self.slot, offset, self.bus)

    def set_config(self, offset, value):
        self.machine.write_config(self.slot, offset, value, self.bus)

    def capability(self, kind):
        """Where a capability is, or None."""
        pointer = self.config(0x34) & 0xFF
        while pointer:
            header = self.config(pointer)
            if header & 0xFF == kind:
                return pointer
            pointer = header >> 8 & 0xFF
        return None

    def reset(self):
        """Function-level reset, by what its bus has for that; then place it again."""
        conventional = self.place == BRIDGE
        offset = self.capability(CAPABILITY_AF if conventional else CAPABILITY_EXPRESS)
        if offset is None:
            raise MachineError(f"page-writer {self.place} has no function-level reset")
        if conventional:
            self.set_config(offset + 4, 1)
        else:
            self.set_config(offset + 8, 1 << 15)
        self.set_config(0x10, self.regs)
        self.set_config(0x18, self.bar)
        self.set_config(0x1C, 0)
        self.set_master(True)
        if self.read(REG_ID) != ID:
            raise MachineError(f"page-writer {self.place} does not answer at its BAR")

    def set_master(self, enabled):
        self.set_config(0x04, 0x6 if enabled else 0x2)

    @property
    def requester(self):
        """What its requests carry: behind the bridge, that one's."""
        return self.bus << 8 | (0 if self.place == BRIDGE else self.slot << 3)

    # Registers.

    def read(self, register):
        return self.machine.read64(self.regs + register)

    def write(self, register, value):
        self.machine.write64(self.regs + register, value)

    def expect(self, what, **registers):
        """Registers of BAR 0, by name, read what they should."""
        for name, expected in registers.items():
            found = self.read(globals()[name.upper()])
            if found != expected:
                raise Failed(f"{what}: {name.upper()} is {found:#x}, expected {expected:#x}")

    def host_read(self, register):
        return self.machine.read64(self.bar + register)

    def host_write(self, register, value):
        self.machine.write64(self.bar + register, value)

    def start(self, base, pages, rate=1000, seed=0x5EED, limit=0, progress=0):
        """Let it run, with COUNTER 0."""
        if self.read(CONTROL):
            self.write(CONTROL, 0)
        for register, value in ((BASE, base), (LENGTH, pages * PAGE), (RATE, rate),
                                (SEED, seed), (LIMIT, limit), (PROGRESS, progress)):
            self.write(register, value)
        self.write(CONTROL, RUN)

    def set_mode(self, mode):
        self.host_write(MODE, mode)
        if self.host_read(MODE) != mode:
            raise Failed(f"MODE {mode} does not take effect")

    def journal(self):
        return struct.unpack(f"<{JOURNAL_ENTRIES}Q",
                             self.machine.read_bytes(self.bar + JOURNAL, 8 * JOURNAL_ENTRIES))

    # Its state.

    def save(self):
        self.host_write(COMMAND, SAVE)
        if self.host_read(RESULT) != DONE or self.host_read(STATE_LENGTH) != STATE_BYTES:
            raise Failed(f"SAVE ends with {self.host_read(RESULT)} and "
                         f"{self.host_read(STATE_LENGTH)} bytes")
        return self.machine.read_bytes(self.bar + WINDOW, STATE_BYTES)

    def load(self, state, length=None):
        """The result of LOAD."""
        if state:
            self.machine.write_bytes(self.bar + WINDOW, state)
        self.host_write(STATE_LENGTH, len(state) if length is None else length)
        self.host_write(COMMAND, LOAD)
        return self.host_read(RESULT)

    # Interrupts.

    def enable_interrupts(self, enabled=True):
        offset = self.capability(CAPABILITY_MSIX)
        self.set_config(offset, MSIX_ENABLE if enabled else 0)

    def set_vector(self, vector, masked=False):
        entry = self.bar + MSIX_TABLE + 16 * vector
        self.machine.write64(entry, self.mailbox + 8 * vector)
        self.machine.write64(entry + 8, int(masked) << 32 | 0xA0 + vector)

    def expect_interrupts(self, what, arrived=(), pending=()):
        """Which vectors have come since this was asked, and which are in the PBA."""
        words = [self.mailbox + 8 * vector >> 3 for vector in range(2)]
        found = [vector for vector, word in enumerate(words) if self.machine.ram[word]]
        wrong = [vector for vector in found
                 if self.machine.ram[words[vector]] != 0xA0 + vector]
        for word in words:
            self.machine.ram[word] = 0
        bits = self.host_read(MSIX_PBA)
        if wrong or (found, bits) != (list(arrived), sum(1 << vector for vector in pending)):
            raise Failed(f"{what}: vectors {found} arrived and {bits:#x} is pending, "
                         f"expected {list(arrived)} and {list(pending)}")


def all_of(machine):
    """Each of them, after a reset."""
    return [Writer(machine, place) for place in range(len(PLACES))]
