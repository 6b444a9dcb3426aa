// SPDX-License-Identifier: GPL-2.0
/*
 * The user's bitmap: at any address; the kernel only sets bits in it.
 */
#include <string.h>

#include "lib/harness.h"
#include "lib/split.h"

static const char *device_bdf;

FIXTURE(dirty_bitmap) {
	struct dirty_env env;
};

FIXTURE_VARIANT(dirty_bitmap) {
	u64 leaf;
};

FIXTURE_VARIANT_ADD(dirty_bitmap, leaf_4k) { .leaf = SZ_4K, };
FIXTURE_VARIANT_ADD(dirty_bitmap, leaf_2m) { .leaf = SZ_2M, };

FIXTURE_SETUP(dirty_bitmap)
{
	const char *skip = dirty_env_open(&self->env, device_bdf, variant->leaf);

	if (skip)
		SKIP(return, "%s", skip);

	hwpt_set_dirty(&self->env, self->env.hwpt, true);
}

FIXTURE_TEARDOWN(dirty_bitmap)
{
	dirty_env_close(&self->env);
}

/* iommufd accepts any address: it need not be aligned to a word or a page. */
TEST_F(dirty_bitmap, odd_addresses)
{
	static const u32 offsets[] = {
		1, 2, 3, 4, 5, 6, 7, 9, 63, 65, 2047,
		4081, 4089, 4090, 4091, 4092, 4093, 4094, 4095,
	};
	struct dirty_env *env = &self->env;

	for (size_t i = 0; i < ARRAY_SIZE(offsets); i++) {
		struct dirty_query query = query_all(&env->area);

		query.offset = offsets[i];
		dirty_write_random(env, 6);
		EXPECT_EXACT(dirty_harvest(env, query));
	}
}

/*
 * A run of dirty pages whose bits are on both sides of a page boundary of the bitmap.
 */
TEST_F(dirty_bitmap, run_across_pages)
{
	struct dirty_env *env = &self->env;
	u64 boundary = 128;

	for (u32 shift = 0; shift < 8; shift += 3) {
		struct dirty_query query = query_all(&env->area);

		query.offset = PAGE_4K - boundary / 8 + shift;
		for (u64 page = boundary - 40; page < boundary + 10; page++)
			dirty_write_page(env, page);
		EXPECT_EXACT(dirty_harvest(env, query));
	}
}

/* A VMM queries several page tables into one bitmap: no bit in it is cleared. */
TEST_F(dirty_bitmap, adds_to_what_is_there)
{
	struct dirty_env *env = &self->env;
	struct dirty_area *area = &env->area;
	u64 nr_bytes = area->nr_pages / 8;
	u8 *bitmap = malloc_assert(nr_bytes);
	struct iommu_hwpt_get_dirty_bitmap cmd = {
		.hwpt_id = env->hwpt,
		.iova = area->region.iova,
		.length = area->region.size,
		.page_size = PAGE_4K,
		.data = (uintptr_t)bitmap,
	};
	u64 wrong = 0;
	u8 *reported;

	memset(bitmap, 0x14, nr_bytes);
	dirty_write_page(env, 0);
	dirty_write_page(env, area->nr_pages - 2);
	ASSERT_EQ(0, __hwpt_get_dirty(env->iommu->iommufd, &cmd));

	reported = split_report(env, env->hwpt, area, &env->written, 0, area->nr_pages,
				true);
	for (u64 page = 0; page < area->nr_pages; page++) {
		bool expected = reported[page] || 0x14 & 1 << page % 8;

		wrong += expected != !!(bitmap[page / 8] & 1 << page % 8);
	}
	EXPECT_EQ(0, wrong);
	free(reported);
	free(bitmap);
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
