# SPDX-License-Identifier: GPL-2.0
"""The test suites as data: which suites exist, where they run, what they run."""

import dataclasses
import re

from .. import CHECKOUT, configs
from .. import machine as vm
from ..cases import dead, refusals, several


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
    # The default domains with which its shared memory uses huge pages.
    huge_with: tuple = ()
    # The functions that its tests use instead of the usual ones, as VENDOR:DEVICE.
    functions: str = ""
    # The module of their VFIO driver, if it is not vfio-pci.
    driver: str = ""

    needs = "vm"
    build = vm.Build()

    def runs_on(self, machine):
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
class KunitSuite:
    """KUnit suites of the kernel and of a module, run at boot and at module load."""

    name: str
    what: str
    # A pattern of the kernel's kunit.filter_glob, and the suites that it must run.
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
    # Wall time in seconds for one.
    limit: int = 60

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

    needs = "uml"


IOMMUFD_VARIANTS = " ".join(
    f"-v {variant}"
    for variant in (
        "iommufd",
        "iommufd_anonymous",
        "iommufd_anonymous_hugetlb_2mb",
        "iommufd_anonymous_hugetlb_1gb",
    )
)

# The other ways in which vfio gives a device an address space: its container, in both versions,
# and iommufd as its replacement.
CONTAINERS = (
    "vfio_type1_iommu",
    "vfio_type1v2_iommu",
    "iommufd_compat_type1",
    "iommufd_compat_type1v2",
)
CONTAINER_VARIANTS = " ".join(f"-v {name}" for name in CONTAINERS)
CONTAINER_MAPPING_VARIANTS = " ".join(
    f"-v {name}{memory}"
    for name in CONTAINERS
    for memory in ("", "_anonymous", "_anonymous_hugetlb_2mb", "_anonymous_hugetlb_1gb")
)

UPSTREAM = (
    GuestTest("vfio_pci_driver_test", "./vfio_pci_driver_test -v iommufd", "/tests/vfio"),
    GuestTest("vfio_dma_mapping_test", f"./vfio_dma_mapping_test {IOMMUFD_VARIANTS}", "/tests/vfio"),
    GuestTest("vfio_iommufd_setup_test", "./vfio_iommufd_setup_test", "/tests/vfio"),
    GuestTest("vfio_pci_device_test", "./vfio_pci_device_test", "/tests/vfio"),
)


UPSTREAM_CONTAINERS = (
    GuestTest(
        "vfio_pci_driver_test_containers",
        f"./vfio_pci_driver_test {CONTAINER_VARIANTS}",
        "/tests/vfio",
    ),
    GuestTest(
        "vfio_dma_mapping_test_containers",
        f"./vfio_dma_mapping_test {CONTAINER_MAPPING_VARIANTS}",
        "/tests/vfio",
    ),
)


# They need no IOMMU: iommufd has a mock one for them, with AMD v1 tables. Two do not run: in
# Linux 7.3.4, iommufd_test_dmabuf_get() returns 0 instead of the buffer's descriptor, and the
# two continue with their standard input.
IOMMUFD = (
    GuestTest("iommufd", "./iommufd -T dmabuf_simple -T dmabuf_revoke", "/tests/iommu"),
    GuestTest("iommufd_fail_nth", "./iommufd_fail_nth", "/tests/iommu", limit=600),
)

# Machines that track writes: each stage with the Rust driver, and once with each C driver, which
# tracks only in the second stage, or in host tables. The tracked domain is one of iommufd; a
# device only comes from the default domain, so each of the two kinds appears once or twice.
TRACKING = (
    "vtd-ss/pt",
    "vtd-fs/nopt",
    "vtd-ss-c/nopt",
    "amd-v1/pt",
    "amd-v2/nopt",
    "amd-v1-c/pt",
)
# Each Rust driver with each default domain, and each C driver once: with the C drivers the
# tests show that the emulated unit is correct.
RUST_MACHINES = tuple(
    machine.name
    for machine in configs.machines()
    if machine.config.module and not machine.config.variant
)
C_MACHINES = (
    "vtd-ss-c/nopt",
    "vtd-fs-c/pt",
    "vtd-legacy-c/nopt",
    "amd-v1-c/pt",
    "amd-v2-c/pt",
)
# Machines with one different property of the unit.
VARIANTS = ("vtd-ss-39/pt", "vtd-ss-cm/pt")


