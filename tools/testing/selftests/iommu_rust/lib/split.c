// SPDX-License-Identifier: GPL-2.0
/*
 * A model of the leaves that a page table has. It begins with the leaves that an area is mapped
 * with. If the driver is to (a leaf size in bytes), all are split when tracking begins. While it
 * lasts, a query that clears splits the leaves that it finds dirty, if the driver does so at all:
 *
 *  - A leaf that lies wholly in the query is reported, and its parts are clean: one level each
 *    time.
 *  - A leaf that the query cuts is split down to where it is cut. All parts are dirty, those in
 *    the query are reported and become clean, and are not split again by this query.
 *
 * When tracking ends, what was split is joined.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <linux/kernel.h>
#include <linux/log2.h>

#include "observe.h"
#include "split.h"

/* As a power of two, the entries of a table. */
#define TABLE_ORDER 9

/**
 * struct table - A page table
 * @iommu: its environment
 * @hwpt: its number there; 0 when it is gone
 * @parameter: what the driver's parameter was when it was allocated
 * @has_begun: whether tracking has begun,
 * @is_over: and has ended
 * @event: when it began last
 * @next: another one
 */
struct table {
	struct iommu *iommu;
	u32 hwpt;
	u64 parameter;
	bool has_begun;
	bool is_over;
	u64 event;
	struct table *next;
};

/**
 * struct leaves - The leaves of an area in one page table
 * @table: which
 * @iova: where the area is
 * @nr: its pages
 * @mapped: of each leaf that it is mapped with, how many pages it has, as a power of two
 * @order: of each page, how many pages the leaf has that maps it, as a power of two
 * @kept: pages that are dirty because the leaf was that they were part of
 * @next: of another area, or in another page table
 */
struct leaves {
	struct table *table;
	u64 iova;
	u64 nr;
	u8 mapped;
	u8 *order;
	u8 *kept;
	struct leaves *next;
};

/* Of all that follows. Tests change page tables in several threads. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct leaves *all;

/* What happened to page tables and addresses, in their order. */
static u64 events;

/* Addresses that have changed. */
struct changed {
	struct iommu *iommu;
	u64 first;
	u64 last;
	u64 event;
	struct changed *next;
};

static struct table *all_tables;
static struct changed *all_changed;

/* What a test has told the driver, unless it is still what it was loaded with. */
static u64 chosen;
static bool is_chosen;

u64 split_parameter(void)
{
	const char *word = getenv("MODULE_PARAMETERS");

	if (is_chosen)
		return chosen;
	word = word ? strstr(word, "split=") : NULL;
	return word ? strtoull(word + strlen("split="), NULL, 0) : 0;
}

bool split_late(void)
{
	return getenv("LATE_FLAGS");
}

void split_choose(u64 parameter)
{
	observe_write(parameter, SPLIT_FILE);
	pthread_mutex_lock(&lock);
	chosen = parameter;
	is_chosen = true;
	pthread_mutex_unlock(&lock);
}

static u8 part_order(u8 order)
{
	return order ? (order - 1) / TABLE_ORDER * TABLE_ORDER : 0;
}

u64 split_pages(u64 pages)
{
	return 1ULL << part_order(ilog2(pages));
}

static void split(struct leaves *leaves, u64 first, u64 end)
{
	memset(leaves->order + first, part_order(leaves->order[first]), end - first);
}

/* Down to leaves of the size that the driver was told. */
static u8 begun_order(u8 order, u64 bytes)
{
	while (bytes >= PAGE_4K && order && (PAGE_4K << order) > bytes)
		order = part_order(order);

	return order;
}

u64 split_begun(u64 pages)
{
	return 1ULL << begun_order(ilog2(pages), split_parameter());
}

/* The entries of a row are dirty after that: a write may have been noted in any of them. */
static void split_all(struct leaves *leaves)
{
	for (u64 page = 0; page < leaves->nr; page++) {
		u8 order = begun_order(leaves->order[page], leaves->table->parameter);

		if (order != leaves->order[page] && leaves->order[page] % TABLE_ORDER)
			leaves->kept[page] = 1;
		leaves->order[page] = order;
	}
}

