// SPDX-License-Identifier: GPL-2.0
/*
 * A device that keeps writing while its dirty bits are harvested.
 *
 * Two counts per leaf, or per page where leaves are split, make each answer
 * checkable, without a lock: @started goes
 * up before the device is told to write, @done after the write has landed.
 *
 *  - A write that started after the last answer and was done before this query
 *    must be in this answer.
 *  - A bit in this answer needs a write to the leaf that overlaps the time between
 *    the start of the last query and the end of this one.
 *
 * And the goal: a copy made only of reported pages ends up identical.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <linux/align.h>

#include "lib/harness.h"
#include "lib/split.h"

#define RUN_SECONDS 4

static const char *device_bdf;

/**
 * struct stress - The state shared by writer and harvester
 * @env: environment
 * @nr_units: what counts are of: leaves, as D is; pages where leaves are split
 * @pages_per_unit: pages of one
 * @units_per_leaf: how many of them a leaf has that the area is mapped with
 * @started: of each unit, writes begun
 * @done: of each unit, writes landed
 * @stop: when to end
 * @error: of the write that failed
 * @writes: how many there were
 */
struct stress {
	struct dirty_env env;
	u64 nr_units;
	u64 pages_per_unit;
	u64 units_per_leaf;
	atomic_uint *started;
	atomic_uint *done;
	atomic_bool stop;
	int error;
	u64 writes;
};

FIXTURE(dirty_stress) {
	struct stress stress;
};

FIXTURE_VARIANT(dirty_stress) {
	u64 leaf;
};

/* A leaf of 1G is one bit of information, and copying it is slow. */
FIXTURE_VARIANT_ADD(dirty_stress, leaf_4k) { .leaf = SZ_4K, };
FIXTURE_VARIANT_ADD(dirty_stress, leaf_2m) { .leaf = SZ_2M, };

FIXTURE_SETUP(dirty_stress)
{
	struct stress *s = &self->stress;
	const char *skip = dirty_env_open(&s->env, device_bdf, variant->leaf);

	if (skip)
		SKIP(return, "%s", skip);

	s->pages_per_unit = split_parameter() ? 1 : variant->leaf / PAGE_4K;
	s->nr_units = s->env.area.nr_pages / s->pages_per_unit;
	s->units_per_leaf = variant->leaf / PAGE_4K / s->pages_per_unit;
	s->started = calloc_assert(s->nr_units, sizeof(*s->started));
	s->done = calloc_assert(s->nr_units, sizeof(*s->done));
}

FIXTURE_TEARDOWN(dirty_stress)
{
	free(self->stress.done);
	free(self->stress.started);
	dirty_env_close(&self->stress.env);
}

