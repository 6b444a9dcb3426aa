// SPDX-License-Identifier: GPL-2.0
/*
 * Reads I/O page tables from their raw words: see raw.h.
 */
#include <linux/bitops.h>
#include <linux/io.h>
#include <linux/kernel.h>
#include <linux/mm.h>

#include "raw.h"

/* Each level resolves nine bits, in each of the formats. */
#define ITEMS_LG2 9
#define ADDRESS GENMASK_ULL(51, 12)

/*
 * VT-d specification, 9.8: an entry is present if R or W is set; bit 7 makes
 * one above the lowest level a leaf.
 */
static unsigned int bit7_leaf_lg2(const struct raw_format *format, u64 item,
				  unsigned int level)
{
	if (level != 0 && !(item & BIT_ULL(7)))
		return 0;
	return format->granule_lg2 + level * ITEMS_LG2;
}

/*
 * AMD I/O Virtualization Technology specification, 2.2.3: next level 0 is a
 * leaf of the size of the level, 7 one whose size the lowest zero of the
 * address tells, any other a table of that level, counted from 1.  Nothing is
 * below the lowest level.
 */
static unsigned int amd_leaf_lg2(const struct raw_format *format, u64 item,
				 unsigned int level)
{
	unsigned int next_level = (item >> 9) & 7;

	if (next_level == 7)
		return format->granule_lg2 + 1 + __ffs64(~((item & ADDRESS) >> 12));
	if (next_level == 0 || level == 0)
		return format->granule_lg2 + level * ITEMS_LG2;
	return 0;
}

const struct raw_format raw_vtdss = {
	.present = BIT_ULL(0) | BIT_ULL(1),
	.dirty = BIT_ULL(9),
	/* The C tables mark an entry here once it is flushed from the caches. */
	.table_ignored = BIT_ULL(10),
	.granule_lg2 = 12,
	.leaf_lg2 = bit7_leaf_lg2,
};

const struct raw_format raw_amdv1 = {
	.present = BIT_ULL(0),
	.dirty = BIT_ULL(6),
	.granule_lg2 = 12,
	.leaf_lg2 = amd_leaf_lg2,
};

/* iommufd's selftest: AMD's format with pages of 2 KiB. */
const struct raw_format raw_amdv1_mock = {
	.present = BIT_ULL(0),
	.dirty = BIT_ULL(6),
	.granule_lg2 = 11,
	.leaf_lg2 = amd_leaf_lg2,
};

/* Intel's SDM, volume 3, 5.5: the same as VT-d's first stage. */
const struct raw_format raw_x86_64 = {
	.present = BIT_ULL(0),
	.dirty = BIT_ULL(6),
	/* The mark of the C tables, as above. */
	.table_ignored = BIT_ULL(9),
	.granule_lg2 = 12,
	.leaf_lg2 = bit7_leaf_lg2,
};

static u64 *table_of(const struct raw_format *format, u64 item)
{
	return phys_to_virt(((item & ADDRESS) >> 12) << format->granule_lg2);
}

static u64 *top_of(const struct pt_common *common, unsigned int *level)
{
	unsigned long top = READ_ONCE(common->top_of_table);

	*level = top & PT_TOP_LEVEL_MASK;
	return (u64 *)(top & ~(unsigned long)PT_TOP_LEVEL_MASK);
}

static unsigned int nr_items(unsigned int lg2)
{
	/* AMD's sixth level has only what is left of 64 bits. */
	return 1U << min(ITEMS_LG2, 64 - (int)lg2);
}

static bool next_in(const struct raw_format *format, u64 *table,
		    unsigned int level, u64 base, u64 from, u64 last,
		    struct raw_item *found)
{
	unsigned int lg2 = format->granule_lg2 + level * ITEMS_LG2;
	unsigned int index = from > base ? (from - base) >> lg2 : 0;

	for (; index < nr_items(lg2); index++) {
		u64 iova = base + ((u64)index << lg2);
		u64 item = READ_ONCE(table[index]);
		unsigned int leaf_lg2;

		if (iova > last)
			return false;
		if (!(item & format->present))
			continue;
		leaf_lg2 = format->leaf_lg2(format, item, level);
		if (leaf_lg2) {
			*found = (struct raw_item){
				.iova = iova,
				.word = &table[index],
				.value = item,
				.level = level,
				.lg2 = lg2,
				.leaf_lg2 = leaf_lg2,
			};
			return true;
		}
		if (next_in(format, table_of(format, item), level - 1, iova,
			    from, last, found))
			return true;
	}
	return false;
}

