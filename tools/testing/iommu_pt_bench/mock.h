/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A domain of iommufd's self-test, by way of /dev/iommu.
 *
 * Each call returns 0, or -1 with errno.
 */
#ifndef _IOMMU_PT_BENCH_MOCK_H
#define _IOMMU_PT_BENCH_MOCK_H

#include <stdint.h>

struct mock {
	int fd;
	uint32_t hwpt;
	uint64_t iova;
	uint64_t size;
	/* The failed step, if mock_open() failed. */
	const char *doing;
};

/*
 * Makes a domain that tracks, and maps 'size' bytes at 'iova' in leaves of 4 KiB.
 * The kernel uses the tables of the side that it was told last.
 */
int mock_open(struct mock *mock, uint64_t iova, uint64_t size);
void mock_close(struct mock *mock);
/* Sets D in each page that has a bit in 'bitmap'. */
int mock_set_dirty(const struct mock *mock, const uint8_t *bitmap);
/* GET_DIRTY_BITMAP of all of it. */
int mock_get(const struct mock *mock, uint8_t *bitmap);

#endif /* _IOMMU_PT_BENCH_MOCK_H */
