/* SPDX-License-Identifier: GPL-2.0 */
/*
 * QEMU's page-writer, of this project (tools/qemu/README.md): a function that writes to
 * memory by itself. What memory holds follows from its seed and its counter.
 *
 * Each environment has the area at the same IOVA, and a page table that can track.
 */
#ifndef SELFTESTS_IOMMU_RUST_LIB_WRITER_H
#define SELFTESTS_IOMMU_RUST_LIB_WRITER_H

#include "dirty.h"

/* Behind the registers of BAR 0 are those for the host, in the upper half of BAR 2. */
#define WRITER_GUEST_SIZE SZ_128K
#define WRITER_BAR2_SIZE SZ_256K
#define WRITER_PBA 0x8000
#define WRITER_JOURNAL 0x10000
#define WRITER_JOURNAL_ENTRIES 8192

/* Writes in a second that a test asks for if it does not care. */
#define WRITER_RATE 50000

/**
 * struct writer - The function's BAR 0
 * @id: says that it is one
 * @control: bit 0 lets it write
 * @status: bit 0 says that it does
 * @base: IOVA of its memory
 * @length: bytes of these
 * @seed: of the pages and of what is written to them
 * @rate: writes in a second
 * @limit: writes after which it stops by itself, or 0
 * @counter: writes so far
 * @progress: vector 0 when @counter becomes a multiple of it, or 0
 * @failed: writes that were refused
 * @failed_address: of the first of them
 */
struct writer {
	u64 id;
	u64 control;
	u64 status;
	u64 base;
	u64 length;
	u64 seed;
	u64 rate;
	u64 limit;
	u64 counter;
	u64 progress;
	u64 failed;
	u64 failed_address;
};

struct writer *writer_of(struct dirty_dev *dev);

/* Opens the function @bdf, with a page table and an area; nothing is written yet. */
void writer_env_open(struct dirty_env *env, const char *bdf);
void writer_env_close(struct dirty_env *env);

/* One more function for the memory of @env. */
void writer_dev_open(struct dirty_env *env, struct dirty_dev *dev, const char *bdf);

/* Empties the area and lets the function write to it. */
void writer_start(struct dirty_env *env, struct dirty_dev *dev, u64 seed);

u64 writer_counter(struct dirty_dev *dev);

/* Waits, which is bounded, until it has made @count writes more. */
void writer_wait(struct dirty_dev *dev, u64 count);

/* Whether it writes now: the status, the counter and memory agree, or the test ends. */
bool writer_is_writing(struct dirty_env *env, struct dirty_dev *dev);

/* The page of write @number. */
u64 writer_page(struct dirty_env *env, u64 seed, u64 number);

/* How many pages of the area are not as @counter writes have left them. */
u64 writer_wrong_pages(struct dirty_env *env, u64 seed, u64 counter);

/* How many entries of the journal are not what these writes were. */
u64 writer_wrong_entries(struct dirty_env *env, struct dirty_dev *dev, u64 seed, u64 counter);

#endif /* SELFTESTS_IOMMU_RUST_LIB_WRITER_H */
