# SPDX-License-Identifier: GPL-2.0
"""Medians and ratios of the measurements, as JSON and as a table."""

import dataclasses
import json
import re
import statistics

SAMPLE = re.compile(r"^S (\S+) (\d+) (\S+) (c|rust) (\d+) (\d+)$")
TABLES = re.compile(r"^T (\S+) (\d+) (c|rust) (\d+) (\d+)$")
TABLE_BYTES = 4096

# The largest allowed ratio Rust/C for each work, on every format that has both.
GOALS = {
    "clean": 0.20,
    "random1": 0.30,
    "run10": 0.20,
    "random50": 0.50,
    "all": 0.15,
    "map4k": 1.0,
    "map256": 0.8,
    "unmap4k": 1.0,
    "unmap256": 0.8,
    "translate": 1.0,
}
# Works whose cost per entry should not grow with the size.
GROWING = ("limit", "limit4", "clean", "random1", "run10", "random50", "all", "noclear")


@dataclasses.dataclass
class Figure:
    """One work on one size of one format: nanoseconds per entry, by side."""

    format: str
    work: str
    mib: int
    samples: dict

    def median(self, side):
        values = self.samples.get(side)
        return statistics.median(values) if values else None

    def best(self, side):
        """Return the fastest repetition, which other load on the host disturbs
        least."""
        return min(self.samples[side]) if self.samples.get(side) else None

    def quartiles(self, side):
        """Return the bounds of the middle half of the repetitions."""
        values = self.samples.get(side)
        if not values:
            return None
        if len(values) < 2:
            return [values[0], values[0]]
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return [low, high]

    def ratio(self):
        c, rust = self.median("c"), self.median("rust")
        return rust / c if c and rust else None

    def spread(self):
        """Return the wider middle half of the two, as a fraction of its
        median."""
        widths = []
        for side in self.samples:
            low, high = self.quartiles(side)
            widths.append((high - low) / self.median(side) if self.median(side) else 0.0)
        return max(widths)

    def as_json(self):
        def rounded(value, digits=4):
            if isinstance(value, list):
                return [round(part, digits) for part in value]
            return None if value is None else round(value, digits)

        return {
            "format": self.format,
            "work": self.work,
            "mapped_mib": self.mib,
            "c_ns": rounded(self.median("c")),
            "rust_ns": rounded(self.median("rust")),
            "ratio": rounded(self.ratio()),
            "spread": rounded(self.spread()),
            "c_best_ns": rounded(self.best("c")),
            "rust_best_ns": rounded(self.best("rust")),
            "c_middle_half": rounded(self.quartiles("c")),
            "rust_middle_half": rounded(self.quartiles("rust")),
            "repetitions": max(len(values) for values in self.samples.values()),
        }


def collect(lines):
    """Return the figures, in the order of measurement."""
    figures = {}
    for line in lines:
        match = SAMPLE.match(line)
        if not match:
            continue
        name, mib, work, side, ns, entries = match.groups()
        key = (name, int(mib), work)
        figure = figures.setdefault(key, Figure(name, work, int(mib), {}))
        figure.samples.setdefault(side, []).append(int(ns) / int(entries))
    return list(figures.values())


def memory(lines):
    """Return the bytes of tables for a mapped GiB, by format, size and side."""
    found = {}
    for line in lines:
        if match := TABLES.match(line):
            name, mib, side, _, tables = match.groups()
            found[name, int(mib), side] = int(tables) * TABLE_BYTES * 1024 / int(mib)
    return found


def json_text(figures, tables):
    """Return the list that build/bench.json holds, one figure per line."""
    entries = [figure.as_json() for figure in figures]
    for name, mib in dict.fromkeys((key[0], key[1]) for key in tables):
        c, rust = tables.get((name, mib, "c")), tables.get((name, mib, "rust"))
        entries.append(
            {
                "format": name,
                "work": "memory",
                "mapped_mib": mib,
                "c_ns": None,
                "rust_ns": None,
                "ratio": round(rust / c, 4) if c and rust else None,
                "spread": None,
                "c_bytes_per_gib": c,
                "rust_bytes_per_gib": rust,
            }
        )
    return "[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n"


def size_name(mib):
    if mib >= 1 << 20:
        return f"{mib >> 20} TiB"
    return f"{mib >> 10} GiB" if mib >= 1024 else f"{mib} MiB"


def cell(value, form="8.2f"):
    width = int(form.split(".")[0])
    return f"{value:{form}}" if value is not None else "-".rjust(width)


def verdict(figure, limits):
    """Return how a figure compares with its target, if it has one."""
    ratio = figure.ratio()
    goal = GOALS.get(figure.work)
    said = []
    if goal is not None and ratio is not None:
        said.append(f"{'<=' if ratio <= goal else '>'} {goal:.2f}")
    limit = limits.get((figure.format, figure.mib))
    if figure.work == "clean" and limit and figure.median("rust"):
        said.append(f"{figure.median('rust') / limit:.2f} of the limit")
    return ", ".join(said)


def growth_lines(figures, small=1024, large=8192, most=1.3):
    """Return the cost of an entry if the tables are larger than the caches."""
    places = {(figure.format, figure.work, figure.mib): figure for figure in figures}
    lines = ["", f"cost of an entry at {size_name(large)} by that at {size_name(small)}; {most} or less is wanted"]
    for (name, work, mib), figure in places.items():
        before = places.get((name, work, small))
        if mib != large or before is None or work not in GROWING:
            continue
        cells = []
        for side in ("c", "rust"):
            now, then = figure.median(side), before.median(side)
            cells.append(cell(now / then if now and then else None))
        lines.append(f"  {name + ', ' + work:<20} {' '.join(cells)}")
    return lines if len(lines) > 2 else []


def table_text(figures, tables, note):
    """Return the human-readable table."""
    limits = {
        (figure.format, figure.mib): figure.median("rust") or figure.median("c")
        for figure in figures
        if figure.work == "limit"
    }
    lines = [
        "ns per leaf entry, medians; spread: the wider middle half, as a part of its median;",
        "best: the quickest repetition, for a machine that was not quiet",
        *note,
    ]
    heading = None
    for figure in figures:
        if heading != (figure.format, figure.mib):
            heading = (figure.format, figure.mib)
            lines.append("")
            title = f"{figure.format}, {size_name(figure.mib)}"
            lines.append(
                f"{title:<22} {'C':>8} {'Rust':>8} {'Rust/C':>7} {'spread':>7}"
                f" {'C best':>8} {'Rust best':>9}"
            )
        lines.append(
            f"  {figure.work:<20} {cell(figure.median('c'))} {cell(figure.median('rust'))} "
            f"{cell(figure.ratio(), '7.2f')} {figure.spread():>7.0%} "
            f"{cell(figure.best('c'))} {cell(figure.best('rust'), '9.2f')}  "
            f"{verdict(figure, limits)}".rstrip()
        )
    lines += growth_lines(figures)
    lines.append("")
    lines.append("KiB of tables for a mapped GiB of 4 KiB leaves")
    for name, mib in dict.fromkeys((key[0], key[1]) for key in tables):
        c, rust = tables.get((name, mib, "c")), tables.get((name, mib, "rust"))
        lines.append(
            f"  {name}, {size_name(mib):<12}".ljust(22)
            + f" {cell(c / 1024 if c else None, '8.0f')} {cell(rust / 1024 if rust else None, '8.0f')}"
        )
    return "\n".join(lines) + "\n"
