/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The function by which a test makes the unit stop fetching commands: QEMU's
 * iommu-stall, of this project (tools/qemu/README.md).
 */
#ifndef SELFTESTS_IOMMU_RUST_LIB_STALL_H
#define SELFTESTS_IOMMU_RUST_LIB_STALL_H

#include <linux/types.h>

struct stall;

/* Returns NULL if the machine has no such function. */
struct stall *stall_open(void);
void stall_close(struct stall *stall);

/* From now on no command is fetched, or what waits is, and all that comes. */
void stall_stop(struct stall *stall, bool stop);

/* The unit stops at the next command, and goes on by itself, once. */
void stall_delay(struct stall *stall, u64 milliseconds);

/* How many commands were fetched. */
u64 stall_commands(struct stall *stall);

/* How often one had to wait. */
u64 stall_held(struct stall *stall);

#endif /* SELFTESTS_IOMMU_RUST_LIB_STALL_H */
