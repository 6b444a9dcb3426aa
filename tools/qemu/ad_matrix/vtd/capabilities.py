# SPDX-License-Identifier: GPL-2.0
"""What a unit advertises, and which combinations of properties it refuses."""

from machine import Machine, MachineError
from properties import BOTH_STAGES, FIRST_ONLY, SECOND_ONLY
from rig import Failed, Rig
from tables import FIRST, SECOND
from vtd.unit import ECAP_C, ECAP_FSTS, ECAP_SMPWC, ECAP_SMTS, ECAP_SSADS, ECAP_SSTS

NAMES = {"C": ECAP_C, "SMTS": ECAP_SMTS, "SSADS": ECAP_SSADS,
         "SSTS": ECAP_SSTS, "FSTS": ECAP_FSTS, "SMPWC": ECAP_SMPWC}

PLAIN = ("x-scalable-mode=on",)
INCOHERENT = SECOND_ONLY + ("coherent=off",)

ADVERTISED = [
    ((), ""),
    (("coherent=on",), "C"),
    (PLAIN, "SMTS SSTS"),
    (PLAIN + ("coherent=on",), "C SMTS SSTS SMPWC"),
    (SECOND_ONLY, "C SMTS SSADS SSTS SMPWC"),
    (INCOHERENT, "SMTS SSADS SSTS"),
    (FIRST_ONLY, "SMTS FSTS"),
    (FIRST_ONLY + ("coherent=on",), "C SMTS FSTS SMPWC"),
    (BOTH_STAGES, "C SMTS SSADS SSTS FSTS SMPWC"),
]


def advertised(unit, expected):
    """The capabilities that a driver decides by."""
    found = " ".join(name for name, bit in NAMES.items() if unit.ecap & bit)
    if found != expected:
        raise Failed(f"the unit advertises \"{found}\", expected \"{expected}\"")


def off_never_marks(unit):
    """Without the property SSADE means nothing."""
    rig = Rig(unit, SECOND, ssade=True)
    rig.marks = False
    rig.read()
    rig.write()
    rig.flush()
    rig.write()
    rig.check("accesses to a unit without ssads=on")


def off_refuses_other_stage(unit):
    """x-flts=on alone gives a unit without second-stage tables, as ever."""
    rig = Rig(unit, SECOND, ssade=False)
    rig.refused(True, 0x5B)
    rig.check("a second-stage entry on a first-stage unit")
    rig = Rig(unit, FIRST)
    rig.write()
    rig.expect_write()
    rig.check("a first-stage entry on a first-stage unit")


def incoherent_marks(unit):
    """What is advertised changes nothing of what is done."""
    rig = Rig(unit, SECOND)
    rig.write()
    rig.expect_write()
    rig.check("a write on a unit that calls itself incoherent")


def refused(qemu, properties, words):
    """QEMU does not start, and says what to change."""
    try:
        Machine(qemu, properties).close()
    except MachineError as error:
        if words not in str(error):
            raise Failed(f"{error}; expected \"{words}\"") from error
        return
    raise Failed(f"QEMU starts with {','.join(properties)}")


def cases():
    """(name, properties, function); without properties: a function of QEMU's path."""
    for properties, expected in ADVERTISED:
        def run(unit, expected=expected):
            advertised(unit, expected)
        yield f"advertised by {','.join(properties) or 'a plain unit'}", properties, run
    yield "SSADE without ssads=on never marks", PLAIN, off_never_marks
    yield ("first-stage unit refuses second-stage entries", FIRST_ONLY,
           off_refuses_other_stage)
    yield "ssads=on,coherent=off marks", INCOHERENT, incoherent_marks

    def legacy(qemu):
        refused(qemu, ["ssads=on"], "ssads=on needs x-scalable-mode=on")
    yield "ssads=on without scalable mode is refused", None, legacy
