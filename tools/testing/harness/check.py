# SPDX-License-Identifier: GPL-2.0
"""Runs the test suites and adds up the results, for 'make check' and 'make list'."""

import argparse
import concurrent.futures
import dataclasses
import itertools
import os
import pathlib
import re
import subprocess
import sys
import time

from . import CHECKOUT, configs, ktap, results_cache, uml
from . import machine as vm
from .errors import ListsDiffer, MachineError, UnknownName
from .products import Products, UmlProducts
from .suites import all_suites, kinds

OUTPUT = CHECKOUT / "build" / "check"
LEVELS = ("host", "uml", "vm", "vmm")
# A whole machine with several suites; each program in it has its own limit. This one ends only what
# hangs: a machine whose driver splits leaves may take half an hour on a busy host.
MACHINE_LIMIT = 3600
# Of one that runs virtual machines: its tests have limits that are shorter together.
VMM_LIMIT = 3300
# What machines are built like, and what follows the name of such a machine.
BUILDS = {
    vm.Build(): "",
    vm.VMM_HOST: "/vm",
    vm.SLEEPER: "/sleep",
    vm.HIBERNATOR: "/hibernate",
    vm.PLUGGED: "/plug",
    vm.CROWDED: "/crowd",
}


@dataclasses.dataclass
class Task:
    """One process or one virtual machine, and its results."""

    where: str
    what: str
    function: object
    # The limits of a machine's programs together: about how long it takes, compared with others.
    limit: int = 0
    results: ktap.Results = dataclasses.field(default_factory=ktap.Results)
    seconds: float = 0.0
    log: pathlib.Path = None
    # The time of its kept results, if it did not run this time.
    kept: str = ""

    def how_long(self):
        return f"kept since {self.kept}" if self.kept else f"{self.seconds:4.0f} s"


def guest_job(machine, chosen, patience):
    """Return the job that runs the tests of several suites on one machine."""
    lines = machine.config.job_head()
    lines.append("export VFIO_SELFTESTS_BDF=${VFIO_DEVICES%% *}")
    lines.append(f"begin {sum(len(suite.tests) for suite in chosen)}")
    for suite in chosen:
        lines += suite.job_lines(machine, patience)
    return "\n".join(lines) + "\n"


def kunit_job(suite):
    lines = [". /lib/lib.sh"]
    if suite.module:
        lines.append(f"load_module {suite.module}")
    lines.append("kunit_suites " + " ".join(suite.suites))
    return "\n".join(lines) + "\n"


def run_machine(task, products, machine, job, parameters, build=vm.Build()):
    """Run a job in a machine; return its KTAP and all errors as results."""
    task.log = OUTPUT / f"{task.where.replace('/', '-')}.log"
    entry = results_cache.Entry.of_machine(
        products, machine, job, parameters, real_time=build.real_time
    )
    results, task.kept = entry.load()
    if results:
        task.results = results
        return
    with task.log.open("wb", buffering=0) as log:
        outcome = vm.run(
            products,
            machine,
            job,
            log=task.log.with_suffix(".console"),
            limit=VMM_LIMIT if build.vmm else MACHINE_LIMIT,
            on_output=log.write,
            extra_parameters=parameters,
            build=build,
        )
    task.results = ktap.parse(outcome.lines, products.tree)
    for sentence in outcome.failures():
        task.results.failures.append(("machine", f"{sentence} ({outcome.console})"))
    entry.store(task.results)


def run_cases(task, products, machine, suite, cases):
    """Run small machines one after the other; their results go under the cases' names."""
    jobs = "".join(case.job() for case in cases)
    entry = results_cache.Entry.of_machine(products, machine, jobs, repr(cases), all_drivers=True)
    results, task.kept = entry.load()
    if results:
        task.results = results
        return
    for case in cases:
        path = OUTPUT / f"{task.where.replace('/', '-')}-{case.name}.log"
        # Shows the log of the first one that fails.
        if not task.results.failures:
            task.log = path
        varied, build = case.make()
        with path.open("wb", buffering=0) as log:
            outcome = vm.run(
                products,
                varied,
                case.job(),
                log=path.with_suffix(".console"),
                limit=suite.limit,
                on_output=log.write,
                extra_parameters=f"kunit.enable=0 {case.parameters}",
                build=build,
            )
        if case.trouble:
            expected = re.compile(case.trouble)
            outcome.trouble = [line for line in outcome.trouble if not expected.search(line)]
        results = ktap.parse(outcome.lines, products.tree)
        results.failures += [
            ("machine", f"{sentence} ({outcome.console})") for sentence in outcome.failures()
        ]
        task.results.add(results.under(case.name))
    entry.store(task.results)


