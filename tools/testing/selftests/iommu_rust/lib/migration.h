/* SPDX-License-Identifier: GPL-2.0 */
/*
 * VFIO's states of migration, and what is moved.
 */
#ifndef SELFTESTS_IOMMU_RUST_LIB_MIGRATION_H
#define SELFTESTS_IOMMU_RUST_LIB_MIGRATION_H

#include <libvfio.h>

/* Those that a user may ask for. */
#define MIG_NR_STATES (VFIO_DEVICE_STATE_NR - 1)
extern const u32 mig_states[MIG_NR_STATES];

/* What is at the front of each part of a stream; all numbers are little endian. */
struct mig_frame {
	u64 magic;
	u32 version;
	u32 kind;
	u32 length;
	u32 crc;
};

#define MIG_PRE_COPY 1
#define MIG_FINAL 2

/**
 * struct mig_stream - What was read from a device that is saved
 * @data: is the caller's
 * @size: bytes of it
 */
struct mig_stream {
	u8 *data;
	size_t size;
};

const char *mig_name(u32 state);
bool mig_is_saving(u32 state);
bool mig_is_pre_copy(u32 state);

/* @fd gets the file of a data transfer, or -1. */
int __mig_set_state(struct vfio_pci_device *pci, u32 state, int *fd);
/* Returns that file, which has to be there, */
int mig_open(struct vfio_pci_device *pci, u32 state);
/* or expects none. */
void mig_set_state(struct vfio_pci_device *pci, u32 state);
u32 mig_state(struct vfio_pci_device *pci);

/* Any feature without data, or with @data. */
int __mig_feature(struct vfio_pci_device *pci, u32 flags, void *data, size_t size);
u64 mig_flags(struct vfio_pci_device *pci);
u64 mig_data_size(struct vfio_pci_device *pci);
int __mig_precopy_info(int fd, struct vfio_precopy_info *info);

/* Up to @size bytes more; returns how many, or a negative errno. */
ssize_t mig_read(int fd, struct mig_stream *stream, size_t size);
/* To the end, or in pre-copy what there is when it is called. */
void mig_read_all(int fd, struct mig_stream *stream);
void mig_free(struct mig_stream *stream);

/* In pieces of @piece bytes; returns 0 or a negative errno. */
int __mig_write(int fd, const void *data, size_t size, size_t piece);

u32 mig_crc(const void *data, size_t size);

#endif /* SELFTESTS_IOMMU_RUST_LIB_MIGRATION_H */
