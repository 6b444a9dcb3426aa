# SPDX-License-Identifier: GPL-2.0
"""A VT-d unit whose walks do not snoop (walk-snoop=off): it reads what was written back."""

from machine import STALL, STALL_LINE
from properties import BOTH_STAGES, SECOND_ONLY
from rig import Failed, Rig
from tables import FIRST, SECOND, TABLES, TABLES_SIZE
from vtd.capabilities import advertised, refused
from vtd.unit import CONTEXT, PASID_DIR, PASID_TABLE, ROOT

NO_SNOOP = ("walk-snoop=off", STALL)
LEGACY = ("x-scalable-mode=off",)
LINE = 64
PAGE = 0x1000
# A and D must be set, and must not be.
UPDATE_NEEDED = {FIRST.name: 0x90, SECOND.name: 0x7C}
PLACES = {"root table": ROOT, "context table": CONTEXT, "PASID directory": PASID_DIR,
          "PASID table": PASID_TABLE}


def _write_back(unit, start, size):
    for line in range(start, start + size, LINE):
        unit.machine.write64(STALL_LINE, line)


def _write_back_all(unit, but=None):
    for place in PLACES.values():
        if place != but:
            _write_back(unit, place, PAGE)
    _write_back(unit, TABLES, TABLES_SIZE)


def _rig(unit, stage, legacy=False, ssade=False):
    """A rig whose walks need set no flags, and nothing of it written back."""
    rig = Rig(unit, stage, ssade=ssade, legacy=legacy)
    if stage is FIRST:
        for slot in rig.table.slots.values():
            rig.table.store(slot, rig.table.load(slot) | stage.accessed)
        rig.table.change_leaf(add=stage.dirty)
    return rig


def _refused(rig, what):
    before = rig.ram[rig.table.physical() >> 3]
    rig.machine.dma(rig.table.IOVA, to_memory=True)
    fault = rig.unit.fault()
    rig.unit.clear_faults()
    if not fault or rig.ram[rig.table.physical() >> 3] != before:
        raise Failed(f"a write passes with {what} not written back")
    return fault


def stale(unit, stage, legacy):
    """A leaf that software has changed stays what it was until it is written back."""
    rig = _rig(unit, stage, legacy)
    _write_back_all(unit)
    unit.flush_all()
    rig.write()
    word = rig.table.load(rig.table.leaf)
    rig.table.store(rig.table.leaf, 0)
    unit.flush_all()
    rig.write()
    _write_back(unit, rig.table.leaf & ~(LINE - 1), LINE)
    rig.write()
    unit.flush_all()
    _refused(rig, "an absent leaf")
    rig.table.store(rig.table.leaf, word)
    unit.flush_all()
    _refused(rig, "a leaf that is present again")
    _write_back(unit, rig.table.leaf & ~(LINE - 1), LINE)
    rig.write()
    rig.check("walks that do not snoop")


def each_table(unit, stage):
    """Every table is read so, and one that was never written back is of no use."""
    for name, place in PLACES.items():
        rig = _rig(unit, stage)
        # What an earlier case has written back of it is not what is there now.
        kept = list(unit.ram[place >> 3:(place + PAGE) >> 3])
        for word in range(len(kept)):
            unit.ram[(place >> 3) + word] = 0
        _write_back(unit, place, PAGE)
        for word, value in enumerate(kept):
            unit.ram[(place >> 3) + word] = value
        _write_back_all(unit, but=place)
        unit.flush_all()
        _refused(rig, f"the {name}")
        _write_back(unit, place, PAGE)
        unit.flush_all()
        rig.write()
        rig.check(f"writing back the {name}")


def flags(unit, stage):
    """A walk that must set a flag, and must not write, is refused with a reason of its own."""
    for missing in (stage.accessed, stage.dirty):
        rig = _rig(unit, stage, ssade=True)
        if stage is SECOND:
            for slot in rig.table.slots.values():
                rig.table.store(slot, rig.table.load(slot) | stage.accessed)
            rig.table.change_leaf(add=stage.dirty)
        rig.table.change_leaf(clear=missing)
        _write_back_all(unit)
        unit.flush_all()
        if missing == stage.dirty:
            rig.read()
        reason = _refused(rig, f"flag {missing:#x}")[0]
        if reason != UPDATE_NEEDED[stage.name]:
            raise Failed(f"a flag that must not be set is reason {reason:#x}")
        rig.check("a refused write")
        rig.table.change_leaf(add=missing)
        _write_back_all(unit)
        rig.write()
        rig.check("a write that need set no flag")


def never_written_back(unit):
    """Memory that was never written back reads as ones."""
    rig = _rig(unit, SECOND)
    for place in PLACES.values():
        _write_back(unit, place, PAGE)
    _refused(rig, "any page table")
    rig.check("a walk of nothing")


def cases():
    """(name, properties, function) of every case."""
    second, both = SECOND_ONLY + NO_SNOOP, BOTH_STAGES + NO_SNOOP
    yield "no snoop: advertised", second, lambda unit: advertised(unit, "SMTS SSADS SSTS")
    # The first on its machine: the others write page tables back.
    yield ("no snoop: never written back", second + ("aw-bits=48",),
           never_written_back)
    for stage in (SECOND, FIRST):
        def changed(unit, stage=stage):
            stale(unit, stage, False)
        yield f"no snoop: {stage.name} leaf", both, changed

        def tables(unit, stage=stage):
            each_table(unit, stage)
        yield f"no snoop: {stage.name}, tables above", both, tables

        def marks(unit, stage=stage):
            flags(unit, stage)
        yield f"no snoop: {stage.name} flags", both, marks
    yield "no snoop: legacy leaf", LEGACY + NO_SNOOP, lambda unit: stale(unit, SECOND, True)

    def contradiction(qemu):
        refused(qemu, ["walk-snoop=off", "coherent=on"], "walk-snoop=off needs coherent=off")
    yield "walk-snoop=off,coherent=on is refused", None, contradiction
