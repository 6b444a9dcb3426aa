// SPDX-License-Identifier: GPL-2.0
/*
 * What an emulated AMD IOMMU caches: device table entries, translations, links
 * between page tables.
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "amdvi_cache.h"

/* A full cache of translations, or of links, is emptied. */
#define AMDVI_CACHE_MAX 1024

#define AMDVI_PAGE_SHIFT 12

/* INVALIDATE_IOMMU_PAGES */
#define AMDVI_INVAL_PASID(cmd)  extract64((cmd)[0], 0, 20)
#define AMDVI_INVAL_DOMID(cmd)  extract64((cmd)[0], 32, 16)
#define AMDVI_INVAL_S           (1ULL << 0)
#define AMDVI_INVAL_PDE         (1ULL << 1)
#define AMDVI_INVAL_GN          (1ULL << 2)

struct AMDVICache {
    QemuMutex lock;
    GHashTable *dtes;           /* by device, as the pointer itself */
    GHashTable *translations;   /* by AMDVICacheKey */
    GHashTable *links;          /* by AMDVICacheKey; NULL: they are not kept */
};

/*
 * An address without the @order bits that a table entry leaves to others. Each
 * page of a large one that is used has an entry of its own. The device of @who
 * does not count: devices of one domain share what is cached.
 */
typedef struct AMDVICacheKey {
    uint64_t frame;
    unsigned int order;
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
    uint64_t mixed = key->frame ^ ((uint64_t)key->who.domid << 20) ^
                     key->who.pasid ^ ((uint64_t)key->order << 56);

    return (guint)(mixed ^ (mixed >> 32));
}

static gboolean amdvi_cache_equal(gconstpointer a, gconstpointer b)
{
    const AMDVICacheKey *x = a;
    const AMDVICacheKey *y = b;

    return x->frame == y->frame && x->order == y->order &&
           x->who.domid == y->who.domid && x->who.guest == y->who.guest &&
           x->who.pasid == y->who.pasid;
}

static bool amdvi_cache_is_about(const AMDVICacheMatch *match,
                                 const AMDVICacheKey *key, hwaddr mask)
{
    hwaddr first = (key->frame << key->order) & ~mask;
    hwaddr last = first | mask;

    return key->who.domid == match->domid && key->who.guest == match->guest &&
           key->who.pasid == match->pasid &&
           first <= match->last && last >= match->first;
}

static gboolean amdvi_cache_matches(gpointer k, gpointer v, gpointer user_data)
{
    const AMDVITranslation *to = v;

    return amdvi_cache_is_about(user_data, k, to->mask);
}

static gboolean amdvi_cache_matches_link(gpointer k, gpointer v,
                                         gpointer user_data)
{
    const AMDVICacheKey *key = k;

    return amdvi_cache_is_about(user_data, key,
                                MAKE_64BIT_MASK(0, key->order));
}

/* A table by keys, whose values are freed as well. */
static GHashTable *amdvi_cache_new_table(void)
{
    return g_hash_table_new_full(amdvi_cache_hash, amdvi_cache_equal,
                                 g_free, g_free);
}

static AMDVICacheKey amdvi_cache_key(const AMDVIWho *who, hwaddr addr,
                                     unsigned int order)
{
    return (AMDVICacheKey) {
        .frame = addr >> order,
        .order = order,
        .who = *who,
    };
}

/* Under the lock. @value becomes the table's. */
static void amdvi_cache_put(GHashTable *table, AMDVICacheKey key, void *value)
{
    if (g_hash_table_size(table) >= AMDVI_CACHE_MAX) {
        g_hash_table_remove_all(table);
    }
    g_hash_table_replace(table, g_memdup2(&key, sizeof(key)), value);
}

AMDVICache *amdvi_cache_new(bool links)
{
    AMDVICache *cache = g_new0(AMDVICache, 1);

    qemu_mutex_init(&cache->lock);
    cache->dtes = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    cache->translations = amdvi_cache_new_table();
    cache->links = links ? amdvi_cache_new_table() : NULL;
    return cache;
}

void amdvi_cache_reset(AMDVICache *cache)
{
    QEMU_LOCK_GUARD(&cache->lock);
    g_hash_table_remove_all(cache->dtes);
    g_hash_table_remove_all(cache->translations);
    if (cache->links) {
        g_hash_table_remove_all(cache->links);
    }
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
    const AMDVICacheKey key = amdvi_cache_key(who, addr, AMDVI_PAGE_SHIFT);
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
    QEMU_LOCK_GUARD(&cache->lock);
    amdvi_cache_put(cache->translations,
                    amdvi_cache_key(who, addr, AMDVI_PAGE_SHIFT),
                    g_memdup2(to, sizeof(*to)));
}

bool amdvi_cache_find_link(AMDVICache *cache, const AMDVIWho *who, hwaddr addr,
                           unsigned int order, uint64_t *link)
{
    const AMDVICacheKey key = amdvi_cache_key(who, addr, order);
    const uint64_t *cached;

    if (!cache->links) {
        return false;
    }
    QEMU_LOCK_GUARD(&cache->lock);
    cached = g_hash_table_lookup(cache->links, &key);
    if (cached) {
        *link = *cached;
    }
    return cached;
}

void amdvi_cache_add_link(AMDVICache *cache, const AMDVIWho *who, hwaddr addr,
                          unsigned int order, uint64_t link)
{
    if (!cache->links) {
        return;
    }
    QEMU_LOCK_GUARD(&cache->lock);
    amdvi_cache_put(cache->links, amdvi_cache_key(who, addr, order),
                    g_memdup2(&link, sizeof(link)));
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
    if (cache->links && cmd[1] & AMDVI_INVAL_PDE) {
        g_hash_table_foreach_remove(cache->links, amdvi_cache_matches_link,
                                    &match);
    }
}
