# SPDX-License-Identifier: GPL-2.0
"""The measurements of the benchmark, as data."""

import dataclasses

MIB = 1 << 20
GIB = 1 << 30
SIZES = (64, 1024, 8192)
FORMATS = ("vtdss", "amdv1", "x86_64")
# An address without special properties for tables and bitmaps.
IOVA = 4 * GIB
TERABYTE = 1024 * 1024
# 256 leaves of 1 GiB begin at a multiple of the range of their table.
FAR_IOVA = 1024 * GIB


@dataclasses.dataclass(frozen=True)
class Work:
    """One kind of work, in the syntax of bench.c."""

    name: str
    what: str
    action: str
    how: str = "run"
    number: int = 0

    def line(self, leaves):
        """Return the line of the plan; short works are repeated in one timing."""
        repeat = 1
        if self.action == "read" or self.name.startswith("clean"):
            repeat = max(1, (1 << 17) // leaves)
        return f"work {self.name} {self.action} {self.how} {self.number} {repeat}"


QUERIES = (
    Work("clean", "no page written", "query", "run", 0),
    Work("random1", "1 % of the pages, at random", "query", "random", 10),
    Work("run10", "10 % of the pages, in one run", "query", "run", 100),
    Work("random50", "50 % of the pages, at random", "query", "random", 500),
    Work("all", "every page", "query", "run", 1000),
    Work("noclear", "1 % at random, NO_CLEAR", "peek", "random", 10),
    Work("get", "1 % at random, with all that iommufd does around the walk", "get", "random", 10),
)
# GET_DIRTY_BITMAP as a VMM calls it, on the domain of iommufd's self-test.
IOCTLS = (
    Work("ioctl", "1 % at random", "ioctl", "random", 10),
    Work("ioctlclean", "no page written", "ioctl", "run", 0),
)
# One word per cycle, as each OR waits for the previous one; and four at a time.
LIMITS = (
    Work("limit", "reading the leaf tables in order", "read", number=1),
    Work("limit4", "the same, four words at a time", "read", number=4),
)
TRANSLATE = Work("translate", "iova to address, a call each", "translate")
CLEAN_2M = Work("clean2m", "no page written, leaves of 2 MiB", "query", "run", 0)


def changes(suffix):
    """Return map and unmap, with one leaf and with 256 leaves per call."""
    found = []
    for action in ("map", "unmap"):
        found.append(Work(f"{action}{suffix}", f"{action}, a leaf a call", action, number=1))
        extent = suffix.removesuffix("k") if suffix == "4k" else suffix
        name = f"{action}256" if suffix == "4k" else f"{action}{extent}x256"
        found.append(Work(name, f"{action}, 256 leaves a call", action, number=256))
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class Domain:
    """A mapped range, and the work on it."""

    format: str
    iova: int
    leaf: int
    mib: int
    works: tuple

    def lines(self, repetitions):
        leaves = self.mib * MIB // self.leaf
        yield f"domain {self.format} {self.iova:x} {self.leaf:x} {self.mib * MIB:x} {repetitions}"
        if self.leaf == 4096:
            yield "count"
        for work in self.works:
            yield work.line(leaves)


@dataclasses.dataclass(frozen=True)
class Mock:
    """A domain of iommufd's self-test: AMD v1 with two entries of 2 KiB per page."""

    mib: int
    works: tuple = IOCTLS

    def lines(self, repetitions):
        yield f"mock {IOVA:x} {self.mib * MIB:x} {repetitions}"
        for work in self.works:
            yield work.line(self.mib * MIB // 4096)


def domains(formats, sizes):
    """Return all measurements, in order."""
    found = []
    for name in formats:
        for mib in sizes:
            works = (*LIMITS, *QUERIES, TRANSLATE, *changes("4k"))
            found.append(Domain(name, IOVA, 4096, mib, works))
            if name == "amdv1":
                found.append(Mock(mib))
        found.append(Domain(name, IOVA, 2 * MIB, 8192, (CLEAN_2M, *changes("2m"))))
        found.append(Domain(name, FAR_IOVA, GIB, 1024 * 1024, changes("1g")))
    return found


def terabyte(formats):
    """Return what is measured of 1 TiB: formats with a dirty query on both sides."""
    found = []
    for name in formats:
        if name == "x86_64":
            continue
        found.append(Domain(name, IOVA, 2 * MIB, TERABYTE, (CLEAN_2M,)))
        found.append(Domain(name, IOVA, 4096, TERABYTE, (LIMITS[1], QUERIES[0], QUERIES[1])))
    return found


def text(chosen, repetitions):
    """Return the plan for these domains in the format of bench.c."""
    lines = [line for domain in chosen for line in domain.lines(repetitions)]
    return "\n".join(lines) + "\n"
