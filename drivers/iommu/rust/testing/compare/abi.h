/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Makes the same calls through the C ABI on a C and on a Rust page table, and
 * compares the results, the calls to the driver, and every entry.
 */
#ifndef _IOMMU_RUST_COMPARE_ABI_H
#define _IOMMU_RUST_COMPARE_ABI_H

#include <kunit/test.h>
#include <linux/prandom.h>

#include "tables.h"

/* Mappings are made in windows of this size. */
#define ABI_WINDOW BIT_ULL(34)
#define ABI_NR_WINDOWS 3

/**
 * struct abi_shape - The configuration of a table
 * @name: Of the test
 * @format: Its format
 * @config: What is asked for
 * @windows: Where to map
 */
struct abi_shape {
	const char *name;
	enum tables_format format;
	struct tables_config config;
	u64 windows[ABI_NR_WINDOWS];
};

/**
 * struct abi - Two tables and the state of the test
 * @side: The tables
 * @gather: The pending flush of each
 * @what: Their configuration
 * @dev: A device, for tables of one that does not snoop
 * @random: State of the random numbers
 */
struct abi {
	struct tables side[TABLES_NR_SIDES];
	struct iommu_iotlb_gather gather[TABLES_NR_SIDES];
	const struct abi_shape *what;
	struct device *dev;
	struct rnd_state random;
};

u64 abi_draw(struct abi *abi, u64 below);
void abi_assert_same(struct kunit *test, struct abi *abi);
void abi_sync(struct abi *abi);
void abi_call(struct kunit *test, struct abi *abi);

#endif /* _IOMMU_RUST_COMPARE_ABI_H */