def run_host(task, suite, products):
    """Run a program of the host."""
    task.log = OUTPUT / f"{suite.name}.log"
    values = {}
    if products:
        values = {"qemu": products.qemu, "tree": products.tree}
    entry = results_cache.Entry.of_program(products, suite, values)
    results, task.kept = entry.load()
    if results:
        task.results = results
        return
    command = [word.format(**values) for word in suite.command]
    with task.log.open("w") as log:
        try:
            status = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=suite.limit,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            status = f"nothing within {suite.limit} s"
    lines = task.log.read_text(errors="replace").splitlines()
    if suite.output == "cargo":
        task.results = ktap.parse_cargo(lines)
    else:
        # The parser is the kernel's.
        task.results = ktap.parse(lines, (products or UmlProducts.load()).tree)
    if status != 0 and not task.results.failures:
        task.results.failures.append(("program", f"it ended with {status}"))
    if task.results.ran() == 0:
        task.results.failures.append(("program", "it ran no test"))
    entry.store(task.results)


def run_uml(task, suite):
    """Run the KUnit suites of the UML kernel."""
    products = UmlProducts.load()
    task.log = OUTPUT / f"{suite.name}.log"
    outcome = uml.run(
        products,
        ["kunit.enable=1", "kunit_shutdown=halt", f"kunit.filter_glob={suite.pattern}"],
        log=task.log,
        limit=suite.limit,
    )
    task.results = ktap.parse(outcome.lines, products.tree)
    begun = (line.partition("# Subtest: ")[2].strip() for line in outcome.lines)
    ran = set(filter(None, begun))
    for name in suite.suites:
        if name not in ran:
            task.results.failures.append((name, "the kernel did not run this suite"))
    task.results.failures += [("kernel", sentence) for sentence in outcome.failures()]


def plan(chosen, selection, products):
    """Return the tasks that the chosen suites need on the chosen machines."""
    tasks = []
    everywhere = bool(selection) or wants_everything()
    for suite in chosen:
        if isinstance(suite, kinds.UmlSuite) and not selection:
            tasks.append(Task("host", suite.name, lambda task, s=suite: run_uml(task, s)))
        if isinstance(suite, kinds.HostSuite) and not selection:
            tasks.append(
                Task("host", suite.name, lambda task, s=suite: run_host(task, s, products))
            )
    machines = configs.machines(selection)
    for suite in chosen:
        if not isinstance(suite, kinds.KunitSuite):
            continue
        for machine in machines:
            if machine.name == suite.machine:
                parameters = f"kunit.enable=1 kunit.filter_glob={suite.pattern}"
                tasks.append(
                    Task(
                        f"{machine.name}/{suite.name}",
                        suite.name,
                        lambda task, m=machine, s=suite, p=parameters: run_machine(
                            task, products, m, kunit_job(s), p
                        ),
                    )
                )
    for suite in chosen:
        if not isinstance(suite, kinds.CaseSuite):
            continue
        for name, group in suite.groups:
            cases = tuple(case for case in group if everywhere or not case.named)
            tasks += [
                Task(
                    f"{machine.name}/{suite.name}",
                    suite.name,
                    lambda task, m=machine, s=suite, c=cases: run_cases(task, products, m, s, c),
                    suite.limit * len(cases),
                )
                for machine in machines
                if machine.name == name
            ]
    for machine, (build, suffix) in itertools.product(machines, BUILDS.items()):
        there = [
            suite
            for suite in chosen
            if isinstance(suite, kinds.GuestSuite)
            and suite.build == build
            and suite.runs_on(machine, everywhere)
        ]
        if there:
            tasks.append(
                Task(
                    f"{machine.name}{suffix}",
                    " ".join(suite.name for suite in there),
                    lambda task, m=machine, t=there, b=build: run_machine(
                        task, products, m, guest_job(m, t, products.patience), "kunit.enable=0", b
                    ),
                    sum(test.limit for suite in there for test in suite.tests),
                )
            )
    # What has no machine, or only KUnit in it, says soonest what is wrong. Of the machines the
    # longest come first, so that the last one to finish is short.
    return sorted(tasks, key=lambda task: (task.limit > 0, -task.limit))


def run_task(task):
    begun = time.monotonic()
    try:
        task.function(task)
    except (MachineError, OSError) as error:
        task.results.failures.append(("machine", str(error)))
    task.seconds = time.monotonic() - begun
    return task


def say(text):
    print(text, flush=True)


