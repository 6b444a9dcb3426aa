// SPDX-License-Identifier: GPL-2.0
/*
 * Asks for a dirty bitmap into memory surrounded by guards, and compares it bit
 * by bit with what is known to have been written.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <linux/align.h>
#include <linux/bits.h>
#include <linux/kernel.h>

#include "report.h"
#include "split.h"

/* The number of differences printed in full; a test that loops has many of one kind. */
#define MAX_NOTES 12

/* Stray bits land within pages that the kernel pinned: cover them all. */
#define GUARD_SIZE (16 * PAGE_4K)

struct page_set page_set_alloc(struct dirty_area *area)
{
	return (struct page_set){
		.nr = area->nr_pages,
		.in = calloc_assert(area->nr_pages, 1),
	};
}

void page_set_free(struct page_set *set)
{
	free(set->in);
	set->in = NULL;
}

void page_set_clear(struct page_set *set)
{
	memset(set->in, 0, set->nr);
}

void page_set_add(struct page_set *set, u64 page)
{
	VFIO_ASSERT_LT(page, set->nr);
	set->in[page] = 1;
}

u64 page_set_add_random(struct page_set *set, u64 *seed)
{
	u64 page = dirty_random(seed) % set->nr;

	page_set_add(set, page);
	return page;
}

struct dirty_query query_part(u64 first, u64 nr)
{
	return (struct dirty_query){
		.first = first,
		.nr = nr,
		.unit = PAGE_4K,
	};
}

struct dirty_query query_all(struct dirty_area *area)
{
	return query_part(0, area->nr_pages);
}

/* Of whole pages, so of whole words; nearly all of them are 0. */
static u64 count_bits(const u8 *bytes, u64 size)
{
	const u64 *words = (const u64 *)bytes;
	u64 count = 0;

	for (u64 i = 0; i < size / sizeof(*words); i++) {
		if (words[i])
			count += __builtin_popcountll(words[i]);
	}

	return count;
}

/*
 * Counts the bits of @a that are not in @b, and reports the first. Both have a
 * word of padding after their end, which is read but ignored.
 */
static u64 count_beyond(const u8 *a, const u8 *b, u64 nr_bits, u64 *first)
{
	u64 count = 0;

	for (u64 at = 0; at < nr_bits; at += 64) {
		u64 word, other;

		memcpy(&word, a + at / 8, sizeof(word));
		memcpy(&other, b + at / 8, sizeof(other));
		word &= ~other;
		if (nr_bits - at < 64)
			word &= BIT_ULL(nr_bits - at) - 1;
		if (!word)
			continue;

		if (!count)
			*first = at + __builtin_ctzll(word);
		count += __builtin_popcountll(word);
	}

	return count;
}

static void set_bits(u8 *bits, u64 first, u64 last)
{
	for (u64 i = first; i <= last;) {
		if (i % 8 || last - i < 7) {
			bits[i / 8] |= 1 << (i % 8);
			i++;
		} else {
			memset(bits + i / 8, 0xff, (last + 1 - i) / 8);
			i += (last + 1 - i) / 8 * 8;
		}
	}
}

static void note(const char *what, u64 count, u64 first_bit,
		 struct dirty_query *query)
{
	static int notes;

	if (!count || ++notes > MAX_NOTES)
		return;

	if (notes == MAX_NOTES) {
		fprintf(stderr, "# further differences are not shown\n");
		return;
	}

	fprintf(stderr,
		"# %llu bits %s, the first is bit %llu of pages %llu..%llu, unit %llu\n",
		(unsigned long long)count, what, (unsigned long long)first_bit,
		(unsigned long long)query->first,
		(unsigned long long)(query->first + query->nr - 1),
		(unsigned long long)query->unit);
}

/*
 * The expected answer: the bits of each unit that a dirty leaf touches. The hardware sets D per
 * leaf: one write makes all its pages dirty.
 */
static u8 *expected_bits(struct dirty_env *env, u32 hwpt, struct dirty_area *area,
			 struct dirty_query *query, struct page_set *written, u64 nr_bits)
{
	bool clears = !(query->flags & IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR);
	u8 *bits = calloc_assert(DIV_ROUND_UP(nr_bits, 8) + sizeof(u64), 1);
	u64 pages_per_bit = query->unit / PAGE_4K;
	u64 nr = nr_bits * pages_per_bit;
	u8 *reported, *run, *behind;