@dataclasses.dataclass(frozen=True)
class VmSuite(GuestSuite):
    """Tests that run virtual machines inside a test machine."""

    machines: tuple = TRACKING
    # Whether they run only if the user names their suite.
    named: bool = False
    functions: str = configs.WRITER_FUNCTION
    driver: str = configs.WRITER_DRIVER

    needs = "vmm"
    build = vm.VMM_HOST

    def job_lines(self, machine, patience):
        return ["must modprobe kvm_amd", *super().job_lines(machine, patience)]


def dirty_tests():
    """Return the selftests of dirty tracking that the Makefile of the selftests names."""
    makefile = CHECKOUT / "tools/testing/selftests/iommu_rust/Makefile"
    names = []
    for line in makefile.read_text().splitlines():
        left, _, right = line.partition("+=")
        if left.strip() == "TEST_GEN_PROGS":
            names += (name for name in right.split() if name.startswith("dirty_"))
    return tuple(
        GuestTest(name, f"./{name} $VFIO_DEVICES", "/tests/iommu_rust") for name in names
    )


def migration_tests():
    """Return the tests of a function that can be migrated: ours, and two of upstream's."""
    ours = ("", "_move", "_refused", "_reset", "_dirty")
    tests = [
        GuestTest(f"vfio_migration{end}", f"./vfio_migration{end} $VFIO_DEVICES", "/tests/iommu_rust")
        for end in ours
    ]
    for command in ("vfio_pci_device_test", f"vfio_dma_mapping_test {IOMMUFD_VARIANTS}"):
        name = f"{command.split()[0]}_page_writer"
        tests.append(GuestTest(name, f"./{command} ${{VFIO_DEVICES%% *}}", "/tests/vfio"))
    return tuple(tests)


def vm_test(name, words="", limit=200):
    """Return a test that migrates a virtual machine."""
    command = f"vm-migrate --progress plain {words}".rstrip()
    return GuestTest(f"vm_{name}", command, limit=limit)


# The short test: memory of each kind that differs to the IOMMU, two functions, one of them
# behind a port, there and back; an attempt that fails, and then one that succeeds.
VM_TESTS = (
    vm_test("4k", "--page-size 4k"),
    vm_test("2m_bounce", "--page-size 2m --devices 2 --bounce 1"),
    vm_test("cancel", "--scenario cancel"),
)

# The long test: all that the program can show.
VM_ALL_TESTS = (
    *(vm_test(size, f"--page-size {size}") for size in ("4k", "thp", "2m", "1g")),
    vm_test("bounce", "--scenario bounce --devices 2", limit=400),
    vm_test("container", "--container"),
    *(
        vm_test(name.replace("-", "_"), f"--scenario {name}")
        for name in ("cancel", "kill-destination", "again", "kill")
    ),
    vm_test("hotplug", "--scenario hotplug", limit=400),
    vm_test("memory", "--scenario memory", limit=300),
)


def kunit_names(folders=("rust/kernel/iommu", "drivers/iommu/rust")):
    """Return the KUnit suites of this project's kernel code; each must run."""
    named = re.compile(r"kunit_tests\((\w+)\)\]|^\S*for_each_test!\(\w+, (\w+)", re.M)
    names = set()
    for folder in folders:
        for path in (CHECKOUT / folder).rglob("*.rs"):
            names |= {name for pair in named.findall(path.read_text()) for name in pair if name}
    return tuple(sorted(names))


def c_kunit_names():
    """Return this project's KUnit suites in C, which compare with the C tables."""
    named = re.compile(r'^\t\.name = "(rust_iommu\w+)",', re.M)
    names = set()
    for path in (CHECKOUT / "drivers/iommu/rust").rglob("*.c"):
        names |= set(named.findall(path.read_text()))
    return tuple(sorted(names))


# The kernel's own suites of its C page tables; one per format also runs on the Rust tables.
GENERIC_PT = tuple(
    f"{name}_{what}"
    for name in ("amdv1", "amdv1_mock", "vtdss", "x86_64")
    for what in ("fmt_test", "iommu_test", "rust_iommu_test")
)


CARGO_TEST = str(CHECKOUT / "tools/testing/harness/host/cargo-test")


