// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel side of the benchmark of the I/O page tables: runs one operation on
 * one domain and returns the time it took.  The program decides what to measure,
 * how often and in which order (tools/testing/iommu_pt_bench).
 *
 * It runs in the caller's address space, because a dirty bitmap is user memory.
 * Nothing is timed that only prepares: D is set in the raw tables.
 */
#include <linux/cleanup.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched/clock.h>
#include <linux/slab.h>
#include <linux/sizes.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#ifdef CONFIG_UML
#include <os.h>
#endif

#include "../compare/tables.h"
#include "abi.h"
#include "mock.h"

#define ITEMS (PAGE_SIZE / sizeof(u64))

struct bench {
	/* One piece of work at a time. */
	struct mutex lock;
	bool ready;
	struct tables tables;
	/* What PT_BENCH_COLLECT found: the tables with the leaves, in order. */
	u64 **leaf_tables;
	unsigned long nr_leaf_tables;
	unsigned long nr_leaves;
};

/* The kernel's own clocks have steps of 256 ns on UML. */
static u64 now(void)
{
#ifdef CONFIG_UML
	return os_nsecs();
#else
	return local_clock();
#endif
}

/*
 * Where a leaf goes: displaced by its own size, so that no larger leaf fits,
 * whatever sizes the format has.
 */
static phys_addr_t target_of(u64 iova, u64 leaf)
{
	return iova + leaf;
}

static int bench_init(struct bench *bench, struct pt_bench_run *run)
{
	int ret;

	if (bench->ready)
		return -EBUSY;
	if (run->format >= TABLES_NR_FORMATS || run->side >= TABLES_NR_SIDES)
		return -EINVAL;
	ret = tables_init(&bench->tables, run->format, run->side);
	bench->ready = !ret;
	return ret;
}

static int bench_map(struct bench *bench, struct pt_bench_run *run)
{
	struct iommu_domain *domain = &bench->tables.domain;
	u64 begin = now();
	u64 iova;

	for (iova = run->iova; iova < run->iova + run->size; iova += run->step) {
		int ret = iommu_map(domain, iova, target_of(iova, run->leaf),
				    run->step, IOMMU_READ | IOMMU_WRITE,
				    GFP_KERNEL);

		if (ret)
			return ret;
	}
	run->ns = now() - begin;
	return 0;
}

static int bench_unmap(struct bench *bench, struct pt_bench_run *run)
{
	struct iommu_domain *domain = &bench->tables.domain;
	u64 begin = now();
	u64 iova;

	for (iova = run->iova; iova < run->iova + run->size; iova += run->step) {
		if (iommu_unmap(domain, iova, run->step) != run->step)
			return -EIO;
	}
	run->ns = now() - begin;
	return 0;
}

static int bench_translate(struct bench *bench, struct pt_bench_run *run)
{
	struct iommu_domain *domain = &bench->tables.domain;
	u64 begin = now();
	u64 wrong = 0;
	u64 iova;

	for (iova = run->iova; iova < run->iova + run->size; iova += run->leaf)
		wrong |= iommu_iova_to_phys(domain, iova) ^
			 target_of(iova, run->leaf);
	run->ns = now() - begin;
	return wrong ? -EIO : 0;
}

/* One leaf is one item: see target_of(). */
static int bench_collect(struct bench *bench, struct pt_bench_run *run)
{
	struct tables *tables = &bench->tables;
	u64 last = run->iova + run->size - 1;
	u64 span = run->leaf * ITEMS;
	struct raw_item item;
	unsigned long i;

	kvfree(bench->leaf_tables);
	bench->nr_leaf_tables = 0;
	bench->nr_leaves = run->size / run->leaf;
	if (run->iova % span)
		return -EINVAL;
	bench->leaf_tables = kvcalloc(DIV_ROUND_UP(bench->nr_leaves, ITEMS),
				      sizeof(*bench->leaf_tables), GFP_KERNEL);
	if (!bench->leaf_tables)
		return -ENOMEM;
	for (i = 0; i < DIV_ROUND_UP(bench->nr_leaves, ITEMS); i++) {
		if (!raw_next(tables->raw, tables->common, run->iova + i * span,
			      last, &item))
			return -ENOENT;
		if (item.iova != run->iova + i * span ||
		    item.lg2 != item.leaf_lg2 || BIT_ULL(item.lg2) != run->leaf)
			return -EIO;
		bench->leaf_tables[i] = item.word;
	}
	bench->nr_leaf_tables = i;
	return 0;
}

