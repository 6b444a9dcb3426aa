// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit: the same random sequence on the C tables and on the Rust tables.
 *
 * Each step has to say the same on both, and all their leaves have to be the
 * same, bit for bit.  Dirty bitmaps are held against a model as well.
 * The one difference that is allowed has its own test: Linux 7.3.4's C
 * walker is wrong about a query that begins or ends inside a leaf.
 */
#include <kunit/test.h>
#include <linux/err.h>
#include <linux/mman.h>
#include <linux/mmzone.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/vmstat.h>

#include "sequence.h"

#define NR_SEEDS 24
#define NR_STEPS 400
/* All leaves are compared after so many steps, and at the end. */
#define COMPARE_EVERY 8

struct diff_priv {
	struct pair pair;
	bool made;
	void __user *user;
	unsigned long tables_before;
};

static enum tables_format format_of(struct kunit *test)
{
	return *(const enum tables_format *)test->param_value;
}

static void make_pair(struct kunit *test)
{
	struct diff_priv *priv = test->priv;
	int ret = pair_init(&priv->pair, format_of(test), priv->user);

	if (ret == -EOPNOTSUPP)
		kunit_skip(test, "this kernel has no %s tables of both kinds",
			   tables_format_name(format_of(test)));
	KUNIT_ASSERT_EQ(test, ret, 0);
	priv->made = true;
}

static void drop_pair(struct kunit *test)
{
	struct diff_priv *priv = test->priv;

	if (priv->made)
		pair_destroy(&priv->pair);
	priv->made = false;
}

static void assert_no_leak(struct kunit *test)
{
	struct diff_priv *priv = test->priv;

	KUNIT_ASSERT_EQ(test, priv->tables_before,
			global_node_page_state(NR_SECONDARY_PAGETABLE));
}

static void random_sequences(struct kunit *test)
{
	struct diff_priv *priv = test->priv;
	struct sequence diff = { .pair = &priv->pair };

	for (diff.seed = 0; diff.seed < NR_SEEDS; diff.seed++) {
		make_pair(test);
		sequence_start(&diff);
		for (diff.step = 0; diff.step < NR_STEPS; diff.step++) {
			sequence_step(test, &diff);
			if (diff.step % COMPARE_EVERY == 0)
				sequence_assert_equal(test, &diff);
		}
		sequence_assert_equal(test, &diff);
		drop_pair(test);
		assert_no_leak(test);
	}
}

/*
 * Errors before anything is mapped: the same, whatever is wrong.  Where C maps
 * something although a length is odd or a target too high, Rust refuses.
 */
static void bad_arguments(struct kunit *test)
{
	struct diff_priv *priv = test->priv;
	struct sequence diff = { .pair = &priv->pair };
	u64 granule, top;
	unsigned int i;

	make_pair(test);
	granule = pair_granule(&priv->pair);
	top = priv->pair.side[TABLES_C].domain.geometry.aperture_end;
	KUNIT_EXPECT_EQ(test, top, priv->pair.side[TABLES_RUST].domain.geometry.aperture_end);
	KUNIT_EXPECT_EQ(test, priv->pair.side[TABLES_C].domain.pgsize_bitmap,
			priv->pair.side[TABLES_RUST].domain.pgsize_bitmap);
	struct {
		u64 iova, target, size;
	} tries[] = {
		{ granule, granule, 0 },
		{ granule / 2, 0, granule },
		{ granule, granule / 2, granule },
		{ granule, granule, granule / 2 },
		{ top - granule + 1, 0, granule },
		{ top - granule + 1, 0, 2 * granule },
		{ top + 1, 0, granule },
		{ ULONG_MAX - granule + 1, 0, 2 * granule },
		{ granule, BIT_ULL(52), granule },
	};

	for (i = 0; i < ARRAY_SIZE(tries); i++) {
		int ret[TABLES_NR_SIDES];
		unsigned int side;

		diff.step = i;
		for (side = 0; side < TABLES_NR_SIDES; side++)
			ret[side] = iommu_map(&priv->pair.side[side].domain, tries[i].iova,
					      tries[i].target, tries[i].size,
					      IOMMU_READ | IOMMU_WRITE, GFP_KERNEL);
		KUNIT_EXPECT_EQ_MSG(test, ret[TABLES_C], ret[TABLES_RUST],
				    "try %u: %#llx at %#llx to %#llx", i, tries[i].size,
				    tries[i].iova, tries[i].target);
		sequence_assert_equal(test, &diff);
	}
}

/*
 * A known bug of C, tested so that a fix in C is noticed: for a query of the
 * second half of a dirty leaf, C reports nothing and clears D.
 */
