# SPDX-License-Identifier: GPL-2.0
"""The programs of tools/testing/selftests/iommu_rust: their Makefile, as kselftest reads it,
decides what runs. A suite selects from its list, and no program may be left over."""

import fnmatch
import re

from .. import CHECKOUT
from ..errors import ListsDiffer
from .kinds import GuestSuite, GuestTest

MAKEFILE = "tools/testing/selftests/iommu_rust/Makefile"
# Its functions run programs for the suites of small machines.
SCRIPTS = "tools/testing/vm/guest"
INSTALLED = "/tests/iommu_rust"


def _listed(*variables):
    """Return the names that variables of the Makefile hold, in its order."""
    text = (CHECKOUT / MAKEFILE).read_text().replace("\\\n", " ")
    assigned = re.findall(rf"^ *(?:{'|'.join(variables)})\s*[:+?]*=([^#\n]*)", text, re.M)
    names = [name for value in assigned for name in value.split()]
    for name in names:
        if "$" in name:
            raise ListsDiffer(
                f"{MAKEFILE} names {name}, which only make can read: write out the programs"
            )
    return names


def selftests(pattern):
    """Return a test for each program that the Makefile names and that matches `pattern`."""
    names = fnmatch.filter(_listed("TEST_GEN_PROGS", "TEST_PROGS"), pattern)
    if not names:
        raise ListsDiffer(f"a suite runs '{pattern}', and {MAKEFILE} names no such program")
    return tuple(GuestTest(name, f"./{name} $VFIO_DEVICES", INSTALLED) for name in names)


def check(suites):
    """Each program that the Makefile names must run, and each that runs must be named there."""
    tests = [test for suite in suites if isinstance(suite, GuestSuite) for test in suite.tests]
    run = {
        test.command.split()[0].removeprefix("./"): f"the test {test.name}"
        for test in tests
        if test.directory == INSTALLED
    }
    for path in sorted((CHECKOUT / SCRIPTS).iterdir()):
        for name in re.findall(rf"{INSTALLED}/(\w+)", path.read_text()):
            run[name] = f"{SCRIPTS}/{path.name}"
    tested = _listed("TEST_GEN_PROGS", "TEST_PROGS")
    for name in tested:
        if name not in run:
            raise ListsDiffer(
                f"{MAKEFILE} names {name}, and no suite runs it: add it to one in "
                "tools/testing/harness/suites/selftests.py"
            )
    built = {*tested, *_listed("TEST_GEN_FILES", "TEST_GEN_PROGS_EXTENDED")}
    for name, runner in run.items():
        if name not in built:
            raise ListsDiffer(f"{runner} runs {name}, which {MAKEFILE} does not name")
