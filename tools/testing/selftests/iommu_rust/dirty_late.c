// SPDX-License-Identifier: GPL-2.0
/*
 * A unit that answers late, but within the bound: all callers wait for it, nothing is
 * lost, and later answers are correct.
 */
#include <pthread.h>
#include <time.h>

#include "lib/harness.h"
#include "lib/stall.h"

/* Well below the bound after which any driver treats a unit as dead. */
#define LATE_MS 30

static char **device_bdfs;
static int nr_devices;

FIXTURE(dirty_late) {
	struct dirty_env env;
	/* Another device, in another IOAS. */
	struct dirty_env other;
	struct stall *stall;
};

FIXTURE_SETUP(dirty_late)
{
	const char *skip;

	if (nr_devices < 2)
		SKIP(return, "needs two devices on the command line");
	self->stall = stall_open();
	if (!self->stall)
		SKIP(return, "this machine's unit cannot be stopped");

	skip = dirty_env_open(&self->env, device_bdfs[0], PAGE_4K);
	if (!skip)
		skip = dirty_env_open(&self->other, device_bdfs[1], PAGE_4K);
	if (skip)
		SKIP(return, "%s", skip);
	hwpt_set_dirty(&self->env, self->env.hwpt, true);
}

FIXTURE_TEARDOWN(dirty_late)
{
	if (self->other.iommu)
		dirty_env_close(&self->other);
	if (self->env.iommu)
		dirty_env_close(&self->env);
	if (self->stall)
		stall_close(self->stall);
}

static u64 now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

/* The call that runs while the unit is late, and has to wait for it. */
#define LATE(_stall, _what) do {						\
	struct stall *__stall = (_stall);					\
	u64 __held = stall_held(__stall);					\
	u64 __begun = now_ms();							\
										\
	stall_delay(__stall, LATE_MS);						\
	_what;									\
	EXPECT_LE(LATE_MS - 1, now_ms() - __begun);				\
	EXPECT_LT(__held, stall_held(__stall));					\
} while (0)

TEST_F(dirty_late, harvest)
{
	struct dirty_env *env = &self->env;

	for (int round = 0; round < 4; round++) {
		dirty_write_page(env, 3);
		dirty_write_random(env, 4);
		LATE(self->stall, EXPECT_EXACT(dirty_harvest(env, query_all(&env->area))));
		/* Still cached as dirty, unless the flush is done. */
		dirty_write_page(env, 3);
		EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
		EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
	}
}

TEST_F(dirty_late, unmap)
{
	struct dirty_env *env = &self->env;

	for (int round = 0; round < 4; round++) {
		dirty_write_page(env, 3);
		LATE(self->stall, dirty_area_remap(env, &env->area));
		page_set_clear(&env->written);
		/*
		 * dirty_write() looks for its stamp in the memory that is mapped now.
		 */
		dirty_write_page(env, 3);
		EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
	}
}

TEST_F(dirty_late, attach)
{
	struct dirty_env *env = &self->env;
	u32 other = hwpt_alloc(env, IOMMU_HWPT_ALLOC_DIRTY_TRACKING);

	hwpt_set_dirty(env, other, true);
	for (int round = 0; round < 3; round++) {
		dirty_write_page(env, 3);
		LATE(self->stall, device_attach(&env->dev, other));
		EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
		page_set_add(&env->written, 3);
		dirty_write(&env->dev, &env->area, 3);
		EXPECT_EXACT(dirty_ask(env, other, &env->written));
		page_set_clear(&env->written);
		LATE(self->stall, device_attach(&env->dev, env->hwpt));
		EXPECT_EXACT(dirty_ask(env, other, &env->none));
	}
	iommufd_destroy(env, other);
}

TEST_F(dirty_late, detach)
{
	struct dirty_env *env = &self->env;

	for (int round = 0; round < 3; round++) {
		dirty_write_page(env, 3);
		LATE(self->stall, device_detach(&env->dev));
		EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
		device_attach(&env->dev, env->hwpt);
		dirty_write_page(env, 3);
		EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
	}
}

/**
 * struct unmapping - A thread that replaces memory
 * @env: where
 * @begun: when it began, in milliseconds
 * @ended: when it had
 */
struct unmapping {
	struct dirty_env *env;
	u64 begun;
	u64 ended;
};

static void *unmap(void *data)
{
	struct unmapping *u = data;

	u->begun = now_ms();
	dirty_area_remap(u->env, &u->env->area);
	u->ended = now_ms();

	return NULL;
}

/* A harvest of one page table and an unmap in another one: each waits for its flush. */
TEST_F(dirty_late, harvest_beside_unmap)
{
	struct dirty_env *env = &self->env, *other = &self->other;

	for (int round = 0; round < 6; round++) {
		struct unmapping u = { .env = other };
		pthread_t thread;
		u64 begun;

		dirty_write_page(env, 3);
		dirty_write(&other->dev, &other->area, 5);

		begun = now_ms();
		stall_delay(self->stall, LATE_MS);
		ASSERT_EQ(0, pthread_create(&thread, NULL, unmap, &u));
		EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
		EXPECT_LE(LATE_MS - 1, now_ms() - begun);
		ASSERT_EQ(0, pthread_join(thread, NULL));
		/* Unless it began after the harvest had ended. */
		if (u.begun < begun + LATE_MS)
			EXPECT_LE(LATE_MS - 1, u.ended - begun);

		dirty_write(&other->dev, &other->area, 5);
		dirty_write_page(env, 3);
		EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
	}
}

int main(int argc, char *argv[])
{
	device_bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_devices);

	return test_harness_run(argc, argv);
}
