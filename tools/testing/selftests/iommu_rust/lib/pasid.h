/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A device that does DMA with PASIDs: pasid-dma, which this project adds to
 * QEMU.
 *
 * Each PASID of a test is a separate struct dirty_env (a lane): an IOAS, a page
 * table and an area, at the same addresses as those of any other. They share
 * the device, and the file descriptor of iommufd, with the environment that
 * opened it.
 */
#ifndef SELFTESTS_IOMMU_RUST_LIB_PASID_H
#define SELFTESTS_IOMMU_RUST_LIB_PASID_H

#include "dirty.h"

/* Of requests without PASID. */
#define NO_PASID 0

/* ioctls */
int __device_attach_pasid(struct dirty_dev *dev, u32 pasid, u32 pt_id);
void device_attach_pasid(struct dirty_dev *dev, u32 pasid, u32 pt_id);
int __device_detach_pasid(struct dirty_dev *dev, u32 pasid);
void device_detach_pasid(struct dirty_dev *dev, u32 pasid);

/* How many PASIDs the device and its IOMMU can tell apart; 0: none. */
u32 pasid_count(struct dirty_env *env);

/* Opens the device; returns NULL, or the reason why it is not a pasid-dma. */
const char *pasid_env_open(struct dirty_env *env, const char *bdf);
void pasid_env_close(struct dirty_env *env);

/* The page table is allocated with @flags. Nothing is attached. */
void pasid_lane_open(struct dirty_env *env, struct dirty_env *lane, u32 flags);
void pasid_lane_close(struct dirty_env *lane);

/*
 * Makes the device write one stamp into @page of @lane with a PASID. Returns 0
 * if it is there; -EFAULT if the access was refused and changed nothing; -EIO
 * for anything else.
 */
int __pasid_write(struct dirty_env *lane, u32 pasid, u64 page);
void pasid_write(struct dirty_env *lane, u32 pasid, u64 page);

/* Makes the device read a page; 0, -EFAULT or -EIO, which is other data. */
int __pasid_read(struct dirty_env *lane, u32 pasid, u64 page);
void pasid_read(struct dirty_env *lane, u32 pasid, u64 page);

/* Writes a word of 4 bytes to any address; 0, or -EFAULT if that was refused. */
int __pasid_write_word(struct dirty_env *env, u32 pasid, u64 iova, u32 word);

/* Writes random pages, and adds them to @lane->written. */
void pasid_write_random(struct dirty_env *lane, u32 pasid, u64 nr);

/* Whether the area of @lane holds exactly what was written to it. */
bool pasid_lane_is_intact(struct dirty_env *lane);

#endif /* SELFTESTS_IOMMU_RUST_LIB_PASID_H */
