// SPDX-License-Identifier: GPL-2.0
/*
 * Large leaves that the driver splits where a device writes, or when tracking begins (its
 * parameter `split`): a report shrinks from the leaf to a page, whatever the size of the
 * queries is. What is unmapped, mapped instead, or no longer tracked, is the whole leaf.
 *
 * Where the driver does not split, the same tests expect whole leaves.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>

#include "lib/harness.h"
#include "lib/leaves.h"
#include "lib/split.h"
#include "lib/stall.h"

#define TABLE_PAGES 512ULL

/* Well below the bound after which a driver treats the unit as dead. */
#define LATE_MS 30

static const char *device_bdf;

FIXTURE(dirty_split) {
	struct dirty_env env;
	/* Pages of a leaf as it is mapped, and when tracking has begun. */
	u64 pages;
	u64 begun;
};

FIXTURE_VARIANT(dirty_split) {
	u64 leaf;
};

FIXTURE_VARIANT_ADD(dirty_split, leaf_2m) { .leaf = SZ_2M, };
FIXTURE_VARIANT_ADD(dirty_split, leaf_1g) { .leaf = SZ_1G, };

FIXTURE_SETUP(dirty_split)
{
	const char *skip = dirty_env_open(&self->env, device_bdf, variant->leaf);

	if (skip)
		SKIP(return, "%s", skip);

	self->pages = variant->leaf / PAGE_4K;
	self->begun = split_begun(self->pages);
	hwpt_set_dirty(&self->env, self->env.hwpt, true);
}

FIXTURE_TEARDOWN(dirty_split)
{
	dirty_env_close(&self->env);
}

static struct dirty_report ask_all(struct dirty_env *env)
{
	return dirty_harvest(env, query_all(&env->area));
}

/* The size of what is reported of a leaf of so many pages that was reported once. */
static u64 smaller(u64 pages)
{
	return split_parameter() ? split_pages(pages) : pages;
}

/* The device writes the page, which is reported with what its leaf has now. */
#define EXPECT_REPORTED(_env, _page, _pages) do {				\
	struct dirty_env *__env = (_env);					\
	struct dirty_report __p;						\
										\
	dirty_write_page(__env, _page);						\
	__p = ask_all(__env);							\
	EXPECT_EXACT(__p);							\
	EXPECT_EQ(_pages, __p.set);						\
} while (0)

/* From the leaf to a page, if the driver splits. */
#define EXPECT_SHRINKS(_env, _page, _pages) do {				\
	u64 __size = (_pages);							\
										\
	for (int __round = 0; __round < 4; __round++) {				\
		EXPECT_REPORTED(_env, _page, __size);				\
		__size = smaller(__size);					\
	}									\
} while (0)

/* Pages of all page tables and units; the counts of all processors are added first. */
static u64 iommu_pages(void)
{
	FILE *refresh = fopen("/proc/sys/vm/stat_refresh", "w");
	unsigned long long count = 0;
	char line[128];
	FILE *file;

	VFIO_ASSERT_NOT_NULL(refresh);
	VFIO_ASSERT_LE(0, fputs("1", refresh));
	VFIO_ASSERT_EQ(fclose(refresh), 0);

	file = fopen("/proc/vmstat", "r");
	VFIO_ASSERT_NOT_NULL(file);
	while (fgets(line, sizeof(line), file) && !count)
		sscanf(line, "nr_iommu_pages %llu", &count);
	VFIO_ASSERT_EQ(fclose(file), 0);
	VFIO_ASSERT_NE(count, 0);

	return count;
}

/* Tables appear only where the device writes: one below another. */
TEST_F(dirty_split, shrinks)
{
	struct dirty_env *env = &self->env;
	u64 part = smaller(self->begun);
	u64 last = self->pages - 1;

	EXPECT_SHRINKS(env, last - 4, self->begun);
	EXPECT_EXACT(ask_all(env));

	/* Its neighbour is in the same table, the first page in one that is not split yet. */
	EXPECT_REPORTED(env, last, smaller(part));
	EXPECT_SHRINKS(env, 0, part);

	/* All that is left of the leaf is clean, and still tracked. */
	EXPECT_REPORTED(env, last - 4, smaller(part));
	EXPECT_EXACT(ask_all(env));
}

