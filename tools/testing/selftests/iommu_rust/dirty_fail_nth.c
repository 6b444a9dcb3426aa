// SPDX-License-Identifier: GPL-2.0
/*
 * Each allocation in each call fails once.
 *
 * The call then fails cleanly, and earlier writes stay tracked: no page is lost,
 * none is reported in excess, and the same call succeeds when tried again. The
 * kernel must not warn.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/harness.h"
#include "lib/split.h"

/* More allocations than any of these calls makes. */
#define MAX_NTH 2000

static const char *device_bdf;

FIXTURE(dirty_fail_nth) {
	struct dirty_env env;
	int nth_fd;
};

static int write_file(const char *path, const char *value)
{
	ssize_t len = strlen(value);
	int fd = open(path, O_WRONLY);
	int ret;

	if (fd < 0)
		return -errno;
	ret = write(fd, value, len) == len ? 0 : -EIO;
	close(fd);

	return ret;
}

/* By default only allocations that cannot wait fail, and no single pages. */
static const char *fault_injection_setup(void)
{
	static const char * const settings[][2] = {
		{ "failslab/ignore-gfp-wait", "N" },
		{ "failslab/verbose", "0" },
		{ "fail_page_alloc/ignore-gfp-wait", "N" },
		{ "fail_page_alloc/ignore-gfp-highmem", "N" },
		{ "fail_page_alloc/min-order", "0" },
		{ "fail_page_alloc/verbose", "0" },
	};
	char path[PATH_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		snprintf_assert(path, sizeof(path), "/sys/kernel/debug/%s",
				settings[i][0]);
		if (write_file(path, settings[i][1]))
			return "needs CONFIG_FAILSLAB, CONFIG_FAIL_PAGE_ALLOC and debugfs mounted";
	}

	/* Exists only with CONFIG_IOMMUFD_TEST; it only suppresses messages. */
	write_file("/sys/kernel/debug/fail_iommufd/verbose", "0");

	return NULL;
}

FIXTURE_SETUP(dirty_fail_nth)
{
	const char *skip = fault_injection_setup();
	struct dirty_env *env = &self->env;

	if (skip)
		SKIP(return, "%s", skip);

	skip = dirty_env_open(env, device_bdf, PAGE_4K);
	if (skip)
		SKIP(return, "%s", skip);

	self->nth_fd = open("/proc/thread-self/fail-nth", O_RDWR);
	ASSERT_LE(0, self->nth_fd);
	hwpt_set_dirty(env, env->hwpt, true);
}

FIXTURE_TEARDOWN(dirty_fail_nth)
{
	close(self->nth_fd);
	dirty_env_close(&self->env);
}

static void arm(int fd, int nth)
{
	char value[16];
	int len = snprintf(value, sizeof(value), "%d", nth);

	VFIO_ASSERT_EQ(pwrite(fd, value, len, 0), len);
}

/* Whether the call reached the allocation that was to fail. */
static bool disarm(int fd)
{
	char value[16] = "";

	/* The failure can hit this read or write itself: then the call has ended. */
	if (pread(fd, value, sizeof(value) - 1, 0) < 0)
		value[0] = '1';
	if (pwrite(fd, "0", 1, 0) != 1)
		VFIO_ASSERT_EQ(pwrite(fd, "0", 1, 0), 1);

	return atoi(value) == 0;
}

/*
 * Runs @_call, with one more allocation succeeding each time, until it needs no
 * more; after a failure runs @_check, after a success @_undo. Which errno it is
 * depends on what failed: iommufd has failure points other than allocations.
 */
#define SWEEP(_call, _check, _undo) do {				\
	bool __reached = true;						\
	int __failures = 0;						\
									\
	for (int __nth = 1; __reached && __nth < MAX_NTH; __nth++) {	\
		int __ret;						\
									\
		arm(self->nth_fd, __nth);				\
		__ret = (_call);					\
		__reached = disarm(self->nth_fd);			\
		if (__ret) {						\
			EXPECT_TRUE(__reached);				\
			__failures++;					\
			_check;						\
		} else {						\
			_undo;						\
		}							\
	}								\
	EXPECT_FALSE(__reached);					\
	EXPECT_LT(0, __failures);					\
	TH_LOG("failed %d times", __failures);				\
} while (0)

