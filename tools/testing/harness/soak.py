# SPDX-License-Identifier: GPL-2.0
"""Use the IOMMUs at random and from several sides at once, for 'make soak'.

Boots each Rust configuration that tracks writes, two machines at a time, and runs iommu-soak in
it (tools/soak) for TIME seconds. A machine's clock stands still while the machine waits, so TIME
is measured by its real-time clock, which is the host's.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import secrets
import shlex
import subprocess
import sys
import threading

from . import CHECKOUT, configs
from . import machine as vm
from .errors import MachineError, UnknownName
from .products import Products

OUTPUT = CHECKOUT / "build" / "soak"
AT_ONCE = 2
# Of the machine's own time: far more than a machine has in any TIME.
ENDLESS = 10**9
# Real seconds for a virtual one, at most.
SLOWNESS = 8
# Virtual seconds in which what fails is made shorter.
SHORTEN = 120
# For a boot, for the end of an episode, and for what fails to be made shorter, in real seconds.
MARGIN = 600 + SLOWNESS * SHORTEN
COLUMNS = (
    ("episodes", "episodes"),
    ("seconds", "virtual s"),
    ("wall_seconds", "real s"),
    ("writes", "writes"),
    ("tracked", "tracked"),
    ("lost", "lost"),
    ("queries", "queries"),
    ("moves", "moves"),
    ("mappings", "maps"),
    ("resets", "resets"),
    ("interrupts", "interrupts"),
    ("failures", "failed calls"),
)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--seed", type=int, help="what everything follows from (random)")
    what.add_argument("--episode", type=int, help="play only this episode, once")
    parser.add_argument("--keep", metavar="N,N...", help="of the episode, only these steps")
    parser.add_argument("--virtual", type=int, metavar="SECONDS", help="by the machine's own clock")
    parser.add_argument("--pace", type=int, default=1, help="multiplies the pauses between steps")
    parser.add_argument(
        "--split",
        default=os.environ.get("SPLIT"),
        help="the driver's parameter of that name (it follows from the seed of an episode)",
    )
    parser.add_argument("--json", action="store_true", help="the result as JSON, and nothing else")
    options = parser.parse_args()
    if options.keep and options.episode is None:
        parser.error("--keep is about one episode: give --episode as well")
    if options.seed is None:
        options.seed = secrets.randbits(32)
    return options


def subject(options):
    """Return what everything follows from, in words."""
    return f"seed {options.seed}" if options.episode is None else f"episode {options.episode}"


@dataclasses.dataclass
class Soak:
    """One machine's."""

    machine: configs.Machine
    options: argparse.Namespace
    seconds: int
    say: object
    figures: dict = dataclasses.field(default_factory=dict)
    failures: list = dataclasses.field(default_factory=list)
    rest: bytes = b""

    def job(self):
        options = self.options
        words = ["iommu-soak", "--json", "--pace", str(options.pace)]
        if self.machine.name in configs.PASIDS:
            words.append("--pasids")
        if options.split:
            words += ["--split", options.split]
        if options.episode is not None:
            words += ["--episode", str(options.episode)]
            words += ["--keep", options.keep] if options.keep else []
        else:
            words += ["--seed", str(options.seed), "--shorten", str(SHORTEN)]
            words += ["--seconds", str(options.virtual or ENDLESS)]
            words += [] if options.virtual else ["--wall", str(self.seconds)]
        return "\n".join([*self.machine.config.job_head(), f"exec {shlex.join(words)}"]) + "\n"

    def hear(self, piece):
        """Take what the job says, line by line."""
        *lines, self.rest = (self.rest + piece).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").strip()
            if text.startswith("{"):
                self.figures = json.loads(text)
                if self.figures["result"] == "running":
                    self.say(f"{self.machine.name:<14} {shown(self.figures)}")
            elif text and not text.startswith("#"):
                self.failures.append(text)

    def run(self, products):
        log = OUTPUT / f"{self.machine.name.replace('/', '-')}.console"
        outcome = vm.run(
            products,
            self.machine,
            self.job(),
            log=log,
            # Virtual time may be slower than real time.
            limit=MARGIN
            + (SLOWNESS * self.options.virtual if self.options.virtual else self.seconds),
            on_output=self.hear,
            extra_parameters="kunit.enable=0",
        )
        self.failures += [f"{sentence} ({log})" for sentence in outcome.failures()]
        if self.figures.get("result") == "failed":
            self.failures.append(self.found())
        elif self.figures.get("result") != "passed" and not self.failures:
            self.failures.append(f"it did not come to its end ({log})")
        return self

    def found(self):
        """Return what iommu-soak has found, and how to see it again."""
        figures = self.figures
        of_run = f" of seed {self.options.seed}" if self.options.episode is None else ""
        lines = [figures["first"], f"in episode {figures['episode']}{of_run}"]
        if figures["steps"]:
            lines.append("after these steps as well:")
            lines += [f"    {step}" for step in figures["steps"]]
            if figures["error"] != figures["first"]:
                lines.append(f"then with another error: {figures['error']}")
        elif self.options.episode is None:
            lines.append("nothing shorter was found before the machine ended")
        kernel = os.environ.get("DEBUG")
        variables = f"IOMMU={self.machine.name}" + (f" DEBUG={kernel}" if kernel else "")
        lines.append(f'again: make soak {variables} ARGS="{figures["again"]}"')
        return "\n    ".join(lines)


