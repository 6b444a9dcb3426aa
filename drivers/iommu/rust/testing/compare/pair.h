/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Two domains of one format, one on the C and one on the Rust tables, and a model
 * of what a dirty query has to report.
 */
#ifndef _IOMMU_RUST_COMPARE_PAIR_H
#define _IOMMU_RUST_COMPARE_PAIR_H

#include <linux/bits.h>
#include <linux/iommu.h>

#include "tables.h"

/* A query is at most this many pages, for each of which the bitmap has a bit. */
#define PAIR_QUERY_PAGES BIT(19)
#define PAIR_BITMAP_BYTES (PAIR_QUERY_PAGES / 8)
/* The C walker can write bits in front of and behind a query: give it room. */
#define PAIR_USER_BYTES (PAIR_BITMAP_BYTES + 2 * PAGE_SIZE)

struct pair {
	struct tables side[TABLES_NR_SIDES];
	enum tables_format format;
	/* User memory of PAIR_USER_BYTES, the bitmap a page into it. */
	void __user *user;
	unsigned long *reported;
	unsigned long *expected;
};

struct pair_difference {
	u64 iova;
	u64 item[TABLES_NR_SIDES];
	unsigned int level[TABLES_NR_SIDES];
};

struct pair_query {
	u64 iova;
	u64 last;
	unsigned long flags;
	/* Without a bitmap the dirty bits are only cleared. */
	bool no_bitmap;
};

int pair_init(struct pair *pair, enum tables_format format, void __user *user);
void pair_destroy(struct pair *pair);
u64 pair_granule(const struct pair *pair);

bool pair_equal(const struct pair *pair, struct pair_difference *difference);
bool pair_set_dirty(struct pair *pair, u64 iova);
bool pair_query_is_aligned(const struct pair *pair, const struct pair_query *query);
void pair_align_query(const struct pair *pair, struct pair_query *query, bool inwards);

void pair_expect(struct pair *pair, enum tables_side side, const struct pair_query *query);
int pair_ask(struct pair *pair, enum tables_side side, const struct pair_query *query,
	     struct iommu_iotlb_gather *gather);
bool pair_reported_as_expected(struct pair *pair, const struct pair_query *query,
			       unsigned long *page);
bool pair_is_clean(const struct pair *pair, enum tables_side side,
		   const struct pair_query *query, u64 *iova);

#endif /* _IOMMU_RUST_COMPARE_PAIR_H */
