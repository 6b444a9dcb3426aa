# SPDX-License-Identifier: GPL-2.0
"""Results of tests: parsed by the kernel's own KTAP parser, and added up."""

import dataclasses
import importlib.util
import io
import pathlib
import re
import sys
import threading

# kselftest's word for a failure that is known and expected there.
XFAIL = re.compile(r"^\s*ok \d+ (?:- )?(?P<name>[^#]*?) # XFAIL ?(?P<reason>.*)$")
# What follows a failure on the same line, which the parser drops.
NOT_OK = re.compile(r"^\s*not ok \d+ (?:- )?(?P<name>[^#]*?) # (?P<reason>.+)$")
BAIL_OUT = re.compile(r"^\s*Bail out!\s*(?P<reason>.*)$")
# What says why a test failed.
TELLING = re.compile("Expected|Expression|EXPECTATION|ASSERTION|panicked|error|timeout|terminated")
# The parser stops at such a line; the suites after it would be lost.
PARSER_END = re.compile(r"\s*(List of all partitions:|reboot: System halted)")


@dataclasses.dataclass
class Results:
    """The results of one run's tests; failures and skips with the reason."""

    passed: int = 0
    failures: list = dataclasses.field(default_factory=list)
    skips: list = dataclasses.field(default_factory=list)
    expected: list = dataclasses.field(default_factory=list)

    def ran(self):
        return self.passed + len(self.failures) + len(self.skips) + len(self.expected)

    def add(self, other):
        self.passed += other.passed
        self.failures += other.failures
        self.skips += other.skips
        self.expected += other.expected

    def under(self, name):
        """Return the same results with `name` in front of each."""

        def named(entries):
            return [(f"{name}: {entry}", reason) for entry, reason in entries]

        return Results(
            self.passed, named(self.failures), named(self.skips), named(self.expected)
        )

    def summary(self):
        return f"{self.passed} passed, {len(self.failures)} failed, {len(self.skips)} skipped"


def _collect(test, path, results, status, reasons):
    """Add the leaves of a parsed tree; a test without subtests is a leaf."""
    name = " ".join([*path, test.name or "(unnamed)"])
    if test.subtests:
        before = len(results.failures)
        within = [*path, test.name] if test.name not in ("", "main") else path
        for subtest in test.subtests:
            _collect(subtest, within, results, status, reasons)
        # A program that fails by its exit status, without a failing test.
        if test.status in (status.FAILURE, status.TEST_CRASHED) and before == len(results.failures):
            reason = reasons.get(test.name, "it failed outside of its tests")
            results.failures.append((name, reason))
    elif test.status == status.SUCCESS:
        results.passed += 1
    elif test.status == status.SKIPPED:
        results.skips.append((name, test.skip_reason.strip() or "no reason given"))
    elif test.status == status.FAILURE:
        results.failures.append((name, reasons.get(test.name) or _last_words(test.log)))
    else:
        results.failures.append((name, "it ended before it said how it went"))


def _last_words(log):
    """Return the line of a test's log that says most about its failure."""
    words = [line.strip().lstrip("#").strip() for line in log if line.strip(" #")]
    telling = [word for word in words if TELLING.search(word)]
    return (telling or words or ["no reason given"])[-1]


# Runs end in several threads.
_LOADING = threading.Lock()


def _kernel_module(name, tree):
    """Return a module of the kernel's tools/testing/kunit, which is no package."""
    with _LOADING:
        if name not in sys.modules:
            path = pathlib.Path(tree, "tools/testing/kunit", f"{name}.py")
            spec = importlib.util.spec_from_file_location(name, path)
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        return sys.modules[name]


def parse(lines, tree):
    """Parse the KTAP of one run with the parser of the kernel tree `tree`."""
    # In this order: the parser imports the printer.
    kunit_printer = _kernel_module("kunit_printer", tree)
    kunit_parser = _kernel_module("kunit_parser", tree)

    results = Results()
    reasons = {}
    lines = [line for line in lines if not PARSER_END.match(line)]
    for line in lines:
        if match := NOT_OK.match(line):
            reasons[match["name"]] = match["reason"]
        if match := XFAIL.match(line):
            results.expected.append((match["name"], match["reason"]))
        if match := BAIL_OUT.match(line):
            results.failures.append(("preparation", match["reason"]))
    report = io.StringIO()
    printer = kunit_printer.Printer(output=report)
    root = kunit_parser.parse_run_tests(lines, printer)
    status = kunit_parser.TestStatus
    if root.status == status.FAILURE_TO_PARSE_TESTS:
        results.failures.append(("output", "it holds no test result at all"))
        return results
    _collect(root, [], results, status, reasons)
    # The parser counts an expected failure as a pass.
    results.passed -= len(results.expected)
    for line in report.getvalue().splitlines():
        # Numbers out of order, or a missing result line or test.
        if "[ERROR]" in line:
            results.failures.append(("output", line.split("[ERROR]", 1)[1].strip()))
    # A program that died counts as one failure, not one for each remaining
    # test.
    results.failures = list(dict.fromkeys(results.failures))
    return results


CARGO_RESULT = re.compile(
    r"^test (?P<name>\S+)(?: - should panic)? \.\.\. "
    r"(?P<status>ok|FAILED|ignored)(?:, (?P<why>.*))?"
)

# What cargo-nextest prints for each test: TIMEOUT for one that never ended.
NEXTEST_RESULT = re.compile(
    r"^\s*(?P<status>PASS|LEAK|FAIL|TIMEOUT|ABORT|SIG[A-Z]+) \[[^]]*\] "
    r"(?:\([ \d/]+\) )?(?P<name>\S.*)$"
)


def parse_cargo(lines):
    """Parse what 'cargo test' or 'cargo nextest run' prints."""
    results = Results()
    for line in lines:
        if match := NEXTEST_RESULT.match(line):
            if match["status"] in ("PASS", "LEAK"):
                results.passed += 1
            else:
                results.failures.append((match["name"], f"{match['status']}, see the log"))
            continue
        match = CARGO_RESULT.match(line)
        if not match:
            continue
        if match["status"] == "ok":
            results.passed += 1
        elif match["status"] == "ignored":
            results.skips.append((match["name"], match["why"] or "marked as ignored"))
        else:
            results.failures.append((match["name"], match["why"] or "see the log"))
    return results