/* An earlier write is reported once, and a later write is reported once. */
static struct dirty_report intact(struct dirty_env *env)
{
	struct dirty_report before, after;

	before = dirty_harvest(env, query_all(&env->area));
	dirty_write_random(env, 2);
	after = dirty_harvest(env, query_all(&env->area));
	dirty_write_random(env, 2);

	return (struct dirty_report){
		.set = before.set + after.set,
		.missing = before.missing + after.missing,
		.extra = before.extra + after.extra,
		.stray = before.stray + after.stray,
	};
}

static int alloc(struct dirty_env *env, u32 *hwpt)
{
	return __hwpt_alloc(env->iommu->iommufd, env->dev.id,
			    env->iommu->ioas_id,
			    IOMMU_HWPT_ALLOC_DIRTY_TRACKING, hwpt);
}

TEST_F(dirty_fail_nth, alloc)
{
	struct dirty_env *env = &self->env;
	u32 hwpt;

	dirty_write_random(env, 2);
	SWEEP(alloc(env, &hwpt),
	      EXPECT_EXACT(intact(env)),
	      iommufd_destroy(env, hwpt));
}

/*
 * Whether a failed attach took the device off the page table that it was on.
 * Attaches it again by way of another page table: attaching it to its apparent
 * one would do nothing.
 */
static bool left_blocked(struct dirty_env *env, u32 other)
{
	if (!__dirty_write(&env->dev, &env->area, 0)) {
		page_set_add(&env->written, 0);
		return false;
	}

	device_attach(&env->dev, other);
	device_attach(&env->dev, env->hwpt);
	return true;
}

