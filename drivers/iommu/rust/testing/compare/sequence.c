// SPDX-License-Identifier: GPL-2.0
/*
 * A random sequence on the C tables and on the Rust tables: see sequence.h.
 */
#include <linux/log2.h>
#include <linux/minmax.h>

#include "sequence.h"

/* Size of a mapping that has small leaves only. */
#define SMALL_SIZE SZ_1M

static u64 below(struct sequence *diff, u64 bound)
{
	u64 value = (u64)prandom_u32_state(&diff->random) << 32;

	value |= prandom_u32_state(&diff->random);
	return value % bound;
}

static bool one_in(struct sequence *diff, u64 number)
{
	return below(diff, number) == 0;
}

/* Sizes from the smallest page to @limit, each power of two as often. */
static u64 any_size(struct sequence *diff, u64 limit)
{
	u64 granule = pair_granule(diff->pair);
	u64 size = granule << below(diff, ilog2(limit / granule) + 1);

	return granule * (1 + below(diff, size / granule));
}

static u64 any_iova(struct sequence *diff)
{
	u64 align = pair_granule(diff->pair) << below(diff, 20);

	return WINDOW + ALIGN_DOWN(below(diff, WINDOW_SIZE), align);
}

/* With the variable 'diff' of the function that uses it. */
#define DIFF_ASSERT(test, condition, format, ...)                              \
	KUNIT_ASSERT_TRUE_MSG(test, condition, "seed %u, step %u: " format,    \
			      diff->seed, diff->step, ##__VA_ARGS__)

/**
 * sequence_assert_equal() - Compare all leaves of the two tables
 * @test: The test that fails if they differ
 * @diff: The sequence
 */
void sequence_assert_equal(struct kunit *test, struct sequence *diff)
{
	struct pair_difference difference = {};
	bool equal = pair_equal(diff->pair, &difference);

	DIFF_ASSERT(test, equal,
		    "leaves differ at %#llx: C %#llx at level %u, Rust %#llx at level %u",
		    difference.iova, difference.item[TABLES_C],
		    difference.level[TABLES_C], difference.item[TABLES_RUST],
		    difference.level[TABLES_RUST]);
}

/* The core and the driver of a domain may remove sizes. */
static void take_sizes_away(struct sequence *diff)
{
	unsigned long kept = below(diff, U64_MAX) | pair_granule(diff->pair);
	unsigned int side;

	/* Only small leaves may be left. */
	diff->largest = SZ_4M;
	for (side = 0; side < TABLES_NR_SIDES; side++)
		diff->pair->side[side].domain.pgsize_bitmap &= kept;
}

/**
 * sequence_start() - Begin the sequence of a seed
 * @diff: The sequence, with an empty pair and the seed
 */
void sequence_start(struct sequence *diff)
{
	prandom_seed_state(&diff->random, 1 + diff->seed);
	diff->largest = SZ_4G;
	if (diff->seed % 4 == 3)
		take_sizes_away(diff);
}

static void do_map(struct kunit *test, struct sequence *diff)
{
	static const int prots[] = {
		IOMMU_READ | IOMMU_WRITE,
		IOMMU_READ | IOMMU_WRITE | IOMMU_CACHE,
		IOMMU_WRITE,
		IOMMU_READ,
		IOMMU_READ | IOMMU_NOEXEC,
		IOMMU_READ | IOMMU_WRITE | IOMMU_MMIO,
	};
	int prot = prots[below(diff, ARRAY_SIZE(prots))];
	u64 iova = any_iova(diff);
	u64 size = any_size(diff, diff->largest);
	phys_addr_t target = iova ^ BIT_ULL(40);
	int ret[TABLES_NR_SIDES];
	unsigned int side;

	if (size > SZ_4M && one_in(diff, 2))
		size = ALIGN(size, SZ_2M);
	if (one_in(diff, 3)) {
		size = min_t(u64, size, SMALL_SIZE);
		target = any_iova(diff);
	} else if (size > SZ_256M) {
		iova = ALIGN_DOWN(iova, SZ_256M);
		target = iova ^ BIT_ULL(40);
	}
	for (side = 0; side < TABLES_NR_SIDES; side++)
		ret[side] = iommu_map(&diff->pair->side[side].domain, iova, target,
				      size, prot, GFP_KERNEL);
	DIFF_ASSERT(test, ret[TABLES_C] == ret[TABLES_RUST],
		    "map of %#llx at %#llx to %pa: C %d, Rust %d", size, iova,
		    &target, ret[TABLES_C], ret[TABLES_RUST]);
}

/* Finds something mapped in both tables, at or behind a random address. */
static bool any_item(struct sequence *diff, struct raw_item *item)
{
	struct tables *c = &diff->pair->side[TABLES_C];

	return raw_next(c->raw, c->common, any_iova(diff), U64_MAX, item) ||
	       raw_next(c->raw, c->common, 0, U64_MAX, item);
}

static void do_unmap(struct kunit *test, struct sequence *diff)
{
	u64 size = any_size(diff, SZ_2G);
	u64 iova = any_iova(diff);
	size_t ret[TABLES_NR_SIDES];
	struct raw_item item;
	unsigned int side;

	/* Mostly from the start of a leaf, of any size. */
	if (!one_in(diff, 4) && any_item(diff, &item)) {
		iova = item.iova;
		if (!one_in(diff, 4))
			iova = ALIGN_DOWN(iova, BIT_ULL(item.leaf_lg2));
		if (one_in(diff, 2))
			size = BIT_ULL(item.leaf_lg2);
	}
	for (side = 0; side < TABLES_NR_SIDES; side++)
		ret[side] = iommu_unmap(&diff->pair->side[side].domain, iova, size);
	DIFF_ASSERT(test, ret[TABLES_C] == ret[TABLES_RUST],
		    "unmap of %#llx at %#llx: C %#zx, Rust %#zx", size, iova,
		    ret[TABLES_C], ret[TABLES_RUST]);
}

static void do_translate(struct kunit *test, struct sequence *diff)
{
	unsigned int i;

	for (i = 0; i < 32; i++) {
		u64 iova = any_iova(diff) + below(diff, SZ_4K);
		phys_addr_t c, rust;
		struct raw_item item;

		if (one_in(diff, 2) && any_item(diff, &item))
			iova = item.iova + below(diff, BIT_ULL(item.lg2));
		c = iommu_iova_to_phys(&diff->pair->side[TABLES_C].domain, iova);
		rust = iommu_iova_to_phys(&diff->pair->side[TABLES_RUST].domain, iova);
		DIFF_ASSERT(test, c == rust,
			    "%#llx leads to %pa in C and %pa in Rust", iova, &c, &rust);
	}
}

static void do_dirty(struct kunit *test, struct sequence *diff)
{
	u64 writes = 1 + below(diff, 64);
	struct raw_item item;

	if (!any_item(diff, &item))
		return;
	/* In neighbouring pages, or anywhere. */
	if (one_in(diff, 2)) {
		while (writes--)
			pair_set_dirty(diff->pair, item.iova + writes * pair_granule(diff->pair));
		return;
	}
	while (writes-- && any_item(diff, &item))
		pair_set_dirty(diff->pair, item.iova + below(diff, BIT_ULL(item.leaf_lg2)));
}

static struct pair_query any_query(struct sequence *diff)
{
	u64 limit = min(SZ_2G, PAIR_QUERY_PAGES * pair_granule(diff->pair));
	struct pair_query query = {
		.iova = any_iova(diff),
		.flags = one_in(diff, 4) ? IOMMU_DIRTY_NO_CLEAR : 0,
		.no_bitmap = one_in(diff, 8),
	};
	struct raw_item item;

	if (!one_in(diff, 4) && any_item(diff, &item))
		query.iova = item.iova;
	query.last = query.iova + any_size(diff, limit) - 1;
	return query;
}

/*
 * Queries one side, and compares the result with the model.  A query beyond the
 * current top of an AMD v1 table may return -ERANGE.
 */
static int ask_side(struct kunit *test, struct sequence *diff, enum tables_side side,
		    const struct pair_query *query, struct iommu_iotlb_gather *gather)
{
	unsigned long page = 0;
	u64 iova = 0;
	bool right;
	int ret;

	pair_expect(diff->pair, side, query);
	ret = pair_ask(diff->pair, side, query, gather);
	if (ret == -ERANGE && diff->pair->format == TABLES_AMDV1)
		return ret;
	DIFF_ASSERT(test, ret == 0, "side %u, query %#llx..%#llx: %d", side,
		    query->iova, query->last, ret);
	right = pair_reported_as_expected(diff->pair, query, &page);
	DIFF_ASSERT(test, right, "side %u, query %#llx..%#llx: page %#lx is wrong",
		    side, query->iova, query->last, page);
	if (query->flags & IOMMU_DIRTY_NO_CLEAR) {
		DIFF_ASSERT(test, gather->start == ULONG_MAX && gather->end == 0,
			    "side %u: NO_CLEAR gathered %#lx..%#lx", side,
			    gather->start, gather->end);
		return 0;
	}
	right = pair_is_clean(diff->pair, side, query, &iova);
	DIFF_ASSERT(test, right, "side %u, query %#llx..%#llx: %#llx is still dirty",
		    side, query->iova, query->last, iova);
	return 0;
}

/*
 * A query that begins or ends inside a leaf is made on the Rust table only. A query
 * of the leaves that lie wholly inside brings the C table to the same state.
 */
static void ask_inside_a_leaf(struct kunit *test, struct sequence *diff,
			      const struct pair_query *query)
{
	struct iommu_iotlb_gather gather;
	struct pair_query inner = *query;

	if (ask_side(test, diff, TABLES_RUST, query, &gather))
		return;
	pair_align_query(diff->pair, &inner, true);
	if (inner.iova <= inner.last)
		ask_side(test, diff, TABLES_C, &inner, &gather);
}

static void do_query(struct kunit *test, struct sequence *diff)
{
	u64 limit = PAIR_QUERY_PAGES * pair_granule(diff->pair);
	struct iommu_iotlb_gather gather[TABLES_NR_SIDES];
	struct pair_query query = any_query(diff);
	int ret[TABLES_NR_SIDES];
	unsigned int side;

	if (!tables_track(diff->pair->format))
		return;
	if (!one_in(diff, 3)) {
		pair_align_query(diff->pair, &query, false);
		if (query.last - query.iova >= limit)
			return;
	}
	if (!pair_query_is_aligned(diff->pair, &query)) {
		ask_inside_a_leaf(test, diff, &query);
		return;
	}
	for (side = 0; side < TABLES_NR_SIDES; side++)
		ret[side] = ask_side(test, diff, side, &query, &gather[side]);
	DIFF_ASSERT(test, ret[TABLES_C] == ret[TABLES_RUST],
		    "query %#llx..%#llx: C %d, Rust %d", query.iova, query.last,
		    ret[TABLES_C], ret[TABLES_RUST]);
	DIFF_ASSERT(test,
		    gather[TABLES_C].start == gather[TABLES_RUST].start &&
		    gather[TABLES_C].end == gather[TABLES_RUST].end,
		    "to be flushed: C %#lx..%#lx, Rust %#lx..%#lx",
		    gather[TABLES_C].start, gather[TABLES_C].end,
		    gather[TABLES_RUST].start, gather[TABLES_RUST].end);
}

/**
 * sequence_step() - Run the next operation on both tables, and compare the results
 * @test: The test that fails if they differ
 * @diff: The sequence
 */
void sequence_step(struct kunit *test, struct sequence *diff)
{
	switch (below(diff, 12)) {
	case 0 ... 3:
		do_map(test, diff);
		break;
	case 4 ... 5:
		do_unmap(test, diff);
		break;
	case 6:
		do_translate(test, diff);
		break;
	case 7 ... 9:
		do_dirty(test, diff);
		break;
	default:
		do_query(test, diff);
		break;
	}
}
