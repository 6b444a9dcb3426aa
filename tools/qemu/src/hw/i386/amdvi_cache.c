// SPDX-License-Identifier: GPL-2.0
/*
 * What an emulated AMD IOMMU caches: device table entries and translations.
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "amdvi_cache.h"

/* A full cache of translations is emptied. */
#define AMDVI_CACHE_MAX 1024

#define AMDVI_PAGE_SHIFT 12

/* INVALIDATE_IOMMU_PAGES */
#define AMDVI_INVAL_PASID(cmd)  extract64((cmd)[0], 0, 20)
#define AMDVI_INVAL_DOMID(cmd)  extract64((cmd)[0], 32, 16)
#define AMDVI_INVAL_S           (1ULL << 0)
#define AMDVI_INVAL_GN          (1ULL << 2)

struct AMDVICache {
    QemuMutex lock;
    GHashTable *dtes;           /* by device, as the pointer itself */
    GHashTable *translations;   /* by AMDVICacheKey */
};

/* Each page of a large one that is used has an entry of its own. */
typedef struct AMDVICacheKey {
    uint64_t gfn;
    AMDVIWho who;
} AMDVICacheKey;

/* Which translations an invalidation is about */
typedef struct AMDVICacheMatch {
    uint16_t domid;
    bool guest;
    uint32_t pasid;
    hwaddr first;
    hwaddr last;
} AMDVICacheMatch;

static guint amdvi_cache_hash(gconstpointer v)
{
    const AMDVICacheKey *key = v;
    uint64_t mixed = key->gfn ^ ((uint64_t)key->who.devid << 36) ^
                     ((uint64_t)key->who.domid << 20) ^ key->who.pasid;

    return (guint)(mixed ^ (mixed >> 32));
}

static gboolean amdvi_cache_equal(gconstpointer a, gconstpointer b)
{
    const AMDVICacheKey *x = a;
    const AMDVICacheKey *y = b;

    return x->gfn == y->gfn && x->who.devid == y->who.devid &&
           x->who.domid == y->who.domid && x->who.guest == y->who.guest &&
           x->who.pasid == y->who.pasid;
}

static gboolean amdvi_cache_matches(gpointer k, gpointer v, gpointer user_data)
{
    const AMDVICacheKey *key = k;
    const AMDVITranslation *to = v;
    const AMDVICacheMatch *match = user_data;
    hwaddr first = (key->gfn << AMDVI_PAGE_SHIFT) & ~to->mask;
    hwaddr last = first | to->mask;

    return key->who.domid == match->domid && key->who.guest == match->guest &&
           key->who.pasid == match->pasid &&
           first <= match->last && last >= match->first;
}

AMDVICache *amdvi_cache_new(void)
{
    AMDVICache *cache = g_new0(AMDVICache, 1);

    qemu_mutex_init(&cache->lock);
    cache->dtes = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    cache->translations = g_hash_table_new_full(amdvi_cache_hash,
                                                amdvi_cache_equal,
                                                g_free, g_free);
    return cache;
}

void amdvi_cache_reset(AMDVICache *cache)
{
    QEMU_LOCK_GUARD(&cache->lock);
    g_hash_table_remove_all(cache->dtes);
    g_hash_table_remove_all(cache->translations);
}

bool amdvi_cache_find_dte(AMDVICache *cache, uint16_t devid, AMDVIDTE *dte)
{
    const AMDVIDTE *cached;

    QEMU_LOCK_GUARD(&cache->lock);
    cached = g_hash_table_lookup(cache->dtes, GUINT_TO_POINTER(devid));
    if (cached) {
        *dte = *cached;
    }
    return cached;
}

void amdvi_cache_add_dte(AMDVICache *cache, uint16_t devid,
                         const AMDVIDTE *dte)
{
    AMDVIDTE *copy = g_new(AMDVIDTE, 1);

    *copy = *dte;
    QEMU_LOCK_GUARD(&cache->lock);
    g_hash_table_replace(cache->dtes, GUINT_TO_POINTER(devid), copy);
}

void amdvi_cache_drop_dte(AMDVICache *cache, uint16_t devid)
{
    QEMU_LOCK_GUARD(&cache->lock);
    g_hash_table_remove(cache->dtes, GUINT_TO_POINTER(devid));
}

bool amdvi_cache_find(AMDVICache *cache, const AMDVIWho *who, hwaddr addr,
                      bool is_write, AMDVITranslation *to)
{
    const AMDVICacheKey key = { .gfn = addr >> AMDVI_PAGE_SHIFT, .who = *who };
    const AMDVITranslation *cached;

    QEMU_LOCK_GUARD(&cache->lock);
    cached = g_hash_table_lookup(cache->translations, &key);
    if (!cached ||
        !iommu_ad_cache_serves(cached->perm, cached->settled, is_write)) {
        return false;
    }
    *to = *cached;
    return true;
}

void amdvi_cache_add(AMDVICache *cache, const AMDVIWho *who, hwaddr addr,
                     const AMDVITranslation *to)
{
    AMDVICacheKey *key = g_new(AMDVICacheKey, 1);
    AMDVITranslation *copy = g_new(AMDVITranslation, 1);

    key->gfn = addr >> AMDVI_PAGE_SHIFT;
    key->who = *who;
    *copy = *to;

    QEMU_LOCK_GUARD(&cache->lock);
    if (g_hash_table_size(cache->translations) >= AMDVI_CACHE_MAX) {
        g_hash_table_remove_all(cache->translations);
    }
    g_hash_table_replace(cache->translations, key, copy);
}

void amdvi_cache_invalidate(AMDVICache *cache, const uint64_t *cmd)
{
    AMDVICacheMatch match = {
        .domid = AMDVI_INVAL_DOMID(cmd),
        .guest = cmd[1] & AMDVI_INVAL_GN,
    };
    unsigned int order = AMDVI_PAGE_SHIFT;
    hwaddr mask;

    if (match.guest) {
        match.pasid = AMDVI_INVAL_PASID(cmd);
    }
    if (cmd[1] & AMDVI_INVAL_S) {
        /* The run of ones says by how much it is more than two pages. */
        order += 1 + cto64(cmd[1] >> AMDVI_PAGE_SHIFT);
    }
    mask = order >= 64 ? UINT64_MAX : (1ULL << order) - 1;
    match.first = cmd[1] & ~mask;
    match.last = match.first | mask;

    QEMU_LOCK_GUARD(&cache->lock);
    g_hash_table_foreach_remove(cache->translations, amdvi_cache_matches,
                                &match);
}
