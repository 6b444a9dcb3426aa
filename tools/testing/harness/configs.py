# SPDX-License-Identifier: GPL-2.0
"""The machines that the tests run on: an emulated IOMMU and its driver."""

import dataclasses

from . import CHECKOUT
from .errors import UnknownName

# The kind of a default domain, and the kernel parameter that selects it.
DOMAINS = {"pt": "identity default domain", "nopt": "DMA-API default domain"}

# The two units that QEMU emulates.
VTD = "intel-iommu"
AMDVI = "amd-iommu"

# The function that does DMA for the tests, and the driver that they use for it.
DMA_FUNCTION = "8086:10c9"

# QEMU's edu: a transfer takes 100 ms. Two of them are behind one bridge.
SLOW_FUNCTION = "1234:11e8"

# QEMU's NVMe controllers: the disk of every machine, and in some one with many vectors.
NVME_FUNCTION = "1b36:0010"

# This project's functions that do DMA with PASIDs, in machines with AMD-Vi: one with enough
# PASIDs for a GCR3 table of two levels, and one with as many as one level holds.
PASID_FUNCTION = "1234:11ef"
PASID_BITS = (16, 9)

# This project's function that writes memory by itself and can be migrated, two of them in
# every machine, and its VFIO driver.
WRITER_FUNCTION = "1234:11f1"
WRITER_DRIVER = "page_writer_vfio_pci"
WRITER_SLOTS = ("10", "11")

# This project's function that stops the unit, in every machine: tools/qemu/README.md.
STALL_FUNCTION = "1234:11f0"


@dataclasses.dataclass(frozen=True)
class Config:
    """One kind of machine; every one exists with each of DOMAINS."""

    name: str
    what: str
    device: str
    parameters: str
    module: str = ""
    dirty: bool = False
    # The emulated unit that `device` holds the properties of.
    unit: str = VTD
    # Differs from another machine in one property: only for the suites that name it.
    variant: bool = False
    # Whether the unit remaps interrupts. Where it does not, vfio refuses devices unless it is told
    # that a device may forge interrupts. The C driver for AMD's does not: it wants a southbridge at
    # the address that QEMU's IVRS gives the IOAPIC, and QEMU's machine has none there.
    remapped: bool = False

    def with_split(self, value):
        """Return the same machine whose driver has this parameter `split`."""
        if not self.module:
            raise UnknownName(f"{self.name} has no Rust driver: SPLIT is a parameter of these")
        words = [word for word in self.module.split() if not word.startswith("split=")]
        return dataclasses.replace(self, module=" ".join([*words, f"split={value}"]))

    def qemu_device(self):
        """Return the argument of QEMU's -device."""
        return f"{self.unit},intremap={'on' if self.remapped else 'off'},{self.device}"

    def qemu_functions(self):
        """Return QEMU's arguments for this project's functions."""
        arguments = ["-device", "iommu-stall,addr=0b.0"]
        for slot in WRITER_SLOTS:
            arguments += ["-device", f"page-writer,addr={slot}.0"]
        if self.unit == AMDVI:
            for slot, bits in enumerate(PASID_BITS, 9):
                arguments += ["-device", f"pasid-dma,addr={slot:02x}.0,pasid-bits={bits}"]
        return arguments

    def job_head(self):
        """Return the shell lines that prepare the machine for the tests."""
        lines = [". /lib/lib.sh"]
        if self.module:
            lines.append(f"load_module {self.module}")
        if "late-flags=on" in self.device:
            lines.append("export LATE_FLAGS=on")
        lines.append(f"bind_vfio {DMA_FUNCTION}")
        return lines


@dataclasses.dataclass(frozen=True)
class Machine:
    """A configuration with the default domain chosen."""

    config: Config
    domain: str

    @property
    def name(self):
        return f"{self.config.name}/{self.domain}"

    def kernel_parameters(self):
        unsafe = "" if self.config.remapped else UNSAFE_INTERRUPTS
        return f"{self.config.parameters} iommu={self.domain} {unsafe}".rstrip()


