// SPDX-License-Identifier: GPL-2.0
/*
 * The dirty tracking uAPI on a real IOMMU: what is offered, what is refused and
 * with which errno. A refused call changes nothing.
 */
#include <errno.h>

#include "lib/harness.h"

static const char *device_bdf;

/*
 * The capability and the allocation must agree, on every machine: this fixture
 * needs neither a capable IOMMU nor a device that can write.
 */
FIXTURE(dirty_capability) {
	struct dirty_env env;
};

FIXTURE_SETUP(dirty_capability)
{
	self->env.iommu = iommu_init(MODE_IOMMUFD);
	dirty_dev_open(&self->env, &self->env.dev, device_bdf);
}

FIXTURE_TEARDOWN(dirty_capability)
{
	dirty_env_close(&self->env);
}

static int alloc(struct dirty_env *env, u32 flags, u32 *hwpt)
{
	return __hwpt_alloc(env->iommu->iommufd, env->dev.id,
			    env->iommu->ioas_id, flags, hwpt);
}

TEST_F(dirty_capability, agrees_with_alloc)
{
	struct dirty_env *env = &self->env;
	bool capable = dirty_capable(env, &env->dev);
	u32 hwpt;

	ASSERT_EQ(capable ? 0 : -EOPNOTSUPP,
		  alloc(env, IOMMU_HWPT_ALLOC_DIRTY_TRACKING, &hwpt));
	if (capable)
		iommufd_destroy(env, hwpt);
}

TEST_F(dirty_capability, unknown_alloc_flag)
{
	struct dirty_env *env = &self->env;
	u32 flags = 1U << 31;
	u32 hwpt;

	EXPECT_EQ(-EOPNOTSUPP, alloc(env, flags, &hwpt));
	flags |= IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
	EXPECT_EQ(-EOPNOTSUPP, alloc(env, flags, &hwpt));
}

/* Without the flag the page table has no switch and no query. */
TEST_F(dirty_capability, page_table_without_tracking)
{
	struct dirty_env *env = &self->env;
	struct iommu_hwpt_get_dirty_bitmap get;
	int iommufd = env->iommu->iommufd;
	u64 bitmap = 0;
	u32 hwpt;

	ASSERT_EQ(0, alloc(env, 0, &hwpt));

	EXPECT_EQ(-EOPNOTSUPP, __hwpt_set_dirty(iommufd, hwpt, 0));
	EXPECT_EQ(-EOPNOTSUPP,
		  __hwpt_set_dirty(iommufd, hwpt,
				   IOMMU_HWPT_DIRTY_TRACKING_ENABLE));

	get = (struct iommu_hwpt_get_dirty_bitmap){
		.hwpt_id = hwpt,
		.iova = env->dev.local.iova,
		.length = PAGE_4K,
		.page_size = PAGE_4K,
		.data = (uintptr_t)&bitmap,
	};
	EXPECT_EQ(-EOPNOTSUPP, __hwpt_get_dirty(iommufd, &get));
	EXPECT_EQ(0, bitmap);

	iommufd_destroy(env, hwpt);
}

FIXTURE(dirty_uapi) {
	struct dirty_env env;
	struct iommu_hwpt_get_dirty_bitmap get;
	u64 *bitmap;
};

FIXTURE_SETUP(dirty_uapi)
{
	const char *skip = dirty_env_open(&self->env, device_bdf, PAGE_4K);
	struct dirty_area *area = &self->env.area;

	if (skip)
		SKIP(return, "%s", skip);

	self->bitmap = calloc_assert(area->nr_pages / 64, sizeof(u64));
	self->get = (struct iommu_hwpt_get_dirty_bitmap){
		.hwpt_id = self->env.hwpt,
		.iova = area->region.iova,
		.length = area->region.size,
		.page_size = PAGE_4K,
		.data = (uintptr_t)self->bitmap,
	};
}

FIXTURE_TEARDOWN(dirty_uapi)
{
	free(self->bitmap);
	dirty_env_close(&self->env);
}

static int set(struct dirty_env *env, u32 hwpt, u32 flags)
{
	return __hwpt_set_dirty(env->iommu->iommufd, hwpt, flags);
}