def run_tasks(tasks, at_once):
    """Run the tasks, a few at once, with a line for each finished one."""
    say(f"{len(tasks)} runs, {at_once} at a time; logs in {OUTPUT}")
    total = ktap.Results()
    kept_count = 0
    waiting = set()
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        waiting = {pool.submit(run_task, task) for task in tasks}
        while waiting:
            done, waiting = concurrent.futures.wait(
                waiting, timeout=60, return_when=concurrent.futures.FIRST_COMPLETED
            )
            if not done:
                say(f"... {len(waiting)} runs to go")
            for future in done:
                task = future.result()
                say(
                    f"{task.where:<20} {task.what:<24} {task.results.summary():<40} "
                    f"{task.how_long()}"
                )
                if task.kept:
                    kept_count += task.results.ran()
                for name, reason in task.results.failures:
                    say(f"    failed: {name}: {reason}")
                where = f"{task.where} " if task.where != "host" else f"{task.what} "
                total.passed += task.results.passed
                for kind in ("failures", "skips", "expected"):
                    getattr(total, kind).extend(
                        (where + name, reason, task.log)
                        for name, reason in getattr(task.results, kind)
                    )
    if kept_count:
        say(
            f"{kept_count} results are kept ones, of runs in which nothing takes part that has "
            "changed since: FRESH=1 runs them again"
        )
    return total


def report(total):
    """Print every skip, expected difference and failure, and the last line."""
    for title, entries in (
        ("skipped", total.skips),
        ("expected to fail there", total.expected),
        ("FAILED", total.failures),
    ):
        if entries:
            say("")
            for name, reason, log in sorted(entries, key=lambda entry: entry[0]):
                behind = f" (log: {log})" if title == "FAILED" else ""
                say(f"{title}: {name}: {reason}{behind}")
    say("")
    say(total.summary())
    if total.failures:
        return 1
    if total.passed == 0:
        print("check: no test passed, so nothing was shown", file=sys.stderr)
        return 1
    return 0


def wants_everything():
    """Whether also what the user has to name runs."""
    return bool(os.environ.get("ALL"))


def choose(everything, selection):
    """Return the suites that `selection` names, with commas in between."""
    if not selection:
        return [
            suite
            for suite in everything
            if wants_everything() or not getattr(suite, "named", False)
        ]
    chosen = selection.split(",")
    known = [suite.name for suite in everything]
    for name in chosen:
        if name not in known:
            raise UnknownName(f"there is no suite '{name}': {', '.join(known)} exist")
    return [suite for suite in everything if suite.name in chosen]


def show_list(everything):
    """Print the suites and the configurations, with where each runs."""
    say("suites (make check SUITE=...)")
    for suite in everything:
        where = "host"
        if isinstance(suite, kinds.GuestSuite):
            where = " ".join(suite.machines) or "every machine"
            if more := [name for name in suite.also if name not in suite.machines]:
                where += f" (only if named: {' '.join(more)})"
        elif isinstance(suite, kinds.KunitSuite):
            where = suite.machine
        elif isinstance(suite, kinds.CaseSuite):
            where = " ".join(name for name, _ in suite.groups)
        if getattr(suite, "named", False):
            where += " (only if named)"
        say(f"  {suite.name:<14} {suite.what:<66} {where}")
    say("")
    say("configurations (make check IOMMU=..., make run IOMMU=...)")
    for config in configs.CONFIGS:
        say(f"  {config.name:<14} {config.what}")
    say("append a default domain, or leave it out to run both in turn:")
    for domain, what in configs.DOMAINS.items():
        say(f"  .../{domain:<10} {what}")
    say("")
    say("debug kernels, for the suites that run in a kernel (make check DEBUG=..., or several")
    say("names with commas for one kernel that finds what each of them finds)")
    for name, what in configs.debug_kernels().items():
        say(f"  {name:<14} {what}")
    return 0


def set_up(chosen):
    """Set up what the suites need; return its exit status."""
    needed = {suite.needs for suite in chosen}
    level = "all" if "uml" in needed and len(needed) > 1 else max(needed, key=LEVELS.index)
    return subprocess.run([str(CHECKOUT / "tools/setup/setup"), level], check=False).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("check", "list"))
    options = parser.parse_args()
    try:
        everything = all_suites()
        if options.command == "list":
            return show_list(everything)
        selection = os.environ.get("IOMMU", "")
        chosen = choose(everything, os.environ.get("SUITE", ""))
        if os.environ.get("DEBUG") and not os.environ.get("SUITE"):
            # The virtual machines would have the debug kernel too, which takes minutes to boot.
            left_out = (kinds.HostSuite, kinds.VmSuite)
            chosen = [suite for suite in chosen if not isinstance(suite, left_out)]
        if not plan(chosen, selection, None):
            raise UnknownName(
                f"suite {chosen[0].name} does not run on {selection}: "
                "'make list' says where it does"
            )
        if set_up(chosen) != 0:
            return 1
        needs_vm = any(suite.needs in ("vm", "vmm") for suite in chosen)
        products = Products.load() if needs_vm else None
        OUTPUT.mkdir(parents=True, exist_ok=True)
        at_once = max(1, min(4, os.cpu_count() or 1))
        return report(run_tasks(plan(chosen, selection, products), at_once))
    except (ListsDiffer, MachineError, UnknownName) as error:
        print(f"check: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
