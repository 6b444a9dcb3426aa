/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The domains of iommufd's self-test, on the C or on the Rust tables.
 */
#ifndef _IOMMU_RUST_BENCH_MOCK_H
#define _IOMMU_RUST_BENCH_MOCK_H

#include "../compare/tables.h"

#ifdef CONFIG_RUST_IOMMU_PT_BENCH_MOCK
void bench_mock_use(enum tables_side side);

/* What selftest.c calls: see mock.c. */
int pt_iommu_amdv1_either_init(struct pt_iommu_amdv1_mock *table,
			       const struct pt_iommu_amdv1_mock_cfg *cfg,
			       gfp_t gfp);
phys_addr_t pt_iommu_amdv1_either_iova_to_phys(struct iommu_domain *domain,
					       dma_addr_t iova);
int pt_iommu_amdv1_either_read_and_clear_dirty(struct iommu_domain *domain,
					       unsigned long iova, size_t size,
					       unsigned long flags,
					       struct iommu_dirty_bitmap *dirty);
#endif

#endif /* _IOMMU_RUST_BENCH_MOCK_H */
