# SPDX-License-Identifier: GPL-2.0
"""page-writer stopped, moved to another one, and reset; states that it must refuse."""

from machine import RAM_SIZE, WRITER
from page_writer.device import (BAD_CHECKSUM, BAD_CONTENTS, BAD_LENGTH, BAD_VERSION, BASE,
                                COMMAND, CONTROL, COUNTER, DONE, FAILED, FAILED_ADDRESS,
                                FAILED_VECTOR, HEADER, ID, JOURNAL_ENTRIES, LENGTH, LIMIT,
                                LIMIT_REACHED, MASK, MODE, MSIX_PBA, NOT_POSSIBLE, PAGE,
                                PENDING_WORD, PLACES, PROGRESS, PROGRESS_VECTOR, QUIESCED, RATE,
                                RESULT, RUN, RUNNING, SAVE, SEED, STATE_BYTES, STATE_LENGTH,
                                STATUS, STOPPED, WINDOW, WRITES, WRITE_FAILED, Writer, all_of,
                                pack, page_of, unpack)
from page_writer.writes import TARGET, Memory, at_rest
from rig import Failed

REGISTERS = (CONTROL, STATUS, BASE, LENGTH, SEED, RATE, LIMIT, COUNTER, PROGRESS)
PAGES = 64


def _word(register):
    """Which word of a state is a register of BAR 0."""
    return register // 8 - 1


def quiesced(unit):
    """In MODE 1 nothing is written, registers work, and MODE 0 does not make up for it."""
    machine = unit.machine
    writer = Writer(machine)
    writer.start(TARGET, PAGES, 1000, seed=1)
    machine.wait_ms(5)
    writer.set_mode(QUIESCED)
    memory = Memory(machine)
    machine.wait_ms(1000)
    writer.expect("quiesced", counter=5, control=RUN, status=0)
    memory.check("it was quiesced")
    writer.set_mode(RUNNING)
    machine.wait_ms(10)
    writer.expect("going on", counter=15, status=WRITES)
    memory.wrote(TARGET, 1, 15, PAGES)
    memory.check("it went on")
    writer.set_mode(QUIESCED)
    writer.write(CONTROL, 0)
    writer.write(SEED, 2)
    writer.write(CONTROL, RUN)
    machine.wait_ms(10)
    writer.expect("started in MODE 1", counter=0, control=RUN, seed=2, status=0)
    memory.check("a start in MODE 1")
    writer.set_mode(RUNNING)
    machine.wait_ms(3)
    memory.wrote(TARGET, 2, 3, PAGES)
    memory.check("MODE 0 after a start in MODE 1")


def stopped(unit):
    """In MODE 2 writes to BAR 0 are ignored as well."""
    machine = unit.machine
    writer = Writer(machine)
    writer.start(TARGET, PAGES, 1000, seed=3)
    machine.wait_ms(5)
    for via in ((), (QUIESCED,)):
        writer.set_mode(RUNNING)
        for mode in (*via, STOPPED):
            writer.set_mode(mode)
        before = [writer.read(register) for register in REGISTERS]
        memory = Memory(machine)
        writer.write(CONTROL, 0)
        for register in REGISTERS:
            writer.write(register, PAGE)
        machine.wait_ms(100)
        if [writer.read(register) for register in REGISTERS] != before:
            raise Failed("registers can be written in MODE 2")
        memory.check("it was stopped")
    writer.host_write(MODE, 3)
    writer.host_write(MODE, 1 << 32)
    if writer.host_read(MODE) != STOPPED:
        raise Failed("a mode that there is not takes effect")
    writer.set_mode(RUNNING)
    machine.wait_ms(5)
    writer.expect("going on", counter=10)
    memory.wrote(TARGET, 3, 10, PAGES)
    memory.check("it went on")


