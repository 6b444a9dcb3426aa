// SPDX-License-Identifier: GPL-2.0
/*
 * Tracking on, off and on again: each start is clean, and each write while it
 * is on is reported.
 */
#include "lib/harness.h"

static const char *device_bdf;

FIXTURE(dirty_toggle) {
	struct dirty_env env;
};

FIXTURE_VARIANT(dirty_toggle) {
	u64 leaf;
};

FIXTURE_VARIANT_ADD(dirty_toggle, leaf_4k) { .leaf = SZ_4K, };
FIXTURE_VARIANT_ADD(dirty_toggle, leaf_2m) { .leaf = SZ_2M, };

FIXTURE_SETUP(dirty_toggle)
{
	const char *skip = dirty_env_open(&self->env, device_bdf, variant->leaf);

	if (skip)
		SKIP(return, "%s", skip);
}

FIXTURE_TEARDOWN(dirty_toggle)
{
	dirty_env_close(&self->env);
}

static void track(struct dirty_env *env, bool enable)
{
	hwpt_set_dirty(env, env->hwpt, enable);
}

TEST_F(dirty_toggle, enable_starts_clean)
{
	struct dirty_env *env = &self->env;

	dirty_write_random(env, 12);
	track(env, true);
	EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->none));

	page_set_clear(&env->written);
	dirty_write_random(env, 12);
	EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->written));
}

/*
 * The pages written before are the ones written after: a translation cached
 * while tracking was off must not hide them once it is on.
 */
TEST_F(dirty_toggle, same_pages_before_and_after)
{
	struct dirty_env *env = &self->env;
	u64 pages[8];

	for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
		pages[i] = page_set_add_random(&env->written, &env->seed);
		dirty_write(&env->dev, &env->area, pages[i]);
	}
	track(env, true);
	EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->none));

	for (size_t i = 0; i < ARRAY_SIZE(pages); i++)
		dirty_write(&env->dev, &env->area, pages[i]);
	EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->written));
}

/* Switched off after the last write: what was written is still reported. */
TEST_F(dirty_toggle, disable_keeps_what_was_written)
{
	struct dirty_env *env = &self->env;

	track(env, true);
	dirty_write_random(env, 12);
	track(env, false);
	EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->written));
	EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->none));
}

/* A second stage stops setting D; a first stage cannot stop, and still reports. */
TEST_F(dirty_toggle, writes_while_off)
{
	struct dirty_env *env = &self->env;
	struct dirty_query look = query_all(&env->area);
	struct page_set *expected = &env->none;

	track(env, true);
	dirty_write_random(env, 12);
	EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->written));

	track(env, false);
	page_set_clear(&env->written);
	dirty_write_random(env, 12);
	switch (dirty_switch(env)) {
	case DIRTY_SWITCHED:
		break;
	case DIRTY_LIVE:
		expected = &env->written;
		break;
	default:
		/* Either, but not something in between. */
		look.flags = IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR;
		if (!dirty_query(env, env->hwpt, &env->area,
				 look, &env->written).missing)
			expected = &env->written;
	}
	TH_LOG("while off, D is %s",
	       expected == &env->none ? "not set" : "live");
	EXPECT_EXACT(dirty_ask(env, env->hwpt, expected));
}

TEST_F(dirty_toggle, on_off_on)
{
	struct dirty_env *env = &self->env;

	for (int round = 0; round < 6; round++) {
		track(env, true);
		page_set_clear(&env->written);
		dirty_write_random(env, 4);
		EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->written));

		/* Left unreported; alternates between tracking on and off. */
		if (round % 2)
			dirty_write_random(env, 4);
		track(env, false);
		dirty_write_random(env, 4);
	}

	track(env, true);
	EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->none));
}

/* On again while on: the start is clean, and tracking goes on. */
TEST_F(dirty_toggle, on_while_on)
{
	struct dirty_env *env = &self->env;

	track(env, true);
	dirty_write_random(env, 8);
	EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->written));
	track(env, true);
	EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->none));

	page_set_clear(&env->written);
	dirty_write_random(env, 8);
	EXPECT_EXACT(dirty_ask(env, env->hwpt, &env->written));
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