C_DRIVER = "intel_iommu=on,sm_on"
# The C driver is in the kernel too; this tells it not to use the unit.
NO_C_DRIVER = "intel_iommu=off"
# A module cannot read iommu=nopt: 2 keeps the kernel's own choice.
RUST_VTD = "rust_vtd default_domain=2"
# Large leaves of domains that track are split where a device writes, or when tracking begins.
SPLITS = "split=1"
SPLITS_ALL = "split=4096"

UNSAFE_INTERRUPTS = (
    "iommufd.allow_unsafe_interrupts=1 vfio_iommu_type1.allow_unsafe_interrupts=1"
)

# It caches links to page tables, and does not ask for invalidations of absent entries.
AS_SILICON = "walk-cache=on,np-cache=off"

# It uses what it has cached of a leaf and of a table until it is told otherwise.
STALE = "walk-cache=on,late-flags=on"

NO_C_AMD_DRIVER = "amd_iommu=off"
RUST_AMDVI = "rust_amdvi default_domain=2"

CONFIGS = (
    Config(
        "vtd-ss",
        "VT-d second stage, rust_vtd.ko",
        "x-scalable-mode=on,ssads=on",
        NO_C_DRIVER,
        module=RUST_VTD,
        dirty=True,
        remapped=True,
    ),
    Config(
        "vtd-fs",
        "VT-d first stage, rust_vtd.ko",
        "x-scalable-mode=on,x-flts=on,coherent=on",
        NO_C_DRIVER,
        module=RUST_VTD,
        dirty=True,
        remapped=True,
    ),
    Config(
        "vtd-ss-39",
        "VT-d second stage of three levels instead of four, leaves split, rust_vtd.ko",
        f"x-scalable-mode=on,ssads=on,aw-bits=39,{STALE}",
        NO_C_DRIVER,
        module=f"{RUST_VTD} {SPLITS}",
        dirty=True,
        variant=True,
    ),
    Config(
        "vtd-ss-cm",
        "VT-d second stage, caching mode (caches absent entries), all leaves split, rust_vtd.ko",
        f"x-scalable-mode=on,ssads=on,caching-mode=on,{STALE}",
        NO_C_DRIVER,
        module=f"{RUST_VTD} {SPLITS_ALL}",
        dirty=True,
        variant=True,
    ),
    Config(
        "vtd-ss-open",
        "VT-d second stage of a unit that remaps no interrupts, rust_vtd.ko",
        "x-scalable-mode=on,ssads=on",
        NO_C_DRIVER,
        module=RUST_VTD,
        dirty=True,
        variant=True,
    ),
    Config(
        "vtd-fs-split",
        "VT-d first stage, all leaves split, rust_vtd.ko",
        f"x-scalable-mode=on,x-flts=on,coherent=on,{STALE}",
        NO_C_DRIVER,
        module=f"{RUST_VTD} {SPLITS_ALL}",
        dirty=True,
        variant=True,
        remapped=True,
    ),
    Config(
        "vtd-ss-c",
        "VT-d second stage, the kernel's C driver",
        "x-scalable-mode=on,ssads=on",
        C_DRIVER,
        dirty=True,
        remapped=True,
    ),
    Config(
        "vtd-fs-c",
        "VT-d first stage, the kernel's C driver (tracks no writes there)",
        "x-scalable-mode=on,x-flts=on",
        C_DRIVER,
        remapped=True,
    ),
    Config(
        "vtd-legacy-c",
        "VT-d legacy mode, the kernel's C driver (tracks no writes there)",
        "x-scalable-mode=off",
        "intel_iommu=on,sm_off",
        remapped=True,
    ),
    Config(
        "amd-v1",
        "AMD-Vi host tables (v1), for PASIDs guest tables, rust_amdvi.ko",
        f"hd=on,gt=on,{AS_SILICON}",
        NO_C_AMD_DRIVER,
        module=RUST_AMDVI,
        dirty=True,
        unit=AMDVI,
        remapped=True,
    ),
    Config(
        "amd-v1-open",
        "AMD-Vi host tables (v1) of a unit that remaps no interrupts, rust_amdvi.ko",
        f"hd=on,gt=on,{AS_SILICON}",
        NO_C_AMD_DRIVER,
        module=RUST_AMDVI,
        dirty=True,
        unit=AMDVI,
        variant=True,
    ),
    Config(
        "amd-v2",
        "AMD-Vi guest tables (v2), rust_amdvi.ko",
        f"gt=on,{AS_SILICON}",
        NO_C_AMD_DRIVER,
        module=f"{RUST_AMDVI} tables=2",
        dirty=True,
        unit=AMDVI,
        remapped=True,
    ),
    Config(
        "amd-v1-split",
        "AMD-Vi host tables (v1), leaves split, rust_amdvi.ko",
        f"hd=on,gt=on,{AS_SILICON},late-flags=on",
        NO_C_AMD_DRIVER,
        module=f"{RUST_AMDVI} {SPLITS}",
        dirty=True,
        unit=AMDVI,
        variant=True,
        remapped=True,
    ),
    Config(
        "amd-v2-split",
        "AMD-Vi guest tables (v2), leaves split, rust_amdvi.ko",
        f"gt=on,{AS_SILICON},late-flags=on",
        NO_C_AMD_DRIVER,
        module=f"{RUST_AMDVI} tables=2 {SPLITS}",
        dirty=True,
        unit=AMDVI,
        variant=True,
        remapped=True,
    ),
    Config(
        "amd-v1-c",
        "AMD-Vi host tables (v1), the kernel's C driver",
        f"hd=on,{AS_SILICON}",
        "amd_iommu=pgtbl_v1",
        dirty=True,
        unit=AMDVI,
    ),
    Config(
        "amd-v2-c",
        "AMD-Vi guest tables (v2), the kernel's C driver (tracks no writes there)",
        f"gt=on,{AS_SILICON}",
        "amd_iommu=pgtbl_v2",
        unit=AMDVI,
    ),
)


