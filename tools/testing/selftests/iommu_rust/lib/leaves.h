/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Areas at an IOVA of the test's choice, with leaves that the test knows.
 */
#ifndef SELFTESTS_IOMMU_RUST_LIB_LEAVES_H
#define SELFTESTS_IOMMU_RUST_LIB_LEAVES_H

#include "dirty.h"

/* Small pages, or huge ones where @leaf is their size; ends the test if there are none. */
void *leaves_alloc(u64 leaf, u64 size);

/* @area is memory of the caller; nothing is mapped. */
void leaves_place(struct dirty_area *area, void *vaddr, u64 iova, u64 size, u64 leaf);

/* In one call, with the largest leaves that fit. */
void leaves_map(struct dirty_env *env, struct dirty_area *area);

/* One page per call: leaves of 4K, even if pages are adjacent in memory. */
void leaves_map_pages(struct dirty_env *env, struct dirty_area *area);

void leaves_unmap(struct dirty_env *env, struct dirty_area *area);

/* Whether a device of the IOAS may use these addresses. */
bool leaves_may_be_at(struct dirty_env *env, u64 iova, u64 size);

/*
 * The physical address of memory of this program that is mapped for a device, and so
 * pinned.
 */
u64 leaves_physical(const void *vaddr);

#endif /* SELFTESTS_IOMMU_RUST_LIB_LEAVES_H */
