// SPDX-License-Identifier: GPL-2.0
/*
 * Leaves of 2M, 1G and 2M are mapped and unmapped between pages of 4K, which stay and
 * keep their dirty bits; and leaves whose memory looks like page tables, which no walk
 * may follow.
 */
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include <linux/bits.h>
#include <linux/mman.h>

#include "lib/harness.h"
#include "lib/leaves.h"

/* Pages on either side. */
#define NR_PAGES 16
#define NR_PARTS 3
#define BETWEEN_SIZE (SZ_2M + SZ_1G + SZ_2M)

static const char *device_bdf;

FIXTURE(dirty_neighbours) {
	struct dirty_env env;
	/* Pages directly below and above the leaves that come and go. */
	struct dirty_area side[2];
	struct page_set written[2];
	/* The leaves that come and go, in one call, and one by one. */
	struct dirty_area between;
	struct dirty_area part[NR_PARTS];
};

static const u64 part_sizes[NR_PARTS] = { SZ_2M, SZ_1G, SZ_2M };

/* Huge pages of several sizes in a row. */
static void *between_alloc(void)
{
	char *vaddr = mmap_reserve(BETWEEN_SIZE, SZ_1G, SZ_1G - SZ_2M);
	char *at = vaddr;

	for (int i = 0; i < NR_PARTS; i++) {
		int flags = MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED | MAP_HUGETLB;

		flags |= part_sizes[i] == SZ_1G ? MAP_HUGE_1GB : MAP_HUGE_2MB;
		if (mmap(at, part_sizes[i], PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED) {
			munmap(vaddr, BETWEEN_SIZE);
			return NULL;
		}
		at += part_sizes[i];
	}

	return vaddr;
}

FIXTURE_SETUP(dirty_neighbours)
{
	struct dirty_env *env = &self->env;
	const char *skip = dirty_env_open(env, device_bdf, SZ_2M);
	u64 size = NR_PAGES * PAGE_4K, iova;
	char *vaddr;

	if (skip)
		SKIP(return, "%s", skip);

	vaddr = between_alloc();
	if (!vaddr)
		SKIP(return, "needs a free huge page of 1 GiB, see /sys/kernel/mm/hugepages");

	/* The leaf of 1G is the second one of these four. */
	iova = iova_allocator_alloc(env->iova, 4ULL * SZ_1G) + SZ_1G - SZ_2M;
	leaves_place(&self->between, vaddr, iova, BETWEEN_SIZE, PAGE_4K);
	leaves_place(&self->side[0], leaves_alloc(PAGE_4K, size), iova - size, size, PAGE_4K);
	leaves_place(&self->side[1], leaves_alloc(PAGE_4K, size), iova + BETWEEN_SIZE, size,
		     PAGE_4K);
	for (int i = 0; i < NR_PARTS; i++) {
		leaves_place(&self->part[i], vaddr, iova, part_sizes[i], part_sizes[i]);
		vaddr += part_sizes[i];
		iova += part_sizes[i];
	}
	for (int i = 0; i < 2; i++) {
		self->written[i] = page_set_alloc(&self->side[i]);
		leaves_map_pages(env, &self->side[i]);
	}
	hwpt_set_dirty(env, env->hwpt, true);
}

FIXTURE_TEARDOWN(dirty_neighbours)
{
	for (int i = 0; i < 2; i++) {
		if (!self->side[i].region.vaddr)
			continue;
		dirty_area_unmap(&self->env, &self->side[i]);
		page_set_free(&self->written[i]);
	}
	if (self->between.region.vaddr)
		munmap(self->between.region.vaddr, BETWEEN_SIZE);
	dirty_env_close(&self->env);
}

/* The pages next to the leaves that come and go, and some others. */
static void write_sides(FIXTURE_DATA(dirty_neighbours) *self)
{
	u64 next[] = { NR_PAGES - 1, 0 };

	for (int i = 0; i < 2; i++) {
		page_set_clear(&self->written[i]);
		page_set_add(&self->written[i], next[i]);
		dirty_write(&self->env.dev, &self->side[i], next[i]);
		for (int n = 0; n < 3; n++)
			dirty_write(&self->env.dev, &self->side[i],
				    page_set_add_random(&self->written[i], &self->env.seed));
	}
}

static struct dirty_report ask_side(FIXTURE_DATA(dirty_neighbours) *self, int i, u32 flags)
{
	struct dirty_query query = query_all(&self->side[i]);

	query.flags = flags;
	return dirty_query(&self->env, self->env.hwpt, &self->side[i], query, &self->written[i]);
}

/* Exactly the written pages, which are clean afterwards. */
static void expect_sides(FIXTURE_DATA(dirty_neighbours) *self, struct __test_metadata *_metadata)
{
	for (int i = 0; i < 2; i++) {
		EXPECT_EXACT(ask_side(self, i, IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR));
		EXPECT_EXACT(ask_side(self, i, 0));
		page_set_clear(&self->written[i]);
		EXPECT_EXACT(ask_side(self, i, 0));
	}
}

/* The device writes the last page of a leaf, for which the whole leaf is dirty, once. */
static void expect_part_tracked(FIXTURE_DATA(dirty_neighbours) *self, int i,
				struct __test_metadata *_metadata)
{
	struct dirty_area *part = &self->part[i];
	struct page_set set = page_set_alloc(part);
	struct dirty_env *env = &self->env;

	page_set_add(&set, set.nr - 1);
	dirty_write(&env->dev, part, set.nr - 1);
	EXPECT_EXACT(dirty_query(env, env->hwpt, part, query_all(part), &set));
	page_set_clear(&set);
	EXPECT_EXACT(dirty_query(env, env->hwpt, part, query_all(part), &set));
	page_set_free(&set);
}

TEST_F(dirty_neighbours, stay_dirty)
{
	for (int round = 0; round < 3; round++) {
		write_sides(self);
		leaves_map(&self->env, &self->between);
		for (int i = 0; i < NR_PARTS && round; i++)
			expect_part_tracked(self, i, _metadata);
		leaves_unmap(&self->env, &self->between);
		expect_sides(self, _metadata);
	}
}

/* They are written while the large leaves are mapped, and queried while they are not. */
TEST_F(dirty_neighbours, written_between)
{
	for (int round = 0; round < 2; round++) {
		leaves_map(&self->env, &self->between);
		write_sides(self);
		leaves_unmap(&self->env, &self->between);
		expect_sides(self, _metadata);
		write_sides(self);
		leaves_map(&self->env, &self->between);
		expect_sides(self, _metadata);
		leaves_unmap(&self->env, &self->between);
	}
}

/* A table of pages and a leaf of 2M in turn, at the same addresses. */
TEST_F(dirty_neighbours, table_and_leaf_in_turn)
{
	struct dirty_area pages;
	struct page_set set;
	void *vaddr = leaves_alloc(PAGE_4K, SZ_2M);

	leaves_place(&pages, vaddr, self->part[0].region.iova, SZ_2M, PAGE_4K);
	set = page_set_alloc(&pages);
	for (int round = 0; round < 3; round++) {
		write_sides(self);
		leaves_map_pages(&self->env, &pages);
		page_set_clear(&set);
		for (int n = 0; n < 4; n++)
			dirty_write(&self->env.dev, &pages,
				    page_set_add_random(&set, &self->env.seed));
		EXPECT_EXACT(dirty_query(&self->env, self->env.hwpt, &pages, query_all(&pages),
					 &set));
		leaves_unmap(&self->env, &pages);
		leaves_map(&self->env, &self->part[0]);
		expect_part_tracked(self, 0, _metadata);
		leaves_unmap(&self->env, &self->part[0]);
		expect_sides(self, _metadata);
	}
	page_set_free(&set);
	munmap(vaddr, SZ_2M);
}

/*
 * Words that are present, dirty, and lead to other tables or to pages, without the
 * address: of VT-d's second stage (VT-d specification, 9.8), of x86-64 as in its first
 * stage and in AMD's guest tables, and of AMD's host tables with a next level of 0, 1
 * and 2 (AMD I/O Virtualization specification, 2.2.3).
 */
static const u64 like_entries[] = {
	BIT(0) | BIT(1) | BIT(8) | BIT(9),
	BIT(0) | BIT(1) | BIT(2) | BIT(5) | BIT(6),
	BIT(0) | BIT(5) | BIT(6) | BIT_ULL(61) | BIT_ULL(62),
	BIT(0) | BIT(5) | BIT(6) | BIT(9) | BIT_ULL(61) | BIT_ULL(62),
	BIT(0) | BIT(5) | BIT(6) | BIT(10) | BIT_ULL(61) | BIT_ULL(62),
};

/* As many pages of each leaf as there are levels below, and one. */
#define LIKE_PAGES 4
#define LIKE_SIZE (LIKE_PAGES * PAGE_4K)

/* Each page of the leaf but the last leads to the one behind it. */
static void fill_like_table(struct dirty_area *leaf, u64 bits)
{
	u64 *words = leaf->region.vaddr;

	/* Touched: otherwise it is not allocated yet. */
	memset(words, 0, LIKE_SIZE);
	for (u64 page = 0; page < LIKE_PAGES; page++) {
		u64 next = min_t(u64, page + 1, LIKE_PAGES - 1);
		u64 entry = leaves_physical(leaf->region.vaddr) + next * PAGE_4K;

		for (u64 i = 0; i < PAGE_4K / sizeof(*words); i++)
			*words++ = entry | bits;
	}
}

TEST_F(dirty_neighbours, memory_like_tables)
{
	struct dirty_env *env = &self->env;

	for (size_t kind = 0; kind < ARRAY_SIZE(like_entries); kind++) {
		char before[NR_PARTS][LIKE_SIZE];

		for (int i = 0; i < NR_PARTS; i++) {
			fill_like_table(&self->part[i], like_entries[kind]);
			memcpy(before[i], self->part[i].region.vaddr, LIKE_SIZE);
		}
		leaves_map(env, &self->between);
		for (int i = 0; i < NR_PARTS; i++)
			expect_part_tracked(self, i, _metadata);
		hwpt_set_dirty(env, env->hwpt, false);
		hwpt_set_dirty(env, env->hwpt, true);
		for (int i = 0; i < NR_PARTS; i++)
			expect_part_tracked(self, i, _metadata);
		leaves_unmap(env, &self->between);
		for (int i = 0; i < NR_PARTS; i++)
			EXPECT_EQ(0, memcmp(before[i], self->part[i].region.vaddr, LIKE_SIZE));
	}
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
