/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The Rust I/O page tables (rust/kernel/iommu/pt) under the C ABI of
 * <linux/generic_pt/iommu.h>: the same structs, operations and functions, with _rust
 * appended to the name of the format.  For tests: drivers/iommu/rust/testing.
 */
#ifndef _LINUX_RUST_IOMMU_PT_H
#define _LINUX_RUST_IOMMU_PT_H

#include <linux/generic_pt/iommu.h>

#define RUST_IOMMU_PT_PROTOTYPES(fmt)                                         \
	phys_addr_t pt_iommu_##fmt##_rust_iova_to_phys(                       \
		struct iommu_domain *domain, dma_addr_t iova);                \
	int pt_iommu_##fmt##_rust_read_and_clear_dirty(                       \
		struct iommu_domain *domain, unsigned long iova, size_t size, \
		unsigned long flags, struct iommu_dirty_bitmap *dirty);       \
	int pt_iommu_##fmt##_rust_init(struct pt_iommu_##fmt *table,          \
				       const struct pt_iommu_##fmt##_cfg *cfg,\
				       gfp_t gfp)
#define RUST_IOMMU_PT_HW_INFO_PROTOTYPE(fmt)                                  \
	void pt_iommu_##fmt##_rust_hw_info(                                   \
		struct pt_iommu_##fmt *table,                                 \
		struct pt_iommu_##fmt##_hw_info *info)

RUST_IOMMU_PT_PROTOTYPES(amdv1);
RUST_IOMMU_PT_HW_INFO_PROTOTYPE(amdv1);
RUST_IOMMU_PT_PROTOTYPES(amdv1_mock);
RUST_IOMMU_PT_PROTOTYPES(vtdss);
RUST_IOMMU_PT_HW_INFO_PROTOTYPE(vtdss);
RUST_IOMMU_PT_PROTOTYPES(x86_64);
RUST_IOMMU_PT_HW_INFO_PROTOTYPE(x86_64);

#undef RUST_IOMMU_PT_PROTOTYPES
#undef RUST_IOMMU_PT_HW_INFO_PROTOTYPE

#endif /* _LINUX_RUST_IOMMU_PT_H */
