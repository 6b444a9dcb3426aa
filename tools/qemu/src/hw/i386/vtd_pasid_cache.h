/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The PASID-cache of an emulated VT-d unit.
 *
 * A unit without one reads every PASID table entry afresh, and so forgives a
 * driver that changes an entry (its domain, its page table, its dirty tracking)
 * and does not invalidate. Hardware does not forgive that, and nor does this.
 */

#ifndef HW_I386_VTD_PASID_CACHE_H
#define HW_I386_VTD_PASID_CACHE_H

#include "exec/hwaddr.h"
#include "hw/i386/intel_iommu.h"

/* PASID-cache Invalidate Descriptor: VT-d 6.5.2.2 */
#define VTD_INV_DESC_PC_G                   (3ULL << 4)
#define VTD_INV_DESC_PC_DOMAIN              (0ULL << 4)
#define VTD_INV_DESC_PC_PASID               (1ULL << 4)
#define VTD_INV_DESC_PC_GLOBAL              (3ULL << 4)
#define VTD_INV_DESC_PC_DID(val)            (((val) >> 16) & 0xffffULL)
#define VTD_INV_DESC_PC_PASID_OF(val)       (((val) >> 32) & 0xfffffULL)
#define VTD_INV_DESC_PC_RSVD_VAL0           0xfff000000000f1c0ULL

typedef struct VTDPASIDCache VTDPASIDCache;

/**
 * vtd_pasid_cache_new() - make an empty cache
 *
 * All functions may be called from any thread, and take no lock but their own.
 */
VTDPASIDCache *vtd_pasid_cache_new(void);

/**
 * vtd_pasid_cache_find() - read the entry of @pasid in the directory @dir
 *
 * Returns false if the entry is not cached; then @pe is untouched.
 */
bool vtd_pasid_cache_find(VTDPASIDCache *cache, dma_addr_t dir, uint32_t pasid,
                          VTDPASIDEntry *pe);

/* Remember a present entry. Entries that are not present are never cached. */
void vtd_pasid_cache_add(VTDPASIDCache *cache, dma_addr_t dir, uint32_t pasid,
                         const VTDPASIDEntry *pe);

void vtd_pasid_cache_reset(VTDPASIDCache *cache);

/**
 * vtd_pasid_cache_invalidate() - what a PASID-cache descriptor asks for
 * @desc: quadword 0 of the descriptor, its reserved bits already checked
 *
 * An entry is matched by the domain-id that it was cached with, whatever memory
 * holds by now. Returns false if the granularity is reserved.
 */
bool vtd_pasid_cache_invalidate(VTDPASIDCache *cache, uint64_t desc);

#endif
