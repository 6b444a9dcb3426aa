/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A driver for libvfio, which has none for QEMU's edu.
 */
#ifndef SELFTESTS_IOMMU_RUST_LIB_EDU_H
#define SELFTESTS_IOMMU_RUST_LIB_EDU_H

#include "dirty.h"

/* Gives @device its driver, if it is an edu and has none. */
void edu_driver_probe(struct vfio_pci_device *device);

#endif /* SELFTESTS_IOMMU_RUST_LIB_EDU_H */
