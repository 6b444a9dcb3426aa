/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A random sequence of maps, unmaps, translations, writes and dirty queries, each
 * done to the C and to the Rust tables.
 */
#ifndef _IOMMU_RUST_COMPARE_SEQUENCE_H
#define _IOMMU_RUST_COMPARE_SEQUENCE_H

#include <kunit/test.h>
#include <linux/prandom.h>
#include <linux/sizes.h>

#include "pair.h"

/* Room for leaves of each size, across the address where AMD's top has to grow. */
#define WINDOW (480ULL * SZ_1G)
#define WINDOW_SIZE (64ULL * SZ_1G)

/**
 * struct sequence - Where a random sequence is
 * @pair: The two tables
 * @random: State of the random numbers
 * @largest: The most that one mapping may span
 * @seed: Which sequence it is
 * @step: How far it is
 */
struct sequence {
	struct pair *pair;
	struct rnd_state random;
	u64 largest;
	u32 seed;
	u32 step;
};

void sequence_start(struct sequence *diff);
void sequence_step(struct kunit *test, struct sequence *diff);
void sequence_assert_equal(struct kunit *test, struct sequence *diff);

#endif /* _IOMMU_RUST_COMPARE_SEQUENCE_H */
