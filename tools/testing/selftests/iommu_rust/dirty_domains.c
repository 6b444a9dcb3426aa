// SPDX-License-Identifier: GPL-2.0
/*
 * Page tables, devices and mappings change while tracking is on: each page table
 * reports what was written through it, and nothing stale.
 */
#include "lib/harness.h"

static const char *device_bdf;

FIXTURE(dirty_domains) {
	struct dirty_env env;
	struct page_set other;
};

FIXTURE_VARIANT(dirty_domains) {
	u64 leaf;
};

FIXTURE_VARIANT_ADD(dirty_domains, leaf_4k) { .leaf = SZ_4K, };
FIXTURE_VARIANT_ADD(dirty_domains, leaf_2m) { .leaf = SZ_2M, };

FIXTURE_SETUP(dirty_domains)
{
	const char *skip = dirty_env_open(&self->env, device_bdf, variant->leaf);

	if (skip)
		SKIP(return, "%s", skip);

	self->other = page_set_alloc(&self->env.area);
}

FIXTURE_TEARDOWN(dirty_domains)
{
	page_set_free(&self->other);
	dirty_env_close(&self->env);
}

static void write_random(struct dirty_env *env, struct page_set *set, int nr)
{
	dirty_write_random_by(env, &env->dev, set, nr);
}

static u32 alloc_tracking(struct dirty_env *env)
{
	u32 hwpt = hwpt_alloc(env, IOMMU_HWPT_ALLOC_DIRTY_TRACKING);

	hwpt_set_dirty(env, hwpt, true);
	return hwpt;
}

/* Tracking was on before there was a device: it is on for the device, too. */
TEST_F(dirty_domains, attach_while_on)
{
	struct dirty_env *env = &self->env;
	u32 hwpt = alloc_tracking(env);

	write_random(env, &self->other, 8);
	device_attach(&env->dev, hwpt);
	EXPECT_EXACT(dirty_ask(env, hwpt, &env->none));

	write_random(env, &env->written, 8);
	EXPECT_EXACT(dirty_ask(env, hwpt, &env->written));
	write_random(env, &env->written, 8);
	hwpt_set_dirty(env, hwpt, false);
	hwpt_set_dirty(env, hwpt, true);
	EXPECT_EXACT(dirty_ask(env, hwpt, &env->none));

	device_attach(&env->dev, env->hwpt);
	iommufd_destroy(env, hwpt);
}

/* Detached and attached to the same page table again, with unreported dirty pages. */
TEST_F(dirty_domains, attach_again)
{
	struct dirty_env *env = &self->env;
	u32 hwpt = env->hwpt;

	hwpt_set_dirty(env, hwpt, true);
	for (int round = 0; round < 4; round++) {
		page_set_clear(&env->written);
		write_random(env, &env->written, 4);
		device_detach(&env->dev);
		if (round % 2) {
			EXPECT_EXACT(dirty_ask(env, hwpt, &env->written));
			page_set_clear(&env->written);
		}
		device_attach(&env->dev, hwpt);
		write_random(env, &env->written, 4);
		EXPECT_EXACT(dirty_ask(env, hwpt, &env->written));
	}
}

/* Switched on while the device is detached. */
TEST_F(dirty_domains, enable_while_detached)
{
	struct dirty_env *env = &self->env;
	u32 hwpt = env->hwpt;

	write_random(env, &self->other, 4);
	device_detach(&env->dev);
	hwpt_set_dirty(env, hwpt, true);
	device_attach(&env->dev, hwpt);
	EXPECT_EXACT(dirty_ask(env, hwpt, &env->none));

	write_random(env, &env->written, 4);
	EXPECT_EXACT(dirty_ask(env, hwpt, &env->written));
}

