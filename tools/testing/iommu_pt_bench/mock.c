// SPDX-License-Identifier: GPL-2.0
/* A domain of iommufd's self-test, by way of /dev/iommu: see mock.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/iommufd.h>

#include "iommufd_test.h"
#include "mock.h"

#define PAGE 4096ULL
/* The size of the memory, which is mapped repeatedly: its content does not matter. */
#define BLOCK (64ULL << 20)

/*
 * One block whose even pages were allocated before its odd ones. So no two
 * successive pages are adjacent in memory, and none becomes part of a larger leaf.
 */
static int make_block(void)
{
	int fd = memfd_create("block", MFD_CLOEXEC);
	uint64_t first, at;

	if (fd < 0)
		return -1;
	if (ftruncate(fd, BLOCK))
		goto fail;
	for (first = 0; first < 2 * PAGE; first += PAGE) {
		for (at = first; at < BLOCK; at += 2 * PAGE) {
			if (pwrite(fd, "", 1, at) != 1)
				goto fail;
		}
	}
	return fd;
fail:
	close(fd);
	return -1;
}

/* A mock device of the self-test, in a separate address space. */
static int make_device(int fd, uint32_t *device)
{
	struct iommu_ioas_alloc space = { .size = sizeof(space) };
	struct iommu_test_cmd test = {
		.size = sizeof(test),
		.op = IOMMU_TEST_OP_MOCK_DOMAIN,
	};

	if (ioctl(fd, IOMMU_IOAS_ALLOC, &space))
		return -1;
	test.id = space.out_ioas_id;
	if (ioctl(fd, IOMMU_TEST_CMD, &test))
		return -1;
	*device = test.mock_domain.out_idev_id;
	return 0;
}

/*
 * The self-test's usual domain ends at 2 GiB; this one has the full range of its
 * tables.
 */
static int make_domain(int fd, uint32_t device, uint32_t space, uint32_t *hwpt)
{
	struct iommu_hwpt_selftest kind = { .pagetable_type = MOCK_IOMMUPT_HUGE };
	struct iommu_hwpt_alloc alloc = {
		.size = sizeof(alloc),
		.flags = IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
		.dev_id = device,
		.pt_id = space,
		.data_type = IOMMU_HWPT_DATA_SELFTEST,
		.data_len = sizeof(kind),
		.data_uptr = (uintptr_t)&kind,
	};
	struct iommu_hwpt_set_dirty_tracking track = {
		.size = sizeof(track),
		.flags = IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
	};

	if (ioctl(fd, IOMMU_HWPT_ALLOC, &alloc))
		return -1;
	*hwpt = alloc.out_hwpt_id;
	track.hwpt_id = alloc.out_hwpt_id;
	return ioctl(fd, IOMMU_HWPT_SET_DIRTY_TRACKING, &track);
}

static int map(const struct mock *mock, uint32_t space, int block)
{
	uint64_t at;

	for (at = 0; at < mock->size; at += BLOCK) {
		struct iommu_ioas_map_file map = {
			.size = sizeof(map),
			.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
				 IOMMU_IOAS_MAP_WRITEABLE,
			.ioas_id = space,
			.fd = block,
			.length = mock->size - at < BLOCK ? mock->size - at : BLOCK,
			.iova = mock->iova + at,
		};

		if (ioctl(mock->fd, IOMMU_IOAS_MAP_FILE, &map))
			return -1;
	}
	return 0;
}

static int fill(struct mock *mock)
{
	struct iommu_ioas_alloc space = { .size = sizeof(space) };
	uint32_t device;
	int block, ret;

	mock->doing = "making a device";
	if (make_device(mock->fd, &device))
		return -1;
	mock->doing = "making a domain";
	if (ioctl(mock->fd, IOMMU_IOAS_ALLOC, &space) ||
	    make_domain(mock->fd, device, space.out_ioas_id, &mock->hwpt))
		return -1;
	mock->doing = "making memory";
	block = make_block();
	if (block < 0)
		return -1;
	mock->doing = "mapping";
	ret = map(mock, space.out_ioas_id, block);
	close(block);
	return ret;
}

int mock_open(struct mock *mock, uint64_t iova, uint64_t size)
{
	int error;

	*mock = (struct mock){
		.fd = open("/dev/iommu", O_RDWR | O_CLOEXEC),
		.iova = iova,
		.size = size,
		.doing = "opening /dev/iommu",
	};
	if (mock->fd < 0)
		return -1;
	if (!fill(mock))
		return 0;
	error = errno;
	mock_close(mock);
	errno = error;
	return -1;
}

void mock_close(struct mock *mock)
{
	close(mock->fd);
	mock->fd = -1;
}

int mock_set_dirty(const struct mock *mock, const uint8_t *bitmap)
{
	struct iommu_test_cmd test = {
		.size = sizeof(test),
		.op = IOMMU_TEST_OP_DIRTY,
		.id = mock->hwpt,
		.dirty = {
			.iova = mock->iova,
			.length = mock->size,
			.page_size = PAGE,
			.uptr = (uintptr_t)bitmap,
		},
	};

	return ioctl(mock->fd, IOMMU_TEST_CMD, &test);
}

int mock_get(const struct mock *mock, uint8_t *bitmap)
{
	struct iommu_hwpt_get_dirty_bitmap get = {
		.size = sizeof(get),
		.hwpt_id = mock->hwpt,
		.iova = mock->iova,
		.length = mock->size,
		.page_size = PAGE,
		.data = (uintptr_t)bitmap,
	};

	return ioctl(mock->fd, IOMMU_HWPT_GET_DIRTY_BITMAP, &get);
}