static int bench_set_dirty(struct bench *bench, struct pt_bench_run *run)
{
	u64 dirty = bench->tables.raw->dirty;
	size_t size = DIV_ROUND_UP(bench->nr_leaves, BITS_PER_BYTE);
	unsigned long i;
	u8 *wanted;

	wanted = vmemdup_user(u64_to_user_ptr(run->bitmap), size);
	if (IS_ERR(wanted))
		return PTR_ERR(wanted);
	for (i = 0; i < bench->nr_leaves; i++) {
		u64 *word = &bench->leaf_tables[i / ITEMS][i % ITEMS];

		if (wanted[i / BITS_PER_BYTE] & BIT(i % BITS_PER_BYTE))
			WRITE_ONCE(*word, *word | dirty);
		else
			WRITE_ONCE(*word, *word & ~dirty);
	}
	kvfree(wanted);
	return 0;
}

static int bench_query(struct bench *bench, struct pt_bench_run *run)
{
	struct iommu_domain *domain = &bench->tables.domain;
	unsigned long flags = run->flags & PT_BENCH_NO_CLEAR ? IOMMU_DIRTY_NO_CLEAR : 0;
	struct iommu_iotlb_gather gather;
	struct iommu_dirty_bitmap dirty;
	struct iova_bitmap *bitmap;
	u64 begin, i;
	int ret = 0;

	bitmap = iova_bitmap_alloc(run->iova, run->size, SZ_4K,
				   u64_to_user_ptr(run->bitmap));
	if (IS_ERR_OR_NULL(bitmap))
		return bitmap ? PTR_ERR(bitmap) : -EOPNOTSUPP;
	iommu_dirty_bitmap_init(&dirty, bitmap, &gather);

	begin = now();
	for (i = 0; i < run->repeat && !ret; i++)
		ret = domain->dirty_ops->read_and_clear_dirty(domain, run->iova,
							      run->size, flags,
							      &dirty);
	run->ns = now() - begin;

	if (!flags)
		iommu_iotlb_sync(domain, &gather);
	iova_bitmap_free(bitmap);
	return ret;
}

struct get_arg {
	struct iommu_domain *domain;
	struct iommu_dirty_bitmap *dirty;
	unsigned long flags;
};

static int get_range(struct iova_bitmap *bitmap, unsigned long iova,
		     size_t length, void *opaque)
{
	struct get_arg *arg = opaque;

	return arg->domain->dirty_ops->read_and_clear_dirty(arg->domain, iova,
							    length, arg->flags,
							    arg->dirty);
}

/* As iommu_read_and_clear_dirty() of iommufd does, for a domain of one area. */
static int bench_get(struct bench *bench, struct pt_bench_run *run)
{
	struct iommu_domain *domain = &bench->tables.domain;
	unsigned long flags = run->flags & PT_BENCH_NO_CLEAR ? IOMMU_DIRTY_NO_CLEAR : 0;
	struct iommu_iotlb_gather gather;
	struct iommu_dirty_bitmap dirty;
	struct get_arg arg = { .domain = domain, .dirty = &dirty, .flags = flags };
	struct iova_bitmap *bitmap;
	int ret;

	bitmap = iova_bitmap_alloc(run->iova, run->size, SZ_4K,
				   u64_to_user_ptr(run->bitmap));
	if (IS_ERR_OR_NULL(bitmap))
		return bitmap ? PTR_ERR(bitmap) : -EOPNOTSUPP;
	iommu_dirty_bitmap_init(&dirty, bitmap, &gather);
	ret = iova_bitmap_for_each(bitmap, &arg, get_range);
	if (!flags)
		iommu_iotlb_sync(domain, &gather);
	iova_bitmap_free(bitmap);
	return ret;
}

static noinline u64 read_table(const u64 *table)
{
	u64 all = 0;
	unsigned int i;

	for (i = 0; i < ITEMS; i++)
		all |= table[i];
	return all;
}

/* The same without one OR having to wait for the one before. */
static noinline u64 read_table_wide(const u64 *table)
{
	u64 a = 0, b = 0, c = 0, d = 0;
	unsigned int i;

	for (i = 0; i < ITEMS; i += 4) {
		a |= table[i];
		b |= table[i + 1];
		c |= table[i + 2];
		d |= table[i + 3];
	}
	return a | b | c | d;
}

