# SPDX-License-Identifier: GPL-2.0
"""Count the pages that a migration copies in each round, by the size of the leaves, and with and
without splitting these.

Boots the machine that IOMMU names (vtd-ss) once for each of CASES, and has iommu-migrate migrate a
GiB in it. Writes rounds.json, rounds.txt and rounds.svg to --output. The machine's clock is its
own, so that another load of the host changes nothing.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys

from harness import CHECKOUT, configs
from harness import machine as vm
from harness.errors import MachineError, UnknownName
from harness.products import Products

from .chart import curve, document, line, spread_out, text

# The size of the leaves, the driver's parameter `split`, the colour.
CASES = (
    ("4K", 0, "#1b6ca8"),
    ("2M", 0, "#d97706"),
    ("2M", 1, "#d97706"),
    ("2M", 4096, "#d97706"),
    ("1G", 0, "#c0392b"),
    ("1G", 1, "#c0392b"),
    ("1G", 4096, "#c0392b"),
)
SIZE = 1 << 30
ROUNDS = 8
HUGE_PAGES = {"4K": "", "2M": "hugepagesz=2M hugepages=512", "1G": "hugepagesz=1G hugepages=1"}
# Real seconds for one migration.
LIMIT = 1200

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 130, 40, 50


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--output", type=pathlib.Path, default=CHECKOUT / "build")
    parser.add_argument("--no-setup", action="store_true", help="use what was built last")
    return parser.parse_args()


def name_of(page_size, split):
    name = f"{page_size[0]} {page_size[1]}iB"
    return f"{name}, split={split}" if split else name


def migrate(products, machine, page_size, split):
    """Return what iommu-migrate says in the end."""
    machine = dataclasses.replace(machine, config=machine.config.with_split(split))
    words = f"--json --size {SIZE} --page-size {page_size} --rounds {ROUNDS}"
    job = [
        *machine.config.job_head(),
        f'exec iommu-migrate --device "${{VFIO_DEVICES%% *}}" {words}',
    ]
    heard = []
    outcome = vm.run(
        products,
        machine,
        "\n".join(job) + "\n",
        log=CHECKOUT / "build" / "rounds" / f"{page_size}-{split}.log",
        limit=LIMIT,
        on_output=heard.append,
        extra_parameters="kunit.enable=0",
        build=vm.Build(huge_pages=HUGE_PAGES[page_size]),
    )
    said = b"".join(heard).decode(errors="replace")
    found = [json.loads(row) for row in said.splitlines() if row.startswith("{")]
    if outcome.failures() or not found or found[-1]["result"] != "migrated":
        reason = outcome.failures() or [found[-1] if found else said[-200:]]
        raise MachineError(f"{name_of(page_size, split)}: {reason[0]} (log: {outcome.console})")
    return found[-1]


def copied(result):
    """Return the pages that each round copied, without the first one, which copies everything."""
    return [entry["copied"] for entry in result["rounds"]][1:]


def table(results):
    columns = range(1, max(len(copied(result)) for result in results.values()) + 1)
    base = sum(copied(results[name_of(*CASES[0][:2])]))
    head = [f"{'pages copied in round':<22}", *(f"{number:>7}" for number in columns)]
    rows = [" ".join([*head, f"{'sum':>8}", f"{'by that of 4 KiB':>17}"])]
    for name, result in results.items():
        counts = copied(result)
        cells = [f"{count:>7}" for count in counts] + [f"{'':>7}"] * (len(columns) - len(counts))
        total = sum(counts)
        rows.append(" ".join([f"{name:<22}", *cells, f"{total:>8}", f"{total / base:>17.2f}"]))
    return "\n".join(row.rstrip() for row in rows) + "\n"


def svg(results):
    """Return the plot: a curve for each, pages by round; they have a logarithmic axis."""
    last = max(len(copied(result)) for result in results.values())
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def across(number):
        return LEFT + (number - 1) / max(1, last - 1) * (right - LEFT)

    def up(count):
        return bottom - math.log10(max(1, count)) / 6 * (bottom - TOP)

    parts = [text((LEFT + right) / 2, TOP - 16, "Pages copied in each round after the first copy", size=14)]
    for power in range(7):
        y = up(10**power)
        parts.append(line(LEFT, y, right, y, "#dddddd"))
        parts.append(text(LEFT - 6, y + 4, f"{10 ** power:,}", "end"))
    for number in range(1, last + 1):
        parts.append(text(across(number), bottom + 18, number))
    parts.append(line(LEFT, bottom, right, bottom, "#222"))
    labels = []
    for page_size, split, colour in CASES:
        name = name_of(page_size, split)
        places = [(across(n), up(count)) for n, count in enumerate(copied(results[name]), 1)]
        parts += curve(places, colour, split > 0)
        labels.append((places[-1][1], name, colour))
    for y, words, colour in spread_out(labels):
        parts.append(text(right + 8, y + 4, words, "start", colour))
    words = f"round; {SIZE >> 30} GiB, a device that writes to random pages; dashed: leaves are split"
    parts.append(text((LEFT + right) / 2, bottom + 38, words, size=12))
    return document(WIDTH, HEIGHT, parts)


def main():
    options = parse_arguments()
    try:
        machine = configs.machines(os.environ.get("IOMMU") or "vtd-ss")[0]
        if not options.no_setup:
            if subprocess.run([str(CHECKOUT / "tools/setup/setup"), "vm"], check=False).returncode != 0:
                return 1
        products = Products.load()
        results = {}
        for page_size, split, _ in CASES:
            name = name_of(page_size, split)
            results[name] = migrate(products, machine, page_size, split)
            print(f"{name}: {copied(results[name])}", flush=True)
    except (MachineError, UnknownName, OSError) as error:
        print(f"rounds: {error}", file=sys.stderr)
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    text_table = table(results)
    for name, content in (
        ("rounds.json", json.dumps(results, indent=1) + "\n"),
        ("rounds.txt", text_table),
        ("rounds.svg", svg(results)),
    ):
        (options.output / name).write_text(content)
    print(text_table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