def debug_kernels():
    """Return the debug kernels by name, each with the bugs that it finds."""
    found = {}
    for path in sorted((CHECKOUT / "tools/testing/vm/debug").glob("*.config")):
        words = [line[1:].strip() for line in path.read_text().splitlines() if line[:1] == "#"]
        found[path.stem] = " ".join(words[2:]).split(": ", 1)[1].rstrip(".")
    return found


def machines(selection=None):
    """Return the machines that `selection` names, CONFIG or CONFIG/DOMAIN; without one all."""
    everything = [Machine(config, domain) for config in CONFIGS for domain in DOMAINS]
    if not selection:
        return everything
    chosen = [
        machine
        for machine in everything
        if selection in (machine.config.name, machine.name)
    ]
    if not chosen:
        names = ", ".join(config.name for config in CONFIGS)
        raise UnknownName(
            f"there is no configuration '{selection}': {names} exist, "
            f"each also with /{' or /'.join(DOMAINS)} behind it"
        )
    return chosen


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
    for machine in machines()
    if machine.config.module and not machine.config.variant
)
C_MACHINES = (
    "vtd-ss-c/nopt",
    "vtd-fs-c/pt",
    "vtd-legacy-c/nopt",
    "amd-v1-c/pt",
    "amd-v2-c/pt",
)
# Machines whose driver splits leaves: each kind of tables once, where a device writes or all of
# them.
SPLIT = ("vtd-ss-39/pt", "vtd-fs-split/nopt", "amd-v1-split/pt")
# Machines that differ in what has to be flushed: a queue that no other code uses, and a unit that
# wants to be told of what becomes present.
FLUSHES = ("vtd-ss-open/nopt", "vtd-ss-cm/pt")
# Machines of which each tracks writes and remaps interrupts, and those that remap none.
REMAPPED = tuple(
    machine.name
    for machine in machines()
    if machine.name in TRACKING and machine.config.remapped
)
# Of these, those of the Rust drivers.
REMAPPED_RUST = tuple(name for name in REMAPPED if name in RUST_MACHINES)
# Machines that 'make soak' can use, the last ones if they are named.
SOAKED = (*REMAPPED_RUST, *(name for name in SPLIT if machines(name)[0].config.remapped))
OPEN = ("vtd-ss-open/nopt", "amd-v1-open/pt")
# Machines whose functions do DMA with PASIDs, and one of these that remaps no interrupts.
PASIDS = ("amd-v1/pt", "amd-v2/nopt")
OPEN_PASIDS = ("amd-v1-open/pt",)