def shown(figures):
    """Return a line of progress."""
    return (
        f"{figures['seconds']:8.0f} s virtual, {figures['wall_seconds'] or 0:5} s real, "
        f"{figures['writes']:9} writes, {figures['queries']:7} queries, "
        f"{figures['episodes']:6} episodes"
    )


def table(soaks):
    """Return the lines of the table of all figures."""
    rows = [("configuration", *(title for _, title in COLUMNS))]
    for soak in soaks:
        cells = [soak.figures.get(name) for name, _ in COLUMNS]
        rows.append(
            (
                soak.machine.name,
                *("-" if cell is None else f"{cell:.0f}" for cell in cells),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row):
        first, *rest = zip(row, widths)
        cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
        return "  ".join(cells)

    return [line(row) for row in rows]


def soak_all(options, machines, products):
    """Soak them, and return the results in the order of the machines."""
    lock = threading.Lock()

    def say(text):
        if not options.json:
            with lock:
                print(text, flush=True)

    seconds = int(os.environ.get("TIME") or 600)
    say(
        f"{subject(options)}, {len(machines)} configurations, {AT_ONCE} at a time, "
        + (f"{seconds} s each; " if options.episode is None else "")
        + f"logs in {OUTPUT}"
    )

    def one(machine):
        soak = Soak(machine, options, seconds, say)
        try:
            return soak.run(products)
        except (MachineError, OSError) as error:
            soak.failures.append(str(error))
            return soak

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, machines))


def report(options, soaks):
    """Print all figures and failures; return the exit status."""
    failed = [soak for soak in soaks if soak.failures]
    if options.json:
        results = {
            soak.machine.name: {**soak.figures, "failures": soak.failures} for soak in soaks
        }
        about = {"seed": options.seed}
        if options.episode is not None:
            about = {"episode": options.episode}
        print(json.dumps({**about, "passed": not failed, "machines": results}))
        return 1 if failed else 0
    print()
    for soak in failed:
        for failure in soak.failures:
            print(f"FAILED: {soak.machine.name}: {failure}")
    print("\n".join(table(soaks)))
    writes = sum(soak.figures.get("writes", 0) for soak in soaks)
    queries = sum(soak.figures.get("queries", 0) for soak in soaks)
    print(
        f"soak: {len(soaks) - len(failed)} configurations passed, {len(failed)} failed; "
        f"{writes} writes of devices, {queries} queries"
    )
    return 1 if failed else 0


def main():
    options = parse_arguments()
    try:
        selection = os.environ.get("IOMMU", "")
        machines = [
            machine
            for machine in configs.machines(selection)
            if machine.name in (configs.SOAKED if selection else configs.REMAPPED_RUST)
        ]
        if not machines:
            raise UnknownName(
                f"{selection} is none of the Rust configurations that track writes: "
                f"{', '.join(configs.SOAKED)}"
            )
        setup = [str(CHECKOUT / "tools/setup/setup"), "vm"]
        quiet = {"stdout": subprocess.DEVNULL} if options.json else {}
        if subprocess.run(setup, check=False, **quiet).returncode != 0:
            return 1
        OUTPUT.mkdir(parents=True, exist_ok=True)
        return report(options, soak_all(options, machines, Products.load()))
    except (MachineError, UnknownName, ValueError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
