// SPDX-License-Identifier: GPL-2.0
/*
 * The tables of the domains of iommufd's self-test in a kernel with the benchmark:
 * the C tables or the Rust tables, as the benchmark chose last.
 *
 * selftest.c calls the functions of "amdv1_mock"; Makefile.mock has it call those
 * of "amdv1_either" instead, which are here.  Every other caller of "amdv1_mock"
 * calls the C tables directly.
 */
#include <linux/compiler.h>
#include <linux/rust_iommu_pt.h>

#include "mock.h"

static enum tables_side next_side;

/* The operations that all Rust tables of this format share. */
static const struct pt_iommu_ops *rust_ops;

/**
 * bench_mock_use() - Choose the tables of the domains that are created from now on
 * @side: C or Rust
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