TEST_F(dirty_fail_nth, attach)
{
	struct dirty_env *env = &self->env;
	u32 other = hwpt_alloc(env, IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
	int blocked = 0;

	hwpt_set_dirty(env, other, true);
	dirty_write_random(env, 2);
	SWEEP(__device_attach(&env->dev, other),
	      blocked += left_blocked(env, other); EXPECT_EXACT(intact(env)),
	      device_attach(&env->dev, env->hwpt));

	/* The C drivers tear down before they set up. */
	if (blocked && dirty_walker_is_generic_pt(device_bdf))
		KNOWN_DIFFERENCE("%d failed attaches left the device blocked", blocked);
	else
		EXPECT_EQ(0, blocked);

	EXPECT_EXACT(intact(env));
	EXPECT_EXACT(dirty_ask(env, other, &env->none));
	iommufd_destroy(env, other);
}

/* Written pages that @bits does not report; marks all of them as reported. */
static u64 lost(struct dirty_env *env, u8 *bits)
{
	struct page_set *written = &env->written;
	u64 count = 0;

	for (u64 page = 0; page < written->nr; page++)
		count += written->in[page] && !(bits[page / 8] & 1 << page % 8);

	memset(bits, 0, written->nr / 8);
	page_set_clear(written);
	return count;
}

TEST_F(dirty_fail_nth, get)
{
	struct dirty_env *env = &self->env;
	struct dirty_area *area = &env->area;
	u64 size = area->nr_pages / 8;
	struct iommu_hwpt_get_dirty_bitmap cmd = {
		.hwpt_id = env->hwpt,
		.iova = area->region.iova,
		.length = area->region.size,
		.page_size = PAGE_4K,
		.data = (uintptr_t)calloc_assert(1, size),
	};
	u8 *bits = (u8 *)(uintptr_t)cmd.data;

	/* The bitmap is in memory, so that no allocation of it can fail. */
	memset(bits, 0, size);
	dirty_write_random(env, 4);
	SWEEP(__hwpt_get_dirty(env->iommu->iommufd, &cmd),
	      EXPECT_EXACT(intact(env)),
	      EXPECT_EQ(0, lost(env, bits)));

	EXPECT_EXACT(intact(env));
	free(bits);
}

TEST_F(dirty_fail_nth, map)
{
	struct dirty_env *env = &self->env;
	struct dma_region region = {
		.size = SZ_64K,
	};

	region.vaddr = mmap(NULL, region.size, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	ASSERT_NE(MAP_FAILED, region.vaddr);
	region.iova = iova_allocator_alloc(env->iova, SZ_1G);

	dirty_write_random(env, 2);
	SWEEP(__iommu_map(env->iommu, &region),
	      EXPECT_EXACT(intact(env)),
	      iommu_unmap(env->iommu, &region));

	EXPECT_EXACT(intact(env));
	ASSERT_EQ(0, munmap(region.vaddr, region.size));
}

/* Large leaves, which some drivers split. */
FIXTURE(dirty_fail_nth_large) {
	struct dirty_env env;
	int nth_fd;
};

FIXTURE_SETUP(dirty_fail_nth_large)
{
	const char *skip = fault_injection_setup();
	struct dirty_env *env = &self->env;

	if (skip)
		SKIP(return, "%s", skip);

	skip = dirty_env_open(env, device_bdf, SZ_2M);
	if (skip)
		SKIP(return, "%s", skip);

	self->nth_fd = open("/proc/thread-self/fail-nth", O_RDWR);
	ASSERT_LE(0, self->nth_fd);
	hwpt_set_dirty(env, env->hwpt, true);
}

FIXTURE_TEARDOWN(dirty_fail_nth_large)
{
	close(self->nth_fd);
	dirty_env_close(&self->env);
}

static u64 count_pages(struct dirty_env *env, u8 *bits)
{
	u64 count = 0;

	for (u64 page = 0; page < env->area.nr_pages; page++)
		count += !!(bits[page / 8] & 1 << page % 8);

	return count;
}

/* Without memory a leaf stays whole. It is reported, clean after that, and still tracked. */
TEST_F(dirty_fail_nth_large, get)
{
	struct dirty_env *env = &self->env;
	struct dirty_area *area = &env->area;
	u64 size = area->nr_pages / 8, leaf = area->leaf / PAGE_4K;
	struct iommu_hwpt_get_dirty_bitmap cmd = {
		.hwpt_id = env->hwpt,
		.iova = area->region.iova,
		.length = area->region.size,
		.page_size = PAGE_4K,
		.data = (uintptr_t)calloc_assert(1, size),
	};
	u8 *bits = (u8 *)(uintptr_t)cmd.data;
	int split = 0, whole = 0;
	bool reached = true;

	memset(bits, 0, size);
	for (int nth = 1; reached && nth < MAX_NTH; nth++) {
		u64 count;
		int ret;

		/* What is mapped now is a whole leaf. */
		dirty_area_remap(env, area);
		page_set_clear(&env->written);
		dirty_write_page(env, 5);

		arm(self->nth_fd, nth);
		ret = __hwpt_get_dirty(env->iommu->iommufd, &cmd);
		reached = disarm(self->nth_fd);
		if (ret) {
			memset(bits, 0, size);
			continue;
		}
		EXPECT_EQ(0, lost(env, bits));

		ASSERT_EQ(0, __hwpt_get_dirty(env->iommu->iommufd, &cmd));
		EXPECT_EQ(0, count_pages(env, bits));

		dirty_write_page(env, 9);
		ASSERT_EQ(0, __hwpt_get_dirty(env->iommu->iommufd, &cmd));
		count = count_pages(env, bits);
		EXPECT_TRUE(count == 1 || count == leaf);
		split += count == 1;
		whole += count == leaf;
		EXPECT_EQ(0, lost(env, bits));
	}
	EXPECT_FALSE(reached);
	TH_LOG("%d leaves were split, %d were not", split, whole);
	if (split_parameter()) {
		EXPECT_LT(0, split);
		EXPECT_LT(0, whole);
	}
	free(bits);
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
