// SPDX-License-Identifier: GPL-2.0
/*
 * A harvest during another thread's map or unmap: in the same page table, which grows at
 * the same time, and in another page table of the same unit, whose commands go through
 * the same queue.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/harness.h"
#include "lib/leaves.h"

static char **device_bdfs;
static int nr_devices;

/*
 * Beyond the range of three, four and five levels of tables with 512 entries: a tree that
 * begins with only the levels that its memory needs has to grow.
 */
static const u64 far_iovas[] = { 1ULL << 39, 1ULL << 48, 1ULL << 57 };

#define NR_FAR ARRAY_SIZE(far_iovas)

FIXTURE(dirty_grow) {
	struct dirty_env env;
	struct dirty_area far[NR_FAR];
	int nr_far;
	atomic_bool done;
};

FIXTURE_SETUP(dirty_grow)
{
	const char *skip = dirty_env_open(&self->env, device_bdfs[0], PAGE_4K);

	if (skip)
		SKIP(return, "%s", skip);

	for (size_t i = 0; i < NR_FAR; i++) {
		if (!leaves_may_be_at(&self->env, far_iovas[i], SZ_2M))
			continue;
		leaves_place(&self->far[self->nr_far++], leaves_alloc(PAGE_4K, PAGE_4K),
			     far_iovas[i], PAGE_4K, PAGE_4K);
	}
	if (!self->nr_far)
		SKIP(return, "this unit has no addresses at 512 GiB");
}

FIXTURE_TEARDOWN(dirty_grow)
{
	for (int i = 0; i < self->nr_far; i++)
		munmap(self->far[i].region.vaddr, PAGE_4K);
	dirty_env_close(&self->env);
}

static void *map_far(void *data)
{
	FIXTURE_DATA(dirty_grow) *self = data;

	for (int i = 0; i < self->nr_far; i++)
		leaves_map(&self->env, &self->far[i]);
	atomic_store(&self->done, true);

	return NULL;
}

/*
 * Each round has a new, small page table. While it grows, each page that the device
 * writes in the low range is reported once; then the device writes in the high range,
 * too.
 */
TEST_F(dirty_grow, harvest_low)
{
	struct dirty_env *env = &self->env;

	for (int round = 0; round < 12; round++) {
		u32 hwpt = hwpt_alloc(env, IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
		int beside = 0;
		pthread_t thread;

		hwpt_set_dirty(env, hwpt, true);
		device_attach(&env->dev, hwpt);
		/*
		 * The unit caches the translation and its walk while the tree is small.
		 */
		dirty_write_page(env, 3);
		EXPECT_EXACT(dirty_ask(env, hwpt, &env->written));

		atomic_store(&self->done, false);
		ASSERT_EQ(0, pthread_create(&thread, NULL, map_far, self));
		for (bool last = false; !last; beside++) {
			last = atomic_load(&self->done);
			page_set_clear(&env->written);
			dirty_write_page(env, 3);
			dirty_write_random(env, 1);
			EXPECT_EXACT(dirty_ask(env, hwpt, &env->written));
		}
		ASSERT_EQ(0, pthread_join(thread, NULL));
		EXPECT_LT(0, beside);

		for (int i = 0; i < self->nr_far; i++) {
			struct dirty_area *far = &self->far[i];
			struct page_set set = page_set_alloc(far);

			EXPECT_EXACT(dirty_query(env, hwpt, far, query_all(far), &set));
			dirty_write(&env->dev, far, 0);
			page_set_add(&set, 0);
			EXPECT_EXACT(dirty_query(env, hwpt, far, query_all(far), &set));
			page_set_free(&set);
		}
		EXPECT_EXACT(dirty_ask(env, hwpt, &env->none));

		for (int i = 0; i < self->nr_far; i++)
			leaves_unmap(env, &self->far[i]);
		page_set_clear(&env->written);
		device_attach(&env->dev, env->hwpt);
		iommufd_destroy(env, hwpt);
	}
}

FIXTURE(dirty_unmap_beside) {
	/* Each has its own device and IOAS; one unit translates for both. */
	struct dirty_env env[2];
	atomic_bool stop;
	atomic_int rounds;
};

FIXTURE_SETUP(dirty_unmap_beside)
{
	const char *skip;

	if (nr_devices < 2)
		SKIP(return, "needs two devices on the command line");

	for (int i = 0; i < 2; i++) {
		skip = dirty_env_open(&self->env[i], device_bdfs[i], PAGE_4K);
		if (skip)
			SKIP(return, "%s", skip);
		hwpt_set_dirty(&self->env[i], self->env[i].hwpt, true);
	}
}

FIXTURE_TEARDOWN(dirty_unmap_beside)
{
	for (int i = 0; i < 2; i++)
		dirty_env_close(&self->env[i]);
}

/* dirty_write() looks for its stamp in the memory that is mapped now. */
static void *replace_memory(void *data)
{
	FIXTURE_DATA(dirty_unmap_beside) *self = data;
	struct dirty_env *env = &self->env[1];

	while (!atomic_load(&self->stop)) {
		dirty_write(&env->dev, &env->area, 21);
		dirty_area_remap(env, &env->area);
		dirty_write(&env->dev, &env->area, 21);
		atomic_fetch_add(&self->rounds, 1);
	}

	return NULL;
}

/*
 * A page is written through a translation that was cached before the answer: it is
 * reported only if the harvest waited for its flush. At the same time memory is replaced
 * in the other page table: a write reaches the new memory only if the unmap waited for
 * its own flush.
 */
TEST_F(dirty_unmap_beside, each_waits_for_its_flush)
{
	struct dirty_env *env = &self->env[0];
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, replace_memory, self));
	for (int round = 0; round < 200 || atomic_load(&self->rounds) < 5; round++) {
		dirty_write_page(env, 9);
		EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));
	}
	atomic_store(&self->stop, true);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_LT(0, atomic_load(&self->rounds));
}

int main(int argc, char *argv[])
{
	device_bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_devices);

	return test_harness_run(argc, argv);
}
