// SPDX-License-Identifier: GPL-2.0
/*
 * What the domains of iommufd's self-test are made of in a kernel with the
 * benchmark: the C tables or the Rust tables, as was asked for last.
 *
 * selftest.c calls its format by the names "amdv1_mock"; Makefile.mock has it
 * call "amdv1_either" instead, which is here.  Every other caller of
 * "amdv1_mock" gets the C tables, without a detour.
 */
#include <linux/compiler.h>
#include <linux/rust_iommu_pt.h>

#include "mock.h"

static enum tables_side next_side;

/* Each side has one table of functions for all of its tables. */
static const struct pt_iommu_ops *rust_ops;

/**
 * bench_mock_use() - Choose the tables of the domains that are made from now on
 * @side: Whose tables
 */
void bench_mock_use(enum tables_side side)
{
	WRITE_ONCE(next_side, side);
}

static bool is_rust(const struct iommu_domain *domain)
{
	const struct pt_iommu *iommu = container_of(domain, struct pt_iommu, domain);

	return iommu->ops == READ_ONCE(rust_ops);
}

int pt_iommu_amdv1_either_init(struct pt_iommu_amdv1_mock *table,
			       const struct pt_iommu_amdv1_mock_cfg *cfg,
			       gfp_t gfp)
{
	int ret;

	if (READ_ONCE(next_side) != TABLES_RUST)
		return pt_iommu_amdv1_mock_init(table, cfg, gfp);
	ret = pt_iommu_amdv1_mock_rust_init(table, cfg, gfp);
	if (!ret)
		WRITE_ONCE(rust_ops, table->iommu.ops);
	return ret;
}

phys_addr_t pt_iommu_amdv1_either_iova_to_phys(struct iommu_domain *domain,
					       dma_addr_t iova)
{
	if (is_rust(domain))
		return pt_iommu_amdv1_mock_rust_iova_to_phys(domain, iova);
	return pt_iommu_amdv1_mock_iova_to_phys(domain, iova);
}

int pt_iommu_amdv1_either_read_and_clear_dirty(struct iommu_domain *domain,
					       unsigned long iova, size_t size,
					       unsigned long flags,
					       struct iommu_dirty_bitmap *dirty)
{
	if (is_rust(domain))
		return pt_iommu_amdv1_mock_rust_read_and_clear_dirty(domain, iova, size,
								     flags, dirty);
	return pt_iommu_amdv1_mock_read_and_clear_dirty(domain, iova, size,
							flags, dirty);
}
