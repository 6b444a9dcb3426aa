// SPDX-License-Identifier: GPL-2.0
/*
 * The flush after a clear, and the one after a switch.
 *
 * Hardware sets D when it walks; a write through a translation that is cached as
 * dirty does not walk. If a driver clears D without flushing that translation, the
 * next write leaves no trace. So each test here writes a page twice, with a clear in
 * between, and expects it twice. A driver that skips one flush, or flushes too
 * little, fails.
 */
#include "lib/harness.h"

static const char *device_bdf;

FIXTURE(dirty_flush) {
	struct dirty_env env;
};

FIXTURE_VARIANT(dirty_flush) {
	u64 leaf;
};

FIXTURE_VARIANT_ADD(dirty_flush, leaf_4k) { .leaf = SZ_4K, };
FIXTURE_VARIANT_ADD(dirty_flush, leaf_2m) { .leaf = SZ_2M, };
FIXTURE_VARIANT_ADD(dirty_flush, leaf_1g) { .leaf = SZ_1G, };

FIXTURE_SETUP(dirty_flush)
{
	const char *skip = dirty_env_open(&self->env, device_bdf, variant->leaf);

	if (skip)
		SKIP(return, "%s", skip);

	hwpt_set_dirty(&self->env, self->env.hwpt, true);
}

FIXTURE_TEARDOWN(dirty_flush)
{
	dirty_env_close(&self->env);
}

static struct dirty_report ask_all(struct dirty_env *env)
{
	return dirty_harvest(env, query_all(&env->area));
}

TEST_F(dirty_flush, one_page)
{
	static const u64 pages[] = { 0, 1, 17, 255, 511, 512, 1023 };
	struct dirty_env *env = &self->env;

	for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
		for (int round = 0; round < 4; round++) {
			dirty_write_page(env, pages[i]);
			EXPECT_EXACT(ask_all(env));
		}
	}
}

/* Many pages of one query are one gather: its range must include them all. */
TEST_F(dirty_flush, many_pages)
{
	struct dirty_env *env = &self->env;
	u64 pages[128];

	for (size_t i = 0; i < ARRAY_SIZE(pages); i++)
		pages[i] = dirty_random(&env->seed) % env->written.nr;

	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < ARRAY_SIZE(pages); i++)
			dirty_write_page(env, pages[i]);
		EXPECT_EXACT(ask_all(env));
	}
}

/* The first and the last page: the flushed range is the whole area. */
TEST_F(dirty_flush, both_ends)
{
	struct dirty_env *env = &self->env;

	for (int round = 0; round < 4; round++) {
		dirty_write_page(env, 0);
		dirty_write_page(env, env->written.nr - 1);
		EXPECT_EXACT(ask_all(env));
	}
}

/* A run that is neither a power of two nor aligned, as flush commands require. */
TEST_F(dirty_flush, unaligned_run)
{
	struct dirty_env *env = &self->env;

	for (int round = 0; round < 3; round++) {
		for (u64 page = 253; page < 253 + 23; page++)
			dirty_write_page(env, page);
		EXPECT_EXACT(ask_all(env));
	}
}

/* Two areas far from each other, queried and flushed separately. */
TEST_F(dirty_flush, two_areas)
{
	struct dirty_env *env = &self->env;
	struct dirty_area far = {};
	struct page_set far_written;

	ASSERT_EQ(NULL, dirty_area_map(env, &far, PAGE_4K, PAGE_4K));
	far_written = page_set_alloc(&far);
	page_set_add(&far_written, 0);

	for (int round = 0; round < 4; round++) {
		dirty_write_page(env, 9);
		dirty_write(&env->dev, &far, 0);
		EXPECT_EXACT(ask_all(env));
		EXPECT_EXACT(dirty_query(env, env->hwpt, &far,
					 query_all(&far), &far_written));
	}

	page_set_free(&far_written);
	dirty_area_unmap(env, &far);
}

/* The translation was cached by a read, which leaves D clear. */
TEST_F(dirty_flush, read_then_write)
{
	struct dirty_env *env = &self->env;

	for (int round = 0; round < 4; round++) {
		u64 page = dirty_random(&env->seed) % env->written.nr;

		dirty_read(&env->dev, &env->area, page);
		EXPECT_EXACT(ask_all(env));
		dirty_read(&env->dev, &env->area, page);
		dirty_write_page(env, page);
		EXPECT_EXACT(ask_all(env));

		/* Cached again, by a read after the flush. */
		dirty_read(&env->dev, &env->area, page);
		dirty_write_page(env, page);
		dirty_read(&env->dev, &env->area, page);
		EXPECT_EXACT(ask_all(env));
	}
}

/* A query with NO_CLEAR clears and flushes nothing; the one after it does both. */
TEST_F(dirty_flush, look_then_clear)
{
	struct dirty_env *env = &self->env;
	struct dirty_query look = query_all(&env->area);

	look.flags = IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR;
	for (int round = 0; round < 4; round++) {
		dirty_write_page(env, 33);
		EXPECT_EXACT(dirty_harvest(env, look));
		dirty_write_page(env, 33);
		EXPECT_EXACT(ask_all(env));
	}
}

/* Enabling clears: that clear needs its flush as well. */
TEST_F(dirty_flush, enable_flushes)
{
	struct dirty_env *env = &self->env;

	for (int round = 0; round < 4; round++) {
		dirty_write_page(env, 40);
		hwpt_set_dirty(env, env->hwpt, round % 2);
		hwpt_set_dirty(env, env->hwpt, true);
		page_set_clear(&env->written);
		EXPECT_EXACT(ask_all(env));

		dirty_write_page(env, 40);
		EXPECT_EXACT(ask_all(env));
	}
}

/* Queried block by block: each query flushes what it has cleared. */
TEST_F(dirty_flush, block_by_block)
{
	struct dirty_env *env = &self->env;
	u64 block = max_t(u64, variant->leaf, SZ_2M) / PAGE_4K;
	u64 nr = env->written.nr;

	for (int round = 0; round < 3; round++) {
		for (u64 page = 5; page < nr; page += block) {
			dirty_write_page(env, page);
			dirty_write_page(env, page + block - 6);
		}
		for (u64 first = 0; first < nr; first += block)
			EXPECT_EXACT(dirty_harvest(env, query_part(first, block)));
	}
}

/* Other memory at the same address: no write may reach the old memory. */
TEST_F(dirty_flush, unmap_flushes)
{
	struct dirty_env *env = &self->env;

	for (int round = 0; round < 4; round++) {
		/* dirty_write() finds each stamp in the memory that is mapped now. */
		dirty_write_page(env, 21);
		dirty_area_remap(env, &env->area);
		page_set_clear(&env->written);
		EXPECT_EXACT(ask_all(env));

		dirty_write_page(env, 21);
		EXPECT_EXACT(ask_all(env));
	}
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
