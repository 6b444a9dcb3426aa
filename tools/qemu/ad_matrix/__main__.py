# SPDX-License-Identifier: GPL-2.0
"""Check how an emulated IOMMU marks its page tables, against the rules.

Runs QEMU without a guest, one per set of properties, and prints KTAP.
"""

import argparse
import fnmatch
import sys

# The checkout stays as it is.
sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position
import domains
import matrix
import resized
import stalls
import two_units
import widths
from amdvi import commands, pasids
from amdvi import rules as amdvi_rules
from amdvi.unit import NAME as AMDVI
from amdvi.unit import Unit as AmdviUnit
from machine import Machine, MachineError
from page_writer import state, writes
from rig import Failed
from vtd import incoherent
from vtd import link_cache as vtd_link_cache
from vtd import rules as vtd_rules
from vtd.unit import Unit as VtdUnit

MODULES = (matrix, vtd_rules, amdvi_rules, pasids, commands, stalls, domains, widths,
           incoherent, vtd_link_cache, resized, two_units, writes, state)


class Units:
    """The machines that run, one at a time, and the unit in each."""

    def __init__(self, qemu):
        self.qemu = qemu
        self.properties = None
        self.unit = None

    def get(self, properties):
        if self.unit is None or self.properties != properties:
            self.drop()
            if properties[:1] == (AMDVI,):
                self.unit = AmdviUnit(Machine(self.qemu, properties[1:], AMDVI))
            else:
                self.unit = VtdUnit(Machine(self.qemu, properties))
            self.properties = properties
        return self.unit

    def drop(self):
        if self.unit is not None:
            self.unit.machine.close()
            self.unit = None


def run_case(units, properties, function):
    """None if the case passed, else one sentence."""
    try:
        function(units.get(properties) if properties is not None else units.qemu)
    except Failed as failure:
        return str(failure)
    except MachineError as error:
        # Whatever state it is in, the next case starts on a fresh one.
        units.drop()
        return str(error)
    return None


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="ad_matrix", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--qemu", default="qemu-system-x86_64", metavar="PATH",
                        help="the QEMU to test (default: %(default)s)")
    parser.add_argument("--filter", default="*", metavar="GLOB",
                        help="run the cases whose name matches")
    parser.add_argument("--list", action="store_true",
                        help="print the names of the cases and exit")
    return parser.parse_args(arguments)


def main(arguments):
    options = parse(arguments)
    # Cases of one set of properties share a machine: keep them together.
    cases = [case for module in MODULES for case in module.cases()
             if fnmatch.fnmatchcase(case[0], options.filter)]
    cases.sort(key=lambda case: case[1] or ())
    if not cases:
        print(f"No case matches \"{options.filter}\": see --list.",
              file=sys.stderr)
        return 1
    if options.list:
        for name, _, _ in cases:
            print(name)
        return 0

    print("KTAP version 1")
    print(f"1..{len(cases)}")
    failed = 0
    units = Units(options.qemu)
    try:
        for number, (name, properties, function) in enumerate(cases, 1):
            problem = run_case(units, properties, function)
            if problem:
                failed += 1
                print(f"# {problem}")
            print(f"{'not ok' if problem else 'ok'} {number} {name}", flush=True)
    except OSError as error:
        print(f"Bail out! {options.qemu} does not run ({error.strerror}): "
              "name a QEMU with --qemu.")
        return 1
    finally:
        units.drop()
    print(f"# Totals: pass:{len(cases) - failed} fail:{failed} skip:0")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
