// SPDX-License-Identifier: GPL-2.0
/*
 * Two domains of one format, over the C and over the Rust tables: see pair.h.
 *
 * This file does not use the code of either table. It computes the expected result
 * of a query from the raw words of the tables before the query.
 */
#include <linux/bitmap.h>
#include <linux/err.h>
#include <linux/minmax.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "pair.h"

/**
 * pair_init() - Make two empty tables of one format
 * @pair: What to fill
 * @format: The format
 * @user: User memory of the calling process, PAIR_USER_BYTES
 *
 * Returns: -EOPNOTSUPP if this kernel lacks one of the two.
 */
int pair_init(struct pair *pair, enum tables_format format, void __user *user)
{
	unsigned int side;
	int ret;

	memset(pair, 0, sizeof(*pair));
	pair->format = format;
	pair->user = user;
	for (side = 0; side < TABLES_NR_SIDES; side++) {
		ret = tables_init(&pair->side[side], format, side);
		if (ret)
			goto err;
	}
	pair->reported = kvzalloc(PAIR_USER_BYTES, GFP_KERNEL);
	pair->expected = kvzalloc(PAIR_BITMAP_BYTES, GFP_KERNEL);
	ret = -ENOMEM;
	if (pair->reported && pair->expected)
		return 0;
err:
	pair_destroy(pair);
	return ret;
}

/**
 * pair_destroy() - Free both tables
 * @pair: The pair; its initialisation may have failed
 */
void pair_destroy(struct pair *pair)
{
	tables_destroy(&pair->side[TABLES_C]);
	tables_destroy(&pair->side[TABLES_RUST]);
	kvfree(pair->reported);
	kvfree(pair->expected);
}

/**
 * pair_granule() - Return the size of the smallest page of the format
 * @pair: The pair
 *
 * Returns: Its size.
 */
u64 pair_granule(const struct pair *pair)
{
	return BIT_ULL(pair->side[TABLES_C].raw->granule_lg2);
}

static bool next_of(const struct pair *pair, unsigned int side, u64 from, u64 last,
		    struct raw_item *item)
{
	const struct tables *tables = &pair->side[side];

	return raw_next(tables->raw, tables->common, from, last, item);
}

static u64 item_last(const struct raw_item *item)
{
	return item->iova + BIT_ULL(item->lg2) - 1;
}

static u64 leaf_first(const struct raw_item *item)
{
	return item->iova & ~(BIT_ULL(item->leaf_lg2) - 1);
}

static u64 leaf_last(const struct raw_item *item)
{
	return leaf_first(item) + BIT_ULL(item->leaf_lg2) - 1;
}

/**
 * pair_equal() - Compare all leaves of the two tables, bit for bit
 * @pair: The pair
 * @difference: The first difference, if there is one
 *
 * Returns: true if each leaf of one table is in the other, at the same level
 * and with the same bits, D among them.
 */
bool pair_equal(const struct pair *pair, struct pair_difference *difference)
{
	u64 from = 0;

	for (;;) {
		struct raw_item c = {}, rust = {};
		bool more_c = next_of(pair, TABLES_C, from, U64_MAX, &c);
		bool more_rust = next_of(pair, TABLES_RUST, from, U64_MAX, &rust);

		if (!more_c && !more_rust)
			return true;
		if (more_c != more_rust || c.iova != rust.iova ||
		    c.level != rust.level || c.value != rust.value) {
			*difference = (struct pair_difference){
				.iova = more_c && (!more_rust || c.iova < rust.iova) ?
					c.iova : rust.iova,
				.item = { c.value, rust.value },
				.level = { c.level, rust.level },
			};
			return false;
		}
		if (item_last(&c) == U64_MAX)
			return true;
		from = item_last(&c) + 1;
	}
}

/**
 * pair_set_dirty() - Set D as hardware does for a write
 * @pair: The pair, with equal tables
 * @iova: Where the write went
 *
 * Returns: false if nothing is mapped there.
 */
bool pair_set_dirty(struct pair *pair, u64 iova)
{
	unsigned int side;

	for (side = 0; side < TABLES_NR_SIDES; side++) {
		struct raw_item item;

		if (!next_of(pair, side, iova, iova, &item))
			return false;
		WRITE_ONCE(*item.word, item.value | pair->side[side].raw->dirty);
	}
	return true;
}

/**
 * pair_query_is_aligned() - Check that a query begins and ends between leaves
 * @pair: The pair
 * @query: The query
 *
 * Returns: false if a leaf lies partly outside.
 */
bool pair_query_is_aligned(const struct pair *pair, const struct pair_query *query)
{
	struct raw_item item;

	if (next_of(pair, TABLES_RUST, query->iova, query->iova, &item) &&
	    leaf_first(&item) < query->iova)
		return false;
	return !(next_of(pair, TABLES_RUST, query->last, query->last, &item) &&
		 leaf_last(&item) > query->last);
}

/**
 * pair_align_query() - Move the ends of a query to the ends of leaves
 * @pair: The pair
 * @query: The query; its last is below its first if nothing is left of it
 * @inwards: Whether to exclude leaves that lie partly inside, or to include them
 */
