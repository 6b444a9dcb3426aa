/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A paging domain without hardware, on the C or on the Rust tables.
 *
 * Both are a struct iommu_domain with the same configuration, which a test
 * uses through the functions of the IOMMU core.  Only the function that
 * creates it differs.
 */
#ifndef _IOMMU_RUST_COMPARE_TABLES_H
#define _IOMMU_RUST_COMPARE_TABLES_H

#include <linux/generic_pt/iommu.h>
#include <linux/iommu.h>
#include <linux/iova_bitmap.h>
#include <linux/spinlock.h>

#include "raw.h"

/* In the order of bench/abi.h and its program. */
enum tables_format {
	TABLES_VTDSS,
	TABLES_AMDV1,
	TABLES_X86_64,
	TABLES_AMDV1_MOCK,
	TABLES_NR_FORMATS,
};

enum tables_side {
	TABLES_C,
	TABLES_RUST,
	TABLES_NR_SIDES,
};

/**
 * struct tables_config - What a driver asks for, for any format
 * @common: The part that all formats have
 * @level: The level to start with
 * @dev: The device that walks the tables; only needed if it does not snoop
 */
struct tables_config {
	struct pt_iommu_cfg common;
	unsigned int level;
	struct device *dev;
};

/**
 * struct tables_top - What a driver writes to the hardware
 * @phys: Address of the top
 * @number: Its level, as the hardware encodes it
 */
struct tables_top {
	u64 phys;
	u8 number;
};

/**
 * struct tables - A domain and a record of the calls to its driver
 * @domain: For the functions of the IOMMU core
 * @raw: Reads the tables without their code
 * @common: The top and the properties of the tables
 * @flushed_from: First address of the last flush
 * @flushed_last: Last address of the last flush
 * @flushes: How often the core asked for a flush
 * @freed: How many tables the flushes freed
 * @told_level: The level that change_top() was called with last, 0 if never
 */
struct tables {
	union {
		struct iommu_domain domain;
		/* private: */
		struct pt_iommu iommu;
		struct pt_iommu_vtdss as_vtdss;
		struct pt_iommu_amdv1 as_amdv1;
		struct pt_iommu_x86_64 as_x86_64;
		struct pt_iommu_amdv1_mock as_amdv1_mock;
		/* public: */
	};
	const struct raw_format *raw;
	const struct pt_common *common;
	/* private: */
	bool (*hw_info)(struct tables *tables, struct tables_top *top);
	/* public: */
	unsigned long flushed_from;
	unsigned long flushed_last;
	unsigned long flushes;
	unsigned long freed;
	unsigned int told_level;
	/* private: */
	spinlock_t top_lock;
};

const char *tables_format_name(enum tables_format format);
bool tables_track(enum tables_format format);
int tables_init(struct tables *tables, enum tables_format format,
		enum tables_side side);
int tables_init_as(struct tables *tables, enum tables_format format,
		   enum tables_side side, const struct tables_config *config);
bool tables_hw_info(struct tables *tables, struct tables_top *top);
unsigned long tables_waiting(struct iommu_iotlb_gather *gather);
void tables_destroy(struct tables *tables);

#endif /* _IOMMU_RUST_COMPARE_TABLES_H */