/* The lower bound of any scan: it has to read every item. */
static int bench_read(struct bench *bench, struct pt_bench_run *run)
{
	bool wide = run->flags & PT_BENCH_WIDE;
	u64 begin = now();
	u64 all = 0;
	u64 i;

	for (i = 0; i < run->repeat; i++) {
		unsigned long n;

		for (n = 0; n < bench->nr_leaf_tables; n++) {
			const u64 *table = bench->leaf_tables[n];

			all |= wide ? read_table_wide(table) : read_table(table);
		}
		OPTIMIZER_HIDE_VAR(all);
	}
	run->ns = now() - begin;
	return all ? 0 : -EIO;
}

static int bench_count(struct bench *bench, struct pt_bench_run *run)
{
	struct raw_count count;

	raw_count(bench->tables.raw, bench->tables.common, &count);
	run->count = count.items;
	run->tables = count.tables;
	return 0;
}

static int check_range(const struct pt_bench_run *run)
{
	if (!run->size || !run->step || !run->leaf || run->size % run->step ||
	    run->step % run->leaf || run->iova % run->leaf ||
	    !is_power_of_2(run->leaf) || run->leaf < SZ_4K ||
	    run->size > SZ_1T * 4 || run->iova > SZ_1T * 16)
		return -EINVAL;
	return 0;
}

/* Chooses the tables of domains that iommufd creates: needs no domain of this file. */
static int bench_mock(const struct pt_bench_run *run)
{
#ifdef CONFIG_RUST_IOMMU_PT_BENCH_MOCK
	if (run->side >= TABLES_NR_SIDES)
		return -EINVAL;
	bench_mock_use(run->side);
	return 0;
#else
	return -EOPNOTSUPP;
#endif
}

static int bench_op(struct bench *bench, struct pt_bench_run *run)
{
	int ret;

	if (run->op == PT_BENCH_INIT)
		return bench_init(bench, run);
	if (run->op == PT_BENCH_MOCK)
		return bench_mock(run);
	if (!bench->ready)
		return -ENODEV;
	ret = check_range(run);
	if (ret)
		return ret;
	switch (run->op) {
	case PT_BENCH_MAP:
		return bench_map(bench, run);
	case PT_BENCH_UNMAP:
		bench->nr_leaf_tables = 0;
		return bench_unmap(bench, run);
	case PT_BENCH_COLLECT:
		return bench_collect(bench, run);
	case PT_BENCH_QUERY:
		return bench_query(bench, run);
	case PT_BENCH_GET:
		return bench_get(bench, run);
	case PT_BENCH_TRANSLATE:
		return bench_translate(bench, run);
	case PT_BENCH_COUNT:
		return bench_count(bench, run);
	}
	if (!bench->nr_leaf_tables)
		return -EINVAL;
	switch (run->op) {
	case PT_BENCH_SET_DIRTY:
		return bench_set_dirty(bench, run);
	case PT_BENCH_READ:
		return bench_read(bench, run);
	}
	return -ENOTTY;
}

static long bench_ioctl(struct file *file, unsigned int command, unsigned long arg)
{
	struct bench *bench = file->private_data;
	struct pt_bench_run run;
	int ret;

	if (command != PT_BENCH_RUN)
		return -ENOTTY;
	if (copy_from_user(&run, (void __user *)arg, sizeof(run)))
		return -EFAULT;
	guard(mutex)(&bench->lock);
	ret = bench_op(bench, &run);
	if (ret)
		return ret;
	if (copy_to_user((void __user *)arg, &run, sizeof(run)))
		return -EFAULT;
	return 0;
}

static int bench_open(struct inode *inode, struct file *file)
{
	struct bench *bench = kzalloc_obj(*bench);

	if (!bench)
		return -ENOMEM;
	mutex_init(&bench->lock);
	file->private_data = bench;
	return 0;
}

static int bench_release(struct inode *inode, struct file *file)
{
	struct bench *bench = file->private_data;

	if (bench->ready)
		tables_destroy(&bench->tables);
	kvfree(bench->leaf_tables);
	kfree(bench);
	return 0;
}

static const struct file_operations bench_fops = {
	.owner = THIS_MODULE,
	.open = bench_open,
	.release = bench_release,
	.unlocked_ioctl = bench_ioctl,
};

static struct miscdevice bench_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = PT_BENCH_DEVICE,
	.fops = &bench_fops,
	.mode = 0600,
};

builtin_misc_device(bench_device);

MODULE_IMPORT_NS("IOMMUFD");
