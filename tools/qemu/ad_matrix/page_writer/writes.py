# SPDX-License-Identifier: GPL-2.0
"""What page-writer does while it runs: its registers, its writes, its interrupts."""

import time

from machine import ICOUNT, RAM_SIZE, REAL_TIME, WRITER
from page_writer.device import (BAR_SIZE, BASE, BRIDGE, CAPABILITY_AF, CAPABILITY_EXPRESS,
                                CAPABILITY_MSIX, CONTROL, COUNTER, FAILED_VECTOR, ID, JOURNAL,
                                JOURNAL_ENTRIES, LENGTH, LIMIT, LIMIT_REACHED, MASK, MAX_RATE,
                                MSIX_PBA, PAGE, PLACES, PORT, PROGRESS_VECTOR, RATE, READ_ONLY,
                                RESULT, RUN, SEED, SET_UP, STATE_BYTES, STATE_SIZE, STATE_VERSION,
                                WRITES, WRITE_FAILED, Writer, all_of, content, mix, page_of)
from properties import AMD_GUEST, AMD_HOST, FIRST_ONLY, SECOND_ONLY
from rig import DOMAIN, Failed, Rig
from tables import FIRST, GUEST, HOST, SECOND, PageTable

TARGET = 0x0100_0000
# What is compared with what it was: everything that a case works with.
WATCHED = 0x0200_0000
MS = 0.001


class Memory:
    """Guest memory as it was, and the writes that should have changed it."""

    def __init__(self, machine):
        self.machine = machine
        self.image = bytearray(machine.mapping[:WATCHED])

    def wrote(self, base, seed, count, pages):
        for page, words in content(seed, count, pages).items():
            place = base + page * PAGE
            self.image[place:place + 16] = b"".join(word.to_bytes(8, "little")
                                                    for word in words)

    def check(self, when):
        found = self.machine.mapping[:WATCHED]
        if found == self.image:
            return
        place = next(place for place in range(0, WATCHED, 8)
                     if found[place:place + 8] != self.image[place:place + 8])
        raise Failed(f"after {when} memory at {place:#x} is "
                     f"{found[place:place + 8].hex()}, expected "
                     f"{self.image[place:place + 8].hex()}")


def _equal(what, found, expected):
    if found != expected:
        raise Failed(f"{what}: {found:#x}, expected {expected:#x}")


def registers(unit):
    """What can be written keeps what is written, by halves too; the rest does not change."""
    writer = Writer(unit.machine)
    for register in SET_UP:
        _equal(f"register {register:#x} after a reset", writer.read(register), 0)
        writer.write(register, 0x0123_4567_89AB_CDEF)
        _equal(f"register {register:#x}", writer.read(register), 0x0123_4567_89AB_CDEF)
        unit.machine.write32(writer.regs + register, 0x7654_3210)
        unit.machine.write32(writer.regs + register + 4, 0xFEDC_BA98)
        _equal(f"register {register:#x} by halves", writer.read(register),
               0xFEDC_BA98_7654_3210)
        _equal(f"the upper half of register {register:#x}",
               unit.machine.read32(writer.regs + register + 4), 0xFEDC_BA98)
    for register in READ_ONLY:
        before = writer.read(register)
        writer.write(register, MASK)
        _equal(f"read-only register {register:#x}", writer.read(register), before)
    writer.expect("after a reset", reg_id=ID, status=0, counter=0, failed=0, failed_address=0)
    for register, expected in ((STATE_VERSION, 1), (STATE_SIZE, STATE_BYTES), (RESULT, 0),
                               (JOURNAL, 0), (MSIX_PBA, 0)):
        writer.host_write(register, MASK)
        _equal(f"{register:#x} of BAR 2", writer.host_read(register), expected)


