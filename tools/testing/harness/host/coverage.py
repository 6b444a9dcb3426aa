# SPDX-License-Identifier: GPL-2.0
"""Prints the coverage of the page tables, from the lines that lcov has counted."""

import collections
import pathlib
import re
import sys

ENOUGH = 95.0


def counts(lcov, folder):
    """Return how often each line of each file ran, without the tests.

    A function is compiled once for each format and each test program; a line ran
    if it did in any of them.
    """
    files = collections.defaultdict(lambda: collections.defaultdict(int))
    path = None
    for line in pathlib.Path(lcov).read_text().splitlines():
        if line.startswith("SF:"):
            path = pathlib.Path(line[3:]).resolve()
            if folder not in path.parents or "tests" in path.relative_to(folder).parts:
                path = None
        elif line.startswith("DA:") and path:
            number, count = line[3:].split(",")[:2]
            files[path][int(number)] += int(count)
    return files


def main():
    folder = pathlib.Path(sys.argv[2]).resolve()
    files = counts(sys.argv[1], folder)
    if not files:
        print("coverage: no line of the page tables was counted", file=sys.stderr)
        return 1
    total = ran = 0
    missing = []
    for path in sorted(files):
        lines = files[path]
        done = sum(count > 0 for count in lines.values())
        total += len(lines)
        ran += done
        name = path.relative_to(folder)
        print(f"{str(name):<20} {done:5} of {len(lines):5} lines  {100 * done / len(lines):6.1f} %")
        text = path.read_text().splitlines()
        missing += [
            f"  {name}:{number}: {text[number - 1].strip()}"
            for number, count in sorted(lines.items())
            if count == 0 and re.search(r"\w", text[number - 1])
        ]
    print(f"{'all':<20} {ran:5} of {total:5} lines  {100 * ran / total:6.1f} %")
    if missing:
        print("not run:")
        print("\n".join(missing))
    if 100 * ran / total < ENOUGH:
        print(f"coverage: this is less than {ENOUGH:.0f} %", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
