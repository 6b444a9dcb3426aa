// SPDX-License-Identifier: GPL-2.0
/*
 * Queries that start or end inside a leaf.
 *
 * The answer is clipped to the query: each page of a dirty leaf within it is
 * reported, no bit is set outside. Such a query does not clear the leaf, because
 * the pages beyond it would be lost: only a query that covers the leaf clears it.
 *
 * With 4K leaves the same queries cut between leaves, and all drivers agree.
 */
#include "lib/harness.h"

static const char *device_bdf;

/**
 * struct clip - The state of a test
 * @env: environment; its page table tracks
 * @block: pages of a leaf, or of a table of leaves where these are 4K
 * @unclipped: whether this is the walker that is known not to clip
 * @lost: bits that it did not report
 * @stray: bits that it wrote outside the bitmap
 */
struct clip {
	struct dirty_env env;
	u64 block;
	bool unclipped;
	u64 lost;
	u64 stray;
};

FIXTURE(dirty_clip) {
	struct clip clip;
};

FIXTURE_VARIANT(dirty_clip) {
	u64 leaf;
};

FIXTURE_VARIANT_ADD(dirty_clip, leaf_4k) { .leaf = SZ_4K, };
FIXTURE_VARIANT_ADD(dirty_clip, leaf_2m) { .leaf = SZ_2M, };
FIXTURE_VARIANT_ADD(dirty_clip, leaf_1g) { .leaf = SZ_1G, };

/* Tests that need a second leaf, which would need too much memory with 1G. */
FIXTURE(dirty_clip_two) {
	struct clip clip;
};

FIXTURE_VARIANT(dirty_clip_two) {
	u64 leaf;
};

FIXTURE_VARIANT_ADD(dirty_clip_two, leaf_4k) { .leaf = SZ_4K, };
FIXTURE_VARIANT_ADD(dirty_clip_two, leaf_2m) { .leaf = SZ_2M, };

static const char *clip_open(struct clip *clip, u64 leaf)
{
	const char *skip = dirty_env_open(&clip->env, device_bdf, leaf);

	if (skip)
		return skip;

	clip->block = max_t(u64, leaf, SZ_2M) / PAGE_4K;
	clip->unclipped = leaf != PAGE_4K &&
			  dirty_walker_is_generic_pt(device_bdf);
	hwpt_set_dirty(&clip->env, clip->env.hwpt, true);

	return NULL;
}

static void clip_close(struct clip *clip)
{
	dirty_env_close(&clip->env);
}

FIXTURE_SETUP(dirty_clip)
{
	const char *skip = clip_open(&self->clip, variant->leaf);

	if (skip)
		SKIP(return, "%s", skip);
}

FIXTURE_TEARDOWN(dirty_clip)
{
	clip_close(&self->clip);
}

FIXTURE_SETUP(dirty_clip_two)
{
	const char *skip = clip_open(&self->clip, variant->leaf);

	if (skip)
		SKIP(return, "%s", skip);
}

FIXTURE_TEARDOWN(dirty_clip_two)
{
	clip_close(&self->clip);
}

static void clip_known(struct clip *clip, struct dirty_report *report,
		       struct __test_metadata *_metadata)
{
	clip->lost += report->missing;
	clip->stray += report->stray;
	KNOWN_DIFFERENCE("generic_pt does not clip to the query: %lu bits lost, %lu outside",
			 clip->lost, clip->stray);
}

/*
 * Exact, unless this is the walker that is known to record from the head of the
 * leaf and to ignore the query. That walker may fail only here.
 */
#define EXPECT_CLIPPED(_report) do {					\
	struct dirty_report __c = (_report);				\
									\
	if (clip->unclipped && (__c.missing || __c.extra || __c.stray))	\
		clip_known(clip, &__c, _metadata);			\
	else								\
		EXPECT_EXACT(__c);					\
} while (0)

/* After any earlier queries: no page was lost, and the last answer clears. */
#define EXPECT_NOTHING_LOST() do {					\
	EXPECT_CLIPPED(dirty_harvest(&clip->env, query_all(&clip->env.area)));		\
	EXPECT_CLIPPED(dirty_harvest(&clip->env, query_all(&clip->env.area)));		\
} while (0)

TEST_F(dirty_clip, second_half)
{
	struct clip *clip = &self->clip;
	u64 half = clip->block / 2;

	dirty_write_page(&clip->env, 3);
	EXPECT_CLIPPED(dirty_harvest(&clip->env, query_part(half, half)));
	EXPECT_NOTHING_LOST();
}

TEST_F(dirty_clip, first_half)
{
	struct clip *clip = &self->clip;
	u64 half = clip->block / 2;

	dirty_write_page(&clip->env, half + 3);
	EXPECT_CLIPPED(dirty_harvest(&clip->env, query_part(0, half)));
	EXPECT_NOTHING_LOST();
}

TEST_F(dirty_clip, middle)
{
	struct clip *clip = &self->clip;
	u64 quarter = clip->block / 4;

	dirty_write_page(&clip->env, 0);
	dirty_write_page(&clip->env, clip->block - 1);
	EXPECT_CLIPPED(dirty_harvest(&clip->env, query_part(quarter, 2 * quarter)));
	EXPECT_NOTHING_LOST();
}

