// SPDX-License-Identifier: GPL-2.0
/*
 * Tracking is switched on and off at the same time, where all leaves are split when it begins and
 * joined when it ends: in the end both agree.
 */
#include <pthread.h>
#include <string.h>

#include "lib/harness.h"
#include "lib/observe.h"
#include "lib/split.h"

#define ROUNDS 30

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
 * @on: what it switches to
 * @error: whether that failed
 */
struct switching {
	struct dirty_env *env;
	pthread_barrier_t *begin;
	bool on;
	int error;
};

static void *switch_once(void *data)
{
	struct switching *switching = data;
	struct dirty_env *env = switching->env;

	pthread_barrier_wait(switching->begin);
	switching->error = __hwpt_set_dirty(env->iommu->iommufd, env->hwpt,
					    switching->on ? IOMMU_HWPT_DIRTY_TRACKING_ENABLE : 0);

	return NULL;
}

static bool is_on(u64 domain)
{
	return strstr(observe_read("domains/%lu/state", domain), "tracking: on\n");
}

/* If tracking is on in the end, leaves are split; if it is off, all are whole. */
TEST_F(dirty_split_switched, at_once)
{
	struct dirty_env *env = &self->env;
	u64 domain = self->domain;
	pthread_barrier_t begin;
	int ended_on = 0;
	u64 whole;

	whole = observe_leaves(domain, variant->name);
	EXPECT_LT(0, whole);
	ASSERT_EQ(0, pthread_barrier_init(&begin, NULL, 2));
	for (int round = 0; round < ROUNDS; round++) {
		struct switching on = { env, &begin, true }, off = { env, &begin, false };
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
	pthread_barrier_destroy(&begin);
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
