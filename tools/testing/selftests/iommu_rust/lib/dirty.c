// SPDX-License-Identifier: GPL-2.0
/*
 * The environment of a test: IOAS, device, page table with dirty tracking and
 * an area to write to; and the writes themselves.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/log2.h>
#include <linux/mman.h>

#include "dirty.h"
#include "edu.h"
#include "split.h"

/* Far above the number of objects that a test makes. */
#define MAX_OBJECT_ID 256

/* VT-d specification 11.4.3, Extended Capability Register */
#define VTD_ECAP_SSTS BIT(46)
#define VTD_ECAP_FSTS BIT(47)

/* Ethernet addresses, and an EtherType that is reserved for experiments. */
static const u8 frame_header[] = {
	0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x88, 0xb5,
};

u64 dirty_random(u64 *state)
{
	/* Marsaglia's xorshift64; 0 is its only fixed point. */
	u64 x = *state ? *state : 1;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	*state = x;

	return x;
}

/*
 * libvfio drops the object id that VFIO_DEVICE_BIND_IOMMUFD returns, and
 * IOMMU_HWPT_ALLOC needs it. IOMMU_GET_HW_INFO answers for device objects only,
 * so the id is the one that answers after the bind and did not before.
 */
static void device_ids(int iommufd, bool *is_device)
{
	struct iommu_hw_info info;

	for (u32 id = 0; id < MAX_OBJECT_ID; id++)
		is_device[id] = !__hw_info(iommufd, id, &info, NULL);
}