def pending(unit):
    """A vector that is pending waits for MODE 0, on the function that has the state then."""
    machine = unit.machine
    for other in (False, True):
        source, target = Writer(machine, 0), Writer(machine, 1)
        for writer in (source, target):
            writer.enable_interrupts()
            writer.set_vector(PROGRESS_VECTOR, masked=True)
            writer.set_vector(FAILED_VECTOR)
        source.start(TARGET, PAGES, 1000, progress=10)
        machine.wait_ms(10)
        source.expect_interrupts("masked", pending=(PROGRESS_VECTOR,))
        if unpack(source.save())[PENDING_WORD] != 1 << PROGRESS_VECTOR:
            raise Failed("the state of a function that runs has another vector pending")
        source.set_mode(QUIESCED)
        source.set_vector(PROGRESS_VECTOR)
        source.expect_interrupts("unmasked in MODE 1")
        source.set_mode(STOPPED)
        state = source.save()
        if unpack(state)[PENDING_WORD] != 1 << PROGRESS_VECTOR:
            raise Failed("the state of a function that is stopped has another vector pending")
        runs = source
        if other:
            target.set_mode(STOPPED)
            if target.load(state) != DONE:
                raise Failed(f"LOAD ends with {target.host_read(RESULT)}")
            target.set_vector(PROGRESS_VECTOR)
            runs = target
        runs.expect_interrupts("still stopped")
        runs.set_mode(RUNNING)
        runs.expect_interrupts("MODE 0", arrived=(PROGRESS_VECTOR,))
        machine.wait_ms(9)
        runs.expect_interrupts("told twice")
        # What is masked still is pending again.
        runs.set_vector(PROGRESS_VECTOR, masked=True)
        machine.wait_ms(1)
        runs.set_mode(STOPPED)
        runs.set_mode(RUNNING)
        runs.expect_interrupts("masked in MODE 0", pending=(PROGRESS_VECTOR,))


def moved(unit):
    """From one to the next and back: no write is missing, none is done twice."""
    machine = unit.machine
    writers = all_of(machine)
    memory = Memory(machine)
    seed, count = 4, 0
    writers[0].start(TARGET, PAGES, 5000, seed, limit=1_000_000, progress=77)
    for hop in range(7):
        source = writers[hop % 3]
        target = writers[(hop + 1) % 3]
        machine.wait_ms(hop + 3)
        count += 5 * (hop + 3)
        # As a first copy is made: while it runs.
        early = unpack(source.save())
        source.expect("saved while it runs", counter=count, status=WRITES)
        if early[_word(COUNTER)] != count or early[_word(STATUS)]:
            raise Failed(f"a state that was saved while it runs holds {early[:11]}")
        machine.wait_ms(1)
        count += 5
        source.set_mode(QUIESCED)
        source.set_mode(STOPPED)
        state = source.save()
        target.set_mode(STOPPED)
        if target.load(state) != DONE:
            raise Failed(f"LOAD ends with {target.host_read(RESULT)}")
        if target.save() != state:
            raise Failed("what was loaded is not what was saved")
        words = unpack(state)
        if [target.read(register) for register in REGISTERS] != words[:len(REGISTERS)]:
            raise Failed("the registers are not those of the state")
        expected = [0] * JOURNAL_ENTRIES
        for number in range(1, count + 1):
            expected[number % JOURNAL_ENTRIES] = page_of(seed, number, PAGES)
        if list(target.journal()) != expected or words[PENDING_WORD + 1:] != expected:
            raise Failed("the journal is not that of the state")
        memory.wrote(TARGET, seed, count, PAGES)
        memory.check("a move")
        target.set_mode(RUNNING)
        source.reset()
    machine.wait_ms(2)
    count += 10
    writers[7 % 3].expect("after seven moves", counter=count, failed=0, limit=1_000_000,
                          progress=77, seed=seed, status=WRITES)
    memory.wrote(TARGET, seed, count, PAGES)
    memory.check("seven moves")


def moved_at_rest(unit):
    """What a function is that does not run moves as well: a failure, the limit, bad values."""
    machine = unit.machine
    source, target = Writer(machine), Writer(machine, 1)
    source.start(RAM_SIZE - PAGE, 2, 1000, seed=5, limit=20)
    machine.wait_ms(30)
    failed = source.read(FAILED)
    source.write(LENGTH, 5)
    source.write(RATE, 0)
    source.set_mode(STOPPED)
    target.set_mode(STOPPED)
    if target.load(source.save()) != DONE:
        raise Failed(f"LOAD ends with {target.host_read(RESULT)}")
    target.set_mode(RUNNING)
    machine.wait_ms(30)
    target.expect("one that had failed and reached its limit", control=0, counter=20,
                  status=WRITE_FAILED | LIMIT_REACHED, failed=failed, failed_address=RAM_SIZE,
                  length=5, rate=0)


