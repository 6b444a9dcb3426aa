# SPDX-License-Identifier: GPL-2.0
"""The kinds of suites: where each runs, and what it needs."""

import dataclasses

from .. import configs
from .. import machine as vm


@dataclasses.dataclass(frozen=True)
class HostSuite:
    """A program that runs on the host."""

    name: str
    what: str
    # The argument of tools/setup/setup that it needs.
    needs: str
    command: tuple
    # The format of its output: ktap or cargo.
    output: str = "ktap"
    # The files and folders below the checkout that its results depend on; if a suite names none,
    # its results are not kept.
    made_of: tuple = ()
    limit: int = 900
    # Whether it runs only if the user names it.
    named: bool = False


@dataclasses.dataclass(frozen=True)
class GuestTest:
    """A program that runs in a virtual machine."""

    name: str
    # Arguments in shell syntax, in the directory of the program.
    command: str
    directory: str = "/"
    limit: int = 240

    def job_line(self, patience):
        return f"cd {self.directory} && run {self.limit * patience} {self.name} {self.command}"


@dataclasses.dataclass(frozen=True)
class GuestSuite:
    """Tests that run in virtual machines."""

    name: str
    what: str
    tests: tuple
    # Only on these machines, by name; if empty, on all except variants.
    machines: tuple = ()
    # On these too, but only if the user names one of them, or wants everything.
    also: tuple = ()
    # The default domains with which its shared memory uses huge pages.
    huge_with: tuple = ()
    # The functions that its tests use instead of the usual ones, as VENDOR:DEVICE.
    functions: str = ""
    # The module of their VFIO driver, if it is not vfio-pci.
    driver: str = ""

    needs = "vm"
    build = vm.Build()

    def runs_on(self, machine, everywhere):
        if everywhere and machine.name in self.also:
            return True
        if self.machines:
            return machine.name in self.machines
        return not machine.config.variant

    def job_lines(self, machine, patience):
        """Return the lines of a job that run its tests."""
        size = "huge" if machine.domain in self.huge_with else "small"
        lines = [f"shared_memory {size}", *(test.job_line(patience) for test in self.tests)]
        if self.functions:
            # The tests after these find the usual functions, and these functions without a
            # driver.
            head = ["usual=$VFIO_DEVICES", f"bind_vfio {self.functions} {self.driver}".rstrip()]
            lines = [*head, *lines, "unbind_vfio", "VFIO_DEVICES=$usual"]
        return lines


@dataclasses.dataclass(frozen=True)
class SleepSuite(GuestSuite):
    """Tests in which the machine sleeps."""

    build = vm.SLEEPER


@dataclasses.dataclass(frozen=True)
class HibernateSuite(GuestSuite):
    """Tests in which the machine sleeps with its memory on its disk."""

    build = vm.HIBERNATOR

    def job_lines(self, machine, patience):
        return ["swaps_to_disk", *super().job_lines(machine, patience)]


@dataclasses.dataclass(frozen=True)
class PlugSuite(GuestSuite):
    """Tests in which functions come and go."""

    build = vm.PLUGGED


@dataclasses.dataclass(frozen=True)
class CrowdedSuite(GuestSuite):
    """Tests with as many processors and vectors as there can be."""

    build = vm.CROWDED


@dataclasses.dataclass(frozen=True)
class KunitSuite:
    """KUnit suites of the kernel and of a module, run at boot and at module load."""

    name: str
    what: str
    # A pattern of the kernel's kunit.filter_glob, and the suites that it must run and that must
    # skip no test.
    pattern: str
    suites: tuple
    machine: str
    module: str = ""

    needs = "vm"


@dataclasses.dataclass(frozen=True)
class CaseSuite:
    """Small machines, each for one case; the machines of one driver run in sequence."""

    name: str
    what: str
    # The cases, by the machine that they vary.
    groups: tuple
    # Wall time in seconds for one: a few where the host is idle, many times as long where not.
    limit: int = 300

    needs = "vm"


@dataclasses.dataclass(frozen=True)
class UmlSuite:
    """KUnit suites of the UML kernel."""

    name: str
    what: str
    # A pattern of the kernel's kunit.filter_glob.
    pattern: str
    # The suites that must run.
    suites: tuple
    limit: int = 300
    # Whether it runs only if the user names it.
    named: bool = False

    needs = "uml"


@dataclasses.dataclass(frozen=True)
class VmSuite(GuestSuite):
    """Tests that run virtual machines inside a test machine."""

    machines: tuple = configs.TRACKING
    # Whether they run only if the user names their suite.
    named: bool = False
    functions: str = configs.WRITER_FUNCTION
    driver: str = configs.WRITER_DRIVER

    needs = "vmm"
    build = vm.VMM_HOST

    def job_lines(self, machine, patience):
        return ["must modprobe kvm_amd", *super().job_lines(machine, patience)]