/* Half of the writes go to a few pages, as a guest's do. */
static void *writer(void *data)
{
	struct stress *s = data;
	u64 seed = 0x5eed;

	while (!atomic_load(&s->stop)) {
		u64 nr = dirty_random(&seed) % 2 ? 16 : s->env.area.nr_pages;
		u64 page = dirty_random(&seed) % nr * (s->env.area.nr_pages / nr);
		u64 unit = page / s->pages_per_unit;

		atomic_fetch_add(&s->started[unit], 1);
		s->error = __dirty_write(&s->env.dev, &s->env.area, page);
		if (s->error)
			break;
		atomic_fetch_add(&s->done[unit], 1);
		s->writes++;
	}

	return NULL;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/**
 * struct harvest - The accounting of one query after the other
 * @started: of each unit, when the last answer had come
 * @done: of each unit, when the last query was made
 * @copy: copy of the area, of reported pages only
 * @bitmap: the last answer
 * @reported: units reported so far
 * @lost: units written and not reported
 * @spurious: units reported of a leaf that was not written
 * @differs: whether the copy differs from the area in the end
 * @torn: pages that differ from the first page of their unit in the report
 */
struct harvest {
	u32 *started;
	u32 *done;
	u8 *copy;
	u8 *bitmap;
	u64 reported;
	u64 lost;
	u64 spurious;
	u64 torn;
	bool differs;
};

static void load_counts(struct stress *s, atomic_uint *from, u32 *to)
{
	for (u64 i = 0; i < s->nr_units; i++)
		to[i] = atomic_load(&from[i]);
}

/* Whether a write to the leaf of @unit overlaps the time since the last query. */
static bool is_written(struct stress *s, struct harvest *h, u32 *started, u64 unit)
{
	u64 first = unit - unit % s->units_per_leaf;

	for (u64 i = first; i < first + s->units_per_leaf; i++) {
		if (started[i] != h->done[i])
			return true;
	}

	return false;
}

/* Queries, and checks the answer; @done is of a time before it. */
static void check_answer(struct stress *s, struct harvest *h, u32 *done)
{
	struct dirty_area *area = &s->env.area;
	struct iommu_hwpt_get_dirty_bitmap cmd = {
		.hwpt_id = s->env.hwpt,
		.iova = area->region.iova,
		.length = area->region.size,
		.page_size = PAGE_4K,
		.data = (uintptr_t)h->bitmap,
	};
	u64 size = s->pages_per_unit * PAGE_4K;
	u32 *started = malloc_assert(s->nr_units * sizeof(*started));

	memset(h->bitmap, 0, area->nr_pages / 8);
	VFIO_ASSERT_EQ(__hwpt_get_dirty(s->env.iommu->iommufd, &cmd), 0);
	load_counts(s, s->started, started);

	for (u64 i = 0; i < s->nr_units; i++) {
		u64 first = i * s->pages_per_unit;
		bool dirty = h->bitmap[first / 8] & 1 << first % 8;

		for (u64 n = 1; n < s->pages_per_unit; n++) {
			u64 page = first + n;

			h->torn += dirty != !!(h->bitmap[page / 8] & 1 << page % 8);
		}

		h->lost += !dirty && done[i] > h->started[i];
		h->spurious += dirty && !is_written(s, h, started, i);

		if (dirty) {
			h->reported++;
			memcpy(h->copy + i * size, area->region.vaddr + i * size, size);
		}
	}

	memcpy(h->started, started, s->nr_units * sizeof(*started));
	memcpy(h->done, done, s->nr_units * sizeof(*done));
	free(started);
}

static void harvest(struct stress *s, struct harvest *h)
{
	u32 *done = malloc_assert(s->nr_units * sizeof(*done));

	load_counts(s, s->done, done);
	check_answer(s, h, done);
	free(done);
}

/* Switches tracking off, after which everything is reported that was done before. */
static void harvest_last(struct stress *s, struct harvest *h)
{
	u32 *done = malloc_assert(s->nr_units * sizeof(*done));
	u64 spurious = h->spurious;

	load_counts(s, s->done, done);
	hwpt_set_dirty(&s->env, s->env.hwpt, false);
	check_answer(s, h, done);
	/* A leaf that has been split and is joined is dirty. */
	if (split_parameter())
		h->spurious = spurious;
	free(done);
}

/* Switches tracking on. The copy starts after that: every later write is reported. */
static void harvest_init(struct stress *s, struct harvest *h)
{
	u64 size = s->env.area.region.size;

	*h = (struct harvest){
		.started = malloc_assert(s->nr_units * sizeof(u32)),
		.done = malloc_assert(s->nr_units * sizeof(u32)),
		.copy = malloc_assert(size),
		.bitmap = malloc_assert(s->env.area.nr_pages / 8),
	};
	load_counts(s, s->done, h->done);
	hwpt_set_dirty(&s->env, s->env.hwpt, true);
	load_counts(s, s->started, h->started);
	memcpy(h->copy, s->env.area.region.vaddr, size);
}

static void harvest_free(struct harvest *h)
{
	free(h->bitmap);
	free(h->copy);
	free(h->done);
	free(h->started);
}

/* Stops the device, harvests the rest, and checks the whole area. */
static void finish(struct stress *s, struct harvest *h, pthread_t writer)
{
	struct dma_region *region = &s->env.area.region;

	atomic_store(&s->stop, true);
	VFIO_ASSERT_EQ(pthread_join(writer, NULL), 0);
	harvest(s, h);
	h->differs = memcmp(h->copy, region->vaddr, region->size);
}

#define EXPECT_MIGRATED(_stress, _harvest) do {				\
	struct stress *__s = (_stress);					\
	struct harvest *__h = (_harvest);				\
									\
	TH_LOG("%lu writes, %lu units reported", __s->writes,		\
	       __h->reported);						\
	EXPECT_EQ(0, __s->error);					\
	EXPECT_LT(0, __s->writes);					\
	EXPECT_EQ(0, __h->lost);					\
	EXPECT_EQ(0, __h->spurious);					\
	EXPECT_EQ(0, __h->torn);					\
	EXPECT_FALSE(__h->differs);					\
} while (0)

