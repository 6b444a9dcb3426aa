// SPDX-License-Identifier: GPL-2.0
/*
 * Tracking is switched on and off at the same time, where all leaves are split when it begins and
 * joined when it ends: in the end both agree.
 */
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "lib/harness.h"
#include "lib/observe.h"
#include "lib/split.h"

#define ROUNDS 30

/* At least, since the threads do not begin at the same moment. */
#define WAIT_NS 1000000ULL

static const char *device_bdf;

FIXTURE(dirty_split_switched) {
	struct dirty_env env;
	u64 loaded;
	u64 domain;
};

FIXTURE_VARIANT(dirty_split_switched) {
	u64 leaf;
	const char *name;
};

FIXTURE_VARIANT_ADD(dirty_split_switched, leaf_2m) { .leaf = SZ_2M, .name = "2 MiB", };
FIXTURE_VARIANT_ADD(dirty_split_switched, leaf_1g) { .leaf = SZ_1G, .name = "1 GiB", };

FIXTURE_SETUP(dirty_split_switched)
{
	const char *skip;

	if (!observe_driver())
		SKIP(return, "no Rust driver is loaded");
	self->loaded = split_parameter();
	split_choose(PAGE_4K);
	skip = dirty_env_open(&self->env, device_bdf, variant->leaf);
	split_choose(self->loaded);
	if (skip)
		SKIP(return, "%s", skip);
	self->domain = observe_last_domain();
}

FIXTURE_TEARDOWN(dirty_split_switched)
{
	dirty_env_close(&self->env);
}

/**
 * struct switching - One of two threads
 * @env: the environment
 * @begin: both wait here
 * @delay: and for so many nanoseconds after that
 * @on: what it switches to
 * @error: whether that failed
 */
struct switching {
	struct dirty_env *env;
	pthread_barrier_t *begin;
	u64 delay;
	bool on;
	int error;
};

static u64 now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static void *switch_once(void *data)
{
	struct switching *switching = data;
	struct dirty_env *env = switching->env;
	u64 end;

	pthread_barrier_wait(switching->begin);
	for (end = now() + switching->delay; now() < end;)
		;
	switching->error = __hwpt_set_dirty(env->iommu->iommufd, env->hwpt,
					    switching->on ? IOMMU_HWPT_DIRTY_TRACKING_ENABLE : 0);

	return NULL;
}

static bool is_on(u64 domain)
{
	return strstr(observe_read("domains/%lu/state", domain), "tracking: on\n");
}

/*
 * If tracking is on in the end, leaves are split; if it is off, all are whole. Each thread waits
 * for about the time at most that it takes to switch tracking on, so that either may be the first,
 * and the other often comes while that one is at work.
 */
TEST_F(dirty_split_switched, at_once)
{
	struct dirty_env *env = &self->env;
	u64 domain = self->domain;
	pthread_barrier_t begin;
	int ended_on = 0;
	u64 whole, most;

	whole = observe_leaves(domain, variant->name);
	EXPECT_LT(0, whole);
	most = now();
	hwpt_set_dirty(env, env->hwpt, true);
	most = now() - most + WAIT_NS;
	EXPECT_EQ(0, observe_leaves(domain, variant->name));
	hwpt_set_dirty(env, env->hwpt, false);
	EXPECT_EQ(whole, observe_leaves(domain, variant->name));

	TH_LOG("waits of up to %lu us, seed %lu", most / 1000, env->seed);
	ASSERT_EQ(0, pthread_barrier_init(&begin, NULL, 2));
	for (int round = 0; round < ROUNDS; round++) {
		struct switching on = { env, &begin, dirty_random(&env->seed) % most, true };
		struct switching off = { env, &begin, dirty_random(&env->seed) % most, false };
		pthread_t thread;

		ASSERT_EQ(0, pthread_create(&thread, NULL, switch_once, &on));
		switch_once(&off);
		ASSERT_EQ(0, pthread_join(thread, NULL));
		EXPECT_EQ(0, on.error);
		EXPECT_EQ(0, off.error);

		ended_on += is_on(domain);
		EXPECT_EQ(is_on(domain) ? 0 : whole, observe_leaves(domain, variant->name));

		hwpt_set_dirty(env, env->hwpt, false);
		EXPECT_EQ(whole, observe_leaves(domain, variant->name));
	}
	TH_LOG("%d of %d rounds ended with tracking on", ended_on, ROUNDS);
	EXPECT_LT(0, ended_on);
	EXPECT_GT(ROUNDS, ended_on);
	pthread_barrier_destroy(&begin);
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