/**
 * raw_next() - Find the first item of a leaf that translates a range
 * @format: Format of the table
 * @common: Table to read
 * @from: First address of the range
 * @last: Last address of the range
 * @item: What was found
 *
 * Returns: false if the range is not mapped at all.
 */
bool raw_next(const struct raw_format *format, const struct pt_common *common,
	      u64 from, u64 last, struct raw_item *item)
{
	unsigned int level;
	u64 *table = top_of(common, &level);

	return from <= last && next_in(format, table, level, 0, from, last, item);
}

static void count_in(const struct raw_format *format, u64 *table,
		     unsigned int level, struct raw_count *count)
{
	unsigned int lg2 = format->granule_lg2 + level * ITEMS_LG2;
	unsigned long before = count->items;
	unsigned int index;

	count->tables++;
	for (index = 0; index < nr_items(lg2); index++) {
		u64 item = READ_ONCE(table[index]);

		if (!(item & format->present))
			continue;
		if (format->leaf_lg2(format, item, level))
			count->items++;
	}
	count->leaf_tables += count->items != before;
	for (index = 0; level && index < nr_items(lg2); index++) {
		u64 item = READ_ONCE(table[index]);

		if ((item & format->present) && !format->leaf_lg2(format, item, level))
			count_in(format, table_of(format, item), level - 1, count);
	}
}

/**
 * raw_count() - Count the tables and the items of leaves
 * @format: Format of the table
 * @common: Table to read
 * @count: Where the counts go
 */
void raw_count(const struct raw_format *format, const struct pt_common *common,
	       struct raw_count *count)
{
	unsigned int level;
	u64 *table = top_of(common, &level);

	*count = (struct raw_count){};
	count_in(format, table, level, count);
}

static bool same_in(const struct raw_format *format, u64 *a, u64 *b, unsigned int level,
		    struct raw_difference *difference)
{
	unsigned int lg2 = format->granule_lg2 + level * ITEMS_LG2;
	u64 ignored = format->table_ignored | ADDRESS;
	unsigned int index;

	for (index = 0; index < nr_items(lg2); index++) {
		u64 of_a = READ_ONCE(a[index]), of_b = READ_ONCE(b[index]);
		bool is_table = (of_a & format->present) &&
				!format->leaf_lg2(format, of_a, level);

		if ((of_a ^ of_b) & ~(is_table ? ignored : 0)) {
			*difference = (struct raw_difference){
				.level = level,
				.index = index,
				.item = { of_a, of_b },
			};
			return false;
		}
		if (is_table && !same_in(format, table_of(format, of_a),
					 table_of(format, of_b), level - 1, difference))
			return false;
	}
	return true;
}

/**
 * raw_same() - Compare all items of two tables, bit for bit
 * @format: Format of both
 * @a: A table
 * @b: Another
 * @difference: The first difference, if there is one
 *
 * Items that refer to tables need not have those at the same place.
 *
 * Returns: true if there is no difference.
 */
bool raw_same(const struct raw_format *format, const struct pt_common *a,
	      const struct pt_common *b, struct raw_difference *difference)
{
	unsigned int level_a, level_b;
	u64 *top_a = top_of(a, &level_a);
	u64 *top_b = top_of(b, &level_b);

	*difference = (struct raw_difference){ .level = max(level_a, level_b) };
	return level_a == level_b && same_in(format, top_a, top_b, level_a, difference);
}

/**
 * raw_top_level() - Return the level of the top
 * @common: The table
 *
 * Returns: The level of its top.
 */
unsigned int raw_top_level(const struct pt_common *common)
{
	unsigned int level;

	top_of(common, &level);
	return level;
}

/**
 * raw_top_phys() - Return where the hardware starts to walk
 * @common: The table
 *
 * Returns: The address of its top.
 */
phys_addr_t raw_top_phys(const struct pt_common *common)
{
	unsigned int level;

	return virt_to_phys(top_of(common, &level));
}
