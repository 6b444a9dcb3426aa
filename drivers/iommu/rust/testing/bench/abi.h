/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The interface between the kernel side of the benchmark and its program.
 *
 * Each open file of the device is one domain.  The program creates one on the C
 * tables and one on the Rust tables, and has both do the same work in turn.
 */
#ifndef _IOMMU_RUST_BENCH_ABI_H
#define _IOMMU_RUST_BENCH_ABI_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define PT_BENCH_DEVICE "iommu_pt_bench"

enum pt_bench_op {
	/* Creates the domain: @format and @side as in compare/tables.h. */
	PT_BENCH_INIT,
	/* iommu_map() of leaves of @leaf bytes, @step bytes a call. */
	PT_BENCH_MAP,
	/* iommu_unmap() of @step bytes a call. */
	PT_BENCH_UNMAP,
	/* Notes where the tables with the leaves are; after each change of the map. */
	PT_BENCH_COLLECT,
	/* Gives each leaf the D that @bitmap has for it, as hardware would. */
	PT_BENCH_SET_DIRTY,
	/* read_and_clear_dirty(), @repeat times, into @bitmap, a bit for 4 KiB. */
	PT_BENCH_QUERY,
	/* The same with all that IOMMU_HWPT_GET_DIRTY_BITMAP does around it. */
	PT_BENCH_GET,
	/* iommu_iova_to_phys() of the first byte of each leaf. */
	PT_BENCH_TRANSLATE,
	/* Reads the tables with the leaves in order, @repeat times. */
	PT_BENCH_READ,
	/* Counts: @count items of leaves, @tables of 4 KiB. */
	PT_BENCH_COUNT,
	/* The domains of iommufd's self-test get the tables of @side from now on. */
	PT_BENCH_MOCK,
};

/* IOMMU_DIRTY_NO_CLEAR, for PT_BENCH_QUERY and PT_BENCH_GET. */
#define PT_BENCH_NO_CLEAR 1
/* Four words at a time, for PT_BENCH_READ. */
#define PT_BENCH_WIDE 2

struct pt_bench_run {
	__u32 op;
	__u32 flags;
	__u32 format;
	__u32 side;
	__u64 iova;
	__u64 size;
	__u64 leaf;
	__u64 step;
	__u64 repeat;
	__u64 bitmap;
	/* Results */
	__u64 ns;
	__u64 count;
	__u64 tables;
};

#define PT_BENCH_RUN _IOWR('p', 0x70, struct pt_bench_run)

#endif /* _IOMMU_RUST_BENCH_ABI_H */
