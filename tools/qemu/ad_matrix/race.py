# SPDX-License-Identifier: GPL-2.0
"""The device marks an entry while software changes it: neither change may be lost.

A second process plays the software: it exchanges the leaf for a clean one, over
and over, by a locked instruction. Each word that it takes out must carry the
number that it put in last, or the unit has stored a word that it read earlier.
And for each write of the device D must show up, in a word taken out or in the
leaf, or the unit has given up when the leaf changed under its walk.
"""

import ctypes
import os
import time

from rig import DOMAIN, Failed, Rig

NUMBER_SHIFT = 52
NUMBERS = 1 << 9
ROUNDS = 2000
# On a busy machine fewer rounds are enough, but not fewer than these.
BUDGET_S = 10
FEWEST_ROUNDS = 100
LIMIT_S = 30

# Words of guest memory through which the two processes communicate.
STOP, EXCHANGES, DIRTY_SEEN, PUT_IN, TAKEN_OUT = range(
    0x0010_6000 >> 3, (0x0010_6000 >> 3) + 5)


def _exchange_function():
    """An atomic exchange; Python has none of its own."""
    try:
        function = ctypes.CDLL("libatomic.so.1").__atomic_exchange_8
    except (OSError, AttributeError) as error:
        raise Failed("libatomic.so.1 is missing: "
                     "install the package libatomic1") from error
    function.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int]
    function.restype = ctypes.c_uint64
    return function


def _software(machine, slot, clean, stage):
    """The second process: runs until told to stop, or until it is contradicted."""
    ram = machine.ram
    exchange = _exchange_function()
    leaf = ctypes.addressof(ctypes.c_uint64.from_buffer(machine.mapping, slot))
    flags = stage.accessed | stage.dirty
    last = ram[slot >> 3] & ~flags
    number = 0
    while not ram[STOP]:
        number = (number + 1) % NUMBERS
        new = clean | number << NUMBER_SHIFT
        old = exchange(leaf, new, 5)  # sequentially consistent
        if old & ~flags != last:
            ram[PUT_IN], ram[TAKEN_OUT] = last, old
            return
        if old & stage.dirty:
            ram[DIRTY_SEEN] += 1
        ram[EXCHANGES] += 1
        last = new


def _wait(condition, what):
    end = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"{what} within {LIMIT_S} s")
        time.sleep(0)


def _rounds(unit, table):
    ram = unit.ram
    end = time.monotonic() + BUDGET_S
    leaf = table.leaf >> 3
    dirty = table.stage.dirty
    for number in range(ROUNDS):
        if number >= FEWEST_ROUNDS and time.monotonic() > end:
            return
        unit.flush_domain(DOMAIN)
        # A flag of the round before must be gone, and counted.
        before = ram[EXCHANGES]
        _wait(lambda: ram[TAKEN_OUT] or ram[EXCHANGES] >= before + 2,
              "software made no exchange")
        seen = ram[DIRTY_SEEN]
        unit.machine.dma(table.IOVA, to_memory=True)
        _wait(lambda: ram[TAKEN_OUT] or ram[leaf] & dirty
              or ram[DIRTY_SEEN] != seen,
              f"write {number} of the device set no D")
        if ram[TAKEN_OUT]:
            raise Failed(f"software put in {ram[PUT_IN]:#018x} and takes out "
                         f"{ram[TAKEN_OUT]:#018x}, at write {number}")
        fault = unit.fault()
        if fault:
            unit.clear_faults()
            raise Failed(f"write {number} faults with reason {fault[0]:#x}")


def concurrent_change(unit, stage):
    """A compare-and-swap that fails reads and judges the entry again."""
    _exchange_function()
    rig = Rig(unit, stage)
    table = rig.table
    for word in (STOP, EXCHANGES, DIRTY_SEEN, PUT_IN, TAKEN_OUT):
        rig.ram[word] = 0
    clean = table.load(table.leaf) & ~((NUMBERS - 1) << NUMBER_SHIFT)

    child = os.fork()
    if child == 0:
        try:
            _software(unit.machine, table.leaf, clean, stage)
        finally:
            # The parent process does the cleanup.
            os._exit(0)
    try:
        _rounds(unit, table)
    finally:
        rig.ram[STOP] = 1
        os.waitpid(child, 0)
