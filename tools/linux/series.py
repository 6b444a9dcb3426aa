# SPDX-License-Identifier: GPL-2.0
"""The patches: which fixes what, which tests it, and the files as they are after some of them."""

import dataclasses
import pathlib
import re
import shutil
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
PATCHES = HERE / "patches"
# What the kernel that runs here needs, without being a fix.
UML = HERE / "uml.patch"
SELFTESTS = "tools/testing/selftests/"


class SeriesError(Exception):
    """A patch that is not what it should be, as one sentence."""


@dataclasses.dataclass(frozen=True)
class Patch:
    """One file as git format-patch writes it."""

    path: pathlib.Path

    @property
    def text(self):
        return self.path.read_text()

    @property
    def files(self):
        """The files of the kernel that it changes."""
        return re.findall(r"^\+\+\+ b/(\S+)$", self.text, re.M)

    @property
    def is_test(self):
        return all(name.startswith(SELFTESTS) for name in self.files)

    def tests(self):
        """Return the tests that it adds, as fixture and name."""
        return re.findall(r"^\+TEST_F\((\w+), (\w+)\)$", self.text, re.M)


@dataclasses.dataclass(frozen=True)
class Fix:
    """A fix, and the patch with the tests that fail without it."""

    patch: Patch
    test: Patch

    @property
    def name(self):
        """The name of its results: the tests' names, which say what is wrong without it."""
        return "_".join(name for _, name in self.test.tests())


def read():
    """Return the fixes in their order; each is followed by its test."""
    patches = [Patch(path) for path in sorted(PATCHES.glob("*.patch"))]
    if len(patches) % 2:
        raise SeriesError(f"{len(patches)} patches in {PATCHES}: each fix needs one test after it")
    fixes = []
    for fix, test in zip(patches[::2], patches[1::2]):
        if fix.is_test or not test.is_test:
            raise SeriesError(f"{fix.path.name} is to be a fix, and {test.path.name} its test")
        if not test.tests():
            raise SeriesError(f"{test.path.name} adds no test")
        fixes.append(Fix(fix, test))
    return fixes


def changed_files(fixes):
    patches = [Patch(UML)] + [part for fix in fixes for part in (fix.patch, fix.test)]
    return sorted({name for patch in patches for name in patch.files})


def apply(patches, source, files):
    """Return the contents of `files` of `source` with the patches applied, by name."""
    with tempfile.TemporaryDirectory(prefix="rust-iommu-") as scratch:
        for name in files:
            place = pathlib.Path(scratch, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, place)
        for patch in patches:
            done = subprocess.run(
                ["patch", "-p1", "--batch", "--fuzz=0", "--no-backup-if-mismatch"],
                cwd=scratch,
                input=patch.text,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                said = done.stdout.strip().splitlines()
                raise SeriesError(f"{patch.path.name} does not apply: {said[-1] if said else ''}")
        return {name: pathlib.Path(scratch, name).read_bytes() for name in files}


def stages(fixes, source):
    """Return what the files hold with none of the fixes, with the first, ... with all of them.

    The tests are always there: they are built once.
    """
    files = changed_files(fixes)
    whole = apply([part for fix in fixes for part in (fix.patch, fix.test)], source, files)
    tests = {name: text for name, text in whole.items() if name.startswith(SELFTESTS)}
    kernel = [name for name in files if not name.startswith(SELFTESTS)]
    return [
        {**apply([*(fix.patch for fix in fixes[:count]), Patch(UML)], source, kernel), **tests}
        for count in range(len(fixes) + 1)
    ]