static void join_all(struct leaves *leaves)
{
	u64 pages = 1ULL << leaves->mapped;

	for (u64 page = 0; page < leaves->nr; page += pages) {
		if (leaves->order[page] == leaves->mapped)
			continue;
		memset(leaves->order + page, leaves->mapped, pages);
		memset(leaves->kept + page, 1, pages);
	}
}

static struct table *find_table(struct iommu *iommu, u32 hwpt)
{
	struct table *table = all_tables;

	while (table && (table->iommu != iommu || table->hwpt != hwpt))
		table = table->next;

	return table;
}

static struct table *table_of(struct iommu *iommu, u32 hwpt)
{
	struct table *table = find_table(iommu, hwpt);

	if (table)
		return table;

	table = calloc_assert(1, sizeof(*table));
	table->iommu = iommu;
	table->hwpt = hwpt;
	table->parameter = split_parameter();
	table->next = all_tables;
	all_tables = table;

	return table;
}

bool split_can(struct dirty_env *env, u32 hwpt)
{
	bool can;

	pthread_mutex_lock(&lock);
	can = table_of(env->iommu, hwpt)->parameter;
	pthread_mutex_unlock(&lock);

	return can;
}

static bool is_tracked(struct table *table)
{
	return table->has_begun && !table->is_over;
}

/* Whether it was mapped before tracking began. */
static bool was_there(struct leaves *leaves)
{
	struct table *table = leaves->table;
	u64 last = leaves->iova + leaves->nr * PAGE_4K - 1;

	if (!table->has_begun)
		return false;
	for (struct changed *change = all_changed; change; change = change->next) {
		if (change->iommu == table->iommu && change->event > table->event &&
		    change->first <= last && leaves->iova <= change->last)
			return false;
	}

	return true;
}

static struct leaves *leaves_of(struct iommu *iommu, u32 hwpt, struct dirty_area *area)
{
	struct table *table = table_of(iommu, hwpt);
	struct leaves *leaves;

	for (leaves = all; leaves; leaves = leaves->next) {
		if (leaves->table == table && leaves->iova == area->region.iova &&
		    leaves->nr == area->nr_pages)
			return leaves;
	}

	leaves = calloc_assert(1, sizeof(*leaves));
	leaves->table = table;
	leaves->iova = area->region.iova;
	leaves->nr = area->nr_pages;
	leaves->order = malloc_assert(leaves->nr);
	leaves->mapped = ilog2(area->leaf / PAGE_4K);
	memset(leaves->order, leaves->mapped, leaves->nr);
	leaves->kept = calloc_assert(leaves->nr, 1);
	if (was_there(leaves)) {
		split_all(leaves);
		if (table->is_over)
			join_all(leaves);
	}
	leaves->next = all;
	all = leaves;

	return leaves;
}

static void forget(struct leaves **link)
{
	struct leaves *leaves = *link;

	*link = leaves->next;
	free(leaves->order);
	free(leaves->kept);
	free(leaves);
}

void split_forget(struct dirty_env *env, u64 iova, u64 size)
{
	struct changed *change = malloc_assert(sizeof(*change));
	u64 last = iova + size - 1;
	struct leaves **link = &all;

	pthread_mutex_lock(&lock);
	*change = (struct changed){ env->iommu, iova, last, ++events, all_changed };
	all_changed = change;

	while (*link) {
		struct leaves *leaves = *link;

		if (leaves->table->iommu == env->iommu && leaves->iova <= last &&
		    iova <= leaves->iova + leaves->nr * PAGE_4K - 1)
			forget(link);
		else
			link = &leaves->next;
	}
	pthread_mutex_unlock(&lock);
}

/* Another page table may get its number; none has 0. */
static void forget_table(struct table *table)
{
	struct leaves **link = &all;

	table->hwpt = 0;
	while (*link) {
		if ((*link)->table == table)
			forget(link);
		else
			link = &(*link)->next;
	}
}