void pair_align_query(const struct pair *pair, struct pair_query *query, bool inwards)
{
	u64 iova = query->iova, last = query->last;
	struct raw_item item;

	if (next_of(pair, TABLES_RUST, iova, iova, &item) && leaf_first(&item) < iova)
		query->iova = inwards ? leaf_last(&item) + 1 : leaf_first(&item);
	if (next_of(pair, TABLES_RUST, last, last, &item) && leaf_last(&item) > last)
		query->last = inwards ? leaf_first(&item) - 1 : leaf_last(&item);
}

static bool leaf_is_dirty(const struct pair *pair, unsigned int side,
			  const struct raw_item *first)
{
	u64 last = leaf_last(first);
	u64 from = leaf_first(first);
	struct raw_item item;

	/* AMD: hardware may set D in any of the items of a leaf. */
	while (from <= last && next_of(pair, side, from, last, &item)) {
		if (item.value & pair->side[side].raw->dirty)
			return true;
		from = item_last(&item) + 1;
	}
	return false;
}

/**
 * pair_expect() - Compute what a query has to report
 * @pair: The pair; the bitmap is left in @pair->expected
 * @side: Which of the two tables to read
 * @query: The query
 */
void pair_expect(struct pair *pair, enum tables_side side, const struct pair_query *query)
{
	unsigned int lg2 = pair->side[side].raw->granule_lg2;
	u64 from = query->iova;
	struct raw_item item;

	memset(pair->expected, 0, PAIR_BITMAP_BYTES);
	while (from <= query->last && next_of(pair, side, from, query->last, &item)) {
		u64 first = max(leaf_first(&item), query->iova);
		u64 last = min(leaf_last(&item), query->last);

		if (leaf_is_dirty(pair, side, &item))
			bitmap_set(pair->expected, (first - query->iova) >> lg2,
				   (last - first + 1) >> lg2);
		from = leaf_last(&item) + 1;
	}
}

/**
 * pair_ask() - Ask one of the domains for its dirty pages, as iommufd does
 * @pair: The pair; the user's bitmap is left in @pair->reported
 * @side: Which of the two
 * @query: The query
 * @gather: Receives the pending flush
 *
 * Returns: The result of the query, or -EFAULT.
 */
int pair_ask(struct pair *pair, enum tables_side side, const struct pair_query *query,
	     struct iommu_iotlb_gather *gather)
{
	struct iommu_domain *domain = &pair->side[side].domain;
	size_t size = query->last - query->iova + 1;
	struct iommu_dirty_bitmap dirty;
	struct iova_bitmap *bitmap = NULL;
	int ret;

	if (clear_user(pair->user, PAIR_USER_BYTES))
		return -EFAULT;
	if (!query->no_bitmap) {
		bitmap = iova_bitmap_alloc(query->iova, size, pair_granule(pair),
					   pair->user + PAGE_SIZE);
		if (IS_ERR(bitmap))
			return PTR_ERR(bitmap);
	}
	iommu_dirty_bitmap_init(&dirty, bitmap, gather);
	ret = domain->dirty_ops->read_and_clear_dirty(domain, query->iova, size,
						      query->flags, &dirty);
	if (bitmap)
		iova_bitmap_free(bitmap);
	if (copy_from_user(pair->reported, pair->user, PAIR_USER_BYTES))
		return -EFAULT;
	return ret;
}

/**
 * pair_reported_as_expected() - Compare the user's memory with the model
 * @pair: The pair
 * @query: The query
 * @page: The first page of the query that differs, or a number outside of it
 *
 * Returns: true if the bitmap is right and nothing around it was written.
 */
bool pair_reported_as_expected(struct pair *pair, const struct pair_query *query,
			       unsigned long *page)
{
	u64 pages = (query->last - query->iova + 1) >> pair->side[TABLES_C].raw->granule_lg2;
	unsigned long before = PAGE_SIZE * BITS_PER_BYTE;
	unsigned long all = PAIR_USER_BYTES * BITS_PER_BYTE;
	unsigned long *bitmap = pair->reported + PAGE_SIZE / sizeof(unsigned long);
	unsigned long bit;

	if (query->no_bitmap)
		pages = 0;
	bit = find_first_bit(pair->reported, before);
	if (bit < before) {
		*page = ULONG_MAX;
		return false;
	}
	bit = find_next_bit(pair->reported, all, before + pages);
	if (bit < all) {
		*page = bit - before;
		return false;
	}
	if (bitmap_equal(bitmap, pair->expected, pages))
		return true;
	for (bit = 0; bit < pages; bit++) {
		if (test_bit(bit, bitmap) != test_bit(bit, pair->expected))
			break;
	}
	*page = bit;
	return false;
}

/**
 * pair_is_clean() - Look if all leaves that lie inside a query are clean
 * @pair: The pair
 * @side: Which of the two
 * @query: The query
 * @iova: The first item with D set, if there is one
 *
 * Returns: true if no D is left in a leaf that lies wholly inside.
 */
bool pair_is_clean(const struct pair *pair, enum tables_side side,
		   const struct pair_query *query, u64 *iova)
{
	struct pair_query inner = *query;
	struct raw_item item;

	pair_align_query(pair, &inner, true);
	while (inner.iova <= inner.last &&
	       next_of(pair, side, inner.iova, inner.last, &item)) {
		if (item.value & pair->side[side].raw->dirty) {
			*iova = item.iova;
			return false;
		}
		inner.iova = item_last(&item) + 1;
	}
	return true;
}