def _broken(words, header):
    """(what, state, length in STATE_LENGTH, result) of states to be refused."""
    good = pack(words)
    yield "nothing", b"", None, BAD_LENGTH
    yield "half a header", good[:HEADER.size - 8], None, BAD_LENGTH
    yield "half of another version", pack(words, version=2)[:HEADER.size - 8], None, BAD_LENGTH
    yield "a header", good[:HEADER.size], None, BAD_LENGTH
    yield "the last word missing", good[:-8], None, BAD_LENGTH
    yield "a word too many", good + bytes(8), None, BAD_LENGTH
    yield "a length beyond all", good, MASK, BAD_LENGTH
    yield "a length of 0", good, 0, BAD_LENGTH
    yield "another length in the header", pack(words, length=STATE_BYTES - 8), None, BAD_LENGTH
    yield "another magic", pack(words, magic=ID ^ 1 << 40), None, BAD_VERSION
    yield "version 0", pack(words, version=0), None, BAD_VERSION
    yield "version 2", pack(words, version=2), None, BAD_VERSION
    yield "version 2 of another length", pack(words, version=2)[:200], None, BAD_VERSION
    yield "another checksum", pack(words, checksum=header[4] ^ 1), None, BAD_CHECKSUM
    for place in (HEADER.size, HEADER.size + 8 * PENDING_WORD, STATE_BYTES - 1):
        flipped = bytearray(good)
        flipped[place] ^= 0x10
        yield f"a bit at {place:#x}", bytes(flipped), None, BAD_CHECKSUM
    yield "reserved words", pack(words, reserved=(1, 0)), None, BAD_CONTENTS
    yield "reserved words", pack(words, reserved=(0, 1 << 63)), None, BAD_CONTENTS
    reached = words[_word(COUNTER)]
    for what, changes in (
            ("CONTROL", {0: 2}), ("CONTROL", {0: 1 << 40 | RUN}),
            ("STATUS", {1: WRITES}), ("STATUS", {1: 8}),
            ("a failure that was not counted", {1: WRITE_FAILED}),
            ("a failure that is not told", {9: 1, 10: PAGE}),
            ("more failures than writes", {1: WRITE_FAILED, 9: reached + 1, 10: PAGE}),
            ("the place of no failure", {10: PAGE}),
            ("a failure within a page", {1: WRITE_FAILED, 9: 1, 10: PAGE + 16}),
            ("BASE", {2: TARGET + 16}), ("BASE", {2: MASK - PAGE + 1}),
            ("LENGTH", {3: 0}), ("LENGTH", {3: PAGE * PAGES + 1}), ("LENGTH", {3: MASK & -PAGE}),
            ("RATE", {5: 0}), ("RATE", {5: 1_000_001}),
            ("a limit that was passed", {6: reached}),
            ("a limit that was reached", {1: LIMIT_REACHED}),
            ("vectors", {PENDING_WORD: 4}), ("vectors", {PENDING_WORD: 1 << 63}),
            ("a page that there is not", {PENDING_WORD + 1: PAGES}),
            ("a page that there is not", {PENDING_WORD + JOURNAL_ENTRIES: MASK})):
        changed = list(words)
        for place, value in changes.items():
            changed[place] = value
        yield what, pack(changed), None, BAD_CONTENTS


def refused(unit):
    """A LOAD that is refused says why and changes nothing; the function goes on."""
    machine = unit.machine
    source, target = Writer(machine), Writer(machine, 1)
    source.start(TARGET, PAGES, 1000, seed=6)
    target.start(TARGET + PAGES * PAGE, PAGES, 1000, seed=7)
    machine.wait_ms(20)
    source.set_mode(STOPPED)
    state = source.save()
    header, words = HEADER.unpack_from(state), unpack(state)
    target.set_mode(STOPPED)
    before = target.save()
    for what, broken, length, expected in _broken(words, header):
        result = target.load(broken, length)
        if result != expected:
            raise Failed(f"{what}: LOAD ends with {result}, expected {expected}")
        kept = target.machine.read_bytes(target.bar + WINDOW, len(broken)) if broken else b""
        if kept != broken:
            raise Failed(f"{what}: LOAD has changed the window")
        if target.save() != before:
            raise Failed(f"{what}: LOAD was refused and has changed something")
    for mode in (RUNNING, QUIESCED):
        target.set_mode(mode)
        if target.load(state) != NOT_POSSIBLE or target.save() != before:
            raise Failed(f"LOAD in MODE {mode} ends with {target.host_read(RESULT)}")
    memory = Memory(machine)
    target.set_mode(RUNNING)
    machine.wait_ms(5)
    target.expect("after all that", counter=25, status=WRITES)
    memory.wrote(TARGET + PAGES * PAGE, 7, 25, PAGES)
    memory.check("all that")
    target.set_mode(STOPPED)
    if target.load(state) != DONE or target.save() != state:
        raise Failed("a sound state is refused after broken ones")


