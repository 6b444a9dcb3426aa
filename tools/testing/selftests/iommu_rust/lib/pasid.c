// SPDX-License-Identifier: GPL-2.0
/*
 * The registers of pasid-dma, page tables for its PASIDs, and what it writes.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <linux/bits.h>
#include <linux/io.h>

#include "pasid.h"
#include "report.h"

#define PASID_DMA_ID 0x414d442d44534150ULL
#define PASID_DMA_BUFFER_SIZE SZ_4K
#define PASID_DMA_PRESENT BIT(31)

#define PASID_DMA_READ BIT(0)
#define PASID_DMA_WRITE BIT(1)

#define PASID_DMA_FAILED_READ (BIT(0) | BIT(1))
#define PASID_DMA_FAILED_WRITE (BIT(0) | BIT(2))

#define AREA_SIZE SZ_1M

/**
 * struct pasid_dma - The device's BAR 0
 * @id: identifies the device
 * @source: where it reads from
 * @target: where it writes to
 * @length: in bytes
 * @pasid: of both, with PASID_DMA_PRESENT, or 0
 * @command: a write runs the command to its end
 * @status: the result of the command
 * @unused: keeps the buffer on a separate page
 * @buffer: what was read, or is written
 */
struct pasid_dma {
	u64 id;
	u64 source;
	u64 target;
	u64 length;
	u64 pasid;
	u64 command;
	u64 status;
	u64 unused[505];
	u64 buffer[PASID_DMA_BUFFER_SIZE / sizeof(u64)];
};

static struct pasid_dma *registers(struct dirty_env *env)
{
	return env->dev.pci->bars[0].vaddr;
}

int __device_attach_pasid(struct dirty_dev *dev, u32 pasid, u32 pt_id)
{
	struct vfio_device_attach_iommufd_pt cmd = {
		.argsz = sizeof(cmd),
		.flags = VFIO_DEVICE_ATTACH_PASID,
		.pt_id = pt_id,
		.pasid = pasid,
	};

	return ioctl(dev->pci->fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &cmd) ? -errno : 0;
}

void device_attach_pasid(struct dirty_dev *dev, u32 pasid, u32 pt_id)
{
	VFIO_ASSERT_EQ(__device_attach_pasid(dev, pasid, pt_id), 0);
}

int __device_detach_pasid(struct dirty_dev *dev, u32 pasid)
{
	struct vfio_device_detach_iommufd_pt cmd = {
		.argsz = sizeof(cmd),
		.flags = VFIO_DEVICE_DETACH_PASID,
		.pasid = pasid,
	};

	return ioctl(dev->pci->fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, &cmd) ? -errno : 0;
}

void device_detach_pasid(struct dirty_dev *dev, u32 pasid)
{
	VFIO_ASSERT_EQ(__device_detach_pasid(dev, pasid), 0);
}

u32 pasid_count(struct dirty_env *env)
{
	struct iommu_hw_info info;

	VFIO_ASSERT_EQ(__hw_info(env->iommu->iommufd, env->dev.id, &info, NULL), 0);

	return info.out_max_pasid_log2 ? 1U << info.out_max_pasid_log2 : 0;
}

const char *pasid_env_open(struct dirty_env *env, const char *bdf)
{
	env->iommu = iommu_init(MODE_IOMMUFD);
	dirty_dev_open(env, &env->dev, bdf);
	vfio_pci_cmd_set(env->dev.pci, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);

	if (!env->dev.pci->bars[0].vaddr || readq(&registers(env)->id) != PASID_DMA_ID)
		return "the device is no pasid-dma";

	return NULL;
}

void pasid_env_close(struct dirty_env *env)
{
	dirty_dev_close(env, &env->dev);
	iova_allocator_cleanup(env->iova);
	iommu_cleanup(env->iommu);
}

static u32 ioas_alloc(int iommufd)
{
	struct iommu_ioas_alloc cmd = { .size = sizeof(cmd) };

	ioctl_assert(iommufd, IOMMU_IOAS_ALLOC, &cmd);
	return cmd.out_ioas_id;
}

void pasid_lane_open(struct dirty_env *env, struct dirty_env *lane, u32 flags)
{
	struct iommu *iommu = calloc_assert(1, sizeof(*iommu));

	iommu->mode = env->iommu->mode;
	iommu->iommufd = env->iommu->iommufd;
	iommu->ioas_id = ioas_alloc(iommu->iommufd);
	INIT_LIST_HEAD(&iommu->dma_regions);

	lane->iommu = iommu;
	lane->dev = env->dev;
	lane->iova = iova_allocator_init(iommu);
	VFIO_ASSERT_EQ(__ioas_huge_pages(iommu->iommufd, iommu->ioas_id, false), 0);
	VFIO_ASSERT_NULL(dirty_area_map(lane, &lane->area, PAGE_4K, AREA_SIZE));
	lane->written = page_set_alloc(&lane->area);
	lane->none = page_set_alloc(&lane->area);
	lane->seed = iommu->ioas_id;
	lane->hwpt = hwpt_alloc(lane, flags);
}