static void c_loses_pages_inside_a_leaf(struct kunit *test)
{
	struct diff_priv *priv = test->priv;
	struct pair *pair = &priv->pair;
	struct iommu_iotlb_gather gather;
	struct pair_query query = {};
	unsigned long page;
	unsigned int side;
	u64 iova;

	make_pair(test);
	if (!tables_track(pair->format))
		kunit_skip(test, "tables of this format cannot be asked for dirty pages");
	for (side = 0; side < TABLES_NR_SIDES; side++)
		KUNIT_ASSERT_EQ(test, 0, iommu_map(&pair->side[side].domain, WINDOW, WINDOW,
						   SZ_2M, IOMMU_READ | IOMMU_WRITE,
						   GFP_KERNEL));
	KUNIT_ASSERT_TRUE(test, pair_set_dirty(pair, WINDOW));
	query.iova = WINDOW + SZ_1M;
	query.last = WINDOW + SZ_2M - 1;

	pair_expect(pair, TABLES_RUST, &query);
	KUNIT_EXPECT_EQ(test, 0, pair_ask(pair, TABLES_RUST, &query, &gather));
	KUNIT_EXPECT_TRUE(test, pair_reported_as_expected(pair, &query, &page));
	KUNIT_EXPECT_EQ(test, 0, pair_ask(pair, TABLES_C, &query, &gather));
	if (pair_reported_as_expected(pair, &query, &page))
		kunit_skip(test, "this kernel's C walker clips: no exception is needed");

	/* The whole leaf, asked afterwards: still dirty in Rust, lost in C. */
	query.iova = WINDOW;
	KUNIT_EXPECT_FALSE(test, pair_is_clean(pair, TABLES_RUST, &query, &iova));
	KUNIT_EXPECT_TRUE(test, pair_is_clean(pair, TABLES_C, &query, &iova));
}

/* Checks that the comparison can fail: it must notice each bit of a leaf. */
static void one_bit_is_noticed(struct kunit *test)
{
	struct diff_priv *priv = test->priv;
	struct pair *pair = &priv->pair;
	struct pair_difference difference;
	struct tables *rust;
	struct raw_item item;
	unsigned int side, bit;
	u64 size = SZ_4M + 5 * SZ_4K;

	make_pair(test);
	for (side = 0; side < TABLES_NR_SIDES; side++)
		KUNIT_ASSERT_EQ(test, 0, iommu_map(&pair->side[side].domain, WINDOW, WINDOW,
						   size, IOMMU_READ | IOMMU_WRITE,
						   GFP_KERNEL));
	KUNIT_ASSERT_TRUE(test, pair_equal(pair, &difference));
	rust = &pair->side[TABLES_RUST];
	KUNIT_ASSERT_TRUE(test, raw_next(rust->raw, rust->common, WINDOW + SZ_4M + SZ_8K,
					 U64_MAX, &item));
	for (bit = 0; bit < 64; bit++) {
		WRITE_ONCE(*item.word, item.value ^ BIT_ULL(bit));
		KUNIT_EXPECT_FALSE_MSG(test, pair_equal(pair, &difference), "bit %u", bit);
		WRITE_ONCE(*item.word, item.value);
	}
	/* A leaf that only one of them has. */
	WRITE_ONCE(*item.word, 0);
	KUNIT_EXPECT_FALSE(test, pair_equal(pair, &difference));
	KUNIT_EXPECT_EQ(test, difference.iova, item.iova);
	WRITE_ONCE(*item.word, item.value);
	KUNIT_EXPECT_TRUE(test, pair_equal(pair, &difference));
}

static const enum tables_format formats[] = {
	TABLES_VTDSS,
	TABLES_AMDV1,
	TABLES_X86_64,
	TABLES_AMDV1_MOCK,
};

static void describe(const enum tables_format *format, char *description)
{
	strscpy(description, tables_format_name(*format), KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(format, formats, describe);

static int diff_init(struct kunit *test)
{
	struct diff_priv *priv = kunit_kzalloc(test, sizeof(*priv), GFP_KERNEL);
	unsigned long user;

	if (!priv)
		return -ENOMEM;
	user = kunit_vm_mmap(test, NULL, 0, PAIR_USER_BYTES, PROT_READ | PROT_WRITE,
			     MAP_ANONYMOUS | MAP_PRIVATE, 0);
	if (!user || IS_ERR_VALUE(user))
		return -ENOMEM;
	priv->user = (void __user *)user;
	priv->tables_before = global_node_page_state(NR_SECONDARY_PAGETABLE);
	test->priv = priv;
	return 0;
}

static void diff_exit(struct kunit *test)
{
	if (!test->priv)
		return;
	drop_pair(test);
	assert_no_leak(test);
}

static struct kunit_case diff_cases[] = {
	KUNIT_CASE_PARAM(random_sequences, format_gen_params),
	KUNIT_CASE_PARAM(bad_arguments, format_gen_params),
	KUNIT_CASE_PARAM(c_loses_pages_inside_a_leaf, format_gen_params),
	KUNIT_CASE_PARAM(one_bit_is_noticed, format_gen_params),
	{}
};

static struct kunit_suite diff_suite = {
	.name = "rust_iommu_pt_diff",
	.init = diff_init,
	.exit = diff_exit,
	.test_cases = diff_cases,
};

kunit_test_suite(diff_suite);

MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