def crate_sources(crate):
    """Return the places of a crate's source: its own directory, and the files that it includes
    by #[path], with the modules below."""
    places = {crate}
    for path in (CHECKOUT / crate).rglob("*.rs"):
        if "target" in path.parts:
            continue
        for named in re.findall(r'^\s*#\[path = "([^"]+)"\]', path.read_text(), re.M):
            there = (path.parent / named).resolve()
            places.add(there.parent if there.name == "mod.rs" else there)
            if there.suffix == ".rs" and there.name != "mod.rs":
                places.add(there.with_suffix(""))
    return tuple(sorted(str(place) for place in places))


def all_suites():
    return (
        HostSuite(
            "lint",
            "rustc, clippy, rustfmt, shellcheck, checkpatch, python",
            "vm",
            (str(CHECKOUT / "tools/lint/lint"),),
        ),
        HostSuite(
            "pt-host",
            "the page tables as a host crate: properties, threads as hardware",
            "host",
            (CARGO_TEST, "tools/testing/iommu_pt_host"),
            output="cargo",
            made_of=(CARGO_TEST, *crate_sources("tools/testing/iommu_pt_host")),
        ),
        HostSuite(
            "pt-loom",
            "the page tables in every order in which a few threads can meet",
            "host",
            (str(CHECKOUT / "tools/testing/harness/host/cargo-test"), "tools/testing/iommu_pt_loom"),
            output="cargo",
        ),
        HostSuite(
            "acpi-host",
            "the parsers of firmware tables as a host crate: DMAR and IVRS, random and lying",
            "host",
            (CARGO_TEST, "tools/testing/iommu_acpi_host"),
            output="cargo",
            made_of=(CARGO_TEST, *crate_sources("tools/testing/iommu_acpi_host")),
        ),
        HostSuite(
            "fuzz",
            "page tables and parsers of firmware tables, fuzzed for a minute",
            "host",
            (str(CHECKOUT / "tools/testing/harness/host/fuzz"),),
            output="cargo",
            made_of=(
                "tools/testing/harness/host/fuzz",
                *crate_sources("tools/testing/iommu_pt_host"),
                *crate_sources("tools/testing/iommu_acpi_host"),
            ),
        ),
        HostSuite(
            "migrate-host",
            "the migration program's own tests, on a made-up device",
            "host",
            (CARGO_TEST, "tools/migrate"),
            output="cargo",
            made_of=(CARGO_TEST, "tools/migrate"),
        ),
        HostSuite(
            "vm-migrate-host",
            "the own tests of the programs that migrate a virtual machine",
            "host",
            (CARGO_TEST, "tools/vm-migrate"),
            output="cargo",
            made_of=(CARGO_TEST, "tools/vm-migrate"),
        ),
        HostSuite(
            "cross",
            "the kernel crate for arm64 and riscv64, and a 32-bit one without ours",
            "host",
            (str(CHECKOUT / "tools/testing/harness/host/cross"),),
            limit=1800,
        ),
        HostSuite(
            "qemu-ad",
            "accessed and dirty bits of the emulator, case by case",
            "vm",
            ("python3", str(CHECKOUT / "tools/qemu/ad_matrix"), "--qemu", "{qemu}"),
            made_of=("tools/qemu/ad_matrix", "{qemu}"),
        ),
        KunitSuite(
            "kunit",
            "KUnit suites of the page tables and of the VT-d driver",
            "rust_*",
            kunit_names(("rust/kernel/iommu", "drivers/iommu/rust/vtd")),
            "vtd-ss/pt",
            module="rust_vtd",
        ),
        KunitSuite(
            "kunit-amdvi",
            "KUnit suites of the AMD-Vi driver",
            "rust_amdvi_*",
            kunit_names(("drivers/iommu/rust/amdvi",)),
            "amd-v1/pt",
            module="rust_amdvi",
        ),
        UmlSuite(
            "kunit-uml",
            "KUnit of the page tables at native speed, Rust beside C",
            # All but rust_doctests_kernel: KUnit takes one pattern, and no exceptions.
            "*[!l]",
            kunit_names(("rust/kernel/iommu",)) + c_kunit_names() + GENERIC_PT,
        ),
        UmlSuite(
            "doctests",
            "the examples of the kernel crate's documentation, those about IOMMUs",
            "rust_doctests_kernel.rust_doctest_kernel_iommu*",
            ("rust_doctests_kernel",),
        ),
        GuestSuite(
            "upstream",
            "the kernel's own vfio selftests, unmodified",
            UPSTREAM,
            # They map a gigabyte each: by 4 KiB and by 2 MiB, each of our drivers both ways.
            machines=RUST_MACHINES + C_MACHINES,
            huge_with=("nopt",),
        ),
        GuestSuite(
            "containers",
            "two of them in containers: type1, and what iommufd has instead",
            UPSTREAM_CONTAINERS,
            # Once for each configuration: what the device comes from is tested by the above.
            machines=tuple(f"{config.name}/nopt" for config in configs.CONFIGS if not config.variant),
            huge_with=("nopt",),
        ),
        GuestSuite(
            "iommufd",
            "the kernel's own iommufd selftests, unmodified",
            IOMMUFD,
            machines=("vtd-legacy-c/pt",),
        ),
        GuestSuite(
            "dirty",
            "dirty tracking held against what a device wrote",
            dirty_tests(),
            machines=TRACKING + VARIANTS,
        ),
        GuestSuite(
            "rows",
            "leaves that are a row of entries, one of which is written",
            (GuestTest("leaf_rows", "./leaf_rows $VFIO_DEVICES", "/tests/iommu_rust"),),
            machines=("amd-v1/pt", "amd-v1-c/pt"),
        ),
        GuestSuite(
            "untracked",
            "where nothing is tracked, which is said and refused",
            (GuestTest("untracked", "./untracked $VFIO_DEVICES", "/tests/iommu_rust"),),
            machines=("vtd-fs-c/pt", "vtd-legacy-c/nopt", "amd-v2-c/pt"),
        ),
        GuestSuite(
            "pasid",
            "PASIDs of a device, each in a separate page table",
            tuple(
                GuestTest(
                    f"pasid_dma_{bits}_bits",
                    f"./pasid_dma $(echo $VFIO_DEVICES | cut -d ' ' -f {number})",
                    "/tests/iommu_rust",
                )
                for number, bits in enumerate(configs.PASID_BITS, 1)
            ),
            machines=("amd-v1/pt", "amd-v2/pt", "amd-v2/nopt"),
            functions=configs.PASID_FUNCTION,
        ),
        GuestSuite(
            "group",
            "two devices behind a bridge, which are one to the IOMMU",
            (GuestTest("shared_group", "./shared_group $VFIO_DEVICES", "/tests/iommu_rust"),),
            machines=TRACKING,
            functions=configs.SLOW_FUNCTION,
        ),
        GuestSuite(
            "vfio-migration",
            "a function's states of migration, and its state moved to another one",
            migration_tests(),
            machines=("vtd-ss/pt", "vtd-fs/nopt", "vtd-ss-c/nopt", "amd-v1/nopt", "amd-v2/pt"),
            functions=configs.WRITER_FUNCTION,
            driver=configs.WRITER_DRIVER,
        ),
        VmSuite(
            "vm",
            "a virtual machine migrated by QEMU while its device writes",
            VM_TESTS,
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
            "a memory migrated while a device writes to it",
            (GuestTest("migrate", 'iommu-migrate --device "$VFIO_SELFTESTS_BDF"'),),
            machines=TRACKING,
        ),
        GuestSuite(
            "slow",
            "a memory migrated while a slow device writes to it",
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
                    'iommu-migrate --device "$VFIO_SELFTESTS_BDF" --iova 0x8000000000 --iova 0x1000000000000',
                ),
            ),
            machines=("amd-v1/pt", "amd-v1-c/pt"),
        ),
        GuestSuite(
            "module",
            "loading a driver, letting go, unloading, loading again",
            (GuestTest("module", "test-module $VFIO_DEVICES"),),
            machines=("vtd-ss/pt", "amd-v1/pt"),
        ),
        CaseSuite(
            "refusals",
            "what a driver refuses: firmware that lies, lacking units, owners",
            (("vtd-ss/pt", refusals.vtd_cases()), ("amd-v1/pt", refusals.amdvi_cases())),
        ),
        CaseSuite("dead", "a unit that does not answer any more", dead.groups()),
        CaseSuite("several", "two units in a machine", several.groups()),
        GuestSuite(
            "dma-api",
            "a disk whose driver does DMA through a DMA-API domain",
            (GuestTest("dma-api", "test-dma-api $VFIO_DEVICES"),),
            machines=("vtd-ss/nopt", "vtd-fs/nopt", "amd-v1/nopt", "amd-v2/nopt"),
        ),
    )