def commands(unit):
    """A command that there is not says so; the upper half of the register is none."""
    machine = unit.machine
    writer = Writer(machine)
    for command in (3, 1 << 32, 1 << 32 | SAVE, MASK):
        writer.host_write(COMMAND, command)
        if writer.host_read(RESULT) != NOT_POSSIBLE or writer.host_read(STATE_LENGTH):
            raise Failed(f"command {command:#x} ends with {writer.host_read(RESULT)}")
    machine.write32(writer.bar + COMMAND, SAVE)
    machine.write32(writer.bar + COMMAND + 4, 0)
    if writer.host_read(RESULT) != DONE or writer.host_read(STATE_LENGTH) != STATE_BYTES:
        raise Failed("SAVE by halves does nothing")
    # The window by four bytes, to its end.
    for place in (0, 4, STATE_BYTES, 0x4_0000 - WINDOW - 4):
        machine.write32(writer.bar + WINDOW + place, 0x1234_0000 + place)
    for place in (0, 4, STATE_BYTES, 0x4_0000 - WINDOW - 4):
        if machine.read32(writer.bar + WINDOW + place) != 0x1234_0000 + place:
            raise Failed(f"the window does not keep what is written at {place:#x}")
    writer.host_write(COMMAND, 0)
    if writer.host_read(RESULT) != DONE:
        raise Failed("0 is a command")


def reset(unit):
    """FLR makes a function new, in each mode, and leaves the others."""
    machine = unit.machine
    for place in range(len(PLACES)):
        other = Writer(machine, (place + 1) % len(PLACES))
        other.start(TARGET + PAGES * PAGE, PAGES, 1000, seed=8)
        for mode in (RUNNING, QUIESCED, STOPPED):
            writer = Writer(machine, place)
            writer.enable_interrupts()
            writer.set_vector(PROGRESS_VECTOR, masked=True)
            writer.start(TARGET, PAGES, 1000, seed=9, limit=99, progress=10)
            machine.wait_ms(20)
            writer.set_mode(mode)
            writer.save()
            writer.host_write(COMMAND, 3)
            # In the middle between two bursts.
            machine.wait_us(500)
            memory = Memory(machine)
            reached = other.read(COUNTER)
            writer.reset()
            for register in (*REGISTERS, FAILED, FAILED_ADDRESS):
                if writer.read(register):
                    raise Failed(f"register {register:#x} is {writer.read(register):#x} "
                                 f"after FLR in MODE {mode}")
            for register in (MODE, RESULT, STATE_LENGTH, MSIX_PBA):
                if writer.host_read(register):
                    raise Failed(f"{register:#x} of BAR 2 is {writer.host_read(register):#x} "
                                 f"after FLR in MODE {mode}")
            if (any(writer.journal())
                    or any(machine.read_bytes(writer.bar + WINDOW, STATE_BYTES))):
                raise Failed(f"the journal or the window is left after FLR in MODE {mode}")
            machine.wait_ms(20)
            writer.expect("after FLR", reg_id=ID, counter=0, control=0)
            memory.wrote(TARGET + PAGES * PAGE, 8, reached + 20, PAGES)
            memory.check(f"FLR of function {place} in MODE {mode}")
            writer = Writer(machine, place)
            writer.start(TARGET, PAGES, 1000, seed=10)
            machine.wait_us(500)
            writer.reset()
            writer.start(TARGET, PAGES, 100_000, seed=10)
            machine.wait_us(900)
            writer.expect("started after FLR, too early for a burst", counter=0)
            machine.wait_us(100)
            writer.expect("started after FLR", counter=100)
        other.write(CONTROL, 0)
        writer.write(CONTROL, 0)


CASES = {
    "quiesced": quiesced, "stopped": stopped, "pending vectors": pending, "moved": moved,
    "moved at rest": moved_at_rest, "refused states": refused, "commands": commands,
    "reset": reset,
}


def cases():
    """(name, properties, function) of every case."""
    for name, function in CASES.items():
        yield f"page-writer: {name}", (WRITER,), at_rest(function)
