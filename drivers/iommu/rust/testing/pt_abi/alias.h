/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Defines the functions of a C page table as calls of those of the Rust one.
 */
#ifndef _RUST_IOMMU_PT_ALIAS_H
#define _RUST_IOMMU_PT_ALIAS_H

#include <linux/export.h>
#include <linux/module.h>
#include <linux/rust_iommu_pt.h>

#define RUST_IOMMU_PT_EXPORT(name) \
	EXPORT_SYMBOL_NS_GPL(name, "GENERIC_PT_IOMMU")

#define RUST_IOMMU_PT_ALIAS(fmt)                                              \
	phys_addr_t pt_iommu_##fmt##_iova_to_phys(struct iommu_domain *domain, \
						  dma_addr_t iova)            \
	{                                                                     \
		return pt_iommu_##fmt##_rust_iova_to_phys(domain, iova);      \
	}                                                                     \
	RUST_IOMMU_PT_EXPORT(pt_iommu_##fmt##_iova_to_phys);                  \
	int pt_iommu_##fmt##_read_and_clear_dirty(                            \
		struct iommu_domain *domain, unsigned long iova, size_t size, \
		unsigned long flags, struct iommu_dirty_bitmap *dirty)        \
	{                                                                     \
		return pt_iommu_##fmt##_rust_read_and_clear_dirty(            \
			domain, iova, size, flags, dirty);                    \
	}                                                                     \
	RUST_IOMMU_PT_EXPORT(pt_iommu_##fmt##_read_and_clear_dirty);          \
	int pt_iommu_##fmt##_init(struct pt_iommu_##fmt *table,               \
				  const struct pt_iommu_##fmt##_cfg *cfg,     \
				  gfp_t gfp)                                  \
	{                                                                     \
		return pt_iommu_##fmt##_rust_init(table, cfg, gfp);           \
	}                                                                     \
	RUST_IOMMU_PT_EXPORT(pt_iommu_##fmt##_init);                          \
	MODULE_LICENSE("GPL");                                                \
	MODULE_DESCRIPTION("Names of the C page table " #fmt " for the Rust one")

#define RUST_IOMMU_PT_ALIAS_HW_INFO(fmt)                                      \
	void pt_iommu_##fmt##_hw_info(struct pt_iommu_##fmt *table,           \
				      struct pt_iommu_##fmt##_hw_info *info)  \
	{                                                                     \
		pt_iommu_##fmt##_rust_hw_info(table, info);                   \
	}                                                                     \
	RUST_IOMMU_PT_EXPORT(pt_iommu_##fmt##_hw_info)

#endif /* _RUST_IOMMU_PT_ALIAS_H */
