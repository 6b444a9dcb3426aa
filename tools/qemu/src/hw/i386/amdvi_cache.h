/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What an emulated AMD IOMMU caches: device table entries and translations, and
 * if it is asked to, the entries that lead from one page table to another.
 *
 * Nothing but an invalidation ends the life of a cached entry, present or not:
 * a driver that changes an entry and does not invalidate is found out. A
 * translation belongs to a domain, or to a PASID of it, whichever device it was
 * made for: a driver that gives one domain id to two page tables is found out. It
 * goes with an invalidation of that domain only. One for another domain, or of a
 * range that it is not in, leaves it. What leads to page tables (a link) goes
 * likewise, but only with an invalidation that says it is about page tables too
 * (PDE).
 */

#ifndef HW_I386_AMDVI_CACHE_H
#define HW_I386_AMDVI_CACHE_H

#include "iommu_ad.h"

/* A device table entry */
typedef struct AMDVIDTE {
    uint64_t val[4];
} AMDVIDTE;

/**
 * struct AMDVIWho - whose a translation is
 * @devid: the device that uses it, for events; nothing is cached by it
 * @domid: the domain of its device table entry
 * @guest: a guest page table translates, of PASID @pasid
 */
typedef struct AMDVIWho {
    uint16_t devid;
    uint16_t domid;
    bool guest;
    uint32_t pasid;
} AMDVIWho;

/**
 * struct AMDVITranslation - what an address translates to
 * @base: the start of the page
 * @mask: the size of the page, less one
 * @perm: the accesses that every level of the walk permits
 * @settled: writes need not set a dirty flag
 */
typedef struct AMDVITranslation {
    hwaddr base;
    hwaddr mask;
    IOMMUAccessFlags perm;
    bool settled;
} AMDVITranslation;

typedef struct AMDVICache AMDVICache;

/*
 * All functions may be called from any thread, and take no lock but their own.
 * With @links the cache keeps links, without it they are not found.
 */
AMDVICache *amdvi_cache_new(bool links);

void amdvi_cache_reset(AMDVICache *cache);

bool amdvi_cache_find_dte(AMDVICache *cache, uint16_t devid, AMDVIDTE *dte);

void amdvi_cache_add_dte(AMDVICache *cache, uint16_t devid,
                         const AMDVIDTE *dte);

void amdvi_cache_drop_dte(AMDVICache *cache, uint16_t devid);

/* Find a translation of @addr that can serve the access. */
bool amdvi_cache_find(AMDVICache *cache, const AMDVIWho *who, hwaddr addr,
                      bool is_write, AMDVITranslation *to);

void amdvi_cache_add(AMDVICache *cache, const AMDVIWho *who, hwaddr addr,
                     const AMDVITranslation *to);

/*
 * Find the entry of a table that leads to another on the way to @addr. Each entry
 * of the table translates addresses of @order bits.
 */
bool amdvi_cache_find_link(AMDVICache *cache, const AMDVIWho *who, hwaddr addr,
                           unsigned int order, uint64_t *link);

void amdvi_cache_add_link(AMDVICache *cache, const AMDVIWho *who, hwaddr addr,
                          unsigned int order, uint64_t link);

/**
 * amdvi_cache_invalidate() - what INVALIDATE_IOMMU_PAGES asks for
 * @cmd: the command
 *
 * With GN set it is about one PASID of the domain, else about the domain's host
 * page table. The address says which range, as the command encodes it; PDE that
 * links are meant too.
 */
void amdvi_cache_invalidate(AMDVICache *cache, const uint64_t *cmd);

#endif
