# SPDX-License-Identifier: GPL-2.0
"""The suites that run on the host, without the kernel."""

import re

from .. import CHECKOUT
from .kinds import HostSuite

HOST = CHECKOUT / "tools/testing/harness/host"
CARGO_TEST = str(HOST / "cargo-test")


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


def suites():
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
            (CARGO_TEST, "tools/testing/iommu_pt_loom"),
            output="cargo",
        ),
        HostSuite(
            "acpi-host",
            "the parsers of firmware tables as a host crate: DMAR and IVRS, random and wrong",
            "host",
            (CARGO_TEST, "tools/testing/iommu_acpi_host"),
            output="cargo",
            made_of=(CARGO_TEST, *crate_sources("tools/testing/iommu_acpi_host")),
        ),
        HostSuite(
            "fuzz",
            "page tables and parsers of firmware tables, fuzzed for a minute",
            "host",
            (str(HOST / "fuzz"),),
            output="cargo",
            made_of=(
                "tools/testing/harness/host/fuzz",
                *crate_sources("tools/testing/iommu_pt_host"),
                *crate_sources("tools/testing/iommu_acpi_host"),
            ),
        ),
        HostSuite(
            "migrate-host",
            "the migration program and its crate for iommufd, on a fake device and kernel",
            "host",
            (CARGO_TEST, "tools/device-memory,tools/iommufd-dirty,tools/migrate"),
            output="cargo",
            made_of=(CARGO_TEST, "tools/device-memory", "tools/iommufd-dirty", "tools/migrate"),
        ),
        HostSuite(
            "vm-migrate-host",
            "tests of the programs that migrate a virtual machine",
            "host",
            (CARGO_TEST, "tools/vm-migrate"),
            output="cargo",
            made_of=(CARGO_TEST, "tools/vm-migrate"),
        ),
        HostSuite(
            "soak-host",
            "tests of the soak: its model, on a correct IOMMU and on wrong ones",
            "host",
            (CARGO_TEST, "tools/soak"),
            output="cargo",
            made_of=(CARGO_TEST, "tools/device-memory", "tools/soak"),
        ),
        HostSuite(
            "cross",
            "the kernel crate for arm64 and riscv64, and a 32-bit one without ours",
            "uml",
            (str(HOST / "cross"),),
            limit=1800,
        ),
        HostSuite(
            "series",
            "the work as patches: sizes, checkpatch, and each of them builds",
            "vm",
            (str(CHECKOUT / "tools/series/series"), "check"),
            limit=10800,
            named=True,
        ),
        HostSuite(
            "linux",
            "fixes for what was found in Linux: each test fails without its fix",
            "uml",
            (str(CHECKOUT / "tools/linux/run"),),
            limit=5400,
            named=True,
        ),
        HostSuite(
            "deb",
            "packages of 'make deb' in a clean Debian 13: installed, booted, memory migrated",
            "vm",
            (str(CHECKOUT / "tools/testing/harness/run"), "harness.deb"),
            limit=10800,
            named=True,
        ),
        HostSuite(
            "qemu-ad",
            "accessed and dirty bits of the emulator, case by case",
            "vm",
            ("python3", str(CHECKOUT / "tools/qemu/ad_matrix"), "--qemu", "{qemu}"),
            made_of=("tools/qemu/ad_matrix", "{qemu}"),
        ),
    )
