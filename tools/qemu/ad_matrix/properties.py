# SPDX-License-Identifier: GPL-2.0
"""The properties that units are tested with; those of AMD-Vi begin with its name."""

BOTH_STAGES = ("x-scalable-mode=on", "x-flts=on", "ssads=on")
SECOND_ONLY = ("x-scalable-mode=on", "ssads=on")
FIRST_ONLY = ("x-scalable-mode=on", "x-flts=on")
AMD_HOST = ("amd-iommu", "hd=on")
AMD_GUEST = ("amd-iommu", "gt=on")
AMD_BOTH = ("amd-iommu", "hd=on", "gt=on")
AMD_REMAP = ("amd-iommu", "intremap=on")
