// SPDX-License-Identifier: GPL-2.0
/*
 * Areas at an IOVA of the test's choice, with leaves that the test knows.
 */
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/bits.h>
#include <linux/log2.h>
#include <linux/mman.h>

#include "leaves.h"
#include "split.h"

void *leaves_alloc(u64 leaf, u64 size)
{
	int flags = MAP_SHARED | MAP_ANONYMOUS;
	void *vaddr;

	if (leaf != PAGE_4K)
		flags |= MAP_HUGETLB | ilog2(leaf) << MAP_HUGE_SHIFT;
	vaddr = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
	VFIO_ASSERT_NE(vaddr, MAP_FAILED, "no %lu bytes in pages of %lu\n", size, leaf);

	return vaddr;
}

void leaves_place(struct dirty_area *area, void *vaddr, u64 iova, u64 size, u64 leaf)
{
	*area = (struct dirty_area){
		.region.vaddr = vaddr,
		.region.iova = iova,
		.region.size = size,
		.leaf = leaf,
		.nr_pages = size / PAGE_4K,
	};
	INIT_LIST_HEAD(&area->region.link);
}

void leaves_map(struct dirty_env *env, struct dirty_area *area)
{
	iommu_map(env->iommu, &area->region);
	split_forget(env, area->region.iova, area->region.size);
}

/* libvfio lists only whole regions as mapped: these pieces are not listed. */
void leaves_map_pages(struct dirty_env *env, struct dirty_area *area)
{
	for (u64 page = 0; page < area->nr_pages; page++) {
		struct dma_region piece = {
			.vaddr = area->region.vaddr + page * PAGE_4K,
			.iova = area->region.iova + page * PAGE_4K,
			.size = PAGE_4K,
		};

		iommu_map(env->iommu, &piece);
		list_del_init(&piece.link);
	}
}

void leaves_unmap(struct dirty_env *env, struct dirty_area *area)
{
	iommu_unmap(env->iommu, &area->region);
	split_forget(env, area->region.iova, area->region.size);
}

bool leaves_may_be_at(struct dirty_env *env, u64 iova, u64 size)
{
	struct iommu_iova_range *ranges;
	bool found = false;
	u32 nr;

	ranges = iommu_iova_ranges(env->iommu, &nr);
	for (u32 i = 0; i < nr; i++)
		found |= ranges[i].start <= iova && iova + size - 1 <= ranges[i].last;
	free(ranges);

	return found;
}

u64 leaves_physical(const void *vaddr)
{
	u64 entry;
	int fd;

	fd = open("/proc/self/pagemap", O_RDONLY);
	VFIO_ASSERT_LE(0, fd);
	VFIO_ASSERT_EQ(pread(fd, &entry, sizeof(entry), (uintptr_t)vaddr / PAGE_4K * sizeof(entry)),
		       sizeof(entry));
	VFIO_ASSERT_EQ(close(fd), 0);

	/* The lower 55 bits are the page frame number, or 0 without the privilege. */
	entry &= GENMASK_ULL(54, 0);
	VFIO_ASSERT_NE(entry, 0, "the page map hides where a page is\n");

	return entry * PAGE_4K;
}