static void forget_number(struct dirty_env *env, u32 hwpt)
{
	struct table *table = find_table(env->iommu, hwpt);

	if (table)
		forget_table(table);
}

void split_new_table(struct dirty_env *env, u32 hwpt)
{
	pthread_mutex_lock(&lock);
	/* One in another environment that was closed may have had the same. */
	forget_number(env, hwpt);
	table_of(env->iommu, hwpt);
	pthread_mutex_unlock(&lock);
}

void split_forget_table(struct dirty_env *env, u32 hwpt)
{
	pthread_mutex_lock(&lock);
	forget_number(env, hwpt);
	pthread_mutex_unlock(&lock);
}

void split_tracking(struct dirty_env *env, u32 hwpt, bool enable)
{
	struct table *table;

	pthread_mutex_lock(&lock);
	table = table_of(env->iommu, hwpt);
	if (enable) {
		table->has_begun = true;
		table->event = ++events;
	}
	table->is_over = !enable;

	for (struct leaves *leaves = all; leaves; leaves = leaves->next) {
		if (leaves->table != table)
			continue;
		if (enable) {
			/* iommufd clears before it switches tracking on. */
			memset(leaves->kept, 0, leaves->nr);
			split_all(leaves);
		} else {
			join_all(leaves);
		}
	}
	pthread_mutex_unlock(&lock);
}

/* The first page of the leaf that maps @page. */
static u64 leaf_first(struct leaves *leaves, u64 page)
{
	return page >> leaves->order[page] << leaves->order[page];
}

static u64 leaf_end(struct leaves *leaves, u64 page)
{
	return leaf_first(leaves, page) + (1ULL << leaves->order[page]);
}

/* The next page from @page on, below @end, that makes its leaf dirty; @end if there is none. */
static u64 next_dirty(struct leaves *leaves, struct page_set *written, u64 page, u64 end)
{
	u8 *kept = memchr(leaves->kept + page, 1, end - page);
	u8 *in = memchr(written->in + page, 1, end - page);

	return min_t(u64, kept ? kept - leaves->kept : end, in ? in - written->in : end);
}

static void query(struct leaves *leaves, struct page_set *written, u64 first, u64 nr, bool clears,
		  u8 *reported)
{
	bool splits = clears && leaves->table->parameter && is_tracked(leaves->table);
	u64 spared_first = leaves->nr, spared_end = 0;
	u64 end = first + nr;
	u64 page = leaf_first(leaves, first);

	while (page < end) {
		u64 leaf, behind;
		bool is_cut, is_spared;

		page = next_dirty(leaves, written, page, leaf_end(leaves, end - 1));
		if (page == leaf_end(leaves, end - 1))
			break;
		leaf = leaf_first(leaves, page);
		behind = leaf_end(leaves, page);
		is_cut = leaf < first || end < behind;
		is_spared = spared_first <= leaf && behind <= spared_end;

		if (is_cut && splits) {
			split(leaves, leaf, behind);
			memset(leaves->kept + leaf, 1, behind - leaf);
			if (!is_spared) {
				spared_first = leaf;
				spared_end = behind;
			}
			/* The parts before the query are not its business. */
			page = leaf_first(leaves, max_t(u64, leaf, first));
			continue;
		}

		memset(reported + max_t(u64, leaf, first) - first, 1,
		       min_t(u64, behind, end) - max_t(u64, leaf, first));
		if (clears && !is_cut)
			memset(leaves->kept + leaf, 0, behind - leaf);
		if (splits && !is_spared)
			split(leaves, leaf, behind);
		page = behind;
	}
}

u8 *split_report(struct dirty_env *env, u32 hwpt, struct dirty_area *area,
		 struct page_set *written, u64 first, u64 nr, bool clears)
{
	u8 *reported = calloc_assert(nr, 1);

	pthread_mutex_lock(&lock);
	query(leaves_of(env->iommu, hwpt, area), written, first, nr, clears, reported);
	pthread_mutex_unlock(&lock);

	return reported;
}