static void region_map(struct dirty_env *env, struct dma_region *region,
		       u64 size)
{
	/*
	 * Shared, because the harness forks and pinned memory must stay with this
	 * process.
	 */
	region->vaddr = mmap(NULL, size, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	VFIO_ASSERT_NE(region->vaddr, MAP_FAILED);
	region->size = size;
	region->iova = iova_allocator_alloc(env->iova, size);
	iommu_map(env->iommu, region);
}

static void region_unmap(struct dirty_env *env, struct dma_region *region)
{
	iommu_unmap(env->iommu, region);
	split_forget(env, region->iova, region->size);
	VFIO_ASSERT_EQ(munmap(region->vaddr, region->size), 0);
}

void dirty_dev_open(struct dirty_env *env, struct dirty_dev *dev,
		    const char *bdf)
{
	bool before[MAX_OBJECT_ID], after[MAX_OBJECT_ID];
	u32 id;

	device_ids(env->iommu->iommufd, before);
	dev->pci = vfio_pci_device_init(bdf, env->iommu);
	edu_driver_probe(dev->pci);
	device_ids(env->iommu->iommufd, after);

	for (id = 0; id < MAX_OBJECT_ID; id++) {
		if (after[id] && !before[id])
			break;
	}
	VFIO_ASSERT_LT(id, MAX_OBJECT_ID, "no iommufd object for %s\n", bdf);
	dev->id = id;

	/* Only an attached device makes its reserved regions known. */
	if (!env->iova)
		env->iova = iova_allocator_init(env->iommu);

	region_map(env, &dev->local, 2 * PAGE_4K);
	memcpy(dev->local.vaddr, frame_header, sizeof(frame_header));
	region_map(env, &dev->pci->driver.region, SZ_2M);
}

void dirty_dev_close(struct dirty_env *env, struct dirty_dev *dev)
{
	if (dev->pci->driver.initialized)
		vfio_pci_driver_remove(dev->pci);

	region_unmap(env, &dev->pci->driver.region);
	region_unmap(env, &dev->local);
	vfio_pci_device_cleanup(dev->pci);
	dev->pci = NULL;
}

static void *huge_mmap(u64 leaf, u64 size)
{
	int flags = MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB | ilog2(leaf) << MAP_HUGE_SHIFT;

	return mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
}

/*
 * Memory made of pages of one size, or MAP_FAILED if there is none.
 *
 * The kernel may allocate adjacent huge pages, and AMD's tables have a leaf for
 * any power of two: every other page goes to a spare mapping, so that no two
 * successive pages form one leaf.
 */
static void *leaf_mmap(u64 leaf, u64 size)
{
	char *vaddr, *spare;
	u64 at;

	if (leaf == PAGE_4K)
		return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	vaddr = huge_mmap(leaf, size);
	if (vaddr == MAP_FAILED || size == leaf)
		return vaddr;
	spare = huge_mmap(leaf, size);
	if (spare == MAP_FAILED) {
		munmap(vaddr, size);
		return MAP_FAILED;
	}
	for (at = 0; at < size; at += leaf) {
		vaddr[at] = 0;
		spare[at] = 0;
	}
	munmap(spare, size);

	return vaddr;
}

const char *dirty_area_map(struct dirty_env *env, struct dirty_area *area,
			   u64 leaf, u64 size)
{
	static char reason[128];
	void *vaddr = leaf_mmap(leaf, size);

	if (vaddr == MAP_FAILED) {
		snprintf(reason, sizeof(reason),
			 "needs %lu free huge pages of %lu KiB, see /sys/kernel/mm/hugepages",
			 (unsigned long)(size == leaf ? 1 : 2 * size / leaf),
			 (unsigned long)(leaf / SZ_1K));
		return reason;
	}

	area->leaf = leaf;
	area->nr_pages = size / PAGE_4K;
	area->region.vaddr = vaddr;
	area->region.size = size;
	area->region.iova = iova_allocator_alloc(env->iova, size);
	iommu_map(env->iommu, &area->region);
	split_forget(env, area->region.iova, size);

	return NULL;
}

/* Puts other memory at the same IOVAs. */
void dirty_area_remap(struct dirty_env *env, struct dirty_area *area)
{
	region_unmap(env, &area->region);
	area->region.vaddr = leaf_mmap(area->leaf, area->region.size);
	VFIO_ASSERT_NE(area->region.vaddr, MAP_FAILED);
	iommu_map(env->iommu, &area->region);
}

void dirty_area_unmap(struct dirty_env *env, struct dirty_area *area)
{
	region_unmap(env, &area->region);
	area->region.vaddr = NULL;
}

static u64 area_size(u64 leaf)
{
	switch (leaf) {
	case PAGE_4K:
		return SZ_4M;
	case SZ_2M:
		return SZ_8M;
	default:
		return leaf;
	}
}

/* Returns NULL, or the reason why this machine cannot run the test. */
const char *dirty_env_open(struct dirty_env *env, const char *bdf, u64 leaf)
{
	static char reason[128];
	const char *skip;

	env->iommu = iommu_init(MODE_IOMMUFD);

	/* Otherwise memory that happens to be contiguous gets larger leaves. */
	if (leaf == PAGE_4K)
		VFIO_ASSERT_EQ(__ioas_huge_pages(env->iommu->iommufd,
						 env->iommu->ioas_id, false), 0);

	dirty_dev_open(env, &env->dev, bdf);

	if (!env->dev.pci->driver.ops) {
		snprintf(reason, sizeof(reason), "libvfio has no driver for %s", bdf);
		return reason;
	}

	if (!dirty_capable(env, &env->dev)) {
		snprintf(reason, sizeof(reason),
			 "the IOMMU of %s does not track dirty pages", bdf);
		return reason;
	}

	skip = dirty_area_map(env, &env->area, leaf, area_size(leaf));
	if (skip)
		return skip;

	env->written = page_set_alloc(&env->area);
	env->none = page_set_alloc(&env->area);
	env->seed = leaf;

	env->hwpt = hwpt_alloc(env, IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
	device_attach(&env->dev, env->hwpt);
	vfio_pci_driver_init(env->dev.pci);

	return NULL;
}

void dirty_env_close(struct dirty_env *env)
{
	page_set_free(&env->none);
	page_set_free(&env->written);
	if (env->area.region.vaddr)
		dirty_area_unmap(env, &env->area);
	if (env->dev.pci)
		dirty_dev_close(env, &env->dev);
	iova_allocator_cleanup(env->iova);
	iommu_cleanup(env->iommu);
}

void *dirty_area_page(struct dirty_area *area, u64 page)
{
	VFIO_ASSERT_LT(page, area->nr_pages);

	return area->region.vaddr + page * PAGE_4K;
}

/*
 * Makes the device write one stamp into @page, and checks that it arrived: a
 * test verifies what the device has written.
 */
int __dirty_write(struct dirty_dev *dev, struct dirty_area *area, u64 page)
{
	u64 *frame = dev->local.vaddr;
	u64 offset, iova;
	int ret;

	dev->stamp++;
	frame[2] = dev->stamp;
	/* Alternates between the start, the middle and the end of the page. */
	offset = dev->stamp * SZ_64 % (PAGE_4K - STAMP_SIZE + SZ_64);
	iova = area->region.iova + page * PAGE_4K + offset;

	ret = vfio_pci_driver_memcpy(dev->pci, dev->local.iova, iova, STAMP_SIZE);
	if (ret)
		return ret;

	if (memcmp(dirty_area_page(area, page) + offset, frame, STAMP_SIZE))
		return -EIO;

	return 0;
}

void dirty_write(struct dirty_dev *dev, struct dirty_area *area, u64 page)
{
	VFIO_ASSERT_EQ(__dirty_write(dev, area, page), 0,
		       "%s did not write page %lu\n", dev->pci->bdf, page);
}

/* Makes the device read @page, and write the data where no test checks. */
void dirty_read(struct dirty_dev *dev, struct dirty_area *area, u64 page)
{
	iova_t sink = dev->local.iova + PAGE_4K;
	iova_t iova = area->region.iova + page * PAGE_4K;

	VFIO_ASSERT_EQ(vfio_pci_driver_memcpy(dev->pci, iova, sink, STAMP_SIZE), 0,
		       "%s did not read page %lu\n", dev->pci->bdf, page);
}

bool dirty_capable(struct dirty_env *env, struct dirty_dev *dev)
{
	struct iommu_hw_info info;

	VFIO_ASSERT_EQ(__hw_info(env->iommu->iommufd, dev->id, &info, NULL), 0);

	return info.out_capabilities & IOMMU_HW_CAP_DIRTY_TRACKING;
}

/*
 * The uAPI does not tell which stage a page table uses. On VT-d the answer is
 * certain when the unit offers only one; the C driver tracks on the second only.
 */
enum dirty_switch dirty_switch(struct dirty_env *env)
{
	struct iommu_hw_info_vtd vtd = {};
	struct iommu_hw_info info;

	if (dirty_walker_is_generic_pt(env->dev.pci->bdf))
		return DIRTY_SWITCHED;

	VFIO_ASSERT_EQ(__hw_info(env->iommu->iommufd, env->dev.id, &info, &vtd), 0);
	if (info.out_data_type != IOMMU_HW_INFO_TYPE_INTEL_VTD)
		return DIRTY_SWITCH_UNKNOWN;

	switch (vtd.ecap_reg & (VTD_ECAP_SSTS | VTD_ECAP_FSTS)) {
	case VTD_ECAP_SSTS:
		return DIRTY_SWITCHED;
	case VTD_ECAP_FSTS:
		return DIRTY_LIVE;
	default:
		return DIRTY_SWITCH_UNKNOWN;
	}
}

/* Each C driver gives its IOMMUs an attribute group of its name. */
static bool iommu_has_group(const char *bdf, const char *name)
{
	char path[PATH_MAX];

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu/%s", bdf, name);

	return !access(path, F_OK);
}

bool dirty_driver_is_c_vtd(const char *bdf)
{
	return iommu_has_group(bdf, "intel-iommu");
}

bool dirty_driver_is_c_amd(const char *bdf)
{
	return iommu_has_group(bdf, "amd-iommu");
}

/*
 * Both C drivers walk with generic_pt, which in Linux 7.3 does not clip a leaf
 * to the query.
 */
bool dirty_walker_is_generic_pt(const char *bdf)
{
	return dirty_driver_is_c_vtd(bdf) || dirty_driver_is_c_amd(bdf);
}
