// SPDX-License-Identifier: GPL-2.0
/*
 * Lets a page-writer write to a range of IOVAs until the kernel ends: the tests of kexec
 * and of crash kernels run it. Dirty tracking is on.
 *
 *   left_writing BDF IOVA BYTES
 *
 * All of the range is one piece of memory, so that it can be large: what is written does
 * not matter here, but where it lands if nothing translates any more.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/io.h>

#include "lib/writer.h"

#define PIECE ((u64)SZ_2M)

int main(int argc, char *argv[])
{
	struct dirty_env env = {};
	struct writer *writer;
	u64 iova, bytes;
	void *memory;

	if (argc != 4) {
		fprintf(stderr, "usage: left_writing BDF IOVA BYTES\n");
		return 2;
	}
	iova = strtoull(argv[2], NULL, 0);
	bytes = strtoull(argv[3], NULL, 0);

	env.iommu = iommu_init(MODE_IOMMUFD);
	writer_dev_open(&env, &env.dev, argv[1]);
	memory = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	VFIO_ASSERT_NE(memory, MAP_FAILED);
	for (u64 at = 0; at < bytes; at += PIECE) {
		struct dma_region *piece = calloc(1, sizeof(*piece));

		VFIO_ASSERT_NOT_NULL(piece);
		piece->vaddr = memory;
		piece->iova = iova + at;
		piece->size = PIECE;
		iommu_map(env.iommu, piece);
	}
	env.hwpt = hwpt_alloc(&env, IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
	device_attach(&env.dev, env.hwpt);
	hwpt_set_dirty(&env, env.hwpt, true);

	writer = writer_of(&env.dev);
	writeq(iova, &writer->base);
	writeq(bytes, &writer->length);
	writeq(1, &writer->seed);
	writeq(WRITER_RATE, &writer->rate);
	writeq(0, &writer->limit);
	writeq(1, &writer->control);
	writer_wait(&env.dev, WRITER_RATE / 10);

	printf("%s writes to %#lx\n", argv[1], (unsigned long)iova);
	fflush(stdout);
	for (;;)
		pause();
}