def function(unit):
    """Its configuration space, on each kind of bus."""
    for place in range(len(PLACES)):
        writer = Writer(unit.machine, place)
        _equal("the IDs", writer.config(0), 0x11F1_1234)
        writer.set_config(0x04, 0)
        for offset, expected in ((0x10, 0xFFFF_F000), (0x18, MASK - BAR_SIZE + 1 & 0xFFFF_FFFF | 4),
                                 (0x1C, 0xFFFF_FFFF), (0x14, 0)):
            writer.set_config(offset, 0xFFFF_FFFF)
            _equal(f"the BAR at {offset:#x}", writer.config(offset), expected)
        msix = writer.capability(CAPABILITY_MSIX)
        _equal("the size of the MSI-X table", writer.config(msix) >> 16 & 0x7FF, 1)
        _equal("the MSI-X table", writer.config(msix + 4), 2)
        _equal("the PBA", writer.config(msix + 8), MSIX_PBA | 2)
        express = writer.capability(CAPABILITY_EXPRESS)
        advanced = writer.capability(CAPABILITY_AF)
        if (express is None, advanced is None) != (place == BRIDGE, place != BRIDGE):
            raise Failed(f"function {place} has the capabilities of another bus")
        if place == BRIDGE:
            _equal("the Advanced Features", writer.config(advanced) >> 16, 0x0306)
        else:
            _equal("FLR", writer.config(express + 4) >> 28 & 1, 1)
        # An endpoint, or one that is part of the root complex.
        if place == PORT:
            _equal("the type", writer.config(express) >> 20 & 0xF, 0)


def bad_values(unit):
    """With values that it cannot work with, RUN stays 0; with the last ones it does not."""
    good = {BASE: TARGET, LENGTH: 4 * PAGE, RATE: 1000}
    bad = [{BASE: 1}, {BASE: TARGET + 0x800}, {BASE: MASK - PAGE + 1}, {LENGTH: 0},
           {BASE: 0, LENGTH: 0}, {LENGTH: PAGE - 1}, {LENGTH: PAGE + 8},
           {LENGTH: MASK - PAGE + 1}, {RATE: 0}, {RATE: MAX_RATE + 1}, {RATE: MASK}]
    for changes in bad:
        writer = Writer(unit.machine)
        memory = Memory(unit.machine)
        for register, value in {**good, **changes}.items():
            writer.write(register, value)
        writer.write(CONTROL, RUN)
        unit.machine.wait_ms(10)
        writer.expect(f"registers are {changes}", control=0, status=0, counter=0)
        memory.check("a start that must be refused")
    for register, value in ((BASE, MASK - PAGE + 1), (LENGTH, PAGE), (RATE, 1),
                            (RATE, MAX_RATE)):
        writer = Writer(unit.machine)
        for name, usual in {**good, LENGTH: PAGE, register: value}.items():
            writer.write(name, usual)
        # Bits of CONTROL that mean nothing.
        writer.write(CONTROL, MASK)
        writer.expect(f"register {register:#x} is {value:#x}", control=RUN, status=WRITES)


