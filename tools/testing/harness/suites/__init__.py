# SPDX-License-Identifier: GPL-2.0
"""The test suites as data: which suites exist, where they run, what they run."""

from . import drivers, host, kunit, migrations, programs, selftests


def all_suites():
    """Return the suites in the order of 'make list'."""
    groups = (host, kunit, selftests, migrations, drivers)
    suites = tuple(suite for group in groups for suite in group.suites())
    programs.check(suites)
    return suites