/* Queries of pieces of the leaf, some with both sides of where a part ends. */
static u64 sweep(FIXTURE_DATA(dirty_split) *self, struct __test_metadata *_metadata)
{
	u64 piece = self->pages == TABLE_PAGES ? 48 : 1200;
	struct dirty_env *env = &self->env;
	u64 set = 0;

	for (u64 first = 0; first < self->pages; first += piece) {
		struct dirty_report report;

		report = dirty_harvest(env, query_part(first, min_t(u64, piece,
								    self->pages - first)));
		EXPECT_EXACT(report);
		set += report.set;
	}

	return set;
}

/*
 * A query cuts the leaf, which is split down to there. The parts are dirty because the leaf was,
 * not because a device has written to them: those that the query covers stay whole.
 */
TEST_F(dirty_split, half)
{
	struct dirty_env *env = &self->env;
	struct dirty_report report;
	u64 before = iommu_pages();

	if (dirty_walker_is_generic_pt(device_bdf))
		SKIP(return, "generic_pt of Linux 7.3.4 sets bits outside of the query");

	dirty_write_page(env, 0);
	report = dirty_harvest(env, query_part(0, self->pages / 2));
	EXPECT_EXACT(report);
	EXPECT_EQ(min_t(u64, self->begun, self->pages / 2), report.set);
	EXPECT_EQ(before + (self->begun > smaller(self->begun)), iommu_pages());

	/* The other half is as dirty as the leaf was. */
	EXPECT_EXACT(ask_all(env));
	EXPECT_EXACT(ask_all(env));
}

/*
 * No query covers the leaf. Whole, it would never be clean; split, what is asked about
 * once is clean.
 */
TEST_F(dirty_split, pieces)
{
	bool splits = split_parameter();
	struct dirty_env *env = &self->env;

	if (dirty_walker_is_generic_pt(device_bdf))
		SKIP(return, "generic_pt of Linux 7.3.4 loses pages of a leaf that is cut");

	dirty_write_page(env, self->pages / 2 + 3);
	EXPECT_EQ(self->begun, sweep(self, _metadata));
	EXPECT_EQ(splits ? 0 : self->pages, sweep(self, _metadata));

	dirty_write_page(env, self->pages / 2 + 3);
	dirty_write_page(env, self->pages - 1);
	if (splits)
		EXPECT_GT(self->pages / 8, sweep(self, _metadata));
	for (int round = 0; round < 2; round++) {
		dirty_write_page(env, self->pages / 2 + 3);
		dirty_write_page(env, self->pages - 1);
		EXPECT_EQ(splits ? 2 : self->pages, sweep(self, _metadata));
	}
}

/* A query that leaves pages dirty splits nothing. */
TEST_F(dirty_split, look)
{
	struct dirty_env *env = &self->env;
	struct dirty_query look = query_all(&env->area);

	look.flags = IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR;
	dirty_write_page(env, 7);
	for (int round = 0; round < 3; round++) {
		struct dirty_report report = dirty_harvest(env, look);

		EXPECT_EXACT(report);
		EXPECT_EQ(self->begun, report.set);
	}
	EXPECT_SHRINKS(env, 7, self->begun);
}

/* Tables that are needed for all leaves of so many pages as they are when tracking begins. */
static u64 tables_begun(struct dirty_env *env, u64 pages)
{
	u64 tables = 0;

	for (u64 size = pages; size > split_begun(pages); size = split_pages(size))
		tables += env->area.nr_pages / size;

	return tables;
}

