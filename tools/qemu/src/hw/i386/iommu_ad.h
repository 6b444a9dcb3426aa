/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Accessed and dirty flags of I/O page tables, as an IOMMU maintains them.
 *
 * Shared by emulated IOMMUs whose tables are guest memory: the caller walks and
 * judges, this file changes the entry. Three rules hold for every user:
 *
 * - A flag is set by compare-and-swap on guest memory, against the very word
 *   that the walk judged. An entry that changed meanwhile is read and judged
 *   again: the guest's change is never overwritten with a word read earlier.
 * - A cached translation remembers whether its leaf is dirty. A write through a
 *   clean one is a miss: it walks, and sets the flag.
 * - Nothing else ends the life of a cached translation than an invalidation.
 *   A guest that clears a flag and does not invalidate will not see it again.
 */

#ifndef HW_I386_IOMMU_AD_H
#define HW_I386_IOMMU_AD_H

/* QEMU 10.1 moved it */
#if __has_include("system/memory.h")
#include "system/memory.h"
#else
#include "exec/memory.h"
#endif

/*
 * An entry that changes under the walk again and again is a guest fighting with
 * its own device. Bounded, because the walk holds the IOMMU's lock.
 */
#define IOMMU_AD_TRIES 1000

/**
 * struct IOMMUADWalk - how one walk marks the entries that it passes
 * @as: the address space that the tables are read from
 * @accessed: the flag of every entry walked, 0: this walk marks nothing
 * @dirty: the flag of the leaf, in addition, if the access is a write
 * @tries: how often an entry may still change under the walk
 * @no_snoop: the walk does not snoop the processors' caches
 */
typedef struct IOMMUADWalk {
    AddressSpace *as;
    uint64_t accessed;
    uint64_t dirty;
    unsigned int tries;
    bool no_snoop;
} IOMMUADWalk;

typedef enum IOMMUADResult {
    IOMMU_AD_DONE,      /* the entry carries the flags, or needs none */
    IOMMU_AD_AGAIN,     /* the entry has changed: read it and judge it again */
    IOMMU_AD_FAILED,    /* the entry cannot be written */
    IOMMU_AD_REFUSED,   /* the walk does not snoop, so it must not write */
} IOMMUADResult;

static inline IOMMUADWalk iommu_ad_walk(AddressSpace *as, bool enabled,
                                        uint64_t accessed, uint64_t dirty)
{
    IOMMUADWalk walk = {
        .as = as,
        .accessed = enabled ? accessed : 0,
        .dirty = enabled ? dirty : 0,
        .tries = IOMMU_AD_TRIES,
    };

    return walk;
}

/**
 * iommu_ad_mark() - mark one entry that the walk has judged and accepted
 * @walk: the walk
 * @addr: where the entry is, 8-byte aligned
 * @entry: in: the word that was judged; out, if done: the word with its flags
 * @written: the entry is the leaf of a permitted write
 */
IOMMUADResult iommu_ad_mark(IOMMUADWalk *walk, hwaddr addr, uint64_t *entry,
                            bool written);

/*
 * Does a translation through @leaf, as this walk left it, let later writes pass
 * without a walk? So it does if the flag is set or nobody asked for it.
 */
static inline bool iommu_ad_leaf_is_settled(const IOMMUADWalk *walk,
                                            uint64_t leaf)
{
    return !walk->dirty || (leaf & walk->dirty);
}

/*
 * May a cached translation serve this access? One that lacks the permission may
 * not: hardware walks before it reports a fault.
 */
static inline bool iommu_ad_cache_serves(IOMMUAccessFlags perm, bool settled,
                                         bool is_write)
{
    if (is_write) {
        return (perm & IOMMU_WO) && settled;
    }
    return perm & IOMMU_RO;
}

#endif
