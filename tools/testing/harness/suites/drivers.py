# SPDX-License-Identifier: GPL-2.0
"""The suites about the drivers: loading, refusing, units that die, kernel drivers on top."""

from .. import configs
from ..cases import dead, kexec, refusals_amdvi, refusals_vtd, rescan, several
from .kinds import CaseSuite, GuestSuite, GuestTest, PlugSuite
from .programs import selftests


def suites():
    return (
        GuestSuite(
            "module",
            "loading a driver, releasing the hardware, unloading, loading again",
            (GuestTest("module", "test-module $VFIO_DEVICES"),),
            machines=("vtd-ss/pt", "vtd-ss-open/nopt", "amd-v1/pt"),
        ),
        GuestSuite(
            "reload",
            "loading, releasing, unloading and loading again under traffic",
            (GuestTest("reload", "test-reload $VFIO_DEVICES"),),
            machines=("vtd-ss/pt", "amd-v1/pt"),
            functions=configs.WRITER_FUNCTION,
        ),
        PlugSuite(
            "hotplug",
            "functions that come and go, by the bus, by a slot and by surprise; odd places",
            (GuestTest("hotplug", "test-hotplug"),),
            machines=("vtd-ss/pt", "amd-v1/pt"),
            functions=configs.WRITER_FUNCTION,
        ),
        PlugSuite(
            "sriov",
            "virtual functions that come and go, one of them given to a program",
            selftests("sriov"),
            machines=("vtd-ss/pt", "amd-v1/pt"),
        ),
        CaseSuite(
            "refusals",
            "what a driver refuses: wrong firmware, units that lack features, owners",
            (("vtd-ss/pt", refusals_vtd.cases()), ("amd-v1/pt", refusals_amdvi.cases())),
        ),
        CaseSuite("dead", "a unit that does not answer any more", dead.groups()),
        CaseSuite("kexec", "a second kernel, by kexec or after a crash", kexec.groups()),
        CaseSuite("several", "two units in a machine", several.groups()),
        CaseSuite(
            "rescan",
            "no interrupt is forged below a bridge that was found again, or by a removed function",
            rescan.groups(),
        ),
        GuestSuite(
            "dma-api",
            "a disk whose driver does DMA through a DMA-API domain",
            (GuestTest("dma-api", "test-dma-api $VFIO_DEVICES"),),
            machines=("vtd-ss/nopt", "vtd-fs/nopt", "amd-v1/nopt", "amd-v2/nopt"),
        ),
    )
