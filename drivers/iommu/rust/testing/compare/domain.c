// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit: what a domain has to do, on the C tables and on the Rust tables.
 *
 * The tests have the names of those in rust/kernel/iommu/pt/tests, as far as
 * they can be told in the words of struct iommu_domain.  That the C tables pass
 * them shows that the tests ask for what the kernel asks for.
 */
#include <kunit/test.h>
#include <linux/err.h>
#include <linux/mman.h>
#include <linux/mmzone.h>
#include <linux/sizes.h>
#include <linux/vmstat.h>

#include "pair.h"

/* Of a size that fits each aperture and each output address. */
#define LARGEST SZ_256G
#define RW (IOMMU_READ | IOMMU_WRITE)

struct subject {
	enum tables_format format;
	enum tables_side side;
};

static const struct subject subjects[] = {
	{ TABLES_VTDSS, TABLES_C },	 { TABLES_VTDSS, TABLES_RUST },
	{ TABLES_AMDV1, TABLES_C },	 { TABLES_AMDV1, TABLES_RUST },
	{ TABLES_X86_64, TABLES_C },	 { TABLES_X86_64, TABLES_RUST },
	{ TABLES_AMDV1_MOCK, TABLES_C }, { TABLES_AMDV1_MOCK, TABLES_RUST },
};

static void describe(const struct subject *subject, char *description)
{
	snprintf(description, KUNIT_PARAM_DESC_SIZE, "%s %s",
		 tables_format_name(subject->format),
		 subject->side == TABLES_C ? "C" : "Rust");
}

KUNIT_ARRAY_PARAM(subject, subjects, describe);

struct domain_priv {
	struct pair pair;
	struct tables *tables;
	struct iommu_domain *domain;
	enum tables_side side;
	unsigned long tables_before;
};

static int map(struct kunit *test, u64 iova, u64 target, u64 size)
{
	struct domain_priv *priv = test->priv;

	return iommu_map(priv->domain, iova, target, size, RW, GFP_KERNEL);
}

static u64 unmap(struct kunit *test, u64 iova, u64 size)
{
	struct domain_priv *priv = test->priv;

	return iommu_unmap(priv->domain, iova, size);
}

static u64 translate(struct kunit *test, u64 iova)
{
	struct domain_priv *priv = test->priv;

	return iommu_iova_to_phys(priv->domain, iova);
}

/* What the hardware would find: log2 of the size of the leaf, 0 if none. */
static unsigned int leaf_lg2(struct kunit *test, u64 iova)
{
	struct domain_priv *priv = test->priv;
	struct raw_item item;

	if (!raw_next(priv->tables->raw, priv->tables->common, iova, iova, &item))
		return 0;
	return item.leaf_lg2;
}

static bool is_empty(struct kunit *test)
{
	struct domain_priv *priv = test->priv;
	struct raw_item item;

	return !raw_next(priv->tables->raw, priv->tables->common, 0, U64_MAX, &item);
}

static u64 granule(struct kunit *test)
{
	struct domain_priv *priv = test->priv;

	return BIT_ULL(priv->tables->raw->granule_lg2);
}

static void write(struct kunit *test, u64 iova)
{
	struct domain_priv *priv = test->priv;
	struct raw_item item;

	KUNIT_ASSERT_TRUE(test, raw_next(priv->tables->raw, priv->tables->common, iova,
					 iova, &item));
	WRITE_ONCE(*item.word, item.value | priv->tables->raw->dirty);
}

static void needs_tracking(struct kunit *test)
{
	const struct subject *subject = test->param_value;

	if (!tables_track(subject->format))
		kunit_skip(test, "tables of this format cannot be asked for dirty pages");
}

