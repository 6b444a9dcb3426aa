# SPDX-License-Identifier: GPL-2.0
"""A change of a PASID table entry takes effect when it is invalidated, and not before."""

from properties import BOTH_STAGES, FIRST_ONLY, SECOND_ONLY
from rig import DOMAIN, OTHER_DOMAIN, Failed, Rig
from tables import FIRST, SECOND

PLAIN = ("x-scalable-mode=on",)
PASS_THROUGH_DOMAIN = 1


def ssade_on_without_flush(unit):
    """SSADE set and nothing flushed: the entry that is cached decides."""
    rig = Rig(unit, SECOND, ssade=False)
    rig.read()
    unit.set_entry(rig.table, DOMAIN, ssade=True)
    unit.flush_iotlb()
    rig.write()
    rig.check("SSADE was set and the PASID-cache not invalidated")


def ssade_on_without_iotlb_flush(unit):
    """SSADE set, PASID-cache invalidated: cached translations stay as they are."""
    rig = Rig(unit, SECOND, ssade=False)
    rig.read()
    unit.set_entry(rig.table, DOMAIN, ssade=True)
    unit.flush_pasid(DOMAIN)
    rig.write()
    rig.check("SSADE was set and the IOTLB not invalidated")
    unit.flush_domain(DOMAIN)
    rig.marks = True
    rig.write()
    rig.expect_write()
    rig.check("SSADE was set and both caches invalidated")


def ssade_off(unit):
    """SSADE cleared: marking ends with the invalidation."""
    rig = Rig(unit, SECOND, ssade=True)
    rig.write()
    rig.expect_write()
    unit.set_entry(rig.table, DOMAIN, ssade=False)
    rig.clear()
    unit.flush_domain(DOMAIN)
    rig.write()
    rig.expect_write()
    rig.check("SSADE was cleared and the PASID-cache not invalidated")
    rig.clear()
    unit.flush_pasid(DOMAIN)
    unit.flush_domain(DOMAIN)
    rig.write()
    rig.check("SSADE was cleared and both caches invalidated")


def _untranslated(rig):
    """The device writes to a physical address."""
    address = rig.table.physical()
    rig.write(address, address)


def _enter_pass_through(unit, rig):
    unit.clear_entry()
    unit.flush_pasid(DOMAIN)
    unit.flush_domain(DOMAIN)
    unit.set_pass_through(PASS_THROUGH_DOMAIN)
    unit.flush_pasid(PASS_THROUGH_DOMAIN)
    _untranslated(rig)
    _untranslated(rig)


def leave_pass_through(unit, stage):
    """PASID-cache invalidation alone takes a device out of pass-through."""
    for flush in (lambda: unit.flush_pasid(PASS_THROUGH_DOMAIN),
                  lambda: unit.flush_pasids_of(PASS_THROUGH_DOMAIN),
                  unit.flush_pasids):
        rig = Rig(unit, stage)
        _enter_pass_through(unit, rig)
        unit.clear_entry()
        flush()
        unit.set_entry(rig.table, DOMAIN, ssade=True)
        rig.write()
        rig.read()
        rig.expect_write()
        rig.check("leaving pass-through")


def leave_plain_pass_through(unit):
    """The same on a unit without any of the properties."""
    rig = Rig(unit, SECOND, ssade=False)
    _enter_pass_through(unit, rig)
    unit.clear_entry()
    unit.flush_pasid(PASS_THROUGH_DOMAIN)
    unit.set_entry(rig.table, DOMAIN)
    rig.write()
    rig.check("leaving pass-through")


def stay_in_pass_through(unit):
    """An entry that is not invalidated, or as another domain's, stays."""
    rig = Rig(unit, SECOND)
    _enter_pass_through(unit, rig)
    unit.set_entry(rig.table, DOMAIN, ssade=True)
    unit.flush_pasid(OTHER_DOMAIN)
    unit.flush_pasid(PASS_THROUGH_DOMAIN, pasid=1)
    unit.flush_domain(DOMAIN)
    _untranslated(rig)
    rig.check("invalidating what is not cached")


def absent_is_not_cached(unit):
    """An entry that becomes present needs no invalidation."""
    rig = Rig(unit, SECOND)
    unit.clear_entry()
    unit.flush_pasid(DOMAIN)
    unit.machine.dma(rig.table.IOVA, to_memory=True)
    if not unit.fault():
        raise Failed("an access without a PASID table entry does not fault")
    unit.clear_faults()
    unit.set_entry(rig.table, DOMAIN, ssade=True)
    rig.write()
    rig.expect_write()
    rig.check("an entry has become present")


def other_stage(unit):
    """One unit, one device, first the one stage and then the other."""
    for old, new in ((FIRST, SECOND), (SECOND, FIRST)):
        rig = Rig(unit, old)
        rig.write()
        unit.clear_entry()
        unit.flush_pasid(DOMAIN)
        unit.flush_translation(old, DOMAIN, rig.table.IOVA)
        rig = Rig(unit, new)
        rig.read()
        rig.write()
        rig.expect_write()
        rig.check(f"changing from {old.name} to {new.name}")


def cases():
    """(name, properties, function) of every case."""
    yield ("SSADE set, PASID-cache not flushed", SECOND_ONLY,
           ssade_on_without_flush)
    yield ("SSADE set, IOTLB not flushed", SECOND_ONLY,
           ssade_on_without_iotlb_flush)
    yield "SSADE cleared", SECOND_ONLY, ssade_off
    for stage, properties in ((SECOND, SECOND_ONLY), (FIRST, FIRST_ONLY),
                              (FIRST, BOTH_STAGES)):
        def run(unit, stage=stage):
            leave_pass_through(unit, stage)
        where = " on a unit with both stages" if properties is BOTH_STAGES else ""
        yield f"{stage.name} leaving pass-through{where}", properties, run
    yield "plain unit leaving pass-through", PLAIN, leave_plain_pass_through
    yield "foreign PASID-cache flush", SECOND_ONLY, stay_in_pass_through
    yield "absent PASID entry is not cached", SECOND_ONLY, absent_is_not_cached
    yield "changing the stage", BOTH_STAGES, other_stage