/* One table for each level that a page is below the leaf; none when tracking has ended. */
TEST_F(dirty_split, tables_come_and_go)
{
	struct dirty_env *env = &self->env;
	u64 begun = tables_begun(env, self->pages);
	u64 before, more = 0;

	for (u64 size = self->begun; size > smaller(size); size = smaller(size))
		more++;

	hwpt_set_dirty(env, env->hwpt, false);
	before = iommu_pages();
	for (int round = 0; round < 3; round++) {
		hwpt_set_dirty(env, env->hwpt, true);
		EXPECT_EQ(before + begun, iommu_pages());
		EXPECT_SHRINKS(env, 11, self->begun);
		EXPECT_EQ(before + begun + more, iommu_pages());
		hwpt_set_dirty(env, env->hwpt, false);
		EXPECT_EQ(before, iommu_pages());
	}

	/* None is left when the leaf is replaced, and what is mapped meanwhile is whole. */
	hwpt_set_dirty(env, env->hwpt, true);
	EXPECT_SHRINKS(env, 11, self->begun);
	dirty_area_remap(env, &env->area);
	page_set_clear(&env->written);
	EXPECT_EQ(before, iommu_pages());
	EXPECT_SHRINKS(env, 11, self->pages);
}

/* The parts are unmapped as the leaf that was mapped: all of it, and nothing stays. */
TEST_F(dirty_split, unmapped_at_once)
{
	u64 places[] = { 0, 11, self->pages - 1 };
	struct dirty_env *env = &self->env;
	struct dirty_area *area = &env->area;
	u64 unmapped = 0;

	EXPECT_SHRINKS(env, 11, self->begun);
	/* One that is dirty, and cached by the unit. */
	dirty_write_page(env, 11);
	ASSERT_EQ(0, __iommu_unmap(env->iommu, &area->region, &unmapped));
	EXPECT_EQ(area->region.size, unmapped);
	split_forget(env, area->region.iova, area->region.size);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		EXPECT_NE(0, __dirty_write(&env->dev, area, places[i]));

	/* Whole and clean again, and it leads to memory. */
	iommu_map(env->iommu, &area->region);
	page_set_clear(&env->written);
	EXPECT_EXACT(ask_all(env));
	EXPECT_SHRINKS(env, self->pages - 1, self->pages);
}

/* Tracking was off in between: it begins clean, and as it began the first time. */
TEST_F(dirty_split, off_and_on)
{
	struct dirty_env *env = &self->env;

	EXPECT_SHRINKS(env, 5, self->begun);
	dirty_write_page(env, 5);
	for (int round = 0; round < 2; round++) {
		hwpt_set_dirty(env, env->hwpt, false);
		dirty_write(&env->dev, &env->area, 9);
		hwpt_set_dirty(env, env->hwpt, true);
		page_set_clear(&env->written);
		EXPECT_EXACT(ask_all(env));
		EXPECT_SHRINKS(env, 5, self->begun);
	}
}

/* What is asked about after tracking has ended: a leaf that is joined is dirty as a whole. */
TEST_F(dirty_split, off_and_asked)
{
	struct dirty_env *env = &self->env;
	struct dirty_report report;
	u64 before;

	EXPECT_SHRINKS(env, 5, self->begun);
	dirty_write_page(env, 5);
	hwpt_set_dirty(env, env->hwpt, false);
	before = iommu_pages();
	report = ask_all(env);
	EXPECT_EXACT(report);
	EXPECT_LE(self->pages, report.set);
	/* It splits nothing, since nothing would join that. */
	EXPECT_EQ(before, iommu_pages());
	EXPECT_EXACT(ask_all(env));
	hwpt_set_dirty(env, env->hwpt, false);
	hwpt_set_dirty(env, env->hwpt, true);
	page_set_clear(&env->written);
	EXPECT_EXACT(ask_all(env));
	EXPECT_SHRINKS(env, 5, self->begun);
}

/**
 * struct asking - A query by another thread
 * @env: of what
 * @report: the answer
 * @done: whether it has come
 */
struct asking {
	struct dirty_env *env;
	struct dirty_report report;
	atomic_bool done;
};

static void *ask_once(void *data)
{
	struct asking *asking = data;

	asking->report = ask_all(asking->env);
	atomic_store(&asking->done, true);

	return NULL;
}