void pasid_lane_close(struct dirty_env *lane)
{
	iommufd_destroy(lane, lane->hwpt);
	if (lane->area.region.vaddr)
		dirty_area_unmap(lane, &lane->area);
	iommufd_destroy(lane, lane->iommu->ioas_id);
	iova_allocator_cleanup(lane->iova);
	page_set_free(&lane->none);
	page_set_free(&lane->written);
	free(lane->iommu);
}

static u64 run(struct pasid_dma *dma, u32 pasid, u64 command, u64 iova, u64 length)
{
	writeq(iova, &dma->source);
	writeq(iova, &dma->target);
	writeq(length, &dma->length);
	writeq(pasid == NO_PASID ? 0 : pasid | PASID_DMA_PRESENT, &dma->pasid);
	writeq(command, &dma->command);

	return readq(&dma->status);
}

/* All stamps are different, also across lanes. */
static u64 next_stamp(void)
{
	static u64 stamp;

	return ++stamp * 0x9e3779b97f4a7c15ULL | 1;
}

int __pasid_write(struct dirty_env *lane, u32 pasid, u64 page)
{
	struct pasid_dma *dma = registers(lane);
	u64 before[STAMP_SIZE / sizeof(u64)], stamp[STAMP_SIZE / sizeof(u64)];
	u64 first = next_stamp();
	u64 offset, status;
	void *memory;

	for (int i = 0; i < ARRAY_SIZE(stamp); i++) {
		stamp[i] = first + i;
		writeq(stamp[i], &dma->buffer[i]);
	}
	offset = first % (PAGE_4K / STAMP_SIZE) * STAMP_SIZE;
	memory = dirty_area_page(&lane->area, page) + offset;
	memcpy(before, memory, sizeof(before));

	status = run(dma, pasid, PASID_DMA_WRITE,
		     lane->area.region.iova + page * PAGE_4K + offset, STAMP_SIZE);
	switch (status) {
	case 0:
		return memcmp(memory, stamp, sizeof(stamp)) ? -EIO : 0;
	case PASID_DMA_FAILED_WRITE:
		return memcmp(memory, before, sizeof(before)) ? -EIO : -EFAULT;
	default:
		return -EIO;
	}
}

void pasid_write(struct dirty_env *lane, u32 pasid, u64 page)
{
	VFIO_ASSERT_EQ(__pasid_write(lane, pasid, page), 0,
		       "page %lu was not written with PASID %u\n", page, pasid);
}

int __pasid_read(struct dirty_env *lane, u32 pasid, u64 page)
{
	struct pasid_dma *dma = registers(lane);
	const u64 *memory = dirty_area_page(&lane->area, page);
	u64 status;

	status = run(dma, pasid, PASID_DMA_READ,
		     lane->area.region.iova + page * PAGE_4K, STAMP_SIZE);
	if (status == PASID_DMA_FAILED_READ)
		return -EFAULT;
	if (status)
		return -EIO;

	for (int i = 0; i < STAMP_SIZE / sizeof(u64); i++) {
		if (readq(&dma->buffer[i]) != memory[i])
			return -EIO;
	}

	return 0;
}

void pasid_read(struct dirty_env *lane, u32 pasid, u64 page)
{
	VFIO_ASSERT_EQ(__pasid_read(lane, pasid, page), 0,
		       "page %lu was not read with PASID %u\n", page, pasid);
}

int __pasid_write_word(struct dirty_env *env, u32 pasid, u64 iova, u32 word)
{
	struct pasid_dma *dma = registers(env);

	writeq(word, &dma->buffer[0]);

	return run(dma, pasid, PASID_DMA_WRITE, iova, sizeof(word)) ? -EFAULT : 0;
}

void pasid_write_random(struct dirty_env *lane, u32 pasid, u64 nr)
{
	while (nr--)
		pasid_write(lane, pasid,
			    page_set_add_random(&lane->written, &lane->seed));
}

bool pasid_lane_is_intact(struct dirty_env *lane)
{
	static const u8 nothing[PAGE_4K];

	for (u64 page = 0; page < lane->area.nr_pages; page++) {
		if (!lane->written.in[page] &&
		    memcmp(dirty_area_page(&lane->area, page), nothing, PAGE_4K))
			return false;
	}

	return true;
}
