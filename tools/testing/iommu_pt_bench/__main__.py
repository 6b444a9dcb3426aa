# SPDX-License-Identifier: GPL-2.0
"""Measure the I/O page tables, Rust against C, in one run of one kernel.

Writes build/bench.json, build/bench.txt and build/bench.svg. It does not judge
figures: it fails only if something could not be measured. With --terabyte it measures
1 TiB instead, and writes build/bench-terabyte.json and build/bench-terabyte.txt.
"""

import argparse
import os
import pathlib
import subprocess
import sys

from harness import CHECKOUT, uml
from harness.errors import MachineError
from harness.products import UmlProducts

from . import figures as results
from . import plan, plot

FEWEST = 15
# The tables of both sides, of 4 KiB leaves, are 4 GiB of it; bitmaps are the rest.
MEMORY = {False: "1G", True: "5G"}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--repetitions", type=int, default=21, metavar="N")
    parser.add_argument("--format", choices=plan.FORMATS, action="append", help="only this one")
    parser.add_argument("--size", type=int, choices=plan.SIZES, action="append", help="MiB; only this")
    parser.add_argument(
        "--terabyte", action="store_true", help=f"of 1 TiB; needs {MEMORY[True]} of memory"
    )
    parser.add_argument("--output", type=pathlib.Path, default=CHECKOUT / "build")
    parser.add_argument("--no-setup", action="store_true", help="measure what was built last")
    options = parser.parse_args()
    if options.repetitions < FEWEST:
        parser.error(f"--repetitions {options.repetitions} is too few to trust a median: {FEWEST} or more")
    return options


class Progress:
    """Shows the current measurement, on one line if there is a terminal."""

    def __init__(self):
        self.terminal = sys.stdout.isatty()
        self.heading = None

    def __call__(self, line):
        words = line.split()
        if not words or words[0] != "WORK":
            return
        name, mib, work = words[1:4]
        if self.terminal:
            print(f"\r\033[K{name}, {results.size_name(int(mib))}: {work}", end="", flush=True)
        elif self.heading != (name, mib):
            self.heading = (name, mib)
            print(f"{name}, {results.size_name(int(mib))} ...", flush=True)

    def end(self):
        if self.terminal:
            print("\r\033[K", end="", flush=True)


def conditions():
    """Return the data of the host that matter for the figures."""
    model = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    load = os.getloadavg()[0]
    note = [f"processor: {model}; load of the machine when it began: {load:.1f}"]
    if load > 0.5:
        note.append("the machine was busy: measure again when nothing else runs")
    if not any(pathlib.Path("/sys/bus/event_source/devices").glob("cpu*")):
        note.append("no instruction counts: this machine has no hardware counters")
    return note


def measure(options):
    products = UmlProducts.load()
    formats = options.format or plan.FORMATS
    if options.terabyte:
        domains = plan.terabyte(formats)
    else:
        domains = plan.domains(formats, options.size or plan.SIZES)
    text = plan.text(domains, options.repetitions)
    progress = Progress()
    outcome = uml.run(
        products,
        # This run does not need the sample of /dev/random that the kernel waits
        # for.
        ["kunit.enable=0", "random.trust_cpu=on"],
        log=options.output / "bench.log",
        limit=3600,
        files={"init": products.bench.read_bytes(), "plan": text.encode()},
        on_line=progress,
        memory=MEMORY[options.terabyte],
    )
    progress.end()
    failures = [line.removeprefix("FAIL ") for line in outcome.lines if line.startswith("FAIL ")]
    failures = failures or outcome.failures()
    if not failures and "END 0" not in outcome.lines:
        failures = ["the program ended before it was through"]
    if failures:
        raise MachineError(f"{failures[0]} (log: {options.output / 'bench.log'})")
    return outcome.lines


def main():
    options = parse_arguments()
    try:
        if not options.no_setup:
            if subprocess.run([str(CHECKOUT / "tools/setup/setup"), "uml"], check=False).returncode != 0:
                return 1
        note = conditions()
        lines = measure(options)
    except (MachineError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    found, tables = results.collect(lines), results.memory(lines)
    table = results.table_text(found, tables, note)
    name = "bench-terabyte" if options.terabyte else "bench"
    written = {f"{name}.json": results.json_text(found, tables), f"{name}.txt": table}
    if not options.terabyte:
        written[f"{name}.svg"] = plot.svg(found)
    for name, content in written.items():
        (options.output / name).write_text(content)
    print(table)
    print(f"written: {options.output}/{', '.join(written)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
