/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The leaves that a page table has while its driver splits them, and what a query has to
 * report because of that (Documentation/driver-api/rust-iommu/dirty.rst).
 *
 * Numbers of page tables and addresses are those of the environment. Threads of a test may call
 * these functions at the same time.
 */
#ifndef SELFTESTS_IOMMU_RUST_LIB_SPLIT_H
#define SELFTESTS_IOMMU_RUST_LIB_SPLIT_H

#include "dirty.h"

/*
 * The driver's parameter `split` for a page table that is allocated now: what a test has chosen, or
 * else from the environment variable MODULE_PARAMETERS, which holds what the driver was loaded
 * with. 0 if leaves stay as they are mapped.
 */
u64 split_parameter(void);

/*
 * Whether the unit sets D late, where a leaf was that it has cached: the environment variable
 * LATE_FLAGS says so.
 */
bool split_late(void);

/* Below the driver's directory, see observe.h. */
#define SPLIT_FILE "split"

/* Tells a Rust driver another one. */
void split_choose(u64 parameter);

/* Whether leaves of a page table are split. */
bool split_can(struct dirty_env *env, u32 hwpt);

/*
 * The size of the leaves, in pages, that a leaf of so many pages consists of when tracking has
 * begun, in a page table that is allocated now: the driver may split all of them before that.
 */
u64 split_begun(u64 pages);

/* Pages of the parts that a leaf of so many pages is split into; 1 stays. */
u64 split_pages(u64 pages);

/*
 * The pages of a query of @nr pages from @first that it reports, a byte for each. The device has
 * written @written. If the query @clears, the leaves are split as the driver does it.
 */
u8 *split_report(struct dirty_env *env, u32 hwpt, struct dirty_area *area,
		 struct page_set *written, u64 first, u64 nr, bool clears);

/*
 * Tracking was switched. When it begins, everything is clean, and may be split; when it ends, what
 * was split is joined, and dirty as a whole.
 */
void split_tracking(struct dirty_env *env, u32 hwpt, bool enable);

/*
 * These addresses were mapped, or unmapped: what is mapped there now has the leaves of its area
 * until tracking begins again.
 */
void split_forget(struct dirty_env *env, u64 iova, u64 size);

/* A page table was allocated, and keeps the parameter that it has now. */
void split_new_table(struct dirty_env *env, u32 hwpt);

/* The page table is gone. */
void split_forget_table(struct dirty_env *env, u32 hwpt);

#endif /* SELFTESTS_IOMMU_RUST_LIB_SPLIT_H */
