// SPDX-License-Identifier: GPL-2.0
/*
 * For each leaf size: the bitmap reports exactly what the device writes.
 *
 * The device reads only its own stamps and the pages named here, so any other
 * report is wrong.
 */
#include "lib/harness.h"

#define NR_WRITES 96

static const char *device_bdf;

FIXTURE(dirty_sizes) {
	struct dirty_env env;
};

FIXTURE_VARIANT(dirty_sizes) {
	u64 leaf;
};

FIXTURE_VARIANT_ADD(dirty_sizes, leaf_4k) { .leaf = SZ_4K, };
FIXTURE_VARIANT_ADD(dirty_sizes, leaf_2m) { .leaf = SZ_2M, };
FIXTURE_VARIANT_ADD(dirty_sizes, leaf_1g) { .leaf = SZ_1G, };

FIXTURE_SETUP(dirty_sizes)
{
	const char *skip = dirty_env_open(&self->env, device_bdf, variant->leaf);

	if (skip)
		SKIP(return, "%s", skip);

	hwpt_set_dirty(&self->env, self->env.hwpt, true);
}

FIXTURE_TEARDOWN(dirty_sizes)
{
	dirty_env_close(&self->env);
}

static struct dirty_report ask(struct dirty_env *env, u32 flags)
{
	struct dirty_query query = query_all(&env->area);

	query.flags = flags;
	return dirty_harvest(env, query);
}

/* Starts clean: mapping, attaching and the rings' traffic set no dirty bits. */
TEST_F(dirty_sizes, nothing_written)
{
	EXPECT_EXACT(ask(&self->env, 0));
}

TEST_F(dirty_sizes, random_pages)
{
	struct dirty_env *env = &self->env;

	dirty_write_random(env, NR_WRITES);
	EXPECT_EXACT(ask(env, 0));

	/* What was reported is clean. */
	EXPECT_EXACT(ask(env, 0));
}

/* One page at a time, so that each leaf but one is clean. */
TEST_F(dirty_sizes, single_pages)
{
	struct dirty_env *env = &self->env;

	for (int i = 0; i < 16; i++) {
		dirty_write_random(env, 1);
		EXPECT_EXACT(ask(env, 0));
	}
}

TEST_F(dirty_sizes, first_and_last_of_leaves)
{
	struct dirty_env *env = &self->env;
	u64 pages = variant->leaf / PAGE_4K;
	u64 nr = env->area.nr_pages;

	/* Every other leaf, up to a limit that keeps the test short. */
	for (u64 page = 0; page < nr; page += 2 * max_t(u64, pages, nr / 64)) {
		dirty_write_page(env, page);
		dirty_write_page(env, page + pages - 1);
	}
	EXPECT_EXACT(ask(env, 0));
}

/* The first and the last entry of a table, each alone. */
TEST_F(dirty_sizes, ends_of_tables)
{
	u64 entries = 512;
	u64 pages[] = { 0, entries - 1, entries, self->env.area.nr_pages - 1 };

	for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
		dirty_write_page(&self->env, pages[i]);
		EXPECT_EXACT(ask(&self->env, 0));
		EXPECT_EXACT(ask(&self->env, 0));
	}
}

TEST_F(dirty_sizes, no_clear_reports_again)
{
	struct dirty_env *env = &self->env;

	dirty_write_random(env, NR_WRITES / 2);

	EXPECT_EXACT(ask(env, IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR));
	EXPECT_EXACT(ask(env, IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR));

	/* More writes between two queries with NO_CLEAR: both are reported. */
	dirty_write_random(env, NR_WRITES / 2);
	EXPECT_EXACT(ask(env, IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR));
	EXPECT_EXACT(ask(env, 0));

	EXPECT_EXACT(ask(env, IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR));
	EXPECT_EXACT(ask(env, 0));
}

/* A read sets A at every level; neither A nor a later query may become D. */
TEST_F(dirty_sizes, reads_stay_clean)
{
	struct dirty_env *env = &self->env;

	for (int i = 0; i < NR_WRITES; i++)
		dirty_read(&env->dev, &env->area,
			   dirty_random(&env->seed) % env->written.nr);
	EXPECT_EXACT(ask(env, 0));

	/* And a page that was only read does not hide one that was written. */
	dirty_write_random(env, 4);
	EXPECT_EXACT(ask(env, 0));
}

/* The page that the device reads its stamps from is writable, and is clean. */
TEST_F(dirty_sizes, source_stays_clean)
{
	struct dirty_env *env = &self->env;
	struct dirty_area local = {
		.region = env->dev.local,
		.leaf = PAGE_4K,
		.nr_pages = 2,
	};
	struct page_set none = page_set_alloc(&local);

	dirty_write_random(env, 8);
	EXPECT_EXACT(dirty_query(env, env->hwpt, &local,
				 query_part(0, 1), &none));
	EXPECT_EXACT(ask(env, 0));
	page_set_free(&none);
}

TEST_F(dirty_sizes, units)
{
	static const u64 units[] = { SZ_4K, SZ_8K, SZ_64K, SZ_2M };
	struct dirty_env *env = &self->env;
	struct dirty_area *area = &env->area;

	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		struct dirty_query query = query_all(area);

		query.unit = units[i];
		page_set_clear(&env->written);
		dirty_write_random(env, 8);
		EXPECT_EXACT(dirty_query(env, env->hwpt, area, query,
					 &env->written));

		page_set_clear(&env->written);
		EXPECT_EXACT(dirty_query(env, env->hwpt, area, query,
					 &env->written));
	}
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