/*
 * The unit has not done the flush yet that follows the split, and a page is written by the
 * translation that it has cached of the clean leaf. Hardware may note that in the place of
 * the leaf, where the link is: no later query may take it for anything else, and it must not
 * stay for ever.
 */
TEST_F(dirty_split, written_before_the_flush)
{
	struct dirty_env *env = &self->env;
	struct stall *stall = stall_open();

	if (!stall)
		SKIP(return, "this machine's unit cannot be stopped");
	if (dirty_walker_is_generic_pt(device_bdf))
		SKIP(return, "generic_pt of Linux 7.3.4 splits no leaf that is tracked");

	for (u64 page = 0; page < 3; page++) {
		struct asking asking = { .env = env };
		struct dirty_query query = query_all(&env->area);
		u64 held = stall_held(stall);
		struct dirty_report report;
		pthread_t thread;
		u64 least, most;

		/* Cached as clean, then another page makes the leaf dirty. */
		dirty_read(&env->dev, &env->area, page);
		dirty_write_page(env, self->pages - 1);
		stall_delay(stall, LATE_MS);
		ASSERT_EQ(0, pthread_create(&thread, NULL, ask_once, &asking));
		while (stall_held(stall) == held && !atomic_load(&asking.done))
			;
		/* This report covers it: its pages are copied after the flush. */
		dirty_write(&env->dev, &env->area, page);
		ASSERT_EQ(0, pthread_join(thread, NULL));
		EXPECT_LT(held, stall_held(stall));
		EXPECT_EQ(0, asking.report.missing + asking.report.extra + asking.report.stray);

		/*
		 * Reported once more, with all that was the leaf if the link says so, and then
		 * clean. Where all leaves were split before, the first report is without this page,
		 * so the second one has it; what is mapped again is a whole leaf, all of which the
		 * first one has. A query that clears nothing leaves that for the next one.
		 */
		most = page ? self->pages : self->begun;
		least = split_late() || most < self->pages ? most : 0;
		for (int look = 1; look >= 0; look--) {
			query.flags = look ? IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR : 0;
			report = dirty_query(env, env->hwpt, &env->area, query, &env->none);
			EXPECT_EQ(0, report.stray);
			EXPECT_LE(least, report.extra);
			EXPECT_GE(most, report.extra);
		}
		EXPECT_EXACT(dirty_query(env, env->hwpt, &env->area, query, &env->none));

		/* The page is still tracked, with whatever leaf it has. */
		dirty_write_page(env, page);
		report = dirty_query(env, env->hwpt, &env->area, query_part(page, 1),
				     &env->written);
		EXPECT_EXACT(report);
		EXPECT_EQ(1, report.set);
		dirty_area_remap(env, &env->area);
		page_set_clear(&env->written);
	}
	stall_close(stall);
}

/**
 * struct ending - Tracking is switched off by another thread
 * @env: of what
 * @done: whether that is over
 */
struct ending {
	struct dirty_env *env;
	atomic_bool done;
};

static void *end_tracking(void *data)
{
	struct ending *ending = data;

	hwpt_set_dirty(ending->env, ending->env->hwpt, false);
	atomic_store(&ending->done, true);

	return NULL;
}

/*
 * The device writes before each flush of the end of tracking, also that of the join: it follows
 * the links that the unit has cached, and what these lead to has to be there until then.
 */