	reported = split_report(env, hwpt, area, written, query->first, query->nr, clears);
	for (u64 page = 0; page < nr; page = behind - reported) {
		run = memchr(reported + page, 1, nr - page);
		if (!run)
			break;
		behind = memchr(run, 0, reported + nr - run);
		if (!behind)
			behind = reported + nr;
		set_bits(bits, (run - reported) / pages_per_bit,
			 (behind - 1 - reported) / pages_per_bit);
	}

	free(reported);
	return bits;
}

static struct dirty_report compare(struct dirty_env *env, u32 hwpt,
				   struct dirty_area *area,
				   struct dirty_query *query,
				   struct page_set *written, const u8 *bits,
				   u64 nr_bits)
{
	u8 *expected = expected_bits(env, hwpt, area, query, written, nr_bits);
	u8 *none = calloc_assert(DIV_ROUND_UP(nr_bits, 8) + sizeof(u64), 1);
	u64 first_missing = 0, first_extra = 0, first = 0;
	struct dirty_report report = {};

	report.set = count_beyond(bits, none, nr_bits, &first);
	report.missing = count_beyond(expected, bits, nr_bits, &first_missing);
	report.extra = count_beyond(bits, expected, nr_bits, &first_extra);

	free(none);
	free(expected);
	note("missing", report.missing, first_missing, query);
	note("set without a write", report.extra, first_extra, query);

	return report;
}

struct dirty_report dirty_query(struct dirty_env *env, u32 hwpt,
				struct dirty_area *area,
				struct dirty_query query,
				struct page_set *written)
{
	u64 nr_bits = query.nr * PAGE_4K / query.unit;
	u64 nr_bytes = DIV_ROUND_UP(nr_bits, 8);
	u64 size = 2 * GUARD_SIZE + ALIGN(query.offset + nr_bytes, PAGE_4K);
	struct iommu_hwpt_get_dirty_bitmap cmd;
	struct dirty_report report;
	u8 *memory, *bits;

	memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	VFIO_ASSERT_NE(memory, (u8 *)MAP_FAILED);
	bits = memory + GUARD_SIZE + query.offset;

	cmd = (struct iommu_hwpt_get_dirty_bitmap){
		.hwpt_id = hwpt,
		.flags = query.flags,
		.iova = area->region.iova + query.first * PAGE_4K,
		.length = query.nr * PAGE_4K,
		.page_size = query.unit,
		.data = (uintptr_t)bits,
	};
	VFIO_ASSERT_EQ(__hwpt_get_dirty(env->iommu->iommufd, &cmd), 0);

	report = compare(env, hwpt, area, &query, written, bits, nr_bits);
	report.stray = count_bits(memory, size) - report.set;
	note("outside the bitmap", report.stray, nr_bits, &query);

	VFIO_ASSERT_EQ(munmap(memory, size), 0);
	return report;
}

struct dirty_report dirty_ask(struct dirty_env *env, u32 hwpt,
			      struct page_set *expected)
{
	return dirty_query(env, hwpt, &env->area, query_all(&env->area), expected);
}

/*
 * A leaf is cleared only by a query that covers all of it. Where leaves are split, each page of
 * the query is in such a leaf.
 */
static void page_set_forget(struct dirty_env *env, struct dirty_query *query)
{
	u64 pages = split_can(env, env->hwpt) ? 1 : env->area.leaf / PAGE_4K;
	u64 end = query->first + query->nr;

	if (query->flags & IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR)
		return;

	for (u64 page = roundup(query->first, pages); page + pages <= end;
	     page += pages)
		memset(env->written.in + page, 0, pages);
}

struct dirty_report dirty_harvest(struct dirty_env *env,
				  struct dirty_query query)
{
	struct dirty_report report;

	report = dirty_query(env, env->hwpt, &env->area, query, &env->written);
	page_set_forget(env, &query);

	return report;
}

void dirty_write_page(struct dirty_env *env, u64 page)
{
	page_set_add(&env->written, page);
	dirty_write(&env->dev, &env->area, page);
}

void dirty_write_random(struct dirty_env *env, u64 nr)
{
	dirty_write_random_by(env, &env->dev, &env->written, nr);
}

/* @dev writes pages of the area, which are added to @set. */
void dirty_write_random_by(struct dirty_env *env, struct dirty_dev *dev,
			   struct page_set *set, u64 nr)
{
	while (nr--)
		dirty_write(dev, &env->area,
			    page_set_add_random(set, &env->seed));
}
