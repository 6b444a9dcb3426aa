# SPDX-License-Identifier: GPL-2.0
"""A device that maps memory and writes to it later: a slow NVMe disk.

The emulated disk writes at some time between mapping and unmapping, so D must be set
when the transfer has ended, whatever software has cleared in between.
"""

import time

from machine import NVME_BAR, NVME_LATENCY_S
from rig import Failed, Rig

CC, CSTS, AQA, ASQ, ACQ, DOORBELLS = 0x14, 0x1C, 0x24, 0x28, 0x30, 0x1000
CC_ENABLE = 1 | 6 << 16 | 4 << 20   # entries of 64 and of 16 bytes
CSTS_READY = 1
CREATE_IO_SQ, CREATE_IO_CQ, READ = 1, 5, 2

# Where the queues lie, in guest memory and for the device.
WINDOW = 0x0060_0000
WINDOW_INDEX = 20
ENTRIES = 8
LIMIT_S = 10


class _Disk:
    """Two pairs of queues, one command at a time."""

    def __init__(self, rig):
        self.machine = rig.machine
        self.ram = rig.ram
        self.window = rig.table.map_window(WINDOW_INDEX, WINDOW)
        self.tails = [0, 0]
        for word in range(WINDOW >> 3, (WINDOW + 0x5000) >> 3):
            self.ram[word] = 0
        write = self.machine.write32
        write(NVME_BAR + CC, 0)
        write(NVME_BAR + AQA, (ENTRIES - 1) << 16 | ENTRIES - 1)
        self.machine.write64(NVME_BAR + ASQ, self.window)
        self.machine.write64(NVME_BAR + ACQ, self.window + 0x1000)
        write(NVME_BAR + CC, CC_ENABLE)
        if not self.machine.read32(NVME_BAR + CSTS) & CSTS_READY:
            raise Failed("the NVMe device does not become ready")
        size = (ENTRIES - 1) << 16
        self.finish(self.submit(0, CREATE_IO_CQ, self.window + 0x3000, size | 1, 1))
        self.finish(self.submit(0, CREATE_IO_SQ, self.window + 0x2000, size | 1,
                                1 << 16 | 1))

    def submit(self, queue, opcode, prp, dword10=0, dword11=0, namespace=0):
        """Ring the doorbell; returns where the completion will appear."""
        index = self.tails[queue]
        slot = WINDOW + 0x2000 * queue + 64 * index
        words = [opcode | index << 16 | namespace << 32, 0, 0, prp, 0,
                 dword10 | dword11 << 32, 0, 0]
        for position, word in enumerate(words):
            self.ram[(slot >> 3) + position] = word
        self.tails[queue] = index + 1
        self.machine.write32(NVME_BAR + DOORBELLS + 8 * queue, index + 1)
        return (WINDOW + 0x1000 + 0x2000 * queue + 16 * index + 8) >> 3

    def stop(self):
        """When this returns, no command is under way."""
        self.machine.write32(NVME_BAR + CC, 0)

    def done(self, completion):
        """Is it there? A queue is used for one round, so its phase is 1."""
        status = self.ram[completion] >> 48
        if status > 1:
            raise Failed(f"the NVMe device answers with status {status >> 1:#x}")
        return bool(status)

    def finish(self, completion):
        end = time.monotonic() + LIMIT_S
        while not self.done(completion):
            if time.monotonic() > end:
                raise Failed(f"the NVMe device does not answer in {LIMIT_S} s")
            time.sleep(0.01)


def written_when_done(unit, stage):
    """D is set after a transfer, although it was cleared and flushed during it."""
    rig = Rig(unit, stage)
    disk = _Disk(rig)
    try:
        _read_late(rig, disk)
    finally:
        disk.stop()


def _read_late(rig, disk):
    table, stage = rig.table, rig.stage
    physical = table.physical()
    rig.ram[physical >> 3] = before = 0xD15C
    start = time.monotonic()
    completion = disk.submit(1, READ, table.IOVA, namespace=1)
    while not table.load(table.leaf) & stage.dirty:
        if time.monotonic() > start + LIMIT_S:
            raise Failed("a device that maps memory for writing does not set D")
    rig.clear()
    rig.flush()
    if disk.done(completion):
        raise Failed(f"the disk answered in less than {NVME_LATENCY_S} s: "
                     "nothing was tested")
    disk.finish(completion)
    if rig.ram[physical >> 3] == before:
        raise Failed("the disk's data did not reach memory")
    rig.expect_write()
    rig.check("the end of a transfer to mapped memory")
