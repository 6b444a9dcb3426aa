// SPDX-License-Identifier: GPL-2.0
/*
 * An IOMMU that cannot track, or whose flags its driver cannot rely on: the driver
 * says so, refuses a page table with tracking, and does everything else.
 *
 * Fails where writes are tracked.
 */
#include <errno.h>

#include "lib/harness.h"
#include "lib/leaves.h"

static const char *device_bdf;

FIXTURE(untracked) {
	struct dirty_env env;
};

FIXTURE_SETUP(untracked)
{
	struct dirty_env *env = &self->env;

	env->iommu = iommu_init(MODE_IOMMUFD);
	ASSERT_EQ(0, __ioas_huge_pages(env->iommu->iommufd, env->iommu->ioas_id, false));
	dirty_dev_open(env, &env->dev, device_bdf);
	ASSERT_EQ(NULL, dirty_area_map(env, &env->area, PAGE_4K, SZ_4M));
	env->written = page_set_alloc(&env->area);
	env->hwpt = hwpt_alloc(env, 0);
	device_attach(&env->dev, env->hwpt);
	vfio_pci_driver_init(env->dev.pci);
}

FIXTURE_TEARDOWN(untracked)
{
	dirty_env_close(&self->env);
}

TEST_F(untracked, says_so)
{
	EXPECT_FALSE(dirty_capable(&self->env, &self->env.dev));
}

TEST_F(untracked, is_refused)
{
	struct dirty_env *env = &self->env;
	u32 hwpt;

	EXPECT_EQ(-EOPNOTSUPP, __hwpt_alloc(env->iommu->iommufd, env->dev.id, env->iommu->ioas_id,
					    IOMMU_HWPT_ALLOC_DIRTY_TRACKING, &hwpt));
	EXPECT_EQ(-EOPNOTSUPP, __hwpt_set_dirty(env->iommu->iommufd, env->hwpt,
						IOMMU_HWPT_DIRTY_TRACKING_ENABLE));
	dirty_write_random(env, 4);
}

/*
 * Tables come and go with their memory: the unit must see each new entry and each
 * removal, whether or not it snoops the CPU caches.
 */
TEST_F(untracked, maps_and_unmaps)
{
	struct dirty_env *env = &self->env;

	for (int round = 0; round < 8; round++) {
		struct dirty_area other;
		u64 iova;

		dirty_write_random(env, 16);
		dirty_area_remap(env, &env->area);
		dirty_write_random(env, 16);

		/* A separate table, which is new in each round. */
		iova = iova_allocator_alloc(env->iova, SZ_2M);
		leaves_place(&other, leaves_alloc(PAGE_4K, SZ_2M), iova, SZ_2M, PAGE_4K);
		leaves_map_pages(env, &other);
		for (u64 page = 0; page < other.nr_pages; page += 73)
			dirty_write(&env->dev, &other, page);
		dirty_area_unmap(env, &other);
	}
}

/* The unit must not use a removed entry, while the memory still exists. */
TEST_F(untracked, does_not_reach_what_is_unmapped)
{
	struct dirty_env *env = &self->env;
	u64 iova = iova_allocator_alloc(env->iova, SZ_2M);
	struct dirty_area other;

	leaves_place(&other, leaves_alloc(PAGE_4K, SZ_2M), iova, SZ_2M, PAGE_4K);
	leaves_map_pages(env, &other);
	dirty_write(&env->dev, &other, 5);
	leaves_unmap(env, &other);
	EXPECT_EQ(-EIO, __dirty_write(&env->dev, &other, 5));
	dirty_write_random(env, 4);
}

/* Each page table maps the whole IOAS, whichever one the device uses. */
TEST_F(untracked, moves_between_page_tables)
{
	struct dirty_env *env = &self->env;
	u32 other = hwpt_alloc(env, 0);

	for (int round = 0; round < 4; round++) {
		device_attach(&env->dev, round % 2 ? env->hwpt : other);
		dirty_write_random(env, 4);
		dirty_area_remap(env, &env->area);
		dirty_write_random(env, 4);
	}
	device_attach(&env->dev, env->hwpt);
	iommufd_destroy(env, other);
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