/* Both halves in turn: neither covers the leaf, so it must stay dirty. */
TEST_F(dirty_clip, halves_do_not_clear)
{
	struct clip *clip = &self->clip;
	u64 half = clip->block / 2;

	for (int i = 0; i < 2; i++) {
		dirty_write_page(&clip->env, half - 1);
		EXPECT_CLIPPED(dirty_harvest(&clip->env, query_part(0, half)));
		EXPECT_CLIPPED(dirty_harvest(&clip->env, query_part(half, half)));
	}
	EXPECT_NOTHING_LOST();
}

TEST_F(dirty_clip_two, across_two_leaves)
{
	struct clip *clip = &self->clip;
	u64 half = clip->block / 2;

	dirty_write_page(&clip->env, 1);
	dirty_write_page(&clip->env, 2 * clip->block - 1);
	EXPECT_CLIPPED(dirty_harvest(&clip->env, query_part(half, clip->block)));
	EXPECT_NOTHING_LOST();
}

/* The query clears the leaf that it covers, but not the one that it cuts. */
TEST_F(dirty_clip_two, whole_leaf_and_part)
{
	struct clip *clip = &self->clip;
	u64 half = clip->block / 2;

	dirty_write_page(&clip->env, half);
	dirty_write_page(&clip->env, clip->block + half);
	EXPECT_CLIPPED(dirty_harvest(&clip->env, query_part(0, clip->block + half)));
	EXPECT_CLIPPED(dirty_harvest(&clip->env, query_part(0, clip->block)));
	EXPECT_NOTHING_LOST();

	dirty_write_page(&clip->env, half);
	dirty_write_page(&clip->env, clip->block + half);
	EXPECT_CLIPPED(dirty_harvest(&clip->env, query_part(half, clip->block + half)));
	EXPECT_NOTHING_LOST();
}

TEST_F(dirty_clip, page_by_page)
{
	struct clip *clip = &self->clip;
	u64 nr = clip->block;
	u64 step = max_t(u64, 1, nr / 512);

	dirty_write_page(&clip->env, 7 * nr / 8);
	for (u64 page = 0; page < nr; page += step)
		EXPECT_CLIPPED(dirty_harvest(&clip->env, query_part(page, 1)));
	EXPECT_CLIPPED(dirty_harvest(&clip->env, query_part(nr - 1, 1)));
	EXPECT_NOTHING_LOST();
}

/* Lengths that use only part of the last byte of the bitmap. */
TEST_F(dirty_clip, odd_lengths)
{
	static const u64 lengths[] = { 1, 2, 3, 5, 7, 8, 9, 13, 63, 64, 65, 127 };
	struct clip *clip = &self->clip;
	u64 nr = clip->env.written.nr;

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		u64 first = dirty_random(&clip->env.seed) % (nr - lengths[i]);

		/* At the ends of the query, inside it and just outside. */
		dirty_write_page(&clip->env, first);
		dirty_write_page(&clip->env, first + lengths[i] / 2);
		dirty_write_page(&clip->env, first + lengths[i] - 1);
		dirty_write_page(&clip->env, first + lengths[i]);
		EXPECT_CLIPPED(dirty_harvest(&clip->env, query_part(first, lengths[i])));
	}
	EXPECT_NOTHING_LOST();
}

/* Units of more than a page, in queries that cut leaves. */
TEST_F(dirty_clip, units)
{
	static const u64 units[] = { SZ_8K, SZ_64K, SZ_512K };
	struct clip *clip = &self->clip;

	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		struct dirty_query query = query_part(clip->block / 2,
						      clip->block / 4);

		query.unit = units[i];
		dirty_write_page(&clip->env, clip->block / 2 + i);
		EXPECT_CLIPPED(dirty_harvest(&clip->env, query));
		EXPECT_NOTHING_LOST();
	}
}

/* Writes and queries at random, against a model of what is dirty. */
TEST_F(dirty_clip, random)
{
	struct clip *clip = &self->clip;
	u64 nr = clip->env.area.nr_pages;

	for (int round = 0; round < 200; round++) {
		struct dirty_query query;
		u64 first = dirty_random(&clip->env.seed) % nr;

		for (u64 i = dirty_random(&clip->env.seed) % 4; i; i--)
			dirty_write_page(&clip->env, dirty_random(&clip->env.seed) % nr);

		query = query_part(first, 1 + dirty_random(&clip->env.seed) % (nr - first));
		/* Some with both ends on a leaf's boundary, so that some clear. */
		if (round % 3 == 0) {
			query.first = 0;
			query.nr = clip->block * (1 + first / clip->block);
		}
		if (round % 5 == 0)
			query.flags = IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR;
		query.offset = dirty_random(&clip->env.seed) % PAGE_4K;
		EXPECT_CLIPPED(dirty_harvest(&clip->env, query));
	}
	EXPECT_NOTHING_LOST();
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