TEST_F(dirty_uapi, set_twice)
{
	struct dirty_env *env = &self->env;
	const u32 on = IOMMU_HWPT_DIRTY_TRACKING_ENABLE;
	u32 attached = env->hwpt;
	u32 idle = hwpt_alloc(env, IOMMU_HWPT_ALLOC_DIRTY_TRACKING);

	/* Tracking starts off, and switching it off again is no error. */
	EXPECT_EQ(0, set(env, attached, 0));
	EXPECT_EQ(0, set(env, idle, 0));

	for (int i = 0; i < 3; i++) {
		EXPECT_EQ(0, set(env, attached, on));
		EXPECT_EQ(0, set(env, attached, on));
		EXPECT_EQ(0, set(env, idle, on));
		EXPECT_EQ(0, set(env, idle, on));
		EXPECT_EQ(0, set(env, attached, 0));
		EXPECT_EQ(0, set(env, attached, 0));
		EXPECT_EQ(0, set(env, idle, 0));
		EXPECT_EQ(0, set(env, idle, 0));
	}

	iommufd_destroy(env, idle);
}

TEST_F(dirty_uapi, set_refused)
{
	struct dirty_env *env = &self->env;
	u32 unknown = IOMMU_HWPT_DIRTY_TRACKING_ENABLE << 1;

	EXPECT_EQ(-EOPNOTSUPP, set(env, env->hwpt, unknown));
	EXPECT_EQ(-EOPNOTSUPP, set(env, env->hwpt, ~0U));
	/* Not an object, and objects of other kinds. */
	EXPECT_EQ(-ENOENT, set(env, 1000000, 0));
	EXPECT_EQ(-ENOENT, set(env, env->iommu->ioas_id, 0));
	EXPECT_EQ(-ENOENT, set(env, env->dev.id, 0));
}

/* Calls that must fail; earlier writes of the device are still reported afterwards. */
TEST_F(dirty_uapi, get_refused)
{
	struct dirty_env *env = &self->env;
	struct iommu_hwpt_get_dirty_bitmap good = self->get, bad;
	int iommufd = env->iommu->iommufd;
	struct dirty_area *area = &env->area;

	hwpt_set_dirty(env, env->hwpt, true);
	dirty_write_page(env, 5);

#define EXPECT_REFUSED(_errno, _field, _value) do {			\
	bad = good;							\
	bad._field = (_value);						\
	EXPECT_EQ(-(_errno), __hwpt_get_dirty(iommufd, &bad));		\
} while (0)

	EXPECT_REFUSED(EOPNOTSUPP, flags,
		       IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR << 1);
	EXPECT_REFUSED(EOPNOTSUPP, __reserved, 1);
	EXPECT_REFUSED(ENOENT, hwpt_id, 1000000);
	EXPECT_REFUSED(ENOENT, hwpt_id, env->dev.id);
	EXPECT_REFUSED(EINVAL, length, 0);
	EXPECT_REFUSED(EINVAL, length, good.length - 1);
	EXPECT_REFUSED(EINVAL, length, good.length + SZ_512);
	EXPECT_REFUSED(EINVAL, iova, good.iova + 1);
	EXPECT_REFUSED(EINVAL, iova, good.iova + SZ_2K);
	EXPECT_REFUSED(EOVERFLOW, iova, -(u64)PAGE_4K);
	EXPECT_REFUSED(EOVERFLOW, length, -(u64)PAGE_4K);
	EXPECT_REFUSED(EINVAL, page_size, 0);
	/* A unit larger than the query, and one to which its start is not aligned. */
	EXPECT_REFUSED(EINVAL, page_size, 2 * good.length);

	bad = good;
	bad.iova += PAGE_4K;
	bad.length -= PAGE_4K;
	bad.page_size = SZ_8K;
	EXPECT_EQ(-EINVAL, __hwpt_get_dirty(iommufd, &bad));

	for (u64 i = 0; i < area->nr_pages / 64; i++)
		EXPECT_EQ(0, self->bitmap[i]);

	EXPECT_EXACT(dirty_harvest(env, query_all(area)));
}

TEST_F(dirty_uapi, destroy)
{
	struct dirty_env *env = &self->env;
	int iommufd = env->iommu->iommufd;
	u32 idle;

	EXPECT_EQ(-EBUSY, __iommufd_destroy(iommufd, env->hwpt));
	hwpt_set_dirty(env, env->hwpt, true);
	EXPECT_EQ(-EBUSY, __iommufd_destroy(iommufd, env->hwpt));

	/* While tracking is on, without a device and after one has left. */
	idle = hwpt_alloc(env, IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
	hwpt_set_dirty(env, idle, true);
	EXPECT_EQ(0, __iommufd_destroy(iommufd, idle));

	idle = hwpt_alloc(env, IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
	device_attach(&env->dev, idle);
	EXPECT_EQ(0, __iommufd_destroy(iommufd, env->hwpt));
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
