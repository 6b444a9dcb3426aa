// SPDX-License-Identifier: GPL-2.0
/*
 * The driver's parameter `split` is changed by a file while the driver is loaded: page tables that
 * are allocated later have the new value, those that exist keep theirs, and what has no meaning is
 * refused.
 */
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/harness.h"
#include "lib/interrupts.h"
#include "lib/leaves.h"
#include "lib/observe.h"
#include "lib/split.h"

#define LEAF_PAGES 512ULL

static const char *device_bdf;

FIXTURE(dirty_split_choice) {
	struct dirty_env env;
	u64 loaded;
};

static u64 shown(void)
{
	return strtoull(observe_read(SPLIT_FILE), NULL, 10);
}

FIXTURE_SETUP(dirty_split_choice)
{
	const char *skip;

	if (!observe_driver())
		SKIP(return, "no Rust driver is loaded");
	self->loaded = shown();
	skip = dirty_env_open(&self->env, device_bdf, SZ_2M);
	if (skip)
		SKIP(return, "%s", skip);
	EXPECT_EQ(split_parameter(), self->loaded);
}

FIXTURE_TEARDOWN(dirty_split_choice)
{
	split_choose(self->loaded);
	dirty_env_close(&self->env);
}

/* The device writes the page, which is reported with all that its leaf has now. */
#define EXPECT_REPORTED(_env, _page, _pages) do {				\
	struct dirty_env *__env = (_env);					\
	struct dirty_report __p;						\
										\
	dirty_write_page(__env, _page);						\
	__p = dirty_harvest(__env, query_all(&__env->area));			\
	EXPECT_EXACT(__p);							\
	EXPECT_EQ(_pages, __p.set);						\
} while (0)

/* The device moves to another page table. */
static void use(struct dirty_env *env, u32 hwpt)
{
	device_attach(&env->dev, hwpt);
	env->hwpt = hwpt;
	page_set_clear(&env->written);
}

/* All are allocated before the first of them tracks. */
TEST_F(dirty_split_choice, each_keeps_its_own)
{
	static const struct {
		u64 parameter;
		u64 pages[3];
	} kinds[] = {
		{ 0, { LEAF_PAGES, LEAF_PAGES, LEAF_PAGES } },
		{ 1, { LEAF_PAGES, 1, 1 } },
		{ SZ_4K, { 1, 1, 1 } },
		/* No leaf is larger, so none is split before it is written. */
		{ SZ_2M, { LEAF_PAGES, 1, 1 } },
	};
	struct dirty_env *env = &self->env;
	u32 hwpts[ARRAY_SIZE(kinds)];

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		char line[32];

		split_choose(kinds[i].parameter);
		EXPECT_EQ(kinds[i].parameter, shown());
		hwpts[i] = hwpt_alloc(env, IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
		snprintf(line, sizeof(line), "split: %lu\n", (unsigned long)kinds[i].parameter);
		EXPECT_NE(NULL, strstr(observe_read("domains/%lu/state", observe_last_domain()),
				       line));
	}
	split_choose(self->loaded);

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		TH_LOG("split=%lu", (unsigned long)kinds[i].parameter);
		use(env, hwpts[i]);
		hwpt_set_dirty(env, env->hwpt, true);
		for (size_t round = 0; round < ARRAY_SIZE(kinds[i].pages); round++)
			EXPECT_REPORTED(env, 5, kinds[i].pages[round]);
		hwpt_set_dirty(env, env->hwpt, false);
	}
}

