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
#include <trace/events/rust_iommu.h>
#ifdef CONFIG_X86
#include <asm/cacheflush.h>

/* A VT-d unit that is shared with interrupt remapping: rust/helpers/iommu_dmar.c. */
struct dmar_shared;

/**
 * struct rust_irq_table_ops - what a driver does with an interrupt remapping table
 * @allocate: finds @count free entries in a row, on a multiple of their number, rounded
 *	up to a power of two, if @aligned; returns the first or a negative error; may sleep
 * @free: frees an entry, which was cleared; may sleep
 * @set: lets an entry send @vector to the local APIC @destination; any context, under
 *	raw spinlocks; returns 0 when hardware has forgotten what it was, or an error
 * @clear: lets an entry send nothing; context and result are those of @set
 */
struct rust_irq_table_ops {
	int (*allocate)(void *table, u32 count, bool aligned);
	void (*free)(void *table, u32 index);
	int (*set)(void *table, u32 index, u32 vector, u32 destination, bool logical);
	int (*clear)(void *table, u32 index);
};
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
