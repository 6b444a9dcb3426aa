// SPDX-License-Identifier: GPL-2.0
/*
 * Leaves of AMD's host tables that are a row of entries, 8K to 1M (AMD I/O
 * Virtualization specification, 2.2.3): hardware marks the entry that the address
 * indexes, and no other. For any entry the whole leaf is reported once; and after the
 * leaf is replaced, no entry may lead to its old memory.
 *
 * Runs where tables are of that format, and fails where they are not.
 */
#include <string.h>
#include <sys/mman.h>

#include "lib/harness.h"
#include "lib/leaves.h"
#include "lib/split.h"

static const char *device_bdf;

FIXTURE(leaf_rows) {
	struct dirty_env env;
	struct dirty_area leaf;
	struct page_set written;
};

FIXTURE_VARIANT(leaf_rows) {
	u64 size;
};

FIXTURE_VARIANT_ADD(leaf_rows, leaf_8k) { .size = SZ_8K, };
FIXTURE_VARIANT_ADD(leaf_rows, leaf_16k) { .size = SZ_16K, };
FIXTURE_VARIANT_ADD(leaf_rows, leaf_64k) { .size = SZ_64K, };
FIXTURE_VARIANT_ADD(leaf_rows, leaf_256k) { .size = SZ_256K, };
FIXTURE_VARIANT_ADD(leaf_rows, leaf_1m) { .size = SZ_1M, };

FIXTURE_SETUP(leaf_rows)
{
	struct dirty_env *env = &self->env;
	u64 iova;

	ASSERT_EQ(NULL, dirty_env_open(env, device_bdf, SZ_2M));
	/* Not at the start of a table: the second leaf that fits there. */
	iova = iova_allocator_alloc(env->iova, SZ_2M) + variant->size % SZ_1M;
	leaves_place(&self->leaf, leaves_alloc(SZ_2M, SZ_2M), iova, variant->size, variant->size);
	self->written = page_set_alloc(&self->leaf);
	leaves_map(env, &self->leaf);
	hwpt_set_dirty(env, env->hwpt, true);
}

FIXTURE_TEARDOWN(leaf_rows)
{
	leaves_unmap(&self->env, &self->leaf);
	munmap(self->leaf.region.vaddr, SZ_2M);
	page_set_free(&self->written);
	dirty_env_close(&self->env);
}

static struct dirty_report ask(FIXTURE_DATA(leaf_rows) *self, u32 flags)
{
	struct dirty_query query = query_all(&self->leaf);

	query.flags = flags;
	return dirty_query(&self->env, self->env.hwpt, &self->leaf, query, &self->written);
}

/* D in each single entry in turn. */
TEST_F(leaf_rows, one_entry)
{
	for (u64 page = 0; page < self->leaf.nr_pages; page++) {
		struct dirty_report report;

		dirty_write(&self->env.dev, &self->leaf, page);
		page_set_add(&self->written, page);
		report = ask(self, IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR);
		EXPECT_EXACT(report);
		/* It is one leaf, and has become one of each entry where leaves are split. */
		EXPECT_EQ(page && split_parameter() ? 1 : self->leaf.nr_pages, report.set);
		EXPECT_EXACT(ask(self, 0));
		page_set_clear(&self->written);
		EXPECT_EXACT(ask(self, 0));
	}
}

/* D in all entries; one query makes the leaf clean. */
TEST_F(leaf_rows, all_entries)
{
	for (u64 page = 0; page < self->leaf.nr_pages; page++)
		dirty_write(&self->env.dev, &self->leaf, page);
	page_set_add(&self->written, 0);
	EXPECT_EXACT(ask(self, 0));
	page_set_clear(&self->written);
	EXPECT_EXACT(ask(self, 0));
}

/*
 * A query is for one page of the leaf. Hardware may have noted a write to another page in the entry
 * of this one, or the other way round: what is not reported stays dirty.
 */
TEST_F(leaf_rows, cut)
{
	u64 last = self->leaf.nr_pages - 1;
	struct dirty_env *env = &self->env;
	struct dirty_report report;

	if (dirty_walker_is_generic_pt(device_bdf))
		SKIP(return, "generic_pt of Linux 7.3.4 loses pages of a leaf that is cut");

	dirty_write(&env->dev, &self->leaf, last);
	page_set_add(&self->written, last);
	report = dirty_query(env, env->hwpt, &self->leaf, query_part(last, 1), &self->written);
	EXPECT_EXACT(report);
	EXPECT_EQ(1, report.set);
	/* Where leaves are split, that one is clean now. */
	if (split_parameter())
		page_set_clear(&self->written);
	report = ask(self, 0);
	EXPECT_EXACT(report);
	EXPECT_EQ(last + !split_parameter(), report.set);
	page_set_clear(&self->written);
	EXPECT_EXACT(ask(self, 0));
}

/*
 * Replaced by pages, and by a leaf again: each leads to the new memory, and is clean.
 */
TEST_F(leaf_rows, replaced)
{
	struct dirty_env *env = &self->env;
	struct dirty_area other;
	struct page_set set;
	void *vaddr = leaves_alloc(PAGE_4K, variant->size);

	leaves_place(&other, vaddr, self->leaf.region.iova, variant->size, PAGE_4K);
	set = page_set_alloc(&other);
	for (int round = 0; round < 2; round++) {
		for (u64 page = 0; page < self->leaf.nr_pages; page++)
			dirty_write(&env->dev, &self->leaf, page);
		leaves_unmap(env, &self->leaf);

		leaves_map_pages(env, &other);
		page_set_clear(&set);
		EXPECT_EXACT(dirty_query(env, env->hwpt, &other, query_all(&other), &set));
		for (u64 page = 0; page < other.nr_pages; page++) {
			dirty_write(&env->dev, &other, page);
			page_set_add(&set, page);
		}
		EXPECT_EXACT(dirty_query(env, env->hwpt, &other, query_all(&other), &set));
		leaves_unmap(env, &other);

		leaves_map(env, &self->leaf);
		EXPECT_EXACT(ask(self, 0));
	}
	page_set_free(&set);
	munmap(vaddr, variant->size);
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
