// SPDX-License-Identifier: GPL-2.0
/*
 * The PASID-cache of an emulated VT-d unit.
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "vtd_pasid_cache.h"

/* More than any guest here uses; a full cache is emptied, as the IOTLB is. */
#define VTD_PASID_CACHE_MAX 1024

struct VTDPASIDCache {
    QemuMutex lock;
    GHashTable *entries;
};

typedef struct VTDPASIDCacheKey {
    dma_addr_t dir;
    uint32_t pasid;
} VTDPASIDCacheKey;

/* Which entries an invalidation is about */
typedef struct VTDPASIDCacheMatch {
    bool any_pasid;
    uint32_t pasid;
    uint16_t did;
} VTDPASIDCacheMatch;

static guint vtd_pasid_cache_hash(gconstpointer v)
{
    const VTDPASIDCacheKey *key = v;
    uint64_t mixed = key->dir ^ ((uint64_t)key->pasid << 32) ^ key->pasid;

    return (guint)(mixed ^ (mixed >> 32));
}

static gboolean vtd_pasid_cache_equal(gconstpointer a, gconstpointer b)
{
    const VTDPASIDCacheKey *x = a;
    const VTDPASIDCacheKey *y = b;

    return x->dir == y->dir && x->pasid == y->pasid;
}

static gboolean vtd_pasid_cache_matches(gpointer key, gpointer value,
                                        gpointer user_data)
{
    const VTDPASIDCacheKey *cached = key;
    const VTDPASIDEntry *pe = value;
    const VTDPASIDCacheMatch *match = user_data;

    return (uint16_t)pe->val[1] == match->did &&
           (match->any_pasid || cached->pasid == match->pasid);
}

VTDPASIDCache *vtd_pasid_cache_new(void)
{
    VTDPASIDCache *cache = g_new0(VTDPASIDCache, 1);

    qemu_mutex_init(&cache->lock);
    cache->entries = g_hash_table_new_full(vtd_pasid_cache_hash,
                                           vtd_pasid_cache_equal,
                                           g_free, g_free);
    return cache;
}

bool vtd_pasid_cache_find(VTDPASIDCache *cache, dma_addr_t dir, uint32_t pasid,
                          VTDPASIDEntry *pe)
{
    const VTDPASIDCacheKey key = { .dir = dir, .pasid = pasid };
    const VTDPASIDEntry *cached;

    QEMU_LOCK_GUARD(&cache->lock);
    cached = g_hash_table_lookup(cache->entries, &key);
    if (cached) {
        *pe = *cached;
    }
    return cached;
}

void vtd_pasid_cache_add(VTDPASIDCache *cache, dma_addr_t dir, uint32_t pasid,
                         const VTDPASIDEntry *pe)
{
    VTDPASIDCacheKey *key = g_new(VTDPASIDCacheKey, 1);
    VTDPASIDEntry *copy = g_new(VTDPASIDEntry, 1);

    key->dir = dir;
    key->pasid = pasid;
    *copy = *pe;

    QEMU_LOCK_GUARD(&cache->lock);
    if (g_hash_table_size(cache->entries) >= VTD_PASID_CACHE_MAX) {
        g_hash_table_remove_all(cache->entries);
    }
    g_hash_table_replace(cache->entries, key, copy);
}

void vtd_pasid_cache_reset(VTDPASIDCache *cache)
{
    QEMU_LOCK_GUARD(&cache->lock);
    g_hash_table_remove_all(cache->entries);
}

bool vtd_pasid_cache_invalidate(VTDPASIDCache *cache, uint64_t desc)
{
    VTDPASIDCacheMatch match = {
        .did = VTD_INV_DESC_PC_DID(desc),
        .pasid = VTD_INV_DESC_PC_PASID_OF(desc),
    };

    switch (desc & VTD_INV_DESC_PC_G) {
    case VTD_INV_DESC_PC_GLOBAL:
        vtd_pasid_cache_reset(cache);
        return true;
    case VTD_INV_DESC_PC_DOMAIN:
        match.any_pasid = true;
        break;
    case VTD_INV_DESC_PC_PASID:
        break;
    default:
        return false;
    }

    QEMU_LOCK_GUARD(&cache->lock);
    g_hash_table_foreach_remove(cache->entries, vtd_pasid_cache_matches,
                                &match);
    return true;
}
