# SPDX-License-Identifier: GPL-2.0
"""The suites of kselftests: the kernel's own, and this project's."""

from .. import configs
from .kinds import CrowdedSuite, GuestSuite, GuestTest, HibernateSuite, SleepSuite
from .programs import INSTALLED, selftests

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
    GuestTest(
        "vfio_dma_mapping_test", f"./vfio_dma_mapping_test {IOMMUFD_VARIANTS}", "/tests/vfio"
    ),
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


def page_writer_tests():
    """Return upstream's tests of a device, on a function that can be migrated."""
    return tuple(
        GuestTest(
            f"{command.split()[0]}_page_writer",
            f"./{command} ${{VFIO_DEVICES%% *}}",
            "/tests/vfio",
        )
        for command in ("vfio_pci_device_test", f"vfio_dma_mapping_test {IOMMUFD_VARIANTS}")
    )


def suites():
    return (
        GuestSuite(
            "upstream",
            "the kernel's own vfio selftests, unmodified",
            UPSTREAM,
            # They map a gigabyte each: by 4 KiB and by 2 MiB, each of our drivers both ways.
            machines=tuple(
                name for name in configs.RUST_MACHINES if name not in ("vtd-fs/pt", "amd-v2/pt")
            )
            + configs.C_MACHINES,
            also=configs.RUST_MACHINES,
            huge_with=("nopt",),
        ),
        GuestSuite(
            "containers",
            "two of these in containers: type1, and iommufd's replacement",
            UPSTREAM_CONTAINERS,
            # Once for each driver: how vfio maps is the same for the other kinds of tables, and what
            # the device comes from is tested by the above.
            machines=("vtd-ss/nopt", "amd-v1/nopt"),
            also=tuple(f"{config.name}/nopt" for config in configs.CONFIGS if not config.variant),
            huge_with=("nopt",),
        ),
        GuestSuite(
            "iommufd",
            "the kernel's own iommufd selftests, unmodified",
            IOMMUFD,
            machines=("vtd-legacy-c/nopt",),
        ),
        GuestSuite(
            "dirty",
            "dirty tracking compared with what a device wrote",
            selftests("dirty_*"),
            machines=configs.TRACKING + configs.SPLIT,
            also=(*configs.FLUSHES, "amd-v2-split/nopt"),
        ),
        GuestSuite(
            "dirty-flushes",
            "the dirty tests about flushes, on more kinds of units",
            tuple(
                test
                for name in ("sizes", "split", "toggle", "domains", "flush", "stress", "late")
                for test in selftests(f"dirty_{name}")
            ),
            machines=configs.FLUSHES,
        ),
        GuestSuite(
            "observe",
            "counters, events and files about a domain that a device writes to",
            selftests("observe"),
            machines=("vtd-ss/pt", "vtd-fs/nopt", "vtd-ss-open/nopt", "amd-v1/pt", "amd-v2/nopt"),
        ),
        SleepSuite(
            "suspend",
            "dirty tracking across a sleep of the machine (S3)",
            selftests("suspend"),
            machines=("vtd-ss/pt", "vtd-ss-open/nopt", "amd-v1/pt", "amd-v2/nopt"),
            also=("vtd-fs/nopt",),
        ),
        HibernateSuite(
            "hibernate",
            "the same across a hibernation, whose image is written through a driver's domain",
            (
                GuestTest(
                    "hibernate",
                    "./suspend hibernate -v leaf_4k $VFIO_DEVICES",
                    INSTALLED,
                    limit=600,
                ),
            ),
            # A minute and a half each; the sleep has the other machines.
            machines=("vtd-ss/nopt", "amd-v1/nopt"),
        ),
        GuestSuite(
            "rows",
            "leaves that are a row of entries, one of which is written",
            selftests("leaf_rows"),
            machines=("amd-v1/pt", "amd-v1-split/pt", "amd-v1-c/pt"),
        ),
        GuestSuite(
            "untracked",
            "units that cannot track: the driver says so and refuses",
            selftests("untracked"),
            machines=("vtd-fs-c/pt", "vtd-legacy-c/nopt", "amd-v2-c/pt"),
        ),
        GuestSuite(
            "pasid",
            "PASIDs of a device, each in a separate page table",
            tuple(
                GuestTest(
                    f"pasid_dma_{bits}_bits",
                    f"./pasid_dma $(echo $VFIO_DEVICES | cut -d ' ' -f {number})",
                    INSTALLED,
                )
                for number, bits in enumerate(configs.PASID_BITS, 1)
            ),
            machines=configs.PASIDS,
            also=("amd-v2/pt",),
            functions=configs.PASID_FUNCTION,
        ),
        GuestSuite(
            "group",
            "two devices behind a bridge, which share a requester ID",
            selftests("shared_group"),
            machines=configs.TRACKING,
            functions=configs.SLOW_FUNCTION,
        ),
        GuestSuite(
            "forged-msi",
            "interrupts that a device forges: none arrives if interrupts are remapped",
            selftests("forged_msi"),
            machines=configs.REMAPPED,
        ),
        GuestSuite(
            "irq-storm",
            "interrupts of two functions while they move between CPUs, and CPUs go and return",
            selftests("irq_storm"),
            # Elsewhere the kernel may raise one again that moves: it cannot know if it is lost.
            machines=configs.REMAPPED,
        ),
        CrowdedSuite(
            "vectors",
            "as many vectors as eight processors have, each raised once",
            (GuestTest("many_vectors", "./many_vectors ${VFIO_DEVICES##* }", INSTALLED),),
            machines=("vtd-ss/pt", "amd-v1/pt"),
            functions=configs.NVME_FUNCTION,
        ),
        GuestSuite(
            "forged-msi-open",
            "interrupts that a device forges arrive where interrupts are not remapped",
            (GuestTest("forged_msi_open", "./forged_msi open", INSTALLED),),
            machines=configs.OPEN,
        ),
        GuestSuite(
            "forged-msi-pasid",
            "the same with a PASID",
            (
                GuestTest(
                    "forged_msi_pasid", "./forged_msi_pasid ${VFIO_DEVICES%% *}", INSTALLED
                ),
            ),
            machines=configs.PASIDS,
            functions=configs.PASID_FUNCTION,
        ),
        GuestSuite(
            "forged-msi-pasid-open",
            "the same with a PASID, where interrupts are not remapped",
            (
                GuestTest(
                    "forged_msi_pasid_open",
                    "./forged_msi_pasid open ${VFIO_DEVICES%% *}",
                    INSTALLED,
                ),
            ),
            machines=configs.OPEN_PASIDS,
            functions=configs.PASID_FUNCTION,
        ),
        GuestSuite(
            "vfio-migration",
            "a function's states of migration, and its state moved to another one",
            (*selftests("vfio_migration*"), *page_writer_tests()),
            # They are about the function. Once for each driver is enough to show that it reaches
            # what an IOMMU maps.
            machines=("vtd-ss/pt", "amd-v1/nopt"),
            also=("vtd-fs/nopt", "vtd-ss-c/nopt", "amd-v2/pt"),
            functions=configs.WRITER_FUNCTION,
            driver=configs.WRITER_DRIVER,
        ),
    )
