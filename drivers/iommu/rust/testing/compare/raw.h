/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Reads I/O page tables from their raw words, as a remapping unit does.
 *
 * It is written from the specifications, and shares no code with the tables that
 * it checks: neither with drivers/iommu/generic_pt nor with rust/kernel/iommu/pt.
 * It takes only the address and the level of the top from struct pt_common.
 *
 * An *item* is one 64-bit word of a table.  A leaf is one item, or in AMD's
 * format a run of equal items.  Level 0 is the lowest.
 */
#ifndef _IOMMU_RUST_COMPARE_RAW_H
#define _IOMMU_RUST_COMPARE_RAW_H

#include <linux/generic_pt/common.h>
#include <linux/types.h>

struct raw_format {
	/* An item with none of these is empty. */
	u64 present;
	u64 dirty;
	/* Of an item that refers to a table: bits that belong to software alone. */
	u64 table_ignored;
	/* log2 of the smallest page, and of the unit that addresses count in. */
	u8 granule_lg2;
	/* log2 of what a leaf at @level spans, 0 if @item refers to a table. */
	unsigned int (*leaf_lg2)(const struct raw_format *format, u64 item,
				 unsigned int level);
};

extern const struct raw_format raw_vtdss;
extern const struct raw_format raw_amdv1;
extern const struct raw_format raw_amdv1_mock;
extern const struct raw_format raw_x86_64;

/**
 * struct raw_item - An item that is part of a leaf
 * @iova: The first address that it translates
 * @word: Its address
 * @value: The word that was read
 * @level: Level of its table
 * @lg2: log2 of the bytes that the item alone translates
 * @leaf_lg2: log2 of the bytes that its leaf translates
 */
struct raw_item {
	u64 iova;
	u64 *word;
	u64 value;
	unsigned int level;
	unsigned int lg2;
	unsigned int leaf_lg2;
};

/**
 * struct raw_count - Number of tables and items
 * @tables: All tables, the top among them
 * @leaf_tables: Those that hold a leaf
 * @items: Items that are part of leaves
 */
struct raw_count {
	unsigned long tables;
	unsigned long leaf_tables;
	unsigned long items;
};

/**
 * struct raw_difference - Where two tables are not the same
 * @level: Level of the table
 * @index: Of the item
 * @item: What it holds in each
 */
struct raw_difference {
	unsigned int level;
	unsigned int index;
	u64 item[2];
};

unsigned int raw_top_level(const struct pt_common *common);
phys_addr_t raw_top_phys(const struct pt_common *common);
bool raw_same(const struct raw_format *format, const struct pt_common *a,
	      const struct pt_common *b, struct raw_difference *difference);
bool raw_next(const struct raw_format *format, const struct pt_common *common,
	      u64 from, u64 last, struct raw_item *item);
void raw_count(const struct raw_format *format, const struct pt_common *common,
	       struct raw_count *count);

#endif /* _IOMMU_RUST_COMPARE_RAW_H */
