/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the device wrote, what the bitmap says, and the difference.
 */
#ifndef SELFTESTS_IOMMU_RUST_LIB_REPORT_H
#define SELFTESTS_IOMMU_RUST_LIB_REPORT_H

#include "dirty.h"

/**
 * struct dirty_query - A query of the bitmap
 * @first: first page
 * @nr: number of pages
 * @unit: bytes that a bit stands for
 * @flags: of IOMMU_HWPT_GET_DIRTY_BITMAP
 * @offset: offset of the bitmap's start in its page
 */
struct dirty_query {
	u64 first;
	u64 nr;
	u64 unit;
	u32 flags;
	u32 offset;
};

/**
 * struct dirty_report - How the answer differs from the expected one
 * @set: bits set
 * @missing: bits of written pages that are not set: lost memory
 * @extra: bits set although nothing was written: useless copies
 * @stray: bits set outside the query, in memory that is not the caller's
 */
struct dirty_report {
	u64 set;
	u64 missing;
	u64 extra;
	u64 stray;
};

struct dirty_query query_all(struct dirty_area *area);
struct dirty_query query_part(u64 first, u64 nr);

/*
 * Queries @hwpt, and compares the answer with what the leaves of @area
 * must report if the device wrote @written since they were last cleared.
 * Each query that clears has to come by here where leaves are split (split.h).
 */
struct dirty_report dirty_query(struct dirty_env *env, u32 hwpt,
				struct dirty_area *area,
				struct dirty_query query,
				struct page_set *written);

/* Of the environment's page table and area; expects exactly @expected. */
struct dirty_report dirty_ask(struct dirty_env *env, u32 hwpt,
			      struct page_set *expected);

/* Expects @env->written, and takes what @query clears out of it. */
struct dirty_report dirty_harvest(struct dirty_env *env,
				  struct dirty_query query);

/* Has the device write, and adds the pages to @env->written. */
void dirty_write_page(struct dirty_env *env, u64 page);
void dirty_write_random(struct dirty_env *env, u64 nr);
void dirty_write_random_by(struct dirty_env *env, struct dirty_dev *dev,
			   struct page_set *set, u64 nr);

#endif /* SELFTESTS_IOMMU_RUST_LIB_REPORT_H */
