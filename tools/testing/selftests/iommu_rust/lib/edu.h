/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A driver for libvfio, which has none for QEMU's edu.
 */
#ifndef SELFTESTS_IOMMU_RUST_LIB_EDU_H
#define SELFTESTS_IOMMU_RUST_LIB_EDU_H

#include "dirty.h"

/* Gives @device its driver, if it is an edu and has none. */
void edu_driver_probe(struct vfio_pci_device *device);

/**
 * struct edu_sysfs - An edu without a driver
 * @bdf: its address
 * @bar: its registers
 * @type: what its default domain is otherwise
 */
struct edu_sysfs {
	char bdf[16];
	void *bar;
	char type[16];
};

/*
 * Opens one on the root bus and gives it the identity as its default domain. Returns NULL, or
 * what is missing. Its DMA has to reach more than 256 MiB (its property dma_mask).
 */
const char *edu_sysfs_open(struct edu_sysfs *edu);
void edu_sysfs_close(struct edu_sysfs *edu);

/* It does not tell whether an access was refused. */
void edu_sysfs_copy(struct edu_sysfs *edu, u64 from, u64 to, u64 size);

#endif /* SELFTESTS_IOMMU_RUST_LIB_EDU_H */
