/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The function with which a test makes the unit stop fetching commands:
 * iommu-stall, which this project adds to QEMU (tools/qemu/README.md).
 */
#ifndef SELFTESTS_IOMMU_RUST_LIB_STALL_H
#define SELFTESTS_IOMMU_RUST_LIB_STALL_H

#include <linux/types.h>

struct stall;

/* Returns NULL if the machine has no such function. */
struct stall *stall_open(void);
void stall_close(struct stall *stall);

/* Stops fetching commands, or resumes with the waiting ones and all later ones. */
void stall_stop(struct stall *stall, bool stop);

/* The unit stops at the next command, and goes on by itself, once. */
void stall_delay(struct stall *stall, u64 milliseconds);

/* The number of fetched commands. */
u64 stall_commands(struct stall *stall);

/* How often a command had to wait. */
u64 stall_held(struct stall *stall);

#endif /* SELFTESTS_IOMMU_RUST_LIB_STALL_H */