def memory_contents(unit):
    """Memory holds what seed and counter say, and nothing else has changed."""
    for writer in all_of(unit.machine):
        for seed, pages, rate, count in ((1, 1, 1000, 7), (0x5EED, 64, 50_000, 500),
                                         (MASK, 4096, MAX_RATE, 5000)):
            memory = Memory(unit.machine)
            writer.start(TARGET, pages, rate, seed)
            unit.machine.wait_ms(count * 1000 // rate)
            writer.expect(f"{count} writes", counter=count, status=WRITES, failed=0)
            memory.wrote(TARGET, seed, count, pages)
            memory.check(f"{count} writes by function {writer.place}")
        writer.write(CONTROL, 0)


def rates(unit):
    """As many writes in a time as RATE asks for."""
    for rate, milliseconds in ((1, 3999), (3, 1000), (999, 1001), (12_345, 100), (MAX_RATE, 3)):
        writer = Writer(unit.machine)
        writer.start(TARGET, 4, rate)
        unit.machine.wait_ms(milliseconds)
        writer.expect(f"{milliseconds} ms at {rate}", counter=rate * milliseconds // 1000)


def started_again(unit):
    """While it runs nothing can be set up; RUN 0 stops it, RUN 1 begins anew."""
    machine = unit.machine
    writer = Writer(machine)
    writer.start(TARGET, 8, 1000, seed=3)
    machine.wait_ms(5)
    memory = Memory(machine)
    before = [writer.read(register) for register in SET_UP]
    for register in SET_UP:
        writer.write(register, 0x1234_5000)
    writer.write(CONTROL, RUN)
    if [writer.read(register) for register in SET_UP] != before:
        raise Failed("registers that set it up can be written while it runs")
    machine.wait_ms(5)
    writer.expect("RUN written once more", counter=10)
    memory.wrote(TARGET, 3, 10, 8)
    writer.write(CONTROL, 0)
    machine.wait_ms(5)
    writer.expect("RUN is 0", counter=10, control=0, status=0)
    memory.check("RUN was set to 0")
    writer.write(SEED, 4)
    writer.write(CONTROL, RUN)
    writer.expect("RUN is 1 again", counter=0, status=WRITES)
    if any(writer.journal()):
        raise Failed("the journal is that of the run before")
    machine.wait_ms(3)
    memory.wrote(TARGET, 4, 3, 8)
    memory.check("a second start")


def limit(unit):
    """It stops by itself after LIMIT writes."""
    machine = unit.machine
    writer = Writer(machine)
    memory = Memory(machine)
    # Not where a burst ends.
    writer.start(TARGET, 8, 10_000, seed=5, limit=123)
    machine.wait_ms(12)
    writer.expect("before the limit", counter=120, control=RUN, status=WRITES)
    machine.wait_ms(100)
    writer.expect("the limit", counter=123, control=0, status=LIMIT_REACHED)
    memory.wrote(TARGET, 5, 123, 8)
    memory.check("the limit was reached")
    writer.write(LIMIT, 0)
    writer.write(CONTROL, RUN)
    machine.wait_ms(13)
    writer.expect("without limit", counter=130, control=RUN, status=WRITES)


def no_master(unit):
    """One that is no bus master writes nothing, and does not make up for it later."""
    machine = unit.machine
    writer = Writer(machine)
    writer.start(TARGET, 8, 1000, seed=6)
    machine.wait_ms(5)
    writer.set_master(False)
    memory = Memory(machine)
    machine.wait_ms(1000)
    writer.expect("no bus master", counter=5, control=RUN, status=0, failed=0)
    memory.check("it was no bus master")
    writer.set_master(True)
    writer.expect("bus master again", status=WRITES)
    machine.wait_ms(10)
    writer.expect("bus master again", counter=15)
    memory.wrote(TARGET, 6, 15, 8)
    memory.check("it was bus master again")


def journal(unit):
    """The journal has the pages of the last writes."""
    writer = Writer(unit.machine)
    writer.start(TARGET, 100, 1_000_000, seed=7)
    # 1000, 8000, 9000 and 20000 writes.
    for milliseconds in (1, 7, 1, 11):
        unit.machine.wait_ms(milliseconds)
        found = writer.journal()
        reached = writer.read(COUNTER)
        expected = [0] * JOURNAL_ENTRIES
        for number in range(max(1, reached - JOURNAL_ENTRIES + 1), reached + 1):
            expected[number % JOURNAL_ENTRIES] = page_of(7, number, 100)
        if list(found) != expected:
            raise Failed(f"the journal is wrong after {reached} writes")


def progress(unit):
    """Vector 0 at each multiple of PROGRESS; masked it is pending until it is unmasked."""
    for place in range(len(PLACES)):
        machine = unit.machine
        writer = Writer(machine, place)
        writer.enable_interrupts()
        for vector in range(2):
            writer.set_vector(vector)
        writer.start(TARGET, 8, 1000, progress=10)
        writer.expect_interrupts("the start")
        for _ in range(3):
            machine.wait_ms(9)
            writer.expect_interrupts("too early")
            machine.wait_ms(1)
            writer.expect_interrupts("a multiple", arrived=(PROGRESS_VECTOR,))
        writer.set_vector(PROGRESS_VECTOR, masked=True)
        machine.wait_ms(10)
        writer.expect_interrupts("masked", pending=(PROGRESS_VECTOR,))
        writer.set_vector(PROGRESS_VECTOR)
        writer.expect_interrupts("unmasked", arrived=(PROGRESS_VECTOR,))
        machine.wait_ms(9)
        writer.expect_interrupts("told twice")
        # Not enabled: lost, not put off.
        writer.enable_interrupts(False)
        machine.wait_ms(5)
        writer.enable_interrupts()
        writer.expect_interrupts("disabled")
        machine.wait_ms(6)
        writer.expect_interrupts("enabled again", arrived=(PROGRESS_VECTOR,))
        writer.start(TARGET, 8, 1000, progress=0)
        machine.wait_ms(100)
        writer.expect_interrupts("no progress wanted")


def failed_writes(unit):
    """Writes that fail are counted and told, and stop nothing."""
    machine = unit.machine
    writer = Writer(machine)
    writer.enable_interrupts()
    for vector in range(2):
        writer.set_vector(vector)
    seed, pages, count = 8, 8, 40
    # Half of it lies behind the end of memory.
    base = RAM_SIZE - pages // 2 * PAGE
    writer.start(base, pages, 1000, seed)
    failures = []
    for number in range(1, count + 1):
        machine.wait_ms(1)
        page = page_of(seed, number, pages)
        if page >= pages // 2:
            failures.append(base + page * PAGE)
        elif machine.ram[base + page * PAGE >> 3] != number:
            raise Failed(f"write {number} did not arrive")
        writer.expect_interrupts(
            f"write {number}", arrived=(FAILED_VECTOR,) if page >= pages // 2 else ())
        writer.expect(f"write {number}", counter=number, failed=len(failures),
                      failed_address=failures[0] if failures else 0,
                      status=WRITES | (WRITE_FAILED if failures else 0))
    if not 0 < len(failures) < count:
        raise Failed("the seed is of no use")
    writer.start(TARGET, pages)
    writer.expect("started again", failed=0, failed_address=0, status=WRITES)


def into_itself(unit):
    """What it writes may be its registers: CONTROL, with what clears RUN some time."""
    writer = Writer(unit.machine)
    seed = next(seed for seed in range(100) if mix(seed ^ 1) & mix(seed ^ 2) & 1)
    stops = next(number for number in range(1, 100) if not mix(seed ^ number) & 1)
    writer.start(writer.regs, 1, MAX_RATE, seed)
    unit.machine.wait_ms(10)
    writer.expect("it has stopped itself", counter=stops, control=0, failed=0)


def together(unit):
    """All of them at once, each as if it were alone."""
    machine = unit.machine
    writers = all_of(machine)
    memory = Memory(machine)
    bases = [TARGET + number * 64 * PAGE for number in range(len(writers))]
    for number, writer in enumerate(writers):
        writer.start(bases[number], 64, 1000 * (number + 1), seed=number)
    machine.wait_ms(100)
    for number, writer in enumerate(writers):
        writer.expect("all of them", counter=100 * (number + 1))
        memory.wrote(bases[number], number, 100 * (number + 1), 64)
    memory.check("all of them wrote")


class Window:
    """Some pages of a device behind a unit, mapped one by one, and not in their order."""

    PAGES = 8

    def __init__(self, unit, stage, writer):
        self.rig = Rig(unit, stage)
        self.table = PageTable(unit.ram, stage, place=1)
        self.stage = stage
        self.slots = [self.table.leaf + 8 * number for number in range(self.PAGES)]
        self.places = [self.table.leaf_base() + 0x1_0000 + (5 * number % self.PAGES) * PAGE
                       for number in range(self.PAGES)]
        for slot, place in zip(self.slots, self.places):
            self.table.store(slot, place | stage.leaf)
        unit.set_device(writer.requester, self.table, DOMAIN)
        unit.flush_all()
        unit.clear_faults()

    def wrote(self, pages):
        self.table.mark(self.table.above(0))
        for page in pages:
            self.table.expected[self.slots[page]] |= self.stage.accessed | self.stage.dirty

    def clean(self):
        """Software clears A and D, and flushes."""
        for slot in self.slots:
            self.table.store(slot, self.table.load(slot)
                             & ~(self.stage.accessed | self.stage.dirty))
        self.rig.unit.flush_all()

    def check(self, when):
        if self.table.differences():
            raise Failed(f"after {when}: " + "; ".join(self.table.differences()))


def dirty(unit, stage):
    """D is set in the leaves of the pages that were written, and in no others."""
    for place in range(len(PLACES)):
        writer = Writer(unit.machine, place)
        window = Window(unit, stage, writer)
        pages, seed = window.PAGES, 9
        writer.start(PageTable.IOVA, pages, 1000, seed)
        number = 0
        for step in (1, 1, 1, 30, 2):
            unit.machine.wait_ms(step)
            written = {page_of(seed, n, pages) for n in range(number + 1, number + step + 1)}
            number += step
            window.wrote(written)
            window.check(f"writes of {sorted(written)} by function {place}")
            for page, (last, _) in content(seed, number, pages).items():
                _equal(f"page {page}", unit.ram[window.places[page] >> 3], last)
            window.clean()
        writer.expect("writes through a page table", counter=number, failed=0)


def refused(unit, stage):
    """A page that is not mapped: its write fails, those of the others do not."""
    writer = Writer(unit.machine)
    window = Window(unit, stage, writer)
    pages, seed, absent = window.PAGES, 10, 3
    window.table.store(window.slots[absent], 0)
    writer.start(PageTable.IOVA, pages, 1000, seed)
    unit.machine.wait_ms(40)
    written = [page_of(seed, n, pages) for n in range(1, 41)]
    window.wrote(set(written) - {absent})
    window.check("writes to a page that is not mapped")
    writer.expect("writes to a page that is not mapped", counter=40,
                  failed=written.count(absent), status=WRITES | WRITE_FAILED,
                  failed_address=PageTable.IOVA + absent * PAGE)
    writer.write(CONTROL, 0)
    unit.clear_faults()


def _reached(writer, count, seconds=30):
    """Wait until COUNTER is at least so much."""
    end = time.monotonic() + seconds
    while writer.read(COUNTER) < count:
        if time.monotonic() > end:
            raise Failed(f"after {seconds} s COUNTER is {writer.read(COUNTER)}")
        time.sleep(MS)


def by_itself(unit):
    """With a clock that goes by itself, memory is the same."""
    writer = Writer(unit.machine)
    memory = Memory(unit.machine)
    writer.start(TARGET, 64, 20_000, seed=11, limit=3000)
    _reached(writer, 3000)
    writer.expect("a clock that goes by itself", counter=3000, status=LIMIT_REACHED, failed=0)
    memory.wrote(TARGET, 11, 3000, 64)
    memory.check("3000 writes")


def late(unit):
    """After a time in which QEMU did not run, it makes up for a few periods only."""
    machine = unit.machine
    writer = Writer(machine)
    rate, makes_up = 10_000, 0.004
    start = time.monotonic()
    writer.start(TARGET, 64, rate)
    _reached(writer, 100)
    paused = machine.pause(1.0)
    reached = writer.read(COUNTER)
    _reached(writer, reached + 100)
    reached = writer.read(COUNTER)
    most = rate * (time.monotonic() - start - paused + makes_up)
    if reached > most:
        raise Failed(f"{reached} writes were done when {most:.0f} could be")


def at_rest(check):
    """A case that begins with functions that do nothing."""
    def run(unit):
        all_of(unit.machine)
        check(unit)
    return run


PLAIN = {
    "registers": registers, "configuration space": function, "bad values": bad_values,
    "memory": memory_contents, "rates": rates, "started again": started_again, "limit": limit,
    "bus master": no_master, "journal": journal, "interrupts": progress,
    "failed writes": failed_writes, "into itself": into_itself, "together": together,
}


def cases():
    """(name, properties, function) of every case."""
    for name, check in PLAIN.items():
        yield f"page-writer: {name}", (WRITER,), at_rest(check)
    yield "page-writer: in real time", (WRITER, REAL_TIME), at_rest(by_itself)
    yield "page-writer: late", (WRITER, REAL_TIME), at_rest(late)
    yield "page-writer: with -icount", (WRITER, ICOUNT), at_rest(by_itself)
    for stage, properties in ((SECOND, SECOND_ONLY), (FIRST, FIRST_ONLY), (HOST, AMD_HOST),
                              (GUEST, AMD_GUEST)):
        for name, check in (("dirty", dirty), ("refused", refused)):
            def run(unit, stage=stage, check=check):
                check(unit, stage)
            yield f"{stage.name} page-writer: {name}", properties + (WRITER,), run