/* The number of pages reported, all of which have to be those of the model. */
static unsigned long ask(struct kunit *test, u64 iova, u64 size, unsigned long flags)
{
	struct domain_priv *priv = test->priv;
	struct pair_query query = { .iova = iova, .last = iova + size - 1, .flags = flags };
	struct iommu_iotlb_gather gather;
	unsigned long page = 0;

	pair_expect(&priv->pair, priv->side, &query);
	KUNIT_ASSERT_EQ(test, 0, pair_ask(&priv->pair, priv->side, &query, &gather));
	KUNIT_EXPECT_TRUE_MSG(test, pair_reported_as_expected(&priv->pair, &query, &page),
			      "%#llx, %#llx: page %#lx", iova, size, page);
	return bitmap_weight(priv->pair.expected, size / granule(test));
}

static void every_leaf_size(struct kunit *test)
{
	struct domain_priv *priv = test->priv;
	u64 size;

	for (size = granule(test); size <= LARGEST; size *= 2) {
		if (!(priv->domain->pgsize_bitmap & size))
			continue;
		/* Displaced by its own size: nothing larger fits. */
		KUNIT_EXPECT_EQ(test, map(test, size, 2 * size, size), 0);
		KUNIT_EXPECT_EQ(test, leaf_lg2(test, size), ilog2(size));
		KUNIT_EXPECT_EQ(test, translate(test, size), 2 * size);
		KUNIT_EXPECT_EQ(test, translate(test, 2 * size - 1), 3 * size - 1);
		KUNIT_EXPECT_EQ(test, translate(test, 2 * size), 0);
		KUNIT_EXPECT_EQ(test, unmap(test, size, size), size);
		KUNIT_EXPECT_TRUE(test, is_empty(test));
	}
}

static void best_sizes(struct kunit *test)
{
	u64 first = SZ_1G - SZ_2M - SZ_4K;
	u64 end = SZ_2G + SZ_2M + SZ_4K;
	u64 iova;

	KUNIT_ASSERT_EQ(test, map(test, first, first + SZ_4G, end - first), 0);
	KUNIT_EXPECT_EQ(test, leaf_lg2(test, first), 12);
	KUNIT_EXPECT_EQ(test, leaf_lg2(test, first + SZ_4K), 21);
	KUNIT_EXPECT_EQ(test, leaf_lg2(test, SZ_1G), 30);
	KUNIT_EXPECT_EQ(test, leaf_lg2(test, SZ_2G), 21);
	KUNIT_EXPECT_EQ(test, leaf_lg2(test, end - 1), 12);
	for (iova = first; iova < end; iova += SZ_1M + 12345)
		KUNIT_EXPECT_EQ(test, translate(test, iova), iova + SZ_4G);
	KUNIT_EXPECT_EQ(test, unmap(test, first, end - first), end - first);
	KUNIT_EXPECT_TRUE(test, is_empty(test));
}

static void boundaries(struct kunit *test)
{
	u64 page = granule(test);
	unsigned int lg2;

	for (lg2 = 13; lg2 < 46; lg2++) {
		u64 first = BIT_ULL(lg2) - page;

		KUNIT_ASSERT_EQ(test, map(test, first, BIT_ULL(40), 2 * page), 0);
		KUNIT_EXPECT_EQ(test, translate(test, first), BIT_ULL(40));
		KUNIT_EXPECT_EQ(test, translate(test, first + page), BIT_ULL(40) + page);
		KUNIT_EXPECT_EQ(test, unmap(test, first, 2 * page), 2 * page);
		KUNIT_EXPECT_TRUE(test, is_empty(test));
	}
}

static void ends_of_the_aperture(struct kunit *test)
{
	struct domain_priv *priv = test->priv;
	u64 page = granule(test);
	u64 last = priv->domain->geometry.aperture_end - page + 1;

	KUNIT_EXPECT_EQ(test, map(test, 0, SZ_1G, page), 0);
	KUNIT_EXPECT_EQ(test, map(test, last, SZ_2G, page), 0);
	KUNIT_EXPECT_EQ(test, translate(test, 0), SZ_1G);
	KUNIT_EXPECT_EQ(test, translate(test, last), SZ_2G);
	KUNIT_EXPECT_NE(test, map(test, last, SZ_2G, 2 * page), 0);
	KUNIT_EXPECT_EQ(test, unmap(test, 0, page), page);
	KUNIT_EXPECT_EQ(test, unmap(test, last, page), page);
	KUNIT_EXPECT_TRUE(test, is_empty(test));
}