/* One IOAS, two page tables: a write is dirty only in the one that translated it. */
TEST_F(dirty_domains, two_page_tables)
{
	struct dirty_env *env = &self->env;
	u32 one = env->hwpt;
	u32 two = alloc_tracking(env);

	hwpt_set_dirty(env, one, true);
	for (int round = 0; round < 4; round++) {
		device_attach(&env->dev, one);
		write_random(env, &env->written, 4);
		device_attach(&env->dev, two);
		write_random(env, &self->other, 4);
	}

	EXPECT_EXACT(dirty_ask(env, one, &env->written));
	EXPECT_EXACT(dirty_ask(env, two, &self->other));
	EXPECT_EXACT(dirty_ask(env, one, &env->none));
	EXPECT_EXACT(dirty_ask(env, two, &env->none));

	/*
	 * The same pages again, through both page tables, whether or not the other has
	 * them cached.
	 */
	device_attach(&env->dev, one);
	dirty_write(&env->dev, &env->area, 0);
	device_attach(&env->dev, two);
	EXPECT_EXACT(dirty_ask(env, two, &env->none));
	dirty_write(&env->dev, &env->area, 0);
	page_set_clear(&env->written);
	page_set_add(&env->written, 0);
	EXPECT_EXACT(dirty_ask(env, one, &env->written));
	EXPECT_EXACT(dirty_ask(env, two, &env->written));

	device_attach(&env->dev, one);
	iommufd_destroy(env, two);
}

/* Through a page table that cannot track: its writes are not reported. */
TEST_F(dirty_domains, by_way_of_untracked)
{
	struct dirty_env *env = &self->env;
	u32 plain = hwpt_alloc(env, 0);
	u32 hwpt = env->hwpt;

	hwpt_set_dirty(env, hwpt, true);
	for (int round = 0; round < 3; round++) {
		page_set_clear(&env->written);
		write_random(env, &env->written, 4);
		device_attach(&env->dev, plain);
		write_random(env, &self->other, 4);
		device_attach(&env->dev, hwpt);
		EXPECT_EXACT(dirty_ask(env, hwpt, &env->written));
	}

	iommufd_destroy(env, plain);
}

/* Dirty bits end with the mapping: the next mapping at that address starts clean. */
TEST_F(dirty_domains, unmap_while_on)
{
	struct dirty_env *env = &self->env;
	u32 hwpt = env->hwpt;

	hwpt_set_dirty(env, hwpt, true);
	for (int round = 0; round < 4; round++) {
		page_set_clear(&env->written);
		write_random(env, &env->written, 8);
		if (round % 2)
			EXPECT_EXACT(dirty_ask(env, hwpt, &env->written));
		dirty_area_remap(env, &env->area);
		EXPECT_EXACT(dirty_ask(env, hwpt, &env->none));
	}

	page_set_clear(&env->written);
	write_random(env, &env->written, 8);
	EXPECT_EXACT(dirty_ask(env, hwpt, &env->written));
}

/* Mapped while tracking is on: tracked. Unmapped: the rest keeps its dirty bits. */
TEST_F(dirty_domains, map_while_on)
{
	struct dirty_env *env = &self->env;
	u32 hwpt = env->hwpt;

	hwpt_set_dirty(env, hwpt, true);
	for (int round = 0; round < 4; round++) {
		struct page_set fresh_written;
		struct dirty_area fresh = {};

		ASSERT_EQ(NULL, dirty_area_map(env, &fresh, PAGE_4K, PAGE_4K));
		fresh_written = page_set_alloc(&fresh);

		EXPECT_EXACT(dirty_query(env, hwpt, &fresh,
					 query_all(&fresh), &fresh_written));
		page_set_add(&fresh_written, 0);
		dirty_write(&env->dev, &fresh, 0);
		page_set_clear(&env->written);
		write_random(env, &env->written, 4);
		EXPECT_EXACT(dirty_query(env, hwpt, &fresh,
					 query_all(&fresh), &fresh_written));

		dirty_area_unmap(env, &fresh);
		page_set_free(&fresh_written);
		EXPECT_EXACT(dirty_ask(env, hwpt, &env->written));
	}
}

/* Many page tables in turn, each from fresh memory that may hold old entries. */
TEST_F(dirty_domains, fresh_page_tables)
{
	struct dirty_env *env = &self->env;

	for (int round = 0; round < 8; round++) {
		u32 hwpt = alloc_tracking(env);

		device_attach(&env->dev, hwpt);
		EXPECT_EXACT(dirty_ask(env, hwpt, &env->none));
		page_set_clear(&env->written);
		write_random(env, &env->written, 4);
		if (round % 2)
			EXPECT_EXACT(dirty_ask(env, hwpt, &env->written));

		device_attach(&env->dev, env->hwpt);
		iommufd_destroy(env, hwpt);
	}
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
