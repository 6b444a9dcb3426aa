/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the Rust abstractions of the IOMMU core (rust/kernel/iommu) need from C
 * beyond the headers that the Rust bindings read already.
 */
#ifndef _LINUX_RUST_IOMMU_H
#define _LINUX_RUST_IOMMU_H

#ifdef CONFIG_RUST_IOMMU

#include <linux/acpi.h>
#include <linux/generic_pt/iommu.h>
#include <linux/iommu.h>
#include <linux/iova_bitmap.h>
#include <linux/pci.h>
#include <linux/pci-ats.h>
#include <linux/syscore_ops.h>
#ifdef CONFIG_X86
#include <asm/cacheflush.h>

/* A VT-d unit that is shared with interrupt remapping: rust/helpers/iommu_dmar.c. */
struct dmar_shared;
#endif
#ifdef CONFIG_RUST_IOMMU_PT_ABI
#include <linux/rust_iommu_pt.h>
#endif

/*
 * The table pages of the IOMMU drivers.  Exported to modules, but declared in
 * drivers/iommu/iommu-pages.h only, which is private to that folder.
 */
void *iommu_alloc_pages_node_sz(int nid, gfp_t gfp, size_t size);
void iommu_free_pages(void *virt);
void iommu_put_pages_list(struct iommu_pages_list *list);
int iommu_pages_start_incoherent(void *virt, struct device *dma_dev);

#endif /* CONFIG_RUST_IOMMU */

#endif /* _LINUX_RUST_IOMMU_H */