static void overmap_keeps_what_was(struct kunit *test)
{
	u64 page = granule(test);
	u64 old = SZ_1G + SZ_2M + 5 * page;

	KUNIT_ASSERT_EQ(test, map(test, old, SZ_4G, page), 0);
	KUNIT_EXPECT_EQ(test, map(test, SZ_1G, SZ_2G + page, SZ_4M), -EADDRINUSE);
	KUNIT_EXPECT_EQ(test, map(test, old, SZ_2G, page), -EADDRINUSE);
	KUNIT_EXPECT_EQ(test, translate(test, old), SZ_4G);
	KUNIT_EXPECT_EQ(test, translate(test, SZ_1G), 0);
	KUNIT_EXPECT_EQ(test, translate(test, old - page), 0);
	KUNIT_EXPECT_EQ(test, unmap(test, old, page), page);
	KUNIT_EXPECT_TRUE(test, is_empty(test));
}

static void unmap_inside_a_leaf(struct kunit *test)
{
	KUNIT_ASSERT_EQ(test, map(test, SZ_1G, SZ_2G, SZ_1G), 0);
	KUNIT_EXPECT_EQ(test, unmap(test, SZ_1G + SZ_2M, SZ_2M), 0);
	KUNIT_EXPECT_EQ(test, unmap(test, SZ_1G + SZ_4K, SZ_1G - SZ_4K), 0);
	KUNIT_EXPECT_EQ(test, translate(test, SZ_1G + SZ_2M), SZ_2G + SZ_2M);
}

static void unmap_ends_inside_a_leaf(struct kunit *test)
{
	KUNIT_ASSERT_EQ(test, map(test, SZ_1G, SZ_2G, SZ_1G), 0);
	KUNIT_EXPECT_EQ(test, unmap(test, SZ_1G, SZ_4K), SZ_1G);
	KUNIT_EXPECT_TRUE(test, is_empty(test));
}

static void unmap_stops_at_a_hole(struct kunit *test)
{
	u64 page = granule(test);

	KUNIT_ASSERT_EQ(test, map(test, SZ_1G, SZ_2G, page), 0);
	KUNIT_ASSERT_EQ(test, map(test, SZ_1G + 2 * page, SZ_2G, page), 0);
	KUNIT_EXPECT_EQ(test, unmap(test, SZ_1G, 3 * page), page);
	KUNIT_EXPECT_EQ(test, translate(test, SZ_1G), 0);
	KUNIT_EXPECT_EQ(test, translate(test, SZ_1G + 2 * page), SZ_2G);
	KUNIT_EXPECT_EQ(test, unmap(test, SZ_1G, page), 0);
}

static void leaf_replaces_empty_tables(struct kunit *test)
{
	u64 page = granule(test);

	/* Unmapped page by page, so that the tables stay. */
	KUNIT_ASSERT_EQ(test, map(test, SZ_1G, SZ_2G, page), 0);
	KUNIT_ASSERT_EQ(test, map(test, SZ_1G + SZ_4M, SZ_2G, page), 0);
	KUNIT_EXPECT_EQ(test, unmap(test, SZ_1G, page), page);
	KUNIT_EXPECT_EQ(test, unmap(test, SZ_1G + SZ_4M, page), page);
	KUNIT_EXPECT_EQ(test, map(test, SZ_1G, SZ_2G, SZ_1G), 0);
	KUNIT_EXPECT_EQ(test, leaf_lg2(test, SZ_1G), 30);
	KUNIT_EXPECT_EQ(test, translate(test, SZ_1G + SZ_4M + 1), SZ_2G + SZ_4M + 1);
}