/* In the middle of tracking, and across its end. */
TEST_F(dirty_split_choice, while_one_tracks)
{
	struct dirty_env *env = &self->env;

	split_choose(1);
	use(env, hwpt_alloc(env, IOMMU_HWPT_ALLOC_DIRTY_TRACKING));
	hwpt_set_dirty(env, env->hwpt, true);
	EXPECT_REPORTED(env, 5, LEAF_PAGES);

	split_choose(0);
	EXPECT_REPORTED(env, 5, 1);
	EXPECT_REPORTED(env, LEAF_PAGES + 5, LEAF_PAGES);
	EXPECT_REPORTED(env, LEAF_PAGES + 5, 1);
	hwpt_set_dirty(env, env->hwpt, false);
	hwpt_set_dirty(env, env->hwpt, true);
	page_set_clear(&env->written);
	EXPECT_REPORTED(env, 5, LEAF_PAGES);
	EXPECT_REPORTED(env, 5, 1);
	hwpt_set_dirty(env, env->hwpt, false);

	use(env, hwpt_alloc(env, IOMMU_HWPT_ALLOC_DIRTY_TRACKING));
	hwpt_set_dirty(env, env->hwpt, true);
	EXPECT_REPORTED(env, 5, LEAF_PAGES);
	EXPECT_REPORTED(env, 5, LEAF_PAGES);
}

/* Parts have the permissions of the leaf, and so has the leaf that comes back. */
TEST_F(dirty_split_choice, read_only)
{
	struct iommu_ioas_map cmd = {
		.size = sizeof(cmd),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE,
		.length = SZ_2M,
	};
	struct dirty_env *env = &self->env;
	struct dirty_area area;
	struct page_set none;
	u64 domain, whole;

	leaves_place(&area, leaves_alloc(SZ_2M, SZ_2M), iova_allocator_alloc(env->iova, SZ_2M),
		     SZ_2M, SZ_2M);
	none = page_set_alloc(&area);
	split_choose(SZ_4K);
	use(env, hwpt_alloc(env, IOMMU_HWPT_ALLOC_DIRTY_TRACKING));
	domain = observe_last_domain();
	cmd.ioas_id = env->iommu->ioas_id;
	cmd.user_va = (uintptr_t)area.region.vaddr;
	cmd.iova = area.region.iova;
	ASSERT_EQ(0, ioctl(env->iommu->iommufd, IOMMU_IOAS_MAP, &cmd));
	split_forget(env, area.region.iova, area.region.size);

	whole = observe_leaves(domain, "2 MiB");
	EXPECT_LT(1, whole);
	for (int on = 1; on >= 0; on--) {
		hwpt_set_dirty(env, env->hwpt, on);
		EXPECT_EQ(on ? 0 : whole, observe_leaves(domain, "2 MiB"));
		for (u64 page = 0; page < LEAF_PAGES; page += LEAF_PAGES / 4) {
			dirty_read(&env->dev, &area, page);
			EXPECT_NE(0, __dirty_write(&env->dev, &area, page));
		}
		if (on)
			EXPECT_EXACT(dirty_query(env, env->hwpt, &area, query_all(&area), &none));
	}
	page_set_free(&none);
	leaves_unmap(env, &area);
	ASSERT_EQ(0, munmap(area.region.vaddr, area.region.size));
}

static int write_choice(const char *text)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/" SPLIT_FILE, observe_driver());

	return __write_file(path, text);
}

/* The log says what is accepted, and the value stays. */
TEST_F(dirty_split_choice, refused)
{
	static const char * const refused[] = {
		"2", "2048", "4095", "4097", "6144", "-1", "lazy", "\n", "4096 1",
		/* Without its upper half this would be 1. */
		"4294967297",
		"0x1000000000000000000000000000000000000000000",
	};
	int kmsg = kernel_log_open();

	EXPECT_EQ(0, write_choice("8192"));
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		TH_LOG("'%s'", refused[i]);
		EXPECT_EQ(-EINVAL, write_choice(refused[i]));
		EXPECT_TRUE(kernel_says(kmsg, "split: use 0 (off), 1 (split large leaves"));
		EXPECT_EQ(8192, shown());
	}
	EXPECT_EQ(0, write_choice("0x1000\n"));
	EXPECT_EQ(4096, shown());
	EXPECT_FALSE(kernel_says(kmsg, "split: use"));
	close(kmsg);
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