TEST_F(dirty_stress, harvest_while_writing)
{
	struct stress *s = &self->stress;
	pthread_t thread;
	struct harvest h;
	double end;

	harvest_init(s, &h);
	ASSERT_EQ(0, pthread_create(&thread, NULL, writer, s));
	for (end = now() + RUN_SECONDS; now() < end;)
		harvest(s, &h);

	finish(s, &h, thread);
	EXPECT_MIGRATED(s, &h);
	harvest_free(&h);
}

/**
 * struct neighbour - A thread that maps and unmaps beside the area
 * @env: where
 * @region: large enough that tables for it alone are made and freed
 * @stop: when to end
 * @rounds: how often it did
 */
struct neighbour {
	struct dirty_env *env;
	struct dma_region region;
	atomic_bool *stop;
	u64 rounds;
};

static void *map_and_unmap(void *data)
{
	struct neighbour *n = data;

	while (!atomic_load(n->stop)) {
		VFIO_ASSERT_EQ(__iommu_map(n->env->iommu, &n->region), 0);
		VFIO_ASSERT_EQ(__iommu_unmap(n->env->iommu, &n->region, NULL), 0);
		n->rounds++;
	}

	return NULL;
}

/* Tables beside the area are made and freed while harvests walk the area. */
TEST_F(dirty_stress, harvest_while_mapping)
{
	struct stress *s = &self->stress;
	struct neighbour n = {
		.env = &s->env,
		.stop = &s->stop,
		.region.size = SZ_4M,
	};
	pthread_t threads[2];
	struct harvest h;
	double end;

	n.region.vaddr = mmap(NULL, n.region.size, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, n.region.vaddr);
	n.region.iova = iova_allocator_alloc(s->env.iova, n.region.size);

	harvest_init(s, &h);
	ASSERT_EQ(0, pthread_create(&threads[0], NULL, writer, s));
	ASSERT_EQ(0, pthread_create(&threads[1], NULL, map_and_unmap, &n));
	for (end = now() + RUN_SECONDS; now() < end;)
		harvest(s, &h);

	finish(s, &h, threads[0]);
	ASSERT_EQ(0, pthread_join(threads[1], NULL));
	EXPECT_MIGRATED(s, &h);
	EXPECT_LT(0, n.rounds);
	harvest_free(&h);
}

/* Switched while the device writes; once tracking stays on, nothing is lost. */
TEST_F(dirty_stress, toggle_while_writing)
{
	struct stress *s = &self->stress;
	pthread_t thread;
	struct harvest h;

	ASSERT_EQ(0, pthread_create(&thread, NULL, writer, s));
	for (int i = 0; i < 200; i++)
		hwpt_set_dirty(&s->env, s->env.hwpt, i % 2);

	harvest_init(s, &h);
	for (double end = now() + RUN_SECONDS / 2; now() < end;)
		harvest(s, &h);

	finish(s, &h, thread);
	EXPECT_MIGRATED(s, &h);
	harvest_free(&h);
}

/* Each time that tracking is on, every write is accounted for until it is off. */
TEST_F(dirty_stress, on_off_on_while_writing)
{
	struct stress *s = &self->stress;
	struct harvest h;
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, writer, s));
	for (int round = 0; round < 4; round++) {
		harvest_init(s, &h);
		for (double end = now() + RUN_SECONDS / 4.0; now() < end;)
			harvest(s, &h);
		if (round == 3)
			break;
		harvest_last(s, &h);
		TH_LOG("%lu units reported", h.reported);
		EXPECT_EQ(0, h.lost);
		EXPECT_EQ(0, h.spurious);
		EXPECT_EQ(0, h.torn);
		harvest_free(&h);
		for (double end = now() + RUN_SECONDS / 16.0; now() < end;)
			;
	}

	finish(s, &h, thread);
	EXPECT_MIGRATED(s, &h);
	harvest_free(&h);
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