static void leaf_spares_full_tables(struct kunit *test)
{
	u64 page = granule(test);
	u64 old = SZ_1G + SZ_4M + page;

	KUNIT_ASSERT_EQ(test, map(test, old, SZ_4G, page), 0);
	KUNIT_EXPECT_EQ(test, map(test, SZ_1G, SZ_2G, SZ_1G), -EADDRINUSE);
	KUNIT_EXPECT_EQ(test, translate(test, old), SZ_4G);
	KUNIT_EXPECT_EQ(test, translate(test, SZ_1G), 0);
}

static void new_leaves_are_clean(struct kunit *test)
{
	needs_tracking(test);
	KUNIT_ASSERT_EQ(test, map(test, SZ_1G - SZ_4M, SZ_1G, SZ_4M + SZ_16K), 0);
	KUNIT_EXPECT_EQ(test, ask(test, SZ_1G - SZ_4M, SZ_4M + SZ_16K, 0), 0);
}

static void every_size_of_dirt(struct kunit *test)
{
	struct domain_priv *priv = test->priv;
	u64 size;

	needs_tracking(test);
	for (size = granule(test); size <= SZ_512M; size *= 2) {
		if (!(priv->domain->pgsize_bitmap & size))
			continue;
		KUNIT_ASSERT_EQ(test, map(test, size, 2 * size, size), 0);
		/* The last item, if the leaf has several. */
		write(test, 2 * size - 1);
		KUNIT_EXPECT_EQ(test, ask(test, size, size, 0), size / granule(test));
		KUNIT_EXPECT_EQ(test, ask(test, size, size, 0), 0);
		KUNIT_EXPECT_EQ(test, unmap(test, size, size), size);
	}
}

static void no_clear_changes_nothing(struct kunit *test)
{
	u64 page = granule(test);

	needs_tracking(test);
	KUNIT_ASSERT_EQ(test, map(test, SZ_1G, SZ_1G + page, SZ_4M), 0);
	write(test, SZ_1G + 5 * page);
	write(test, SZ_1G + SZ_2M);
	KUNIT_EXPECT_EQ(test, ask(test, SZ_1G, SZ_4M, IOMMU_DIRTY_NO_CLEAR), 2);
	KUNIT_EXPECT_EQ(test, ask(test, SZ_1G, SZ_4M, IOMMU_DIRTY_NO_CLEAR), 2);
	KUNIT_EXPECT_EQ(test, ask(test, SZ_1G, SZ_4M, 0), 2);
	KUNIT_EXPECT_EQ(test, ask(test, SZ_1G, SZ_4M, 0), 0);
}

static void query_inside_a_leaf(struct kunit *test)
{
	struct domain_priv *priv = test->priv;

	needs_tracking(test);
	if (priv->side == TABLES_C)
		kunit_skip(test, "the C walker loses pages here: see rust_iommu_pt_diff");
	KUNIT_ASSERT_EQ(test, map(test, SZ_1G, SZ_2G, SZ_2M), 0);
	write(test, SZ_1G);
	KUNIT_EXPECT_EQ(test, ask(test, SZ_1G + SZ_1M, SZ_1M, 0), SZ_1M / granule(test));
	KUNIT_EXPECT_EQ(test, ask(test, SZ_1G, SZ_1M, 0), SZ_1M / granule(test));
	KUNIT_EXPECT_EQ(test, ask(test, SZ_1G, SZ_2M, 0), SZ_2M / granule(test));
	KUNIT_EXPECT_EQ(test, ask(test, SZ_1G, SZ_2M, 0), 0);
}

static void neighbours_are_untouched(struct kunit *test)
{
	u64 page = granule(test);

	needs_tracking(test);
	KUNIT_ASSERT_EQ(test, map(test, SZ_1G, SZ_1G + page, SZ_1M), 0);
	write(test, SZ_1G + 9 * page);
	write(test, SZ_1G + 10 * page);
	write(test, SZ_1G + 11 * page);
	KUNIT_EXPECT_EQ(test, ask(test, SZ_1G + 10 * page, page, 0), 1);
	KUNIT_EXPECT_EQ(test, ask(test, SZ_1G, SZ_1M, 0), 2);
}

