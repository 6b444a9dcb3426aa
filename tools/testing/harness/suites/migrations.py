# SPDX-License-Identifier: GPL-2.0
"""The suites of programs that migrate, a virtual machine or a memory, and of the one that soaks."""

import dataclasses

from .. import configs
from .kinds import GuestSuite, GuestTest, VmSuite


def vm_test(name, words=""):
    """Return a test that migrates a virtual machine."""
    command = f"vm-migrate --progress plain {words}".rstrip()
    return GuestTest(f"vm_{name}", command, limit=400)


# The short test: memory of each kind that differs to the IOMMU, two functions, one of them
# behind a port, there and back; an attempt that fails, and then one that succeeds.
BOUNCE = vm_test("2m_bounce", "--page-size 2m --devices 2 --bounce 1")
VM_TESTS = (
    vm_test("4k", "--page-size 4k"),
    BOUNCE,
    vm_test("cancel", "--scenario cancel"),
)

# The long test: all that the program can show.
VM_ALL_TESTS = (
    *(vm_test(size, f"--page-size {size}") for size in ("4k", "thp", "2m", "1g")),
    vm_test("bounce", "--scenario bounce --devices 2"),
    vm_test("container", "--container"),
    *(
        vm_test(name.replace("-", "_"), f"--scenario {name}")
        for name in ("cancel", "kill-destination", "again", "kill")
    ),
    vm_test("hotplug", "--scenario hotplug"),
    vm_test("memory", "--scenario memory"),
)


@dataclasses.dataclass(frozen=True)
class SoakSuite(GuestSuite):
    """Random use, also by PASID where the machine has a function for that."""

    def job_lines(self, machine, patience):
        words = "--pasids" if machine.name in configs.PASIDS else ""
        return [f"soak_words={words}", *super().job_lines(machine, patience)]


def suites():
    return (
        VmSuite(
            "vm",
            "a virtual machine migrated by QEMU while its device writes",
            VM_TESTS,
            # A minute each: the C drivers, which do not change, are part of the long test.
            machines=("vtd-ss/pt", "amd-v1/pt"),
            also=("vtd-fs/nopt", "amd-v2/nopt"),
        ),
        VmSuite(
            "vm-live",
            "one of these on tables whose dirty flags are always live",
            (BOUNCE,),
            machines=("vtd-fs/nopt", "amd-v2/nopt"),
        ),
        VmSuite(
            "vm-all",
            "the same in every way: pages, failures, hot plug, memory that comes and goes",
            VM_ALL_TESTS,
            named=True,
        ),
        VmSuite(
            "vm-blocked",
            "a virtual machine that QEMU does not migrate: nothing tracks its device's writes",
            (vm_test("blocked", "--scenario blocked"),),
            machines=("vtd-fs-c/pt",),
        ),
        GuestSuite(
            "migrate",
            "memory migrated while a device writes to it",
            (GuestTest("migrate", 'iommu-migrate --device "$VFIO_SELFTESTS_BDF"'),),
            machines=configs.TRACKING,
        ),
        SoakSuite(
            "soak",
            "ten seconds of random and concurrent use, checked against a model",
            (GuestTest("soak", "iommu-soak --seconds 10 $soak_words"),),
            machines=configs.REMAPPED_RUST,
        ),
        GuestSuite(
            "slow",
            "memory migrated while a slow device writes to it",
            (GuestTest("slow", 'iommu-migrate --device "${VFIO_DEVICES%% *}" --size 16M'),),
            machines=("vtd-ss/pt", "amd-v1/pt"),
            functions=configs.SLOW_FUNCTION,
        ),
        GuestSuite(
            "grow",
            "page tables that grow twice while a device writes through them",
            (
                GuestTest(
                    "grow",
                    'iommu-migrate --device "$VFIO_SELFTESTS_BDF" '
                    "--iova 0x8000000000 --iova 0x1000000000000",
                ),
            ),
            machines=("amd-v1/pt", "amd-v1-c/pt"),
        ),
    )
