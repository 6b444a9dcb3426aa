# SPDX-License-Identifier: GPL-2.0
"""The KUnit suites: in a virtual machine, and in the kernel as a program of the host."""

import re

from .. import CHECKOUT
from .kinds import KunitSuite, UmlSuite


# UML has no local APICs, so no interrupts to remap.
NOT_IN_UML = CHECKOUT / "rust/kernel/iommu/irq"

FORMATS = CHECKOUT / "rust/kernel/iommu/pt/fmt/mod.rs"


def format_names():
    """Return the KUnit suites of the page tables: one for each format of the one list of them."""
    listed = FORMATS.read_text().split("macro_rules! iommu_pt_for_each_format", 1)[1]
    # Behind the semicolon are those that have none.
    names = re.findall(r"^ *(\w+): \w+,$", listed.split("\n            ;\n", 1)[0], re.M)
    return tuple(f"rust_iommu_pt_{name}" for name in names)


def kunit_names(folders=("rust/kernel/iommu", "drivers/iommu/rust"), without=None):
    """Return the KUnit suites of this project's kernel code, but those of the formats; each must
    run."""
    named = re.compile(r"kunit_tests\((\w+)\)\]")
    names = set()
    for folder in folders:
        for path in (CHECKOUT / folder).rglob("*.rs"):
            if without in path.parents:
                continue
            names |= set(named.findall(path.read_text()))
    return tuple(sorted(names))


def c_kunit_names():
    """Return this project's KUnit suites in C, which compare with the C tables."""
    named = re.compile(r'^\t\.name = "(rust_iommu\w+)",', re.M)
    names = set()
    for path in (CHECKOUT / "drivers/iommu/rust").rglob("*.c"):
        names |= set(named.findall(path.read_text()))
    return tuple(sorted(names))


# Where the kernel remaps interrupts the queue is shared, and this suite skips its test.
OWN_QUEUE = "rust_vtd_own_queue"


# The kernel's own suites of its C page tables; one per format also runs on the Rust tables.
GENERIC_PT = ("amdv1", "amdv1_mock", "vtdss", "x86_64")


def suites():
    return (
        KunitSuite(
            "kunit",
            "KUnit suites of the abstractions and of the VT-d driver",
            "rust_*",
            tuple(
                name
                for name in kunit_names(("rust/kernel/iommu", "drivers/iommu/rust/vtd"))
                if name != OWN_QUEUE
            ),
            "vtd-ss/pt",
            module="rust_vtd",
        ),
        KunitSuite(
            "kunit-queue",
            "KUnit of a VT-d queue that only the driver uses",
            OWN_QUEUE,
            (OWN_QUEUE,),
            "vtd-ss-open/nopt",
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
            "*rust_iommu*",
            kunit_names(("rust/kernel/iommu",), without=NOT_IN_UML)
            + format_names()
            + c_kunit_names()
            + tuple(f"{name}_rust_iommu_test" for name in GENERIC_PT),
        ),
        UmlSuite(
            "kunit-generic-pt",
            "the kernel's own KUnit of its page tables, on those of C and on those of Rust",
            "*_test",
            tuple(
                f"{name}_{what}"
                for name in GENERIC_PT
                for what in ("fmt_test", "iommu_test", "rust_iommu_test")
            ),
            # Half a minute on the tables of C, which do not change.
            named=True,
        ),
        UmlSuite(
            "doctests",
            "the examples of the kernel crate's documentation, those about IOMMUs",
            "rust_doctests_kernel.rust_doctest_kernel_iommu*",
            ("rust_doctests_kernel",),
        ),
    )