static void holes_are_passed(struct kunit *test)
{
	u64 page = granule(test);

	needs_tracking(test);
	KUNIT_ASSERT_EQ(test, map(test, SZ_1G, SZ_1G + page, page), 0);
	KUNIT_ASSERT_EQ(test, map(test, SZ_1G + SZ_4M, SZ_1G + page, page), 0);
	KUNIT_ASSERT_EQ(test, map(test, SZ_2G - page, SZ_1G, page), 0);
	write(test, SZ_1G);
	write(test, SZ_1G + SZ_4M);
	write(test, SZ_2G - page);
	KUNIT_EXPECT_EQ(test, ask(test, SZ_1G + page, SZ_1G - page, 0), 2);
	KUNIT_EXPECT_EQ(test, ask(test, SZ_1G, SZ_1G, 0), 1);
}

static struct kunit_case domain_cases[] = {
	KUNIT_CASE_PARAM(every_leaf_size, subject_gen_params),
	KUNIT_CASE_PARAM(best_sizes, subject_gen_params),
	KUNIT_CASE_PARAM(boundaries, subject_gen_params),
	KUNIT_CASE_PARAM(ends_of_the_aperture, subject_gen_params),
	KUNIT_CASE_PARAM(overmap_keeps_what_was, subject_gen_params),
	KUNIT_CASE_PARAM(unmap_inside_a_leaf, subject_gen_params),
	KUNIT_CASE_PARAM(unmap_ends_inside_a_leaf, subject_gen_params),
	KUNIT_CASE_PARAM(unmap_stops_at_a_hole, subject_gen_params),
	KUNIT_CASE_PARAM(leaf_replaces_empty_tables, subject_gen_params),
	KUNIT_CASE_PARAM(leaf_spares_full_tables, subject_gen_params),
	KUNIT_CASE_PARAM(new_leaves_are_clean, subject_gen_params),
	KUNIT_CASE_PARAM(every_size_of_dirt, subject_gen_params),
	KUNIT_CASE_PARAM(no_clear_changes_nothing, subject_gen_params),
	KUNIT_CASE_PARAM(query_inside_a_leaf, subject_gen_params),
	KUNIT_CASE_PARAM(neighbours_are_untouched, subject_gen_params),
	KUNIT_CASE_PARAM(holes_are_passed, subject_gen_params),
	{}
};

static int domain_init(struct kunit *test)
{
	const struct subject *subject = test->param_value;
	struct domain_priv *priv = kunit_kzalloc(test, sizeof(*priv), GFP_KERNEL);
	unsigned long user;
	int ret;

	if (!priv)
		return -ENOMEM;
	user = kunit_vm_mmap(test, NULL, 0, PAIR_USER_BYTES, PROT_READ | PROT_WRITE,
			     MAP_ANONYMOUS | MAP_PRIVATE, 0);
	if (!user || IS_ERR_VALUE(user))
		return -ENOMEM;
	priv->tables_before = global_node_page_state(NR_SECONDARY_PAGETABLE);
	ret = pair_init(&priv->pair, subject->format, (void __user *)user);
	if (ret == -EOPNOTSUPP)
		kunit_skip(test, "this kernel has no such tables of both kinds");
	if (ret)
		return ret;
	priv->side = subject->side;
	priv->tables = &priv->pair.side[subject->side];
	priv->domain = &priv->tables->domain;
	test->priv = priv;
	return 0;
}

static void domain_exit(struct kunit *test)
{
	struct domain_priv *priv = test->priv;

	if (!priv)
		return;
	pair_destroy(&priv->pair);
	KUNIT_ASSERT_EQ(test, priv->tables_before,
			global_node_page_state(NR_SECONDARY_PAGETABLE));
}

static struct kunit_suite domain_suite = {
	.name = "rust_iommu_pt_domain",
	.init = domain_init,
	.exit = domain_exit,
	.test_cases = domain_cases,
};

kunit_test_suite(domain_suite);