TEST_F(dirty_split, written_before_the_join_is_flushed)
{
	struct dirty_env *env = &self->env;
	struct stall *stall = stall_open();
	struct ending ending = { .env = env };
	u64 held, page = 11;
	pthread_t thread;

	if (!stall)
		SKIP(return, "this machine's unit cannot be stopped");
	if (dirty_walker_is_generic_pt(device_bdf))
		SKIP(return, "generic_pt of Linux 7.3.4 joins nothing");

	EXPECT_SHRINKS(env, page, self->begun);
	held = stall_held(stall);
	stall_stop(stall, true);
	ASSERT_EQ(0, pthread_create(&thread, NULL, end_tracking, &ending));
	while (!atomic_load(&ending.done)) {
		u64 commands;

		if (stall_held(stall) == held)
			continue;
		/* A page that is not cached, beside one that is. */
		EXPECT_EQ(0, __dirty_write(&env->dev, &env->area, ++page));
		held = stall_held(stall);
		commands = stall_commands(stall);
		stall_stop(stall, false);
		while (stall_commands(stall) == commands)
			;
		stall_stop(stall, true);
	}
	stall_stop(stall, false);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	TH_LOG("%lu flushes", page - 11);
	if (split_parameter())
		EXPECT_LT(11, page);
	dirty_write(&env->dev, &env->area, page + 1);
	stall_close(stall);
}

/* When parts have been joined and the leaf is unmapped, no cached link leads to a part. */
TEST_F(dirty_split, joined_and_unmapped)
{
	struct dirty_env *env = &self->env;
	struct dirty_area *area = &env->area;

	EXPECT_SHRINKS(env, 11, self->begun);
	hwpt_set_dirty(env, env->hwpt, false);
	ASSERT_EQ(0, __iommu_unmap(env->iommu, &area->region, NULL));
	split_forget(env, area->region.iova, area->region.size);
	for (u64 page = 10; page < 13; page++)
		EXPECT_NE(0, __dirty_write(&env->dev, area, page));

	iommu_map(env->iommu, &area->region);
	dirty_write(&env->dev, area, 12);
}

/* More than one leaf, which would need too much memory with 1G. */
FIXTURE(dirty_split_two) {
	struct dirty_env env;
};

FIXTURE_SETUP(dirty_split_two)
{
	const char *skip = dirty_env_open(&self->env, device_bdf, SZ_2M);

	if (skip)
		SKIP(return, "%s", skip);

	hwpt_set_dirty(&self->env, self->env.hwpt, true);
}

FIXTURE_TEARDOWN(dirty_split_two)
{
	dirty_env_close(&self->env);
}

/* The other leaves stay whole until they are written, too. */
TEST_F(dirty_split_two, others_stay)
{
	struct dirty_env *env = &self->env;
	u64 begun = split_begun(TABLE_PAGES);

	EXPECT_SHRINKS(env, 3, begun);
	EXPECT_SHRINKS(env, TABLE_PAGES + 3, begun);
	dirty_write_page(env, 3);
	EXPECT_REPORTED(env, 2 * TABLE_PAGES + 3, begun + smaller(begun));
}

/*
 * Pages that are mapped one by one and lie side by side in memory are no parts of a leaf: each can
 * be unmapped after tracking has ended.
 */
TEST_F(dirty_split_two, mapped_by_pages)
{
	u64 places[] = { 0, 7, TABLE_PAGES - 1 };
	struct dirty_env *env = &self->env;
	struct dirty_area area;

	leaves_place(&area, leaves_alloc(SZ_2M, SZ_2M), iova_allocator_alloc(env->iova, SZ_2M),
		     SZ_2M, PAGE_4K);
	leaves_map_pages(env, &area);
	split_forget(env, area.region.iova, area.region.size);
	hwpt_set_dirty(env, env->hwpt, false);

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		struct dma_region page = {
			.vaddr = dirty_area_page(&area, places[i]),
			.iova = area.region.iova + places[i] * PAGE_4K,
			.size = PAGE_4K,
		};
		u64 unmapped = 0;

		INIT_LIST_HEAD(&page.link);
		dirty_write(&env->dev, &area, places[i]);
		ASSERT_EQ(0, __iommu_unmap(env->iommu, &page, &unmapped));
		EXPECT_EQ(PAGE_4K, unmapped);
		EXPECT_NE(0, __dirty_write(&env->dev, &area, places[i]));
		dirty_write(&env->dev, &area, 1 + places[i] % 8);
	}
	leaves_unmap(env, &area);
	ASSERT_EQ(0, munmap(area.region.vaddr, area.region.size));
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
